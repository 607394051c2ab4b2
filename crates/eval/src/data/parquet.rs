//! Parquet, as the Hub has data sets.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use deltaic_checkpoint::{Context, Error, Result, shorten};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as Record};
use serde_json::{Map, Value};

use super::Row;

/// Most rows of a file; GLUE's largest has 400,000.
const MAX_ROWS: i64 = 20_000_000;
/// Deepest nesting of lists and groups.
const MAX_DEPTH: usize = 32;

/// Reads all rows.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let file = File::open(path).context("opening", path)?;
    // The crate checks what it reads with errors; where a hostile file finds a case that it does not, that is an error as well.
    catch_unwind(AssertUnwindSafe(|| rows(path, file))).unwrap_or_else(|_| Err(wrong(path, "the file is damaged")))
}

fn wrong(path: &Path, what: &str) -> Error {
    Error::new(format!("{}: reading the parquet file: {what}", path.display())).help("get the file from its source again")
}

fn rows(path: &Path, file: File) -> Result<Vec<Row>> {
    let reader = SerializedFileReader::new(file).map_err(|error| wrong(path, &error.to_string()))?;
    let count = reader.metadata().file_metadata().num_rows();
    if !(0..=MAX_ROWS).contains(&count) {
        return Err(wrong(path, &format!("it says that it has {count} rows; 0 to {MAX_ROWS} are read")));
    }
    let mut rows = Vec::new();
    for (at, record) in reader.get_row_iter(None).map_err(|error| wrong(path, &error.to_string()))?.enumerate() {
        let record = record.map_err(|error| wrong(path, &format!("row {at}: {error}")))?;
        let fields = object(&record, 0).map_err(|what| wrong(path, &format!("row {at}: {what}")))?;
        rows.push(Row { line: at + 1, fields });
    }
    Ok(rows)
}

fn object(record: &Record, depth: usize) -> std::result::Result<Map<String, Value>, String> {
    let mut fields = Map::new();
    for (name, field) in record.get_column_iter() {
        // What has no value in JSON (a date, raw bytes) is a field that no task here uses.
        if let Some(value) = value(field, depth).map_err(|what| format!("the column {}: {what}", shorten(name)))? {
            fields.insert(name.clone(), value);
        }
    }
    Ok(fields)
}

fn value(field: &Field, depth: usize) -> std::result::Result<Option<Value>, String> {
    if depth > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH}"));
    }
    Ok(Some(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => f64::from(*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(value) => value.as_str().into(),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => return Ok(None),
        },
        Field::Group(record) => Value::Object(object(record, depth + 1)?),
        Field::ListInternal(list) => {
            let values = list.elements().iter().map(|element| Ok(value(element, depth + 1)?.unwrap_or(Value::Null)));
            Value::Array(values.collect::<std::result::Result<_, String>>()?)
        }
        _ => return Ok(None),
    }))
}
