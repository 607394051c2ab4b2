//! What is evaluated: the base, a fine-tune, or a merge, with the recipe that makes it.

use std::collections::BTreeMap;

use deltaic_merge::methods;
use serde_json::{Map, Value, json};

use super::schema::{Operation, Preset, Study};

/// The seeds of two replicates of a model are this far apart.
const SEEDS_APART: u64 = 1000;

/// What is evaluated.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// The base.
    Base,
    /// A fine-tune as it is, by its place in the study's list.
    FineTuned(usize),
    /// What a recipe makes of one fine-tune or more.
    Merge(Merge),
}

/// A merge, or what an operation makes of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Merge {
    /// The models, by their places in the study's list.
    pub models: Vec<usize>,
    /// By which method, and with which parameters.
    pub method: Point,
    /// What is dropped of each model before.
    pub drop: Option<Drop>,
}

/// A method with its parameters: a point of its grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// `merge_method` of a recipe.
    pub method: String,
    /// Whose meaning of it.
    pub preset: Preset,
    /// `parameters` of a recipe.
    pub parameters: BTreeMap<String, f64>,
}

impl Point {
    /// A point, as a table has it: `ties, lambda 0.5, mask_rate 0.8`.
    pub fn label(&self) -> String {
        let parameters = self.parameters.iter().map(|(name, value)| format!(", {name} {value}"));
        format!("{}{}", self.method, parameters.collect::<String>())
    }
}

/// What is dropped of each model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drop {
    /// What is done.
    pub operation: Operation,
    /// The share of elements that is dropped; above 0.
    pub rate: f64,
    /// Which repetition, with other seeds; 0 where nothing is random.
    pub replicate: u32,
}

impl Drop {
    /// The seed of a model: the same whether the model stands alone or is merged.
    pub fn seed(self, model: usize) -> u64 {
        SEEDS_APART * u64::from(self.replicate) + model as u64
    }

    /// `sparsify` of a recipe.
    fn sparsify(self) -> Value {
        let (kind, rescale, of) = match self.operation {
            Operation::Dare => ("dare", "inverse", "delta"),
            Operation::DropOnly => ("dare", "none", "delta"),
            Operation::Magnitude => ("magnitude", "none", "delta"),
            Operation::OfWeights => ("dare", "inverse", "weights"),
        };
        json!({"kind": kind, "drop_rate": self.rate, "rescale": rescale, "of": of})
    }
}

impl Merge {
    /// One model after an operation. The mean of one model is that model.
    pub fn of_one(model: usize, drop: Drop) -> Self {
        let method = Point { method: "average".to_owned(), preset: Preset::Paper, parameters: BTreeMap::new() };
        Self { models: vec![model], method, drop: Some(drop) }
    }

    /// The statistics that its method takes.
    pub fn statistics(&self) -> Option<methods::Statistics> {
        methods::find(&self.method.method, self.method.preset.of_recipe())?.statistics
    }

    /// What is made of one of the models before the method: what its statistics are made of.
    pub fn alone(&self, model: usize) -> Self {
        let method = Point { parameters: BTreeMap::new(), ..self.method.clone() };
        Self { models: vec![model], method, drop: self.drop }
    }

    /// The recipe, in which `names` says how things are called. YAML holds JSON: nothing has to be escaped by hand.
    pub fn recipe(&self, study: &Study, names: &Names<'_>) -> Value {
        let seed = |model: usize| self.drop.filter(|drop| drop.operation.is_random()).map(|drop| drop.seed(model));
        let statistics = self.statistics();
        let models = self.models.iter().map(|&model| {
            let mut entry = json!({"model": (names.model)(Some(model))});
            if let Some(seed) = seed(model) {
                entry["seed"] = seed.into();
            }
            if statistics.is_some() {
                entry["statistics"] = (names.statistics)(model);
            }
            entry
        });
        let mut recipe = Map::new();
        recipe.insert("preset".to_owned(), json!(self.method.preset));
        recipe.insert("merge_method".to_owned(), json!(self.method.method));
        recipe.insert("base_model".to_owned(), json!((names.model)(None)));
        recipe.insert("models".to_owned(), models.collect());
        if !self.method.parameters.is_empty() {
            recipe.insert("parameters".to_owned(), json!(self.method.parameters));
        }
        if let Some(drop) = self.drop {
            recipe.insert("sparsify".to_owned(), drop.sparsify());
        }
        if !study.exclude.is_empty() {
            recipe.insert("exclude".to_owned(), json!(study.exclude));
        }
        let block = match statistics {
            Some(methods::Statistics::Fisher) => study.statistics.fisher.clone().map(|block| ("fisher", block)),
            Some(methods::Statistics::Gram) => study.statistics.gram.clone().map(|block| ("gram", block)),
            None => None,
        };
        recipe.extend(block.map(|(key, block)| (key.to_owned(), block)));
        recipe.into()
    }
}

/// How a recipe calls models and their statistics: by their places, to be run; or by their content, to be known by.
pub struct Names<'a> {
    /// The base (None), or a model by its place in the study's list.
    pub model: &'a dyn Fn(Option<usize>) -> String,
    /// The statistics of a model.
    pub statistics: &'a dyn Fn(usize) -> Value,
}

impl Subject {
    /// In words, for progress and records.
    pub fn label(&self, study: &Study) -> String {
        match self {
            Self::Base => "base".to_owned(),
            Self::FineTuned(model) => study.models[*model].name.clone(),
            Self::Merge(merge) => {
                let names: Vec<&str> = merge.models.iter().map(|&model| study.models[model].name.as_str()).collect();
                let mut label = names.join("+");
                if merge.models.len() > 1 {
                    label += &format!(", {}", merge.method.label());
                }
                if let Some(drop) = merge.drop {
                    label += &format!(", {} {}", drop.operation.name(), drop.rate);
                    if drop.operation.is_random() {
                        label += &format!(", replicate {}", drop.replicate);
                    }
                }
                label
            }
        }
    }

    /// Which repetition it belongs to.
    pub fn replicate(&self) -> u32 {
        match self {
            Self::Merge(Merge { drop: Some(drop), .. }) => drop.replicate,
            _ => 0,
        }
    }

    /// What it is, by content, as `names` has it.
    pub fn contents(&self, study: &Study, names: &Names<'_>) -> Value {
        match self {
            Self::Base => json!({"model": (names.model)(None)}),
            Self::FineTuned(model) => json!({"model": (names.model)(Some(*model))}),
            Self::Merge(merge) => json!({"merge": merge.recipe(study, names)}),
        }
    }
}
