//! `results.jsonl` and `items.jsonl`: what has been run, one line a cell, only ever added to.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result};
use deltaic_eval::TaskResult;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::measures::MeasureResult;

/// The file of results.
const RESULTS: &str = "results.jsonl";
/// The file of items.
const ITEMS: &str = "items.jsonl";
/// The file of what was measured beside scores.
const MEASURES: &str = "measures.jsonl";
/// The column of numbers that belongs to the items, not to the subject.
const GOLD: &str = "gold";

/// The result of a cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CellResult {
    /// The hash of `contents`.
    pub key: String,
    /// The cell in words.
    pub label: String,
    /// All that decides about the result: models by the ids of their content, recipe, data, items.
    pub contents: Value,
    /// The items: a line of `items.jsonl`.
    pub items: String,
    /// The task's headline over them; null where it is not defined.
    pub headline: Option<f64>,
    /// Its standard error over the items.
    pub stderr: Option<f64>,
    /// All metrics of the task.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// How long what took.
    pub seconds: Seconds,
    /// What a method says of its run, such as thresholds.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub notes: Value,
    /// For each item, in order, the numbers of which the metrics are made; null is not a number.
    pub numbers: BTreeMap<String, Vec<Value>>,
}

/// Times of a cell, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Making statistics that were not there yet, for this merge.
    #[serde(default)]
    pub statistics: f64,
    /// Merging. Cells of one subject that were run together share it: each has the whole.
    pub merge: f64,
    /// Evaluating, loading of the model included.
    pub evaluate: f64,
}

/// Items that cells were evaluated on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemsRecord {
    /// What cells call them.
    pub id: String,
    /// The task's name.
    pub task: String,
    /// Their numbers among all items of the task's files.
    pub numbers: Vec<usize>,
    /// The right answers' numbers, where metrics are made of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gold: Vec<Value>,
}

/// What is kept of finished cells.
#[derive(Debug, Default)]
pub struct Kept {
    /// Results by key.
    pub cells: HashMap<String, CellResult>,
    /// Items by id.
    pub items: HashMap<String, ItemsRecord>,
    /// What was measured beside scores, by key.
    pub measures: HashMap<String, MeasureResult>,
}

impl Kept {
    /// Reads what lies in `out`; nothing where nothing is there.
    ///
    /// # Errors
    /// A line that is not the last one cannot be read.
    pub fn read(out: &Path) -> Result<Self> {
        let mut kept = Self::default();
        let text = |name: &str| -> Result<Option<(String, PathBuf)>> {
            let path = out.join(name);
            let there = path.exists();
            there.then(|| Ok((std::fs::read_to_string(&path).context("reading the results", &path)?, path))).transpose()
        };
        if let Some((text, path)) = text(RESULTS)? {
            kept.add_cells(parsed(&text, &path)?.0);
        }
        if let Some((text, path)) = text(ITEMS)? {
            kept.add_items(parsed(&text, &path)?.0);
        }
        if let Some((text, path)) = text(MEASURES)? {
            kept.add_measures(parsed(&text, &path)?.0);
        }
        Ok(kept)
    }

    fn add_cells(&mut self, cells: Vec<CellResult>) {
        self.cells.extend(cells.into_iter().map(|cell| (cell.key.clone(), cell)));
    }

    fn add_items(&mut self, items: Vec<ItemsRecord>) {
        self.items.extend(items.into_iter().map(|items| (items.id.clone(), items)));
    }

    fn add_measures(&mut self, measures: Vec<MeasureResult>) {
        self.measures.extend(measures.into_iter().map(|measure| (measure.key.clone(), measure)));
    }
}

/// The results in a folder, open for more. The folder is locked for as long.
#[derive(Debug)]
pub struct Results {
    results: Lines,
    items: Lines,
    /// Opened where something is measured beside scores.
    measures: Option<Lines>,
    out: PathBuf,
    /// What has been read and added.
    pub kept: Kept,
}

impl Results {
    /// Opens the results in `out`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder cannot be made, another run works in it, or a line that is not the last one cannot be read.
    pub fn open(out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out).context("making the folder", out)?;
        let (results, cells) = Lines::open(&out.join(RESULTS))?;
        let (items, known_items) = Lines::open(&out.join(ITEMS))?;
        let mut kept = Kept::default();
        kept.add_cells(cells);
        kept.add_items(known_items);
        // Nobody else opens it: the folder is locked by the results.
        let measures = Kept::read(out)?.measures;
        Ok(Self { results, items, measures: None, out: out.to_owned(), kept: Kept { measures, ..kept } })
    }

    /// Adds what was measured beside scores. It is on the disk when this returns.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn add_measure(&mut self, measure: MeasureResult) -> Result<()> {
        let lines = match self.measures.take() {
            Some(lines) => lines,
            None => Lines::open::<MeasureResult>(&self.out.join(MEASURES))?.0,
        };
        self.measures.insert(lines).add(&measure)?;
        self.kept.add_measures(vec![measure]);
        Ok(())
    }

    /// Adds a cell's result, and its items where they are not known yet. It is on the disk when this returns.
    ///
    /// # Errors
    /// The files cannot be written to.
    pub fn add(&mut self, cell: CellResult, items: ItemsRecord) -> Result<()> {
        if !self.kept.items.contains_key(&items.id) {
            self.items.add(&items)?;
            self.kept.add_items(vec![items]);
        }
        self.results.add(&cell)?;
        self.kept.add_cells(vec![cell]);
        Ok(())
    }
}

/// The numbers of a task's result, by column: those of the subject, and the right answers.
pub fn columns(result: &TaskResult) -> (BTreeMap<String, Vec<Value>>, Vec<Value>) {
    let mut columns: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (name, number) in result.records.iter().flat_map(|record| &record.numbers) {
        columns.entry(name.clone()).or_default().push(shortest(*number));
    }
    let gold = columns.remove(GOLD).unwrap_or_default();
    (columns, gold)
}

/// A number in as few characters as give it back by [`read_number`]: one that was an f32 as the f32's shortest decimal (0.1, not
/// 0.10000000149011612).
fn shortest(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        return (number as i64).into();
    }
    let narrow = number as f32;
    let decimal = narrow.to_string().parse().unwrap_or(number);
    if f64::from(narrow) == number { decimal.into() } else { number.into() }
}

/// A number as it was before it was written: what is the shortest decimal of an f32 was one. (An f64 that happens to be such a decimal moves by
/// what an f32 rounds, 6e-8 of it.)
fn read_number(value: &Value) -> f64 {
    let Some(number) = value.as_f64() else { return f64::NAN };
    let narrow = number as f32;
    if narrow.to_string().parse() == Ok(number) { f64::from(narrow) } else { number }
}

impl CellResult {
    /// For each item the numbers of which metrics are made, as [`deltaic_eval::headline`] takes them.
    ///
    /// # Errors
    /// There are not as many of one as of another.
    pub fn numbers_of_items(&self, items: &ItemsRecord) -> Result<Vec<Vec<(String, f64)>>> {
        let gold = (!items.gold.is_empty()).then_some((GOLD, &items.gold));
        let columns: Vec<(&str, &Vec<Value>)> = self.numbers.iter().map(|(name, column)| (name.as_str(), column)).chain(gold).collect();
        if let Some((name, column)) = columns.iter().find(|(_, column)| column.len() != items.numbers.len()) {
            let message = format!("{}: {} numbers `{name}` of {} items", self.label, column.len(), items.numbers.len());
            return Err(Error::new(message).help("the results are damaged: take this line out of results.jsonl, and the cell is run again"));
        }
        let of_item = |item: usize| columns.iter().map(|(name, column)| ((*name).to_owned(), read_number(&column[item]))).collect();
        Ok((0..items.numbers.len()).map(of_item).collect())
    }
}

/// A file of lines of JSON.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens a file and reads its lines. A last line that was not written to its end is taken away.
    fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>)> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).context("opening the results", path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(format!("{}: another run of a study works here", path.display()))
                    .help("wait for it, or choose another folder"));
            }
            Err(TryLockError::Error(error)) => return Err(error).context("locking", path),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).context("reading the results", path)?;
        let (lines, whole) = parsed(&text, path)?;
        if whole < text.len() {
            file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0))).context("taking away half a line", path)?;
        }
        Ok((Self { path: path.to_owned(), file }, lines))
    }

    fn add<T: Serialize>(&mut self, line: &T) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|error| Error::new(format!("{}: {error}", self.path.display())))?;
        let written = self.file.write_all(format!("{text}\n").as_bytes()).and_then(|()| self.file.sync_data());
        written.context("writing the results", &self.path)
    }
}

/// The lines of a text, and the length of the whole ones.
fn parsed<T: DeserializeOwned>(text: &str, path: &Path) -> Result<(Vec<T>, usize)> {
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let read = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            Error::new(format!("{}:{}: not the result of a cell: {error}", path.display(), number + 1))
                .help("take the line out, and its cell is run again")
        })
    };
    let lines = text[..whole].lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    Ok((lines.map(read).collect::<Result<_>>()?, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were() {
        let narrow = [0.1_f32, -2.345_678, 1e-20, 3.4e38, 0.333_333_34, 2.500_000_2].map(f64::from);
        for number in narrow.into_iter().chain([0.0, 1.0, -7.0, 1e300, -123.456_789_012_345, std::f64::consts::PI]) {
            let text = serde_json::to_string(&shortest(number)).unwrap();
            assert_eq!(read_number(&serde_json::from_str(&text).unwrap()), number, "{text}");
            // The longest f32 has 9 digits.
            assert!(number as f32 as f64 != number || text.len() <= 16, "{text}");
        }
        assert!(read_number(&Value::Null).is_nan() && shortest(f64::NAN).is_null());
    }
}
