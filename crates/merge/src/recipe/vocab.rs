//! `vocab`: what is done where the models' vocabularies differ in size.

use deltaic_checkpoint::{Result, RowFill};

use super::node::Node;
use super::own::choice;
use super::unknown::Context;

/// What is done with the rows that only some models have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMismatch {
    /// The merge ends with an error that names tensor, models and sizes.
    Error,
    /// Every model keeps its first rows, as many as the smallest has.
    Truncate,
    /// Every model gets as many rows as the largest has.
    Pad(RowFill),
}

const FILLS: [(&str, RowFill); 2] = [("mean", RowFill::Mean), ("zero", RowFill::Zero)];

/// Reads `vocab`.
pub(super) fn on_mismatch(context: &Context<'_>, node: &Node) -> Result<OnMismatch> {
    let example = "such as `{on_mismatch: pad}`";
    if node.pairs().is_none() {
        return context.error(node.span, format!("`vocab` is a mapping; found {}", node.described()), example);
    }
    let fields = context.own_fields(node, "`vocab`", &["on_mismatch", "fill"])?;
    let fill = choice(context, &fields, "fill", &FILLS.map(|(name, _)| name))?;
    let chosen = choice(context, &fields, "on_mismatch", &["error", "truncate", "pad"])?;
    if let (Some(_), Some("error" | "truncate"), Some((key, _))) = (fill, chosen, fields.entry("fill")) {
        return context.error(key.span, "`fill` is for rows that are made", "only `on_mismatch: pad` makes any");
    }
    match chosen {
        Some("pad") => {
            let known = FILLS.iter().find(|(name, _)| Some(*name) == fill);
            Ok(OnMismatch::Pad(known.map_or(RowFill::Mean, |(_, fill)| *fill)))
        }
        Some("truncate") => Ok(OnMismatch::Truncate),
        Some(_) => Ok(OnMismatch::Error),
        None => context.error(node.span, "`vocab` without `on_mismatch`", example),
    }
}

/// The value as YAML, with its default.
pub(super) fn written(on_mismatch: OnMismatch) -> String {
    match on_mismatch {
        OnMismatch::Error => "{on_mismatch: error}".to_owned(),
        OnMismatch::Truncate => "{on_mismatch: truncate}".to_owned(),
        OnMismatch::Pad(fill) => {
            let name = FILLS.iter().find(|(_, known)| *known == fill).map_or("mean", |(name, _)| name);
            format!("{{on_mismatch: pad, fill: {name}}}")
        }
    }
}
