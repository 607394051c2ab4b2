//! Statistics that merge methods take: squared gradients (Fisher merging) and Gram matrices of linear layers' inputs (RegMean).
//!
//! [`compute`] keeps them in memory, [`write`](fn@write) makes a file that any recipe can name. Both take the [`Examples`] of a task or of a file of token
//! ids, and a [`StatisticsModel`]: tensors from files, or from memory. See `docs/statistics.md`.

mod about;
mod examples;
mod file;
mod fisher;
mod gradients;
mod gram;
mod inputs;
mod memory;
mod model;
mod of_recipe;
mod permutation;
mod progress;
mod run;
mod sampling;
mod slots;
mod tasks;

use std::path::Path;

use deltaic_checkpoint::{DType, Result};

pub use about::{About, StatisticsKind, StatisticsSettings, open_statistics};
pub use examples::{Example, Examples};
pub use file::check_free;
pub use memory::Statistics;
pub(crate) use model::Network;
pub use model::StatisticsModel;
pub use of_recipe::of_recipe;
pub use permutation::permutation;
pub use run::{StatisticsOptions, StatisticsProgress};
pub use tasks::DOCUMENT_TOKENS;

use run::{Store, Work, gather};

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsWritten {
    /// Its length.
    pub bytes: u64,
    /// How many tensors it has.
    pub tensors: usize,
    /// How many examples they were made from.
    pub examples: usize,
}

/// Makes statistics, and keeps them in memory. Of the options `force` and `checkpoint` mean nothing here.
///
/// # Errors
/// Model and examples do not go together (an encoder without a head, a regression without labels, tokens outside of the vocabulary), the
/// statistics are not finite, or the work was cancelled.
pub fn compute(
    model: &StatisticsModel,
    examples: &Examples,
    settings: &StatisticsSettings,
    options: &StatisticsOptions<'_>,
) -> Result<Statistics> {
    let mut work = work(model, examples, settings)?;
    let shapes = shapes(model, settings, work.as_ref());
    let mut store = Statistics::new(&shapes, about::metadata(model, examples, settings), model.source.file_paths());
    make(work.as_mut(), settings, &mut store, options)?;
    Ok(store)
}

/// Makes statistics, and writes them to `out`, a safetensors file of f32 tensors under the model's own names. It appears whole, in one step.
/// A run that is stopped leaves its work beside it, and the same call goes on from there, to the same bytes.
///
/// # Errors
/// As [`compute`]; or there is a file at `out` (without `force`), another run is at work on it or has left its work there, or the disk fails.
pub fn write(
    model: &StatisticsModel,
    examples: &Examples,
    settings: &StatisticsSettings,
    out: &Path,
    options: &StatisticsOptions<'_>,
) -> Result<StatisticsWritten> {
    // Said before a model is loaded.
    file::check_free(out, options.force)?;
    let mut work = work(model, examples, settings)?;
    let shapes = shapes(model, settings, work.as_ref());
    let mut store = file::StatisticsFile::begin(out, &shapes, &about::metadata(model, examples, settings), options.force)?;
    if let Err(error) = make(work.as_mut(), settings, &mut store, options) {
        store.abandon();
        return Err(error);
    }
    Ok(StatisticsWritten { bytes: store.publish()?, tensors: shapes.len(), examples: examples.list.len() })
}

fn work<'a>(model: &StatisticsModel, examples: &'a Examples, settings: &'a StatisticsSettings) -> Result<Box<dyn Work + 'a>> {
    Ok(match settings {
        StatisticsSettings::Fisher(settings) => Box::new(fisher::Fisher::new(model, &examples.list, settings)?),
        StatisticsSettings::Gram(settings) => Box::new(gram::Gram::new(model, &examples.list, settings)?),
    })
}

fn make(work: &mut dyn Work, settings: &StatisticsSettings, store: &mut dyn Store, options: &StatisticsOptions<'_>) -> Result<()> {
    let memory = match settings {
        // A backward pass gives all gradients at once: more passes would save less than they cost.
        StatisticsSettings::Fisher(_) => u64::MAX,
        StatisticsSettings::Gram(_) => options.memory,
    };
    let passes = slots::passes(work.specs(), memory);
    gather(work, &passes, store, options)
}

/// The tensors of the result. Parameters that the model does not use have a Fisher information of zeros.
fn shapes(model: &StatisticsModel, settings: &StatisticsSettings, work: &dyn Work) -> Vec<(String, DType, Vec<u64>)> {
    match settings {
        StatisticsSettings::Fisher(_) => model.float_tensors().map(|(name, shape)| (name.clone(), DType::F32, shape.to_vec())).collect(),
        StatisticsSettings::Gram(_) => {
            let named = work.specs().iter().flat_map(|spec| spec.names.iter().map(|name| (name.clone(), DType::F32, spec.shape.clone())));
            named.collect()
        }
    }
}
