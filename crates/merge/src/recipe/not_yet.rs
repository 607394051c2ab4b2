//! What is valid in a recipe and not built yet. It is looked for before anything else is judged, so that it ends in one clear error.

use deltaic_checkpoint::Result;

use super::Document;
use super::node::Node;
use crate::{methods, sparsifiers};

/// Keys at the top of a recipe.
pub(super) const TOP: &[&str] = &["tokenizer", "chat_template", "modules", "experts", "override_architecture"];

/// Parameters that only methods have which are not built yet.
pub(super) const PARAMETERS: &[&str] = &[
    "alpha",
    "eps",
    "epsilon",
    "gamma",
    "max_iter",
    "normalize_weights",
    "nuslerp_flatten",
    "nuslerp_row_wise",
    "r",
    "select_topk",
    "tol",
];

/// Methods that exist under `preset: paper`.
pub(super) const PAPER_METHODS: &[&str] = &["average", "task_arithmetic", "ties", "fisher", "regmean"];

/// Fails with `not yet:` where the recipe asks for what comes later.
pub(super) fn check(document: &Document, root: &Node) -> Result<()> {
    keys(document, root, TOP, "")?;
    if let Some(node) = root.get("merge_method")
        && let Some(name) = node.text()
        && methods::NOT_YET.contains(&name)
        && (PAPER_METHODS.contains(&name) || root.get("preset").and_then(Node::text) != Some("paper"))
    {
        return Err(document.not_yet(node.span, format!("the method `{name}`")));
    }
    block(document, root)?;
    for slice in root.get("slices").and_then(Node::items).unwrap_or_default() {
        reference(document, slice.get("base_model"))?;
        entries(document, slice.get("sources"))?;
    }
    entries(document, root.get("models"))
}

/// The models of `models` or `sources`.
fn entries(document: &Document, list: Option<&Node>) -> Result<()> {
    for entry in list.and_then(Node::items).unwrap_or_default() {
        reference(document, entry.get("model"))?;
        block(document, entry)?;
    }
    Ok(())
}

/// What the recipe and its entries have in common.
fn block(document: &Document, node: &Node) -> Result<()> {
    reference(document, node.get("base_model"))?;
    if let Some(kind) = node.get("sparsify").and_then(|sparsify| sparsify.get("kind"))
        && let Some(name) = kind.text()
        && sparsifiers::NOT_YET.contains(&name)
    {
        return Err(document.not_yet(kind.span, format!("the sparsifier `{name}`")));
    }
    Ok(())
}

fn reference(document: &Document, model: Option<&Node>) -> Result<()> {
    model.map_or(Ok(()), |model| keys(document, model, &["override_architecture"], " of a model"))
}

fn keys(document: &Document, node: &Node, later: &[&str], place: &str) -> Result<()> {
    for (key, value) in node.pairs().unwrap_or_default() {
        if later.contains(&key.text.as_str()) && !value.is_null() {
            return Err(document.not_yet(key.span, format!("the key `{}`{place}", key.text)));
        }
    }
    Ok(())
}
