//! `deltaic fisher` and `deltaic gram`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Error, ModelReference, Result};
use deltaic_eval::LocalSource;
use deltaic_merge::recipe::{self, DataSettings, DataSource, Document, FisherBatch, FisherSettings, GramSettings, Recipe, UnknownPolicy};
use deltaic_merge::{MergeOptions, MergedInMemory, PlanOptions};
use deltaic_study::statistics::{Examples, StatisticsKind, StatisticsModel, StatisticsOptions, StatisticsSettings, write};

use crate::arguments::{Batch, Fisher, Gram, Order, Padding, StatisticsArguments, Targets};
use crate::messages::{Messages, print};
use crate::progress::Items;

/// Examples in a batch of the authors' program.
const AUTHORS_BATCH: usize = 16;

pub fn run_fisher(arguments: &Fisher, messages: &Messages) -> Result<()> {
    let batch = match (arguments.batch, arguments.batch_size) {
        (Batch::Example, None) => FisherBatch::Example,
        (Batch::Example, Some(_)) => {
            return Err(Error::new("--batch-size without --batch sum").help("with --batch example every example stands for itself"));
        }
        (Batch::Sum, size) => FisherBatch::Sum { size: size.unwrap_or(AUTHORS_BATCH) },
    };
    let targets = match (arguments.targets, arguments.targets_seed) {
        (Targets::Empirical, None) => recipe::Targets::Empirical,
        (Targets::Empirical, Some(_)) => {
            return Err(Error::new("--targets-seed without --targets sampled").help("nothing else is drawn by it"));
        }
        (Targets::Sampled, seed) => recipe::Targets::Sampled { seed: seed.unwrap_or(0) },
    };
    // What the merge makes of the weights later is not decided here.
    let settings = FisherSettings { batch, targets, ..FisherSettings::default_of(deltaic_merge::methods::Preset::Mergekit) };
    run(&arguments.common, StatisticsSettings::Fisher(settings), StatisticsOptions::DEFAULT_MEMORY, messages)
}

pub fn run_gram(arguments: &Gram, messages: &Messages) -> Result<()> {
    let padding = match arguments.padding {
        Padding::Exclude => recipe::Padding::Exclude,
        Padding::Include => recipe::Padding::Include,
    };
    if padding == recipe::Padding::Exclude && arguments.batch_size.is_some() {
        return Err(Error::new("--batch-size without --padding include").help("without padding it decides nothing"));
    }
    let settings = GramSettings { padding, batch_size: arguments.batch_size };
    run(&arguments.common, StatisticsSettings::Gram(settings), arguments.memory, messages)
}

fn run(arguments: &StatisticsArguments, settings: StatisticsSettings, memory: u64, messages: &Messages) -> Result<()> {
    deltaic_study::statistics::check_free(&arguments.out, arguments.force)?;
    let cancel = crate::signals::cancel_flag()?;
    let recipe = arguments.recipe.as_deref().map(|path| read_recipe(path, messages)).transpose()?;
    let of_recipe = recipe.as_ref().zip(arguments.number);
    let settings = match (&recipe, settings.kind()) {
        (None, _) => settings,
        (Some(recipe), StatisticsKind::Fisher) => StatisticsSettings::Fisher(recipe.fisher),
        (Some(recipe), StatisticsKind::Gram) => StatisticsSettings::Gram(recipe.gram),
    };
    let (data, folder) = data(arguments, of_recipe)?;
    let source = match (of_recipe, &arguments.model) {
        (Some((recipe, number)), _) => sparsified(recipe, number, messages, &cancel)?,
        (None, Some(model)) => local_source(model)?,
        (None, None) => return Err(Error::new("no model is given").help("a model's folder, or --recipe RECIPE --model I")),
    };
    let head_from = arguments.head_from.as_deref().map(local_source).transpose()?;
    let model = StatisticsModel::new(source, head_from)?;
    let examples = Examples::read(&data, &folder, &model)?;
    if examples.skipped > 0 {
        messages
            .warning(&format!("{} items were passed over: no token of their answers is left within the task's length", examples.skipped));
    }
    let bar = Items::new(messages.is_quiet());
    bar.begin(settings.kind().name());
    let progress = |progress: deltaic_study::statistics::StatisticsProgress| bar.show(progress.done, progress.total, "examples");
    let options = StatisticsOptions { force: arguments.force, memory, progress: &progress, ..StatisticsOptions::new(&cancel) };
    let written = write(&model, &examples, &settings, &arguments.out, &options);
    bar.finish();
    let written = written?;
    let (kind, out) = (settings.kind().name(), arguments.out.display());
    print(&match arguments.json {
        true => {
            let result = serde_json::json!({
                "file": out.to_string(), "statistics": kind, "bytes": written.bytes, "tensors": written.tensors,
                "examples": written.examples, "skipped": examples.skipped,
            });
            format!("{result:#}\n")
        }
        false => format!("{out}  {} bytes, {} tensors, {kind} of {} examples\n", written.bytes, written.tensors, written.examples),
    });
    Ok(())
}

fn read_recipe(path: &Path, messages: &Messages) -> Result<Recipe> {
    let (recipe, warnings) = recipe::parse(Arc::new(Document::read_given(path)?), UnknownPolicy::Default)?;
    warnings.iter().for_each(|warning| messages.warning(&warning.to_string()));
    Ok(recipe)
}

/// A recipe's model after its sparsifier, in memory and in f32.
fn sparsified(recipe: &Recipe, number: usize, messages: &Messages, cancel: &AtomicBool) -> Result<LocalSource> {
    let merged = MergedInMemory::sparsified(recipe, number, PlanOptions::default(), &MergeOptions::default(), cancel, &|_| {})?;
    merged.warnings.iter().for_each(|warning| messages.warning(warning));
    let name = format!("model {number} of {}", recipe.document.name);
    let (id, config, tokenizer) = (merged.id.clone(), merged.config.clone(), merged.tokenizer.clone());
    Ok(LocalSource { name, id, config, tokenizer, tensors: Box::new(merged) })
}

fn local_source(model: &str) -> Result<LocalSource> {
    let folders = [(PathBuf::from("."), "the working directory")];
    LocalSource::open(&ModelReference::parse(model)?, &folders)
}

/// The examples that the arguments name, else those of the recipe; and the folder in which their places are relative.
fn data(arguments: &StatisticsArguments, of_recipe: Option<(&Recipe, usize)>) -> Result<(DataSettings, PathBuf)> {
    let source = match (&arguments.task, &arguments.data, &arguments.inputs) {
        (Some(task), Some(path), _) => {
            DataSource::Task { task: task.clone(), path: path.to_string_lossy().into_owned(), split: arguments.split.clone() }
        }
        (_, _, Some(inputs)) => DataSource::Inputs(inputs.to_string_lossy().into_owned()),
        _ => return data_of_recipe(arguments, of_recipe),
    };
    let order = match arguments.order {
        None | Some(Order::File) if arguments.seed.is_some() => {
            return Err(Error::new("--seed without --order permuted").help("nothing else is drawn by it"));
        }
        None | Some(Order::File) => recipe::Order::File,
        Some(Order::Permuted) => recipe::Order::Permuted { seed: arguments.seed.unwrap_or(0) },
    };
    Ok((DataSettings { source, examples: arguments.examples, order }, PathBuf::from(".")))
}

fn data_of_recipe(arguments: &StatisticsArguments, of_recipe: Option<(&Recipe, usize)>) -> Result<(DataSettings, PathBuf)> {
    let none = || Error::new("no examples are given").help("--task TASK --data DIR, or --inputs FILE");
    let (recipe, number) = of_recipe.ok_or_else(none)?;
    if arguments.examples.is_some() || arguments.order.is_some() {
        return Err(Error::new("--examples and --order without --task or --inputs").help("the recipe's `data` has its own"));
    }
    let data = recipe.models().get(number).and_then(|reference| {
        let entry = recipe.entries().map(|(_, entry)| entry).find(|entry| entry.model.value == *reference)?;
        entry.data.as_ref().or(recipe.data.as_ref())
    });
    Ok((data.ok_or_else(none)?.value.clone(), recipe.document.folder.clone()))
}

/// Statistics that were made for a merge, in a folder beside its output.
pub struct Made(Option<PathBuf>);

impl Made {
    /// Takes the folder away: the merge is done.
    pub fn remove(self) {
        if let Some(folder) = self.0 {
            // What cannot be removed does no harm: it lies beside the output, and says what it is.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Makes the statistics that a recipe asks for by naming `data`, in a folder beside `out`; a merge that was stopped finds them there.
pub fn make_for(recipe: &Recipe, options: &mut PlanOptions, out: &Path, messages: &Messages) -> Result<Made> {
    if !recipe.entries().any(|(slice, entry)| !recipe.is_base(slice, entry) && recipe.data_of(entry).is_some())
        || recipe.method.statistics.is_none()
    {
        return Ok(Made(None));
    }
    let mut folder = out.as_os_str().to_owned();
    folder.push(".statistics");
    let folder = PathBuf::from(folder);
    let cancel = crate::signals::cancel_flag()?;
    let bar = Items::new(messages.is_quiet());
    bar.begin("statistics");
    let made = deltaic_study::statistics::of_recipe(recipe, options, &folder, &cancel, &|_, progress| {
        bar.show(progress.done, progress.total, "examples");
    });
    bar.finish();
    options.statistics = made?;
    Ok(Made(Some(folder)))
}
