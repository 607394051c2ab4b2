//! `dare_ties` as mergekit has it: drop at random, restore the l1 norm, elect signs, add the deltas that agree.

use deltaic_checkpoint::Result;

use super::task_vectors::{self, Consensus};
use super::{Base, Definition, Method, Paper, Prepared, Preset, Setup, parameters};
use crate::sparsifiers::Rescale;
use crate::sparsifiers::dare;

pub(super) struct DareTies;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "dare_ties",
    preset: Some(Preset::Mergekit),
    summary: "drop at random, restore the l1 norm, elect signs, add the deltas that agree",
    formula: "d_i = drop(W_i - W0) * |W_i - W0|_1 / |drop(W_i - W0)|_1;  s_i = w_i d_i;  g = sign(sum s_i), 0 elects +
out = W0 + lambda * sum(s_i where sign(s_i) = g)        normalize true: divided by sum(w_i of these)",
    paper: Some(Paper { title: "Language Models are Super Mario", arxiv: "2311.03099" }),
    base: Base::Required,
    models: (0, None),
    parameters: parameters::DARE,
    statistics: None,
    example: "\
merge_method: dare_ties
base_model: ./base
models:
  - {model: ./fine-tune-a, parameters: {weight: 0.5, density: 0.5}}
  - {model: ./fine-tune-b, parameters: {weight: 0.5, density: 0.5}}
seed: 42
",
}];

impl Method for DareTies {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        let rescale = if setup.shared.truth("rescale") { Rescale::L1 } else { Rescale::None };
        Ok(task_vectors::prepare(setup, Consensus::Sum, |input| dare::with_density(input.values.number("density"), rescale, input.mask)))
    }
}
