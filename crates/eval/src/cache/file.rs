//! The file of answers: lines of JSON, each with a checksum, to which lines are only added.
//!
//! ```text
//! {"deltaic_answers":1}
//! {"check":"9f2c…","key":"64 digits","answer":{"kind":"text","text":"42","tokens":2,"finish":"stop"}}
//! ```
//! `check` is the first 16 digits of SHA-256 over key, a space, and the answer's JSON as it stands in the line. A line that was torn by the end
//! of a process or a machine has not the right one and counts for nothing; a last line without its end is cut off, so that nothing is
//! written behind it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deltaic_checkpoint::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::key::{Key, from_hex, to_hex};
use crate::Answer;

const HEADER: &[u8] = b"{\"deltaic_answers\":1}\n";
/// Longest line in bytes; an answer beyond it is not kept.
const MAX_LINE: u64 = 1 << 27;
/// Longest time for which answers are only in the machine's memory. The end of the process alone loses none.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A file of answers, open for reading and adding, and locked against other runs for as long as this value lives.
#[derive(Debug)]
pub struct AnswerFile {
    path: PathBuf,
    file: File,
    answers: HashMap<Key, Answer>,
    dropped: usize,
    last_sync: Instant,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    check: String,
    key: String,
    #[serde(borrow)]
    answer: &'a RawValue,
}

impl AnswerFile {
    /// Opens the file, or makes it, and reads what is in it.
    ///
    /// # Errors
    /// A file that is not of this kind (it is left as it is), that another run has open, or that cannot be read or written.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).context("opening the answers", path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(format!("{}: another run is adding answers to it", path.display()))
                    .help("wait for it, end it, or name another file"));
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) => {}
        }
        let mut opened = Self { path: path.to_owned(), file, answers: HashMap::new(), dropped: 0, last_sync: Instant::now() };
        opened.read()?;
        Ok(opened)
    }

    /// How many answers it holds.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether it holds no answer.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// How many damaged lines were passed over when it was opened.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Answer> {
        self.answers.get(key)
    }

    /// Adds a line; a process that ends afterwards does not lose it.
    pub(super) fn append(&mut self, key: Key, answer: &Answer) -> Result<()> {
        // What JSON cannot hold (an infinite sum) is asked for again in the next run.
        if let Some(line) = line(&key, answer) {
            // One write: another process never sees half of it.
            self.file.write_all(&line).context("adding an answer", &self.path)?;
            if self.last_sync.elapsed() >= SYNC_EVERY {
                self.sync()?;
            }
        }
        self.answers.insert(key, answer.clone());
        Ok(())
    }

    /// Waits until the disk has all.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.last_sync = Instant::now();
        self.file.sync_data().context("writing the answers to the disk", &self.path)
    }

    fn read(&mut self) -> Result<()> {
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        // The end of the last whole line.
        let mut end = 0;
        loop {
            line.clear();
            let count = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).context("reading the answers", &self.path)?;
            if end == 0 && line != HEADER {
                // A new file, or one whose first line was torn.
                if !HEADER.starts_with(&line) {
                    return Err(Error::new(format!("{}: this is not a file of answers", self.path.display()))
                        .help("name a new file, or one that an earlier run has made"));
                }
                break;
            }
            if line.last() != Some(&b'\n') {
                self.dropped += usize::from(count > 0);
                break;
            }
            if end > 0 {
                match parsed(&line) {
                    Some((key, answer)) => drop(self.answers.insert(key, answer)),
                    None => self.dropped += 1,
                }
            }
            end += count as u64;
        }
        self.file.set_len(end).context("cutting off a torn line", &self.path)?;
        if end == 0 {
            self.file.write_all(HEADER).context("beginning the file of answers", &self.path)?;
        }
        Ok(())
    }
}

impl Drop for AnswerFile {
    fn drop(&mut self) {
        // At the end of a run `Cached` has synced it and told of errors.
        let _ = self.file.sync_data();
    }
}

/// The line of an answer; `None` for one that would not be read back as it is.
fn line(key: &Key, answer: &Answer) -> Option<Vec<u8>> {
    let json = serde_json::to_string(answer).ok()?;
    if serde_json::from_str::<Answer>(&json).ok()? != *answer {
        return None;
    }
    let key = to_hex(key);
    let raw = RawValue::from_string(json).ok()?;
    let mut line = serde_json::to_vec(&Line { check: check(&key, raw.get()), key, answer: &raw }).ok()?;
    line.push(b'\n');
    (line.len() as u64 <= MAX_LINE).then_some(line)
}

fn parsed(line: &[u8]) -> Option<(Key, Answer)> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    if line.check != check(&line.key, line.answer.get()) {
        return None;
    }
    Some((from_hex(&line.key)?, serde_json::from_str(line.answer.get()).ok()?))
}

fn check(key: &str, answer: &str) -> String {
    let sum = Sha256::new().chain_update(key).chain_update(b" ").chain_update(answer).finalize();
    to_hex(&sum[..8])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Finish;

    fn text(text: &str) -> Answer {
        Answer::Text { text: text.to_owned(), tokens: 1, finish: Finish::Stop }
    }

    fn filled(folder: &Path) -> (PathBuf, Vec<u8>) {
        let path = folder.join("answers.jsonl");
        let mut file = AnswerFile::open(&path).unwrap();
        for at in 0..3 {
            file.append([at; 32], &text(&format!("answer {at}\n\u{2028}é"))).unwrap();
        }
        drop(file);
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    }

    #[test]
    fn a_file_cut_at_any_byte_keeps_its_whole_lines_and_can_be_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes) = filled(folder.path());
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let lines = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            let mut file = AnswerFile::open(&path).unwrap();
            assert_eq!(file.len(), lines.saturating_sub(1), "cut at {cut}");
            file.append([9; 32], &text("later")).unwrap();
            drop(file);
            let again = AnswerFile::open(&path).unwrap();
            assert_eq!((again.len(), again.dropped()), (lines.saturating_sub(1) + 1, 0), "cut at {cut}");
        }
    }

    #[test]
    fn no_changed_byte_gives_a_changed_answer() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes) = filled(folder.path());
        for at in HEADER.len()..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let file = AnswerFile::open(&path).unwrap();
            assert!(file.dropped() >= 1 || file.len() < 3, "byte {at}");
            for (key, answer) in &file.answers {
                assert_eq!(*answer, text(&format!("answer {}\n\u{2028}é", key[0])), "byte {at}");
            }
        }
    }

    #[test]
    fn another_file_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        for content in ["{\"results\": []}", "{\"deltaic_answers\":2}\n", "\n", "{\"deltaic_answers\":1} "] {
            fs::write(&path, content).unwrap();
            let error = AnswerFile::open(&path).unwrap_err();
            assert!(error.message().ends_with("this is not a file of answers"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn two_runs_do_not_add_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let first = AnswerFile::open(&path).unwrap();
        let error = AnswerFile::open(&path).unwrap_err();
        assert!(error.message().ends_with("another run is adding answers to it"), "{error}");
        drop(first);
        AnswerFile::open(&path).unwrap();
    }

    #[test]
    fn numbers_come_back_to_the_bit_and_infinite_ones_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let sums = [-0.0, -1e-310, f64::MIN, -123_456.789_012_345_67, -0.1 - 0.2, -5.551_115_123_125_783e-17];
        let of = |sum: f64| Answer::LogLikelihood { sum, tokens: 3, greedy: false };
        let mut file = AnswerFile::open(&path).unwrap();
        for (at, &sum) in (0..).zip(&sums) {
            file.append([at; 32], &of(sum)).unwrap();
        }
        file.append([100; 32], &of(f64::NEG_INFINITY)).unwrap();
        file.append([101; 32], &Answer::Logits { logits: vec![0.1, f32::MIN_POSITIVE, -3.402_823e38] }).unwrap();
        file.append([102; 32], &Answer::Logits { logits: vec![f32::NAN] }).unwrap();
        drop(file);
        let file = AnswerFile::open(&path).unwrap();
        for (at, sum) in (0..).zip(sums) {
            let Some(Answer::LogLikelihood { sum: read, .. }) = file.get(&[at; 32]) else { panic!("{sum} is not there") };
            assert_eq!(read.to_bits(), sum.to_bits());
        }
        assert_eq!(file.get(&[101; 32]), Some(&Answer::Logits { logits: vec![0.1, f32::MIN_POSITIVE, -3.402_823e38] }));
        assert_eq!((file.get(&[100; 32]), file.get(&[102; 32]), file.dropped()), (None, None, 0));
    }
}
