//! JSON: one object a line, one array of objects, or one object.

use std::path::Path;

use deltaic_checkpoint::{Error, Result, shorten};
use serde_json::{Map, Value};

use super::Row;

/// Reads either form: an array begins with `[`.
pub fn read(path: &Path, text: &str) -> Result<Vec<Row>> {
    if text.trim_start().starts_with('[') {
        return array(path, text);
    }
    let mut rows = Vec::new();
    for (at, line) in text.split('\n').enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str::<Map<String, Value>>(line) {
            Ok(fields) => rows.push(Row { line: at + 1, fields }),
            // One object over many lines is one row (MATH has a file for each problem).
            Err(error) if rows.is_empty() => {
                let fields = serde_json::from_str(text).map_err(|_| wrong(path, at + 1, &error))?;
                return Ok(vec![Row { line: 1, fields }]);
            }
            Err(error) => return Err(wrong(path, at + 1, &error)),
        }
    }
    Ok(rows)
}

fn array(path: &Path, text: &str) -> Result<Vec<Row>> {
    let values: Vec<Value> = serde_json::from_str(text).map_err(|error| wrong(path, error.line(), &error))?;
    let row = |(at, value): (usize, Value)| match value {
        Value::Object(fields) => Ok(Row { line: at + 1, fields }),
        other => {
            let found = shorten(&other.to_string());
            Err(Error::new(format!("{}: item {at} of the array: expected an object, found {found}", path.display())))
        }
    };
    values.into_iter().enumerate().map(row).collect()
}

fn wrong(path: &Path, line: usize, error: &serde_json::Error) -> Error {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    Error::new(format!("{}:{line}: column {}: {said}", path.display(), error.column()))
        .help("expected a JSON object on each line, or one array of objects")
}
