//! A study whose models and data are there: its cells by their keys, their recipes, how long they take.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use deltaic_checkpoint::Result;
use deltaic_merge::recipe::{Document, Recipe, UnknownPolicy, parse};
use serde_json::{Value, json};

use super::cells::{Cell, Part, cells};
use super::items::{Tasks, digest};
use super::models::{Models, Places};
use super::needed_statistics::NeededStatistics;
use super::results::CellResult;
use super::schema::Study;
use super::subject::{Merge, Names, Subject};

/// What keys are made of is written in this form: another number makes other keys.
pub(super) const FORMAT: u32 = 1;

/// Cells with their keys.
pub(super) struct Listed {
    pub cells: Vec<(Cell, String)>,
    pub later: usize,
}

/// A study whose models and data are there.
pub(super) struct Open<'a> {
    pub study: &'a Study,
    pub places: &'a Places,
    pub models: &'a Models,
    pub tasks: Tasks,
    pub statistics: Option<NeededStatistics>,
}

impl Open<'_> {
    /// All that decides about a cell's result. No path is in it.
    pub fn contents(&self, cell: &Cell) -> Value {
        let subject = self.by_content(|names| cell.subject.contents(self.study, names));
        let mut contents = json!({"format": FORMAT, "subject": subject});
        if let Some(head) = self.tasks.head_of(self.study, cell) {
            contents["head"] = self.models.id(Some(head)).into();
        }
        contents["task"] = self.tasks.of(cell).contents.clone();
        contents
    }

    /// The recipe of a merge with models and statistics by their content.
    pub fn recipe_by_content(&self, merge: &Merge) -> Value {
        self.by_content(|names| merge.recipe(self.study, names))
    }

    fn by_content<T>(&self, with: impl FnOnce(&Names<'_>) -> T) -> T {
        let statistics = |model| self.statistics.as_ref().map_or(Value::Null, |statistics| statistics.contents(model));
        with(&Names { model: &|model| self.models.id(model), statistics: &statistics })
    }

    /// A cell's key: the hash of its contents.
    pub fn key(&self, cell: &Cell) -> String {
        digest(&self.contents(cell).to_string())
    }

    /// The cells that are known, given results.
    pub fn list(&self, results: &HashMap<String, CellResult>) -> Listed {
        // A headline that is not defined is known all the same: it is not a number.
        let headline = |cell: &Cell| results.get(&self.key(cell)).map(|result| result.headline.unwrap_or(f64::NAN));
        let found = cells(self.study, &headline, &self.tasks.lower_is_better);
        let with_key = |cell: Cell| {
            let key = self.key(&cell);
            (cell, key)
        };
        Listed { cells: found.known.into_iter().map(with_key).collect(), later: found.later }
    }

    /// A cell in words.
    pub fn label(&self, cell: &Cell) -> String {
        let part = match cell.part {
            Part::All => "",
            Part::Selection => ", selection half",
            Part::Report => ", report half",
        };
        format!("{} on {}{part}", cell.subject.label(self.study), self.study.tasks[cell.task].name)
    }

    /// Reads every kind of recipe before the first is run: what is wrong with a method or a parameter is said at once.
    pub fn check_recipes(&self, listed: &Listed) -> Result<()> {
        for (cell, _) in &listed.cells {
            if let Subject::Merge(merge) = &cell.subject {
                self.recipe(merge)?;
            }
        }
        Ok(())
    }

    /// The recipe of a merge, as it is run.
    pub fn recipe(&self, merge: &Merge) -> Result<Recipe> {
        let statistics = |model| {
            let file = self.statistics.as_ref().map(|statistics| statistics.file(self, merge, model));
            file.map_or(Value::Null, |file| std::path::absolute(&file).unwrap_or(file).to_string_lossy().into())
        };
        let names = Names { model: &|model| self.models.reference(model), statistics: &statistics };
        let text = merge.recipe(self.study, &names).to_string();
        let document = Document::new("the recipe of a cell", text, &self.places.models);
        parse(Arc::new(document), UnknownPolicy::Strict).map(|(recipe, _)| recipe)
    }

    /// How long items take, by the cells that are done.
    pub fn speed(&self, listed: &Listed, results: &HashMap<String, CellResult>) -> Speed {
        let mut seconds: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
        for (cell, key) in &listed.cells {
            let Some(result) = results.get(key) else { continue };
            let (sum, items) = seconds.entry(cell.task).or_default();
            *sum += result.seconds.evaluate + result.seconds.merge;
            *items += self.tasks.of(cell).items;
        }
        let per_item: BTreeMap<usize, f64> = seconds.into_iter().map(|(task, (sum, items))| (task, sum / items as f64)).collect();
        Speed { measured: !per_item.is_empty(), per_item }
    }
}

/// How long items take.
pub(super) struct Speed {
    per_item: BTreeMap<usize, f64>,
    pub measured: bool,
}

impl Speed {
    /// Seconds of a cell: by finished cells of the task, else of other tasks, else roughly by the number of parameters.
    pub fn seconds(&self, open: &Open<'_>, cell: &Cell) -> f64 {
        /// Of a short text that is classified, and of a text with its answer, on two cores: seconds for each parameter.
        const ROUGHLY: [f64; 2] = [7e-10, 6e-9];
        let roughly = ROUGHLY[usize::from(!open.tasks.is_classification(cell.task))] * open.models.parameters() as f64;
        let others = || (self.measured).then(|| self.per_item.values().sum::<f64>() / self.per_item.len() as f64);
        let per_item = self.per_item.get(&cell.task).copied().or_else(others).unwrap_or(roughly);
        per_item * open.tasks.of(cell).items as f64
    }
}
