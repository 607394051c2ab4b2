//! How a finished model comes into a folder that cannot be renamed to, a mount point: its files are moved, and a run that is stopped in the
//! middle of it is gone on with.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result};

use super::disk::failed;
use super::folder::{lock, sync_folder};
use super::place::Place;

/// In the partial folder while the old model's files are removed.
const REPLACING: &str = "deltaic.replacing";
/// In the partial folder while the new model's files are moved: what is at OUT now is the new one's.
const MOVING: &str = "deltaic.moving";
/// What makes a folder a model goes first from the old one and comes last from the new: at every moment there is one, or none.
const LAST: [&str; 2] = ["model.safetensors.index.json", "config.json"];

/// Moves the files of a finished model to `out`, in the place of an old model's.
pub(super) fn move_into(partial: &Path, out: &Path) -> Result<()> {
    let marker = partial.join(REPLACING);
    File::create(&marker).map_err(|error| failed(&error, "making the file", &marker))?;
    sync_folder(Some(partial));
    go_on(partial, out)
}

/// Whether a run was stopped while it moved the model in this folder.
pub(super) fn is_half_moved(partial: &Path) -> bool {
    [REPLACING, MOVING].iter().any(|marker| partial.join(marker).exists())
}

/// Moves what a run that was stopped has left to be moved of the plan's output.
pub(super) fn finish_move(out: &Path, hash: &str) -> Result<()> {
    let partial = Place::of(out)?.partial(hash);
    if !is_half_moved(&partial) {
        return Ok(());
    }
    let _lock = lock(&partial)?;
    go_on(&partial, out)
}

fn go_on(partial: &Path, out: &Path) -> Result<()> {
    if !partial.join(MOVING).exists() {
        remove_old_model(out)?;
        fs::rename(partial.join(REPLACING), partial.join(MOVING)).context("noting that the old model is gone", partial)?;
        sync_folder(Some(partial));
    }
    let (mut first, mut then) = (names(partial)?, Vec::new());
    first.retain(|name| name != MOVING);
    for name in LAST {
        if let Some(place) = first.iter().position(|known| known == name) {
            then.push(first.remove(place));
        }
    }
    for name in first.iter().chain(&then) {
        let (from, to) = (partial.join(name), out.join(name));
        if to.is_dir() {
            fs::remove_dir_all(&to).context("removing the old model's folder", &to)?;
        }
        fs::rename(&from, &to).context("moving a file of the finished model", &to)?;
        sync_folder(Some(out));
    }
    fs::remove_dir_all(partial).context("removing the empty folder", partial)
}

fn remove_old_model(out: &Path) -> Result<()> {
    let remove = |path: PathBuf| match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error, "removing the old model's file", &path)),
        _ => Ok(()),
    };
    LAST.iter().rev().try_for_each(|name| remove(out.join(name)))?;
    sync_folder(Some(out));
    let is_weights = |name: &OsString| name.to_str().is_some_and(|name| name.ends_with(".safetensors") || name.ends_with(".bin"));
    names(out)?.into_iter().filter(is_weights).try_for_each(|name| remove(out.join(name)))
}

fn names(folder: &Path) -> Result<Vec<OsString>> {
    let entries = fs::read_dir(folder).context("reading the folder", folder)?;
    Ok(entries.flatten().map(|entry| entry.file_name()).collect())
}

/// An error where another merge was stopped while it moved its model to `out`: only that one can finish.
pub(super) fn check_others(out: &Path, own: &Path) -> Result<()> {
    let others = out.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    match others.into_iter().find(|path| path != own && is_half_moved(path)) {
        None => Ok(()),
        Some(other) => Err(Error::new(format!("{}: a merge was stopped while it put its model in place", other.display()))
            .help("finish it by its own recipe with --resume, or remove that folder and what is beside it")),
    }
}
