//! `deltaic.yml`: the resolved recipe with absolute paths, and what made the model. It is itself a recipe and runs from any folder.

use std::fmt::Write;

use crate::plan::{MaskId, Plan, Source};

/// The text of `deltaic.yml`.
pub(super) fn text(plan: &Plan) -> String {
    let mut text = String::from(
        "# How this model was made, with every default filled in and the sources' places on the machine that made it.\n\
         # `deltaic merge deltaic.yml OUT` makes it again.\n",
    );
    text += &plan.resolved_recipe(&Source::absolute_reference);
    let _ = writeln!(text, "deltaic:\n  version: {}\n  seed: {}", env!("CARGO_PKG_VERSION"), plan.seed);
    let ids: Vec<String> = plan.masks.iter().map(|MaskId { seed, stream }| format!("{{seed: {seed}, stream: {stream}}}")).collect();
    let _ = writeln!(text, "  masks: [{}]", ids.join(", "));
    let _ = writeln!(text, "  flags: [{}]", flags(plan).join(", "));
    text += "  sources:\n";
    for source in &plan.sources {
        let _ = writeln!(text, "    - {}", serde_json::Value::from(source.absolute_reference().to_string()));
    }
    text
}

/// Those flags of the command line that change bytes of the output, as they have to be given again.
pub(super) fn flags(plan: &Plan) -> Vec<String> {
    let mut flags = Vec::new();
    if plan.options.shard_bytes != crate::PlanOptions::default().shard_bytes {
        flags.push(format!("--out-shard-size={}", plan.options.shard_bytes));
    }
    if plan.draws_from_the_recipes_seed()
        && plan.recipe.seed.is_none()
        && let Some(seed) = plan.options.seed
    {
        flags.push(format!("--random-seed={seed}"));
    }
    if !plan.options.copy_tokenizer {
        flags.push("--no-copy-tokenizer".to_owned());
    }
    if plan.options.allow_different_architectures {
        flags.push("--allow-crimes".to_owned());
    }
    flags
}
