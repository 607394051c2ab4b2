//! Where a task's items and shots are, and how rows become items.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Expression, Template};

/// Where the items are, and what is made of a row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFiles {
    /// Folders below `--data DIR` in which the files are looked for before DIR itself.
    #[serde(default)]
    pub folders: Vec<String>,
    /// Names of files; the first that is there is read. `*` is any run of characters but `/`, and all that match are read. Each is looked
    /// for with `.gz`, too.
    pub files: Vec<String>,
    /// Whether the first line of TSV and CSV files has the columns' names.
    #[serde(default = "yes")]
    pub header: bool,
    /// Of TSV and CSV files: the fields that are taken, each from a column by its name or its number from 0 (from the end: from -1).
    /// Without it all columns are fields.
    #[serde(default)]
    pub columns: Map<String, Value>,
    /// What is done about a line of a TSV or CSV file with too few or too many columns.
    #[serde(default)]
    pub malformed: Malformed,
    /// More fields, each by an expression over those before.
    #[serde(default)]
    pub define: DefinedFields,
    /// Rows are items only where this is true.
    pub keep: Option<Expression>,
    /// A list: a row stands for so many items, each with the fields of the row and `part`.
    pub each: Option<Expression>,
    /// An item's id in records; without it its number from 0.
    pub id: Option<Template>,
}

/// Fields in the order in which they are defined.
#[derive(Debug, Clone, Default)]
pub struct DefinedFields(pub Vec<(String, Expression)>);

/// What is done about a line with a wrong number of columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// It is an error.
    #[default]
    Error,
    /// It is passed over, and counted.
    Skip,
}

/// Solved examples before the question.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shots {
    /// How many without `--shots`.
    #[serde(default)]
    pub count: usize,
    /// Names of files with examples, looked for as the data is.
    #[serde(default)]
    pub files: Vec<String>,
    /// Examples that stand in the task itself, used where `--shots FILE` is not given.
    #[serde(default)]
    pub inline: Vec<Map<String, Value>>,
    /// Items take their shots from examples with an equal value.
    pub group: Option<Expression>,
    /// What stands after each shot.
    #[serde(default = "blank_line")]
    pub separator: String,
}

impl Default for DataFiles {
    fn default() -> Self {
        Self {
            folders: Vec::new(),
            files: Vec::new(),
            header: true,
            columns: Map::new(),
            malformed: Malformed::Error,
            define: DefinedFields::default(),
            keep: None,
            each: None,
            id: None,
        }
    }
}

fn yes() -> bool {
    true
}

fn blank_line() -> String {
    "\n\n".to_owned()
}

impl<'de> Deserialize<'de> for DefinedFields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = DefinedFields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("names of fields with an expression each")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<DefinedFields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(DefinedFields(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
