//! The arithmetic on task vectors that `task_arithmetic`, `ties`, `dare_linear` and `dare_ties` have in common: sum the weighted deltas,
//! with or without sign consensus, and add them to the base (mergekit's generalized task arithmetic).

use deltaic_kernels::Kernels;

use super::{Block, Input, Prepared, Setup, TensorMerge, weighted_sum};
use crate::gather::Operands;
use crate::sparsifiers::{Given, Own};

/// How the weighted deltas become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consensus {
    /// They are added.
    None,
    /// Each element keeps the deltas that have the sign of their sum (TIES, Yadav et al. 2023).
    Sum,
}

/// Plans the merge of one tensor; `own` says what the method itself drops of a model.
pub(super) fn prepare(setup: &Setup, consensus: Consensus, own: impl Fn(&Input) -> Own) -> Prepared {
    let lambda = setup.shared.number("lambda");
    let normalize = setup.shared.truth("normalize");
    let weight = |i: &usize| setup.inputs[*i].values.number("weight");
    let takes_part = |i: &usize| weight(i) != 0.0 && setup.inputs[*i].given != Given::ZeroDelta;
    let sparsified = (0..setup.inputs.len()).filter(takes_part).filter_map(|i| match own(&setup.inputs[i]) {
        Own::Nothing => Some((i, None)),
        Own::Some(sparsifier) => Some((i, Some(sparsifier))),
        Own::All => None,
    });
    let used: Vec<_> = sparsified.collect();
    if lambda == 0.0 || used.is_empty() {
        return Prepared::CopyBase;
    }
    let all_weights: f64 = setup.inputs.iter().map(|input| input.values.number("weight")).sum();
    let divisor = match (normalize, consensus) {
        (true, Consensus::None) => Some(if all_weights.abs() < 1e-8 { 1.0 } else { all_weights }),
        _ => None,
    };
    if let [(only, None)] = used[..]
        && setup.inputs[only].given == Given::AsIs
        && lambda == 1.0
        && match consensus {
            Consensus::Sum if normalize => true,
            _ => weight(&only) == divisor.unwrap_or(1.0),
        }
    {
        return Prepared::Copy(only);
    }
    let merge = TaskVectors {
        weights: used.iter().map(|(i, _)| weight(i) as f32).collect(),
        consensus: (consensus == Consensus::Sum).then_some(normalize),
        divisor: divisor.map(|divisor| divisor as f32),
        lambda: lambda as f32,
    };
    Prepared::Merge { inputs: used, merge: Box::new(merge) }
}

#[derive(Clone)]
struct TaskVectors {
    weights: Vec<f32>,
    /// Sign consensus, and whether it is normalised by the weights that agree.
    consensus: Option<bool>,
    divisor: Option<f32>,
    lambda: f32,
}

impl TensorMerge for TaskVectors {
    fn operands(&self) -> Operands {
        Operands::Deltas
    }

    fn map(&self, kernels: Kernels, block: &Block<'_>, _row: usize, out: &mut [f32]) {
        match self.consensus {
            Some(normalize) => kernels.consensus_sum(block.inputs, &self.weights, normalize, out),
            None => weighted_sum::sum(kernels, &self.weights, block.inputs, out),
        }
        if let Some(divisor) = self.divisor {
            kernels.divide(out, divisor);
        }
        if self.lambda != 1.0 {
            kernels.scale(out, self.lambda);
        }
        kernels.add(out, block.base());
    }

    fn fresh(&self) -> Box<dyn TensorMerge> {
        Box::new(self.clone())
    }
}
