//! Statistics that a recipe asks for by naming `data`, made before it is planned.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Context, Result};
use deltaic_eval::LocalSource;
use deltaic_merge::methods;
use deltaic_merge::recipe::{Entry, Recipe};
use deltaic_merge::{MergeOptions, MergedInMemory, PlanOptions};
use sha2::{Digest, Sha256};

use super::{Examples, StatisticsModel, StatisticsOptions, StatisticsProgress, StatisticsSettings, about, open_statistics, write};

/// Hears how far the statistics of a model have come: the model, and the examples.
pub type OfModel<'a> = &'a dyn Fn(&str, StatisticsProgress);

/// Makes the statistics of all models of a recipe that name `data`, each as a file of `folder`; by model, as [`PlanOptions::statistics`] takes
/// them. Where models are sparsified the statistics are those of the sparsified ones. Files that an earlier call has made are taken as they are.
///
/// # Errors
/// A model or its data is not there, they do not go together, or the work was cancelled: it is gone on with by the same call.
pub fn of_recipe(
    recipe: &Recipe,
    plan: &PlanOptions,
    folder: &Path,
    cancel: &AtomicBool,
    progress: OfModel<'_>,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut made = BTreeMap::new();
    let Some(kind) = recipe.method.statistics else { return Ok(made) };
    let settings = match kind {
        methods::Statistics::Fisher => StatisticsSettings::Fisher(recipe.fisher),
        methods::Statistics::Gram => StatisticsSettings::Gram(recipe.gram),
    };
    for (number, reference) in recipe.models().into_iter().enumerate() {
        let entry = recipe.entries().map(|(_, entry)| entry).find(|entry| entry.model.value == reference);
        let Some((entry, data)) = entry.and_then(|entry| Some((entry, recipe.data_of(entry)?))) else { continue };
        let model = StatisticsModel::new(source(recipe, entry, number, plan, cancel)?, None)?;
        let examples = Examples::read(&data.value, &recipe.document.folder, &model)?;
        let metadata = about::metadata(&model, &examples, &settings);
        let path = folder.join(format!("{}-{}.safetensors", kind.name(), digest(&metadata)));
        if !is_made(&path, &metadata) {
            std::fs::create_dir_all(folder).context("making the folder", folder)?;
            let name = reference.to_string();
            let told = |done: StatisticsProgress| progress(&name, done);
            // What bears the name and says something else was left by nobody: it is replaced.
            let options = StatisticsOptions { force: true, progress: &told, ..StatisticsOptions::new(cancel) };
            write(&model, &examples, &settings, &path, &options)?;
        }
        made.insert(reference.to_string(), path);
    }
    Ok(made)
}

/// A model as the method will see it.
fn source(recipe: &Recipe, entry: &Entry, number: usize, plan: &PlanOptions, cancel: &AtomicBool) -> Result<LocalSource> {
    if recipe.sparsify_of(entry).is_none() {
        let folders = [(recipe.document.folder.clone(), "the recipe's folder"), (plan.working_directory.clone(), "the working directory")];
        return LocalSource::open(&entry.model.value, &folders);
    }
    let merged = MergedInMemory::sparsified(recipe, number, plan.clone(), &MergeOptions::default(), cancel, &|_| {})?;
    let (id, config, tokenizer) = (merged.id.clone(), merged.config.clone(), merged.tokenizer.clone());
    Ok(LocalSource { name: entry.model.value.to_string(), id, config, tokenizer, tensors: Box::new(merged) })
}

fn is_made(path: &Path, metadata: &BTreeMap<String, String>) -> bool {
    let Ok((_, Some(about))) = open_statistics(path) else { return false };
    about.all.iter().all(|(key, value)| metadata.get(&format!("deltaic.{key}")) == Some(value))
}

/// A short name of what decides about a file's bytes.
fn digest(metadata: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for (key, value) in metadata {
        hash.update(format!("{key}={value}\n"));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
