//! What the user wrote: a recipe in mergekit's dialect with deltaic's keys, typed, with spans for messages. Knows nothing about files.
//!
//! A [`Document`] becomes a tree of nodes (`node`), is searched for what is not built yet (`not_yet`), read key by key (`parse` and what it
//! calls), and checked as a whole (`check`). Keys without effect are collected on the way (`unknown`). [`Recipe::to_yaml`] writes it again.

mod check;
mod document;
mod emit;
mod method;
mod models;
mod node;
mod not_yet;
mod own;
mod parameters;
mod parse;
mod recorded;
mod scalar;
mod settings;
mod statistics;
#[cfg(test)]
mod tests;
mod unknown;
mod vocab;

use std::collections::HashSet;
use std::sync::Arc;

use deltaic_checkpoint::{DType, Error, ModelReference, Result};
use sha2::{Digest, Sha256};

pub use document::{Document, MAX_BYTES};
pub use emit::Names;
pub(crate) use own::whole_name;
pub use parameters::lookup;
pub use parse::parse;
pub use recorded::{Recorded, RecordedFile, RecordedSource};
pub use statistics::{DataSettings, DataSource, FisherBatch, FisherSettings, GramSettings, Order, Padding, Targets};
pub use unknown::{UnknownPolicy, Warning};
pub use vocab::OnMismatch;

use crate::methods::{self, Definition, Preset};
use crate::sparsifiers::Sparsify;

/// A place in the document, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Byte offset of the first byte.
    pub start: usize,
    /// Byte offset behind the last one.
    pub end: usize,
}

/// A value with the place where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

/// One value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// `true`, `false` (and YAML 1.1's `yes`, `no`, `on`, `off`).
    Bool(bool),
    /// A number, also where YAML 1.1 reads a string (`1e-10`).
    Number(f64),
    /// Any other text.
    Text(String),
}

/// A parameter as written: one value, values over the layers, or a choice by tensor name.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// One value.
    Scalar(Scalar),
    /// Numbers to interpolate linearly over the layers.
    Gradient(Vec<f64>),
    /// Other values, chosen by step over the layers.
    Steps(Vec<Scalar>),
    /// The first whose filter is a substring of the tensor's name (no filter, or `*`: any name). A clause's setting is never itself
    /// conditional.
    Conditional(Vec<(Option<String>, Setting)>),
}

/// Parameters of one block, in the order written.
pub type Parameters = Vec<(String, Spanned<Setting>)>;

/// The sparsifier of one model.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnSparsify {
    /// The recipe's, where it has one.
    Inherited,
    /// None, whatever the recipe's is (`sparsify: none`).
    Off,
    /// This one, in place of the recipe's.
    Own(Sparsify),
}

/// One model of the recipe, or one source of a slice.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The model as named.
    pub model: Spanned<ModelReference>,
    /// Layers taken, half-open; only in slices.
    pub layer_range: Option<(usize, usize)>,
    /// Its own parameters.
    pub parameters: Parameters,
    /// Its own sparsifier; see [`Recipe::sparsify_of`].
    pub sparsify: OwnSparsify,
    /// The seed of its own mask.
    pub seed: Option<u64>,
    /// The file with its statistics, for methods that need them.
    pub statistics: Option<Spanned<String>>,
    /// The examples from which they are made; see [`Recipe::data_of`].
    pub data: Option<Spanned<DataSettings>>,
}

/// A run of output layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Where the layers come from; all ranges are equally long.
    pub sources: Vec<Entry>,
    /// Overrides the recipe's base for this slice.
    pub base_model: Option<Spanned<ModelReference>>,
    /// Parameters of the slice.
    pub parameters: Parameters,
    /// Where the slice stands.
    pub span: Span,
}

/// Whole models, or slices of layers.
#[derive(Debug, Clone, PartialEq)]
pub enum Layout {
    /// `models:`
    Models(Vec<Entry>),
    /// `slices:`
    Slices(Vec<Slice>),
}

/// `tokenizer_source`.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenizerSource {
    /// The base's tokenizer.
    Base,
    /// All tokens of all models.
    Union,
    /// One model's tokenizer.
    Model(ModelReference),
}

/// A recipe: one document, checked for everything that needs no model.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The text it was read from, for messages.
    pub document: Arc<Document>,
    /// Which tool's meaning holds.
    pub preset: Preset,
    /// The method.
    pub method: &'static Definition,
    /// Where `merge_method` stands.
    pub method_span: Span,
    /// The base model.
    pub base_model: Option<Spanned<ModelReference>>,
    /// Models or slices.
    pub layout: Layout,
    /// Parameters of the whole recipe.
    pub parameters: Parameters,
    /// The sparsifier before the method, for every model without its own.
    pub sparsify: Option<Sparsify>,
    /// The examples from which statistics are made, for every model without its own.
    pub data: Option<Spanned<DataSettings>>,
    /// How Fisher weights are made and used.
    pub fisher: FisherSettings,
    /// How Gram matrices are made.
    pub gram: GramSettings,
    /// The seed as written; see [`Recipe::seed_or_derived`].
    pub seed: Option<u64>,
    /// Tensors not merged: regular expressions over output names, each compiled so that it matches whole names only.
    pub exclude: Vec<Spanned<regex::Regex>>,
    /// `vocab`: what is done where vocabularies differ in size; without it that is an error.
    pub vocab: Option<OnMismatch>,
    /// `dtype`: accepted; the arithmetic is f32 all the same.
    pub dtype: Option<DType>,
    /// The dtype written.
    pub out_dtype: Option<DType>,
    /// Whose tokenizer the output gets.
    pub tokenizer_source: Option<Spanned<TokenizerSource>>,
    /// What deltaic wrote about the output that this recipe made: only a `deltaic.yml` has it.
    pub recorded: Option<Recorded>,
    /// Of a recipe that was taken out of another by [`Recipe::alone`]: the place there of its only model, the stream of its masks.
    pub(crate) place: Option<u64>,
}

impl Recipe {
    /// All models or sources in the order written, each with its slice.
    pub fn entries(&self) -> impl Iterator<Item = (Option<&Slice>, &Entry)> {
        let (models, slices) = match &self.layout {
            Layout::Models(entries) => (&entries[..], &[][..]),
            Layout::Slices(slices) => (&[][..], &slices[..]),
        };
        let sources = slices.iter().flat_map(|slice| slice.sources.iter().map(move |entry| (Some(slice), entry)));
        models.iter().map(|entry| (None, entry)).chain(sources)
    }

    /// The base model of a slice, or (`None`) of the recipe.
    pub fn base_of<'a>(&'a self, slice: Option<&'a Slice>) -> Option<&'a ModelReference> {
        slice.and_then(|slice| slice.base_model.as_ref()).or(self.base_model.as_ref()).map(|base| &base.value)
    }

    /// Whether an entry is the base of its slice (`None`: of the recipe).
    pub fn is_base(&self, slice: Option<&Slice>, entry: &Entry) -> bool {
        self.base_of(slice) == Some(&entry.model.value)
    }

    /// The models in the order in which they first appear, the base not counted: a model's place here is the stream of its masks.
    pub fn models(&self) -> Vec<ModelReference> {
        let mut seen = HashSet::new();
        let fine_tuned = self.entries().filter(|(slice, entry)| !self.is_base(*slice, entry)).map(|(_, entry)| &entry.model.value);
        fine_tuned.filter(|model| seen.insert(*model)).cloned().collect()
    }

    /// The recipe of one of its models by itself, counted from 0, the base not counted: that model after its sparsifier, with the mask that it
    /// has in this recipe. Of tensors that are excluded it keeps its own.
    ///
    /// # Errors
    /// There is no such model, or the recipe takes slices.
    pub fn alone(&self, model: usize) -> Result<Self> {
        let models = self.models();
        let (Some(reference), Layout::Models(entries)) = (models.get(model), &self.layout) else {
            let slices = matches!(self.layout, Layout::Slices(_));
            let found = if slices { "slices".to_owned() } else { format!("{} models, the base not counted", models.len()) };
            return Err(Error::new(format!("{}: model {model} (from 0) is asked for; the recipe has {found}", self.document.name))
                .help("give the number of one of its `models`, counted from 0, the base not counted"));
        };
        let entry = entries.iter().find(|entry| entry.model.value == *reference).cloned().expect("models are entries");
        let method = methods::find("average", self.preset).expect("`average` is of every preset");
        let entry = Entry { parameters: Vec::new(), statistics: None, data: None, ..entry };
        let layout = Layout::Models(vec![entry]);
        Ok(Self { method, layout, parameters: Vec::new(), data: None, recorded: None, place: Some(model as u64), ..self.clone() })
    }

    /// The sparsifier that stands before the method for one model: its own, else the recipe's.
    pub fn sparsify_of<'a>(&'a self, entry: &'a Entry) -> Option<&'a Sparsify> {
        match &entry.sparsify {
            OwnSparsify::Inherited => self.sparsify.as_ref(),
            OwnSparsify::Off => None,
            OwnSparsify::Own(sparsify) => Some(sparsify),
        }
    }

    /// The seed as written, else the first 8 bytes, little endian, of SHA-256 of the document's bytes.
    pub fn seed_or_derived(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let hash = Sha256::digest(self.document.text.as_bytes());
            let mut first = [0; 8];
            first.copy_from_slice(&hash[..8]);
            u64::from_le_bytes(first)
        })
    }
}
