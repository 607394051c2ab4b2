//! The folder in which an output is made, and how it takes its place.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result};
use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::MergeOptions;
use super::disk::failed;
use super::journal;
use super::moving::move_into;
use super::place::{self, Place};
use super::side_files;
use crate::plan::Plan;

/// Beside OUT, with the plan's hash in its name, locked for as long as the run lasts. Where OUT is a mount point, inside it. Dropped
/// before it is committed, it is removed, unless it is to be kept.
pub(super) struct PartialFolder {
    place: Place,
    path: PathBuf,
    committed: Cell<bool>,
    kept: Cell<bool>,
    /// Folders that were made for it to lie in, outermost first.
    made: Vec<PathBuf>,
    /// Whether an earlier run made it.
    pub resumed: bool,
    /// Holds the lock: two runs never work in one folder.
    _lock: File,
}

impl PartialFolder {
    /// Makes the folder, or with `resume` opens the one that an earlier run of the plan left; whether there is room is checked. `force`
    /// removes what a run that is over left there.
    pub fn create(out: &Path, plan: &Plan, options: &MergeOptions) -> Result<Self> {
        let place = Place::of(out)?;
        let path = place.partial(&plan.hash());
        let made = match path.parent() {
            Some(parent) => make_folders(parent)?,
            None => Vec::new(),
        };
        if path.is_symlink() {
            return Err(Error::new(format!("{}: a link, where deltaic makes a folder of its own", path.display())).help("remove it"));
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
        let partial = Self { place, path, committed: Cell::new(false), kept: Cell::new(resumed), made, resumed, _lock: lock };
        if resumed {
            partial.clear_but_weights(plan)?;
        }
        partial.check_space(plan.layout.file_bytes() + side_files::bytes(plan)?)?;
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

    /// Of what an earlier run left only shards and journal are gone on with. All else is written again; what lies there besides must not get
    /// into the output.
    fn clear_but_weights(&self, plan: &Plan) -> Result<()> {
        let is_kept = |name: &OsStr| name == journal::NAME || plan.layout.shards().iter().any(|shard| name == shard.file_name.as_str());
        for entry in fs::read_dir(&self.path).context("reading the folder", &self.path)? {
            let entry = entry.context("reading the folder", &self.path)?;
            let (path, kind) = (entry.path(), entry.file_type().context("reading its kind", &entry.path())?);
            match (is_kept(&entry.file_name()), kind.is_file(), kind.is_dir()) {
                (true, true, _) => {}
                (true, false, _) => {
                    return Err(Error::new(format!("{}: expected a file that an earlier run left, found something else", path.display()))
                        .help("start over with --force"));
                }
                (false, _, true) => fs::remove_dir_all(&path).context("removing what an earlier run left", &path)?,
                (false, _, false) => fs::remove_file(&path).context("removing what an earlier run left", &path)?,
            }
        }
        Ok(())
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
            Place::Inside { .. } => {
                // Whatever stops it now, it can be finished.
                self.keep();
                move_into(&self.path, out)?;
                self.committed.set(true);
            }
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
            self.made.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
        }
    }
}

/// Makes a folder with those it lies in; says which were made.
fn make_folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> = folder.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    fs::create_dir_all(folder).map_err(|error| failed(&error, "making the folder", folder))?;
    Ok(missing.into_iter().rev().collect())
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
pub(super) fn lock(folder: &Path) -> Result<File> {
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
pub(super) fn sync_folder(folder: Option<&Path>) {
    if let Some(Ok(folder)) = folder.map(File::open) {
        let _ = folder.sync_all();
    }
}
