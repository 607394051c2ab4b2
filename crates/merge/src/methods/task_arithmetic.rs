//! `task_arithmetic`: the base plus the weighted sum of the deltas.

use deltaic_checkpoint::Result;

use super::task_vectors::{self, Consensus};
use super::{Base, Definition, Method, Paper, Parameter, Prepared, Preset, Setup, parameters};
use crate::sparsifiers::Own;

pub(super) struct TaskArithmetic;

const MERGEKIT: Definition = Definition {
    name: "task_arithmetic",
    preset: Some(Preset::Mergekit),
    summary: "base plus the weighted sum of the deltas",
    formula: "out = W0 + lambda * sum(w_i (W_i - W0))        normalize true: the sum is divided by sum(w_i)",
    paper: Some(Paper { title: "Editing models with task arithmetic", arxiv: "2212.04089" }),
    base: Base::Required,
    models: (0, None),
    parameters: &[
        parameters::WEIGHT,
        parameters::LAMBDA,
        parameters::NORMALIZE,
        parameters::UNUSED_DENSITY,
        Parameter { no_effect: true, summary: "accepted, without effect", ..parameters::RESCALE },
        parameters::INT8_MASK,
    ],
    statistics: None,
    example: "\
merge_method: task_arithmetic
base_model: ./base
models:
  - {model: ./fine-tune-a, parameters: {weight: 0.6}}
  - {model: ./fine-tune-b, parameters: {weight: 0.4}}
sparsify: {kind: dare, drop_rate: 0.9}
seed: 42
",
};

static DEFINITIONS: &[Definition] = &[
    MERGEKIT,
    Definition {
        preset: Some(Preset::Paper),
        summary: "base plus lambda times the sum of the deltas",
        formula: "out = W0 + lambda * sum(w_i (W_i - W0))        w_i = 1: the authors' meaning",
        models: (1, None),
        parameters: &[parameters::OPTIONAL_WEIGHT, parameters::LAMBDA],
        statistics: None,
        example: "\
preset: paper
merge_method: task_arithmetic
base_model: ./base
models:
  - model: ./fine-tune-a
  - model: ./fine-tune-b
parameters: {lambda: 0.5}
sparsify: {kind: dare, drop_rate: 0.9}
seed: 42
",
        ..MERGEKIT
    },
];

impl Method for TaskArithmetic {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        Ok(task_vectors::prepare(setup, Consensus::None, |_| Own::Nothing))
    }
}
