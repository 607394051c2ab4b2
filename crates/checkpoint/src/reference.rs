//! How a recipe names a model.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};

/// A model as a recipe names it: `path[@revision][+lora[@revision]]`, where path and lora are folders or Hub names.
///
/// `@` and `+` always separate, whether or not a folder of that spelling exists: a reference means the same on every
/// machine. A path that holds one of them has to be given in the recipe's long form (`{model: {path, revision}, lora: …}`),
/// which fills the fields directly.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelReference {
    /// A folder, or a name on the Hub.
    pub path: String,
    /// A branch, tag or commit of a Hub model.
    pub revision: Option<String>,
    /// A PEFT adapter to be added: folder or Hub name, and its revision.
    pub lora: Option<(String, Option<String>)>,
}

impl ModelReference {
    /// Reads a reference.
    ///
    /// # Errors
    /// A part is empty, or there is more than one `+`, or more than one `@` in a part.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split('+');
        let (model, lora, more) = (parts.next().unwrap_or(""), parts.next(), parts.next());
        if more.is_some() {
            return Err(wrong(text, "more than one `+`"));
        }
        let (path, revision) = parse_part(text, model)?;
        let lora = lora.map(|part| parse_part(text, part)).transpose()?;
        Ok(Self { path, revision, lora })
    }

    /// A reference to a path or Hub name, without revision and adapter.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), revision: None, lora: None }
    }

    /// How the model is called where no path of this machine may appear: the last component of a path, a Hub name in full, with the
    /// adapter's behind a `+`. Which of the two came from the Hub is given: `models/base` is a folder more often than it is a name.
    pub fn label_where(&self, model_on_hub: bool, lora_on_hub: bool) -> String {
        let model = part_label(&self.path, model_on_hub);
        match &self.lora {
            Some((path, _)) => format!("{model}+{}", part_label(path, lora_on_hub)),
            None => model,
        }
    }
}

impl fmt::Display for ModelReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some((path, revision)) = &self.lora {
            write!(f, "+{path}")?;
            if let Some(revision) = revision {
                write!(f, "@{revision}")?;
            }
        }
        Ok(())
    }
}

fn parse_part(text: &str, part: &str) -> Result<(String, Option<String>)> {
    let mut pieces = part.split('@');
    let (path, revision, more) = (pieces.next().unwrap_or("").trim(), pieces.next().map(str::trim), pieces.next());
    if more.is_some() {
        return Err(wrong(text, "more than one `@` in a part"));
    }
    if path.is_empty() || revision == Some("") {
        return Err(wrong(text, "an empty part"));
    }
    Ok((path.to_owned(), revision.map(str::to_owned)))
}

fn wrong(text: &str, found: &str) -> Error {
    Error::new(format!("`{text}`: expected a model as path[@revision][+adapter[@revision]], found {found}"))
        .help("where the path itself has `@` or `+`, write `model: {model: {path: …}}`")
}

fn part_label(path: &str, on_hub: bool) -> String {
    if on_hub {
        return path.to_owned();
    }
    match Path::new(path).file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        // `.` and `..` have no name of their own.
        None => std::path::absolute(path)
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "model".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written_back() {
        for text in ["./base", "org/name@main", "org/name@v1+./lora", "base+org/lora@abc", "../a b/c"] {
            assert_eq!(ModelReference::parse(text).unwrap().to_string(), text);
        }
        let full = ModelReference::parse("org/name@v1+lora@v2").unwrap();
        assert_eq!((full.path.as_str(), full.revision.as_deref()), ("org/name", Some("v1")));
        assert_eq!(full.lora, Some(("lora".into(), Some("v2".into()))));
    }

    #[test]
    fn two_separators_of_a_kind_and_empty_parts_are_errors() {
        for text in ["a@b@c", "a+b+c", "a+b@c@d", "", "@main", "a+", "a@", "a@+b"] {
            assert!(ModelReference::parse(text).unwrap_err().message().contains(text), "{text}");
        }
    }

    #[test]
    fn a_label_holds_no_path() {
        for (text, on_hub, label) in [
            ("/home/me/models/wizard", false, "wizard"),
            ("./models/wizard/", false, "wizard"),
            ("../base+../adapters/a", false, "base+a"),
            ("mistralai/Mistral-7B-v0.1@main", true, "mistralai/Mistral-7B-v0.1"),
        ] {
            assert_eq!(ModelReference::parse(text).unwrap().label_where(on_hub, false), label);
        }
        assert_eq!(ModelReference::new("models/base").label_where(false, false), "base");
    }
}
