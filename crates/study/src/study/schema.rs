//! What a study's file says. `docs/studies.md` is the language.

use std::collections::BTreeMap;
use std::ops::Range;

use deltaic_checkpoint::Result;
use deltaic_eval::from_yaml;
use deltaic_merge::methods;
use serde::{Deserialize, Deserializer, Serialize};

/// A study.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Its name, for titles: lower-case letters, digits and hyphens.
    pub study: String,
    /// What it asks, in a sentence or two.
    pub description: String,
    /// The base model: a reference as in recipes, relative to the folder of models.
    pub base: String,
    /// Whether the base itself is evaluated, too.
    #[serde(default)]
    pub evaluate_base: bool,
    /// The fine-tunes. A model's place in the list, from 0, is part of its seeds.
    pub models: Vec<StudyModel>,
    /// What models are evaluated on.
    pub tasks: Vec<StudyTask>,
    /// Tensors that are neither dropped nor merged: regular expressions over whole names.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How often what is random is repeated, with other seeds.
    #[serde(default = "once")]
    pub replicates: u32,
    /// Studies of single models.
    #[serde(default)]
    pub single: Vec<Single>,
    /// Studies of merges.
    pub merges: Option<Merges>,
    /// How statistics are made, for methods that take them.
    #[serde(default)]
    pub statistics: Statistics,
    /// Whether the ranges of the models' deltas are measured.
    #[serde(default)]
    pub delta_ranges: bool,
    /// How near the hidden states of models stay to their own after operations, on the items of their tasks.
    pub similarity: Option<Single>,
}

/// How the statistics of Fisher merging and RegMean are made: of each model on the training split of its own task.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Statistics {
    /// How many examples.
    pub examples: usize,
    /// In which order they are taken.
    pub order: ExampleOrder,
    /// Of a permuted order: the seed, 32 bits.
    pub seed: u32,
    /// `fisher` of a recipe.
    pub fisher: Option<serde_json::Value>,
    /// `gram` of a recipe.
    pub gram: Option<serde_json::Value>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self { examples: 256, order: ExampleOrder::Permuted, seed: 0, fisher: None, gram: None }
    }
}

/// In which order examples are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExampleOrder {
    /// As they stand.
    File,
    /// Permuted by the seed, as NumPy's `RandomState` does.
    Permuted,
}

fn once() -> u32 {
    1
}

/// A fine-tune of the study.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyModel {
    /// Its name in the study.
    pub name: String,
    /// A reference as in recipes (`path`, `path+adapter`), relative to the folder of models.
    pub model: String,
    /// The name of the task that it was fine-tuned on; for classification its head is that task's.
    pub task: String,
}

/// A task of the study.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyTask {
    /// Its name in the study.
    pub name: String,
    /// A task of `deltaic eval --list`, or the path of a task's file, relative to the study's folder.
    pub task: String,
    /// Folder or file of its data, relative to the folder of data.
    pub data: Option<String>,
    /// Only these of the items, `A..B`, counted from 0, without B.
    pub items: Option<ItemRange>,
    /// The system's message, for tasks that have one.
    pub system: Option<String>,
    /// The split from which statistics are made, a file's stem; `train` without it.
    pub statistics_split: Option<String>,
}

/// `A..B`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRange(pub Range<usize>);

impl<'de> Deserialize<'de> for ItemRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bounds = text.split_once("..").and_then(|(from, to)| Some(from.trim().parse().ok()?..to.trim().parse().ok()?));
        let range: Option<Range<usize>> = bounds.filter(|range: &Range<usize>| range.start < range.end);
        range.map(Self).ok_or_else(|| serde::de::Error::custom("expected items as A..B, with A below B"))
    }
}

/// What is done to a single model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Deltas are dropped at random, the rest is divided by 1 - rate.
    Dare,
    /// Deltas are dropped at random (with DARE's masks), the rest stays as it is.
    DropOnly,
    /// The smallest deltas of each tensor are dropped, the rest stays as it is.
    Magnitude,
    /// The fine-tuned weights themselves are dropped at random (with DARE's masks), the rest is divided by 1 - rate.
    OfWeights,
}

impl Operation {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dare => "dare",
            Self::DropOnly => "drop_only",
            Self::Magnitude => "magnitude",
            Self::OfWeights => "of_weights",
        }
    }

    /// Its name in titles and tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Dare => "DARE",
            Self::DropOnly => "DropOnly",
            Self::Magnitude => "magnitude pruning",
            Self::OfWeights => "dropping weights",
        }
    }

    /// Whether it draws a mask, so that a seed matters.
    pub fn is_random(self) -> bool {
        self != Self::Magnitude
    }
}

/// A study of single models: every operation at every drop rate. Rate 0 is the fine-tune as it is, once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Single {
    /// Which models, by name; all without it.
    pub models: Option<Vec<String>>,
    /// On which tasks.
    #[serde(default)]
    pub tasks: OnTasks,
    /// What is done to them.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// Shares of elements that are dropped, 0 to 1.
    pub drop_rates: Vec<f64>,
    /// In place of the study's.
    pub replicates: Option<u32>,
}

/// On which tasks a model is evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTasks {
    /// On its own.
    #[default]
    Own,
    /// On every task of the study.
    All,
}

/// A study of merges: every set of models by every method, without DARE and with it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merges {
    /// Which models are merged: `pairs` (each two), `all` (all together), or lists of names.
    pub sets: Vec<Set>,
    /// By which methods.
    pub methods: Vec<MergeMethod>,
    /// DARE's rates; none: merges without DARE only.
    #[serde(default)]
    pub drop_rates: Vec<f64>,
    /// In place of the study's.
    pub replicates: Option<u32>,
    /// How the point of a grid is chosen that is compared with DARE; without it every point is reported, each with and without DARE.
    pub selection: Option<Selection>,
}

/// Models that are merged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Set {
    /// Several sets, by a word.
    Named(NamedSet),
    /// Models by their names.
    Listed(Vec<String>),
}

/// Sets by a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedSet {
    /// Each two models.
    Pairs,
    /// All models together.
    All,
}

/// A merge method with its grid.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeMethod {
    /// `merge_method` of a recipe.
    pub method: String,
    /// Whose meaning of it.
    #[serde(default)]
    pub preset: Preset,
    /// Parameters that are the same in all points.
    #[serde(default)]
    pub parameters: BTreeMap<String, f64>,
    /// Values of parameters: the grid has every combination.
    #[serde(default)]
    pub grid: BTreeMap<String, Vec<f64>>,
    /// DARE's rates, in place of those of all methods.
    pub drop_rates: Option<Vec<f64>>,
}

impl Preset {
    /// The same, as `deltaic_merge` has it.
    pub fn of_recipe(self) -> methods::Preset {
        match self {
            Self::Paper => methods::Preset::Paper,
            Self::Mergekit => methods::Preset::Mergekit,
        }
    }
}

/// `preset` of a recipe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// The authors' program.
    #[default]
    Paper,
    /// mergekit.
    Mergekit,
}

/// How a grid's best point is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// On what.
    #[serde(default)]
    pub select: SelectOn,
    /// Most items of a task on which points are compared.
    pub items: Option<usize>,
    /// Seed of the permutation that parts the items, 32 bits.
    #[serde(default)]
    pub seed: u32,
}

/// On what a grid's best point is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelectOn {
    /// On one half of the items; results are reported on the other.
    #[default]
    Half,
    /// On the items that are reported, as the paper does.
    Test,
}

impl Study {
    /// Reads the text of a study's file; `name` stands for the file in messages.
    ///
    /// # Errors
    /// What is no YAML, unknown or missing keys, names that are not there or stand twice, values out of their range.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let study: Self = from_yaml(name, text)?;
        study.check().map_err(|error| error.within(std::path::Path::new(name)))?;
        Ok(study)
    }

    /// The place of a model in the study's list.
    pub fn model(&self, name: &str) -> Option<usize> {
        self.models.iter().position(|model| model.name == name)
    }

    /// The place of a task in the study's list.
    pub fn task(&self, name: &str) -> Option<usize> {
        self.tasks.iter().position(|task| task.name == name)
    }

    /// The task that a model was fine-tuned on.
    pub fn task_of(&self, model: usize) -> usize {
        // `check` has seen that it is there.
        self.task(&self.models[model].task).unwrap_or_default()
    }

    /// The first model that was fine-tuned on a task: its head is the task's.
    pub fn model_of(&self, task: usize) -> Option<usize> {
        self.models.iter().position(|model| model.task == self.tasks[task].name)
    }
}
