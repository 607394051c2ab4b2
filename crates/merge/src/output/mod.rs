//! From a plan to a finished model folder: written beside its place, then renamed.

mod card;
mod disk;
mod folder;
mod journal;
mod moving;
mod place;
mod provenance;
mod shards;
mod side_files;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Checkpoint, Error, FileIdentity, Result};
use deltaic_kernels::{InstructionSet, Kernels};

pub use self::place::check_out;
pub(crate) use self::side_files::taken_over;

use self::disk::{Disk, RealDisk};
use self::folder::PartialFolder;
use self::place::Place;
use self::shards::Shards;
use crate::checks;
use crate::checks::folder::{Expected, Finding, Severity};
use crate::engine::{self, Control, Progress};
use crate::plan::Plan;
use crate::recipe::{self, Document, Recorded, UnknownPolicy};
use crate::verify;

/// Broken things that one message names.
const FINDINGS_LISTED: usize = 4;

/// How a merge is run; nothing of it changes a byte of the weights.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// Number of worker threads.
    pub threads: usize,
    /// Replace the model at OUT where there is one, and a partial folder that an earlier run left.
    pub force: bool,
    /// Go on with what an earlier run of the same plan left.
    pub resume: bool,
    /// Fail where an element of the output is NaN or infinite.
    pub deny_nan: bool,
    /// Check the result before it takes its place, and count what its dtype swallows of the deltas.
    pub checks: bool,
    /// Record the SHA-256 of all bytes of the sources, not only of samples.
    pub hash: bool,
    /// Write a model card.
    pub model_card: bool,
    /// The instruction set of the kernels; without one the best of this machine.
    pub instruction_set: Option<InstructionSet>,
}

impl Default for MergeOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (force, resume, deny_nan, checks, hash, model_card) = (false, false, false, true, false, true);
        Self { threads, force, resume, deny_nan, checks, hash, model_card, instruction_set: None }
    }
}

impl MergeOptions {
    /// The kernels to use.
    ///
    /// # Errors
    /// This machine does not have the instruction set that was asked for.
    pub(crate) fn kernels(&self) -> Result<Kernels> {
        match self.instruction_set {
            None => Ok(Kernels::detect()),
            Some(set) => {
                Kernels::with(set).ok_or_else(|| Error::new(format!("this machine does not have the instruction set {}", set.name())))
            }
        }
    }
}

/// A finished merge.
#[derive(Debug, Clone)]
pub struct Merged {
    /// Where it lies.
    pub folder: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes of the weights that an earlier run had written; all of them where it was whole already.
    pub kept_bytes: u64,
    /// Tensors with elements that are NaN or infinite, and how many of them.
    pub non_finite: Vec<(String, u64)>,
    /// What the user should know of the result.
    pub warnings: Vec<String>,
}

/// Writes the merged model to `out`. `progress` is called after every window, from any worker; `cancel` stops the work.
///
/// # Errors
/// `out` is in use, a source cannot be read or changes, there is no space, a check finds the result broken, or the work was cancelled.
/// What was at `out` before is there still. Where tensors were finished they are kept beside `out`, and the help says where; else
/// nothing is left behind.
pub fn merge(plan: &Plan, out: &Path, options: &MergeOptions, cancel: &AtomicBool, progress: &(dyn Fn(Progress) + Sync)) -> Result<Merged> {
    merge_on(&RealDisk, plan, out, options, cancel, progress)
}

fn merge_on(
    disk: &dyn Disk,
    plan: &Plan,
    out: &Path,
    options: &MergeOptions,
    cancel: &AtomicBool,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Merged> {
    let kernels = options.kernels()?;
    if options.resume {
        moving::finish_move(out, &plan.hash())?;
        if let Some(merged) = whole_already(plan, out, options, cancel)? {
            return Ok(merged);
        }
    }
    check_out(plan, out, options)?;
    let partial = PartialFolder::create(out, plan, options)?;
    let control =
        Control { threads: options.threads, kernels, count_swallowed: options.checks, deny_nan: options.deny_nan, cancel, progress };
    let mut merged = write(disk, plan, &partial, options, &control).map_err(|error| partial.left_behind(error))?;
    merged.bytes = partial.commit(options.force).map_err(|error| partial.left_behind(error))?;
    merged.folder = out.to_owned();
    Ok(merged)
}

/// Writes all files of the model into the partial folder, and checks them.
fn write(disk: &dyn Disk, plan: &Plan, partial: &PartialFolder, options: &MergeOptions, control: &Control<'_>) -> Result<Merged> {
    let shards = Shards::open(disk, plan, partial.path(), partial.resumed, options.deny_nan)?;
    side_files::copy_all(disk, plan, partial.path(), control.cancel)?;
    let run = std::thread::scope(|scope| {
        let _closing = shards.closed_in_the_end();
        // Where there is no thread for it, the journal is written in the end: a crash costs more then.
        let _ = std::thread::Builder::new().spawn_scoped(scope, || shards.keep_journal());
        engine::run(plan, &shards, control)
    });
    let unchanged = plan.sources.iter().flat_map(|source| &source.files).chain(plan.auxiliary.iter().map(|file| &file.identity));
    let unchanged = unchanged.into_iter().try_for_each(FileIdentity::check_unchanged);
    let useless = unchanged.and_then(|()| match &run {
        Err(error) if error.is_permanent() => Err(error.clone()),
        _ => Ok(()),
    });
    if let Err(error) = useless {
        partial.discard();
        return Err(error);
    }
    // Whatever happens from here on, a later run finds what is done.
    shards.note_down_all();
    if shards.is_worth_keeping() {
        partial.keep();
    }
    let remarks = run?;
    shards.finish()?;
    side_files::write_all(disk, plan, partial.path(), options, control.cancel)?;
    let counts = shards.counts();
    let mut warnings = remarks;
    if options.checks {
        warnings.extend(check(plan, partial.path())?);
        warnings.extend(checks::swallowed::warning(plan, &counts));
    }
    let non_finite = plan.tensors.iter().zip(&counts).filter(|(_, counts)| counts.non_finite > 0);
    Ok(Merged {
        folder: PathBuf::new(),
        bytes: 0,
        kept_bytes: shards.kept_bytes(),
        non_finite: non_finite.map(|(tensor, counts)| (tensor.name.clone(), counts.non_finite)).collect(),
        warnings,
    })
}

/// Checks the finished folder. What may be meant is a warning; so is a flaw that the model has from which config.json comes.
///
/// # Errors
/// The merge broke something.
fn check(plan: &Plan, partial: &Path) -> Result<Vec<String>> {
    let donor = plan.sources[plan.side_files_from].folder();
    let findings = checks::folder::folder(partial, Some(&Expected::of(plan)))?;
    let is_broken = |finding: &Finding| finding.severity == Severity::Broken;
    let old = if findings.iter().any(is_broken) { checks::folder::folder(donor, None)? } else { Vec::new() };
    let is_old = |finding: &Finding| old.iter().any(|known| known.flaw() == finding.flaw());
    let (broken, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| is_broken(finding) && !is_old(finding));
    if broken.is_empty() {
        return Ok(warnings.iter().map(|finding| finding.error.to_string()).collect());
    }
    let messages: Vec<&str> = broken.iter().take(FINDINGS_LISTED).map(|finding| finding.error.message()).collect();
    let more = broken.len().saturating_sub(FINDINGS_LISTED);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    Err(Error::new(format!("the merged model is broken: {}{more}", messages.join("\n  ")))
        .help("see whether the models fit each other (`deltaic inspect`); `--resume --checks none` puts it in place as it is"))
}

/// What `deltaic.yml` of a folder records; None where there is none that can be read.
fn recorded(folder: &Path) -> Option<Recorded> {
    let document = Document::read(&folder.join("deltaic.yml")).ok()?;
    recipe::parse(Arc::new(document), UnknownPolicy::Ignore).ok()?.0.recorded
}

/// The output that an earlier run of the plan has put in place, where nothing says that it was damaged since.
fn whole_already(plan: &Plan, out: &Path, options: &MergeOptions, cancel: &AtomicBool) -> Result<Option<Merged>> {
    let length = |name: &str| out.join(name).metadata().map_or(0, |metadata| metadata.len());
    let hash = plan.hash();
    let whole = recorded(out).is_some_and(|recorded| recorded.plan == hash)
        && plan.layout.shards().iter().all(|shard| length(&shard.file_name) == shard.length)
        && out.join("config.json").exists();
    if !whole {
        return Ok(None);
    }
    folder::remove_replaced(&Place::of(out)?.partial(&hash))?;
    let again = |error: Error| error.and_help("the output is there, but was changed since it was made: --force makes it again");
    let mut warnings = vec![format!("{}: whole already, nothing was left to do", out.display())];
    if options.checks {
        warnings.extend(check(plan, out).map_err(again)?);
    }
    if options.deny_nan
        && let Some(found) = verify::non_finite(&Checkpoint::open(out)?, options, cancel)?.into_iter().next()
    {
        return Err(found.error);
    }
    let bytes = out.read_dir().into_iter().flatten().flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len());
    let (bytes, non_finite) = (bytes.sum(), Vec::new());
    Ok(Some(Merged { folder: out.to_owned(), bytes, kept_bytes: plan.layout.total_size(), non_finite, warnings }))
}
