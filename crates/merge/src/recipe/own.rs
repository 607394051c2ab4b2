//! deltaic's own keys: `sparsify`, `seed`, `exclude`; and the dtypes that both dialects name alike.

use deltaic_checkpoint::{DType, Result};

use super::document::escaped;
use super::node::Node;
use super::unknown::{Context, Fields, nearest};
use super::{Scalar, Spanned, scalar};
use crate::gather::Operands;
use crate::sparsifiers;
use crate::sparsifiers::{Rescale, Sparsify, complement};

/// Greatest size of a compiled pattern of `exclude`, in bytes.
const MAX_PATTERN: usize = 1 << 20;
/// Greatest size of all of them together: compiling takes time, too.
const MAX_PATTERNS: usize = 8 << 20;

/// Reads `sparsify`; `none` is no sparsifier.
pub(super) fn sparsify(context: &Context<'_>, node: &Node) -> Result<Option<Sparsify>> {
    if node.is_null() || node.text() == Some("none") {
        return Ok(None);
    }
    if node.text().is_some() {
        let message = format!("`sparsify` is a mapping, or `none`; found {}", node.described());
        return context.error(node.span, message, "such as `{kind: dare, drop_rate: 0.9}`");
    }
    let fields = context.own_fields(node, "`sparsify`", &["kind", "drop_rate", "density", "rescale", "of", "seed"])?;
    let Some(kind) = fields.get("kind") else {
        return context.error(node.span, "`sparsify` without `kind`", "such as `{kind: dare, drop_rate: 0.9}`");
    };
    let known: Vec<&str> = sparsifiers::all().map(|definition| definition.name).collect();
    let Some(definition) = kind.text().and_then(sparsifiers::find) else {
        let near =
            if kind.text() == Some("random") { Some("dare") } else { kind.text().and_then(|text| nearest(text, known.iter().copied())) };
        let label = near.map_or_else(|| format!("known: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
        return context.error(kind.span, format!("unknown sparsifier {}", kind.described()), label);
    };
    let rescale = match choice(context, &fields, "rescale", &["inverse", "l1", "none"])? {
        None | Some("inverse") => Rescale::Inverse,
        Some("l1") => Rescale::L1,
        _ => Rescale::None,
    };
    let of = match choice(context, &fields, "of", &["delta", "weights"])? {
        Some("weights") => Operands::Weights,
        _ => Operands::Deltas,
    };
    let drop_rate = drop_rate(context, node, &fields)?;
    Ok(Some(Sparsify { kind: definition.name.to_owned(), drop_rate, rescale, of, seed: seed(context, &fields)? }))
}

/// `drop_rate`, or 1 - `density`.
fn drop_rate(context: &Context<'_>, node: &Node, fields: &Fields<'_>) -> Result<f64> {
    let rate = |name: &str, node: &Node| {
        let value = node.text().and_then(scalar::number);
        match value {
            Some(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
            _ => context.error(node.span, format!("`{name}` is {}; expected one number within 0 and 1", node.described()), ""),
        }
    };
    match (fields.get("drop_rate"), fields.get("density")) {
        (Some(node), None) => rate("drop_rate", node),
        (None, Some(node)) => Ok(complement(rate("density", node)?)),
        (Some(_), Some(density)) => {
            context.error(density.span, "both `drop_rate` and `density`", "one is 1 minus the other: give one of them")
        }
        (None, None) => context.error(node.span, "`sparsify` without `drop_rate` (or `density`)", "such as `drop_rate: 0.9`"),
    }
}

/// One of a few words. A bare `none` is a word here, YAML's null is the default.
pub(super) fn choice<'n>(context: &Context<'_>, fields: &Fields<'n>, name: &str, known: &[&str]) -> Result<Option<&'n str>> {
    let Some(node) = fields.get(name) else { return Ok(None) };
    match node.text() {
        Some(text) if known.contains(&text) => Ok(Some(text)),
        _ => context.error(node.span, format!("`{name}` is {}", node.described()), format!("one of: {}", known.join(", "))),
    }
}

/// Reads `seed`: 0 ..= 2^64 - 1.
pub(super) fn seed(context: &Context<'_>, fields: &Fields<'_>) -> Result<Option<u64>> {
    let Some(node) = fields.get("seed") else { return Ok(None) };
    let digits = node.text().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0')));
    match digits.and_then(|text| text.parse().ok()) {
        Some(seed) => Ok(Some(seed)),
        None => context.error(node.span, format!("`seed` is {}; expected a whole number from 0 to 2^64 - 1", node.described()), ""),
    }
}

/// Reads `exclude`: each pattern has to match a whole name.
pub(super) fn exclude(context: &Context<'_>, fields: &Fields<'_>) -> Result<Vec<Spanned<regex::Regex>>> {
    let Some(node) = fields.get("exclude") else { return Ok(Vec::new()) };
    let Some(items) = node.items() else {
        let message = format!("`exclude` is a list of regular expressions; found {}", node.described());
        return context.error(node.span, message, "such as `['.*classifier.*']`");
    };
    items.iter().map(|item| pattern(context, item, items.len())).collect()
}

/// Compiles one of so many `patterns`.
fn pattern(context: &Context<'_>, node: &Node, patterns: usize) -> Result<Spanned<regex::Regex>> {
    let Some(text) = node.text() else {
        return context.error(node.span, format!("a pattern of `exclude` is text; found {}", node.described()), "");
    };
    match whole_name(text, patterns) {
        Ok(regex) => Ok(Spanned { value: regex, span: node.span }),
        Err(reason) => context.error(node.span, format!("`exclude` has no valid regular expression: {}", escaped(&reason)), ""),
    }
}

/// A regular expression that matches whole names only, one of so many `patterns`, which together are bounded; where it cannot be
/// compiled, the reason in one line.
pub(crate) fn whole_name(text: &str, patterns: usize) -> std::result::Result<regex::Regex, String> {
    let most = MAX_PATTERN.min(MAX_PATTERNS / patterns.max(1));
    let compile = |pattern: &str| regex::RegexBuilder::new(pattern).size_limit(most).dfa_size_limit(most).build();
    // On its own first: `a)|(b` would be whole only between the parentheses.
    compile(text).and_then(|_| compile(&format!("^(?:{text})$"))).map_err(|error| {
        let reason = error.to_string();
        reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// The pattern as written.
pub(super) fn pattern_text(regex: &regex::Regex) -> &str {
    let text = regex.as_str();
    text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$")).unwrap_or(text)
}

/// Dtypes by the names that recipes give them.
const DTYPES: &[(&str, DType)] = &[("float32", DType::F32), ("bfloat16", DType::BF16), ("float16", DType::F16), ("float64", DType::F64)];

/// Reads `dtype` or `out_dtype`.
pub(super) fn dtype(context: &Context<'_>, fields: &Fields<'_>, name: &str) -> Result<Option<DType>> {
    let Some(node) = fields.get(name) else { return Ok(None) };
    let bare = node.text().map(|text| text.strip_prefix("torch.").unwrap_or(text));
    if let Some((_, dtype)) = DTYPES.iter().find(|(known, _)| Some(*known) == bare) {
        return Ok(Some(*dtype));
    }
    let label = match bare {
        Some("int64") => "models are merged in floating point: float32, bfloat16, float16, float64",
        Some("bf16") => "did you mean `bfloat16`?",
        Some("fp16" | "f16" | "half") => "did you mean `float16`?",
        Some("fp32" | "f32" | "float") => "did you mean `float32`?",
        _ => "one of: float32, bfloat16, float16, float64",
    };
    context.error(node.span, format!("`{name}` is {}", node.described()), label)
}

/// The name that a recipe gives a dtype.
pub(super) fn dtype_name(dtype: DType) -> &'static str {
    DTYPES.iter().find(|(_, known)| *known == dtype).map_or("float32", |(name, _)| *name)
}

/// Whether plain text would be read as something else than text.
pub(super) fn is_plain_text(text: &str) -> bool {
    matches!(Scalar::read(text, true), Scalar::Text(_)) && !matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
