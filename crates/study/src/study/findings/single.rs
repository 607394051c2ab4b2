//! Single models after an operation: score against drop rate, against the fine-tune, and one operation against another.

use deltaic_checkpoint::Result;
use rayon::prelude::*;

use super::effect::{Effect, Spread, correct};
use super::finished::{Finished, difference, mean_over};
use crate::study::cells::{Cell, Part, drops_of, models_of, relative, tasks_of};
use crate::study::schema::{Operation, Study};
use crate::study::subject::{Drop, Merge, Subject};

/// A model after an operation at a drop rate, on a task. At rate 0 it is the fine-tune.
#[derive(Debug, Clone)]
pub struct SinglePoint {
    /// The model, by its place in the study's list.
    pub model: usize,
    /// The task, likewise.
    pub task: usize,
    /// None: the fine-tune as it is.
    pub operation: Option<Operation>,
    /// The drop rate.
    pub rate: f64,
    /// The headline, over replicates.
    pub score: Spread,
    /// By the fine-tune's own headline, such that more is better.
    pub relative: f64,
    /// The headline less the fine-tune's.
    pub effect: Option<Effect>,
}

/// DARE against another operation.
#[derive(Debug, Clone)]
pub struct SingleComparison {
    /// The model, by its place in the study's list.
    pub model: usize,
    /// The task, likewise.
    pub task: usize,
    /// The other operation.
    pub other: Operation,
    /// The drop rate of both.
    pub rate: f64,
    /// DARE's headline less the other's.
    pub effect: Effect,
}

/// What is to be looked at: a model on a task after an operation at a rate, with its cells, one for each replicate.
struct Wanted {
    model: usize,
    task: usize,
    operation: Option<Operation>,
    rate: f64,
    cells: Vec<Cell>,
}

/// What was found for it: the point, and the mean over replicates in each resample.
struct Found {
    point: SinglePoint,
    resampled: Vec<f64>,
}

/// Points and comparisons of all blocks of `single`, as far as their cells have been run.
pub fn find(finished: &Finished<'_>) -> Result<(Vec<SinglePoint>, Vec<SingleComparison>)> {
    let wanted = wanted(finished);
    let look = |wanted: &Wanted| -> Result<Found> {
        let runs: Vec<Vec<f64>> = wanted.cells.iter().map(|cell| finished.over_resamples(cell)).collect::<Result<_>>()?;
        let values = wanted.cells.iter().filter_map(|cell| finished.headline(cell)).collect();
        let resampled = mean_over(&runs);
        let Wanted { model, task, operation, rate, .. } = *wanted;
        let point = SinglePoint { model, task, operation, rate, score: Spread::new(values, &resampled), relative: 1.0, effect: None };
        Ok(Found { point, resampled })
    };
    let mut found: Vec<Found> = wanted.par_iter().map(look).collect::<Result<_>>()?;
    against_the_fine_tune(finished, &mut found);
    let comparisons = compare_operations(&found);
    Ok((found.into_iter().map(|found| found.point).collect(), comparisons))
}

fn against_the_fine_tune(finished: &Finished<'_>, found: &mut [Found]) {
    let own: Vec<(usize, usize, f64, Vec<f64>)> = found
        .iter()
        .filter(|found| found.point.operation.is_none())
        .map(|found| (found.point.model, found.point.task, found.point.score.mean, found.resampled.clone()))
        .collect();
    for Found { point, resampled } in found.iter_mut() {
        let same = |(model, task, ..): &&(usize, usize, f64, Vec<f64>)| (*model, *task) == (point.model, point.task);
        let Some((_, _, headline, series)) = own.iter().find(same) else { continue };
        point.relative = relative(point.score.mean, *headline, finished.lower_is_better(point.task));
        if point.operation.is_some() {
            point.effect = Some(Effect::new(point.score.mean - headline, &difference(resampled, series)));
        }
    }
    // The tests of one operation are one family: over models, tasks and rates.
    for operation in [Operation::Dare, Operation::DropOnly, Operation::Magnitude, Operation::OfWeights] {
        let of_operation = found.iter_mut().filter(|found| found.point.operation == Some(operation));
        correct(of_operation.filter_map(|found| found.point.effect.as_mut()));
    }
}

fn compare_operations(found: &[Found]) -> Vec<SingleComparison> {
    let mut comparisons = Vec::new();
    for Found { point, resampled } in found.iter().filter(|found| found.point.operation == Some(Operation::Dare)) {
        let SinglePoint { model, task, rate, .. } = *point;
        for other in found {
            let at_the_same = (other.point.model, other.point.task, other.point.rate) == (model, task, rate);
            let Some(operation) = other.point.operation.filter(|&operation| at_the_same && operation != Operation::Dare) else { continue };
            let effect = Effect::new(point.score.mean - other.point.score.mean, &difference(resampled, &other.resampled));
            comparisons.push(SingleComparison { model, task, other: operation, rate, effect });
        }
    }
    for operation in [Operation::DropOnly, Operation::Magnitude, Operation::OfWeights] {
        correct(comparisons.iter_mut().filter(|comparison| comparison.other == operation).map(|comparison| &mut comparison.effect));
    }
    comparisons
}

/// Everything of which at least one replicate has been run, the fine-tunes first.
fn wanted(finished: &Finished<'_>) -> Vec<Wanted> {
    let study: &Study = finished.open.study;
    let mut all: Vec<Wanted> = Vec::new();
    for single in &study.single {
        for model in models_of(study, single) {
            for task in tasks_of(study, single, model) {
                let cell = |subject: Subject| Cell { subject, task, part: Part::All };
                all.push(Wanted { model, task, operation: None, rate: 0.0, cells: vec![cell(Subject::FineTuned(model))] });
                let mut drops: Vec<Drop> = single.drop_rates.iter().flat_map(|&rate| drops_of(study, single, rate)).collect();
                drops.sort_by_key(|drop| drop.operation);
                for drops in drops.chunk_by(|a, b| (a.operation, a.rate) == (b.operation, b.rate)) {
                    let cells = drops.iter().map(|drop| cell(Subject::Merge(Merge::of_one(model, *drop)))).collect();
                    all.push(Wanted { model, task, operation: Some(drops[0].operation), rate: drops[0].rate, cells });
                }
            }
        }
    }
    for wanted in &mut all {
        wanted.cells.retain(|cell| finished.result(cell).is_some());
    }
    all.retain(|wanted| !wanted.cells.is_empty());
    let mut seen = Vec::new();
    all.retain(|wanted| {
        let what = (wanted.model, wanted.task, wanted.operation, wanted.rate.to_bits());
        let new = !seen.contains(&what);
        seen.push(what);
        new
    });
    all
}
