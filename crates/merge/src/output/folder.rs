//! The folder in which an output is made, and how it takes its place.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result};
use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::MergeOptions;
use super::disk::failed;
use super::journal;
use super::place::{self, Place};

/// Beside OUT, with the plan's hash in its name, locked for as long as the run lasts. Where OUT is a mount point, inside it. Dropped
/// before it is committed, it is removed, unless it is to be kept.
pub(super) struct PartialFolder {
    place: Place,
    path: PathBuf,
    committed: Cell<bool>,
    kept: Cell<bool>,
    /// Whether an earlier run made it.
    pub resumed: bool,
    /// Holds the lock: two runs never work in one folder.
    _lock: File,
}

impl PartialFolder {
    /// Makes the folder, or with `resume` opens the one that an earlier run of the plan left; room for `bytes` is checked. `force` removes
    /// what a run that is over left there.
    pub fn create(out: &Path, hash: &str, bytes: u64, options: &MergeOptions) -> Result<Self> {
        let place = Place::of(out)?;
        let path = place.partial(hash);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| failed(&error, "making the folder", parent))?;
        }
        if options.force && !options.resume && path.exists() {
            let _lock = lock(&path)?;
            fs::remove_dir_all(&path).context("removing what an earlier run left", &path)?;
        }
        let mut resumed = false;
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists && options.resume => resumed = true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                lock(&path)?;
                return Err(Error::new(format!("{}: an earlier run of this merge left it", path.display()))
                    .help("go on with it by --resume, or start over with --force"));
            }
            Err(error) => return Err(failed(&error, "making the folder", &path)),
        }
        let lock = lock(&path)?;
        let partial = Self { place, path, committed: Cell::new(false), kept: Cell::new(resumed), resumed, _lock: lock };
        partial.check_space(bytes)?;
        Ok(partial)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the folder stay for a later run, whatever happens to this one.
    pub fn keep(&self) {
        self.kept.set(true);
    }

    /// Lets nothing of the folder stay.
    pub fn discard(&self) {
        self.kept.set(false);
    }

    /// Says of an error what is left behind, where something is.
    pub fn left_behind(&self, error: Error) -> Error {
        if !self.kept.get() {
            return error;
        }
        error.and_help(format!("what is done is kept in {}: --resume goes on with it, --force starts over", self.path.display()))
    }

    fn check_space(&self, needed: u64) -> Result<()> {
        let Ok(file_system) = rustix::fs::statvfs(&self.path) else { return Ok(()) };
        let free = file_system.f_bavail.saturating_mul(file_system.f_frsize);
        let here = fs::read_dir(&self.path).into_iter().flatten().flatten().filter_map(|entry| entry.metadata().ok());
        let reserved: u64 = here.map(|metadata| metadata.blocks() * 512).sum();
        if free.saturating_add(reserved) < needed {
            return Err(Error::new(format!(
                "{}: the output needs {needed} bytes, {} are free",
                self.path.display(),
                free.saturating_add(reserved)
            ))
            .help("make room, or choose a folder on another disk"));
        }
        Ok(())
    }

    /// Makes everything durable and puts it in OUT's place; returns the bytes of its files. With `force` an old OUT gives way.
    pub fn commit(&self, force: bool) -> Result<u64> {
        let journal = self.path.join(journal::NAME);
        let bytes = sync_all(&self.path)? - fs::metadata(&journal).map_or(0, |metadata| metadata.len());
        let out = self.place.out();
        if !force && !place::is_empty(out) {
            return Err(Error::new(format!("{}: no longer empty, something else wrote there", out.display()))
                .help("choose another folder, or replace what is there with --force"));
        }
        fs::remove_file(&journal).context("removing the journal", &journal)?;
        match &self.place {
            Place::Beside { .. } => self.rename(out)?,
            Place::Inside { .. } => move_into(&self.path, out)?,
        }
        sync_folder(out.parent());
        Ok(bytes)
    }

    /// The folder becomes OUT in one step; an old OUT is exchanged for it, then deleted.
    fn rename(&self, out: &Path) -> Result<()> {
        if place::is_empty(out) {
            fs::rename(&self.path, out).context("renaming the finished model", out)?;
            self.committed.set(true);
            return Ok(());
        }
        exchange(&self.path, out).context("exchanging the new model for the old one", out)?;
        sync_folder(out.parent());
        self.committed.set(true);
        fs::remove_dir_all(&self.path).context("the new model is in place, but removing the old one failed", &self.path)
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        if !self.committed.get() && !self.kept.get() {
            // Nothing more can be done about a folder that does not go; its name says what it is.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Moves the files of a finished model into a folder that cannot be renamed to. What makes a folder a model goes first from the old one
/// and comes last from the new: at every moment there is one, or none.
fn move_into(partial: &Path, out: &Path) -> Result<()> {
    let last = ["model.safetensors.index.json", "config.json"];
    let remove = |path: PathBuf| match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error, "removing the old model's file", &path)),
        _ => Ok(()),
    };
    last.iter().rev().try_for_each(|name| remove(out.join(name)))?;
    sync_folder(Some(out));
    let names = |folder: &Path| -> Result<Vec<_>> {
        let entries = fs::read_dir(folder).context("reading the folder", folder)?;
        Ok(entries.flatten().map(|entry| entry.file_name()).collect())
    };
    let is_weights = |name: &std::ffi::OsString| name.to_str().is_some_and(|name| name.ends_with(".safetensors") || name.ends_with(".bin"));
    names(out)?.into_iter().filter(is_weights).try_for_each(|name| remove(out.join(name)))?;
    let (mut first, mut then) = (names(partial)?, Vec::new());
    for name in last {
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
    fs::remove_dir(partial).context("removing the empty folder", partial)
}

/// Removes the model that gave way to a new one, where the run was stopped before it did so itself.
pub(super) fn remove_replaced(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let _lock = lock(folder)?;
    fs::remove_dir_all(folder).context("removing the model that was replaced", folder)
}

/// Locks a folder until the file is closed.
fn lock(folder: &Path) -> Result<File> {
    let taken = || Error::new(format!("{}: another run of this merge is at work", folder.display())).help("wait for it, or end it");
    let file = File::open(folder).context("opening the folder to lock it", folder)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(taken()),
        // A file system without locks: the folder's name is then the only guard.
        Err(_) => return Ok(file),
    }
    // Between the making and the lock another run may have put its own folder here.
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match (file.metadata(), fs::metadata(folder)) {
        (Ok(locked), Ok(there)) if same(&locked, &there) => Ok(file),
        _ => Err(taken()),
    }
}

/// Puts `new` where `old` is and `old` where `new` was: in one step where the file system can, else in three renames.
fn exchange(new: &Path, old: &Path) -> std::io::Result<()> {
    if rustix::fs::renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    let mut aside = new.as_os_str().to_owned();
    aside.push("-old");
    fs::rename(old, &aside)?;
    fs::rename(new, old)?;
    fs::rename(&aside, new)
}

/// Syncs every file and folder below `folder`; returns the bytes of the files.
fn sync_all(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).context("reading the folder", folder)? {
        let path = entry.context("reading the folder", folder)?.path();
        if path.is_dir() {
            bytes += sync_all(&path)?;
        } else {
            let file = File::open(&path).context("opening it to sync it", &path)?;
            file.sync_all().map_err(|error| failed(&error, "syncing", &path))?;
            bytes += file.metadata().context("reading its length", &path)?.len();
        }
    }
    File::open(folder).and_then(|file| file.sync_all()).map_err(|error| failed(&error, "syncing the folder", folder))?;
    Ok(bytes)
}

/// A rename is durable once its folder is synced; where that cannot be done, the rename stands all the same.
fn sync_folder(folder: Option<&Path>) {
    if let Some(Ok(folder)) = folder.map(File::open) {
        let _ = folder.sync_all();
    }
}
