//! From a recipe's file to a plan, with everything said that the user should know.

use std::path::Path;
use std::sync::Arc;

use deltaic_checkpoint::Result;
use deltaic_merge::recipe::{Document, Recipe, UnknownPolicy, parse};
use deltaic_merge::{Plan, PlanOptions};

use crate::arguments::Reading;
use crate::messages::Messages;

/// Reads a recipe and resolves it; warnings are said.
pub fn read_plan(recipe: &Path, reading: &Reading, messages: &Messages) -> Result<Plan> {
    let (recipe, options) = read_recipe(recipe, reading, messages)?;
    resolve(recipe, options, messages)
}

/// Reads a recipe; warnings are said.
pub fn read_recipe(recipe: &Path, reading: &Reading, messages: &Messages) -> Result<(Recipe, PlanOptions)> {
    let document = if recipe == Path::new("-") {
        Document::from_reader("stdin", std::io::stdin().lock(), ".")?
    } else {
        Document::read_given(recipe)?
    };
    let policy = match (reading.ignore_unknown, reading.strict) {
        (true, _) => UnknownPolicy::Ignore,
        (_, true) => UnknownPolicy::Strict,
        _ => UnknownPolicy::Default,
    };
    let (recipe, warnings) = parse(Arc::new(document), policy)?;
    warnings.iter().for_each(|warning| messages.warning(&warning.to_string()));
    let without_effect = reading.mergekit.without_effect();
    if !without_effect.is_empty() {
        messages.note(&format!("no effect here: {}", without_effect.join(" ")));
    }
    let options = PlanOptions {
        shard_bytes: reading.out_shard_size,
        seed: reading.random_seed,
        copy_tokenizer: !reading.no_copy_tokenizer,
        allow_different_architectures: reading.allow_crimes,
        ..PlanOptions::default()
    };
    Ok((recipe, options))
}

/// Resolves a recipe; warnings and the seed are said.
pub fn resolve(recipe: Recipe, options: PlanOptions, messages: &Messages) -> Result<Plan> {
    let plan = Plan::new(recipe, options)?;
    plan.warnings.iter().for_each(|warning| messages.warning(warning));
    if plan.draws_from_the_recipes_seed() {
        let from = if plan.recipe.seed.is_some() { "the recipe's" } else { "give it as `seed` to fix it" };
        messages.note(&format!("seed {} ({from})", plan.seed));
    }
    Ok(plan)
}
