//! `deltaic.yml`: the resolved recipe with absolute paths, and what made the model. It is itself a recipe and runs from any folder.

use std::fmt::Write;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{FileIdentity, Result};
use serde_json::json;

use crate::plan::{MaskId, Plan, SHARD_BYTES, Spelling};

/// The text of `deltaic.yml`. With `hash` all bytes of the sources are read for their SHA-256.
pub(super) fn text(plan: &Plan, hash: bool, cancel: &AtomicBool) -> Result<String> {
    let mut text = String::from(
        "# How this model was made, with every default filled in and the sources' places on the machine that made it.\n\
         # `deltaic merge deltaic.yml OUT` makes it again; `deltaic verify` holds it against its sources.\n",
    );
    text += &plan.resolved_recipe(Spelling::Absolute);
    let _ = writeln!(text, "deltaic:\n  version: {}\n  plan: {}", env!("CARGO_PKG_VERSION"), json!(plan.hash()));
    if plan.draws_from_the_recipes_seed() {
        let _ = writeln!(text, "  seed: {}", plan.seed);
    }
    let ids: Vec<String> = plan.masks.iter().map(|MaskId { seed, stream }| format!("{{seed: {seed}, stream: {stream}}}")).collect();
    let _ = writeln!(text, "  masks: [{}]", ids.join(", "));
    let options = &plan.options;
    let _ = writeln!(
        text,
        "  options: {{shard_bytes: {}, copy_tokenizer: {}, allow_different_architectures: {}}}",
        options.shard_bytes.unwrap_or(SHARD_BYTES),
        options.copy_tokenizer,
        options.allow_different_architectures
    );
    text += "  sources:  # `id` and `sample`: SHA-256 of 64 windows of each file's content\n";
    for source in &plan.sources {
        let _ = writeln!(
            text,
            "    - model: {}\n      id: {}\n      files:",
            json!(source.absolute_reference().to_string()),
            json!(source.id())
        );
        for file in &source.files {
            let _ = writeln!(text, "        - {}", described(file, hash, cancel)?);
        }
    }
    Ok(text)
}

/// A file as one line of YAML (which JSON is).
fn described(file: &FileIdentity, hash: bool, cancel: &AtomicBool) -> Result<String> {
    let mut described = json!({"name": file.name(), "bytes": file.bytes, "sample": file.sample});
    if let Some(blob) = &file.blob {
        described["blob"] = json!(blob);
    }
    if hash {
        described["sha256"] = json!(file.sha256(cancel)?);
    }
    Ok(described.to_string())
}

/// Those flags of the command line that change bytes of the output, as they have to be given again with the recipe as it was given.
pub(super) fn flags(plan: &Plan) -> Vec<String> {
    let mut flags = Vec::new();
    if let Some(bytes) = plan.options.shard_bytes.filter(|bytes| *bytes != SHARD_BYTES) {
        flags.push(format!("--out-shard-size={bytes}"));
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
