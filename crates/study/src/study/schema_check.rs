//! What is checked of a study's file beyond its form.

use std::collections::BTreeSet;

use deltaic_checkpoint::{Error, Result, shorten};

use super::schema::{Merges, Selection, Set, Study};

/// Most models: the seeds of two replicates are 1000 apart.
const MAX_MODELS: usize = 1000;

impl Study {
    /// Checks what YAML cannot: names, rates, seeds, grids.
    pub(super) fn check(&self) -> Result<()> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.study.is_empty() || !self.study.chars().all(is_plain) {
            return Err(Error::new(format!("study: `{}`: a name has lower-case letters, digits and hyphens", shorten(&self.study))));
        }
        distinct("models", self.models.iter().map(|model| &model.name))?;
        distinct("tasks", self.tasks.iter().map(|task| &task.name))?;
        if self.models.len() > MAX_MODELS {
            return Err(Error::new(format!("models: {} models; a study has at most {MAX_MODELS}", self.models.len()))
                .help("a model's seeds are 1000 x replicate + its place in the list"));
        }
        for model in &self.models {
            if self.task(&model.task).is_none() {
                return Err(self.unknown(&format!("models: {}: task", model.name), &model.task, self.tasks.iter().map(|task| &task.name)));
            }
        }
        replicates("replicates", Some(self.replicates))?;
        if self.statistics.examples == 0 {
            return Err(Error::new("statistics: examples: 0; expected at least 1"));
        }
        for (block, single) in
            self.single.iter().map(|single| ("single", single)).chain(self.similarity.as_ref().map(|one| ("similarity", one)))
        {
            self.check_names(&format!("{block}: models"), single.models.iter().flatten())?;
            rates(&format!("{block}: drop_rates"), &single.drop_rates)?;
            replicates(&format!("{block}: replicates"), single.replicates)?;
            if single.operations.is_empty() && single.drop_rates.iter().any(|&rate| rate > 0.0) {
                return Err(Error::new(format!("{block}: drop rates above 0 without `operations`"))
                    .help("operations: [dare, drop_only, magnitude, of_weights], or some of them"));
            }
        }
        self.merges.as_ref().map_or(Ok(()), |merges| self.check_merges(merges))
    }

    fn check_merges(&self, merges: &Merges) -> Result<()> {
        for set in &merges.sets {
            let Set::Listed(names) = set else { continue };
            self.check_names("merges: sets", names.iter())?;
            distinct("merges: sets", names.iter())?;
        }
        rates("merges: drop_rates", &merges.drop_rates)?;
        replicates("merges: replicates", merges.replicates)?;
        for method in &merges.methods {
            let place = format!("merges: methods: {}", shorten(&method.method));
            rates(&format!("{place}: drop_rates"), method.drop_rates.as_deref().unwrap_or_default())?;
            if let Some((name, _)) = method.grid.iter().find(|(_, values)| values.is_empty()) {
                return Err(Error::new(format!("{place}: grid: `{}` has no values", shorten(name))));
            }
            if let Some(name) = method.grid.keys().find(|name| method.parameters.contains_key(*name)) {
                return Err(Error::new(format!("{place}: `{}` stands both in parameters and in grid", shorten(name))));
            }
        }
        match merges.selection {
            Some(Selection { items: Some(0), .. }) => Err(Error::new("merges: selection: items: 0; a choice needs items")),
            _ => Ok(()),
        }
    }

    fn check_names<'a>(&self, place: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
        for name in names {
            if self.model(name).is_none() {
                return Err(self.unknown(place, name, self.models.iter().map(|model| &model.name)));
            }
        }
        Ok(())
    }

    fn unknown<'a>(&self, place: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Error {
        let known: Vec<&str> = known.map(String::as_str).collect();
        Error::new(format!("{place}: `{}` is none of the study's", shorten(name))).help(format!("there are {}", known.join(", ")))
    }
}

fn distinct<'a>(place: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::new(format!("{place}: `{}` stands twice", shorten(name))));
        }
    }
    if seen.is_empty() { Err(Error::new(format!("{place}: none are given"))) } else { Ok(()) }
}

fn rates(place: &str, rates: &[f64]) -> Result<()> {
    match rates.iter().find(|rate| !(0.0..=1.0).contains(*rate)) {
        Some(rate) => Err(Error::new(format!("{place}: {rate}: a rate lies within 0 and 1"))),
        None => Ok(()),
    }
}

fn replicates(place: &str, replicates: Option<u32>) -> Result<()> {
    if replicates == Some(0) { Err(Error::new(format!("{place}: 0; expected at least 1"))) } else { Ok(()) }
}
