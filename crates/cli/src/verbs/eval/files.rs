//! The files that a run writes beside its results: records of items, generated texts.

use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Error, Result};
use deltaic_eval::{Evaluation, TaskResult};

use super::wanted::{Source, Wanted};
use crate::arguments::Eval;
use crate::output_file::OutputFile;

/// Files that are being written.
pub struct Files {
    records: Option<OutputFile>,
    generations: Option<OutputFile>,
}

impl Files {
    /// Begins what the arguments name.
    ///
    /// # Errors
    /// A file is there already, or is one that the run reads or writes otherwise.
    pub fn begin(wanted: &Wanted<'_>) -> Result<Self> {
        check_apart(wanted)?;
        let Eval { records, generations, force, .. } = wanted.arguments;
        let begin = |path: &Option<PathBuf>| path.as_deref().map(|path| OutputFile::begin(path, *force)).transpose();
        Ok(Self { records: begin(records)?, generations: begin(generations)? })
    }

    /// Whether generated texts can be written of these items; known before a model is asked.
    ///
    /// # Errors
    /// They cannot.
    pub fn check(&self, evaluations: &[Evaluation<'_>]) -> Result<()> {
        let wanted = evaluations.iter().filter(|_| self.generations.is_some());
        wanted.into_iter().try_for_each(|evaluation| evaluation.check_generations().map(drop))
    }

    /// Adds what a result has.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, evaluation: &Evaluation<'_>, result: &TaskResult) -> Result<()> {
        if let Some(out) = &mut self.records {
            out.write(|file| result.write_records(file))?;
        }
        if let Some(out) = &mut self.generations {
            let text = result.generations(evaluation.check_generations()?)?;
            out.write(|file| file.write_all(text.as_bytes()))?;
        }
        Ok(())
    }

    /// Puts the files at their places.
    ///
    /// # Errors
    /// They cannot be written there.
    pub fn finish(self) -> Result<()> {
        self.records.into_iter().chain(self.generations).try_for_each(OutputFile::finish)
    }
}

/// No file is written twice, and none that is read, not even with `--force`.
fn check_apart(wanted: &Wanted<'_>) -> Result<()> {
    let arguments = wanted.arguments;
    let written = [("--records", &arguments.records), ("--generations", &arguments.generations), ("--cache", &arguments.cache)];
    let written: Vec<(&str, &Path)> = written.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?))).collect();
    let recipes = wanted.models.iter().filter_map(|model| if let Source::Recipe(path) = model { Some(path.as_path()) } else { None });
    let mut read: Vec<&Path> = arguments.tasks.iter().map(Path::new).chain(recipes).collect();
    read.extend(arguments.harness_results.iter().map(PathBuf::as_path));
    read.extend([&arguments.data, &arguments.judge.reference, &wanted.shots_file].into_iter().flatten().map(PathBuf::as_path));
    for (at, (option, path)) in written.iter().enumerate() {
        if let Some((other, _)) = written[..at].iter().find(|(_, other)| is_same(path, other)) {
            return Err(Error::new(format!("{}: {option} and {other} name one file", path.display())).help("give each a file of its own"));
        }
        if read.iter().any(|other| is_same(path, other)) {
            let message = format!("{}: {option} would replace a file that this run reads", path.display());
            return Err(Error::new(message).help("name another file"));
        }
    }
    Ok(())
}

/// Whether two paths lead to one file; one that is not there yet is known by its folder and name.
fn is_same(first: &Path, second: &Path) -> bool {
    let whole = |path: &Path| {
        path.canonicalize().ok().or_else(|| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some(parent.canonicalize().ok()?.join(path.file_name()?))
        })
    };
    whole(first).is_some_and(|first| whole(second) == Some(first))
}
