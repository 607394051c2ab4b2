//! `models`, `slices` and references to models.

use deltaic_checkpoint::{ModelReference, Result};

use super::node::Node;
use super::unknown::Context;
use super::{Entry, Layout, OwnSparsify, Slice, Spanned, TokenizerSource, own, settings, statistics};
use crate::methods::Definition;

/// Keys beside `model`.
const ENTRY: &[&str] = &["model", "parameters", "sparsify", "seed", "statistics", "data"];

/// Reads `models` or `slices`, of which there is exactly one.
pub(super) fn layout(context: &mut Context<'_>, root: &Node, method: &Definition) -> Result<Layout> {
    match (root.get("models"), root.get("slices")) {
        (Some(models), None) => Ok(Layout::Models(entries(context, models, "models", method, false)?)),
        (None, Some(slices)) => {
            let items = list(context, slices, "slices")?;
            if items.is_empty() {
                return context.error(slices.span, "`slices` is empty", "");
            }
            Ok(Layout::Slices(items.iter().map(|slice| read_slice(context, slice, method)).collect::<Result<_>>()?))
        }
        (Some(models), Some(slices)) => {
            let line = context.document.line(models.span);
            let message = format!("both `models` and `slices` (`models` in line {line})");
            let span = root.entry("slices").map_or(slices.span, |(key, _)| key.span);
            context.error(span, message, "a recipe has one of them")
        }
        (None, None) => Err(deltaic_checkpoint::Error::new(format!("{}: neither `models` nor `slices`", context.document.name))
            .help("a recipe lists what it merges: `models: [{model: …}, …]`, or `slices` with ranges of layers")),
    }
}

fn list<'n>(context: &Context<'_>, node: &'n Node, name: &str) -> Result<&'n [Node]> {
    match node.items() {
        Some(items) => Ok(items),
        None => context.error(node.span, format!("`{name}` is a list; found {}", node.described()), ""),
    }
}

fn entries(context: &mut Context<'_>, node: &Node, name: &str, method: &Definition, in_slice: bool) -> Result<Vec<Entry>> {
    let items = list(context, node, name)?;
    items.iter().map(|item| entry(context, item, method, in_slice)).collect()
}

fn entry(context: &mut Context<'_>, node: &Node, method: &Definition, in_slice: bool) -> Result<Entry> {
    if node.text().is_some() {
        let found = node.described();
        let label = format!("write `model: {}`", found.trim_matches('`'));
        return context.error(node.span, format!("a model stands in a mapping; found {found}"), label);
    }
    let block = if in_slice { "a source of a slice" } else { "an entry of `models`" };
    let mut known = ENTRY.to_vec();
    if in_slice {
        known.push("layer_range");
    }
    let fields = context.fields(node, block, &known)?;
    let Some(model) = fields.get("model") else {
        return context.error(node.span, format!("{block} without `model`"), "");
    };
    let sparsify = match fields.entry("sparsify") {
        None => OwnSparsify::Inherited,
        Some((_, value)) => own::sparsify(context, value)?.map_or(OwnSparsify::Off, OwnSparsify::Own),
    };
    let layer_range = match fields.get("layer_range") {
        _ if !in_slice => None,
        Some(range) => Some(layer_range(context, range)?),
        None => return context.error(node.span, "a source of a slice without `layer_range`", "such as `layer_range: [0, 16]`"),
    };
    statistics::note_unused(context, &fields, method);
    Ok(Entry {
        statistics: statistics::statistics(context, fields.get("statistics"))?,
        data: statistics::data(context, fields.get("data"))?,
        model: reference(context, model)?,
        layer_range,
        sparsify,
        seed: own::seed(context, &fields)?,
        parameters: settings::parameters(context, fields.get("parameters"), method, true)?,
    })
}

fn layer_range(context: &Context<'_>, node: &Node) -> Result<(usize, usize)> {
    let bound = |node: &Node| node.text().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<u32>().ok();
    let bounds: Option<Vec<u32>> = node.items().and_then(|items| items.iter().map(bound).collect());
    match bounds.as_deref() {
        Some([first, end]) if first < end => Ok((*first as usize, *end as usize)),
        Some([first, end]) => {
            let message = format!("`layer_range` [{first}, {end}] holds no layer");
            context.error(node.span, message, "from the first, up to and without the second")
        }
        _ => context.error(node.span, "`layer_range` is two whole numbers", "`[0, 16]` is the first sixteen layers"),
    }
}

fn read_slice(context: &mut Context<'_>, node: &Node, method: &Definition) -> Result<Slice> {
    let fields = context.fields(node, "a slice", &["sources", "base_model", "parameters", "residual_weight"])?;
    if let Some((key, _)) = fields.entry("residual_weight") {
        context.note(key.span, "`residual_weight` is accepted and ignored".to_owned(), None, String::new());
    }
    let Some(sources) = fields.get("sources") else {
        return context.error(node.span, "a slice without `sources`", "such as `sources: [{model: …, layer_range: [0, 16]}]`");
    };
    let slice = Slice {
        sources: entries(context, sources, "sources", method, true)?,
        base_model: base_model(context, fields.get("base_model"))?,
        parameters: settings::parameters(context, fields.get("parameters"), method, false)?,
        span: node.span,
    };
    let Some(first) = slice.sources.first() else {
        return context.error(sources.span, "a slice without a source", "");
    };
    let length = |entry: &Entry| entry.layer_range.map_or(0, |(first, end)| end - first);
    if let Some(other) = slice.sources.iter().find(|entry| length(entry) != length(first)) {
        let message = format!(
            "the sources of one slice must have as many layers: {} has {}, {} has {}",
            first.model.value,
            length(first),
            other.model.value,
            length(other)
        );
        return context.error(other.model.span, message, "");
    }
    Ok(slice)
}

/// Reads `base_model`.
pub(super) fn base_model(context: &mut Context<'_>, node: Option<&Node>) -> Result<Option<Spanned<ModelReference>>> {
    node.map(|node| reference(context, node)).transpose()
}

/// Reads `tokenizer_source`.
pub(super) fn tokenizer_source(context: &mut Context<'_>, node: Option<&Node>) -> Result<Option<Spanned<TokenizerSource>>> {
    let Some(node) = node else { return Ok(None) };
    let value = match node.text() {
        Some("base") => TokenizerSource::Base,
        Some("union") => TokenizerSource::Union,
        _ => TokenizerSource::Model(reference(context, node)?.value),
    };
    Ok(Some(Spanned { value, span: node.span }))
}

/// Reads a model: `path[@revision][+adapter[@revision]]`, or `{model: {path, revision}, lora: {path, revision}}`, whose parts are taken as
/// they are, whatever signs they hold.
fn reference(context: &mut Context<'_>, node: &Node) -> Result<Spanned<ModelReference>> {
    if let Some(text) = node.text() {
        return match ModelReference::parse(text) {
            Ok(value) => Ok(Spanned { value, span: node.span }),
            Err(error) => context.error(node.span, error.message(), ""),
        };
    }
    if node.pairs().is_none() {
        return context.error(node.span, format!("a model is a path or a name; found {}", node.described()), "");
    }
    let fields = context.fields(node, "a reference to a model", &["model", "lora", "override_architecture"])?;
    let Some(model) = fields.get("model") else {
        return context.error(node.span, "a reference to a model without `model`", "such as `{model: {path: …, revision: …}}`");
    };
    let (path, revision) = part(context, model)?;
    let lora = fields.get("lora").map(|lora| part(context, lora)).transpose()?;
    Ok(Spanned { value: ModelReference { path, revision, lora }, span: node.span })
}

/// A path and its revision, from `path[@revision]` or `{path, revision}`.
fn part(context: &mut Context<'_>, node: &Node) -> Result<(String, Option<String>)> {
    if let Some(text) = node.text() {
        return match ModelReference::parse(text) {
            Ok(ModelReference { path, revision, lora: None }) => Ok((path, revision)),
            Ok(_) => context.error(node.span, format!("{} names an adapter too", node.described()), "it belongs in `lora`"),
            Err(error) => context.error(node.span, error.message(), ""),
        };
    }
    let fields = context.fields(node, "a model's path", &["path", "revision"])?;
    let word = |name: &str| fields.get(name).map(|node| node.text().filter(|text| !text.is_empty()).map(str::to_owned));
    match (word("path"), word("revision")) {
        (Some(Some(path)), None) => Ok((path, None)),
        (Some(Some(path)), Some(Some(revision))) => Ok((path, Some(revision))),
        _ => context.error(node.span, "a model's `path`, and where given its `revision`, are text", ""),
    }
}
