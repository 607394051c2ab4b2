//! Files with the models' statistics, found, opened and held against what the recipe asks for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Error, FileIdentity, Result, TensorSource, WeightFile};

use super::{PlanOptions, Source};
use crate::methods::Statistics;
use crate::recipe::{Entry, FisherBatch, Padding, Recipe};

/// A file of statistics of one source.
pub(super) struct StatisticsFile {
    /// Number of the source that it is about.
    pub source: usize,
    pub tensors: Box<dyn TensorSource>,
    pub identity: FileIdentity,
    /// Its names by what remains of them without the backbone's prefix.
    names: BTreeMap<String, String>,
}

impl StatisticsFile {
    /// The file's name of the source's tensor `own`.
    pub fn name_of(&self, source: &Source, own: &str) -> Option<&str> {
        let names = [own, own.strip_prefix(source.architecture.prefix()).unwrap_or(own)];
        names.into_iter().find_map(|name| self.names.get(name)).map(String::as_str)
    }
}

/// Opens the statistics of all models of a recipe whose method takes some.
pub(super) fn open(recipe: &Recipe, sources: &[Source], options: &PlanOptions, warnings: &mut Vec<String>) -> Result<Vec<StatisticsFile>> {
    let Some(kind) = recipe.method.statistics else { return Ok(Vec::new()) };
    let models = recipe.entries().filter(|(slice, entry)| !recipe.is_base(*slice, entry));
    let open = |(_, entry): (_, &Entry)| {
        let source = super::sources::position(sources, &entry.model.value).expect("every model of the recipe was opened");
        let path = match &entry.statistics {
            Some(given) => find(recipe, options, &given.value)?,
            None => match options.statistics.get(&entry.model.value.to_string()) {
                Some(made) => made.clone(),
                None => {
                    return Err(Error::new(format!("{}: its statistics were not made yet from `data`", entry.model.value))
                        .help(format!("make them with `deltaic {}`, and give the file as `statistics: FILE`", kind.name())));
                }
            },
        };
        let file = WeightFile::open(&path)?;
        check(recipe, kind, &sources[source], entry, &file, warnings)?;
        let prefix = source_prefix(&file, &sources[source]);
        let names = file.tensors().keys().map(|name| (name.strip_prefix(&prefix).unwrap_or(name).to_owned(), name.clone())).collect();
        Ok(StatisticsFile { source, identity: FileIdentity::of(&path)?, tensors: Box::new(file), names })
    };
    models.map(open).collect()
}

/// The prefix that the backbone has in a file of statistics, which may be spelled as another model's.
fn source_prefix(file: &WeightFile, source: &Source) -> String {
    source.architecture.respelled(file.tensors().keys().map(String::as_str)).prefix().to_owned()
}

/// A file that a recipe names, beside the recipe or in the working directory.
pub(crate) fn find(recipe: &Recipe, options: &PlanOptions, given: &str) -> Result<PathBuf> {
    let beside = recipe.document.folder.join(given);
    let places = [beside.clone(), options.working_directory.join(given)];
    match places.into_iter().find(|path| path.exists()) {
        Some(path) => Ok(std::path::absolute(&path).unwrap_or(path)),
        None => Err(Error::new(format!(
            "{}: not there; {given} is looked for beside the recipe and in the working directory",
            beside.display()
        ))
        .help("statistics are made by `deltaic fisher` and `deltaic gram`")),
    }
}

/// Holds what a file says of itself against the recipe; files that say nothing are taken as they are.
fn check(recipe: &Recipe, kind: Statistics, source: &Source, entry: &Entry, file: &WeightFile, warnings: &mut Vec<String>) -> Result<()> {
    let said = |key: &str| file.metadata().get(&format!("deltaic.{key}")).map(String::as_str);
    let path: &Path = file.path();
    if let Some(found) = said("statistics").filter(|found| *found != kind.name()) {
        return Err(Error::new(format!(
            "{}: holds statistics of kind {found}; {} takes {}",
            path.display(),
            recipe.method.name,
            kind.name()
        ))
        .help(format!("make them with `deltaic {}`", kind.name())));
    }
    let asked = match kind {
        Statistics::Fisher => (
            "batch",
            match recipe.fisher.batch {
                FisherBatch::Example => "example".to_owned(),
                FisherBatch::Sum { size } => format!("sum:{size}"),
            },
        ),
        Statistics::Gram => (
            "padding",
            match recipe.gram.padding {
                Padding::Exclude => "exclude".to_owned(),
                Padding::Include => "include".to_owned(),
            },
        ),
    };
    if let Some(found) = said(asked.0).filter(|found| *found != asked.1) {
        warnings.push(format!("{}: made with {} {found}; the recipe says {}, which is not done again", path.display(), asked.0, asked.1));
    }
    let sparsified = recipe.sparsify_of(entry).is_some();
    if let Some(found) = said("model").filter(|found| !sparsified && *found != source.id()) {
        warnings.push(format!("{}: made of another model than {} (content {found:.16})", path.display(), source.reference));
    }
    Ok(())
}
