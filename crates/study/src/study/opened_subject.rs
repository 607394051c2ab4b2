//! Subjects in memory: found, or merged, and loaded with one head after another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use deltaic_checkpoint::{Config, Result, TensorInfo, TensorSource, Window};
use deltaic_eval::{LocalModel, LocalOptions, LocalSource};
use deltaic_merge::{MergeOptions, MergedInMemory, PlanOptions};
use serde_json::{Value, json};

use super::open::Open;
use super::results::Seconds;
use super::subject::Subject;

/// A subject's tensors, to be loaded with one head after another.
pub(super) struct OpenedSubject {
    name: String,
    id: String,
    tensors: Arc<dyn TensorSource>,
    config: Config,
    tokenizer: PathBuf,
    /// What the method says of its run.
    pub notes: Value,
    /// How long statistics and merging took.
    pub seconds: Seconds,
}

impl OpenedSubject {
    /// Opens or merges a subject.
    pub fn new(open: &Open<'_>, subject: &Subject, cancel: &AtomicBool) -> Result<Self> {
        let model = match subject {
            Subject::Base => None,
            Subject::FineTuned(model) => Some(*model),
            Subject::Merge(merge) => {
                let started = Instant::now();
                let recipe = open.recipe(merge)?;
                if let Some(statistics) = &open.statistics {
                    statistics.make(open, merge, &recipe, cancel)?;
                }
                let statistics_seconds = started.elapsed().as_secs_f64();
                let started = Instant::now();
                let merged = MergedInMemory::merge(recipe, PlanOptions::default(), &MergeOptions::default(), cancel, &|_| {})?;
                return Ok(Self {
                    name: subject.label(open.study),
                    id: merged.id.clone(),
                    config: merged.config.clone(),
                    tokenizer: merged.tokenizer.clone(),
                    notes: notes(&merged),
                    tensors: Arc::new(merged),
                    seconds: Seconds { statistics: statistics_seconds, merge: started.elapsed().as_secs_f64(), evaluate: 0.0 },
                });
            }
        };
        let LocalSource { name, id, tensors, config, tokenizer } = open.models.open(model, open.places)?;
        Ok(Self { name, id, tensors: tensors.into(), config, tokenizer, notes: Value::Null, seconds: Seconds::default() })
    }

    /// Loads it, with the head of a model of the study.
    pub fn load(&self, open: &Open<'_>, head: Option<usize>) -> Result<LocalModel> {
        let head = head.map(|head| open.models.open(Some(head), open.places)).transpose()?;
        LocalModel::load(self.source(), head, LocalOptions::default())
    }

    /// Its tensors, to be loaded.
    pub fn source(&self) -> LocalSource {
        LocalSource {
            name: self.name.clone(),
            id: self.id.clone(),
            tensors: Box::new(Shared(Arc::clone(&self.tensors))),
            config: self.config.clone(),
            tokenizer: self.tokenizer.clone(),
        }
    }
}

/// What a merge says of itself: what was trimmed of each model, by its threshold, the share of deltas that are not zero, and the share of
/// those that was kept.
fn notes(merged: &MergedInMemory) -> Value {
    if merged.trims.is_empty() {
        return Value::Null;
    }
    let trims = merged.trims.iter().map(|trim| {
        let share = |part: Option<u64>, of: Option<u64>| part.zip(of).map(|(part, of)| part as f64 / of as f64);
        json!({
            "threshold": trim.threshold,
            "nonzero": share(trim.non_zero, Some(trim.elements)),
            "kept": if trim.threshold == 0.0 { Some(1.0) } else { share(trim.kept, trim.non_zero) },
        })
    });
    json!({"trims": trims.collect::<Vec<_>>()})
}

/// A source that several models are loaded from.
#[derive(Debug)]
struct Shared(Arc<dyn TensorSource>);

impl TensorSource for Shared {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        self.0.tensors()
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        self.0.read(name, start, count, window)
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        self.0.metadata()
    }

    fn file_paths(&self) -> Vec<PathBuf> {
        self.0.file_paths()
    }
}
