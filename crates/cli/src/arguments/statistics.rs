//! What can be typed after `deltaic fisher` and `deltaic gram`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use deltaic_checkpoint::parse_size;

/// Square a model's gradients, for Fisher merging
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("subject").required(true).args(["model", "recipe"]),
    after_help = "What is computed, and the file's format: docs/statistics.md. A run that is stopped is gone on with by the same command."
)]
pub struct Fisher {
    #[command(flatten)]
    pub common: StatisticsArguments,
    /// Over what gradients are summed before they are squared
    #[arg(long, value_enum, conflicts_with = "recipe", default_value_t = Batch::Example)]
    pub batch: Batch,
    /// Examples in a batch, with --batch sum [default: 16]
    #[arg(long, value_name = "N", conflicts_with = "recipe", value_parser = count)]
    pub batch_size: Option<usize>,
    /// Of a decoder: the tokens whose likelihood is differentiated, the text's or ones drawn from the model
    #[arg(long, value_enum, conflicts_with = "recipe", default_value_t = Targets::Empirical)]
    pub targets: Targets,
    /// Seed of the draws, with --targets sampled
    #[arg(long, value_name = "SEED", conflicts_with = "recipe")]
    pub targets_seed: Option<u64>,
}

/// Multiply the inputs of a model's linear layers, for RegMean
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("subject").required(true).args(["model", "recipe"]),
    after_help = "What is computed, and the file's format: docs/statistics.md. A run that is stopped is gone on with by the same command."
)]
pub struct Gram {
    #[command(flatten)]
    pub common: StatisticsArguments,
    /// Whether padding positions are rows of the inputs
    #[arg(long, value_enum, conflicts_with = "recipe", default_value_t = Padding::Exclude)]
    pub padding: Padding,
    /// With --padding include: examples that are padded to the longest of them [default: each as wide as it is]
    #[arg(long, value_name = "N", conflicts_with = "recipe", value_parser = count)]
    pub batch_size: Option<usize>,
    /// Most memory for sums: layers that do not fit are done in further passes over the examples
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = |text: &str| parse_size(text).map_err(|error| error.message().to_owned()))]
    pub memory: u64,
}

/// What both take.
#[derive(Debug, Args)]
pub struct StatisticsArguments {
    /// The model: a folder, a Hub name in the local cache, an adapter as base+adapter
    pub model: Option<String>,
    /// The file to be made
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// The task whose items are the examples; its name, or the path of its file
    #[arg(long, value_name = "TASK", requires = "data", conflicts_with = "inputs")]
    pub task: Option<String>,
    /// The folder with the task's official files, or its own folder or file
    #[arg(long, value_name = "DIR", requires = "task")]
    pub data: Option<PathBuf>,
    /// The split: a file's stem, such as train [default: the task's own file]
    #[arg(long, value_name = "STEM", requires = "task")]
    pub split: Option<String>,
    /// A safetensors file of token ids in place of a task: input_ids, attention_mask, token_type_ids, labels
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
    /// How many examples are taken [default: all]
    #[arg(long, value_name = "N", value_parser = count)]
    pub examples: Option<usize>,
    /// In which order [default: file]
    #[arg(long, value_enum)]
    pub order: Option<Order>,
    /// Seed of --order permuted, as NumPy's RandomState takes it [default: 0]
    #[arg(long, value_name = "SEED", requires = "order")]
    pub seed: Option<u32>,
    /// Take the classification head of this model
    #[arg(long, value_name = "MODEL")]
    pub head_from: Option<String>,
    /// A recipe one of whose models is taken, after its sparsifier; the recipe's `fisher`, `gram`, `data` and preset hold
    #[arg(long, value_name = "RECIPE", requires = "number")]
    pub recipe: Option<PathBuf>,
    /// Which of the recipe's models, counted from 0, the base not counted
    #[arg(long = "model", id = "number", value_name = "I", requires = "recipe")]
    pub number: Option<usize>,
    /// Replace the file where it exists, and discard the partial work of another run
    #[arg(long)]
    pub force: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Batch {
    /// Each example by itself
    Example,
    /// A batch's sum, as the authors of the paper do
    Sum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Targets {
    /// The text's
    Empirical,
    /// Drawn from the model
    Sampled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Padding {
    /// They are not
    Exclude,
    /// They are, as in the program of the paper's authors
    Include,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// As they stand
    File,
    /// As NumPy's RandomState(seed).permutation(n) has them
    Permuted,
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| "expected a whole number from 1 on".to_owned())
}
