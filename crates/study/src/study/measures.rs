//! What a study measures beside scores: the ranges of deltas, and how near hidden states stay to the fine-tune's.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use deltaic_checkpoint::{ModelReference, Result};
use deltaic_merge::delta::{DeltaStudy, LIMITS, QUANTILES, StudyOptions, study as study_deltas};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cells::{Cell, Part, drops_of};
use super::items::{Evaluations, digest};
use super::open::{FORMAT, Open};
use super::opened_subject::OpenedSubject;
use super::schema::Study;
use super::subject::{Merge, Subject};
use crate::similarity::{Similarity, encoded_requests, similarity};
use crate::statistics::StatisticsModel;

/// Something that is measured once.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// The deltas of a model, by its place in the study's list.
    Deltas(usize),
    /// A model before and after an operation.
    Similarity(Merge),
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeasureResult {
    /// The hash of `contents`.
    pub key: String,
    /// In words.
    pub label: String,
    /// All that decides about the result.
    pub contents: serde_json::Value,
    /// How long it took.
    pub seconds: f64,
    /// Of deltas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deltas: Option<DeltaRanges>,
    /// Of hidden states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<Similarity>,
}

/// The ranges of a model's deltas, as `deltaic delta` has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeltaRanges {
    /// In words, what merging and dropping they allow.
    pub regime: String,
    /// How many were compared.
    pub elements: u64,
    /// The least and the greatest.
    pub range: [f64; 2],
    /// The mean magnitude.
    pub mean_magnitude: f64,
    /// The share that is zero.
    pub unchanged: f64,
    /// Pairs of a share and the quantile at it.
    pub quantiles: Vec<(f64, f64)>,
    /// Pairs of a magnitude and the share of deltas within it.
    pub within: Vec<(f64, f64)>,
    /// The figure, an SVG document.
    pub figure: String,
}

/// All that a study measures, those of replicate 0 first.
pub fn measures(study: &Study) -> Vec<Measure> {
    let mut measures: Vec<Measure> = Vec::new();
    if study.delta_ranges {
        measures.extend((0..study.models.len()).map(Measure::Deltas));
    }
    if let Some(single) = &study.similarity {
        let mut merges: Vec<Merge> = Vec::new();
        for model in 0..study.models.len() {
            let drops = single.drop_rates.iter().flat_map(|&rate| drops_of(study, single, rate));
            merges.extend(drops.map(|drop| Merge::of_one(model, drop)));
        }
        merges.sort_by_key(|merge| merge.drop.map_or(0, |drop| drop.replicate));
        measures.extend(merges.into_iter().map(Measure::Similarity));
    }
    measures
}

impl Measure {
    /// In words.
    pub fn label(&self, study: &Study) -> String {
        match self {
            Self::Deltas(model) => format!("deltas of {}", study.models[*model].name),
            Self::Similarity(merge) => format!("hidden states of {}", Subject::Merge(merge.clone()).label(study)),
        }
    }

    /// The cell on whose texts hidden states are compared.
    fn texts(study: &Study, merge: &Merge) -> Cell {
        Cell { subject: Subject::Merge(merge.clone()), task: study.task_of(merge.models[0]), part: Part::All }
    }

    /// The cell that has its texts; none of what takes no texts.
    pub fn cell(&self, study: &Study) -> Option<Cell> {
        match self {
            Self::Deltas(_) => None,
            Self::Similarity(merge) => Some(Self::texts(study, merge)),
        }
    }

    /// All that decides about the result. No path is in it.
    pub fn contents(&self, open: &Open<'_>) -> serde_json::Value {
        match self {
            Self::Deltas(model) => {
                let [base, model] = [None, Some(*model)].map(|model| open.models.id(model));
                json!({"format": FORMAT, "deltas": {"base": base, "model": model, "exclude": open.study.exclude}})
            }
            Self::Similarity(merge) => {
                let texts = &open.tasks.of(&Self::texts(open.study, merge)).contents;
                json!({"format": FORMAT, "similarity": open.recipe_by_content(merge), "texts": texts})
            }
        }
    }

    /// The hash of its contents.
    pub fn key(&self, open: &Open<'_>) -> String {
        digest(&self.contents(open).to_string())
    }

    /// Measures.
    pub fn run(&self, open: &Open<'_>, evaluations: &mut Evaluations<'_>, cancel: &AtomicBool) -> Result<MeasureResult> {
        let started = Instant::now();
        let (mut deltas, mut near) = (None, None);
        match self {
            Self::Deltas(model) => {
                let [base, model] = [None, Some(*model)].map(|model| ModelReference::parse(&open.models.reference(model)));
                let options = StudyOptions {
                    exclude: open.study.exclude.clone(),
                    working_directory: open.places.models.clone(),
                    ..StudyOptions::default()
                };
                deltas = Some(DeltaRanges::of(&study_deltas(&base?, &model?, &options, cancel, &|_| {})?));
            }
            Self::Similarity(merge) => {
                let first = StatisticsModel::new(open.models.open(Some(merge.models[0]), open.places)?, None)?;
                let (requests, _) = evaluations.of(&Self::texts(open.study, merge)).requests(Some(String::new()))?;
                let texts = encoded_requests(&first, &requests)?;
                let second = OpenedSubject::new(open, &Subject::Merge(merge.clone()), cancel)?;
                near = Some(similarity(&first, &StatisticsModel::new(second.source(), None)?, &texts, cancel)?);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let (key, label, contents) = (self.key(open), self.label(open.study), self.contents(open));
        Ok(MeasureResult { key, label, contents, seconds, deltas, similarity: near })
    }
}

impl DeltaRanges {
    fn of(study: &DeltaStudy) -> Self {
        let all = &study.whole;
        Self {
            regime: study.regime().meaning().to_owned(),
            elements: all.elements,
            range: [all.min, all.max],
            mean_magnitude: all.mean_magnitude,
            unchanged: all.unchanged_share(),
            quantiles: QUANTILES.iter().copied().zip(all.quantiles).collect(),
            within: LIMITS.iter().map(|&limit| as_written(limit)).zip(all.within_shares()).collect(),
            figure: study.to_svg(),
        }
    }
}

/// An f32 as the number that people write for it: 0.002, not 0.0020000000949949026.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
