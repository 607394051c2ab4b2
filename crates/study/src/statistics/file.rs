//! Statistics that are written to a file: whole or not at all, and gone on with where a run was stopped.
//!
//! Beside `OUT` lie, while it is made, `OUT.deltaic-partial`, the file to be with what is finished of it, and `OUT.deltaic-progress`, the sums of the
//! pass that is not. The one is renamed to `OUT` in the end, the other removed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, DType, Error, Result, ShardLayout, TensorPlace};

use super::progress::{self, Note};
use super::run::{Resumed, Store};
use super::slots::{PassSlots, SlotSpec};

/// A file of statistics that is being made.
pub(crate) struct StatisticsFile {
    out: PathBuf,
    /// Open, and locked, as long as the work goes on.
    file: File,
    layout: ShardLayout,
    force: bool,
    /// What tells the work of this run from that of another.
    fingerprint: String,
    /// Whether there is a note of its work beside it, this run's or another's.
    noted: bool,
}

/// Whether a file may be made at `out`.
///
/// # Errors
/// Something is there that is not to be replaced (without `force`), or a folder.
pub fn check_free(out: &Path, force: bool) -> Result<()> {
    if out.is_dir() {
        return Err(Error::new(format!("{}: a folder, not a file", out.display())).help("name the file to be made: -o stats.safetensors"));
    }
    if force || out.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Error::new(format!("{}: the file is there already", out.display())).help("choose another name, or replace it with --force"))
}

impl StatisticsFile {
    /// Begins a file of these tensors, or goes on with one. `metadata` say all that decides its content.
    ///
    /// # Errors
    /// `out` is there (without `force`), another run works on it, or the partial work beside it is of another run.
    pub fn begin(out: &Path, shapes: &[(String, DType, Vec<u64>)], metadata: &BTreeMap<String, String>, force: bool) -> Result<Self> {
        check_free(out, force)?;
        let layout = ShardLayout::new(shapes, 0, metadata)?;
        let path = beside(out, "partial");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).context("making the file", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(
                    Error::new(format!("{}: another run is at work on it", out.display())).help("wait for it, or choose another name")
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).context("locking", &path),
        }
        let fingerprint = serde_json::json!({"deltaic": env!("CARGO_PKG_VERSION"), "metadata": metadata}).to_string();
        Ok(Self { out: out.to_owned(), file, layout, force, fingerprint, noted: false })
    }

    fn partial(&self) -> PathBuf {
        beside(&self.out, "partial")
    }

    fn progress(&self) -> PathBuf {
        beside(&self.out, "progress")
    }

    /// Puts the finished file in its place; its length in bytes.
    ///
    /// # Errors
    /// The disk, or a file that has come to be there since.
    pub fn publish(self) -> Result<u64> {
        let partial = self.partial();
        self.file.sync_all().context("syncing", &partial)?;
        check_free(&self.out, self.force)?;
        fs::rename(&partial, &self.out).context("putting it in its place", &self.out)?;
        progress::remove(&self.progress())?;
        progress::sync_folder_of(&self.out);
        Ok(self.layout.file_bytes())
    }

    /// Leaves nothing where nothing was noted down that a run could go on with.
    pub fn abandon(self) {
        if !self.noted {
            // The error that led here is the one to be said.
            let _ = fs::remove_file(self.partial());
        }
    }

    /// Writes the header of a file of zeros.
    fn start(&self) -> Result<()> {
        let path = self.partial();
        let header = self.layout.shards().first().map(|shard| shard.header.as_slice()).unwrap_or_default();
        self.file.set_len(0).context("emptying", &path)?;
        self.file.set_len(self.layout.file_bytes()).context("giving it its length", &path)?;
        self.file.write_all_at(header, 0).context("writing", &path)
    }

    fn of_another_run(&self) -> Error {
        Error::new(format!(
            "{}: what lies there is of another run: of another model, other data or other options",
            self.progress().display()
        ))
        .help("go on with that run, remove it, choose another name for the output, or discard it with --force")
    }
}

/// `OUT.deltaic-WHAT`.
fn beside(out: &Path, what: &str) -> PathBuf {
    let mut name = OsString::from(out.as_os_str());
    name.push(format!(".deltaic-{what}"));
    name.into()
}

impl Store for StatisticsFile {
    fn resume(&mut self, specs: &[SlotSpec], passes: &[Range<usize>]) -> Result<Resumed> {
        // Passes follow from the memory that was given, which is none of the metadata.
        let passes_said: Vec<String> = passes.iter().map(|pass| pass.end.to_string()).collect();
        self.fingerprint = format!("{} passes {}", self.fingerprint, passes_said.join(","));
        let whole = self.file.metadata().is_ok_and(|metadata| metadata.len() == self.layout.file_bytes());
        self.noted = self.progress().symlink_metadata().is_ok();
        match progress::read(&self.progress(), specs, passes, &self.fingerprint)? {
            Note::None => {}
            Note::Own(resumed) if whole => return Ok(resumed),
            // Its partial file is gone or another's: nothing of it can be gone on with.
            Note::Own(_) => progress::remove(&self.progress())?,
            Note::Other if self.force => progress::remove(&self.progress())?,
            Note::Other => return Err(self.of_another_run()),
        }
        self.noted = false;
        self.start()?;
        Ok(Resumed { pass: 0, step: 0, slots: None })
    }

    fn note(&mut self, pass: usize, step: usize, slots: Option<&PassSlots>) -> Result<()> {
        // What is noted down as finished is on the disk before.
        self.file.sync_data().context("syncing", &self.partial())?;
        progress::write(&self.progress(), &self.fingerprint, pass, step, slots)?;
        self.noted = true;
        Ok(())
    }

    fn finish(&mut self, names: &[String], bytes: Vec<u8>) -> Result<()> {
        for name in names {
            let Some(TensorPlace { offset, .. }) = self.layout.place(name) else {
                return Err(Error::new(format!("{}: {name}: no place was made for this tensor", self.out.display())));
            };
            self.file.write_all_at(&bytes, offset).context("writing", &self.partial())?;
        }
        Ok(())
    }
}
