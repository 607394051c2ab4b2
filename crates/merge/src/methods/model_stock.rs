//! `model_stock`: moves from the base towards the mean of the models by as much as their deltas agree in direction.

use deltaic_checkpoint::Result;
use deltaic_kernels::{Kernels, LaneSums, REDUCTION_BLOCK, ordered_sum};

use super::{Base, Block, Default, Definition, Input, Kind, Method, Paper, Parameter, Prepared, Preset, Reach, Scope, Setup, TensorMerge};
use crate::gather::Operands;
use crate::gather::{Gathered, Tally, Wanted};

pub(super) struct ModelStock;

/// Floor of the product of two norms (mergekit's guard; it makes the cosine of tiny deltas too small).
const LEAST_NORM_PRODUCT: f64 = 1e-6;
/// A denominator below this gives t = 0 (mergekit's guard).
const LEAST_DENOMINATOR: f64 = 1e-6;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "model_stock",
    preset: Some(Preset::Mergekit),
    summary: "from the base towards the mean of the models, as far as their deltas agree in direction",
    formula: "c = mean over pairs of cos(W_i - W0, W_j - W0);  t = N c / (1 + (N-1) c);  out = t mean(W_i) + (1-t) W0
filter_wise: c for each row (last axis) on its own",
    paper: Some(Paper { title: "Model Stock: All we need is just a few fine-tuned models", arxiv: "2403.19522" }),
    base: Base::Required,
    models: (2, None),
    parameters: &[Parameter {
        name: "filter_wise",
        kind: Kind::Bool,
        scope: Scope::Shared,
        default: Default::Bool(false),
        no_effect: false,
        summary: "a ratio for each row instead of one for the tensor",
    }],
    statistics: None,
    example: "\
merge_method: model_stock
base_model: ./base
models:
  - model: ./fine-tune-a
  - model: ./fine-tune-b
",
}];

impl Method for ModelStock {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        let count = setup.inputs.len();
        if count < 2 || setup.inputs.iter().all(Input::equals_base) {
            return Ok(Prepared::CopyBase);
        }
        let merge: Box<dyn TensorMerge> =
            if setup.shared.truth("filter_wise") { Box::new(FilterWise { count }) } else { Box::new(Whole { count, ratio: None }) };
        Ok(Prepared::Merge { inputs: (0..count).map(|i| (i, None)).collect(), merge })
    }
}

/// Number of sums of `count` deltas: a square for each, a product for each pair.
fn sums_of(count: usize) -> usize {
    count + count * (count - 1) / 2
}

/// Adds squares and products of the deltas, squares first.
fn gather(kernels: Kernels, deltas: &[&[f32]], sums: &mut [LaneSums]) {
    let (squares, products) = sums.split_at_mut(deltas.len());
    let mut products = products.iter_mut();
    for (i, delta) in deltas.iter().enumerate() {
        kernels.sum_products(delta, delta, &mut squares[i]);
        for other in &deltas[i + 1..] {
            kernels.sum_products(delta, other, products.next().expect("a sum for each pair"));
        }
    }
}

/// t of `count` deltas from their squares and products.
fn ratio_of(count: usize, sums: &[f64]) -> f64 {
    let (squares, products) = sums.split_at(count);
    let mut products = products.iter();
    let mut cosines = 0.0;
    for i in 0..count {
        for j in i + 1..count {
            let norms = (squares[i].sqrt() * squares[j].sqrt()).max(LEAST_NORM_PRODUCT);
            cosines += (products.next().expect("a sum for each pair") / norms).clamp(-1.0, 1.0);
        }
    }
    let n = count as f64;
    let cosine = cosines / (n * (n - 1.0) / 2.0);
    let denominator = 1.0 + (n - 1.0) * cosine;
    if denominator.abs() < LEAST_DENOMINATOR { 0.0 } else { n * cosine / denominator }
}

/// `out = W0 + t mean(d_i)`.
fn map(kernels: Kernels, deltas: &[&[f32]], base: &[f32], ratio: f32, out: &mut [f32]) {
    out.fill(0.0);
    for delta in deltas {
        kernels.add(out, delta);
    }
    kernels.divide(out, deltas.len() as f32);
    kernels.scale(out, ratio);
    kernels.add(out, base);
}

#[derive(Clone)]
struct Whole {
    count: usize,
    ratio: Option<f32>,
}

impl TensorMerge for Whole {
    fn operands(&self) -> Operands {
        Operands::Deltas
    }

    fn wants(&self) -> Option<Wanted> {
        self.ratio.is_none().then_some(Wanted::Sums(sums_of(self.count)))
    }

    fn gather(&self, kernels: Kernels, block: &Block<'_>, mut tally: Tally<'_>) {
        gather(kernels, block.inputs, tally.sums());
    }

    fn take(&mut self, gathered: Gathered) {
        self.ratio = Some(ratio_of(self.count, &gathered.sums()) as f32);
    }

    fn map(&self, kernels: Kernels, block: &Block<'_>, _row: usize, out: &mut [f32]) {
        map(kernels, block.inputs, block.base(), self.ratio.expect("the ratio was gathered before"), out);
    }

    fn fresh(&self) -> Box<dyn TensorMerge> {
        Box::new(Self { ratio: None, ..self.clone() })
    }
}

#[derive(Clone)]
struct FilterWise {
    count: usize,
}

impl TensorMerge for FilterWise {
    fn operands(&self) -> Operands {
        Operands::Deltas
    }

    fn reach(&self) -> Reach {
        Reach::Rows
    }

    fn map(&self, kernels: Kernels, block: &Block<'_>, row: usize, out: &mut [f32]) {
        for start in (0..out.len()).step_by(row.max(1)) {
            let whole = start..start + row;
            let deltas: Vec<&[f32]> = block.inputs.iter().map(|input| &input[whole.clone()]).collect();
            let ratio = ratio_of(self.count, &sums_of_row(kernels, &deltas));
            map(kernels, &deltas, &block.base()[whole.clone()], ratio as f32, &mut out[whole]);
        }
    }

    fn fresh(&self) -> Box<dyn TensorMerge> {
        Box::new(self.clone())
    }
}

/// The sums over one row, in the order that holds for every sum.
fn sums_of_row(kernels: Kernels, deltas: &[&[f32]]) -> Vec<f64> {
    let wanted = sums_of(deltas.len());
    let mut totals = vec![Vec::new(); wanted];
    for start in (0..deltas[0].len()).step_by(REDUCTION_BLOCK) {
        let end = (start + REDUCTION_BLOCK).min(deltas[0].len());
        let mut sums = vec![LaneSums::default(); wanted];
        let part: Vec<&[f32]> = deltas.iter().map(|delta| &delta[start..end]).collect();
        gather(kernels, &part, &mut sums);
        totals.iter_mut().zip(&sums).for_each(|(totals, sum)| totals.push(sum.total()));
    }
    totals.iter().map(|totals| ordered_sum(totals)).collect()
}
