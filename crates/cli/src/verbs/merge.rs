//! `deltaic merge`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deltaic_checkpoint::{Error, Result};
use deltaic_merge::{MergeOptions, Plan, checks, merge, output};

use crate::arguments::{Merge, Running};
use crate::messages::{Messages, print};
use crate::progress::Bar;
use crate::reading::read_plan;
use crate::tables;

pub fn run(arguments: &Merge, messages: &Messages) -> Result<()> {
    let plan = read_plan(&arguments.recipe, &arguments.reading, messages)?;
    if arguments.dry_run {
        output::check_out(&plan, &arguments.out, arguments.running.force)?;
        print(&super::plan::shown(&plan, arguments.running.json));
        return Ok(());
    }
    write(&plan, &arguments.out, &arguments.running, messages)
}

/// A flag that Ctrl-C sets. A second signal ends the program at once; a partial folder's name then says what it is.
pub fn cancelled_by_signals() -> Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Error::new(format!("setting up the handling of Ctrl-C: {error}")))?;
    Ok(cancel)
}

/// Runs a plan, and prints where the model lies and how large it is.
pub fn write(plan: &Plan, out: &Path, running: &Running, messages: &Messages) -> Result<()> {
    let mut options = MergeOptions {
        force: running.force,
        deny_nan: running.deny_nan,
        model_card: !running.no_write_model_card,
        instruction_set: running.instruction_set,
        ..MergeOptions::default()
    };
    if let Some(threads) = running.threads {
        options.threads = usize::from(threads);
    }
    checks::before(plan)?.iter().for_each(|warning| messages.warning(warning));
    let cancel = cancelled_by_signals()?;
    let bar = Bar::new(messages.is_quiet());
    let merged = merge(plan, out, &options, &cancel, &|progress| bar.update(progress));
    bar.finish();
    let merged = merged?;
    for (tensor, count) in &merged.non_finite {
        messages.warning(&format!("{tensor}: {count} elements are NaN or infinite"));
    }
    if running.json {
        let non_finite: serde_json::Map<_, _> = merged.non_finite.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
        let result = serde_json::json!({"folder": merged.folder, "bytes": merged.bytes, "seed": plan.draws_from_the_recipes_seed().then_some(plan.seed), "non_finite": non_finite});
        print(&format!("{result}\n"));
    } else {
        print(&format!("{}  {}\n", merged.folder.display(), tables::bytes(merged.bytes)));
    }
    Ok(())
}
