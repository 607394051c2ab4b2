//! `deltaic eval`.

mod models;
mod show;
mod wanted;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Context, Error, Result};
use deltaic_eval::{Evaluation, RunOptions, TaskResult, harness_results, task};

use crate::arguments::Eval;
use crate::messages::{Messages, print};
use crate::progress::Items;
use wanted::Wanted;

pub fn run(arguments: &Eval, messages: &Messages) -> Result<()> {
    if arguments.list {
        print(&show::tasks()?);
        return Ok(());
    }
    let wanted = Wanted::new(arguments)?;
    let mut results = Vec::new();
    if !wanted.models.is_empty() {
        let cancel = crate::signals::cancel_flag()?;
        evaluate(&wanted, &cancel, messages, &mut results)?;
    }
    for path in &arguments.harness_results {
        let of_wanted = |result: &TaskResult| wanted.tasks.is_empty() || wanted.tasks.iter().any(|task| task.task == result.task);
        let found: Vec<TaskResult> = harness_results::read(path)?.into_iter().filter(of_wanted).collect();
        if found.is_empty() {
            messages.warning(&format!("{}: no result of the tasks asked for", path.display()));
        }
        results.extend(found);
    }
    print(&if arguments.json { show::as_json(&results)? } else { show::as_text(&results)? });
    Ok(())
}

/// Runs every task on every model: a model is opened once, and gone before the next is opened.
fn evaluate(wanted: &Wanted<'_>, cancel: &Arc<AtomicBool>, messages: &Messages, results: &mut Vec<TaskResult>) -> Result<()> {
    let judge = models::open_judge(wanted, cancel)?;
    let executor = wanted.executes.then(|| models::open_sandbox(wanted.arguments)).transpose()?;
    let bar = Items::new(messages.is_quiet());
    let progress = |progress| bar.update(progress);
    let options = RunOptions {
        limit: wanted.arguments.limit,
        items: wanted.arguments.items.clone(),
        shots: wanted.shots,
        shots_file: wanted.shots_file.as_deref(),
        seed: wanted.arguments.seed,
        system: wanted.arguments.system.clone(),
        as_chat: wanted.arguments.chat,
        executor: executor.as_ref().map(|executor| executor as _),
        judge: judge.as_deref(),
        reference: wanted.arguments.judge.reference.as_deref(),
        cancel,
        progress: &progress,
    };
    // All data is read before the first model is: what is missing is said at once.
    let read = |task| Evaluation::read(task, wanted.arguments.data.as_deref(), &options);
    let mut evaluations: Vec<Evaluation<'_>> = wanted.tasks.iter().map(read).collect::<Result<_>>()?;
    let mut records = wanted.arguments.records.as_deref().map(|path| create(path).map(|file| (path, file))).transpose()?;
    for source in &wanted.models {
        let backend = models::open(source, wanted.arguments, messages, cancel)?;
        for (task, evaluation) in wanted.tasks.iter().zip(&mut evaluations) {
            bar.begin(&format!("{} {}", backend.name(), task.task));
            let result = evaluation.run(&*backend);
            bar.finish();
            let result = result?;
            if let Some((path, out)) = &mut records {
                result.write_records(out).and_then(|()| out.flush()).context("writing the records", path)?;
            }
            if let Some(path) = &wanted.arguments.generations {
                write_generations(task, &result, path)?;
            }
            results.push(result);
        }
    }
    Ok(())
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).context("making the file", path)?))
}

fn write_generations(task: &task::Task, result: &TaskResult, path: &Path) -> Result<()> {
    let form = task.generation.as_ref().and_then(|generation| generation.file);
    let form = form.ok_or_else(|| Error::new(format!("{}: the task has no form of a file of generations", task.task)))?;
    std::fs::write(path, result.generations(form)).context("writing the generations", path)
}
