//! The examples from which statistics are made, as tokens.

use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Error, Result};
use deltaic_lm::{DecoderBatch, EncoderBatch};
use deltaic_merge::recipe::{DataSettings, DataSource, Order};
use sha2::{Digest, Sha256};

use super::model::StatisticsModel;
use super::permutation::permutation;
use super::{inputs, tasks};

/// One sequence of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Token ids, perhaps with padding.
    pub ids: Vec<u32>,
    /// Segment of each token; empty where all are 0.
    pub type_ids: Vec<u32>,
    /// For each token whether it is no padding.
    pub attended: Vec<bool>,
    /// The label, for regressions.
    pub label: Option<f32>,
    /// Of a decoder: the tokens from this one on are targets, each predicted by what stands before it; padding is not counted.
    pub scored_from: usize,
}

impl Example {
    /// A sequence without padding.
    pub fn new(ids: Vec<u32>, type_ids: Vec<u32>, label: Option<f32>, scored_from: usize) -> Self {
        Self { attended: vec![true; ids.len()], ids, type_ids, label, scored_from }
    }

    /// The tokens that are no padding.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        self.ids.iter().zip(&self.attended).filter(|(_, attended)| **attended).map(|(&id, _)| id).collect()
    }

    /// The length without the padding at the end.
    fn trimmed(&self) -> usize {
        self.attended.iter().rposition(|&attended| attended).map_or(0, |last| last + 1)
    }
}

/// Examples in the order in which they are taken.
#[derive(Debug, Clone)]
pub struct Examples {
    /// The examples.
    pub list: Vec<Example>,
    /// How many items were passed over since no token of theirs is a target.
    pub skipped: usize,
    digest: String,
}

impl Examples {
    /// Examples as they are.
    ///
    /// # Errors
    /// There is none, or one without tokens.
    pub fn new(list: Vec<Example>, skipped: usize) -> Result<Self> {
        if list.is_empty() {
            return Err(Error::new("statistics need at least one example, found none"));
        }
        if let Some(empty) = list.iter().position(|example| example.trimmed() == 0) {
            return Err(Error::new(format!("example {empty} has no token that is not padding")));
        }
        let digest = digest(&list);
        Ok(Self { list, skipped, digest })
    }

    /// The examples that `data` names, for a model; relative places are those of `folder`.
    ///
    /// # Errors
    /// Data that is missing or malformed, a task of a kind that the model cannot do, or fewer examples than asked for.
    pub fn read(data: &DataSettings, folder: &Path, model: &StatisticsModel) -> Result<Self> {
        let wanted = Wanted { count: data.examples, order: data.order };
        match &data.source {
            DataSource::Inputs(path) => inputs::read(&folder.join(path), wanted),
            DataSource::Task { task, path, split } => {
                // A name of a built-in task is none of a file, so it is left as it is.
                let task = if task.ends_with(".yml") || task.ends_with(".yaml") { in_folder(folder, task) } else { task.clone() };
                tasks::read(&task, &folder.join(path), split.as_deref(), wanted, model)
            }
        }
    }

    /// What they are known by: SHA-256 over tokens, masks, labels and targets, in hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

fn in_folder(folder: &Path, path: &str) -> String {
    let joined: PathBuf = folder.join(path);
    joined.to_string_lossy().into_owned()
}

/// How many examples are wanted, and in which order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub count: Option<usize>,
    pub order: Order,
}

impl Wanted {
    /// The numbers of all items in the order in which they are taken.
    pub fn order(self, items: usize) -> Vec<usize> {
        match self.order {
            Order::File => (0..items).collect(),
            Order::Permuted { seed } => permutation(seed, items),
        }
    }

    /// Examples made of items, in order, until there are as many as wanted; items that make none are passed over.
    ///
    /// # Errors
    /// There are fewer than wanted, or an error of `make`. `place` is named.
    pub fn take(self, place: &str, items: usize, mut make: impl FnMut(usize) -> Result<Option<Example>>) -> Result<Examples> {
        let (mut list, mut skipped) = (Vec::new(), 0);
        for item in self.order(items) {
            if self.count.is_some_and(|count| list.len() == count) {
                break;
            }
            match make(item)? {
                Some(example) => list.push(example),
                None => skipped += 1,
            }
        }
        if let Some(count) = self.count.filter(|&count| count != list.len()) {
            let found = list.len();
            return Err(Error::new(format!("{place}: expected {count} examples, found {found}")).help("ask for as many as there are"));
        }
        Examples::new(list, skipped).map_err(|error| error.within(Path::new(place)))
    }
}

fn digest(list: &[Example]) -> String {
    let mut hash = Sha256::new();
    for example in list {
        hash.update((example.ids.len() as u64).to_le_bytes());
        hash.update((example.scored_from as u64).to_le_bytes());
        // No label is another example than any label.
        hash.update(example.label.map_or([0; 5], |label| {
            let [a, b, c, d] = label.to_le_bytes();
            [1, a, b, c, d]
        }));
        for (at, (id, attended)) in example.ids.iter().zip(&example.attended).enumerate() {
            hash.update(id.to_le_bytes());
            hash.update(example.type_ids.get(at).copied().unwrap_or(0).to_le_bytes());
            hash.update([u8::from(*attended)]);
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How wide a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// As its examples are, which have the same one, padding included.
    Own,
    /// As the longest of its examples is without the padding at its end.
    Longest,
}

/// Examples side by side.
pub(crate) struct Batch {
    rows: usize,
    width: usize,
    ids: Vec<u32>,
    types: Vec<u32>,
    pub attended: Vec<bool>,
}

impl Batch {
    pub fn new(examples: &[Example], width: Width, pad_id: u32) -> Self {
        let length = |example: &Example| if width == Width::Own { example.ids.len() } else { example.trimmed() };
        let width = examples.iter().map(length).max().unwrap_or(0);
        let mut batch = Self { rows: examples.len(), width, ids: Vec::new(), types: Vec::new(), attended: Vec::new() };
        for example in examples {
            let kept = length(example);
            let padding = width - kept;
            batch.ids.extend(example.ids[..kept].iter().copied().chain(std::iter::repeat_n(pad_id, padding)));
            batch.attended.extend(example.attended[..kept].iter().copied().chain(std::iter::repeat_n(false, padding)));
            batch.types.extend((0..width).map(|at| if at < kept { example.type_ids.get(at).copied().unwrap_or(0) } else { 0 }));
        }
        batch
    }

    pub fn encoder(&self) -> Result<EncoderBatch> {
        EncoderBatch::new(self.rows, self.width, self.ids.clone(), self.types.clone(), self.attended.clone())
    }

    pub fn decoder(&self) -> Result<DecoderBatch> {
        DecoderBatch::new(self.rows, self.width, self.ids.clone(), self.attended.clone())
    }
}
