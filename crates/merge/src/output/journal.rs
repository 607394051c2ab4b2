//! Which tensors of an output are on the disk already: a file beside the shards, so that a run that was stopped can be gone on with.
//!
//! It is text, one record a line, each with a checksum at its end; lines are only added. First what the run is of (the plan's hash, the
//! sources' files with length and time of change), then `begin`, then a line for what was gathered over the model and for each finished
//! tensor. A line is written only after the bytes that it speaks of were synced, and is then synced itself; what a crash left of a line
//! is cut off.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result};
use sha2::{Digest, Sha256};

use super::disk::{Disk, failed};
use crate::engine::Counts;
use crate::plan::Plan;

/// The journal's name in the partial folder.
pub(super) const NAME: &str = "deltaic.journal";

const FIRST_LINE: &str = "deltaic journal 1";

/// The journal of a run, open for adding lines.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
}

/// What earlier runs have finished.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Finished {
    /// By the tensor's number in the plan.
    pub tensors: BTreeMap<usize, Counts>,
    /// What was gathered over the whole model.
    pub model_wide: Option<Vec<f64>>,
}

/// One line behind `begin`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Tensor(usize, Counts),
    ModelWide(Vec<f64>),
}

impl Journal {
    /// Begins a journal.
    pub fn create(disk: &dyn Disk, folder: &Path, plan: &Plan) -> Result<Self> {
        let path = folder.join(NAME);
        let file = File::create(&path).map_err(|error| failed(&error, "making the journal", &path))?;
        let mut journal = Self { path, file, length: 0 };
        let mut lines = head(plan);
        lines.push("begin".to_owned());
        journal.add_lines(disk, &lines)?;
        Ok(journal)
    }

    /// Opens the journal that an earlier run left in a folder, and says what it finished; begins one where there is none that can be read.
    ///
    /// # Errors
    /// A file of a source is not what it was for the earlier run.
    pub fn open(disk: &dyn Disk, folder: &Path, plan: &Plan) -> Result<(Self, Finished)> {
        let path = folder.join(NAME);
        let text = if path.exists() { std::fs::read(&path).context("reading the journal", &path)? } else { Vec::new() };
        let (lines, length) = whole_lines(&text);
        let Some(begin) = lines.iter().position(|line| *line == "begin") else {
            return Ok((Self::create(disk, folder, plan)?, Finished::default()));
        };
        let expected = head(plan);
        if let Some((found, expected)) = lines[..begin].iter().zip(&expected).find(|(found, expected)| *found != expected) {
            return Err(Error::new(format!(
                "{}: the run that left it was of other sources: expected `{expected}`, found `{found}`",
                path.display()
            ))
            .help("a source was written to since; start over with --force"));
        }
        if begin != expected.len() {
            return Err(
                Error::new(format!("{}: the run that left it was of other sources", path.display())).help("start over with --force")
            );
        }
        let file = OpenOptions::new().write(true).open(&path).context("opening the journal", &path)?;
        file.set_len(length).context("cutting off a line that was not finished", &path)?;
        let mut finished = Finished::default();
        for record in lines[begin + 1..].iter().filter_map(|line| parse(line)) {
            match record {
                Record::Tensor(number, counts) => drop(finished.tensors.insert(number, counts)),
                Record::ModelWide(numbers) => finished.model_wide = Some(numbers),
            }
        }
        Ok((Self { path, file, length }, finished))
    }

    /// Adds records and syncs them.
    pub fn add(&mut self, disk: &dyn Disk, records: &[Record]) -> Result<()> {
        let lines: Vec<String> = records.iter().map(line).collect();
        self.add_lines(disk, &lines)
    }

    fn add_lines(&mut self, disk: &dyn Disk, lines: &[String]) -> Result<()> {
        let text: String = lines.iter().map(|line| format!("{line} {}\n", checksum(line))).collect();
        let write = disk.write_at(&self.file, text.as_bytes(), self.length).and_then(|()| disk.sync(&self.file));
        write.map_err(|error| failed(&error, "writing the journal", &self.path))?;
        self.length += text.len() as u64;
        Ok(())
    }
}

/// What the run is of: a line for the plan, and one for each file that decides about its weights.
fn head(plan: &Plan) -> Vec<String> {
    let files = plan.sources.iter().flat_map(|source| &source.files);
    let file =
        |file: &deltaic_checkpoint::FileIdentity| format!("source {} {}", file.stamp(), serde_json::json!(file.path.to_string_lossy()));
    [FIRST_LINE.to_owned(), format!("plan {}", plan.hash())].into_iter().chain(files.map(file)).collect()
}

fn line(record: &Record) -> String {
    match record {
        Record::Tensor(number, Counts { non_finite, moved, swallowed }) => format!("tensor {number} {non_finite} {moved} {swallowed}"),
        Record::ModelWide(numbers) => {
            let numbers: Vec<String> = numbers.iter().map(|number| format!(" {:016x}", number.to_bits())).collect();
            format!("model-wide{}", numbers.concat())
        }
    }
}

fn parse(line: &str) -> Option<Record> {
    let mut words = line.split(' ');
    match words.next()? {
        "tensor" => {
            let mut number = || words.next()?.parse::<u64>().ok();
            let tensor = number()? as usize;
            Some(Record::Tensor(tensor, Counts { non_finite: number()?, moved: number()?, swallowed: number()? }))
        }
        "model-wide" => {
            let number = |word: &str| Some(f64::from_bits(u64::from_str_radix(word, 16).ok()?));
            Some(Record::ModelWide(words.map(number).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// The lines whose checksums are right, up to the first one that is not whole, and the length of them all.
fn whole_lines(text: &[u8]) -> (Vec<&str>, u64) {
    let (mut lines, mut length) = (Vec::new(), 0);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let whole = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()).and_then(|line| line.rsplit_once(' '));
        match whole {
            Some((record, sum)) if checksum(record) == sum => lines.push(record),
            _ => break,
        }
        length += line.len() as u64;
    }
    (lines, length)
}

/// The first 8 hexadecimal digits of a line's SHA-256.
fn checksum(line: &str) -> String {
    Sha256::digest(line).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let counts = Counts { non_finite: 1, moved: 2, swallowed: 3 };
        for record in [Record::Tensor(7, counts), Record::ModelWide(vec![0.1, -0.0, f64::INFINITY]), Record::ModelWide(Vec::new())] {
            assert_eq!(parse(&line(&record)), Some(record));
        }
    }

    #[test]
    fn a_line_that_was_cut_or_changed_ends_the_journal() {
        let text: String = ["one", "two words", "three"].iter().map(|line| format!("{line} {}\n", checksum(line))).collect();
        assert_eq!(whole_lines(text.as_bytes()), (vec!["one", "two words", "three"], text.len() as u64));
        for cut in 0..text.len() {
            let (lines, length) = whole_lines(&text.as_bytes()[..cut]);
            assert_eq!(lines.len(), text[..cut].matches('\n').count());
            assert_eq!(length as usize, text[..cut].rfind('\n').map_or(0, |at| at + 1));
            let mut flipped = text.clone().into_bytes();
            flipped[cut] ^= 1;
            assert!(whole_lines(&flipped).0.len() < 3);
        }
    }
}
