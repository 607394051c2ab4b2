//! `statistics`, `data`, `fisher`, `gram`: what Fisher merging and RegMean know of the models' data.

use deltaic_checkpoint::Result;

use super::node::Node;
use super::unknown::{Context, Fields};
use super::{Entry, Layout, Recipe, Spanned, own, scalar};
use crate::methods::{Definition, Preset, Statistics};

/// Examples in a batch of the authors' program.
const AUTHORS_BATCH: usize = 16;

const EXAMPLE: &str = "`{task: glue/mrpc, path: DIR, split: train, examples: 1000}`, or `{inputs: FILE}`";

/// How a model's Fisher information is computed and used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FisherSettings {
    /// Whether the models' coefficients are divided by the L2 norm of their Fisher weights (semantics of MergeLM).
    pub normalize: bool,
    /// What is added to each Fisher weight; at least 0.
    pub minimal: f64,
    /// Over what squares are taken.
    pub batch: FisherBatch,
    /// Of which tokens a decoder's gradient is taken.
    pub targets: Targets,
}

/// Over what a gradient is summed before it is squared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FisherBatch {
    /// Each example (and class) by itself: the mean over examples of the expected square.
    Example,
    /// A batch of so many examples: the square of the sum, cross terms included, as the authors' program has it.
    Sum {
        /// Examples in a batch.
        size: usize,
    },
}

/// Target tokens of a decoder's Fisher information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// Those of the text.
    Empirical,
    /// Drawn from the model itself.
    Sampled {
        /// Seed of the draws.
        seed: u64,
    },
}

/// How Gram matrices are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GramSettings {
    /// What padding counts as.
    pub padding: Padding,
    /// Examples in a batch, which are padded to its longest; without one, the inputs' own width.
    pub batch_size: Option<usize>,
}

/// Whether padding positions are rows of a Gram matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// They are not.
    Exclude,
    /// They are, as in the authors' program.
    Include,
}

/// The examples from which a model's statistics are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSettings {
    /// Where they come from.
    pub source: DataSource,
    /// How many are taken; all without it.
    pub examples: Option<usize>,
    /// In which order.
    pub order: Order,
}

/// Where examples come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// A task's items.
    Task {
        /// Its name, or the path of its file.
        task: String,
        /// The folder with its data; relative to the recipe's folder.
        path: String,
        /// The split: a file's stem such as `train`; without it the task's own file.
        split: Option<String>,
    },
    /// A safetensors file of token ids; relative to the recipe's folder.
    Inputs(String),
}

/// The order in which examples are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they stand.
    File,
    /// Permuted as NumPy's `RandomState(seed).permutation(n)` does.
    Permuted {
        /// The seed, 32 bits.
        seed: u32,
    },
}

impl FisherSettings {
    /// What holds without a `fisher` block: one example at a time, or under `preset: paper` the authors' batches of 16.
    pub fn default_of(preset: Preset) -> Self {
        let batch = match preset {
            Preset::Mergekit => FisherBatch::Example,
            Preset::Paper => FisherBatch::Sum { size: AUTHORS_BATCH },
        };
        Self { normalize: true, minimal: 1e-6, batch, targets: Targets::Empirical }
    }
}

impl GramSettings {
    /// What holds without a `gram` block: padding does not count, but under `preset: paper`.
    pub fn default_of(preset: Preset) -> Self {
        let padding = match preset {
            Preset::Mergekit => Padding::Exclude,
            Preset::Paper => Padding::Include,
        };
        Self { padding, batch_size: None }
    }
}

/// Reads `fisher`.
pub(super) fn fisher(context: &Context<'_>, node: Option<&Node>, preset: Preset) -> Result<FisherSettings> {
    let default = FisherSettings::default_of(preset);
    let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(default) };
    let fields = context.own_fields(node, "`fisher`", &["normalize", "minimal", "batch", "batch_size", "targets", "seed"])?;
    let size = size(context, &fields, "batch_size")?;
    let batch = match (own::choice(context, &fields, "batch", &["example", "sum"])?, size) {
        (Some("example"), None) => FisherBatch::Example,
        (None, None) => default.batch,
        (Some("sum"), None) => FisherBatch::Sum { size: AUTHORS_BATCH },
        (Some("sum"), Some(size)) => FisherBatch::Sum { size },
        (None, Some(size)) if default.batch != FisherBatch::Example => FisherBatch::Sum { size },
        _ => return context.error(node.span, "`batch_size` without `batch: sum`", "with `batch: example` every example stands for itself"),
    };
    let seed = own::seed(context, &fields)?;
    let targets = match (own::choice(context, &fields, "targets", &["empirical", "sampled"])?, seed) {
        (Some("sampled"), seed) => Targets::Sampled { seed: seed.unwrap_or(0) },
        (_, None) => Targets::Empirical,
        (_, Some(_)) => return context.error(node.span, "`seed` without `targets: sampled`", "nothing else of `fisher` is drawn"),
    };
    let minimal = match fields.get("minimal") {
        None => default.minimal,
        Some(value) => match value.text().and_then(scalar::number) {
            Some(minimal) if minimal >= 0.0 && minimal.is_finite() => minimal,
            _ => return context.error(value.span, format!("`minimal` is {}; expected a number from 0 on", value.described()), ""),
        },
    };
    let normalize = own::choice(context, &fields, "normalize", &["true", "false"])?.map_or(default.normalize, |word| word == "true");
    Ok(FisherSettings { normalize, minimal, batch, targets })
}

/// Reads `gram`.
pub(super) fn gram(context: &Context<'_>, node: Option<&Node>, preset: Preset) -> Result<GramSettings> {
    let default = GramSettings::default_of(preset);
    let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(default) };
    let fields = context.own_fields(node, "`gram`", &["padding", "batch_size"])?;
    let padding = match own::choice(context, &fields, "padding", &["exclude", "include"])? {
        None => default.padding,
        Some("include") => Padding::Include,
        Some(_) => Padding::Exclude,
    };
    Ok(GramSettings { padding, batch_size: size(context, &fields, "batch_size")? })
}

/// Reads `data`.
pub(super) fn data(context: &Context<'_>, node: Option<&Node>) -> Result<Option<Spanned<DataSettings>>> {
    let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(None) };
    let fields = context.own_fields(node, "`data`", &["task", "path", "split", "examples", "order", "seed", "inputs"])?;
    let text = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(value) => match value.text().filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(text.to_owned())),
            None => context.error(value.span, format!("`{name}` is {}; expected text", value.described()), ""),
        },
    };
    let source = match (text("task")?, text("path")?, text("inputs")?, text("split")?) {
        (Some(task), Some(path), None, split) => DataSource::Task { task, path, split },
        (None, None, Some(inputs), None) => DataSource::Inputs(inputs),
        _ => return context.error(node.span, "`data` names a task and its folder, or a file of token ids", EXAMPLE),
    };
    let seed = own::seed(context, &fields)?;
    let order = match (own::choice(context, &fields, "order", &["file", "permuted"])?, seed) {
        (Some("permuted"), seed) => match u32::try_from(seed.unwrap_or(0)) {
            Ok(seed) => Order::Permuted { seed },
            Err(_) => return context.error(node.span, "the `seed` of an order has 32 bits", "it is NumPy's RandomState"),
        },
        (_, None) => Order::File,
        (_, Some(_)) => return context.error(node.span, "`seed` without `order: permuted`", "nothing else of `data` is drawn"),
    };
    let value = DataSettings { source, examples: size(context, &fields, "examples")?, order };
    Ok(Some(Spanned { value, span: node.span }))
}

/// Reads `statistics`: a file.
pub(super) fn statistics(context: &Context<'_>, node: Option<&Node>) -> Result<Option<Spanned<String>>> {
    let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(None) };
    match node.text().filter(|text| !text.is_empty()) {
        Some(text) => Ok(Some(Spanned { value: text.to_owned(), span: node.span })),
        None => context.error(
            node.span,
            format!("`statistics` is {}; expected a file", node.described()),
            "`deltaic fisher` and `deltaic gram` make it",
        ),
    }
}

/// Notes keys that mean nothing to a method without statistics.
pub(super) fn note_unused(context: &mut Context<'_>, fields: &Fields<'_>, method: &Definition) {
    let uses = |key: &str| match (key, method.statistics) {
        (_, None) => false,
        ("fisher", Some(kind)) => kind == Statistics::Fisher,
        ("gram", Some(kind)) => kind == Statistics::Gram,
        (_, Some(_)) => true,
    };
    for name in ["statistics", "data", "fisher", "gram"].into_iter().filter(|name| !uses(name)) {
        if let Some((key, _)) = fields.entry(name) {
            context.note(key.span, format!("{} does not look at `{name}`", method.name), None, String::new());
        }
    }
}

/// A whole number from 1 on.
fn size(context: &Context<'_>, fields: &Fields<'_>, name: &str) -> Result<Option<usize>> {
    let Some(node) = fields.get(name) else { return Ok(None) };
    match node.text().and_then(|text| text.parse().ok()).filter(|size| *size > 0) {
        Some(size) => Ok(Some(size)),
        None => context.error(node.span, format!("`{name}` is {}; expected a whole number from 1 on", node.described()), ""),
    }
}

/// Every model of a method with statistics has some, and of each only one kind.
pub(super) fn check(context: &Context<'_>, recipe: &Recipe) -> Result<()> {
    let Some(kind) = recipe.method.statistics else { return Ok(()) };
    if let Layout::Slices(slices) = &recipe.layout {
        let span = slices.first().map_or(recipe.method_span, |slice| slice.span);
        return context.error(
            span,
            format!("`{}` merges whole models, and has no `slices`", recipe.method.name),
            "list them under `models`",
        );
    }
    for (slice, entry) in recipe.entries().filter(|(slice, entry)| !recipe.is_base(*slice, entry)) {
        debug_assert!(slice.is_none());
        if let (Some(statistics), Some(_)) = (&entry.statistics, &entry.data) {
            return context.error(
                statistics.span,
                "both `statistics` and `data` for one model",
                "one is made from the other: give one of them",
            );
        }
        if entry.statistics.is_none() && entry.data.is_none() && recipe.data.is_none() {
            let label = format!("`statistics: FILE` (`deltaic {}` makes it), or `data: {{task: …, path: …, examples: …}}`", kind.name());
            return context.error(entry.model.span, format!("{} needs to know the data of this model", recipe.method.name), label);
        }
    }
    Ok(())
}

impl Recipe {
    /// The examples from which the statistics of a model are to be made, where the recipe names no file of them.
    pub fn data_of<'a>(&'a self, entry: &'a Entry) -> Option<&'a Spanned<DataSettings>> {
        if entry.statistics.is_some() { None } else { entry.data.as_ref().or(self.data.as_ref()) }
    }
}

/// `fisher` as YAML, with every default.
pub(super) fn written_fisher(settings: &FisherSettings, number: impl Fn(f64) -> String) -> String {
    let batch = match settings.batch {
        FisherBatch::Example => "example".to_owned(),
        FisherBatch::Sum { size } => format!("sum, batch_size: {size}"),
    };
    let targets = match settings.targets {
        Targets::Empirical => "empirical".to_owned(),
        Targets::Sampled { seed } => format!("sampled, seed: {seed}"),
    };
    format!("{{normalize: {}, minimal: {}, batch: {batch}, targets: {targets}}}", settings.normalize, number(settings.minimal))
}

/// `gram` as YAML, with every default.
pub(super) fn written_gram(settings: &GramSettings) -> String {
    let padding = match settings.padding {
        Padding::Exclude => "exclude",
        Padding::Include => "include",
    };
    let batch = settings.batch_size.map_or(String::new(), |size| format!(", batch_size: {size}"));
    format!("{{padding: {padding}{batch}}}")
}

/// `data` as YAML.
pub(super) fn written_data(data: &DataSettings, text: impl Fn(&str) -> String, file: impl Fn(&str) -> String) -> String {
    let mut out = match &data.source {
        DataSource::Inputs(inputs) => format!("{{inputs: {}", file(inputs)),
        DataSource::Task { task, path, split } => {
            let split = split.as_ref().map_or(String::new(), |split| format!(", split: {}", text(split)));
            format!("{{task: {}, path: {}{split}", text(task), file(path))
        }
    };
    if let Some(examples) = data.examples {
        out += &format!(", examples: {examples}");
    }
    match data.order {
        Order::File => out + ", order: file}",
        Order::Permuted { seed } => out + &format!(", order: permuted, seed: {seed}}}"),
    }
}
