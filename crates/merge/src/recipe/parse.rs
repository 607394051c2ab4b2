//! From a document to a [`Recipe`].

use std::sync::Arc;

use deltaic_checkpoint::Result;

use super::node::{self, Node};
use super::unknown::{Context, UnknownPolicy, Warning};
use super::{Document, Recipe, check, method, models, not_yet, own, recorded, settings, statistics, vocab};

/// Keys at the top of a recipe. `deltaic` holds what deltaic itself writes into `deltaic.yml` about where an output came from.
const TOP: &[&str] = &[
    "merge_method",
    "models",
    "slices",
    "base_model",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "parameters",
    "preset",
    "sparsify",
    "seed",
    "exclude",
    "data",
    "fisher",
    "gram",
    "vocab",
    "deltaic",
];

const LANGUAGE: &str = "docs/recipes.md has the whole language; `deltaic methods NAME` shows a recipe that runs";

/// Reads a recipe and checks everything about it that needs no model.
///
/// What is valid but not built yet is found first, then keys and parameters without effect, as `unknown` says: they come back as warnings.
///
/// # Errors
/// No YAML, a value of the wrong type or out of its range, a method or model that is missing, a number of models that the method does not
/// take, or a key that is nearly a known one: each with its line. Errors for what is not built yet begin with `not yet:`.
pub fn parse(document: Arc<Document>, unknown: UnknownPolicy) -> Result<(Recipe, Vec<Warning>)> {
    read(document, unknown).map_err(|error| {
        // What stands behind the underlined place mostly says what to write there.
        if !error.message().contains('^') || error.message().ends_with('^') { error.or_help(LANGUAGE) } else { error }
    })
}

fn read(document: Arc<Document>, unknown: UnknownPolicy) -> Result<(Recipe, Vec<Warning>)> {
    let root = node::read(&document)?;
    not_yet::check(&document, &root)?;
    let mut context = Context::new(&document);
    let result = recipe(&mut context, &root, &document);
    context.finish(unknown, result)
}

fn recipe(context: &mut Context<'_>, root: &Node, document: &Arc<Document>) -> Result<Recipe> {
    let fields = context.fields(root, "", &[TOP, not_yet::TOP].concat())?;
    let preset = method::preset(context, &fields)?;
    let (method, method_span) = method::method(context, &fields, preset)?;
    context.effect = method::effect(method, preset);
    statistics::note_unused(context, &fields, method);
    let recipe = Recipe {
        document: Arc::clone(document),
        preset,
        method,
        method_span,
        base_model: models::base_model(context, fields.get("base_model"))?,
        parameters: settings::parameters(context, fields.get("parameters"), method, false)?,
        layout: models::layout(context, root, method)?,
        sparsify: fields.get("sparsify").map(|node| own::sparsify(context, node)).transpose()?.flatten(),
        seed: own::seed(context, &fields)?,
        data: statistics::data(context, fields.get("data"))?,
        fisher: statistics::fisher(context, fields.get("fisher"), preset)?,
        gram: statistics::gram(context, fields.get("gram"), preset)?,
        exclude: own::exclude(context, &fields)?,
        vocab: fields.get("vocab").map(|node| vocab::on_mismatch(context, node)).transpose()?,
        dtype: own::dtype(context, &fields, "dtype")?,
        out_dtype: own::dtype(context, &fields, "out_dtype")?,
        tokenizer_source: models::tokenizer_source(context, fields.get("tokenizer_source"))?,
        recorded: fields.get("deltaic").map(recorded::read),
        place: None,
    };
    check::check(context, &recipe, root)?;
    statistics::check(context, &recipe)?;
    Ok(recipe)
}
