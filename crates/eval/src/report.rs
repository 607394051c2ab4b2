//! Results: metrics with standard errors, records of items, and tests of models against each other.

use std::io::{self, Write};

use deltaic_checkpoint::{Error, Result, shorten};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::backend::Request;
use crate::metrics::{Estimate, Metric, PairedTest, RESAMPLES, Resamples, compare};
use crate::task::{Direction, GenerationFile, Task};

/// The seed of the resamples: the same for all models, so that they see the same sets of items.
const RESAMPLE_SEED: u64 = 0;

/// The result of a model on a task.
#[derive(Debug, Clone)]
pub struct TaskResult {
    /// The model's name.
    pub model: String,
    /// The task's name.
    pub task: String,
    /// How many items were asked about.
    pub items: usize,
    /// Which of two headlines is the better one.
    pub direction: Direction,
    /// The value that stands for the result; none for a task that only writes a file.
    pub headline: Option<Estimate>,
    /// Names and values of all metrics, in the order of tables.
    pub metrics: Vec<(String, Estimate)>,
    /// Time of asking, running and judging, in seconds; none where it is not known.
    pub seconds: Option<f64>,
    /// How the result came about: backend, files, shots.
    pub details: Value,
    /// What was recorded of each item, in order; none for a result that was read from a file without them.
    pub records: Vec<ItemRecord>,
    /// For tests against other models.
    paired: Option<Paired>,
}

/// A headline over items that are known.
#[derive(Debug, Clone)]
struct Paired {
    headline: Metric,
    /// The items' numbers, in the order of the headline's values.
    items: Vec<usize>,
}

/// What is recorded of an item.
#[derive(Debug, Clone)]
pub struct ItemRecord {
    /// Its number from 0 among the task's items.
    pub index: usize,
    /// Its id.
    pub id: String,
    /// What the model was asked.
    pub requests: Vec<Request>,
    /// The right answer.
    pub gold: Value,
    /// What the model answered.
    pub answer: Value,
    /// What the answer was understood as.
    pub prediction: Value,
    /// The numbers of which the metrics are made.
    pub numbers: Vec<(String, f64)>,
    /// What became of the program, for tasks that execute.
    pub program: Option<Value>,
}

/// Two models on the same items of a task.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The task.
    pub task: String,
    /// The first model.
    pub first: String,
    /// The second model.
    pub second: String,
    /// The difference of the headlines, first minus second, and whether it is more than chance.
    #[serde(flatten)]
    pub test: PairedTest,
}

impl TaskResult {
    /// A result of metrics over items.
    pub fn new(model: &str, task: &Task, metrics: Vec<Metric>, headline: Option<Metric>, records: Vec<ItemRecord>) -> Self {
        let resamples = Resamples::new(u32::try_from(records.len()).unwrap_or(u32::MAX), RESAMPLES, RESAMPLE_SEED);
        let estimate = |metric: &Metric| metric.estimate(&resamples);
        let items = records.iter().map(|record| record.index).collect();
        Self {
            model: model.to_owned(),
            task: task.task.clone(),
            items: records.len(),
            direction: task.direction,
            headline: headline.as_ref().map(estimate),
            metrics: metrics.iter().map(|metric| (metric.name().to_owned(), estimate(metric))).collect(),
            seconds: None,
            details: Value::Null,
            records,
            paired: headline.map(|headline| Paired { headline, items }),
        }
    }

    /// A result that another program has computed.
    pub(crate) fn computed_elsewhere(
        model: String,
        task: String,
        items: usize,
        metrics: Vec<(String, Estimate)>,
        headline: Option<Estimate>,
    ) -> Self {
        Self {
            model,
            task,
            items,
            direction: Direction::Higher,
            headline,
            metrics,
            seconds: None,
            details: Value::Null,
            records: Vec::new(),
            paired: None,
        }
    }

    /// The same result, with the numbers of its items and their values of the headline, in the same order.
    pub(crate) fn with_items(mut self, items: Vec<usize>, headline: Metric) -> Self {
        self.paired = Some(Paired { headline, items });
        self
    }

    /// The result as `--json` has it: scores as fractions of 1, log-likelihoods in nats per token; what is not defined is null.
    pub fn to_json(&self) -> Value {
        let mut metrics = Map::from_iter([("headline".to_owned(), json!(self.headline.map(|headline| headline.value)))]);
        let mut errors = Map::from_iter([("headline".to_owned(), json!(self.headline.and_then(|headline| headline.stderr)))]);
        let mut methods = Map::new();
        methods.extend(self.headline.map(|headline| ("headline".to_owned(), json!(headline.method))));
        for (name, estimate) in &self.metrics {
            metrics.insert(name.clone(), json!(estimate.value));
            errors.insert(name.clone(), json!(estimate.stderr));
            methods.insert(name.clone(), json!(estimate.method));
        }
        json!({
            "model": self.model,
            "task": self.task,
            "items": self.items,
            "direction": self.direction,
            "metrics": metrics,
            "stderr": errors,
            "stderr_method": methods,
            "seconds": self.seconds,
            "details": self.details,
        })
    }

    /// Writes a line of JSON for each item.
    ///
    /// # Errors
    /// Of the writer.
    pub fn write_records(&self, out: &mut dyn Write) -> io::Result<()> {
        for record in &self.records {
            let numbers: Map<String, Value> = record.numbers.iter().map(|(name, number)| (name.clone(), json!(number))).collect();
            let mut line = json!({
                "model": self.model,
                "task": self.task,
                "index": record.index,
                "id": record.id,
                "requests": record.requests,
                "gold": record.gold,
                "answer": record.answer,
                "prediction": record.prediction,
                "scores": numbers,
            });
            if let Some(program) = &record.program {
                line["execution"] = program.clone();
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    /// The file of generated texts in the form that other tools read (evaluation.md 4 to 6).
    ///
    /// # Errors
    /// The form has no place for some of the items ([`Evaluation::check_generations`](crate::Evaluation::check_generations) says so before).
    pub fn generations(&self, form: GenerationFile) -> Result<String> {
        form.check(&self.task, self.records.iter().map(|record| record.id.as_str()))?;
        let text = |record: &ItemRecord| record.answer["text"].as_str().unwrap_or_default().to_owned();
        Ok(match form {
            GenerationFile::Humaneval => {
                let line = |record: &ItemRecord| {
                    let all_code = crate::extract::code::tabs_to_spaces(&text(record));
                    format!("{}\n", json!({"task_id": record.id, "completion": record.prediction, "all_code": all_code}))
                };
                self.records.iter().map(line).collect()
            }
            GenerationFile::Mbpp => {
                let programs: Vec<[&Value; 1]> = self.records.iter().map(|record| [&record.prediction]).collect();
                format!("{}\n", json!(programs))
            }
            GenerationFile::AlpacaEval => {
                let entry = |record: &ItemRecord| {
                    json!({
                        "instruction": record.gold["instruction"],
                        "output": text(record),
                        "generator": self.model,
                        "dataset": record.gold["dataset"],
                    })
                };
                format!("{:#}\n", json!(self.records.iter().map(entry).collect::<Vec<_>>()))
            }
        })
    }
}

/// The first of MBPP's test tasks; the others follow without a gap.
const MBPP_FIRST: usize = 11;

impl GenerationFile {
    /// In MBPP's file a program's place says its task. The ids are those of the items in their order.
    pub(crate) fn check<'i>(self, task: &str, ids: impl Iterator<Item = &'i str>) -> Result<()> {
        let misplaced = |(place, id): &(usize, &str)| *id != (place + MBPP_FIRST).to_string();
        match ids.enumerate().find(misplaced).filter(|_| self == Self::Mbpp) {
            None => Ok(()),
            Some((place, id)) => {
                let expected = place + MBPP_FIRST;
                let message =
                    format!("{task}: in the file of generations program {place} is that of task {expected}, found {}", shorten(id));
                Err(Error::new(message).help("ask about the tasks from 11 on, without a gap: leave --items out"))
            }
        }
    }
}

/// Tests each two of the models that were asked about the same items of a task.
///
/// # Errors
/// None that the results of one run can have.
pub fn comparisons(results: &[TaskResult]) -> Result<Vec<Comparison>> {
    let mut found = Vec::new();
    for (at, first) in results.iter().enumerate() {
        for second in &results[at + 1..] {
            let (Some(a), Some(b)) = (&first.paired, &second.paired) else { continue };
            if first.task != second.task || a.items != b.items {
                continue;
            }
            let resamples = Resamples::new(u32::try_from(a.items.len()).unwrap_or(u32::MAX), RESAMPLES, RESAMPLE_SEED);
            let test = compare(&a.headline, &b.headline, &resamples)?;
            found.push(Comparison { task: first.task.clone(), first: first.model.clone(), second: second.model.clone(), test });
        }
    }
    Ok(found)
}
