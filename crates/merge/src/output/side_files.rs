//! What an output has beside its weights: config.json, tokenizer, other side files, recipe, provenance and card.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Context, Error, Result, SideFiles};

use super::disk::{Disk, failed, write_file};
use super::{MergeOptions, card, provenance};
use crate::plan::Plan;

/// Copies those that sources have. It is done before the weights: what cannot be copied is known early.
pub(super) fn copy_all(disk: &dyn Disk, plan: &Plan, folder: &Path) -> Result<()> {
    let from = |source: usize| Ok((plan.sources[source].folder(), SideFiles::of(plan.sources[source].folder())?));
    if let Some(donor) = plan.tokenizer_from {
        let (donor, files): (&Path, SideFiles) = from(donor)?;
        files.tokenizer_and_templates().into_iter().try_for_each(|file| copy(disk, donor, file, folder))?;
    }
    let (donor, files): (&Path, SideFiles) = from(plan.side_files_from)?;
    files.others().into_iter().try_for_each(|file| copy(disk, donor, file, folder))
}

/// Writes those that the merge makes. It is done behind the weights: a folder without config.json is no model.
pub(super) fn write_all(disk: &dyn Disk, plan: &Plan, folder: &Path, options: &MergeOptions, cancel: &AtomicBool) -> Result<()> {
    write_file(disk, &folder.join("config.json"), plan.config.to_json().as_bytes())?;
    write_file(disk, &folder.join("mergekit_config.yml"), plan.recipe.document.text.as_bytes())?;
    write_file(disk, &folder.join("deltaic.yml"), provenance::text(plan, options.hash, cancel)?.as_bytes())?;
    if options.model_card {
        write_file(disk, &folder.join("README.md"), card::text(plan).as_bytes())?;
    }
    Ok(())
}

/// Copies a small file of a model's folder, with the folder it lies in. What it links to is copied, not the link; a link that leaves the
/// model is refused, since a foreign model could bring any file of this machine into the output. The Hub's cache keeps a model's files
/// in `blobs`, beside `snapshots`.
fn copy(disk: &dyn Disk, model: &Path, file: &Path, folder: &Path) -> Result<()> {
    let (from, to) = (model.join(file), folder.join(file));
    let real = from.canonicalize().context("resolving the path", &from)?;
    let model = model.canonicalize().context("resolving the path", model)?;
    let cache = model.parent().filter(|snapshots| snapshots.ends_with("snapshots")).and_then(Path::parent);
    if !real.starts_with(&model) && !cache.is_some_and(|cache| real.starts_with(cache)) {
        return Err(Error::new(format!("{}: a link out of the model's folder, to {}", from.display(), real.display()))
            .help("put the file itself there, if it belongs to the model"));
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(&error, "making the folder", folder))?;
    }
    let bytes = fs::read(&from).context("reading", &from)?;
    write_file(disk, &to, &bytes)
}
