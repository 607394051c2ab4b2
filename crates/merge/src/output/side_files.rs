//! What an output has beside its weights: config.json, tokenizer, other side files, recipe, provenance and card.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use deltaic_checkpoint::{Context, Error, Result, SideFiles, open_regular};

use super::disk::{Disk, failed, write_file};
use super::{MergeOptions, card, provenance};
use crate::plan::Plan;

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// Copies those that sources have; `cancel` stops it. It is done before the weights: what cannot be copied is known early.
pub(super) fn copy_all(disk: &dyn Disk, plan: &Plan, folder: &Path, cancel: &AtomicBool) -> Result<()> {
    taken_over(plan)?.iter().try_for_each(|(donor, file)| copy(disk, donor, file, folder, cancel))
}

/// Bytes of those that sources have: what they take beside the weights.
pub(super) fn bytes(plan: &Plan) -> Result<u64> {
    let length = |donor: &Path, file: &Path| {
        let path = donor.join(file);
        Ok(open_regular(&path)?.metadata().context("reading its length", &path)?.len())
    };
    taken_over(plan)?.iter().try_fold(0u64, |sum, (donor, file)| Ok(sum.saturating_add(length(donor, file)?)))
}

/// The files that the output takes over, each with the folder of the model that it comes from.
pub(crate) fn taken_over(plan: &Plan) -> Result<Vec<(&Path, PathBuf)>> {
    let mut taken = Vec::new();
    if let Some(donor) = plan.tokenizer_from {
        let donor = plan.sources[donor].folder();
        taken.extend(SideFiles::of(donor)?.tokenizer_and_templates().into_iter().map(|file| (donor, file.to_owned())));
    }
    let donor = plan.sources[plan.side_files_from].folder();
    taken.extend(SideFiles::of(donor)?.others().into_iter().map(|file| (donor, file.to_owned())));
    Ok(taken)
}

/// Writes those that the merge makes. It is done behind the weights: a folder without config.json is no model.
pub(super) fn write_all(disk: &dyn Disk, plan: &Plan, folder: &Path, options: &MergeOptions, cancel: &AtomicBool) -> Result<()> {
    write_file(disk, &folder.join("config.json"), plan.config.to_json().as_bytes())?;
    write_file(disk, &folder.join("mergekit_config.yml"), plan.recipe.document.text.as_bytes())?;
    write_file(disk, &folder.join("deltaic.yml"), provenance::text(plan, options.hash, cancel)?.as_bytes())?;
    if options.model_card {
        write_file(disk, &folder.join("README.md"), card::text(plan).as_bytes())?;
    }
    Ok(())
}

/// Copies a file of a model's folder, with the folder it lies in. What it links to is copied, not the link; a link that leaves the
/// model is refused, since a foreign model could bring any file of this machine into the output. The Hub's cache keeps a model's files
/// in `blobs`, beside `snapshots`.
fn copy(disk: &dyn Disk, model: &Path, file: &Path, folder: &Path, cancel: &AtomicBool) -> Result<()> {
    let (from, to) = (model.join(file), folder.join(file));
    let source = open_regular(&from)?;
    let real = from.canonicalize().context("resolving the path", &from)?;
    let model = model.canonicalize().context("resolving the path", model)?;
    let cache = model.parent().filter(|snapshots| snapshots.ends_with("snapshots")).and_then(Path::parent);
    if !real.starts_with(&model) && !cache.is_some_and(|cache| real.starts_with(cache)) {
        return Err(Error::new(format!("{}: a link out of the model's folder, to {}", from.display(), real.display()))
            .help("put the file itself there, if it belongs to the model"));
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(&error, "making the folder", folder))?;
    }
    copy_bytes(disk, (source, &from), &to, cancel)
}

/// Copies as many bytes as the file had when it was opened, piece by piece.
fn copy_bytes(disk: &dyn Disk, (source, from): (File, &Path), to: &Path, cancel: &AtomicBool) -> Result<()> {
    let target = File::create(to).map_err(|error| failed(&error, "making the file", to))?;
    let length = source.metadata().context("reading its length", from)?.len();
    let (mut source, mut piece, mut done) = (source.take(length), Vec::new(), 0);
    while done < length {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::new("cancelled"));
        }
        piece.clear();
        source.by_ref().take(PIECE as u64).read_to_end(&mut piece).context("reading", from)?;
        if piece.is_empty() {
            return Err(Error::new(format!("{}: expected {length} bytes, found {done}: it became shorter", from.display()))
                .help("something changes this source: let that end, and start again"));
        }
        disk.write_at(&target, &piece, done).map_err(|error| failed(&error, "writing", to))?;
        done += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicUsize;

    use super::super::disk::RealDisk;
    use super::*;

    /// Knows how large the greatest write was, and cancels after the first.
    #[derive(Default)]
    struct Watched {
        greatest: AtomicUsize,
        writes: AtomicUsize,
        cancel: AtomicBool,
    }

    impl Disk for Watched {
        fn reserve(&self, file: &File, length: u64) -> io::Result<()> {
            RealDisk.reserve(file, length)
        }

        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.greatest.fetch_max(bytes.len(), Ordering::Relaxed);
            self.writes.fetch_add(1, Ordering::Relaxed);
            self.cancel.store(true, Ordering::Relaxed);
            RealDisk.write_at(file, bytes, offset)
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            RealDisk.sync(file)
        }
    }

    #[test]
    fn a_large_side_file_is_copied_in_pieces_and_the_copy_can_be_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let (model, out) = (folder.path().join("model"), folder.path().join("out"));
        fs::create_dir(&model).unwrap();
        fs::create_dir(&out).unwrap();
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i % 251) as u8).collect();
        fs::write(model.join("tokenizer.json"), &bytes).unwrap();
        let (disk, never, file) = (Watched::default(), AtomicBool::new(false), Path::new("tokenizer.json"));
        copy(&disk, &model, file, &out, &never).unwrap();
        assert!(fs::read(out.join(file)).unwrap() == bytes);
        assert_eq!((disk.greatest.into_inner(), disk.writes.into_inner()), (PIECE, 4));
        let disk = Watched::default();
        assert_eq!(copy(&disk, &model, file, &out, &disk.cancel).unwrap_err().message(), "cancelled");
        assert_eq!(disk.writes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_is_no_readable_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("gone.json", folder.path().join("tokenizer.json")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("vocab.txt"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let never = AtomicBool::new(false);
        for (name, words) in [("tokenizer.json", "points to gone.json, which is not there"), ("vocab.txt", "found a named pipe (FIFO)")] {
            let error = copy(&RealDisk, folder.path(), Path::new(name), folder.path(), &never).unwrap_err();
            assert!(error.message().contains(name) && error.message().contains(words), "{error}");
        }
    }
}
