//! A file of results: written beside its place and moved there when it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result};

/// A file that is being written; dropped before [`Self::finish`] it leaves nothing.
pub struct OutputFile {
    path: PathBuf,
    partial: PathBuf,
    file: Option<BufWriter<File>>,
    force: bool,
}

impl OutputFile {
    /// Begins a file.
    ///
    /// # Errors
    /// Its folder is not there or cannot be written; something is at its place, and it is no file or `force` is not set.
    pub fn begin(path: &Path, force: bool) -> Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.is_dir() {
            return Err(Error::new(format!("{}: the folder {} is not there", path.display(), parent.display())).help("make it first"));
        }
        let Some(name) = path.file_name().filter(|_| !path.is_dir()) else {
            return Err(Error::new(format!("{}: a folder; expected the name of a file", path.display())).help("name a file in it"));
        };
        // A pipe or device (/dev/stdout) is written as it is: nothing is lost, and nothing can be moved there.
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            let file = File::options().write(true).open(path).context("opening", path)?;
            return Ok(Self { path: path.to_owned(), partial: path.to_owned(), file: Some(BufWriter::new(file)), force });
        }
        if path.symlink_metadata().is_ok() && !force {
            let message = format!("{}: the file is there already", path.display());
            return Err(Error::new(message).help("choose another name, or replace it with --force"));
        }
        let mut partial = name.to_owned();
        partial.push(format!(".partial-{}", std::process::id()));
        let partial = path.with_file_name(partial);
        let file = File::create_new(&partial).context("making the file", &partial)?;
        Ok(Self { path: path.to_owned(), partial, file: Some(BufWriter::new(file)), force })
    }

    /// Adds what `write` writes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        write(file).and_then(|()| file.flush()).context("writing", &self.path)
    }

    /// Puts the whole file at its place.
    ///
    /// # Errors
    /// It cannot be written, or another file has come to be there meanwhile and is not to be replaced.
    pub fn finish(mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.flush().context("writing", &self.path)?;
        if self.partial == self.path {
            return Ok(());
        }
        let synced = file.get_ref().sync_all();
        // Without --force a file that came to be there meanwhile is not replaced: a link is made only where there is nothing.
        let placed = synced.and_then(|()| match self.force {
            true => fs::rename(&self.partial, &self.path),
            false => fs::hard_link(&self.partial, &self.path).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Err(error),
                _ => fs::rename(&self.partial, &self.path),
            }),
        });
        placed.context("writing", &self.path)
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if self.partial != self.path {
            // Where it was moved to its place, it is not there any more.
            let _ = fs::remove_file(&self.partial);
        }
    }
}
