//! `dare_linear` as mergekit has it: drop at random, restore the l1 norm, add the weighted deltas.

use deltaic_checkpoint::Result;

use super::task_vectors::{self, Consensus};
use super::{Base, Definition, Method, Paper, Prepared, Preset, Setup, parameters};
use crate::sparsifiers::Rescale;
use crate::sparsifiers::dare;

pub(super) struct DareLinear;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "dare_linear",
    preset: Some(Preset::Mergekit),
    summary: "drop at random, restore the l1 norm, add the weighted deltas",
    formula: "d_i = drop(W_i - W0) * |W_i - W0|_1 / |drop(W_i - W0)|_1;  out = W0 + lambda * sum(w_i d_i)        normalize true: divided by sum(w_i)",
    paper: Some(Paper { title: "Language Models are Super Mario", arxiv: "2311.03099" }),
    base: Base::Required,
    models: (0, None),
    parameters: parameters::DARE,
    statistics: None,
    example: "\
merge_method: dare_linear
base_model: ./base
models:
  - {model: ./fine-tune-a, parameters: {weight: 0.5, density: 0.5}}
  - {model: ./fine-tune-b, parameters: {weight: 0.5, density: 0.5}}
seed: 42
",
}];

impl Method for DareLinear {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        let rescale = if setup.shared.truth("rescale") { Rescale::L1 } else { Rescale::None };
        Ok(task_vectors::prepare(setup, Consensus::None, |input| dare::with_density(input.values.number("density"), rescale, input.mask)))
    }
}
