//! Merges: the best point of each grid, and what DARE before it changes.

use std::collections::HashMap;

use deltaic_checkpoint::Result;
use rayon::prelude::*;
use serde_json::Value;

use super::effect::{Effect, Spread, correct};
use super::finished::{Finished, difference, mean_over};
use crate::study::cells::{Cell, Part, Scoring, best_point, dare_of, parts_of, points_of, relative, sets_of};
use crate::study::schema::{MergeMethod, Merges};
use crate::study::subject::{Drop, Merge, Point, Subject};

/// A set of models merged by a method at one point of its grid, without DARE and with it.
#[derive(Debug, Clone)]
pub struct MergeFinding {
    /// The models, by their places in the study's list.
    pub models: Vec<usize>,
    /// The method with its parameters.
    pub point: Point,
    /// All points of the grid from which it was chosen, with their scores on the items of the choice; empty where there was no choice.
    pub grid: Vec<GridPoint>,
    /// The score without DARE: the mean over tasks of the headline by the fine-tune's own on the same items.
    pub score: Spread,
    /// Of each model's task: its headline without DARE.
    pub headlines: Vec<(usize, f64)>,
    /// With DARE before the method, by rate.
    pub with_dare: Vec<WithDare>,
    /// The rate with the best score, by its place in `with_dare`: it had more tries than the merge without DARE.
    pub best_rate: Option<usize>,
    /// What the method says of its run without DARE.
    pub notes: Value,
}

/// A point of a grid.
#[derive(Debug, Clone)]
pub struct GridPoint {
    /// The method with its parameters.
    pub point: Point,
    /// Its score on the items on which points are compared.
    pub score: f64,
}

/// A merge with DARE before the method.
#[derive(Debug, Clone)]
pub struct WithDare {
    /// The drop rate.
    pub rate: f64,
    /// The score over replicates.
    pub score: Spread,
    /// The score less that without DARE.
    pub effect: Effect,
    /// What the method says of its run, in the first replicate.
    pub notes: Value,
}

/// All merges of which the part without DARE has been run.
pub fn find(finished: &Finished<'_>) -> Result<Vec<MergeFinding>> {
    let study = finished.open.study;
    let Some(merges) = &study.merges else { return Ok(Vec::new()) };
    let (_, reported) = parts_of(merges);
    let looking = Looking { finished, merges, reported, own: own_series(finished, merges, reported)? };
    let pairs: Vec<(Vec<usize>, &MergeMethod)> =
        sets_of(study, merges).into_iter().flat_map(|set| merges.methods.iter().map(move |method| (set.clone(), method))).collect();
    let found: Vec<Vec<MergeFinding>> = pairs.par_iter().map(|(set, method)| looking.at(set, method)).collect::<Result<_>>()?;
    let mut found: Vec<MergeFinding> = found.into_iter().flatten().collect();
    // All tests of DARE before a merge are one family.
    correct(found.iter_mut().flat_map(|finding| &mut finding.with_dare).map(|with_dare| &mut with_dare.effect));
    Ok(found)
}

/// Of each model that has been run on its own task, its headline in each resample of the reported items.
fn own_series(finished: &Finished<'_>, merges: &Merges, reported: Part) -> Result<HashMap<usize, Vec<f64>>> {
    let study = finished.open.study;
    let mut own = HashMap::new();
    for model in sets_of(study, merges).into_iter().flatten() {
        let cell = Cell { subject: Subject::FineTuned(model), task: study.task_of(model), part: reported };
        if finished.result(&cell).is_some() && !own.contains_key(&model) {
            own.insert(model, finished.over_resamples(&cell)?);
        }
    }
    Ok(own)
}

struct Looking<'a> {
    finished: &'a Finished<'a>,
    merges: &'a Merges,
    reported: Part,
    own: HashMap<usize, Vec<f64>>,
}

impl Looking<'_> {
    /// The findings about a set and a method: one where a point is chosen, else one for each point.
    fn at(&self, set: &[usize], method: &MergeMethod) -> Result<Vec<MergeFinding>> {
        let points = points_of(method);
        let (grid, chosen) = match self.merges.selection {
            Some(_) if points.len() > 1 => {
                let best = self.with_scoring(|scoring| best_point(scoring, self.merges, set, method));
                let Some((best, _)) = best else { return Ok(Vec::new()) };
                (self.grid(set, &points), vec![best])
            }
            _ => (Vec::new(), points),
        };
        let found = chosen.into_iter().map(|point| self.point(set, method, point, &grid));
        Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn grid(&self, set: &[usize], points: &[Point]) -> Vec<GridPoint> {
        let (compared, _) = parts_of(self.merges);
        let score = |point: &Point| {
            let subject = merged(set, point, None);
            let score = self.with_scoring(|scoring| scoring.score(set, &subject, compared));
            score.map(|score| GridPoint { point: point.clone(), score })
        };
        points.iter().filter_map(score).collect()
    }

    /// What is found at one point; none as long as it has not been run without DARE.
    fn point(&self, set: &[usize], method: &MergeMethod, point: Point, grid: &[GridPoint]) -> Result<Option<MergeFinding>> {
        let study = self.finished.open.study;
        let plain = merged(set, &point, None);
        let Some((value, series)) = self.score(set, &plain)? else { return Ok(None) };
        let mut with_dare: Vec<WithDare> = Vec::new();
        for drops in dare_of(study, self.merges, method).chunk_by(|a, b| a.rate == b.rate) {
            let (mut values, mut runs, mut notes) = (Vec::new(), Vec::new(), Value::Null);
            for drop in drops {
                let subject = merged(set, &point, Some(*drop));
                let Some((value, series)) = self.score(set, &subject)? else { continue };
                if values.is_empty() {
                    notes = self.notes(set, &subject);
                }
                values.push(value);
                runs.push(series);
            }
            if !values.is_empty() {
                let resampled = mean_over(&runs);
                let score = Spread::new(values, &resampled);
                let effect = Effect::new(score.mean - value, &difference(&resampled, &series));
                with_dare.push(WithDare { rate: drops[0].rate, score, effect, notes });
            }
        }
        let of_task = |&model: &usize| {
            let task = study.task_of(model);
            let cell = Cell { subject: plain.clone(), task, part: self.reported };
            (task, self.finished.headline(&cell).unwrap_or(f64::NAN))
        };
        let best = (0..with_dare.len()).max_by(|&a, &b| with_dare[a].score.mean.total_cmp(&with_dare[b].score.mean));
        Ok(Some(MergeFinding {
            models: set.to_vec(),
            grid: grid.to_vec(),
            score: Spread::new(vec![value], &series),
            headlines: set.iter().map(of_task).collect(),
            with_dare,
            best_rate: best,
            notes: self.notes(set, &plain),
            point,
        }))
    }

    /// The score of a subject on the reported items, and in each resample of them; none as long as a cell is missing.
    fn score(&self, set: &[usize], subject: &Subject) -> Result<Option<(f64, Vec<f64>)>> {
        let Some(value) = self.with_scoring(|scoring| scoring.score(set, subject, self.reported)) else { return Ok(None) };
        let mut runs = Vec::new();
        for &model in set {
            let task = self.finished.open.study.task_of(model);
            let Some(own) = self.own.get(&model) else { return Ok(None) };
            let series = self.finished.over_resamples(&Cell { subject: subject.clone(), task, part: self.reported })?;
            let lower = self.finished.lower_is_better(task);
            runs.push(series.iter().zip(own).map(|(&headline, &own)| relative(headline, own, lower)).collect());
        }
        Ok(Some((value, mean_over(&runs))))
    }

    fn notes(&self, set: &[usize], subject: &Subject) -> Value {
        let task = set.first().map_or(0, |&model| self.finished.open.study.task_of(model));
        let cell = Cell { subject: subject.clone(), task, part: self.reported };
        self.finished.result(&cell).map(|result| result.notes.clone()).unwrap_or_default()
    }

    fn with_scoring<T>(&self, look: impl FnOnce(&Scoring<'_>) -> T) -> T {
        let headline = |cell: &Cell| self.finished.headline(cell);
        let open = self.finished.open;
        look(&Scoring { study: open.study, headline: &headline, lower_is_better: &open.tasks.lower_is_better })
    }
}

fn merged(set: &[usize], point: &Point, drop: Option<Drop>) -> Subject {
    Subject::Merge(Merge { models: set.to_vec(), method: point.clone(), drop })
}
