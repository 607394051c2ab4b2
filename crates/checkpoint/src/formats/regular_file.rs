//! Files that are opened once and read by ranges.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::error::{Context, Error, Result};

/// What to do about a file that is not what its name says.
pub(crate) const AGAIN: &str = "the file is damaged, or something else under its name: get it from its source again";

/// Bytes that can be read by ranges: a file, or bytes in memory.
pub(crate) trait Bytes {
    /// How many there are.
    fn length(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on. `what` is what they are, for the message.
    ///
    /// # Errors
    /// There are not so many bytes, or reading fails; the message does not name the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64, what: &str) -> Result<()>;

    /// Reads `length` bytes from `offset` on; takes memory only when they are there.
    fn read_range(&self, offset: u64, length: u64, what: &str) -> Result<Vec<u8>> {
        if offset.checked_add(length).is_none_or(|end| end > self.length()) {
            return Err(Error::new(format!(
                "{what}: expected {length} bytes from byte {offset} on, but the file has only {}",
                self.length()
            ))
            .help("the file is cut off: download it again"));
        }
        let mut bytes = vec![0; length as usize];
        self.read_at(&mut bytes, offset, what)?;
        Ok(bytes)
    }
}

impl Bytes for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64, what: &str) -> Result<()> {
        let range = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..buffer.len()));
        buffer.copy_from_slice(range.ok_or_else(|| Error::new(format!("{what}: out of the file")))?);
        Ok(())
    }
}

/// A regular file, opened for reading, with the length that it had then.
#[derive(Debug)]
pub(crate) struct RegularFile {
    file: File,
    length: u64,
}

impl RegularFile {
    /// Opens a file, which is neither a folder nor a pipe nor a device; never waits for a writer.
    ///
    /// # Errors
    /// It is not there, not readable, or no regular file; the message names it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let metadata = match std::fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return dangling(path).map_or_else(|| Err(error).context("opening", path), Err);
            }
            metadata => metadata.context("opening", path)?,
        };
        check_regular(path, &metadata)?;
        // The file may have been replaced since: opening a pipe would wait for a writer.
        let flags = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).context("opening", path)?;
        let metadata = file.metadata().context("opening", path)?;
        check_regular(path, &metadata)?;
        Ok(Self { file, length: metadata.len() })
    }

    /// The opened file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Bytes for RegularFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64, what: &str) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            if error.kind() != ErrorKind::UnexpectedEof {
                return Error::new(format!("reading {what}: {error}"));
            }
            let now = self.file.metadata().map_or("less".to_owned(), |metadata| metadata.len().to_string());
            Error::new(format!(
                "reading {what}: the file became shorter than when it was opened: it had {} bytes, now it has {now}",
                self.length
            ))
            .help("something changes this source: let that end, get the file again if it is cut off, and start again")
        })
    }
}

/// Opens a file that lies in a model's folder: a regular one, never a pipe or device, on which a reader would wait.
///
/// # Errors
/// It is not there, a link whose target is not there, not readable, or no regular file; the message names it.
pub fn open_regular(path: &Path) -> Result<File> {
    RegularFile::open(path).map(|opened| opened.file)
}

/// Whether something lies there, be it a link whose target is not.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The error of a link whose target is not there; None where it is no link.
fn dangling(path: &Path) -> Option<Error> {
    let target = std::fs::read_link(path).ok()?;
    let message = format!("{}: a link that points to {}, which is not there", path.display(), target.display());
    Some(Error::new(message).help("get the file itself (an interrupted download leaves such links), or remove the link"))
}

fn check_regular(path: &Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(Error::new(format!("{}: not a file: found {}", path.display(), kind(metadata.file_type()))).help("put the file itself there"))
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a named pipe (FIFO)",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        kind if kind.is_socket() => "a socket",
        _ => "something else",
    }
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer.
pub fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = RegularFile::open(path)?;
    if file.length() > limit {
        return Err(Error::new(format!("{}: expected at most {limit} bytes, found {}", path.display(), file.length())).help(AGAIN));
    }
    file.read_range(0, file.length(), "the file").map_err(|error| error.within(path))
}

/// Reads a text file of at most `limit` bytes, without the byte order mark that it may begin with.
///
/// # Errors
/// It cannot be read, is no regular file, is longer, or is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    let text = String::from_utf8(read_bytes(path, limit)?)
        .map_err(|error| Error::new(format!("{}: not UTF-8 text: {}", path.display(), error.utf8_error())).help(AGAIN))?;
    // Some editors put a byte order mark before UTF-8; JSON does not know it.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
