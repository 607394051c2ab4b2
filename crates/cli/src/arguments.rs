//! What can be typed.

#[cfg(feature = "eval")]
mod eval;
#[cfg(feature = "eval")]
mod similarity;
#[cfg(feature = "eval")]
mod statistics;
#[cfg(feature = "eval")]
mod study;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, ColorChoice, Parser, Subcommand, ValueEnum};
use deltaic_checkpoint::parse_size;
use deltaic_kernels::InstructionSet;

#[cfg(feature = "eval")]
pub use eval::Eval;
#[cfg(feature = "eval")]
pub use similarity::Similarity;
#[cfg(feature = "eval")]
pub use statistics::{Batch, Fisher, Gram, Order, Padding, StatisticsArguments, Targets};
#[cfg(feature = "eval")]
pub use study::Study;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default());

/// Merges language models that were fine-tuned from one base.
#[derive(Debug, Parser)]
#[command(version, styles = STYLES, propagate_version = true, after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage. Results go to stdout, all else to stderr.")]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
    /// Say nothing but errors and results
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// When to use colours; NO_COLOR and CLICOLOR_FORCE are obeyed
    #[arg(long, global = true, default_value = "auto", value_name = "WHEN")]
    pub color: ColorChoice,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Merge models as a recipe says
    Merge(Merge),
    /// Show what a merge would do: the resolved recipe, tensors, bytes, reads, memory, space
    Plan(Plan),
    /// Drop and rescale the delta of one model (DARE)
    Dare(Dare),
    /// Restore a model that was published as weight differences: base plus differences
    ApplyDelta(ApplyDelta),
    /// Show a model's tensors, dtypes, parameters, bytes, architecture
    Inspect(Inspect),
    /// Check a merged model again; with --sample or --full hold its weights against its sources
    Verify(Verify),
    /// Study what a fine-tune changed of its base: ranges, quantiles, cosine, by tensor, layer and kind
    Delta(Delta),
    /// Evaluate models on tasks: GLUE, GSM8K, HumanEval, MMLU, perplexity and more, or tasks of your own
    #[cfg(feature = "eval")]
    Eval(Box<Eval>),
    /// Square a model's gradients over a task's examples, for Fisher merging
    #[cfg(feature = "eval")]
    Fisher(Box<Fisher>),
    /// Multiply the inputs of a model's linear layers over a task's examples, for RegMean
    #[cfg(feature = "eval")]
    Gram(Box<Gram>),
    /// Study what dropping and merging do to models, over operations, rates, methods and seeds
    #[cfg(feature = "eval")]
    Study(Study),
    /// Compare the hidden states of two models on the same texts: the cosine at every token
    #[cfg(feature = "eval")]
    Similarity(Similarity),
    /// List the merge methods and sparsifiers, or show one with its formula and a recipe that runs
    Methods(Methods),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How a recipe is read.
#[derive(Debug, Args)]
pub struct Reading {
    /// Let unknown keys pass that are nearly known ones
    #[arg(long, conflicts_with = "strict")]
    pub ignore_unknown: bool,
    /// Make every unknown or misplaced key an error
    #[arg(long)]
    pub strict: bool,
    /// Seed of the random masks, for recipes that give none
    #[arg(long, value_name = "SEED")]
    pub random_seed: Option<u64>,
    /// Greatest size of a shard: 5GB, 500MB, 2GiB; 0 for one shard [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub out_shard_size: Option<u64>,
    /// Merge models of different architectures all the same
    #[arg(long)]
    pub allow_crimes: bool,
    /// Do not copy the tokenizer's files; those that `tokenizer_source` asks for are copied all the same
    #[arg(long)]
    pub no_copy_tokenizer: bool,
    #[command(flatten)]
    pub mergekit: MergekitFlags,
}

/// Flags of mergekit-yaml that ask for what deltaic does anyway, or does not need: accepted by name, so that command lines carry over.
#[derive(Debug, Args)]
#[group(multiple = true)]
pub struct MergekitFlags {
    #[arg(long, hide = true, conflicts_with = "no_copy_tokenizer")]
    copy_tokenizer: bool,
    #[arg(long, hide = true)]
    cuda: bool,
    #[arg(long, hide = true)]
    no_cuda: bool,
    #[arg(long, hide = true)]
    low_cpu_memory: bool,
    #[arg(long, hide = true)]
    no_low_cpu_memory: bool,
    #[arg(long, hide = true)]
    lazy_unpickle: bool,
    #[arg(long, hide = true)]
    no_lazy_unpickle: bool,
    #[arg(long, hide = true)]
    safe_serialization: bool,
    #[arg(long, hide = true)]
    read_to_gpu: bool,
    #[arg(long, hide = true)]
    no_read_to_gpu: bool,
    #[arg(long, hide = true)]
    multi_gpu: bool,
    #[arg(long, hide = true)]
    no_multi_gpu: bool,
    #[arg(long, hide = true)]
    gpu_rich: bool,
    #[arg(long, hide = true)]
    no_gpu_rich: bool,
    #[arg(long, hide = true, conflicts_with = "allow_crimes")]
    no_allow_crimes: bool,
    #[arg(long, hide = true)]
    no_safe_serialization: bool,
    #[arg(long, hide = true, value_name = "DEVICE")]
    device: Option<String>,
    #[arg(long, hide = true, value_name = "DIR")]
    transformers_cache: Option<PathBuf>,
    #[arg(long, hide = true)]
    clone_tensors: bool,
    #[arg(long, hide = true)]
    no_clone_tensors: bool,
    #[arg(long, hide = true)]
    async_write: bool,
    #[arg(long, hide = true)]
    no_async_write: bool,
    #[arg(long, hide = true)]
    trust_remote_code: bool,
    #[arg(long, hide = true)]
    no_trust_remote_code: bool,
    #[arg(long, hide = true, value_name = "DTYPE")]
    lora_merge_dtype: Option<String>,
    #[arg(long, hide = true, value_name = "DIR")]
    lora_merge_cache: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "N")]
    write_threads: Option<usize>,
    #[arg(short, long, hide = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl MergekitFlags {
    /// Those that were given although they change nothing here, for a note.
    pub fn without_effect(&self) -> Vec<&'static str> {
        [
            (self.cuda, "--cuda"),
            (self.read_to_gpu, "--read-to-gpu"),
            (self.multi_gpu, "--multi-gpu"),
            (self.gpu_rich, "--gpu-rich"),
            (self.lora_merge_dtype.is_some(), "--lora-merge-dtype"),
            (self.lora_merge_cache.is_some(), "--lora-merge-cache"),
            (self.trust_remote_code, "--trust-remote-code"),
            (self.device.is_some(), "--device"),
            (self.transformers_cache.is_some(), "--transformers-cache (the Hub's cache is $HF_HUB_CACHE)"),
            (self.no_safe_serialization, "--no-safe-serialization (safetensors are written)"),
        ]
        .into_iter()
        .filter_map(|(given, name)| given.then_some(name))
        .collect()
    }
}

/// How the work is run.
#[derive(Debug, Args)]
pub struct Running {
    /// Number of worker threads; all cores without it
    #[arg(long, alias = "num-threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Replace OUT where it exists, in one step and only when the new model is whole
    #[arg(long)]
    pub force: bool,
    /// Go on with what an earlier run of this merge left, or begin where there is nothing
    #[arg(long)]
    pub resume: bool,
    /// Fail, and write nothing, as soon as an element of the output is NaN or infinite
    #[arg(long)]
    pub deny_nan: bool,
    /// Checks of models and result: homology, configurations, what the output's dtype loses, the finished folder
    #[arg(long, value_enum, default_value_t = Checks::All)]
    pub checks: Checks,
    /// Record the SHA-256 of all bytes of the sources in deltaic.yml, not only of samples; reads them once more
    #[arg(long)]
    pub hash: bool,
    /// Do not write a model card
    #[arg(long)]
    pub no_write_model_card: bool,
    #[arg(long, hide = true, conflicts_with = "no_write_model_card")]
    write_model_card: bool,
    /// Kernels to use, for comparisons: portable, avx2, avx512, neon. All give the same bytes
    #[arg(long, value_name = "SET", value_parser = instruction_set)]
    pub instruction_set: Option<InstructionSet>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Checks {
    /// All of them
    All,
    /// None
    None,
}

/// Merge models as a recipe says
#[derive(Debug, Args)]
#[command(after_help = "Flags of mergekit-yaml are accepted by name where they make sense.")]
pub struct Merge {
    /// The recipe; `-` is stdin
    pub recipe: PathBuf,
    /// The folder to make
    pub out: PathBuf,
    /// Print the plan and write nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub reading: Reading,
    #[command(flatten)]
    pub running: Running,
}

/// Show what a merge would do
#[derive(Debug, Args)]
pub struct Plan {
    /// The recipe; `-` is stdin
    pub recipe: PathBuf,
    #[command(flatten)]
    pub reading: Reading,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// Drop and rescale the delta of one model (DARE)
#[derive(Debug, Args)]
pub struct Dare {
    /// The base model: a folder, or a Hub name in the local cache
    pub base: String,
    /// The fine-tuned model
    pub model: String,
    /// The folder to make
    pub out: PathBuf,
    /// Share of the elements that is dropped, 0 to 1
    #[arg(long, value_name = "P", value_parser = rate)]
    pub drop_rate: f64,
    /// How the rest is rescaled
    #[arg(long, value_enum, default_value_t = Rescale::Inverse)]
    pub rescale: Rescale,
    /// What is dropped
    #[arg(long, value_enum, default_value_t = Of::Delta)]
    pub of: Of,
    /// Seed of the model's own mask; without it, it follows from base, model and options
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Tensors that are left as the base has them: regular expressions over whole names (the classifier: '.*classifier.*')
    #[arg(long, value_name = "REGEX")]
    pub exclude: Vec<String>,
    /// The dtype written: float32, float16, bfloat16
    #[arg(long, value_name = "DTYPE")]
    pub out_dtype: Option<String>,
    /// Greatest size of a shard: 5GB, 500MB, 2GiB; 0 for one shard [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub out_shard_size: Option<u64>,
    #[command(flatten)]
    pub running: Running,
}

/// Restore a model that was published as weight differences
#[derive(Debug, Args)]
pub struct ApplyDelta {
    /// The base model: a folder, or a Hub name in the local cache
    pub base: String,
    /// The differences (fine-tuned minus base), as a model folder or a Hub name
    pub delta: String,
    /// The folder to make
    pub out: PathBuf,
    /// The dtype written: float32, float16, bfloat16 [default: that of the differences]
    #[arg(long, value_name = "DTYPE")]
    pub out_dtype: Option<String>,
    /// Greatest size of a shard: 5GB, 500MB, 2GiB; 0 for one shard [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub out_shard_size: Option<u64>,
    #[command(flatten)]
    pub running: Running,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Rescale {
    /// By 1/(1-p)
    Inverse,
    /// By the ratio of the tensor's l1 norms before and after
    L1,
    /// Not at all (DropOnly)
    None,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Of {
    /// The delta
    Delta,
    /// The fine-tuned weights themselves
    Weights,
}

/// Study what a fine-tune changed of its base
#[derive(Debug, Args)]
#[command(after_help = "Both models are read three times; memory does not grow with them.")]
pub struct Delta {
    /// The base model: a folder, or a Hub name in the local cache
    pub base: String,
    /// The fine-tuned model; an adapter as base+adapter
    pub model: String,
    /// Tensors that are left out: regular expressions over whole names (the classifier: '.*classifier.*')
    #[arg(long, value_name = "REGEX")]
    pub exclude: Vec<String>,
    /// List every tensor, too
    #[arg(long)]
    pub tensors: bool,
    /// Draw the deltas: a histogram, and their ranges by layer and kind
    #[arg(long, value_name = "F.svg")]
    pub plot: Option<PathBuf>,
    /// Replace the figure's file where it exists
    #[arg(long, requires = "plot")]
    pub force: bool,
    /// Number of worker threads; all cores without it
    #[arg(long, alias = "num-threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print as JSON, every tensor included
    #[arg(long)]
    pub json: bool,
}

/// Show a model's tensors, dtypes, parameters, bytes, architecture
#[derive(Debug, Args)]
pub struct Inspect {
    /// Model folders, safetensors files, or Hub names in the local cache; an adapter as base+adapter
    #[arg(required = true)]
    pub models: Vec<String>,
    /// Leave the list of tensors out
    #[arg(long)]
    pub summary: bool,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// Check a merged model again
#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 where something is broken or differs.")]
pub struct Verify {
    /// The model's folder
    pub out: PathBuf,
    /// Compute this share of the weights again from the recorded sources and compare the bits: 1%, 0.01
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "full")]
    pub sample: Option<f64>,
    /// Compute all weights again
    #[arg(long)]
    pub full: bool,
    /// Where the sample's windows begin; without it, another place each time
    #[arg(long, value_name = "SEED", requires = "sample")]
    pub seed: Option<u64>,
    /// Number of worker threads; all cores without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// List the merge methods and sparsifiers
#[derive(Debug, Args)]
pub struct Methods {
    /// A method or sparsifier to show whole
    pub name: Option<String>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.message().to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match number {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a share above 0 and up to 1 (or 100%)".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err("expected a number within 0 .. 1".to_owned()),
    }
}

fn instruction_set(text: &str) -> Result<InstructionSet, String> {
    let here: Vec<&str> = InstructionSet::available().map(InstructionSet::name).collect();
    InstructionSet::from_name(text).filter(|set| set.is_available()).ok_or_else(|| format!("this machine has {}", here.join(", ")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        super::Arguments::command().debug_assert();
    }
}
