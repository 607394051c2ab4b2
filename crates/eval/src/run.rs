//! Running a task: read its items, ask the model, score, measure.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use deltaic_checkpoint::{Error, Result};
use serde_json::{Value, json};

use crate::backend::{Answer, Backend, Request};
use crate::data::Data;
use crate::judge::{Judged, References};
use crate::measure::measure;
use crate::report::{ItemRecord, TaskResult};
use crate::requests::{Setting, requests};
use crate::run_options::{Executed, Progress, RunOptions, Stage, check_options, chosen, read_shots};
use crate::score::{Scored, Scorer};
use crate::task::{GenerationFile, Kind, Task};

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

    /// Whether a backend can answer the task's questions at all, by the first of them; nothing is asked.
    ///
    /// # Errors
    /// It cannot, and why; or the item does not fit the task.
    pub fn check(&mut self, backend: &dyn Backend) -> Result<()> {
        // That it cannot is rather said than that it does not know the end of a turn.
        self.setting.eos_token = Some(backend.eos_token().unwrap_or_default());
        let Some(item) = self.data.items.first() else { return Ok(()) };
        requests(self.kind, &self.setting, item)?.iter().try_for_each(|request| backend.check(request))
    }

    /// Asks a model about all items and scores its answers.
    ///
    /// # Errors
    /// What the model or its connection refuses, answers that do not fit the task, or cancellation.
    pub fn run(&mut self, backend: &dyn Backend) -> Result<TaskResult> {
        let started = Instant::now();
        let scorer = Scorer::new(self.kind, backend.labels().as_deref())?;
        self.check(backend)?;
        let (requests, ranges) = self.requests(backend.eos_token())?;
        let truncated_before = backend.truncated();
        let answers = self.ask(backend, &requests, Stage::Asking)?;
        let counts = [
            ("truncated_prompts", backend.truncated().saturating_sub(truncated_before)),
            ("answers_without_text", answers.iter().filter(|answer| is_without_text(answer)).count()),
            ("answers_without_tokens", answers.iter().filter(|answer| matches!(answer, Answer::LogLikelihood { tokens: 0, .. })).count()),
        ];
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
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            result.details[name] = count.into();
        }
        Ok(result)
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

fn is_without_text(answer: &Answer) -> bool {
    matches!(answer, Answer::Text { text, .. } if text.trim().is_empty())
}
