//! The output's weights: shards of known length, written window by window at final offsets.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Result, TensorPlace};
use rustix::fs::FallocateFlags;

use crate::engine::Sink;
use crate::plan::Plan;

/// The shards of an output while they are written.
pub(super) struct Shards {
    files: Vec<(PathBuf, File)>,
    /// By tensor, in the plan's order.
    places: Vec<TensorPlace>,
}

impl Shards {
    /// Makes the files at their full length, space reserved where the file system can, and writes headers and index.
    pub fn create(plan: &Plan, folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for shard in plan.layout.shards() {
            let path = folder.join(&shard.file_name);
            let file = File::create(&path).context("making the file", &path)?;
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, shard.length) {
                Ok(()) => {}
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    file.set_len(shard.length).context("setting its length", &path)?
                }
                Err(error) => {
                    return Err(std::io::Error::from(error)).context(&format!("reserving {} bytes", shard.length), &path);
                }
            }
            file.write_all_at(&shard.header, 0).context("writing the header", &path)?;
            files.push((path, file));
        }
        if let Some(index) = plan.layout.index_json() {
            super::folder::write(&folder.join("model.safetensors.index.json"), index.as_bytes())?;
        }
        let place = |name: &str| plan.layout.place(name).expect("every tensor of the plan was laid out");
        Ok(Self { files, places: plan.tensors.iter().map(|tensor| place(&tensor.name)).collect() })
    }

    /// Waits until everything is on the disk.
    pub fn finish(self) -> Result<()> {
        self.files.iter().try_for_each(|(path, file)| file.sync_all().context("syncing", path))
    }
}

impl Sink for Shards {
    fn write(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let place = self.places[tensor];
        let (path, file) = &self.files[place.shard];
        file.write_all_at(bytes, place.offset + offset).context("writing", path)?;
        start_write_back(file, place.offset + offset, bytes.len());
        Ok(())
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
