//! The list of cells: what a study evaluates on what.

use std::collections::BTreeMap;

use super::schema::{MergeMethod, Merges, NamedSet, OnTasks, Operation, SelectOn, Selection, Set, Single, Study};
use super::subject::{Drop, Merge, Point, Subject};

/// Which of a task's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// All of them.
    All,
    /// Those on which points of a grid are compared.
    Selection,
    /// The others, on which results are reported.
    Report,
}

/// A subject on a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What is evaluated.
    pub subject: Subject,
    /// On which task, by its place in the study's list.
    pub task: usize,
    /// On which of its items.
    pub part: Part,
}

/// The cells of a study, as far as they are known.
#[derive(Debug, Clone)]
pub struct Cells {
    /// In the order in which they are to be run: replicate 0 of everything, then replicate 1.
    pub known: Vec<Cell>,
    /// How many more there will be when the best points of grids are chosen.
    pub later: usize,
}

/// Lists the cells of a study; `headline` says what is known of cells that have been run, from which the best points of grids are chosen.
pub fn cells(study: &Study, headline: &dyn Fn(&Cell) -> Option<f64>, lower_is_better: &[bool]) -> Cells {
    let mut cells = Vec::new();
    if study.evaluate_base {
        cells.extend(on_tasks(&Subject::Base, 0..study.tasks.len(), Part::All));
    }
    for single in &study.single {
        cells.extend(cells_of_single(study, single));
    }
    let mut later = 0;
    if let Some(merges) = &study.merges {
        let scoring = Scoring { study, headline, lower_is_better };
        for set in sets_of(study, merges) {
            for method in &merges.methods {
                let (found, open) = cells_of_merges(&scoring, merges, &set, method);
                cells.extend(found);
                later += open;
            }
        }
    }
    Cells { known: in_order(cells), later }
}

/// Replicate by replicate, each cell once; otherwise the order stays.
fn in_order(mut cells: Vec<Cell>) -> Vec<Cell> {
    cells.sort_by_key(|cell| cell.subject.replicate());
    let mut distinct: Vec<Cell> = Vec::with_capacity(cells.len());
    for cell in cells {
        if !distinct.contains(&cell) {
            distinct.push(cell);
        }
    }
    distinct
}

fn on_tasks(subject: &Subject, tasks: impl IntoIterator<Item = usize>, part: Part) -> Vec<Cell> {
    tasks.into_iter().map(|task| Cell { subject: subject.clone(), task, part }).collect()
}

fn cells_of_single(study: &Study, single: &Single) -> Vec<Cell> {
    let mut cells = Vec::new();
    for model in models_of(study, single) {
        let tasks = tasks_of(study, single, model);
        for &rate in &single.drop_rates {
            for subject in subjects_at(study, single, model, rate) {
                cells.extend(on_tasks(&subject, tasks.iter().copied(), Part::All));
            }
        }
    }
    cells
}

/// The models of a block of `single`, by their places.
pub fn models_of(study: &Study, single: &Single) -> Vec<usize> {
    match &single.models {
        None => (0..study.models.len()).collect(),
        Some(names) => names.iter().filter_map(|name| study.model(name)).collect(),
    }
}

/// The tasks on which a block of `single` has a model evaluated, by their places.
pub fn tasks_of(study: &Study, single: &Single, model: usize) -> Vec<usize> {
    match single.tasks {
        OnTasks::Own => vec![study.task_of(model)],
        OnTasks::All => (0..study.tasks.len()).collect(),
    }
}

/// What is made of a model at a drop rate: by every operation, in every replicate.
fn subjects_at(study: &Study, single: &Single, model: usize, rate: f64) -> Vec<Subject> {
    if rate == 0.0 {
        return vec![Subject::FineTuned(model)];
    }
    drops_of(study, single, rate).into_iter().map(|drop| Subject::Merge(Merge::of_one(model, drop))).collect()
}

/// What a block of `single` does at a drop rate: every operation, in every replicate. At rate 0 it does nothing.
pub fn drops_of(study: &Study, single: &Single, rate: f64) -> Vec<Drop> {
    if rate == 0.0 {
        return Vec::new();
    }
    let drops = single.operations.iter().flat_map(|&operation| {
        let replicates = if operation.is_random() { single.replicates.unwrap_or(study.replicates) } else { 1 };
        (0..replicates).map(move |replicate| Drop { operation, rate, replicate })
    });
    drops.collect()
}

/// The cells of one set of models by one method, and how many more there will be when its best point is chosen.
fn cells_of_merges(scoring: &Scoring<'_>, merges: &Merges, set: &[usize], method: &MergeMethod) -> (Vec<Cell>, usize) {
    let study = scoring.study;
    let tasks = || set.iter().map(|&model| study.task_of(model));
    let (compared, reported) = parts_of(merges);
    // What a merge's score is relative to.
    let mut cells: Vec<Cell> =
        set.iter().flat_map(|&model| on_tasks(&Subject::FineTuned(model), [study.task_of(model)], reported)).collect();
    let points = points_of(method);
    let merge = |point: &Point, drop: Option<Drop>| Merge { models: set.to_vec(), method: point.clone(), drop };
    let on_reported = |point: &Point| -> Vec<Cell> {
        let drops = std::iter::once(None).chain(dare_of(study, merges, method).into_iter().map(Some));
        drops.flat_map(|drop| on_tasks(&Subject::Merge(merge(point, drop)), tasks(), reported)).collect()
    };
    if merges.selection.is_none() || points.len() == 1 {
        cells.extend(points.iter().flat_map(on_reported));
        return (cells, 0);
    }
    cells.extend(set.iter().flat_map(|&model| on_tasks(&Subject::FineTuned(model), [study.task_of(model)], compared)));
    cells.extend(points.iter().flat_map(|point| on_tasks(&Subject::Merge(merge(point, None)), tasks(), compared)));
    match best_point(scoring, merges, set, method) {
        Some((best, _)) => {
            cells.extend(on_reported(&best));
            (cells, 0)
        }
        None => {
            let later = on_reported(&points[0]).len();
            (cells, later)
        }
    }
}

/// On which items points are compared, and on which results are reported.
pub fn parts_of(merges: &Merges) -> (Part, Part) {
    match merges.selection {
        Some(Selection { select: SelectOn::Half, .. }) => (Part::Selection, Part::Report),
        Some(Selection { select: SelectOn::Test, .. }) | None => (Part::All, Part::All),
    }
}

/// DARE before a method, at every rate in every replicate.
pub fn dare_of(study: &Study, merges: &Merges, method: &MergeMethod) -> Vec<Drop> {
    let rates = method.drop_rates.as_ref().unwrap_or(&merges.drop_rates);
    let replicates = merges.replicates.unwrap_or(study.replicates);
    let at = |&rate: &f64| (0..replicates).map(move |replicate| Drop { operation: Operation::Dare, rate, replicate });
    rates.iter().filter(|rate| **rate > 0.0).flat_map(at).collect()
}

/// The point of a method's grid with the best score on the items on which points are compared, the first of equal ones, and its score. None
/// as long as a cell is missing.
pub fn best_point(scoring: &Scoring<'_>, merges: &Merges, set: &[usize], method: &MergeMethod) -> Option<(Point, f64)> {
    let (compared, _) = parts_of(merges);
    let mut best: Option<(Point, f64)> = None;
    for point in points_of(method) {
        let subject = Subject::Merge(Merge { models: set.to_vec(), method: point.clone(), drop: None });
        let score = scoring.score(set, &subject, compared)?;
        if best.as_ref().is_none_or(|(_, highest)| score > *highest || highest.is_nan()) {
            best = Some((point, score));
        }
    }
    best
}

/// What is needed for scores of merges.
pub struct Scoring<'a> {
    /// The study.
    pub study: &'a Study,
    /// The headline of a cell that has been run.
    pub headline: &'a dyn Fn(&Cell) -> Option<f64>,
    /// Of each task, whether lower headlines are better.
    pub lower_is_better: &'a [bool],
}

impl Scoring<'_> {
    /// The score of a merge: the mean over its models' tasks of its headline by the fine-tune's own on the same items, or the inverse where
    /// lower is better.
    pub fn score(&self, set: &[usize], subject: &Subject, part: Part) -> Option<f64> {
        let ratio = |&model: &usize| {
            let task = self.study.task_of(model);
            let merged = (self.headline)(&Cell { subject: subject.clone(), task, part })?;
            let own = (self.headline)(&Cell { subject: Subject::FineTuned(model), task, part })?;
            Some(relative(merged, own, self.lower_is_better[task]))
        };
        let ratios: Vec<f64> = set.iter().map(ratio).collect::<Option<_>>()?;
        Some(ratios.iter().sum::<f64>() / ratios.len() as f64)
    }
}

/// A headline by that of the fine-tune, such that more is better. Not a number where the fine-tune's is not above 0.
pub fn relative(headline: f64, own: f64, lower_is_better: bool) -> f64 {
    match lower_is_better {
        _ if own <= 0.0 => f64::NAN,
        true => own / headline,
        false => headline / own,
    }
}

/// The sets of models that are merged, each as places in the study's list.
pub fn sets_of(study: &Study, merges: &Merges) -> Vec<Vec<usize>> {
    let count = study.models.len();
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for set in &merges.sets {
        let found: Vec<Vec<usize>> = match set {
            Set::Named(NamedSet::Pairs) => (0..count).flat_map(|a| (a + 1..count).map(move |b| vec![a, b])).collect(),
            Set::Named(NamedSet::All) => vec![(0..count).collect()],
            Set::Listed(names) => vec![names.iter().filter_map(|name| study.model(name)).collect()],
        };
        for set in found {
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
    }
    sets
}

/// Every point of a method's grid, the last parameter running fastest.
pub fn points_of(method: &MergeMethod) -> Vec<Point> {
    let mut points = vec![method.parameters.clone()];
    for (name, values) in &method.grid {
        let with = |parameters: &BTreeMap<String, f64>| -> Vec<BTreeMap<String, f64>> {
            let set = |value: &f64| parameters.iter().map(|(name, value)| (name.clone(), *value)).chain([(name.clone(), *value)]).collect();
            values.iter().map(set).collect()
        };
        points = points.iter().flat_map(with).collect();
    }
    points.into_iter().map(|parameters| Point { method: method.method.clone(), preset: method.preset, parameters }).collect()
}
