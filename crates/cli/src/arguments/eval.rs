//! What can be typed after `deltaic eval`.

use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use deltaic_sandbox::MAX_SECONDS;

/// Evaluate models on tasks
#[derive(Debug, Args)]
#[command(after_help = "Tasks that are built in: deltaic eval --list. A task of one's own is a YAML file: docs/tasks.md.")]
pub struct Eval {
    /// Model folders, Hub names in the local cache, adapters as base+adapter, or recipes (.yml): these are merged in memory
    pub models: Vec<String>,
    /// A task's name, or the path of its file; may be given several times
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,
    /// List the tasks that are built in
    #[arg(long, exclusive = true)]
    pub list: bool,
    /// The folder with the official files, or the task's own folder or file
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Ask about the first N items only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Ask about items A up to B only, counted from 0, without B; A.. and ..B will do
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub items: Option<Range<usize>>,
    /// Solved examples: how many, or the file they are in, or both, one after the other
    #[arg(long, value_name = "K|FILE")]
    pub shots: Vec<String>,
    /// Draw the solved examples by this seed instead of taking the first ones
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// The system's message, in place of the task's
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Send prompts that are text as a user's message, in the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Let models write up to N tokens, in place of the task's limit
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    #[command(flatten)]
    pub local: LocalArguments,
    #[command(flatten)]
    pub endpoint: EndpointArguments,
    #[command(flatten)]
    pub judge: JudgeArguments,
    #[command(flatten)]
    pub execution: ExecutionArguments,
    /// Keep answers in this file, and ask only for those that are not in it yet
    #[arg(long, value_name = "FILE")]
    pub cache: Option<PathBuf>,
    /// Write a line of JSON for each item
    #[arg(long, value_name = "FILE")]
    pub records: Option<PathBuf>,
    /// Write the generated texts as the task's own tools read them (humaneval, mbpp, alpaca_eval)
    #[arg(long, value_name = "FILE")]
    pub generations: Option<PathBuf>,
    /// Show results of lm-evaluation-harness beside: its results file, or the folder with it; may be given several times
    #[arg(long, value_name = "FILE")]
    pub harness_results: Vec<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,
    /// Replace files of --records and --generations that are there already
    #[arg(long)]
    pub force: bool,
}

/// How models are run on this machine.
#[derive(Debug, Args)]
pub struct LocalArguments {
    /// Take the classification head of this model
    #[arg(long, value_name = "MODEL")]
    pub head_from: Option<String>,
    /// Begin texts with the BOS token, or not [default: as the model's tokenizer has it]
    #[arg(long, value_name = "true|false")]
    pub add_bos: Option<bool>,
    /// Longest sequence in tokens [default: the model's own]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Most tokens of a batch: fewer need less memory [default: 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_tokens: Option<u32>,
}

/// A server in place of models that are run here.
#[derive(Debug, Args)]
pub struct EndpointArguments {
    /// Ask a server with OpenAI's interface
    #[arg(long, value_name = "URL", requires = "served")]
    pub endpoint: Option<String>,
    /// The model's name at the server; may be given several times
    #[arg(long = "model", id = "served", value_name = "NAME", requires = "endpoint")]
    pub served: Vec<String>,
    /// The environment variable with the server's key [default: OPENAI_API_KEY, where it is set]
    #[arg(long, value_name = "NAME")]
    pub api_key_variable: Option<String>,
    /// Most calls to a server at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
}

/// The judge of `pairwise_judge`.
#[derive(Debug, Args)]
pub struct JudgeArguments {
    /// The judge's server
    #[arg(long, value_name = "URL", requires = "judge_model")]
    pub judge_endpoint: Option<String>,
    /// The judge's name at its server
    #[arg(long, value_name = "NAME", requires = "judge_endpoint")]
    pub judge_model: Option<String>,
    /// The file with the answers that models are compared with
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
}

/// How model-written programs are run.
#[derive(Debug, Args)]
pub struct ExecutionArguments {
    /// Time limit of a program in seconds [default: 3]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub exec_timeout: Option<f64>,
    /// Programs that are run at a time [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub exec_workers: Option<u16>,
    /// The Python interpreter that runs programs, 3.10 or newer [default: python3]
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Run programs without a sandbox, where the kernel offers none: they can do all that you may do
    #[arg(long)]
    pub unsafe_exec: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= MAX_SECONDS => Ok(seconds),
        _ => Err(format!("expected seconds, above 0 and up to {MAX_SECONDS}")),
    }
}

fn range(text: &str) -> Result<Range<usize>, String> {
    let wrong = || "expected A..B, such as 0..200".to_owned();
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let bound = |text: &str, missing: usize| if text.is_empty() { Ok(missing) } else { text.parse().map_err(|_| wrong()) };
    let range = bound(start, 0)?..bound(end, usize::MAX)?;
    if range.is_empty() { Err(format!("{text} has no items")) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_of_items_count_from_zero_and_may_be_open() {
        assert_eq!(range("1817..2017"), Ok(1817..2017));
        assert_eq!(range("..20"), Ok(0..20));
        assert_eq!(range("5.."), Ok(5..usize::MAX));
        for wrong in ["5", "5..5", "9..3", "a..b", "-1..3", "1...3"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}
