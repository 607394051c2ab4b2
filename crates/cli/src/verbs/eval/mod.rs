//! `deltaic eval`.

mod models;
mod show;
mod wanted;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::Result;
use deltaic_eval::{Evaluation, RunOptions, TaskResult, harness_results};

use crate::arguments::Eval;
use crate::messages::{Messages, print};
use crate::output_file::OutputFile;
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
    // What would stop the files from being written is said before the work.
    let mut records = wanted.arguments.records.as_deref().map(|path| OutputFile::begin(path, wanted.arguments.force)).transpose()?;
    let mut generations =
        wanted.arguments.generations.as_deref().map(|path| OutputFile::begin(path, wanted.arguments.force)).transpose()?;
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
    if generations.is_some() {
        evaluations.iter().try_for_each(|evaluation| evaluation.check_generations().map(drop))?;
    }
    for source in &wanted.models {
        let backend = models::open(source, wanted.arguments, &answers, messages, cancel)?;
        for evaluation in &mut evaluations {
            bar.begin(&format!("{} {}", backend.name(), evaluation.task().task));
            let result = evaluation.run(&*backend);
            bar.finish();
            let result = result?;
            if let Some(out) = &mut records {
                out.write(|file| result.write_records(file))?;
            }
            if let Some(out) = &mut generations {
                let text = result.generations(evaluation.check_generations()?)?;
                out.write(|file| file.write_all(text.as_bytes()))?;
            }
            results.push(result);
        }
    }
    records.into_iter().chain(generations).try_for_each(OutputFile::finish)
}
