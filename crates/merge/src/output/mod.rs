//! From a plan to a finished model folder: written beside its place, then renamed.

mod card;
mod folder;
mod provenance;
mod shards;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Context, Error, Result, SideFiles};
use deltaic_kernels::{InstructionSet, Kernels};

use self::folder::PartialFolder;
use self::shards::Shards;
use crate::engine::{self, Control, Progress};
use crate::plan::Plan;

/// How a merge is run; nothing of it changes a byte of the weights.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// Number of worker threads.
    pub threads: usize,
    /// Replace OUT where it exists, and a partial folder that an earlier run left.
    pub force: bool,
    /// Fail where an element of the output is NaN or infinite.
    pub deny_nan: bool,
    /// Write a model card.
    pub model_card: bool,
    /// The instruction set of the kernels; without one the best of this machine.
    pub instruction_set: Option<InstructionSet>,
}

impl Default for MergeOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { threads, force: false, deny_nan: false, model_card: true, instruction_set: None }
    }
}

/// A finished merge.
#[derive(Debug, Clone)]
pub struct Merged {
    /// Where it lies.
    pub folder: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Tensors with elements that are NaN or infinite, and how many of them.
    pub non_finite: Vec<(String, u64)>,
}

/// Writes the merged model to `out`. `progress` is called after every window, from any worker; `cancel` stops the work.
///
/// # Errors
/// `out` is in use, a source cannot be read, there is no space, or the work was cancelled. Then nothing is left behind, and what was at
/// `out` before is there still.
pub fn merge(plan: &Plan, out: &Path, options: &MergeOptions, cancel: &AtomicBool, progress: &(dyn Fn(Progress) + Sync)) -> Result<Merged> {
    let kernels = match options.instruction_set {
        None => Kernels::detect(),
        Some(set) => {
            Kernels::with(set).ok_or_else(|| Error::new(format!("this machine does not have the instruction set {}", set.name())))?
        }
    };
    check_out(plan, out, options.force)?;
    let partial = PartialFolder::create(out, &plan.hash(), plan.layout.file_bytes(), options.force)?;
    let shards = Shards::create(plan, partial.path())?;
    let control = Control { threads: options.threads, kernels, cancel, progress };
    let non_finite = engine::run(plan, &shards, &control)?;
    let counted = plan.tensors.iter().zip(non_finite).filter(|(_, count)| *count > 0);
    let non_finite: Vec<(String, u64)> = counted.map(|(tensor, count)| (tensor.name.clone(), count)).collect();
    if let (true, [(tensor, count), ..]) = (options.deny_nan, &non_finite[..]) {
        return Err(Error::new(format!(
            "{tensor}: {count} elements of the output are NaN or infinite, as in {} tensors",
            non_finite.len()
        ))
        .help("a source has such elements; without --deny-nan they are written and reported"));
    }
    shards.finish()?;
    write_side_files(plan, partial.path(), options)?;
    let bytes = partial.commit(out, options.force)?;
    Ok(Merged { folder: out.to_owned(), bytes, non_finite })
}

/// Says early what [`merge`] would say: whether `out` can be written to.
///
/// # Errors
/// `out` is a file, a folder with something in it (unless `force`), or one of the sources.
pub fn check_out(plan: &Plan, out: &Path, force: bool) -> Result<()> {
    if out.is_symlink() {
        return Err(Error::new(format!("{}: a symbolic link", out.display()))
            .help("name the folder itself, so that it can be replaced in one step"));
    }
    let real = real_place(out)?;
    for located in plan.sources.iter().flat_map(|source| std::iter::once(&source.model).chain(&source.adapter)) {
        let source = located.path.canonicalize().unwrap_or_else(|_| located.path.clone());
        if source.starts_with(&real) || real.starts_with(&source) || has_files_in(&source, &real) {
            return Err(Error::new(format!("{}: this is where a source of the merge lies ({})", out.display(), located.path.display()))
                .help("choose another folder for the output: sources are never overwritten, not even with --force"));
        }
    }
    if !real.exists() {
        return Ok(());
    }
    if !real.is_dir() {
        return Err(Error::new(format!("{}: a file, not a folder", out.display())).help("choose a folder for the output"));
    }
    let empty = out.read_dir().context("reading the folder", out)?.next().is_none();
    if !empty && !force {
        return Err(
            Error::new(format!("{}: the folder is not empty", out.display())).help("choose another folder, or replace it with --force")
        );
    }
    Ok(())
}

/// Whether a folder's files are links to files below another.
fn has_files_in(folder: &Path, other: &Path) -> bool {
    let real = folder.read_dir().into_iter().flatten().flatten().filter_map(|entry| entry.path().canonicalize().ok());
    real.into_iter().any(|file| file.starts_with(other))
}

/// Where a path leads, links resolved as far as it exists.
fn real_place(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).context("resolving the path", path)?;
    let existing = absolute.ancestors().find_map(|ancestor| Some((ancestor.canonicalize().ok()?, absolute.strip_prefix(ancestor).ok()?)));
    // Components, not `join`: an empty rest would leave a separator behind.
    Ok(existing.map_or_else(|| absolute.clone(), |(real, rest)| real.components().chain(rest.components()).collect()))
}

/// config.json, tokenizer, other side files, recipe, provenance and card.
fn write_side_files(plan: &Plan, folder: &Path, options: &MergeOptions) -> Result<()> {
    let from = |source: usize| Ok((plan.sources[source].folder(), SideFiles::of(plan.sources[source].folder())?));
    if let Some(donor) = plan.tokenizer_from {
        let (donor, files): (&Path, SideFiles) = from(donor)?;
        files.tokenizer_and_templates().into_iter().try_for_each(|file| folder::copy(donor, file, folder))?;
    }
    let (donor, files): (&Path, SideFiles) = from(plan.side_files_from)?;
    files.others().into_iter().try_for_each(|file| folder::copy(donor, file, folder))?;
    folder::write(&folder.join("config.json"), plan.config.to_json().as_bytes())?;
    folder::write(&folder.join("mergekit_config.yml"), plan.recipe.document.text.as_bytes())?;
    folder::write(&folder.join("deltaic.yml"), provenance::text(plan).as_bytes())?;
    if options.model_card {
        folder::write(&folder.join("README.md"), card::text(plan).as_bytes())?;
    }
    Ok(())
}
