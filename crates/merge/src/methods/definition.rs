//! What a method says about itself, as data: it feeds the recipe's parser, the checks, `deltaic methods` and the documentation.

use crate::paper::Paper;

/// Where two tools give one name two meanings, the preset decides which is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// mergekit 0.1.5's meaning: the default.
    Mergekit,
    /// The meaning in the authors' program (Yu et al. 2024).
    Paper,
}

/// The type and range of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any finite number.
    Number,
    /// A number within 0 ..= 1.
    Rate,
    /// `true` or `false`; a number counts as its truth, as in Python.
    Bool,
}

/// Where a parameter may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One value for the merge of a tensor; never looked up in a model's own block.
    Shared,
    /// A value for each model but the base.
    PerModel,
    /// A value for each input, the base among them.
    PerInput,
}

/// What a parameter is when nobody gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Default {
    /// It must be given.
    Required,
    /// Absent stays absent.
    Absent,
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
}

/// One parameter of a method.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name in recipes.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Where it may stand.
    pub scope: Scope,
    /// What holds without it.
    pub default: Default,
    /// Accepted for compatibility, without any effect on the result (`int8_mask`).
    pub no_effect: bool,
    /// One line for `deltaic methods NAME`.
    pub summary: &'static str,
}

/// What `base_model` is to a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Deltas are taken against it: without one there is no merge.
    Required,
    /// One of the (exactly two) inputs, and it says which of them is which.
    OneOfTheInputs,
    /// One more input like the others.
    Input,
    /// No input; only a sparsifier takes its deltas against it, and tensors that are not merged come from it.
    Reference,
}

/// Statistics of a model on its data: a method's auxiliary sources, a file for each model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// A tensor of mean squared gradients for each parameter.
    Fisher,
    /// For the weight of each linear layer, `[out, in]`, the Gram matrix `[in, in]` of the layer's inputs.
    Gram,
}

impl Statistics {
    /// Its name in the metadata `deltaic.statistics` of files, and as a verb.
    pub fn name(self) -> &'static str {
        match self {
            Statistics::Fisher => "fisher",
            Statistics::Gram => "gram",
        }
    }
}

/// A method under one preset.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Its name in recipes.
    pub name: &'static str,
    /// The preset for which this definition holds; `None`: every preset.
    pub preset: Option<Preset>,
    /// One line.
    pub summary: &'static str,
    /// The formula, as text.
    pub formula: &'static str,
    /// Where it was published.
    pub paper: Option<Paper>,
    /// What the base is to it.
    pub base: Base,
    /// Least and greatest number of models, the base not counted (for [`Base::Input`] and [`Base::OneOfTheInputs`]: of inputs, the base counted).
    pub models: (usize, Option<usize>),
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// What it has to know of the models' data; most methods: nothing.
    pub statistics: Option<Statistics>,
    /// A recipe that runs, for `deltaic methods NAME`.
    pub example: &'static str,
}
