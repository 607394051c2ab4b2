//! Results of cells, to be looked up and resampled.

use deltaic_checkpoint::{Error, Result};
use deltaic_eval::metrics::Resamples;
use deltaic_eval::{Task, headline};

use crate::study::cells::Cell;
use crate::study::open::Open;
use crate::study::results::{CellResult, Kept};

/// How many resamples of the items effects and intervals are made of.
pub const RESAMPLES: usize = 20_000;

/// The results of a study.
pub struct Finished<'a> {
    /// The study with its models and data.
    pub open: &'a Open<'a>,
    /// Its tasks.
    pub tasks: &'a [Task],
    /// What has been run.
    pub kept: &'a Kept,
    /// How many resamples are drawn.
    pub resamples: usize,
}

impl Finished<'_> {
    /// A cell's result, if it has been run.
    pub fn result(&self, cell: &Cell) -> Option<&CellResult> {
        self.kept.cells.get(&self.open.key(cell))
    }

    /// A cell's headline, not a number where it is not defined; none where the cell has not been run.
    pub fn headline(&self, cell: &Cell) -> Option<f64> {
        self.result(cell).map(|result| result.headline.unwrap_or(f64::NAN))
    }

    /// Whether lower headlines of a task are better.
    pub fn lower_is_better(&self, task: usize) -> bool {
        self.open.tasks.lower_is_better[task]
    }

    /// A cell's headline over each resample of its items. All cells on the same items of a task see the same resamples.
    ///
    /// # Errors
    /// The cell has not been run, or its result does not fit its items.
    pub fn over_resamples(&self, cell: &Cell) -> Result<Vec<f64>> {
        let missing = || Error::new(format!("{}: the cell has not been run", self.open.label(cell)));
        let result = self.result(cell).ok_or_else(missing)?;
        let items = self.kept.items.get(&result.items).ok_or_else(|| {
            Error::new(format!("items.jsonl: `{}` is not there, which a result names", result.items))
                .help("put the file beside results.jsonl, as it was")
        })?;
        let metric = headline(&self.tasks[cell.task], result.numbers_of_items(items)?)?;
        let metric = metric.ok_or_else(|| Error::new(format!("{}: the task has no headline", self.tasks[cell.task].task)))?;
        let count = u32::try_from(metric.items()).unwrap_or(u32::MAX);
        Ok(metric.over(&Resamples::new(count, self.resamples, cell.task as u64)))
    }
}

/// The mean of several runs in each resample.
pub fn mean_over(runs: &[Vec<f64>]) -> Vec<f64> {
    let count = runs.first().map_or(0, Vec::len);
    (0..count).map(|resample| runs.iter().map(|run| run[resample]).sum::<f64>() / runs.len() as f64).collect()
}

/// One series less another, resample by resample.
pub fn difference(first: &[f64], second: &[f64]) -> Vec<f64> {
    first.iter().zip(second).map(|(a, b)| a - b).collect()
}
