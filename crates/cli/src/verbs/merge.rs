//! `deltaic merge`.

use std::path::Path;

use deltaic_checkpoint::Result;
use deltaic_merge::{MergeOptions, Plan, checks, merge, output};

use crate::arguments::{Checks, Merge, Running};
use crate::messages::{Messages, print};
use crate::progress::Bar;
use crate::reading::{read_recipe, resolve};
use crate::tables;

pub fn run(arguments: &Merge, messages: &Messages) -> Result<()> {
    #[cfg_attr(not(feature = "eval"), expect(unused_mut, reason = "statistics are made by what runs models"))]
    let (recipe, mut plan_options) = read_recipe(&arguments.recipe, &arguments.reading, messages)?;
    #[cfg(feature = "eval")]
    let made = super::statistics::make_for(&recipe, &mut plan_options, &arguments.out, messages)?;
    let plan = resolve(recipe, plan_options, messages)?;
    if arguments.dry_run {
        output::check_out(&plan, &arguments.out, &self::options(&arguments.running))?;
        print(&super::plan::shown(&plan, arguments.running.json));
        return Ok(());
    }
    write(&plan, &arguments.out, &arguments.running, messages)?;
    #[cfg(feature = "eval")]
    made.remove();
    Ok(())
}

/// What the command line says of how to run.
fn options(running: &Running) -> MergeOptions {
    let default = MergeOptions::default();
    MergeOptions {
        threads: running.threads.map_or(default.threads, usize::from),
        force: running.force,
        resume: running.resume,
        deny_nan: running.deny_nan,
        checks: running.checks == Checks::All,
        hash: running.hash,
        model_card: !running.no_write_model_card,
        instruction_set: running.instruction_set,
    }
}

/// Runs a plan, and prints where the model lies and how large it is.
pub fn write(plan: &Plan, out: &Path, running: &Running, messages: &Messages) -> Result<()> {
    if running.checks == Checks::All {
        checks::before(plan)?.iter().for_each(|warning| messages.warning(warning));
    }
    run_plan(plan, out, running, messages)
}

/// Runs a plan whose sources were checked, or need no checks.
pub fn run_plan(plan: &Plan, out: &Path, running: &Running, messages: &Messages) -> Result<()> {
    let options = options(running);
    let cancel = crate::signals::cancel_flag()?;
    let bar = Bar::new(messages.is_quiet());
    let merged = merge(plan, out, &options, &cancel, &|progress| bar.update(progress));
    bar.finish();
    let merged = merged?;
    for (tensor, count) in &merged.non_finite {
        messages.warning(&format!("{tensor}: {count} elements are NaN or infinite"));
    }
    merged.warnings.iter().for_each(|warning| messages.warning(warning));
    if running.json {
        let non_finite: serde_json::Map<_, _> = merged.non_finite.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
        let seed = plan.draws_from_the_recipes_seed().then_some(plan.seed);
        let result = serde_json::json!({
            "folder": merged.folder,
            "bytes": merged.bytes,
            "kept_bytes": merged.kept_bytes,
            "seed": seed,
            "non_finite": non_finite,
            "warnings": merged.warnings,
        });
        print(&format!("{result}\n"));
    } else {
        print(&format!("{}  {}\n", merged.folder.display(), tables::bytes(merged.bytes)));
    }
    Ok(())
}
