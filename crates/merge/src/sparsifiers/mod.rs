//! Sparsifiers: what drops elements of a model before a method sees it. A sparsifier is one file here and one line in the registry.

pub(crate) mod dare;
pub(crate) mod magnitude;

use deltaic_kernels::{Kernels, MaskKey};

pub use crate::gather::Operands;
use crate::gather::{Gathered, Tally, Wanted};
use crate::paper::Paper;

/// Which random or magnitude-ranked drop stands before the method.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparsify {
    /// `dare`, `magnitude`: a name in the registry of sparsifiers.
    pub kind: String,
    /// Share of elements dropped, 0 ..= 1.
    pub drop_rate: f64,
    /// How what is kept is rescaled.
    pub rescale: Rescale,
    /// What is dropped: the delta, or the fine-tuned weights.
    pub of: Operands,
    /// The mask's own seed, for a second mask of the same model (deltaic's addition to the design).
    pub seed: Option<u64>,
}

/// How the elements that are kept are rescaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescale {
    /// By 1/(1-p) (DARE).
    Inverse,
    /// By the ratio of the tensor's l1 norms before and after (mergekit).
    L1,
    /// Not at all (DropOnly).
    None,
}

/// The registry.
static SPARSIFIERS: &[&Definition] = &[&dare::DEFINITION, &magnitude::DEFINITION];

/// Kinds that recipes may name and that are not built yet.
pub const NOT_YET: &[&str] = &["della", "della_magprune", "magnitude_outliers"];

/// What the recipe's sparsifier makes of an input before the method sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// The model as it is.
    AsIs,
    /// Some of it is dropped.
    Sparsified,
    /// All of its delta is dropped: it equals the base.
    ZeroDelta,
}

/// `1 - rate`, as people write it: 0.1 for 0.9, where the difference of the two doubles is 0.09999999999999998 and a rank `trunc(n p)`
/// would be one too small.
pub(crate) fn complement(rate: f64) -> f64 {
    const DIGITS: f64 = 1e15;
    ((1.0 - rate) * DIGITS).round() / DIGITS
}

impl Rescale {
    /// What the kept elements are multiplied by; `None` where the tensor's norms have to be known first.
    pub(crate) fn factor(self, drop_rate: f64) -> Option<f32> {
        match self {
            // At 1 nothing is kept that could be rescaled.
            Rescale::Inverse if drop_rate < 1.0 => Some((1.0 / (1.0 - drop_rate)) as f32),
            Rescale::Inverse | Rescale::None => Some(1.0),
            Rescale::L1 => None,
        }
    }
}

/// What a sparsifier says about itself.
#[derive(Debug)]
pub struct Definition {
    /// Its `kind` in recipes.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The formula, as text.
    pub formula: &'static str,
    /// Where it was published.
    pub paper: Option<Paper>,
    /// Whether it draws a random mask, so that a seed matters.
    pub random: bool,
    prepare: fn(&Sparsify, u64, MaskKey) -> Box<dyn Sparsifier>,
}

/// All sparsifiers, in the order of the registry.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    SPARSIFIERS.iter().copied()
}

/// The sparsifier of that kind.
pub fn find(kind: &str) -> Option<&'static Definition> {
    all().find(|definition| definition.name == kind)
}

/// Whether a sparsifier changes anything: what a rate of 0 or 1 means is decided here, for every kind.
pub(crate) fn given(sparsify: &Sparsify) -> Given {
    match sparsify.of {
        _ if sparsify.drop_rate == 0.0 => Given::AsIs,
        Operands::Deltas if sparsify.drop_rate == 1.0 => Given::ZeroDelta,
        _ => Given::Sparsified,
    }
}

/// The recipe's sparsifier for one tensor of `elements` elements.
pub(crate) fn prepare(sparsify: &Sparsify, elements: u64, mask: MaskKey) -> Box<dyn Sparsifier> {
    let definition = find(&sparsify.kind).expect("the recipe was checked against the registry");
    (definition.prepare)(sparsify, elements, mask)
}

/// What a method drops of a model itself.
pub(crate) enum Own {
    /// Nothing.
    Nothing,
    /// All of its delta.
    All,
    /// What this sparsifier drops.
    Some(Box<dyn Sparsifier>),
}

impl Own {
    /// By the share that is kept.
    fn of(density: f64, sparsifier: impl FnOnce() -> Box<dyn Sparsifier>) -> Self {
        match density {
            density if density >= 1.0 => Own::Nothing,
            density if density <= 0.0 => Own::All,
            _ => Own::Some(sparsifier()),
        }
    }
}

/// A sparsifier at work on one tensor of one model.
pub(crate) trait Sparsifier: Send + Sync {
    /// What has to be gathered next over the elements; `None` when it can be applied.
    fn wants(&self) -> Option<Wanted> {
        None
    }

    /// Adds a block to what is gathered; `x` holds elements `start ..` and may be used as scratch.
    fn gather(&self, _kernels: Kernels, _start: u64, _x: &mut [f32], _tally: Tally<'_>) {}

    /// Takes what was gathered over all elements.
    fn take(&mut self, _gathered: Gathered) {}

    /// Drops elements of `x`, which holds elements `start ..` of the tensor, and rescales the rest.
    fn apply(&self, kernels: Kernels, start: u64, x: &mut [f32]);

    /// Whether it draws a random mask.
    fn is_random(&self) -> bool {
        false
    }

    /// Greatest number of passes that gather.
    fn most_passes(&self) -> usize {
        0
    }

    /// The same with nothing gathered yet.
    fn fresh(&self) -> Box<dyn Sparsifier>;
}

/// Factor that restores an l1 norm: before / after, and 1 where either is too small to mean anything (mergekit's guard).
fn l1_factor(before: f64, after: f64) -> f32 {
    const NOTHING: f64 = 1e-7;
    if before < NOTHING || after < NOTHING { 1.0 } else { (before / after) as f32 }
}
