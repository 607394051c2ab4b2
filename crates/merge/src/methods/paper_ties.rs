//! `ties` as the authors' program has it (`preset: paper`): trim over the whole model, elect signs of the unweighted deltas, average those
//! that agree (Yadav et al. 2023; semantics as MergeLM's `ties_merging`).

use deltaic_checkpoint::{Error, Result};
use deltaic_kernels::{ElectedSigns, Kernels, Ties as TiesAtTheCut, magnitude_of_bins};

use super::{
    Base, Block, Default, Definition, Kind, Method, ModelWide, Paper, Parameter, Prepared, Preset, Scope, Setup, TensorMerge, Trim,
    parameters,
};
use crate::gather::{Gathered, Operands, Tally, Wanted, bin_of, histogram};
use crate::sparsifiers::complement;

pub(super) struct PaperTies;

const HIGH: usize = deltaic_kernels::HIGH_BINS;
const LOW: usize = deltaic_kernels::LOW_BINS;

const MASK_RATE: Parameter = Parameter {
    name: "mask_rate",
    kind: Kind::Rate,
    scope: Scope::Shared,
    default: Default::Number(0.8),
    no_effect: false,
    summary: "share of all deltas of the model that is trimmed",
};

static DEFINITIONS: &[Definition] = &[Definition {
    name: "ties",
    preset: Some(Preset::Paper),
    summary: "trim over the whole model, elect signs by the unweighted sum, average those that agree",
    formula:
        "d_i = W_i - W0 where |d| >= the trunc(P mask_rate)-th smallest of the model's P deltas;  g = sign(sum d_i), 0: the model's majority
out = W0 + lambda * sum(w_i d_i where sign(d_i) = g) / number of these        w_i = 1: the authors' meaning",
    paper: Some(Paper { title: "TIES-Merging", arxiv: "2306.01708" }),
    base: Base::Required,
    models: (1, None),
    parameters: &[
        MASK_RATE,
        Parameter { name: "density", default: Default::Absent, summary: "1 - mask_rate: the other spelling", ..MASK_RATE },
        parameters::LAMBDA,
        parameters::OPTIONAL_WEIGHT,
    ],
    statistics: None,
    example: "\
preset: paper
merge_method: ties
base_model: ./base
models:
  - model: ./fine-tune-a
  - model: ./fine-tune-b
parameters: {mask_rate: 0.8, lambda: 1.0}
",
}];

fn mask_rate_of(setup: &Setup) -> f64 {
    setup.shared.optional("density").map_or_else(|| setup.shared.number("mask_rate"), complement)
}

impl Method for PaperTies {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        let merge = Elected {
            weights: setup.inputs.iter().map(|input| input.values.number("weight") as f32).collect(),
            lambda: setup.shared.number("lambda") as f32,
            numbers: None,
        };
        // Every model votes and counts, whatever its weight: nothing is left out, and no tensor is a copy.
        Ok(Prepared::Merge { inputs: (0..setup.inputs.len()).map(|i| (i, None)).collect(), merge: Box::new(merge) })
    }

    fn model_wide(&self, setups: &[Setup]) -> Result<Option<Box<dyn ModelWide>>> {
        let Some(first) = setups.first() else { return Ok(None) };
        let mask_rate = mask_rate_of(first);
        if setups.iter().any(|setup| mask_rate_of(setup) != mask_rate) {
            return Err(Error::new("mask_rate differs between tensors, and the paper's ties trims over the whole model at one rate")
                .help("give one number: no gradient, no filters"));
        }
        let models = first.inputs.len();
        if setups.iter().any(|setup| setup.inputs.len() != models) {
            return Err(Error::new("the paper's ties trims over the whole model, and some tensors are not in every model")
                .help("`exclude` the tensors that some models lack"));
        }
        let elements: u64 = setups.iter().map(|setup| setup.elements).sum();
        Ok(Some(Box::new(TrimAndMajority::new(models, elements, mask_rate))))
    }
}

/// The thresholds of all models over the whole model, then the majority of the elected signs.
#[derive(Clone)]
struct TrimAndMajority {
    models: usize,
    /// 1-based rank of the smallest magnitude that is kept; 0: nothing is trimmed.
    rank: u64,
    step: Step,
    /// By model: the upper 16 magnitude bits of its threshold and the rank among those, then all of its bits.
    upper: Vec<(u32, u64)>,
    thresholds: Vec<u32>,
    majority: f64,
    /// By model, once counted: elements that are not zero, and those of all that are below the threshold.
    non_zero: Vec<u64>,
    below: Vec<u64>,
    elements: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Upper,
    Lower,
    Majority,
    Done,
}

impl TrimAndMajority {
    fn new(models: usize, elements: u64, mask_rate: f64) -> Self {
        let rank = (elements as f64 * mask_rate) as u64;
        let mut new = Self {
            models,
            rank,
            step: Step::Upper,
            upper: Vec::new(),
            thresholds: vec![0; models],
            majority: 0.0,
            non_zero: Vec::new(),
            below: Vec::new(),
            elements,
        };
        if rank == 0 {
            new.step = new.after_the_trim();
        }
        new
    }

    /// One model's delta is its own sum: it cannot cancel, so no majority is asked for.
    fn after_the_trim(&self) -> Step {
        if self.models > 1 { Step::Majority } else { Step::Done }
    }
}

impl ModelWide for TrimAndMajority {
    fn wants(&self) -> Option<Wanted> {
        match self.step {
            Step::Upper => Some(Wanted::Counts(HIGH * self.models)),
            Step::Lower => Some(Wanted::Counts(LOW * self.models)),
            Step::Majority => Some(Wanted::Counts(2)),
            Step::Done => None,
        }
    }

    fn gather(&self, kernels: Kernels, block: &Block<'_>, mut tally: Tally<'_>) {
        let counts = tally.counts();
        match self.step {
            Step::Upper => {
                for (delta, counts) in block.inputs.iter().zip(counts.chunks_exact_mut(HIGH)) {
                    kernels.histogram_high(delta, histogram(counts));
                }
            }
            Step::Lower => {
                for ((delta, (upper, _)), counts) in block.inputs.iter().zip(&self.upper).zip(counts.chunks_exact_mut(LOW)) {
                    kernels.histogram_low(delta, *upper, histogram(counts));
                }
            }
            Step::Majority => trimmed(kernels, block, &self.thresholds, |deltas| {
                let mut signs = ElectedSigns::default();
                kernels.count_elected(deltas, &mut signs);
                counts[0] += signs.positive;
                counts[1] += signs.negative;
            }),
            Step::Done => {}
        }
    }

    fn take(&mut self, gathered: Gathered) {
        let counts = gathered.counts();
        self.step = match self.step {
            Step::Upper => {
                // The lowest bin holds zero and what is as good as it: magnitudes below 2^-134.
                self.non_zero = counts.chunks_exact(HIGH).map(|histogram| self.elements - histogram[0]).collect();
                let found = counts.chunks_exact(HIGH).map(|histogram| bin_of(histogram, self.rank - 1));
                self.upper = found.map(|(bin, rank)| (bin as u32, rank)).collect();
                Step::Lower
            }
            Step::Lower => {
                for ((counts, (upper, rank)), threshold) in counts.chunks_exact(LOW).zip(&self.upper).zip(&mut self.thresholds) {
                    let (lower, within) = bin_of(counts, *rank);
                    *threshold = magnitude_of_bins(*upper as usize, lower);
                    self.below.push(self.rank - 1 - within);
                }
                self.after_the_trim()
            }
            Step::Majority | Step::Done => {
                self.majority = (counts[0] as f64 - counts[1] as f64).partial_cmp(&0.0).map_or(0.0, |order| f64::from(order as i8));
                Step::Done
            }
        };
    }

    fn numbers(&self) -> Vec<f64> {
        let thresholds = self.thresholds.iter().map(|bits| f64::from(*bits));
        let counts = self.non_zero.iter().chain(&self.below).map(|count| *count as f64);
        std::iter::once(self.majority).chain(thresholds).chain(counts).collect()
    }

    fn trims(&self, numbers: &[f64]) -> Vec<Trim> {
        let thresholds = numbers.iter().skip(1).take(self.models);
        let count = |part: usize, model: usize| numbers.get(1 + part * self.models + model).map(|count| *count as u64);
        let trim = |(model, bits): (usize, &f64)| {
            let threshold = f32::from_bits(*bits as u32);
            let non_zero = count(1, model);
            // A threshold of 0 trims nothing; above it every element that is kept is not zero.
            let above = count(2, model).map(|below| self.elements - below);
            Trim { threshold, elements: self.elements, non_zero, kept: if threshold == 0.0 { non_zero } else { above } }
        };
        thresholds.enumerate().map(trim).collect()
    }

    fn most_passes(&self) -> usize {
        usize::from(self.models > 1) + if self.rank == 0 { 0 } else { 2 }
    }

    fn fresh(&self) -> Box<dyn ModelWide> {
        Box::new(self.clone())
    }
}

/// Hands over the deltas of a block with all elements below their model's threshold set to zero (those that equal it are kept).
fn trimmed(kernels: Kernels, block: &Block<'_>, thresholds: &[u32], then: impl FnOnce(&[&[f32]])) {
    if thresholds.iter().all(|threshold| *threshold == 0) {
        return then(block.inputs);
    }
    let mut deltas: Vec<Vec<f32>> = block.inputs.iter().map(|delta| delta.to_vec()).collect();
    for (delta, threshold) in deltas.iter_mut().zip(thresholds) {
        kernels.trim(delta, *threshold, TiesAtTheCut::Keep, 1.0);
    }
    let deltas: Vec<&[f32]> = deltas.iter().map(Vec::as_slice).collect();
    then(&deltas);
}

#[derive(Clone)]
struct Elected {
    weights: Vec<f32>,
    lambda: f32,
    /// Majority sign and thresholds.
    numbers: Option<(f32, Vec<u32>)>,
}

impl TensorMerge for Elected {
    fn operands(&self) -> Operands {
        Operands::Deltas
    }

    fn take_model_wide(&mut self, numbers: &[f64]) {
        let thresholds = numbers[1..].iter().take(self.weights.len());
        self.numbers = Some((numbers[0] as f32, thresholds.map(|bits| *bits as u32).collect()));
    }

    fn map(&self, kernels: Kernels, block: &Block<'_>, _row: usize, out: &mut [f32]) {
        let (majority, thresholds) = self.numbers.as_ref().expect("the thresholds were gathered before");
        trimmed(kernels, block, thresholds, |deltas| kernels.paper_ties(deltas, &self.weights, *majority, out));
        if self.lambda != 1.0 {
            kernels.scale(out, self.lambda);
        }
        kernels.add(out, block.base());
    }

    fn fresh(&self) -> Box<dyn TensorMerge> {
        Box::new(Self { numbers: None, ..self.clone() })
    }
}
