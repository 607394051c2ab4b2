//! `regmean`: linear layers whose outputs come closest to those of all models on their own inputs (Jin et al. 2023; semantics as MergeLM's
//! `regmean_merging`); the plain mean for everything else.

use std::sync::{Mutex, PoisonError};

use deltaic_checkpoint::{Error, Result};
use deltaic_kernels::Kernels;
use faer::linalg::matmul::matmul;
use faer::linalg::solvers::Solve;
use faer::{Accum, Mat, Par, Side};

use super::{
    Base, Block, Default, Definition, Kind, Method, Paper, Parameter, Prepared, Reach, Scope, Setup, Statistics, TensorMerge, weighted_sum,
};
use crate::gather::Operands;

pub(super) struct RegMean;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "regmean",
    preset: None,
    summary: "linear layers that come closest to all models' outputs on their own inputs; the mean of all other tensors",
    formula: "\
W^T = (sum G_i)^-1 sum(G_i W_i^T)        G_i: Gram matrix of the layer's inputs, its off-diagonal elements times reduce_non_diagonal
every tensor without Gram matrices: the mean of the models",
    paper: Some(Paper { title: "Dataless Knowledge Fusion by Merging Weights of Language Models", arxiv: "2212.09849" }),
    base: Base::Reference,
    models: (1, None),
    parameters: &[Parameter {
        name: "reduce_non_diagonal",
        kind: Kind::Rate,
        scope: Scope::Shared,
        default: Default::Number(1.0),
        no_effect: false,
        summary: "factor of the Gram matrices' off-diagonal elements",
    }],
    statistics: Some(Statistics::Gram),
    example: "\
merge_method: regmean
base_model: ./base
models:
  - model: ./fine-tune-a
    statistics: a-gram.safetensors
  - model: ./fine-tune-b
    statistics: b-gram.safetensors
exclude: ['.*classifier.*']
parameters: {reduce_non_diagonal: 0.9}
",
}];

impl Method for RegMean {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        let known = setup.inputs.iter().filter(|input| input.statistics.is_some()).count();
        if known == 0 || setup.inputs.len() == 1 {
            return weighted_sum::mean(setup);
        }
        if known < setup.inputs.len() {
            return Err(Error::new(format!("{known} of {} models have a Gram matrix of it", setup.inputs.len()))
                .help("make the statistics of all models in the same way (`deltaic gram`)"));
        }
        let expected = [setup.row, setup.row];
        if let Some(shape) = setup.inputs.iter().filter_map(|input| input.statistics.as_ref()).find(|shape| ***shape != expected) {
            return Err(Error::new(format!("a Gram matrix of it has shape {shape:?}, expected {expected:?} (its layer's inputs)"))
                .help("the statistics are another model's: make them again with `deltaic gram`"));
        }
        let merge = ClosestLayer { reduce: setup.shared.number("reduce_non_diagonal"), jitter: Mutex::new(None) };
        Ok(Prepared::Merge { inputs: (0..setup.inputs.len()).map(|i| (i, None)).collect(), merge: Box::new(merge) })
    }
}

/// The closed-form solution for one linear layer, in f64.
struct ClosestLayer {
    reduce: f64,
    /// What had to be added to the diagonal, relative to its mean.
    jitter: Mutex<Option<f64>>,
}

/// First and greatest share of the diagonal's mean that is added where the Gram matrices' sum is not positive definite.
const JITTER: (f64, f64) = (1e-12, 1.0);

impl ClosestLayer {
    /// `G` with its off-diagonal elements reduced.
    fn reduced(&self, gram: &[f32], inputs: usize) -> Mat<f64> {
        Mat::from_fn(inputs, inputs, |i, j| f64::from(gram[i * inputs + j]) * if i == j { 1.0 } else { self.reduce })
    }

    /// Solves `gram x = targets` in place. Where the Cholesky factor fails the diagonal is raised step by step; None where nothing helps.
    fn solve(&self, gram: &mut Mat<f64>, targets: &mut Mat<f64>) -> Option<()> {
        let inputs = gram.nrows();
        let mean = (0..inputs).map(|i| gram[(i, i)]).sum::<f64>() / inputs as f64;
        if !mean.is_finite() {
            return None;
        }
        let (mut added, mut jitter) = (0.0, JITTER.0);
        loop {
            if let Ok(factor) = gram.llt(Side::Lower) {
                factor.solve_in_place(targets.as_mut());
                if added > 0.0 {
                    *self.jitter.lock().unwrap_or_else(PoisonError::into_inner) = Some(added);
                }
                return Some(());
            }
            if jitter > JITTER.1 {
                return None;
            }
            // Inputs that were always 0 leave a diagonal of zeros.
            let scale = if mean > 0.0 { mean } else { 1.0 };
            (0..inputs).for_each(|i| gram[(i, i)] += (jitter - added) * scale);
            (added, jitter) = (jitter, jitter * 10.0);
        }
    }
}

impl TensorMerge for ClosestLayer {
    fn operands(&self) -> Operands {
        Operands::Weights
    }

    fn reach(&self) -> Reach {
        Reach::Tensor
    }

    fn reads_statistics(&self) -> bool {
        true
    }

    fn map(&self, _kernels: Kernels, block: &Block<'_>, row: usize, out: &mut [f32]) {
        let (inputs, outputs) = (row, out.len() / row);
        let mut sum = Mat::<f64>::zeros(inputs, inputs);
        let mut targets = Mat::<f64>::zeros(inputs, outputs);
        for (weights, gram) in block.inputs.iter().zip(block.statistics) {
            let gram = self.reduced(gram, inputs);
            let transposed = Mat::from_fn(inputs, outputs, |i, o| f64::from(weights[o * inputs + i]));
            matmul(targets.as_mut(), Accum::Add, gram.as_ref(), transposed.as_ref(), 1.0, Par::Seq);
            sum += gram;
        }
        match self.solve(&mut sum, &mut targets) {
            Some(()) => out.iter_mut().enumerate().for_each(|(k, out)| *out = targets[(k % inputs, k / inputs)] as f32),
            // Gram matrices with NaN or infinite elements: what the engine counts and reports.
            None => out.fill(f32::NAN),
        }
    }

    fn remark(&self) -> Option<String> {
        let jitter = self.jitter.lock().unwrap_or_else(PoisonError::into_inner);
        jitter.map(|jitter| {
            format!("its Gram matrices' sum is not positive definite: {jitter:.0e} of its mean diagonal was added to the diagonal")
        })
    }

    fn fresh(&self) -> Box<dyn TensorMerge> {
        Box::new(Self { reduce: self.reduce, jitter: Mutex::new(None) })
    }
}
