//! What a file of weights is known by: its content, not its place.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};

/// Number of windows that are looked at.
const WINDOWS: u64 = 64;
/// Bytes of a window.
const WINDOW: u64 = 4096;
/// Bytes that are read at a time where all are.
const READ: usize = 1 << 20;

/// A file, known by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileIdentity {
    /// Where it was found.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256, in hexadecimal digits, of the length (8 bytes, little endian) and of 64 windows of 4096 bytes, spread evenly from the
    /// first byte to the last; of the length and all bytes where there are no more. Headers alone would not tell two fine-tunes apart.
    pub sample: String,
    /// The name of its blob in the Hub's cache: for weights the SHA-256 of all bytes, as the Hub computed it.
    pub blob: Option<String>,
    /// When it was last changed, in seconds and nanoseconds: to see that it changes under a run, not a part of what it is.
    modified: (i64, i64),
    /// When its content or what the file system knows of it last changed, likewise: programs can set back the time above, not this one.
    changed: (i64, i64),
}

/// The times of a file's last change: of its content as programs may set it, and as the file system keeps it.
fn times(metadata: &Metadata) -> [(i64, i64); 2] {
    [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())]
}

impl FileIdentity {
    /// Looks at a file; reads at most 256 KiB of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let file = File::open(path).context("opening", path)?;
        let metadata = file.metadata().context("reading its length", path)?;
        let bytes = metadata.len();
        let mut hash = Sha256::new();
        hash.update(bytes.to_le_bytes());
        let all = bytes <= WINDOWS * WINDOW;
        let mut window = vec![0; if all { bytes } else { WINDOW } as usize];
        for k in 0..if all { 1 } else { WINDOWS } {
            // In 128 bits: the product of a length and a window's number may leave 64.
            let start = (u128::from(k) * u128::from(bytes.saturating_sub(WINDOW)) / u128::from(WINDOWS - 1)) as u64;
            file.read_exact_at(&mut window, start).context("reading", path)?;
            hash.update(&window);
        }
        let [modified, changed] = times(&metadata);
        Ok(Self { path: path.to_owned(), bytes, sample: hexadecimal(&hash.finalize()), blob: blob(path), modified, changed })
    }

    /// The file's name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// SHA-256 of all bytes, in hexadecimal digits: what the Hub calls a file's `sha256`. `cancel` ends it early.
    ///
    /// # Errors
    /// It cannot be read, or was cancelled.
    pub fn sha256(&self, cancel: &AtomicBool) -> Result<String> {
        let file = File::open(&self.path).context("opening", &self.path)?;
        let (mut hash, mut buffer, mut start) = (Sha256::new(), vec![0; READ], 0);
        while start < self.bytes {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::new("cancelled"));
            }
            let count = READ.min((self.bytes - start) as usize);
            file.read_exact_at(&mut buffer[..count], start).context("reading", &self.path)?;
            hash.update(&buffer[..count]);
            start += count as u64;
        }
        Ok(hexadecimal(&hash.finalize()))
    }

    /// Length and times of the last change, as a run's journal holds them.
    pub fn stamp(&self) -> String {
        let ([modified, changed], bytes) = ([self.modified, self.changed], self.bytes);
        format!("{bytes} {}.{:09} {}.{:09}", modified.0, modified.1, changed.0, changed.1)
    }

    /// Whether the file is what it was, as far as length and times of the last change tell.
    ///
    /// # Errors
    /// It is not: the message says what changed.
    pub fn check_unchanged(&self) -> Result<()> {
        let metadata = std::fs::metadata(&self.path).context("the file was there when it was opened", &self.path)?;
        let what = if metadata.len() != self.bytes {
            format!("it had {} bytes and has {}", self.bytes, metadata.len())
        } else if times(&metadata)[0] != self.modified {
            "it was written to".to_owned()
        } else if times(&metadata)[1] != self.changed {
            // A write whose time of change was set back shows in this alone; so does another link to the file, or another owner.
            "it was written to, or its owner, permissions or links were changed (ctime)".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(format!("{}: the file changed while it was read: {what}", self.path.display()))
            .help("see that nothing writes to the sources while they are merged (a download that goes on?), then start over with --force"))
    }
}

/// One id of several files' content, in their order: SHA-256 over their samples, in hexadecimal digits.
pub fn joined_id<'a>(files: impl IntoIterator<Item = &'a FileIdentity>) -> String {
    let mut hash = Sha256::new();
    files.into_iter().for_each(|file| hash.update(&file.sample));
    hexadecimal(&hash.finalize())
}

/// In the Hub's cache a model's files are links to `blobs/<hash>`.
fn blob(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    let name = target.file_name()?.to_str()?;
    let is_hash = matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hash && target.parent()?.ends_with("blobs")).then(|| name.to_owned())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path, name: &str, bytes: &[u8]) -> FileIdentity {
        std::fs::write(folder.join(name), bytes).unwrap();
        FileIdentity::of(&folder.join(name)).unwrap()
    }

    #[test]
    fn content_and_length_are_known_and_names_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let long: Vec<u8> = (0..1_000_003u32).flat_map(u32::to_le_bytes).collect();
        let one = written(folder.path(), "a", &long);
        assert_eq!(one.sample, written(folder.path(), "b", &long).sample);
        let mut other = long.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_ne!(one.sample, written(folder.path(), "c", &other).sample);
        assert_ne!(one.sample, written(folder.path(), "d", &long[..long.len() - 1]).sample);
        assert_ne!(written(folder.path(), "e", b"").sample, written(folder.path(), "f", b"\0").sample);
    }

    /// Values from `sha256sum`: of eight zero bytes, and of "abc".
    #[test]
    fn hashes_are_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let empty = written(folder.path(), "empty", b"");
        assert_eq!(empty.sample, "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc");
        let abc = written(folder.path(), "abc", b"abc");
        let whole = abc.sha256(&AtomicBool::new(false)).unwrap();
        assert_eq!(whole, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = written(folder.path(), "a", b"one");
        file.check_unchanged().unwrap();
        std::fs::write(&file.path, b"three").unwrap();
        assert!(file.check_unchanged().unwrap_err().message().contains("had 3 bytes and has 5"));
        std::fs::remove_file(&file.path).unwrap();
        file.check_unchanged().unwrap_err();
    }

    #[test]
    fn a_file_that_is_overwritten_with_its_time_of_change_set_back_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = written(folder.path(), "a", b"one");
        let before = std::fs::metadata(&file.path).unwrap().modified().unwrap();
        // The file system's clock goes in steps of some milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::fs::write(&file.path, b"two").unwrap();
        File::options().write(true).open(&file.path).unwrap().set_modified(before).unwrap();
        assert!(file.check_unchanged().unwrap_err().message().contains("(ctime)"));
        assert_ne!(FileIdentity::of(&file.path).unwrap().stamp(), file.stamp());
    }

    #[test]
    fn the_hubs_blob_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let hash = "ab".repeat(32);
        std::fs::create_dir(folder.path().join("blobs")).unwrap();
        std::fs::write(folder.path().join("blobs").join(&hash), b"x").unwrap();
        std::os::unix::fs::symlink(Path::new("blobs").join(&hash), folder.path().join("model.safetensors")).unwrap();
        let file = FileIdentity::of(&folder.path().join("model.safetensors")).unwrap();
        assert_eq!(file.blob, Some(hash));
    }
}
