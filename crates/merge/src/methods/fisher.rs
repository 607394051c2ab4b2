//! `fisher`: the mean of the models, weighted element by element with how much their outputs depend on it (Matena and Raffel 2022;
//! semantics as MergeLM's `fisher_merging`).

use deltaic_checkpoint::{Error, Result};
use deltaic_kernels::Kernels;

use super::{Base, Block, Default, Definition, Method, ModelWide, Paper, Parameter, Prepared, Setup, Statistics, TensorMerge, parameters};
use crate::gather::{Gathered, Operands, Tally, Wanted};
use crate::sparsifiers::Given;

pub(super) struct Fisher;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "fisher",
    preset: None,
    summary: "mean of the fine-tuned models, weighted element by element by their squared gradients",
    formula: "\
out = sum(a_i (F_i + e) W_i) / sum(a_i (F_i + e))        F_i: mean squared gradient, e: fisher.minimal
a_i = w_i r_i / sum(r), r_i = 1 / (|F_i| + e) where fisher.normalize, else w_i        w_i = 1/K, |F_i|: l2 norm over the whole model",
    paper: Some(Paper { title: "Merging Models with Fisher-Weighted Averaging", arxiv: "2111.09832" }),
    base: Base::Reference,
    models: (1, None),
    parameters: &[Parameter { default: Default::Absent, summary: "coefficient of the model (1/K without it)", ..parameters::WEIGHT }],
    statistics: Some(Statistics::Fisher),
    example: "\
merge_method: fisher
base_model: ./base
models:
  - model: ./fine-tune-a
    statistics: a-fisher.safetensors
  - model: ./fine-tune-b
    statistics: b-fisher.safetensors
exclude: ['.*classifier.*']
fisher: {normalize: true, minimal: 1.0e-6}
",
}];

impl Method for Fisher {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        let models = setup.inputs.len();
        let weights: Vec<f64> = setup.inputs.iter().map(|input| input.values.optional("weight").unwrap_or(1.0 / models as f64)).collect();
        if let Some(weight) = weights.iter().find(|weight| **weight < 0.0) {
            return Err(Error::new(format!("a coefficient of Fisher merging is {weight}; expected a number from 0 on"))
                .help("Fisher weights are those of a mean: negative ones make no sense"));
        }
        if weights.iter().sum::<f64>() == 0.0 {
            return Err(Error::new("the coefficients of Fisher merging sum to 0").help("give some model a `weight` above 0"));
        }
        if models == 1 && setup.inputs[0].given == Given::AsIs {
            return Ok(Prepared::Copy(0));
        }
        let merge = Weighted { coefficients: weights, minimal: setup.fisher.minimal, normalize: setup.fisher.normalize };
        Ok(Prepared::Merge { inputs: (0..models).map(|i| (i, None)).collect(), merge: Box::new(merge) })
    }

    fn model_wide(&self, setups: &[Setup]) -> Result<Option<Box<dyn ModelWide>>> {
        let Some(first) = setups.first().filter(|first| first.fisher.normalize) else { return Ok(None) };
        let models = first.inputs.len();
        if setups.iter().any(|setup| setup.inputs.len() != models) {
            return Err(Error::new("Fisher weights are normalised over the whole model, and some tensors are not in every model")
                .help("`exclude` the tensors that some models lack, or `fisher: {normalize: false}`"));
        }
        Ok(Some(Box::new(Norms { models, squares: None })))
    }
}

/// The l2 norm of each model's Fisher weights over all merged tensors.
#[derive(Clone)]
struct Norms {
    models: usize,
    squares: Option<Vec<f64>>,
}

impl ModelWide for Norms {
    fn wants(&self) -> Option<Wanted> {
        self.squares.is_none().then_some(Wanted::Sums(self.models))
    }

    fn of_statistics(&self) -> bool {
        true
    }

    fn gather(&self, kernels: Kernels, block: &Block<'_>, mut tally: Tally<'_>) {
        for (weights, sums) in block.statistics.iter().zip(tally.sums()) {
            kernels.sum_products(weights, weights, sums);
        }
    }

    fn take(&mut self, gathered: Gathered) {
        self.squares = Some(gathered.sums());
    }

    fn numbers(&self) -> Vec<f64> {
        self.squares.iter().flatten().map(|square| square.sqrt()).collect()
    }

    fn most_passes(&self) -> usize {
        1
    }

    fn fresh(&self) -> Box<dyn ModelWide> {
        Box::new(Self { squares: None, ..*self })
    }
}

/// The weighted mean of one tensor. Products and sums are f64, since Fisher weights are small beside `minimal`; the mean is rounded once.
#[derive(Clone)]
struct Weighted {
    coefficients: Vec<f64>,
    minimal: f64,
    normalize: bool,
}

impl TensorMerge for Weighted {
    fn operands(&self) -> Operands {
        Operands::Weights
    }

    fn reads_statistics(&self) -> bool {
        true
    }

    fn take_model_wide(&mut self, norms: &[f64]) {
        if self.normalize {
            let inverse: Vec<f64> = norms.iter().map(|norm| 1.0 / (norm + self.minimal)).collect();
            let sum: f64 = inverse.iter().sum();
            // All Fisher weights 0 and nothing added to them: there is nothing to normalise by.
            if sum.is_finite() {
                self.coefficients.iter_mut().zip(&inverse).for_each(|(coefficient, inverse)| *coefficient *= inverse / sum);
            }
        }
    }

    fn map(&self, _kernels: Kernels, block: &Block<'_>, _row: usize, out: &mut [f32]) {
        for (k, out) in out.iter_mut().enumerate() {
            let (mut numerator, mut divisor, mut plain, mut plain_divisor) = (0.0, 0.0, 0.0, 0.0);
            for ((weights, fisher), coefficient) in block.inputs.iter().zip(block.statistics).zip(&self.coefficients) {
                let (weight, factor) = (f64::from(weights[k]), coefficient * (f64::from(fisher[k]) + self.minimal));
                numerator += factor * weight;
                divisor += factor;
                plain += coefficient * weight;
                plain_divisor += coefficient;
            }
            // Where no model's output depends on an element (possible with `minimal: 0`), the coefficients alone decide.
            *out = if divisor == 0.0 { plain / plain_divisor } else { numerator / divisor } as f32;
        }
    }

    fn fresh(&self) -> Box<dyn TensorMerge> {
        Box::new(self.clone())
    }
}
