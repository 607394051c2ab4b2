//! TSV as GLUE has it, where nothing is quoted, and CSV, where fields may be.

use std::path::Path;

use deltaic_checkpoint::{Error, Result, shorten};
use serde_json::Value;

use super::{Row, Rows};
use crate::task::{DataFiles, Malformed};

/// Lines that are split at tabs: a double quote is a character as any other.
pub fn read_tsv(spec: &DataFiles, path: &Path, text: &str) -> Result<Rows> {
    let lines = text.strip_suffix('\n').unwrap_or(text).split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let records = lines.enumerate().map(|(at, line)| Ok((at + 1, line.split('\t').map(str::to_owned).collect())));
    // The empty text has one line without a column.
    if text.is_empty() { read(spec, path, std::iter::empty()) } else { read(spec, path, records) }
}

/// Comma-separated fields, quoted by double quotes where they need it (RFC 4180).
pub fn read_csv(spec: &DataFiles, path: &Path, text: &str) -> Result<Rows> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let records = reader.records().map(|record| {
        let record = record.map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        Ok((line, record.iter().map(str::to_owned).collect()))
    });
    read(spec, path, records)
}

fn read(spec: &DataFiles, path: &Path, mut records: impl Iterator<Item = Result<(usize, Vec<String>)>>) -> Result<Rows> {
    let mut rows = Rows { rows: Vec::new(), skipped: 0 };
    let header = if spec.header { records.next().transpose()?.map(|(_, header)| header) } else { None };
    if spec.header && header.is_none() {
        return Err(Error::new(format!("{}: the file is empty; expected a line with the columns' names", path.display())));
    }
    let mut columns: Option<Columns> = header.map(|header| Columns::new(spec, path, header.len(), Some(&header))).transpose()?;
    for record in records {
        let (line, values) = record?;
        let columns = match &mut columns {
            Some(columns) => columns,
            // Without a header the first line says how many columns there are.
            none => none.insert(Columns::new(spec, path, values.len(), None)?),
        };
        if values.len() == columns.count {
            let fields = columns.taken.iter().map(|(name, at)| (name.clone(), Value::String(values[*at].clone())));
            rows.rows.push(Row { line, fields: fields.collect() });
        } else if spec.malformed == Malformed::Skip {
            rows.skipped += 1;
        } else {
            let message = format!("{}:{line}: expected {} columns, found {}", path.display(), columns.count, values.len());
            return Err(Error::new(message).help("fields are not quoted in .tsv files, and quoted where they must be in .csv files"));
        }
    }
    Ok(rows)
}

struct Columns {
    count: usize,
    /// Fields, and the column of each.
    taken: Vec<(String, usize)>,
}

impl Columns {
    fn new(spec: &DataFiles, path: &Path, count: usize, header: Option<&[String]>) -> Result<Self> {
        let wrong = |what: String| Error::new(format!("{}:1: {what}", path.display()));
        if spec.columns.is_empty() {
            let name = |at: usize| header.map_or_else(|| format!("column_{at}"), |header| header[at].clone());
            return Ok(Self { count, taken: (0..count).map(|at| (name(at), at)).collect() });
        }
        let found = |column: &Value| match column {
            Value::String(name) => {
                let header = header.ok_or_else(|| wrong(format!("the column `{}` has a name, but there is no header", shorten(name))))?;
                header.iter().position(|known| known == name).ok_or_else(|| {
                    let found = shorten(&header.join(", "));
                    wrong(format!("expected a column `{}`, found {found}", shorten(name))).help("is this another task's file?")
                })
            }
            number => {
                let number = number.as_i64().unwrap_or(i64::MAX);
                let at = if number < 0 { number.saturating_add(count as i64) } else { number };
                usize::try_from(at).ok().filter(|&at| at < count).ok_or_else(|| {
                    wrong(format!("expected a column number {number}, found {count} columns")).help("is this another task's file?")
                })
            }
        };
        let taken = spec.columns.iter().map(|(name, column)| Ok((name.clone(), found(column)?)));
        Ok(Self { count, taken: taken.collect::<Result<_>>()? })
    }
}
