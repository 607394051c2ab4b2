//! How a task is run, and what it needs for that.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Error, Result};
use serde_json::Value;

use crate::backend::Backend;
use crate::data::{Data, Item};
use crate::shots::ShotTexts;
use crate::task::{Kind, MAX_NEW_TOKENS, Task};

/// Runs programs that a model has written, apart from everything else.
pub trait Executor {
    /// Runs all programs; what became of each, in their order. `progress` hears how many have ended, from any thread.
    ///
    /// # Errors
    /// No program can be run here, or `cancel` was set.
    fn execute(&self, programs: &[String], cancel: &AtomicBool, progress: &(dyn Fn(usize) + Sync)) -> Result<Vec<Executed>>;

    /// How programs are run, as it is recorded with results.
    fn details(&self) -> Value {
        Value::Null
    }
}

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executed {
    /// It ran to its end without an exception.
    Passed,
    /// It was stopped at the limit of time.
    TimedOut,
    /// It did not pass, and why.
    Failed(String),
}

/// What is being done, for a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What the numbers count.
    pub stage: Stage,
    /// How many are done.
    pub done: usize,
    /// Of how many.
    pub total: usize,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The model answers.
    Asking,
    /// Programs are run.
    Executing,
    /// The judge compares.
    Judging,
}

/// How a task is run.
pub struct RunOptions<'a> {
    /// Only so many of the items, the first ones.
    pub limit: Option<usize>,
    /// Only these of the items, by their numbers from 0; `usize::MAX` as the end is all that follow.
    pub items: Option<Range<usize>>,
    /// So many solved examples before each question, in place of the task's.
    pub shots: Option<usize>,
    /// The file with the examples.
    pub shots_file: Option<&'a Path>,
    /// Examples are drawn by it; without it they are the first ones.
    pub seed: Option<u64>,
    /// The system's message in place of the task's.
    pub system: Option<String>,
    /// Whether prompts that are text are sent as a user's message.
    pub as_chat: bool,
    /// Most tokens of a generated text, in place of the task's.
    pub max_new_tokens: Option<usize>,
    /// Runs programs, for tasks that execute.
    pub executor: Option<&'a dyn Executor>,
    /// Compares answers, for tasks that are judged.
    pub judge: Option<&'a dyn Backend>,
    /// The file with the reference's answers, for tasks that are judged.
    pub reference: Option<&'a Path>,
    /// Once true, the run ends with an error.
    pub cancel: &'a AtomicBool,
    /// Is told how far the run has come, from any thread.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> RunOptions<'a> {
    /// All items with the task's own shots, and nothing that is told.
    pub fn new(cancel: &'a AtomicBool) -> Self {
        Self {
            limit: None,
            items: None,
            shots: None,
            shots_file: None,
            seed: None,
            system: None,
            as_chat: false,
            max_new_tokens: None,
            executor: None,
            judge: None,
            reference: None,
            cancel,
            progress: &|_| {},
        }
    }
}

/// Whether the task has a use for the options, and all that it needs.
pub(crate) fn check_options(task: &str, kind: Kind<'_>, options: &RunOptions<'_>) -> Result<()> {
    let refuse = |what: &str, help: &str| Err(Error::new(format!("{task}: {what}")).help(help));
    if options.system.is_some() && !matches!(kind, Kind::Generation(_) | Kind::AnswerNll(_) | Kind::PairwiseJudge(_)) {
        return refuse("this kind of task has no system message", "leave --system out");
    }
    if options.as_chat && !matches!(kind, Kind::Generation(_)) {
        return refuse("only prompts of generation are sent as chat", "leave --chat out");
    }
    if let Some(tokens) = options.max_new_tokens {
        if !matches!(kind, Kind::Generation(_) | Kind::PairwiseJudge(_)) {
            return refuse("this kind of task generates no text", "leave --max-new-tokens out");
        }
        if !(1..=MAX_NEW_TOKENS).contains(&tokens) {
            return refuse(&format!("{tokens} new tokens"), &format!("expected 1 to {MAX_NEW_TOKENS}"));
        }
    }
    if matches!(kind, Kind::Generation(generation) if generation.code.is_some()) && options.executor.is_none() {
        return Err(Error::new(format!("{task}: the task runs programs, and there is nothing that runs them")));
    }
    if matches!(kind, Kind::PairwiseJudge(_)) && (options.judge.is_none() || options.reference.is_none()) {
        return refuse("the task needs a judge and a reference's answers", "--judge-endpoint URL --judge-model NAME --reference FILE");
    }
    Ok(())
}

/// The items that are asked about.
pub(crate) fn chosen(task: &str, items: Vec<Item>, options: &RunOptions<'_>) -> Result<Vec<Item>> {
    let count = items.len();
    let mut range = options.items.clone().unwrap_or(0..count);
    if range.end == usize::MAX {
        range.end = count;
    }
    if range.start >= range.end || range.end > count {
        return Err(Error::new(format!("{task}: items {}..{} of {count}", range.start, range.end)).help("A..B counts from 0, without B"));
    }
    let limit = options.limit.unwrap_or(usize::MAX);
    if limit == 0 {
        return Err(Error::new(format!("{task}: a limit of no items")));
    }
    Ok(items.into_iter().skip(range.start).take((range.end - range.start).min(limit)).collect())
}

/// The solved examples that the options and the task ask for.
pub(crate) fn read_shots<'a>(task: &'a Task, kind: Kind<'a>, data: &Path, options: &RunOptions<'_>) -> Result<Option<ShotTexts<'a>>> {
    let asked_for = options.shots.is_some_and(|count| count > 0) || options.shots_file.is_some();
    let Some(spec) = &task.shots else {
        return match asked_for {
            false => Ok(None),
            true => {
                Err(Error::new(format!("{}: the task has no shots; its protocol is always the same", task.task)).help("leave --shots out"))
            }
        };
    };
    let count = options.shots.unwrap_or(spec.count);
    match options.shots_file {
        Some(file) if count == 0 => {
            let message = format!("{}: {} is given, but no number of examples", task.task, file.display());
            Err(Error::new(message).help("say how many stand before each question: --shots K --shots FILE"))
        }
        _ if count == 0 => Ok(None),
        file => ShotTexts::new(kind, spec, Data::read_shots(task, spec, file, Some(data))?, count, options.seed).map(Some),
    }
}
