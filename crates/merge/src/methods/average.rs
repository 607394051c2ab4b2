//! `average`: the authors' plain mean of the fine-tuned models.

use deltaic_checkpoint::Result;

use super::{Base, Definition, Method, Paper, Prepared, Setup, parameters, weighted_sum};

pub(super) struct Average;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "average",
    preset: None,
    summary: "mean of the fine-tuned models; the base is never one of them",
    formula: "out = sum(w_i W_i) / sum(w_i)        w_i = 1: the mean",
    paper: Some(Paper { title: "Model soups", arxiv: "2203.05482" }),
    base: Base::Reference,
    models: (1, None),
    parameters: &[parameters::OPTIONAL_WEIGHT],
    statistics: None,
    example: "\
merge_method: average
base_model: ./base
models:
  - model: ./fine-tune-a
  - model: ./fine-tune-b
sparsify: {kind: dare, drop_rate: 0.9}
seed: 42
",
}];

impl Method for Average {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        weighted_sum::prepare(setup, true)
    }
}
