//! Running a study: cells that are missing are run, one merge in memory at a time, all its tasks together.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use deltaic_checkpoint::{Error, Result};
use deltaic_eval::LocalModel;

use super::cells::Cell;
use super::findings::{Finished, RESAMPLES};
use super::items::{self, Evaluations, run_options, tasks};
use super::measures::{Measure, measures};
use super::models::{Models, Places};
use super::needed_statistics::NeededStatistics;
use super::open::{Listed, Open};
use super::opened_subject::OpenedSubject;
use super::report::{self, Report};
use super::results::{CellResult, ItemsRecord, Kept, Results, Seconds, columns};
use super::schema::Study;

/// How far a study has come, told after every cell.
#[derive(Debug, Clone)]
pub struct StudyProgress {
    /// The cell in words.
    pub label: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What it took.
    pub seconds: Seconds,
    /// Cells that are done.
    pub done: usize,
    /// Of how many that are known.
    pub total: usize,
    /// Seconds left, as far as is known.
    pub seconds_left: f64,
}

/// What came of a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// A headline; none where it is not defined.
    Scored(Option<f64>),
    /// Something beside scores was measured.
    Measured,
}

/// What tells of a run, and ends it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Once true, the run ends with an error; what is finished is kept.
    pub cancel: &'a AtomicBool,
    /// Is told of every cell that begins, in words.
    pub begin: &'a dyn Fn(&str),
    /// Is told of every cell that is done.
    pub cell: &'a dyn Fn(StudyProgress),
    /// Is told of the items of the cell that is being run, from any thread.
    pub items: &'a (dyn Fn(deltaic_eval::Progress) + Sync),
}

/// What a study would do.
#[derive(Debug, Clone)]
pub struct DryRun {
    /// Each cell: in words, and whether it is done.
    pub cells: Vec<(String, bool)>,
    /// How many more there will be when best points are chosen.
    pub later: usize,
    /// Seconds that the cells take which are not done, as far as they are known.
    pub seconds: f64,
    /// Whether that is by finished cells; else it is a rough measure.
    pub measured: bool,
}

/// Says which cells a study has, and how long those take that are missing.
///
/// # Errors
/// A model or data is not there, a task or recipe is not as it should be, results cannot be read.
pub fn dry_run(study: &Study, places: &Places, out: &Path, cancel: &AtomicBool) -> Result<DryRun> {
    let models = Models::find(study, places)?;
    let tasks = tasks(study, places)?;
    let options = run_options(study, cancel, &|_| {});
    let statistics = NeededStatistics::read(study, places, &models, out)?;
    let (known, _) = items::read(study, places, &tasks, &options)?;
    let open = Open { study, places, models: &models, tasks: known, statistics };
    let Kept { cells: results, measures: measured, .. } = Kept::read(out)?;
    let listed = open.list(&results);
    open.check_recipes(&listed)?;
    let speed = open.speed(&listed, &results);
    let missing = listed.cells.iter().filter(|(_, key)| !results.contains_key(key));
    let mut seconds = missing.map(|(cell, _)| speed.seconds(&open, cell)).fold(0.0, |sum, seconds| sum + seconds);
    let mut cells: Vec<(String, bool)> = listed.cells.iter().map(|(cell, key)| (open.label(cell), results.contains_key(key))).collect();
    for measure in measures(study) {
        let done = measured.contains_key(&measure.key(&open));
        // Hidden states are computed twice.
        let takes = measure.cell(study).filter(|_| !done).map_or(0.0, |cell| 2.0 * speed.seconds(&open, &cell));
        seconds += takes;
        cells.push((measure.label(study), done));
    }
    Ok(DryRun { cells, later: listed.later, seconds, measured: speed.measured })
}

/// Runs the cells of a study that have no result in `out` yet, and writes the report.
///
/// # Errors
/// A model or data is not there, a merge or an evaluation fails, or the run was cancelled; results of finished cells are kept.
pub fn run(study: &Study, places: &Places, out: &Path, watch: Watch<'_>) -> Result<Report> {
    let models = Models::find(study, places)?;
    let tasks = tasks(study, places)?;
    let options = run_options(study, watch.cancel, watch.items);
    let statistics = NeededStatistics::read(study, places, &models, out)?;
    let (known, mut evaluations) = items::read(study, places, &tasks, &options)?;
    let open = Open { study, places, models: &models, tasks: known, statistics };
    let mut results = Results::open(out)?;
    open.check_recipes(&open.list(&results.kept.cells))?;
    loop {
        // After each round more may be known: best points of grids.
        let listed = open.list(&results.kept.cells);
        let groups = by_subject(listed.cells.iter().filter(|(_, key)| !results.kept.cells.contains_key(key)));
        if groups.is_empty() {
            open.run_measures(&mut evaluations, &mut results, &watch)?;
            let finished = Finished { open: &open, tasks: &tasks, kept: &results.kept, resamples: RESAMPLES };
            return report::write(&finished, out);
        }
        for group in groups {
            open.run_group(&group, &mut evaluations, &mut results, &watch, &listed)?;
        }
    }
}

/// Writes the report of what has been run, and runs nothing.
///
/// # Errors
/// A model or data is not there, results cannot be read, or the report cannot be written.
pub fn report_only(study: &Study, places: &Places, out: &Path, cancel: &AtomicBool) -> Result<Report> {
    let models = Models::find(study, places)?;
    let tasks = tasks(study, places)?;
    let options = run_options(study, cancel, &|_| {});
    let statistics = NeededStatistics::read(study, places, &models, out)?;
    let (known, _) = items::read(study, places, &tasks, &options)?;
    let open = Open { study, places, models: &models, tasks: known, statistics };
    let kept = Kept::read(out)?;
    report::write(&Finished { open: &open, tasks: &tasks, kept: &kept, resamples: RESAMPLES }, out)
}

/// Cells of one subject together, in the order of the first of each.
fn by_subject<'l>(cells: impl Iterator<Item = &'l (Cell, String)>) -> Vec<Vec<&'l (Cell, String)>> {
    let mut groups: Vec<Vec<&(Cell, String)>> = Vec::new();
    for cell in cells {
        match groups.iter_mut().find(|group| group[0].0.subject == cell.0.subject) {
            Some(group) => group.push(cell),
            None => groups.push(vec![cell]),
        }
    }
    groups
}

impl Open<'_> {
    /// Runs cells of one subject: it is merged once.
    fn run_group(
        &self,
        group: &[&(Cell, String)],
        evaluations: &mut Evaluations<'_>,
        results: &mut Results,
        watch: &Watch<'_>,
        listed: &Listed,
    ) -> Result<()> {
        let subject = OpenedSubject::new(self, &group[0].0.subject, watch.cancel)?;
        let mut loaded: Option<(Option<usize>, LocalModel)> = None;
        for (cell, key) in group {
            let started = Instant::now();
            (watch.begin)(&self.label(cell));
            let head = self.tasks.head_of(self.study, cell);
            // Cells with one head share the loaded model; two models are never in memory.
            let model = match loaded.take().filter(|(of, _)| *of == head) {
                Some((_, model)) => model,
                None => subject.load(self, head)?,
            };
            let (contents, label) = (self.contents(cell), self.label(cell));
            let evaluation = evaluations.of(cell);
            let result = evaluation.run(&model)?;
            let (numbers, gold) = columns(&result);
            let id = self.tasks.of(cell).id.clone();
            let items = ItemsRecord { id, task: result.task.clone(), numbers: evaluation.numbers(), gold };
            let seconds = Seconds { evaluate: started.elapsed().as_secs_f64(), ..subject.seconds };
            let finite = |value: f64| Some(value).filter(|value| value.is_finite());
            let headline = result.headline.and_then(|headline| finite(headline.value));
            let stderr = result.headline.and_then(|headline| headline.stderr);
            let metrics = result.metrics.iter().map(|(name, estimate)| (name.clone(), finite(estimate.value))).collect();
            let record = CellResult {
                key: key.clone(),
                label: label.clone(),
                contents,
                items: items.id.clone(),
                headline,
                stderr,
                metrics,
                seconds,
                notes: subject.notes.clone(),
                numbers,
            };
            results.add(record, items)?;
            loaded = Some((head, model));
            self.tell(label, headline, seconds, results, watch, listed);
            if watch.cancel.load(Ordering::Relaxed) {
                return Err(Error::new("cancelled"));
            }
        }
        Ok(())
    }

    /// Measures what is to be measured beside scores and has not been.
    fn run_measures(&self, evaluations: &mut Evaluations<'_>, results: &mut Results, watch: &Watch<'_>) -> Result<()> {
        let all: Vec<(Measure, String)> = measures(self.study).into_iter().map(|measure| (measure.clone(), measure.key(self))).collect();
        let missing: Vec<&(Measure, String)> = all.iter().filter(|(_, key)| !results.kept.measures.contains_key(key)).collect();
        for (done, (measure, _)) in missing.iter().enumerate() {
            (watch.begin)(&measure.label(self.study));
            let result = measure.run(self, evaluations, watch.cancel)?;
            let (label, left) = (result.label.clone(), missing.len() - done - 1);
            let seconds = Seconds { evaluate: result.seconds, ..Seconds::default() };
            results.add_measure(result)?;
            let (outcome, seconds_left) = (Outcome::Measured, seconds.evaluate * left as f64);
            (watch.cell)(StudyProgress { label, outcome, seconds, done: all.len() - left, total: all.len(), seconds_left });
            if watch.cancel.load(Ordering::Relaxed) {
                return Err(Error::new("cancelled"));
            }
        }
        Ok(())
    }

    fn tell(&self, label: String, headline: Option<f64>, seconds: Seconds, results: &Results, watch: &Watch<'_>, listed: &Listed) {
        let speed = self.speed(listed, &results.kept.cells);
        let missing: Vec<&(Cell, String)> = listed.cells.iter().filter(|(_, key)| !results.kept.cells.contains_key(key)).collect();
        let total = listed.cells.len() + listed.later;
        let seconds_left = missing.iter().map(|(cell, _)| speed.seconds(self, cell)).fold(0.0, |sum, seconds| sum + seconds);
        let outcome = Outcome::Scored(headline);
        (watch.cell)(StudyProgress { label, outcome, seconds, done: total - missing.len() - listed.later, total, seconds_left });
    }
}
