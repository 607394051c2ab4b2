//! `deltaic dare`: one model, DARE'd as the paper has it. It is a recipe that writes itself.

use std::sync::Arc;

use deltaic_checkpoint::{ModelReference, Result};
use deltaic_merge::PlanOptions;
use deltaic_merge::recipe::{Document, UnknownPolicy, parse};

use crate::arguments::{Dare, Of, Rescale};
use crate::messages::Messages;

pub fn run(arguments: &Dare, messages: &Messages) -> Result<()> {
    let text = recipe(arguments)?;
    let document = Arc::new(Document::new("deltaic dare", text, "."));
    let mut recipe = parse(document, UnknownPolicy::Strict)?.0;
    if arguments.seed.is_none() {
        // The text holds base, model and options, so what follows from it follows from these.
        let seed = recipe.seed_or_derived();
        messages.note(&format!("seed {seed} (give it as --seed to fix it)"));
        recipe = parse(Arc::new(Document::new("deltaic dare", with_seed(&recipe.document.text, seed), ".")), UnknownPolicy::Strict)?.0;
    }
    let options = PlanOptions { shard_bytes: arguments.out_shard_size, ..PlanOptions::default() };
    let plan = crate::reading::resolve(recipe, options, messages)?;
    super::merge::write(&plan, &arguments.out, &arguments.running, messages)
}

const SEED: &str = "    seed: ";

fn with_seed(text: &str, seed: u64) -> String {
    text.replacen("\nsparsify:", &format!("\n{SEED}{seed}\nsparsify:"), 1)
}

/// The recipe that says the same.
fn recipe(arguments: &Dare) -> Result<String> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    ModelReference::parse(&arguments.base)?;
    ModelReference::parse(&arguments.model)?;
    let mut text = format!(
        "preset: paper\nmerge_method: average\nbase_model: {}\nmodels:\n  - model: {}\nsparsify:\n  kind: dare\n  drop_rate: {}\n  rescale: {}\n  of: {}\n",
        quoted(&arguments.base),
        quoted(&arguments.model),
        arguments.drop_rate,
        match arguments.rescale {
            Rescale::Inverse => "inverse",
            Rescale::L1 => "l1",
            Rescale::None => "none",
        },
        match arguments.of {
            Of::Delta => "delta",
            Of::Weights => "weights",
        },
    );
    if !arguments.exclude.is_empty() {
        let patterns: Vec<String> = arguments.exclude.iter().map(|pattern| quoted(pattern)).collect();
        text += &format!("exclude: [{}]\n", patterns.join(", "));
    }
    if let Some(dtype) = &arguments.out_dtype {
        text += &format!("out_dtype: {}\n", quoted(dtype));
    }
    Ok(match arguments.seed {
        Some(seed) => with_seed(&text, seed),
        None => text,
    })
}
