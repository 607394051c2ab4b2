//! `deltaic apply-delta`: a model that was published as weight differences, restored. It is a recipe that writes itself.

use std::sync::Arc;

use deltaic_checkpoint::{ModelReference, Result};
use deltaic_merge::PlanOptions;
use deltaic_merge::recipe::{Document, UnknownPolicy, parse};

use crate::arguments::ApplyDelta;
use crate::messages::Messages;

pub fn run(arguments: &ApplyDelta, messages: &Messages) -> Result<()> {
    let document = Arc::new(Document::new("deltaic apply-delta", recipe(arguments)?, "."));
    let recipe = parse(document, UnknownPolicy::Strict)?.0;
    let options = PlanOptions { shard_bytes: arguments.out_shard_size, ..PlanOptions::default() };
    let plan = crate::reading::resolve(recipe, options, messages)?;
    // No checks of the sources: differences are no fine-tune of the base, and are not meant to be.
    super::merge::run_plan(&plan, &arguments.out, &arguments.running, messages)
}

/// Base plus differences. The differences stand first, for config.json, tokenizer and dtype are theirs; a base that lacks rows (of a
/// `[PAD]` token) is given the mean of its own, as those who took the differences did.
fn recipe(arguments: &ApplyDelta) -> Result<String> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    ModelReference::parse(&arguments.base)?;
    ModelReference::parse(&arguments.delta)?;
    let mut text = format!(
        "merge_method: linear\nmodels:\n  - model: {}\n  - model: {}\nparameters: {{weight: 1, normalize: false}}\nvocab: {{on_mismatch: pad, fill: mean}}\n",
        quoted(&arguments.delta),
        quoted(&arguments.base),
    );
    if let Some(dtype) = &arguments.out_dtype {
        text += &format!("out_dtype: {}\n", quoted(dtype));
    }
    Ok(text)
}
