//! The folder in which an output is made, and how it takes its place in one step.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result};
use rustix::fs::{CWD, FlockOperation, RenameFlags};

/// Beside OUT, with the plan's hash in its name, locked for as long as the run lasts. Dropped before it is committed, it is removed.
pub(super) struct PartialFolder {
    path: PathBuf,
    committed: bool,
    /// Holds the lock: two runs never work in one folder.
    _lock: File,
}

impl PartialFolder {
    /// Makes the folder, with room for `bytes` checked. `force` removes what a run that is over left there.
    pub fn create(out: &Path, hash: &str, bytes: u64, force: bool) -> Result<Self> {
        let absolute = std::path::absolute(out).context("resolving the path", out)?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(Error::new(format!("{}: not a folder that can be made", out.display())).help("name a folder for the output"));
        };
        fs::create_dir_all(parent).context("making the folder", parent)?;
        let mut partial_name = name.to_owned();
        partial_name.push(format!(".partial-{hash}"));
        let path = parent.join(partial_name);
        if force && path.exists() {
            let _lock = lock(&path)?;
            fs::remove_dir_all(&path).context("removing what an earlier run left", &path)?;
        }
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                lock(&path)?;
                return Err(Error::new(format!("{}: an earlier run of this merge left it", path.display()))
                    .help("remove the folder, or start over with --force"));
            }
            Err(error) => return Err(error).context("making the folder", &path),
        }
        let partial = Self { _lock: lock(&path)?, path, committed: false };
        partial.check_space(bytes)?;
        Ok(partial)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_space(&self, needed: u64) -> Result<()> {
        let Ok(file_system) = rustix::fs::statvfs(&self.path) else { return Ok(()) };
        let free = file_system.f_bavail.saturating_mul(file_system.f_frsize);
        if free < needed {
            return Err(Error::new(format!("{}: the output needs {needed} bytes, {free} are free", self.path.display()))
                .help("make room, or choose another disk"));
        }
        Ok(())
    }

    /// Makes everything durable and renames the folder to `out`; returns the bytes of its files. With `force` an old `out` is exchanged
    /// for the new one in one step, then deleted.
    pub fn commit(mut self, out: &Path, force: bool) -> Result<u64> {
        let bytes = sync_all(&self.path)?;
        let absolute = std::path::absolute(out).context("resolving the path", out)?;
        let exists = absolute.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if exists && !force {
            return Err(Error::new(format!("{}: no longer empty, something else wrote there", out.display())).help("choose another folder"));
        }
        if exists {
            exchange(&self.path, &absolute).context("exchanging the new model for the old one", out)?;
            sync_folder(absolute.parent());
            self.committed = true;
            fs::remove_dir_all(&self.path).context("the new model is in place, but removing the old one failed", &self.path)?;
        } else {
            fs::rename(&self.path, &absolute).context("renaming the finished model", out)?;
            self.committed = true;
        }
        sync_folder(absolute.parent());
        Ok(bytes)
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing more can be done about a folder that does not go; its name says what it is.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
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

/// Puts `new` where `old` is and `old` where `new` was: in one step where the file system can, else in two renames.
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
            file.sync_all().context("syncing", &path)?;
            bytes += file.metadata().context("reading its length", &path)?.len();
        }
    }
    File::open(folder).and_then(|file| file.sync_all()).context("syncing the folder", folder)?;
    Ok(bytes)
}

/// A rename is durable once its folder is synced; where that cannot be done, the rename stands all the same.
fn sync_folder(folder: Option<&Path>) {
    if let Some(Ok(folder)) = folder.map(File::open) {
        let _ = folder.sync_all();
    }
}

/// Writes a small file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path).and_then(|mut file| file.write_all(bytes)).context("writing", path)
}

/// Copies a small file of a model's folder, with the folder it lies in. What it links to is copied, not the link; a link that leaves the
/// model is refused, since a foreign model could bring any file of this machine into the output. The Hub's cache keeps a model's files
/// in `blobs`, beside `snapshots`.
pub(super) fn copy(model: &Path, file: &Path, folder: &Path) -> Result<()> {
    let (from, to) = (model.join(file), folder.join(file));
    let real = from.canonicalize().context("resolving the path", &from)?;
    let model = model.canonicalize().context("resolving the path", model)?;
    let cache = model.parent().filter(|snapshots| snapshots.ends_with("snapshots")).and_then(Path::parent);
    if !real.starts_with(&model) && !cache.is_some_and(|cache| real.starts_with(cache)) {
        return Err(Error::new(format!("{}: a link out of the model's folder, to {}", from.display(), real.display()))
            .help("put the file itself there, if it belongs to the model"));
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).context("making the folder", folder)?;
    }
    let bytes = fs::read(&from).context("reading", &from)?;
    write(&to, &bytes)
}
