//! The note of how far a run has come: a line of JSON, then the sums as little-endian f64.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::ops::Range;
use std::path::Path;

use deltaic_checkpoint::{Context, Error, Result, open_regular};
use serde::{Deserialize, Serialize};

use super::run::Resumed;
use super::slots::{PassSlots, SlotSpec};

/// Longest first line of a note, in bytes.
const LONGEST_LINE: u64 = 1 << 26;

#[derive(Serialize, Deserialize)]
struct Line {
    /// What the run makes, of what, how.
    run: String,
    pass: usize,
    /// Steps of the pass that are done.
    step: usize,
    /// By what each sum is to be divided; empty where no sums follow.
    counts: Vec<u64>,
}

/// What was found.
pub(crate) enum Note {
    /// Nothing.
    None,
    /// Work of the same run.
    Own(Resumed),
    /// Work of another run, or something else.
    Other,
}

/// Reads the note of a run with this fingerprint.
pub(crate) fn read(path: &Path, specs: &[SlotSpec], passes: &[Range<usize>], fingerprint: &str) -> Result<Note> {
    if path.symlink_metadata().is_err() {
        return Ok(Note::None);
    }
    let mut reader = BufReader::new(open_regular(path)?);
    let mut line = Vec::new();
    reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).context("reading", path)?;
    let Ok(line) = serde_json::from_slice::<Line>(&line) else { return Ok(Note::Other) };
    if line.run != fingerprint {
        return Ok(Note::Other);
    }
    let damaged = || Error::new(format!("{}: the note of an earlier run is damaged", path.display())).help("remove it, and run it again");
    if line.counts.is_empty() {
        let resumed = Resumed { pass: line.pass, step: 0, slots: None };
        return if line.pass <= passes.len() && line.step == 0 { Ok(Note::Own(resumed)) } else { Err(damaged()) };
    }
    let pass = passes.get(line.pass).ok_or_else(damaged)?;
    let mut slots = PassSlots::zeros(specs, pass.clone())?;
    if slots.slots.len() != line.counts.len() {
        return Err(damaged());
    }
    for (slot, &count) in slots.slots.iter_mut().zip(&line.counts) {
        slot.count = count;
        for value in &mut slot.values {
            let mut bytes = [0; 8];
            reader.read_exact(&mut bytes).map_err(|_| damaged())?;
            *value = f64::from_le_bytes(bytes);
        }
    }
    if reader.read(&mut [0]).context("reading", path)? != 0 {
        return Err(damaged());
    }
    Ok(Note::Own(Resumed { pass: line.pass, step: line.step, slots: Some(slots) }))
}

/// Writes a note in the place of the one before, whole or not at all.
pub(crate) fn write(path: &Path, fingerprint: &str, pass: usize, step: usize, slots: Option<&PassSlots>) -> Result<()> {
    let sums = slots.map(|slots| slots.slots.as_slice()).unwrap_or_default();
    let line = Line { run: fingerprint.to_owned(), pass, step, counts: sums.iter().map(|slot| slot.count).collect() };
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let write = || {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(new)?);
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
        for value in sums.iter().flat_map(|slot| &slot.values) {
            out.write_all(&value.to_le_bytes())?;
        }
        out.into_inner().map_err(|error| error.into_error())?.sync_all()
    };
    write().context("writing", new)?;
    fs::rename(new, path).context("putting it in its place", path)?;
    sync_folder_of(path);
    Ok(())
}

/// Removes the note, where there is one.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("removing", path),
        _ => Ok(()),
    }
}

/// Makes a rename last; where the file system cannot, the file itself is synced all the same.
pub(crate) fn sync_folder_of(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}
