//! `preset` and `merge_method`: which definition holds.

use deltaic_checkpoint::Result;

use super::not_yet::PAPER_METHODS;
use super::unknown::{Context, Fields, nearest};
use super::{Span, document::escaped};
use crate::methods::{self, Definition, Preset};

/// Reads `preset`; mergekit's without it.
pub(super) fn preset(context: &Context<'_>, fields: &Fields<'_>) -> Result<Preset> {
    match fields.get("preset") {
        None => Ok(Preset::Mergekit),
        Some(node) => match node.text() {
            Some("mergekit") => Ok(Preset::Mergekit),
            Some("paper") => Ok(Preset::Paper),
            _ => context.error(node.span, format!("unknown preset {}", node.described()), "`mergekit` (the default) or `paper`"),
        },
    }
}

/// Reads `merge_method`.
pub(super) fn method(context: &Context<'_>, fields: &Fields<'_>, preset: Preset) -> Result<(&'static Definition, Span)> {
    let Some((key, node)) = fields.entry("merge_method") else {
        return Err(deltaic_checkpoint::Error::new(format!("{}: no `merge_method`", context.document.name))
            .help("a recipe says how to merge, such as `merge_method: linear`; `deltaic methods` shows all"));
    };
    let Some(name) = node.text() else {
        return context.error(key.span, format!("`merge_method` names a method; found {}", node.described()), "");
    };
    if let Some(definition) = methods::find(name, preset) {
        return Ok((definition, node.span));
    }
    let shown = escaped(name);
    if preset == Preset::Paper && (methods::find(name, Preset::Mergekit).is_some() || methods::NOT_YET.contains(&name)) {
        let message = format!("`{shown}` does not exist under `preset: paper`, which has {}", PAPER_METHODS.join(", "));
        return context.error(node.span, message, paper_spelling(name));
    }
    if methods::find(name, Preset::Paper).is_some() {
        return context.error(node.span, format!("`{shown}` exists only under `preset: paper`"), "add `preset: paper`");
    }
    let known = methods::all().map(|definition| definition.name).chain(methods::NOT_YET.iter().copied());
    let error = match nearest(name, known) {
        Some(near) => context.document.error(node.span, format!("unknown method `{shown}`"), format!("did you mean `{near}`?")),
        None => context.document.error(node.span, format!("unknown method `{shown}`"), ""),
    };
    Err(error.help("`deltaic methods` shows all methods"))
}

/// How the paper's way of a mergekit composite is written.
fn paper_spelling(name: &str) -> String {
    let (method, kind) = match name {
        "dare_linear" => ("task_arithmetic", "dare"),
        "dare_ties" => ("ties", "dare"),
        "breadcrumbs" => ("task_arithmetic", "magnitude_outliers"),
        "breadcrumbs_ties" => ("ties", "magnitude_outliers"),
        "della_linear" => ("task_arithmetic", "della"),
        "della" => ("ties", "della"),
        "linear" => return "write `merge_method: average`, where wanted with `sparsify: {kind: dare, drop_rate: …}`".to_owned(),
        _ => return "leave `preset: paper` out; `sparsify: {kind: dare, drop_rate: …}` is the paper's DARE before any method".to_owned(),
    };
    format!("write `merge_method: {method}` with `sparsify: {{kind: {kind}, drop_rate: …}}`")
}

/// How it is truly said that something has no effect.
pub(super) fn effect(method: &Definition, preset: Preset) -> &'static str {
    match preset {
        Preset::Paper => "no effect under `preset: paper`",
        Preset::Mergekit if PAPER_METHODS.contains(&method.name) && method.preset != Some(Preset::Mergekit) => "no effect here",
        Preset::Mergekit => "no effect here, nor in mergekit",
    }
}
