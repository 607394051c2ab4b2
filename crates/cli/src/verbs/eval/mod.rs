//! `deltaic eval`.

mod files;
mod models;
mod show;
mod wanted;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::Result;
use deltaic_eval::{Evaluation, RunOptions, TaskResult, harness_results};

use crate::arguments::Eval;
use crate::messages::{Messages, print};
use crate::progress::Items;
use files::Files;
use wanted::Wanted;

pub fn run(arguments: &Eval, messages: &Messages) -> Result<()> {
    if arguments.list {
        print(&show::tasks()?);
        return Ok(());
    }
    let wanted = Wanted::new(arguments)?;
    let read = read_harness_results(&wanted, messages)?;
    let mut results = Vec::new();
    let outcome = match wanted.models.is_empty() {
        true => Ok(()),
        false => evaluate(&wanted, &crate::signals::cancel_flag()?, messages, &mut results),
    };
    // What is finished is shown, also where a later model has failed.
    if outcome.is_ok() || !results.is_empty() {
        results.extend(read);
        print(&if arguments.json { show::as_json(&results)? } else { show::as_text(&results)? });
    }
    outcome
}

/// What was asked for of results of the harness.
fn read_harness_results(wanted: &Wanted<'_>, messages: &Messages) -> Result<Vec<TaskResult>> {
    let mut results = Vec::new();
    for path in &wanted.arguments.harness_results {
        let of_wanted = |result: &TaskResult| wanted.tasks.is_empty() || wanted.tasks.iter().any(|task| task.task == result.task);
        let found: Vec<TaskResult> = harness_results::read(path)?.into_iter().filter(of_wanted).collect();
        if found.is_empty() {
            messages.warning(&format!("{}: no result of the tasks asked for", path.display()));
        }
        results.extend(found);
    }
    Ok(results)
}

/// Runs every task on every model: a model is opened once, and gone before the next is opened.
fn evaluate(wanted: &Wanted<'_>, cancel: &Arc<AtomicBool>, messages: &Messages, results: &mut Vec<TaskResult>) -> Result<()> {
    // What would stop the files from being written is said before the work.
    let mut files = Files::begin(wanted)?;
    let answers = models::open_answers(wanted.arguments)?;
    let judge = models::open_judge(wanted, &answers, cancel)?;
    let executor = wanted.executes.then(|| models::open_sandbox(wanted.arguments, messages)).transpose()?;
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
        max_new_tokens: wanted.arguments.max_new_tokens,
        executor: executor.as_ref().map(|executor| executor as _),
        judge: judge.as_deref(),
        reference: wanted.arguments.judge.reference.as_deref(),
        cancel,
        progress: &progress,
    };
    // All data is read before the first model is: what is missing is said at once.
    let read = |task| Evaluation::read(task, wanted.arguments.data.as_deref(), &options);
    let mut evaluations: Vec<Evaluation<'_>> = wanted.tasks.iter().map(read).collect::<Result<_>>()?;
    files.check(&evaluations)?;
    for source in &wanted.models {
        models::check(source, wanted, &mut evaluations, cancel)?;
    }
    let mut ask = || {
        for source in &wanted.models {
            let backend = models::open(source, wanted.arguments, &answers, messages, cancel)?;
            for evaluation in &mut evaluations {
                bar.begin(&format!("{} {}", backend.name(), evaluation.task().task));
                let result = evaluation.run(&*backend);
                bar.finish();
                let result = result?;
                warn_of_counts(&result, messages);
                files.write(evaluation, &result)?;
                results.push(result);
            }
        }
        Ok(())
    };
    let asked = ask();
    // Records of what is finished are kept, also where a later model has failed.
    if asked.is_ok() || !results.is_empty() { asked.and(files.finish()) } else { asked }
}

/// What a score does not show: prompts that were cut, answers that are none.
fn warn_of_counts(result: &TaskResult, messages: &Messages) {
    for (name, what) in [
        ("truncated_prompts", "prompts do not fit the model's window and have lost their beginning"),
        ("answers_without_text", "answers are empty"),
        ("answers_without_tokens", "texts to be scored have no token left"),
    ] {
        if let Some(count) = result.details[name].as_u64() {
            messages.warning(&format!("{}: {}: {count} {what}", result.model, result.task));
        }
    }
}
