//! What has been measured beside scores.

use super::finished::Finished;
use crate::similarity::Similarity;
use crate::study::measures::{DeltaRanges, Measure, measures};
use crate::study::subject::{Drop, Merge};

/// A model's hidden states after an operation.
pub struct Near<'a> {
    /// The model, by its place in the study's list.
    pub model: usize,
    /// What was dropped.
    pub drop: Drop,
    /// How near they are to its own.
    pub similarity: &'a Similarity,
}

/// The ranges of the models' deltas, with the models' places.
pub fn ranges<'f>(finished: &Finished<'f>) -> Vec<(usize, &'f DeltaRanges)> {
    let found = measures(finished.open.study).into_iter().filter_map(|measure| {
        let Measure::Deltas(model) = measure else { return None };
        Some((model, finished.kept.measures.get(&measure.key(finished.open))?.deltas.as_ref()?))
    });
    found.collect()
}

/// Hidden states by model, operation and rate.
pub fn near<'f>(finished: &Finished<'f>) -> Vec<Near<'f>> {
    let found = measures(finished.open.study).into_iter().filter_map(|measure| {
        let similarity = finished.kept.measures.get(&measure.key(finished.open))?.similarity.as_ref()?;
        let Measure::Similarity(Merge { models, drop: Some(drop), .. }) = measure else { return None };
        Some(Near { model: models[0], drop, similarity })
    });
    let mut found: Vec<Near<'_>> = found.collect();
    found.sort_by_key(|near| (near.model, near.drop.operation));
    found
}
