//! Statistics that merges of a study take: known by their content, made before the first merge that needs them, kept beside the results.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Context, Result};
use deltaic_eval::LocalSource;
use deltaic_merge::recipe::{DataSettings, DataSource, Order, Recipe};
use deltaic_merge::{MergeOptions, MergedInMemory, PlanOptions, methods};
use serde_json::{Value, json};

use super::items::digest;
use super::models::{Models, Places};
use super::open::Open;
use super::schema::{ExampleOrder, Study};
use super::subject::Merge;
use crate::statistics::{Examples, StatisticsModel, StatisticsOptions, StatisticsSettings, write};

/// The examples of every model, and where statistics made of them lie.
pub(super) struct NeededStatistics {
    /// By the models' places.
    examples: Vec<Examples>,
    folder: PathBuf,
}

impl NeededStatistics {
    /// Reads the examples, if a method of the study takes statistics; these lie in `statistics` in `out`.
    pub fn read(study: &Study, places: &Places, models: &Models, out: &Path) -> Result<Option<Self>> {
        let methods = study.merges.iter().flat_map(|merges| &merges.methods);
        let mut definitions = methods.filter_map(|method| methods::find(&method.method, method.preset.of_recipe()));
        if definitions.all(|definition| definition.statistics.is_none()) {
            return Ok(None);
        }
        let read = |model: usize| {
            let source = StatisticsModel::new(models.open(Some(model), places)?, None)?;
            Examples::read(&data(study, places, model), &places.study, &source)
        };
        let examples = (0..study.models.len()).map(read).collect::<Result<_>>()?;
        Ok(Some(Self { examples, folder: out.join("statistics") }))
    }

    /// What the statistics of a model are made from.
    pub fn contents(&self, model: usize) -> Value {
        json!({"examples": self.examples[model].digest()})
    }

    /// The file of a model's statistics before a merge. Its name is the hash of what they are made of: the model, what is dropped of it
    /// before, examples, settings.
    pub fn file(&self, open: &Open<'_>, merge: &Merge, model: usize) -> PathBuf {
        self.folder.join(format!("{}.safetensors", digest(&open.recipe_by_content(&merge.alone(model)).to_string())))
    }

    /// Makes the statistics of a merge's models that are not there yet.
    pub fn make(&self, open: &Open<'_>, merge: &Merge, recipe: &Recipe, cancel: &AtomicBool) -> Result<()> {
        let settings = match merge.statistics() {
            None => return Ok(()),
            Some(methods::Statistics::Fisher) => StatisticsSettings::Fisher(recipe.fisher),
            Some(methods::Statistics::Gram) => StatisticsSettings::Gram(recipe.gram),
        };
        fs::create_dir_all(&self.folder).context("making the folder", &self.folder)?;
        // Results are kept by version control; statistics are large, and can be made again.
        let ignore = self.folder.join(".gitignore");
        fs::write(&ignore, "*\n").context("writing", &ignore)?;
        for (place, &model) in merge.models.iter().enumerate() {
            let file = self.file(open, merge, model);
            if file.exists() {
                continue;
            }
            let source = match merge.drop {
                None => open.models.open(Some(model), open.places)?,
                Some(_) => sparsified(recipe, place, cancel)?,
            };
            let source = StatisticsModel::new(source, None)?;
            write(&source, &self.examples[model], &settings, &file, &StatisticsOptions::new(cancel))?;
        }
        Ok(())
    }
}

/// A model of a recipe after its sparsifier, with its own head.
fn sparsified(recipe: &Recipe, model: usize, cancel: &AtomicBool) -> Result<LocalSource> {
    let merged = MergedInMemory::sparsified(recipe, model, PlanOptions::default(), &MergeOptions::default(), cancel, &|_| {})?;
    let (config, tokenizer, id) = (merged.config.clone(), merged.tokenizer.clone(), merged.id.clone());
    Ok(LocalSource { name: format!("model {model} after its sparsifier"), id, tensors: Box::new(merged), config, tokenizer })
}

/// The training data of a model's task.
fn data(study: &Study, places: &Places, model: usize) -> DataSettings {
    let task = &study.tasks[study.task_of(model)];
    let path = task.data.as_ref().map_or_else(|| places.data.clone(), |data| places.data.join(data));
    // Paths are taken from the working directory; `Examples::read` would look from the study's folder.
    let path = std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned();
    let split = Some(task.statistics_split.clone().unwrap_or_else(|| "train".to_owned()));
    let order = match study.statistics.order {
        ExampleOrder::File => Order::File,
        ExampleOrder::Permuted => Order::Permuted { seed: study.statistics.seed },
    };
    DataSettings { source: DataSource::Task { task: task.task.clone(), path, split }, examples: Some(study.statistics.examples), order }
}
