//! Running a task: read its items, ask the model, score, measure.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use deltaic_checkpoint::{Error, Result};
use serde_json::{Value, json};

use crate::backend::{Answer, Backend, Request};
use crate::data::{Data, Item};
use crate::judge::{Judged, References};
use crate::measure::measure;
use crate::report::{ItemRecord, TaskResult};
use crate::requests::{Setting, requests};
use crate::score::{Scored, Scorer};
use crate::shots::ShotTexts;
use crate::task::{GenerationFile, Kind, MAX_NEW_TOKENS, Task};

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

/// A task with its items, read once and asked of any number of models.
pub struct Evaluation<'a> {
    task: &'a Task,
    kind: Kind<'a>,
    options: &'a RunOptions<'a>,
    data: Data,
    setting: Setting<'a>,
    /// Of tasks that are judged.
    references: Option<References>,
}

impl<'a> Evaluation<'a> {
    /// Reads the task's items, and its shots where there are any, from `data` (a folder or a file).
    ///
    /// # Errors
    /// Data that is missing or malformed, items that are not there, options that the task has no use for.
    pub fn read(task: &'a Task, data: Option<&Path>, options: &'a RunOptions<'a>) -> Result<Self> {
        let kind = task.kind()?;
        let name = &task.task;
        let Some(path) = data else {
            let looked_for = task.data.files.join(", ");
            return Err(Error::new(format!("{name}: where is its data?")).help(format!("--data DIR with one of {looked_for}")));
        };
        check_options(name, kind, options)?;
        let mut data = Data::read(task, path)?;
        data.items = chosen(name, data.items, options)?;
        let shots = read_shots(task, kind, path, options)?;
        shots.as_ref().map_or(Ok(()), |shots| shots.check(&data.items))?;
        // What the reference file lacks is said before a model is asked, which may take hours.
        let references = match (kind, options.reference) {
            (Kind::PairwiseJudge(spec), Some(file)) => Some(References::read(spec, file, &data.items)?),
            _ => None,
        };
        let (system, max_new_tokens) = (options.system.clone(), options.max_new_tokens);
        let setting = Setting { shots, system, as_chat: options.as_chat, eos_token: None, max_new_tokens };
        Ok(Self { task, kind, options, data, setting, references })
    }

    /// The task.
    pub fn task(&self) -> &'a Task {
        self.task
    }

    /// How many items there are.
    pub fn items(&self) -> usize {
        self.data.items.len()
    }

    /// Keeps only those of the items whose numbers (from 0, among all items of the task's files) are in `numbers`.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn keep(&mut self, numbers: &BTreeSet<usize>) -> Result<()> {
        let known: BTreeSet<usize> = self.numbers().into_iter().collect();
        if let Some(missing) = numbers.difference(&known).next() {
            return Err(Error::new(format!("{}: item {missing} is not among the {} that are asked about", self.task.task, known.len())));
        }
        self.data.items.retain(|item| numbers.contains(&item.index));
        Ok(())
    }

    /// The items' numbers from 0 among all items of the task's files.
    pub fn numbers(&self) -> Vec<usize> {
        self.data.items.iter().map(|item| item.index).collect()
    }

    /// The files in which the items are.
    pub fn files(&self) -> &[PathBuf] {
        &self.data.files
    }

    /// Whether the file of generations can be written of these items ([`TaskResult::generations`]): known before a model is asked.
    ///
    /// # Errors
    /// The task has no form for it, or the form has no place for some of the items.
    pub fn check_generations(&self) -> Result<GenerationFile> {
        let form = if let Kind::Generation(generation) = self.kind { generation.file } else { None };
        let form = form.ok_or_else(|| Error::new(format!("{}: the task has no form of a file of generations", self.task.task)))?;
        form.check(&self.task.task, self.data.items.iter().map(|item| item.id.as_str()))?;
        Ok(form)
    }

    /// The requests about all items, with the range of each item's.
    ///
    /// # Errors
    /// An item that the task's templates do not fit.
    pub fn requests(&mut self, eos_token: Option<String>) -> Result<(Vec<Request>, Vec<Range<usize>>)> {
        self.setting.eos_token = eos_token;
        let mut all = Vec::new();
        let mut ranges = Vec::with_capacity(self.items());
        for item in &self.data.items {
            let start = all.len();
            all.extend(requests(self.kind, &self.setting, item)?);
            ranges.push(start..all.len());
        }
        Ok((all, ranges))
    }

    /// Asks a model about all items and scores its answers.
    ///
    /// # Errors
    /// What the model or its connection refuses, answers that do not fit the task, or cancellation.
    pub fn run(&mut self, backend: &dyn Backend) -> Result<TaskResult> {
        let started = Instant::now();
        let scorer = Scorer::new(self.kind, backend.labels().as_deref())?;
        let eos_token = backend.eos_token();
        if eos_token.is_none() && matches!(self.kind, Kind::AnswerNll(_)) {
            self.check_first(backend)?;
        }
        let (requests, ranges) = self.requests(eos_token)?;
        let answers = self.ask(backend, &requests, Stage::Asking)?;
        let pairs = self.data.items.iter().zip(&ranges);
        let mut scored: Vec<Scored> = pairs.map(|(item, range)| scorer.score(item, &answers[range.clone()])).collect::<Result<_>>()?;
        let mut execution = self.execute(&mut scored)?;
        if let (Kind::PairwiseJudge(spec), Some(judge), Some(references)) = (self.kind, self.options.judge, &self.references) {
            let asked = Judged::new(spec, references, &self.data.items, &scored)?;
            let verdicts = self.ask(judge, &asked.requests, Stage::Judging)?;
            asked.score(&verdicts, &mut scored)?;
        }
        let (metrics, headline) = measure(self.task, &scored)?;
        let records = self.data.items.iter().zip(scored).zip(ranges).map(|((item, scored), range)| ItemRecord {
            index: item.index,
            id: item.id.clone(),
            requests: requests[range].to_vec(),
            gold: scored.gold,
            answer: scored.answer,
            prediction: scored.prediction,
            numbers: scored.numbers,
            program: execution.remove(&item.index),
        });
        let mut result = TaskResult::new(backend.name(), self.task, metrics, headline, records.collect());
        result.seconds = Some(started.elapsed().as_secs_f64());
        result.details = self.details(backend)?;
        Ok(result)
    }

    /// Whether the backend can answer the task's questions at all: rather said than that it does not know the end of a turn.
    fn check_first(&mut self, backend: &dyn Backend) -> Result<()> {
        self.setting.eos_token = Some(String::new());
        let Some(item) = self.data.items.first() else { return Ok(()) };
        requests(self.kind, &self.setting, item)?.iter().try_for_each(|request| backend.check(request))
    }

    /// What a result records of how it came about.
    fn details(&self, backend: &dyn Backend) -> Result<Value> {
        let files = self.data.files.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let mut details = json!({"backend": backend.identity(), "files": files.collect::<Vec<_>>()});
        if let Some(shots) = &self.setting.shots {
            details["shots"] = json!(shots.taken(self.options.seed, &self.data.items)?);
        }
        if let Some(tokens) = self.options.max_new_tokens {
            details["max_new_tokens"] = tokens.into();
        }
        if let (Kind::Generation(generation), Some(executor)) = (self.kind, self.options.executor)
            && generation.code.is_some()
        {
            details["execution"] = executor.details();
        }
        if self.data.skipped > 0 {
            details["malformed_lines_passed_over"] = self.data.skipped.into();
        }
        if let (Kind::PairwiseJudge(_), Some(judge), Some(reference)) = (self.kind, self.options.judge, self.options.reference) {
            details["judge"] = json!({"backend": judge.identity(), "reference": reference.file_name().map(|name| name.to_string_lossy())});
        }
        Ok(details)
    }

    fn ask(&self, backend: &dyn Backend, requests: &[Request], stage: Stage) -> Result<Vec<Answer>> {
        let mut answers: Vec<Option<Answer>> = vec![None; requests.len()];
        let mut done = 0;
        (self.options.progress)(Progress { stage, done, total: requests.len() });
        backend.answer(requests, &mut |index, answer| {
            self.check_cancelled()?;
            let place = answers.get_mut(index).ok_or_else(|| Error::new(format!("an answer to question {index}, which was not asked")))?;
            done += usize::from(place.is_none());
            *place = Some(answer);
            (self.options.progress)(Progress { stage, done, total: requests.len() });
            Ok(())
        })?;
        self.check_cancelled()?;
        let missing = |(at, answer): (usize, Option<Answer>)| {
            answer.ok_or_else(|| Error::new(format!("{}: question {at} of {} was not answered", backend.name(), requests.len())))
        };
        answers.into_iter().enumerate().map(missing).collect()
    }

    /// Runs the programs that there are; what became of each, by its item's number, for records.
    fn execute(&self, scored: &mut [Scored]) -> Result<std::collections::HashMap<usize, Value>> {
        let mut outcomes = std::collections::HashMap::new();
        let programs: Vec<String> = scored.iter().filter_map(|scored| scored.program.clone()).collect();
        let Some(executor) = self.options.executor.filter(|_| !programs.is_empty()) else { return Ok(outcomes) };
        if programs.len() != scored.len() {
            return Err(Error::new(format!("{} programs of {} items", programs.len(), scored.len())));
        }
        let (stage, total) = (Stage::Executing, programs.len());
        let progress = |done| (self.options.progress)(Progress { stage, done, total });
        let executed = executor.execute(&programs, self.options.cancel, &progress)?;
        for ((outcome, scored), item) in executed.into_iter().zip(scored).zip(&self.data.items) {
            let (said, passed, timed_out) = match outcome {
                Executed::Passed => ("passed".to_owned(), true, false),
                Executed::TimedOut => ("timed out".to_owned(), false, true),
                Executed::Failed(why) => (format!("failed: {why}"), false, false),
            };
            scored.numbers.extend([("pass@1".to_owned(), f64::from(passed)), ("timed_out".to_owned(), f64::from(timed_out))]);
            outcomes.insert(item.index, json!(said));
        }
        Ok(outcomes)
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.options.cancel.load(Ordering::Relaxed) { Err(Error::new("cancelled")) } else { Ok(()) }
    }
}

/// Whether the task has a use for the options, and all that it needs.
fn check_options(task: &str, kind: Kind<'_>, options: &RunOptions<'_>) -> Result<()> {
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
fn chosen(task: &str, items: Vec<Item>, options: &RunOptions<'_>) -> Result<Vec<Item>> {
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
fn read_shots<'a>(task: &'a Task, kind: Kind<'a>, data: &Path, options: &RunOptions<'_>) -> Result<Option<ShotTexts<'a>>> {
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
