//! The study of deltas: what a fine-tune changed of its base, by tensor, layer, kind of tensor and model.
//!
//! Streamed: both models are read three times by windows (figures and the upper bits of the deltas' order, then twice what narrows the
//! quantiles down), so that memory does not grow with the model. Results depend neither on threads nor on windows.

mod figures;
mod groups;
mod pairs;
mod passes;
mod quantiles;
mod regime;
mod svg;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{ModelReference, Result};
use deltaic_kernels::Kernels;

pub(crate) use figures::{Adder, Totals};
pub use figures::{Figures, QUANTILES};
pub use pairs::NotCompared;
pub use regime::{LIMITS, Regime, Shares};
pub use svg::escaped as escaped_for_xml;

use crate::engine::Progress;

/// How a study is run; nothing of it but `exclude` changes a figure.
#[derive(Debug, Clone)]
pub struct StudyOptions {
    /// Regular expressions over whole names: such tensors are not compared.
    pub exclude: Vec<String>,
    /// Number of worker threads.
    pub threads: usize,
    /// Where relative paths are looked for.
    pub working_directory: PathBuf,
}

impl Default for StudyOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { exclude: Vec::new(), threads, working_directory: PathBuf::from(".") }
    }
}

/// A tensor that was compared.
#[derive(Debug, Clone)]
pub struct TensorDelta {
    /// Its name, as a merge of the two would call it.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its layer, from zero; None before and behind the layers.
    pub layer: Option<usize>,
    /// Its kind ([`deltaic_checkpoint::Architecture::kind_of`]).
    pub kind: String,
    /// The figures of its delta.
    pub figures: Figures,
}

/// What a model's deltas against its base are like.
#[derive(Debug, Clone)]
pub struct DeltaStudy {
    /// The base, as it was named.
    pub base: ModelReference,
    /// The model, as it was named.
    pub model: ModelReference,
    /// All compared elements.
    pub whole: Figures,
    /// By kind, in the order in which they stand in the model. Beyond [`MAX_KINDS`] kinds the smallest are one, `other kinds`.
    pub kinds: Vec<(String, Figures)>,
    /// By layer, ascending. Encoder and decoder layers of one number are one.
    pub layers: Vec<(usize, Figures)>,
    /// By tensor: before the layers, by layer, behind them.
    pub tensors: Vec<TensorDelta>,
    /// What is in either model and was not compared.
    pub not_compared: Vec<NotCompared>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// How often both models were read.
    pub reads: usize,
    /// Counts of the model's deltas by the upper bits of their order, for the figure.
    histogram: Vec<u64>,
}

/// Greatest number of kinds that are told apart: what is counted for them stays small whatever names a file has.
pub const MAX_KINDS: usize = 64;

/// Studies `model - base`, in f32 (both are widened exactly, but F64, which is rounded). `progress` is called after every window, from any
/// worker; `cancel` stops the work.
///
/// # Errors
/// A model is not found or cannot be read, or is quantised; a pattern is none; the two have no tensor that can be compared; cancelled.
pub fn study(
    base: &ModelReference,
    model: &ModelReference,
    options: &StudyOptions,
    cancel: &AtomicBool,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<DeltaStudy> {
    let pairs = pairs::find(base, model, options)?;
    let run = passes::Run { pairs: &pairs, threads: options.threads, kernels: Kernels::detect(), cancel, progress };
    let found = run.all()?;
    // Sums over sets are taken in the order of the tensors.
    let mut whole = Totals::default();
    let mut of_kinds = vec![Totals::default(); pairs.kinds.len()];
    let mut of_layers = vec![Totals::default(); pairs.layers.len()];
    for (pair, totals) in pairs.compared.iter().zip(&found.totals) {
        whole.add(totals);
        of_kinds[pair.kind].add(totals);
        if let Some(layer) = pair.layer.and_then(|layer| pairs.layers.binary_search(&layer).ok()) {
            of_layers[layer].add(totals);
        }
    }
    let groups = &found.groups;
    let figures = |totals: &Totals, group: usize| totals.figures(groups.quantiles(group));
    let tensors = pairs.compared.iter().enumerate().map(|(i, pair)| TensorDelta {
        name: pair.name.clone(),
        shape: pair.shape.clone(),
        layer: pair.layer,
        kind: pairs.kinds[pair.kind].clone(),
        figures: figures(&found.totals[i], groups.of_tensor(i)),
    });
    let kinds = pairs.kinds.iter().zip(&of_kinds).enumerate();
    let kinds = kinds.map(|(k, (kind, totals))| (kind.clone(), figures(totals, groups.of_kind(k))));
    let layers = pairs.layers.iter().zip(&of_layers).enumerate();
    let layers = layers.map(|(l, (layer, totals))| (*layer, figures(totals, groups.of_layer(l))));
    Ok(DeltaStudy {
        base: base.clone(),
        model: model.clone(),
        whole: figures(&whole, groups.whole()),
        kinds: kinds.collect(),
        layers: layers.collect(),
        tensors: tensors.collect(),
        histogram: groups.histogram().to_vec(),
        not_compared: pairs.not_compared.clone(),
        warnings: pairs.warnings.clone(),
        reads: passes::READS,
    })
}

impl DeltaStudy {
    /// The regime that the deltas of the whole model are in.
    pub fn regime(&self) -> Regime {
        Regime::of(&self.whole.shares())
    }

    /// The study as a figure: a histogram of all deltas on a symmetric logarithmic axis, and the ranges by layer and by kind. An SVG document
    /// with a white background, without scripts or anything loaded from elsewhere.
    pub fn to_svg(&self) -> String {
        svg::draw(self, &self.histogram)
    }
}
