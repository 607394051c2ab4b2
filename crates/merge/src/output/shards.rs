//! The output's weights: shards of known length, written window by window at final offsets, and a journal of what is done.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltaic_checkpoint::{Error, Result, TensorPlace};

use super::disk::{Disk, failed, write_file};
use super::journal::{Finished, Journal, Record};
use crate::engine::{Counts, Sink};
use crate::plan::Plan;

/// How long finished tensors are collected before they are synced and put into the journal: what a crash can cost, and more.
const PERIOD: Duration = Duration::from_millis(500);

/// The shards of an output while they are written.
pub(super) struct Shards<'a> {
    disk: &'a dyn Disk,
    files: Vec<(PathBuf, File)>,
    /// By tensor, in the plan's order.
    places: Vec<TensorPlace>,
    /// By tensor: what was counted over it, where it is done.
    finished: Mutex<Vec<Option<Counts>>>,
    /// By tensor: whether an earlier run wrote it.
    kept: Vec<bool>,
    model_wide: Option<Vec<f64>>,
    notes: Mutex<Notes>,
    noted: Condvar,
}

/// What is to go into the journal.
struct Notes {
    journal: Journal,
    waiting: Vec<Record>,
    /// Whether anything at all is in the journal.
    any: bool,
    closing: bool,
    failure: Option<Error>,
}

impl<'a> Shards<'a> {
    /// Makes the files at their full length, space reserved where the file system can, and writes headers and index. With `resume` what
    /// the folder's journal says is done is kept, but with `deny_nan` for tensors in which elements are not finite.
    pub fn open(disk: &'a dyn Disk, plan: &Plan, folder: &Path, resume: bool, deny_nan: bool) -> Result<Self> {
        let mut files = Vec::new();
        let mut whole = Vec::new();
        for shard in plan.layout.shards() {
            let path = folder.join(&shard.file_name);
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(|error| failed(&error, "making the file", &path))?;
            whole.push(file.metadata().is_ok_and(|metadata| metadata.len() == shard.length));
            let reserved = disk.reserve(&file, shard.length);
            reserved.map_err(|error| failed(&error, &format!("reserving {} bytes", shard.length), &path))?;
            files.push((path, file));
        }
        let place = |name: &str| plan.layout.place(name).expect("every tensor of the plan was laid out");
        let places: Vec<TensorPlace> = plan.tensors.iter().map(|tensor| place(&tensor.name)).collect();
        let (journal, mut finished) =
            if resume { Journal::open(disk, folder, plan)? } else { (Journal::create(disk, folder, plan)?, Finished::default()) };
        finished
            .tensors
            .retain(|tensor, counts| places.get(*tensor).is_some_and(|place| whole[place.shard]) && !(deny_nan && counts.non_finite > 0));
        for (shard, (path, file)) in plan.layout.shards().iter().zip(&files) {
            disk.write_at(file, &shard.header, 0).map_err(|error| failed(&error, "writing the header", path))?;
        }
        if let Some(index) = plan.layout.index_json() {
            write_file(disk, &folder.join("model.safetensors.index.json"), index.as_bytes())?;
        }
        let done: Vec<Option<Counts>> = (0..places.len()).map(|tensor| finished.tensors.get(&tensor).copied()).collect();
        let kept: Vec<bool> = done.iter().map(Option::is_some).collect();
        let any = finished.model_wide.is_some() || kept.contains(&true);
        let notes = Notes { journal, waiting: Vec::new(), any, closing: false, failure: None };
        let model_wide = finished.model_wide;
        Ok(Self { disk, files, places, finished: done.into(), kept, model_wide, notes: notes.into(), noted: Condvar::new() })
    }

    /// Bytes of those tensors that an earlier run wrote.
    pub fn kept_bytes(&self) -> u64 {
        self.places.iter().zip(&self.kept).filter(|(_, kept)| **kept).map(|(place, _)| place.bytes).sum()
    }

    /// What was counted over each tensor, in the plan's order.
    pub fn counts(&self) -> Vec<Counts> {
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.iter().map(|counts| counts.unwrap_or_default()).collect()
    }

    /// Whether a later run would find anything done.
    pub fn is_worth_keeping(&self) -> bool {
        self.notes().any
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings finished tensors into the journal, until they are closed: what a thread of its own does beside the workers.
    pub fn keep_journal(&self) {
        let mut notes = self.notes();
        while !notes.closing {
            if notes.waiting.is_empty() {
                notes = self.noted.wait(notes).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            notes = self.noted.wait_timeout_while(notes, PERIOD, |notes| !notes.closing).unwrap_or_else(PoisonError::into_inner).0;
            if !notes.closing {
                notes = self.note_down(notes);
            }
        }
    }

    /// Syncs the files of those tensors that wait, then notes these down. The lock is given up in between.
    fn note_down<'n>(&'n self, mut notes: MutexGuard<'n, Notes>) -> MutexGuard<'n, Notes> {
        let waiting = std::mem::take(&mut notes.waiting);
        drop(notes);
        let shard = |record: &Record| match record {
            Record::Tensor(tensor, _) => Some(self.places[*tensor].shard),
            Record::ModelWide(_) => None,
        };
        let touched: BTreeSet<usize> = waiting.iter().filter_map(shard).collect();
        let synced = touched.into_iter().try_for_each(|shard| self.sync(shard));
        let mut notes = self.notes();
        match synced.and_then(|()| notes.journal.add(self.disk, &waiting)) {
            Ok(()) => notes.any = true,
            Err(error) => drop(notes.failure.get_or_insert(error)),
        }
        notes
    }

    fn sync(&self, shard: usize) -> Result<()> {
        let (path, file) = &self.files[shard];
        self.disk.sync(file).map_err(|error| failed(&error, "syncing", path))
    }

    fn note(&self, record: Record) -> Result<()> {
        let mut notes = self.notes();
        notes.waiting.push(record);
        self.noted.notify_all();
        notes.failure.clone().map_or(Ok(()), Err)
    }

    /// Ends [`Shards::keep_journal`] when it is dropped, also by a panic: nobody waits for ever.
    pub fn closed_in_the_end(&self) -> Closing<'_, 'a> {
        Closing(self)
    }

    /// Notes down what still waits.
    pub fn note_down_all(&self) {
        let notes = self.notes();
        if !notes.waiting.is_empty() {
            drop(self.note_down(notes));
        }
    }

    /// Waits until everything is on the disk.
    pub fn finish(&self) -> Result<()> {
        (0..self.files.len()).try_for_each(|shard| self.sync(shard))
    }
}

/// See [`Shards::closed_in_the_end`].
pub(super) struct Closing<'s, 'a>(&'s Shards<'a>);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        self.0.notes().closing = true;
        self.0.noted.notify_all();
    }
}

impl Sink for Shards<'_> {
    fn wants(&self, tensor: usize, _start: u64, _count: usize) -> bool {
        !self.kept[tensor]
    }

    fn write(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let place = self.places[tensor];
        let (path, file) = &self.files[place.shard];
        self.disk.write_at(file, bytes, place.offset + offset).map_err(|error| failed(&error, "writing", path))?;
        start_write_back(file, place.offset + offset, bytes.len());
        Ok(())
    }

    fn finished(&self, tensor: usize, counts: Counts) -> Result<()> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)[tensor] = Some(counts);
        self.note(Record::Tensor(tensor, counts))
    }

    fn model_wide(&self) -> Option<Vec<f64>> {
        self.model_wide.clone()
    }

    fn gathered(&self, numbers: &[f64]) -> Result<()> {
        self.note(Record::ModelWide(numbers.to_vec()))
    }
}

/// Starts the write-back of a window, so that disk and processors work at the same time and the last fsync finds little to do. It is
/// advice: where it is not taken, nothing is lost.
#[cfg(target_os = "linux")]
fn start_write_back(file: &File, offset: u64, bytes: usize) {
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(bytes as u64), rustix::fs::Advice::DontNeed);
}

/// Other systems write back by themselves.
#[cfg(not(target_os = "linux"))]
fn start_write_back(_file: &File, _offset: u64, _bytes: usize) {}
