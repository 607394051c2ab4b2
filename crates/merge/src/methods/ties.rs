//! `ties` as mergekit has it: trim each tensor, elect signs of the weighted deltas, add those that agree.

use deltaic_checkpoint::Result;

use super::task_vectors::{self, Consensus};
use super::{Base, Default, Definition, Method, Paper, Parameter, Prepared, Preset, Setup, parameters};
use crate::sparsifiers::magnitude;

pub(super) struct Ties;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "ties",
    preset: Some(Preset::Mergekit),
    summary: "trim each tensor's delta, elect signs by the weighted sum, average those that agree",
    formula: "d_i = the max(1, trunc(density_i n)) largest of W_i - W0;  s_i = w_i d_i;  g = sign(sum s_i), 0 elects +
out = W0 + lambda * sum(s_i where sign(s_i) = g) / sum(w_i of these)        normalize false: no division",
    paper: Some(Paper { title: "TIES-Merging", arxiv: "2306.01708" }),
    base: Base::Required,
    models: (0, None),
    parameters: &[
        parameters::WEIGHT,
        parameters::DENSITY,
        Parameter { default: Default::Bool(true), ..parameters::NORMALIZE },
        parameters::LAMBDA,
        parameters::RESCALE,
        parameters::INT8_MASK,
    ],
    statistics: None,
    example: "\
merge_method: ties
base_model: ./base
models:
  - {model: ./fine-tune-a, parameters: {weight: 0.5, density: 0.5}}
  - {model: ./fine-tune-b, parameters: {weight: 0.5, density: 0.5}}
parameters: {normalize: true}
",
}];

impl Method for Ties {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        let rescale = setup.shared.truth("rescale");
        Ok(task_vectors::prepare(setup, Consensus::Sum, |input| {
            magnitude::keep_largest(input.values.number("density"), setup.elements, rescale)
        }))
    }
}
