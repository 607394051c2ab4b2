//! Merge methods. A method is one file here and one line in the registry.

mod average;
mod dare_linear;
mod dare_ties;
mod definition;
mod fisher;
mod linear;
mod model_stock;
mod paper_ties;
mod passthrough;
mod regmean;
mod slerp;
mod task_arithmetic;
mod task_vectors;
mod ties;
mod weighted_sum;

use deltaic_checkpoint::Result;
use deltaic_kernels::Kernels;

pub use definition::{Base, Default, Definition, Kind, Parameter, Preset, Scope, Statistics};

pub use crate::paper::Paper;

use crate::gather::{Gathered, Operands, Tally, Wanted};
use crate::recipe::FisherSettings;
use crate::sparsifiers::{Given, Sparsifier};

/// The registry: every method, in the order in which `deltaic methods` shows them.
static METHODS: &[&dyn Method] = &[
    &average::Average,
    &linear::Linear,
    &task_arithmetic::TaskArithmetic,
    &ties::Ties,
    &paper_ties::PaperTies,
    &fisher::Fisher,
    &regmean::RegMean,
    &dare_linear::DareLinear,
    &dare_ties::DareTies,
    &slerp::Slerp,
    &model_stock::ModelStock,
    &passthrough::Passthrough,
];

/// Methods that recipes may name and that are not built yet.
pub const NOT_YET: &[&str] = &[
    "nuslerp",
    "multislerp",
    "karcher",
    "nearswap",
    "arcee_fusion",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "sce",
    "ram",
    "ramplus_tl",
];

/// All definitions, in the order of the registry.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    METHODS.iter().flat_map(|method| method.definitions())
}

/// The definition of method `name` under `preset`.
pub fn find(name: &str, preset: Preset) -> Option<&'static Definition> {
    all().find(|definition| definition.name == name && definition.preset.is_none_or(|only| only == preset))
}

/// The method that a definition belongs to.
pub(crate) fn implementation(definition: &Definition) -> &'static dyn Method {
    let same = |other: &Definition| other.name == definition.name && other.preset == definition.preset;
    *METHODS.iter().find(|method| method.definitions().iter().any(same)).expect("every definition stands in the registry")
}

/// A merge method: what it says about itself, and how it merges one tensor.
pub(crate) trait Method: Sync {
    /// Its definitions: one, or one for each preset that gives its name another meaning.
    fn definitions(&self) -> &'static [Definition];

    /// Decides, at plan time, what is done with one tensor.
    ///
    /// # Errors
    /// The parameters make no merge (weights that sum to zero where they are normalised, …). The message names no tensor: the plan adds it.
    fn prepare(&self, setup: &Setup) -> Result<Prepared>;

    /// What has to be gathered over all merged tensors of the model before the first is mapped; most methods: nothing.
    ///
    /// # Errors
    /// As for [`Method::prepare`].
    fn model_wide(&self, _setups: &[Setup]) -> Result<Option<Box<dyn ModelWide>>> {
        Ok(None)
    }
}

/// A parameter's value, resolved for one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
}

/// Parameters by name, resolved for one tensor; what was given nowhere has its default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(pub Vec<(&'static str, Value)>);

impl Values {
    /// A number that is given or has a default.
    pub fn number(&self, name: &str) -> f64 {
        self.optional(name).unwrap_or_else(|| panic!("{name} is a parameter with a value"))
    }

    /// A number that may be absent.
    pub fn optional(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| match value {
            Value::Number(number) => *number,
            Value::Bool(truth) => f64::from(u8::from(*truth)),
        })
    }

    /// A truth value; absent is false.
    pub fn truth(&self, name: &str) -> bool {
        self.optional(name).is_some_and(|number| number != 0.0)
    }
}

/// One input of a tensor's merge.
#[derive(Debug, Clone)]
pub struct Input {
    /// Whether it is the base.
    pub is_base: bool,
    /// Its own parameters.
    pub values: Values,
    /// What stands between the file and the method.
    pub given: Given,
    /// The key of its random mask, for methods that drop at random themselves.
    pub mask: deltaic_kernels::MaskKey,
    /// The shape of its statistics of this tensor, where it has some.
    pub statistics: Option<Vec<u64>>,
}

impl Input {
    /// Whether it is the base, or as good as it.
    pub fn equals_base(&self) -> bool {
        self.is_base || self.given == Given::ZeroDelta
    }
}

/// Everything that a method knows about one tensor when it decides what to do with it.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Number of elements.
    pub elements: u64,
    /// Number of axes.
    pub axes: usize,
    /// Length of the last axis (1-D tensors: all of it).
    pub row: u64,
    /// The recipe's block `fisher`.
    pub fisher: FisherSettings,
    /// Shared parameters.
    pub shared: Values,
    /// The inputs in the recipe's order: the models and, where the method counts it among them, the base.
    pub inputs: Vec<Input>,
}

/// What is done with a tensor.
pub(crate) enum Prepared {
    /// It is the base's, bit for bit.
    CopyBase,
    /// It is that input's, bit for bit.
    Copy(usize),
    /// It is computed.
    Merge {
        /// The inputs that take part, each with the method's own sparsifier before it.
        inputs: Vec<(usize, Option<Box<dyn Sparsifier>>)>,
        /// What is done with them.
        merge: Box<dyn TensorMerge>,
    },
}

/// A run of elements of one tensor in f32, the same run of each input.
#[derive(Debug)]
pub struct Block<'a> {
    /// The base, where it is read.
    pub base: Option<&'a [f32]>,
    /// The inputs that take part, in order, as the method's [`Operands`].
    pub inputs: &'a [&'a [f32]],
    /// Their statistics, of methods that ask for them.
    pub statistics: &'a [&'a [f32]],
}

impl<'a> Block<'a> {
    /// The base; always there where operands are deltas.
    pub fn base(&self) -> &'a [f32] {
        self.base.expect("the base is read wherever deltas are taken")
    }
}

/// The merge of one tensor: plain numbers, no files, no threads, no chunk sizes.
///
/// `output element i` depends on element i of each input, on parameters, and on numbers gathered over the tensor before.
pub(crate) trait TensorMerge: Send + Sync {
    /// What the inputs have to be.
    fn operands(&self) -> Operands;

    /// What a block has to hold.
    fn reach(&self) -> Reach {
        Reach::Elements
    }

    /// Whether it reads the inputs' statistics: the same run of elements, or with [`Reach::Tensor`] all of them, whatever their shape.
    fn reads_statistics(&self) -> bool {
        false
    }

    /// What has to be gathered next; `None` when the map can be made.
    fn wants(&self) -> Option<Wanted> {
        None
    }

    /// Adds one block to what is gathered.
    fn gather(&self, _kernels: Kernels, _block: &Block<'_>, _tally: Tally<'_>) {}

    /// Takes what was gathered over all elements.
    fn take(&mut self, _gathered: Gathered) {}

    /// Takes what was gathered over the whole model.
    fn take_model_wide(&mut self, _numbers: &[f64]) {}

    /// Greatest number of passes that gather.
    fn most_passes(&self) -> usize {
        usize::from(self.wants().is_some())
    }

    /// Computes a block of the output. With [`Reach::Rows`] a block is any number of rows of length `row`.
    fn map(&self, kernels: Kernels, block: &Block<'_>, row: usize, out: &mut [f32]);

    /// What the user should know of how the tensor was computed, once it is.
    fn remark(&self) -> Option<String> {
        None
    }

    /// The same merge with nothing gathered yet.
    fn fresh(&self) -> Box<dyn TensorMerge>;
}

/// What the blocks of a tensor's map have to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Any run of elements.
    Elements,
    /// Whole rows (the last axis).
    Rows,
    /// The whole tensor: it has to fit into memory, with all its inputs.
    Tensor,
}

/// Numbers gathered over all merged tensors of a model, in passes over its elements.
pub(crate) trait ModelWide: Send + Sync {
    /// What the next pass gathers (sums or counters); `None` when all is known.
    fn wants(&self) -> Option<Wanted>;

    /// Whether it looks at the inputs' statistics alone, and at no weights.
    fn of_statistics(&self) -> bool {
        false
    }

    /// Adds one block, of deltas or of statistics.
    fn gather(&self, kernels: Kernels, block: &Block<'_>, tally: Tally<'_>);

    /// Takes what a pass has gathered.
    fn take(&mut self, gathered: Gathered);

    /// What every tensor's merge is told.
    fn numbers(&self) -> Vec<f64>;

    /// What [`ModelWide::numbers`] say was trimmed of each model; nothing of methods that trim nothing over the whole model.
    fn trims(&self, _numbers: &[f64]) -> Vec<Trim> {
        Vec::new()
    }

    /// Greatest number of reads of the sources that this takes, the merge itself not counted.
    fn most_passes(&self) -> usize;

    /// The same with nothing gathered yet.
    fn fresh(&self) -> Box<dyn ModelWide>;
}

/// What was trimmed of a model's deltas over the whole model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trim {
    /// Deltas of smaller magnitude were trimmed; 0: none were.
    pub threshold: f32,
    /// How many deltas there are, zeros included.
    pub elements: u64,
    /// How many of them are not zero (of a magnitude of 2^-134 or more); None where they were not counted, since nothing was to be trimmed.
    pub non_zero: Option<u64>,
    /// How many of those were kept; None likewise.
    pub kept: Option<u64>,
}

/// Parameters that several methods share, word for word.
pub(crate) mod parameters {
    use super::{Default, Kind, Parameter, Scope};

    /// mergekit's required weight of each model.
    pub const WEIGHT: Parameter = Parameter {
        name: "weight",
        kind: Kind::Number,
        scope: Scope::PerModel,
        default: Default::Required,
        no_effect: false,
        summary: "factor of the model's delta",
    };
    /// A weight that the authors' program does not have: 1 without it.
    pub const OPTIONAL_WEIGHT: Parameter =
        Parameter { default: Default::Number(1.0), summary: "factor of the model (1: the authors' meaning)", ..WEIGHT };
    /// mergekit's share of elements kept.
    pub const DENSITY: Parameter = Parameter {
        name: "density",
        kind: Kind::Rate,
        scope: Scope::PerModel,
        default: Default::Number(1.0),
        no_effect: false,
        summary: "share of the delta's elements that is kept (drop rate = 1 - density)",
    };
    /// mergekit's density where the method does not look at it.
    pub const UNUSED_DENSITY: Parameter = Parameter { no_effect: true, summary: "accepted, without effect", ..DENSITY };
    /// Scale of the summed deltas.
    pub const LAMBDA: Parameter = Parameter {
        name: "lambda",
        kind: Kind::Number,
        scope: Scope::Shared,
        default: Default::Number(1.0),
        no_effect: false,
        summary: "factor of the summed deltas (scaling coefficient)",
    };
    /// Whether sums are divided by the weights.
    pub const NORMALIZE: Parameter = Parameter {
        name: "normalize",
        kind: Kind::Bool,
        scope: Scope::Shared,
        default: Default::Bool(false),
        no_effect: false,
        summary: "divide by the sum of the weights that take part",
    };
    /// Whether l1 norms are restored after dropping.
    pub const RESCALE: Parameter = Parameter {
        name: "rescale",
        kind: Kind::Bool,
        scope: Scope::Shared,
        default: Default::Bool(false),
        no_effect: false,
        summary: "restore each delta's l1 norm after dropping",
    };
    /// Those of mergekit's two DARE methods.
    pub const DARE: &[Parameter] = &[WEIGHT, DENSITY, NORMALIZE, LAMBDA, Parameter { default: Default::Bool(true), ..RESCALE }, INT8_MASK];
    /// mergekit's switch for the dtype of its masks.
    pub const INT8_MASK: Parameter = Parameter {
        name: "int8_mask",
        kind: Kind::Bool,
        scope: Scope::Shared,
        default: Default::Bool(false),
        no_effect: true,
        summary: "accepted, without effect on the result",
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_under_each_preset() {
        for preset in [Preset::Mergekit, Preset::Paper] {
            let mut names: Vec<_> =
                all().filter(|d| d.preset.is_none_or(|only| only == preset)).map(|definition| definition.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{preset:?}");
        }
        assert!(NOT_YET.iter().all(|name| all().all(|d| d.name != *name)));
    }
}
