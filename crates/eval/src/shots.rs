//! Solved examples before the question: which ones, and their text.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use deltaic_checkpoint::{Error, Result, shorten};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::data::{Data, Item};
use crate::requests::example_text;
use crate::task::{Kind, Shots};

/// The examples of a task, in the order in which they are taken.
#[derive(Debug)]
pub struct ShotTexts<'a> {
    kind: Kind<'a>,
    spec: &'a Shots,
    pool: Vec<Item>,
    /// Where the pool is, for messages.
    place: String,
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
    pub ids: BTreeMap<String, Vec<String>>,
    /// By the id of an item that is one of these examples itself: the ids of those that it had.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ids_without_the_item: BTreeMap<String, Vec<String>>,
}

impl<'a> ShotTexts<'a> {
    /// Takes `count` of the examples: the first ones, or with `seed` drawn ones, the same on any machine.
    ///
    /// # Errors
    /// An example without the task's group.
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
        let files: Vec<String> = data.files.iter().map(|path| path.display().to_string()).collect();
        Ok(Self { kind, spec, pool: data.items, place: files.join(", "), count, groups })
    }

    /// Whether there are examples enough for each of the items.
    ///
    /// # Errors
    /// There are fewer than asked for, the item itself not counted.
    pub fn check(&self, items: &[Item]) -> Result<()> {
        items.iter().try_for_each(|item| self.chosen(item).map(drop))
    }

    /// The examples before a question. The question itself is never one of them.
    ///
    /// # Errors
    /// As [`Self::check`], or an example that the task's templates do not fit.
    pub fn before(&self, item: &Item) -> Result<String> {
        let mut text = String::new();
        for at in self.chosen(item)?.1 {
            let shot = &self.pool[at];
            text += &example_text(self.kind, shot).map_err(|error| error.within(Path::new(&shot.place)))?;
            text += &self.spec.separator;
        }
        Ok(text)
    }

    /// An item's group, and the numbers of its examples.
    fn chosen(&self, item: &Item) -> Result<(String, Vec<usize>)> {
        let group = group_of(self.spec, item)?;
        let Some(order) = self.groups.get(&group) else {
            return Err(Error::new(format!("{}: there are no solved examples of {}", item.place, shorten(&group))));
        };
        let is_other = |&&at: &&usize| self.pool[at].origin != item.origin;
        let chosen: Vec<usize> = order.iter().filter(is_other).take(self.count).copied().collect();
        if chosen.len() == self.count {
            return Ok((group, chosen));
        }
        let of = if group.is_empty() { String::new() } else { format!(" of {}", shorten(&group)) };
        let beside = if chosen.len() < order.len() { " beside the question itself" } else { "" };
        let message = format!("{}: expected {} solved examples{of}{beside}, found {}", self.place, self.count, chosen.len());
        Err(Error::new(message).help("ask for fewer with --shots K"))
    }

    /// Which examples stand before these items, for records.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn taken(&self, seed: Option<u64>, items: &[Item]) -> Result<ShotsTaken> {
        let ids = |numbers: &[usize]| numbers.iter().map(|&at| self.pool[at].id.clone()).collect();
        let mut taken = ShotsTaken { count: self.count, seed, ids: BTreeMap::new(), ids_without_the_item: BTreeMap::new() };
        for item in items {
            let (group, chosen) = self.chosen(item)?;
            let usual = &self.groups[&group][..self.count];
            if chosen != usual {
                taken.ids_without_the_item.insert(item.id.clone(), ids(&chosen));
            }
            taken.ids.entry(group).or_insert_with(|| ids(usual));
        }
        Ok(taken)
    }
}

fn group_of(spec: &Shots, item: &Item) -> Result<String> {
    let value = spec.group.as_ref().map(|group| group.evaluate(&item.fields)).transpose();
    let value = value.map_err(|error| error.within(Path::new(&item.place)))?;
    Ok(value.map(|value| value.to_string()).unwrap_or_default())
}
