//! What a run asks of the file system that can fail half-way; tests put failures in its place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use deltaic_checkpoint::{Error, Result};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Reserving, writing and syncing.
pub(super) trait Disk: Sync {
    /// Gives a file its length, with space reserved for all of it where the file system can.
    fn reserve(&self, file: &File, length: u64) -> io::Result<()>;

    /// Writes all bytes at an offset.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Waits until what was written is on the disk.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The disk that is there.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn reserve(&self, file: &File, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) => file.set_len(length),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(length),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Writes a small file.
pub(super) fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = File::create(path).map_err(|error| failed(&error, "making the file", path))?;
    disk.write_at(&file, bytes, 0).map_err(|error| failed(&error, "writing", path))
}

/// The error of something that was being done to a file of the output, with what the user can do about it.
pub(super) fn failed(error: &io::Error, doing: &str, path: &Path) -> Error {
    let message = Error::new(format!("{}: {doing}: {error}", path.display()));
    let help = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => "make room on this disk, or choose a folder on another one",
        Some(Errno::FBIG) => {
            "the file system or a limit (ulimit -f) does not allow files of this size: smaller shards with --out-shard-size may help"
        }
        Some(Errno::IO) => "the disk reported a failure: see the system's log, or choose a folder on another disk",
        Some(Errno::ACCESS | Errno::PERM) => "choose a folder that you may write to",
        Some(Errno::ROFS) => "the file system is read-only: choose a folder on another one",
        Some(Errno::NAMETOOLONG) => "choose a shorter name",
        Some(Errno::NOTDIR) => "a part of the path is a file, not a folder: choose another place",
        _ => "choose another folder for the output, or see to this one",
    };
    message.help(help)
}
