//! The weighted sum of the models' weights: the arithmetic of `linear` and `average`.

use deltaic_checkpoint::{Error, Result};
use deltaic_kernels::Kernels;

use super::{Block, Prepared, Setup, TensorMerge};
use crate::gather::Operands;
use crate::sparsifiers::Given;

/// `sum(w_i W_i)`, divided by `sum(w_i)` where normalised. Inputs of weight 0 are left out; a sole input of factor 1 is a copy.
pub(super) fn prepare(setup: &Setup, normalize: bool) -> Result<Prepared> {
    weighted(setup, setup.inputs.iter().map(|input| input.values.number("weight")).collect(), normalize)
}

/// The plain mean of the models.
pub(super) fn mean(setup: &Setup) -> Result<Prepared> {
    weighted(setup, vec![1.0; setup.inputs.len()], true)
}

fn weighted(setup: &Setup, weights: Vec<f64>, normalize: bool) -> Result<Prepared> {
    let sum: f64 = weights.iter().sum();
    if normalize && sum == 0.0 {
        return Err(Error::new("the weights sum to 0, and normalising divides by their sum")
            .help("give weights that do not cancel, or `normalize: false` where the method has it"));
    }
    let used: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] != 0.0).collect();
    if used.iter().all(|&i| setup.inputs[i].equals_base()) && !used.is_empty() && (normalize || sum == 1.0) {
        return Ok(Prepared::CopyBase);
    }
    if let [only] = used[..]
        && (normalize || weights[only] == 1.0)
        && setup.inputs[only].given == Given::AsIs
    {
        return Ok(Prepared::Copy(only));
    }
    let merge = WeightedSum { weights: used.iter().map(|&i| weights[i] as f32).collect(), divisor: normalize.then_some(sum as f32) };
    Ok(Prepared::Merge { inputs: used.into_iter().map(|i| (i, None)).collect(), merge: Box::new(merge) })
}

/// `out = sum(w_i x_i)`, in order.
pub(super) fn sum(kernels: Kernels, weights: &[f32], inputs: &[&[f32]], out: &mut [f32]) {
    let Some((first, rest)) = inputs.split_first() else { return out.fill(0.0) };
    kernels.set_scaled(out, weights[0], first);
    for (weight, input) in weights[1..].iter().zip(rest) {
        kernels.add_scaled(out, *weight, input);
    }
}

#[derive(Clone)]
struct WeightedSum {
    weights: Vec<f32>,
    divisor: Option<f32>,
}

impl TensorMerge for WeightedSum {
    fn operands(&self) -> Operands {
        Operands::Weights
    }

    fn map(&self, kernels: Kernels, block: &Block<'_>, _row: usize, out: &mut [f32]) {
        sum(kernels, &self.weights, block.inputs, out);
        if let Some(divisor) = self.divisor {
            kernels.divide(out, divisor);
        }
    }

    fn fresh(&self) -> Box<dyn TensorMerge> {
        Box::new(self.clone())
    }
}
