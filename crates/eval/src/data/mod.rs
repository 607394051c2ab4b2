//! A task's items from the files in which data sets are published.

mod delimited;
mod json;
mod locate;
mod parquet;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use deltaic_checkpoint::{Error, Result};
use minijinja::Value as Fields;
use minijinja::value::Serde;
use serde_json::{Map, Value};

use crate::task::{DataFiles, Shots, Task};

/// One item of a task.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its number from 0 among all items of its files.
    pub index: usize,
    /// Its id in records.
    pub id: String,
    /// File and line, or number of the row, for messages.
    pub place: String,
    /// Its fields, the defined ones included.
    pub fields: Fields,
    /// By what the same item is known where it is read twice.
    pub(crate) origin: Origin,
}

/// A row of a file, however the file was named, and which of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    file: Arc<Path>,
    line: usize,
    part: usize,
}

/// What was read.
#[derive(Debug, Clone)]
pub struct Data {
    /// The items.
    pub items: Vec<Item>,
    /// The files in which they were.
    pub files: Vec<PathBuf>,
    /// Lines that were passed over since they are malformed.
    pub skipped: usize,
}

/// A row as a file has it.
pub(crate) struct Row {
    /// From 1: the line of a text file, else the number of the row.
    pub line: usize,
    pub fields: Map<String, Value>,
}

/// Rows of one file, and how many were passed over.
pub(crate) struct Rows {
    pub rows: Vec<Row>,
    pub skipped: usize,
}

impl Data {
    /// Reads a task's items: `data` is a folder in which the task's files are looked for, or one file.
    ///
    /// # Errors
    /// No file is there (the message names what was looked for), or one is not as the task says (with file, line and column).
    pub fn read(task: &Task, data: &Path) -> Result<Self> {
        let files = locate::find(&task.task, &task.data.folders, &task.data.files, data)?;
        Self::read_files(&task.data, files)
    }

    /// Reads the solved examples of a task: from `file`, else inline ones, else from the files that the task names, in `data`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_shots(task: &Task, shots: &Shots, file: Option<&Path>, data: Option<&Path>) -> Result<Self> {
        // What is kept are the items that are scored: examples may well be others.
        let spec = DataFiles { keep: None, ..task.data.clone() };
        if let Some(file) = file {
            return Self::read_files(&spec, vec![file.to_owned()]);
        }
        if !shots.inline.is_empty() {
            let inline = format!("{}, shots.inline", task.task);
            let rows = shots.inline.iter().enumerate().map(|(at, fields)| Row { line: at + 1, fields: fields.clone() });
            let mut items = Vec::new();
            for row in rows {
                items_of(&spec, row, &inline, "", &Arc::from(Path::new(&inline)), &mut items)?;
            }
            return Ok(Self { items, files: vec![inline.into()], skipped: 0 });
        }
        let help = "give their file with --shots FILE";
        let Some(data) = data else { return Err(Error::new(format!("{}: no solved examples are there", task.task)).help(help)) };
        // A single file of items has its neighbours' examples.
        let folder = if data.is_dir() { data } else { data.parent().unwrap_or(Path::new(".")) };
        let files = locate::find(&format!("{}: shots", task.task), &task.data.folders, &shots.files, folder);
        Self::read_files(&spec, files.map_err(|error| error.and_help(help))?)
    }

    /// The rows of any file, as items.
    pub(crate) fn read_any(path: &Path) -> Result<Vec<Item>> {
        Self::read_files(&DataFiles::default(), vec![path.to_owned()]).map(|data| data.items)
    }

    fn read_files(spec: &DataFiles, files: Vec<PathBuf>) -> Result<Self> {
        let mut data = Self { items: Vec::new(), files, skipped: 0 };
        for path in &data.files {
            let Rows { rows, skipped } = read_rows(spec, path)?;
            data.skipped += skipped;
            let file_name = path.file_name().unwrap_or_default().to_string_lossy();
            let stem = file_name.split('.').next().unwrap_or_default();
            let origin: Arc<Path> = path.canonicalize().unwrap_or_else(|_| path.clone()).into();
            for row in rows {
                items_of(spec, row, &path.display().to_string(), stem, &origin, &mut data.items)?;
            }
        }
        if data.items.is_empty() {
            let files: Vec<String> = data.files.iter().map(|path| path.display().to_string()).collect();
            return Err(Error::new(format!("{}: there are no items", files.join(", "))));
        }
        Ok(data)
    }
}

/// The items that a row stands for.
fn items_of(spec: &DataFiles, row: Row, file: &str, file_stem: &str, origin: &Arc<Path>, items: &mut Vec<Item>) -> Result<()> {
    let line = row.line;
    let place = format!("{file}:{line}");
    let at = |error: Error| error.within(Path::new(&place));
    let mut fields = row.fields;
    fields.entry("file_stem").or_insert_with(|| file_stem.into());
    for (name, expression) in &spec.define.0 {
        let value = expression.evaluate(&Fields::from(Serde(&fields))).map_err(at)?;
        let value = serde_json::to_value(&value).map_err(|error| at(Error::new(format!("the field {name}: {error}"))))?;
        fields.insert(name.clone(), value);
    }
    let parts = match &spec.each {
        None => vec![fields],
        Some(each) => {
            let parts = each.texts(&Fields::from(Serde(&fields))).map_err(at)?;
            let with = |part: String| {
                let mut fields = fields.clone();
                fields.insert("part".to_owned(), part.into());
                fields
            };
            parts.into_iter().map(with).collect()
        }
    };
    for (part, fields) in parts.into_iter().enumerate() {
        let fields = Fields::from(Serde(&fields));
        if let Some(keep) = &spec.keep
            && !keep.evaluate(&fields).map_err(at)?.is_true()
        {
            continue;
        }
        let index = items.len();
        let id = spec.id.as_ref().map_or_else(|| Ok(index.to_string()), |id| id.render(&fields)).map_err(at)?;
        let origin = Origin { file: Arc::clone(origin), line, part };
        items.push(Item { index, id, place: place.clone(), fields, origin });
    }
    Ok(())
}

/// The rows of a file, whose form its name says.
pub(crate) fn read_rows(spec: &DataFiles, path: &Path) -> Result<Rows> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let form = name.strip_suffix(".gz").unwrap_or(&name);
    let whole = |rows: Vec<Row>| Rows { rows, skipped: 0 };
    match form.rsplit_once('.').map(|(_, extension)| extension) {
        Some("parquet") => parquet::read(path).map(whole),
        Some("tsv") => delimited::read_tsv(spec, path, &text::read(path)?),
        Some("csv") => delimited::read_csv(spec, path, &text::read(path)?),
        Some("json" | "jsonl" | "ndjson") => json::read(path, &text::read(path)?).map(whole),
        Some("txt" | "raw" | "tokens") => {
            let fields = Map::from_iter([("text".to_owned(), Value::String(text::read(path)?))]);
            Ok(whole(vec![Row { line: 1, fields }]))
        }
        _ => Err(Error::new(format!("{}: the file's name does not say what is in it", path.display()))
            .help("names end in .tsv, .csv, .json, .jsonl, .parquet or .txt, and all but parquet may have .gz after it")),
    }
}
