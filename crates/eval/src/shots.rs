//! Solved examples before the question: which ones, and their text.

use std::collections::HashMap;

use deltaic_checkpoint::{Error, Result, shorten};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::data::{Data, Item};
use crate::requests::example_text;
use crate::task::{Kind, Shots};

/// The examples of a task, chosen and written out.
#[derive(Debug)]
pub struct ShotTexts<'a> {
    kind: Kind<'a>,
    spec: &'a Shots,
    pool: Vec<Item>,
    count: usize,
    /// For each value of the task's `group` (one where it has none) the numbers of its examples in the order in which they are taken.
    groups: HashMap<String, Vec<usize>>,
}

/// Which examples stood before the questions, for records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShotsTaken {
    /// How many before each question.
    pub count: usize,
    /// The seed by which they were drawn; none where they are the first ones.
    pub seed: Option<u64>,
    /// The ids of the examples, by group; one group of no name where the task has none.
    pub ids: std::collections::BTreeMap<String, Vec<String>>,
}

impl<'a> ShotTexts<'a> {
    /// Chooses `count` of the examples: the first ones, or with `seed` drawn ones, the same on any machine.
    ///
    /// # Errors
    /// Fewer examples than asked for.
    pub fn new(kind: Kind<'a>, spec: &'a Shots, data: Data, count: usize, seed: Option<u64>) -> Result<Self> {
        let mut groups: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, item) in data.items.iter().enumerate() {
            groups.entry(group_of(spec, item)?).or_default().push(at);
        }
        if let Some(seed) = seed {
            // The order of the hashes of seed and number is a shuffle that needs no generator.
            let key = |at: &usize| {
                let bytes = Sha256::new().chain_update(seed.to_le_bytes()).chain_update((*at as u64).to_le_bytes()).finalize();
                (<[u8; 32]>::from(bytes), *at)
            };
            groups.values_mut().for_each(|group| group.sort_by_cached_key(key));
        }
        let short = groups.iter().filter(|(_, group)| group.len() < count).min_by_key(|(_, group)| group.len());
        if let Some((name, group)) = short {
            let files: Vec<String> = data.files.iter().map(|path| path.display().to_string()).collect();
            let of = if name.is_empty() { String::new() } else { format!(" of {}", shorten(name)) };
            let message = format!("{}: expected {count} solved examples{of}, found {}", files.join(", "), group.len());
            return Err(Error::new(message).help("ask for fewer with --shots K"));
        }
        Ok(Self { kind, spec, pool: data.items, count, groups })
    }

    /// The examples before a question. The question itself is never one of them.
    pub fn before(&self, item: &Item) -> Result<String> {
        let group = group_of(self.spec, item)?;
        let Some(order) = self.groups.get(&group) else {
            return Err(Error::new(format!("{}: there are no solved examples of {}", item.place, shorten(&group))));
        };
        let mut text = String::new();
        let others = order.iter().map(|&at| &self.pool[at]).filter(|shot| shot.place != item.place || shot.index != item.index);
        for shot in others.take(self.count) {
            let example = example_text(self.kind, shot).map_err(|error| error.within(std::path::Path::new(&shot.place)))?;
            text += &example;
            text += &self.spec.separator;
        }
        Ok(text)
    }

    /// Which examples are taken, for records.
    pub fn taken(&self, seed: Option<u64>) -> ShotsTaken {
        let ids = |order: &Vec<usize>| order.iter().take(self.count).map(|&at| self.pool[at].id.clone()).collect();
        ShotsTaken { count: self.count, seed, ids: self.groups.iter().map(|(name, order)| (name.clone(), ids(order))).collect() }
    }
}

fn group_of(spec: &Shots, item: &Item) -> Result<String> {
    let value = spec.group.as_ref().map(|group| group.evaluate(&item.fields)).transpose();
    let value = value.map_err(|error| error.within(std::path::Path::new(&item.place)))?;
    Ok(value.map(|value| value.to_string()).unwrap_or_default())
}
