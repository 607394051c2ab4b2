//! Results as people and programs read them.

use std::collections::BTreeSet;

use deltaic_checkpoint::Result;
use deltaic_eval::metrics::Estimate;
use deltaic_eval::task::{Direction, built_in, names};
use deltaic_eval::{TaskResult, comparisons};

use crate::tables::table;

/// The list of built-in tasks.
pub fn tasks() -> Result<String> {
    let mut rows = Vec::new();
    for name in names() {
        rows.extend(built_in(name)?.map(|task| vec![task.task, task.description]));
    }
    Ok(table(&["task", "what"], &[], rows))
}

/// `{"results": [...]}`, and the tests of models against each other where there are several.
pub fn as_json(results: &[TaskResult]) -> Result<String> {
    let mut json = serde_json::json!({"results": results.iter().map(TaskResult::to_json).collect::<Vec<_>>()});
    let tests = comparisons(results)?;
    if !tests.is_empty() {
        json["comparisons"] = serde_json::json!(tests);
    }
    Ok(format!("{json:#}\n"))
}

/// A table for each task, with a line for each model; the tests of models against each other; then, where there are several tasks, the
/// headlines of all in one table.
pub fn as_text(results: &[TaskResult]) -> Result<String> {
    let mut text = String::new();
    let mut shown = BTreeSet::new();
    for result in results {
        if !shown.insert(&result.task) {
            continue;
        }
        let of_task: Vec<&TaskResult> = results.iter().filter(|other| other.task == result.task).collect();
        text += &task_table(&of_task);
        text.push('\n');
    }
    let tests = comparisons(results)?;
    if !tests.is_empty() {
        let rows = tests.iter().map(|test| {
            let p = test.test.p.map_or("-".to_owned(), |p| if p < 0.0001 { "<0.0001".to_owned() } else { format!("{p:.4}") });
            let difference = with_error(test.test.difference, test.test.stderr);
            vec![test.task.clone(), format!("{} - {}", test.first, test.second), difference, p]
        });
        text += &table(&["task", "models", "difference", "p"], &[2, 3], rows);
        text.push('\n');
    }
    if shown.len() > 1 {
        text += &headlines(results);
    }
    Ok(text.trim_end().to_owned() + "\n")
}

/// A line for each model, a column for each task, both in the order of the results.
fn headlines(results: &[TaskResult]) -> String {
    let (mut models, mut tasks): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for TaskResult { model, task, .. } in results {
        if !models.contains(&model.as_str()) {
            models.push(model);
        }
        if !tasks.contains(&task.as_str()) {
            tasks.push(task);
        }
    }
    let cell = |model: &str, task: &str| {
        let found = results.iter().find(|result| result.model == model && result.task == task);
        found.and_then(|result| result.headline.as_ref()).map_or("-".to_owned(), estimate)
    };
    let rows = models.iter().map(|model| [(*model).to_owned()].into_iter().chain(tasks.iter().map(|task| cell(model, task))).collect());
    let lower = |task: &str| results.iter().any(|result| result.task == task && result.direction == Direction::Lower);
    let label = |task: &&str| if lower(task) { format!("{task} (lower is better)") } else { (*task).to_owned() };
    let header: Vec<String> = ["headline".to_owned()].into_iter().chain(tasks.iter().map(label)).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(&header, &(1..header.len()).collect::<Vec<_>>(), rows)
}

fn task_table(results: &[&TaskResult]) -> String {
    let mut metrics: Vec<&str> = Vec::new();
    for (name, _) in results.iter().flat_map(|result| &result.metrics) {
        if !metrics.contains(&name.as_str()) {
            metrics.push(name);
        }
    }
    let task = results.first().map(|result| result.task.as_str()).unwrap_or_default();
    let lower = results.first().is_some_and(|result| result.direction == Direction::Lower);
    let headline = if lower { "headline (lower is better)" } else { "headline" };
    let header: Vec<&str> = [task, "items", headline].into_iter().chain(metrics.iter().copied()).chain(["seconds"]).collect();
    let rows = results.iter().map(|result| {
        let metric =
            |name: &&str| result.metrics.iter().find(|(known, _)| known == name).map_or("-".to_owned(), |(_, value)| estimate(value));
        let headline = result.headline.as_ref().map_or("-".to_owned(), estimate);
        let seconds = result.seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1}"));
        let head = [result.model.clone(), result.items.to_string(), headline];
        head.into_iter().chain(metrics.iter().map(metric)).chain([seconds]).collect()
    });
    table(&header, &(1..header.len()).collect::<Vec<_>>(), rows)
}

fn estimate(estimate: &Estimate) -> String {
    with_error(estimate.value, estimate.stderr)
}

/// `0.8300 ±0.0186`.
fn with_error(value: f64, error: Option<f64>) -> String {
    match error {
        _ if !value.is_finite() => "-".to_owned(),
        Some(error) => format!("{value:.4} ±{error:.4}"),
        None => format!("{value:.4}"),
    }
}
