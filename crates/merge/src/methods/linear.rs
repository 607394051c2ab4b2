//! `linear`: the weighted average of whole models (model soups).

use deltaic_checkpoint::Result;

use super::{Base, Default, Definition, Method, Paper, Parameter, Prepared, Scope, Setup, parameters, weighted_sum};
use crate::methods::Preset;

pub(super) struct Linear;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "linear",
    preset: Some(Preset::Mergekit),
    summary: "weighted average of the models; a base is one more input",
    formula: "out = sum(w_i W_i) / sum(w_i)        normalize false: sum(w_i W_i)",
    paper: Some(Paper { title: "Model soups", arxiv: "2203.05482" }),
    base: Base::Input,
    models: (1, None),
    parameters: &[
        Parameter { scope: Scope::PerInput, summary: "factor of the model", ..parameters::WEIGHT },
        Parameter { default: Default::Bool(true), summary: "divide by the sum of the weights", ..parameters::NORMALIZE },
    ],
    statistics: None,
    example: "\
merge_method: linear
models:
  - {model: ./fine-tune-a, parameters: {weight: 0.6}}
  - {model: ./fine-tune-b, parameters: {weight: 0.4}}
",
}];

impl Method for Linear {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        weighted_sum::prepare(setup, setup.shared.truth("normalize"))
    }
}
