//! `statistics`, `data`, `fisher`, `gram`: what Fisher merging and RegMean know of the models' data.

/// How a model's Fisher information is computed and used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FisherSettings {
    /// Whether the models' coefficients are divided by the L2 norm of their Fisher weights (semantics of MergeLM).
    pub normalize: bool,
    /// What is added to each Fisher weight; at least 0.
    pub minimal: f64,
    /// Over what squares are taken.
    pub batch: FisherBatch,
    /// Of which tokens a decoder's gradient is taken.
    pub targets: Targets,
}

/// Over what a gradient is summed before it is squared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FisherBatch {
    /// Each example (and class) by itself: the mean over examples of the expected square.
    Example,
    /// A batch of so many examples: the square of the sum, cross terms included, as the authors' program has it.
    Sum {
        /// Examples in a batch.
        size: usize,
    },
}

/// Target tokens of a decoder's Fisher information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// Those of the text.
    Empirical,
    /// Drawn from the model itself.
    Sampled {
        /// Seed of the draws.
        seed: u64,
    },
}

/// How Gram matrices are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GramSettings {
    /// What padding counts as.
    pub padding: Padding,
    /// Examples in a batch, which are padded to its longest; without one, the inputs' own width.
    pub batch_size: Option<usize>,
}

/// Whether padding positions are rows of a Gram matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// They are not.
    Exclude,
    /// They are, as in the authors' program.
    Include,
}

/// The examples from which a model's statistics are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSettings {
    /// Where they come from.
    pub source: DataSource,
    /// How many are taken; all without it.
    pub examples: Option<usize>,
    /// In which order.
    pub order: Order,
}

/// Where examples come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// A task's items.
    Task {
        /// Its name, or the path of its file.
        task: String,
        /// The folder with its data; relative to the recipe's folder.
        path: String,
        /// The split: a file's stem such as `train`; without it the task's own file.
        split: Option<String>,
    },
    /// A safetensors file of token ids; relative to the recipe's folder.
    Inputs(String),
}

/// The order in which examples are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they stand.
    File,
    /// Permuted as NumPy's `RandomState(seed).permutation(n)` does.
    Permuted {
        /// The seed, 32 bits.
        seed: u32,
    },
}
