//! `config.json`, kept as it was but for what is set.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::architecture::generic;
use crate::dtype::{DType, shorten};
use crate::error::{Error, Result};
use crate::formats::regular_file::{AGAIN, is_there, read_text};

/// A configuration of more bytes is not one.
const MAX_CONFIG: u64 = 4 << 20;
/// Where models of several modalities keep what concerns the language model.
const NESTED: &str = "text_config";

/// A model's `config.json`. Keys keep their order and values their spelling (`1e-05` stays `1e-05`), so that what is not set is
/// written back as it was. A key is looked for at the top, then in `text_config`.
#[derive(Clone)]
pub struct Config {
    path: PathBuf,
    top: Object,
    text: Option<Object>,
}

/// An object's entries in order, values as they were spelled.
#[derive(Clone, Default)]
struct Object(Vec<(String, Box<RawValue>)>);

impl Config {
    /// Reads `config.json` of a folder.
    ///
    /// # Errors
    /// It is not there or is not a JSON object.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        if !is_there(&path) {
            return Err(Error::new(format!("{}: the model folder has no config.json", folder.display()))
                .help("deltaic needs it to know the architecture: download the folder again, or copy the file from the base model"));
        }
        Self::parse(&read_text(&path, MAX_CONFIG)?, &path)
    }

    /// Reads a configuration from text; `path` is for messages.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let wrong = |error| Error::new(format!("{}: not a readable configuration: {error}", path.display())).help(AGAIN);
        let top: Object = serde_json::from_str(text).map_err(wrong)?;
        let text = match top.get(NESTED) {
            Some(raw) if raw.get().starts_with('{') => Some(serde_json::from_str(raw.get()).map_err(wrong)?),
            _ => None,
        };
        Ok(Self { path: path.to_owned(), top, text })
    }

    /// The file from which it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A string value; None where the key is missing or holds something else.
    pub fn get_str(&self, key: &str) -> Option<String> {
        self.get_as(key)
    }

    /// A value that is a whole number from zero up.
    pub fn get_u64(&self, key: &str) -> Option<u64> {
        self.get_as(key)
    }

    /// A number.
    pub fn get_f64(&self, key: &str) -> Option<f64> {
        self.get_as(key)
    }

    /// A value that is true or false.
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        self.get_as(key)
    }

    /// Any value.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.get_as(key)
    }

    /// Sets a value where its key stands (top, else `text_config`), or adds it at the end of the top.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match &mut self.text {
            Some(text) if self.top.get(key).is_none() && text.get(key).is_some() => text.set(key, &value),
            _ => self.top.set(key, &value),
        }
    }

    /// The class names of `architectures`; empty where there are none.
    pub fn architectures(&self) -> Vec<String> {
        self.top.get_as("architectures").unwrap_or_default()
    }

    /// The `model_type` of the top level.
    pub fn model_type(&self) -> Option<String> {
        self.top.get_as("model_type")
    }

    /// The dtype that the configuration states.
    pub fn dtype(&self) -> Option<DType> {
        generic().dtype_keys.iter().find_map(|key| DType::parse_torch(&self.get_str(key)?))
    }

    /// Sets the dtype under the key that the source uses (`torch_dtype`, or since transformers 4.56 `dtype`), in `text_config` too
    /// where it stands there.
    pub fn set_dtype(&mut self, dtype: DType) {
        let value = Value::from(dtype.torch_name());
        let mut written = false;
        for object in std::iter::once(&mut self.top).chain(&mut self.text) {
            for key in &generic().dtype_keys {
                if object.get(key).is_some() {
                    object.set(key, &value);
                    written = true;
                }
            }
        }
        if !written {
            let version: Option<String> = self.top.get_as("transformers_version");
            let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
            self.top.set(if major.is_some_and(|major| major >= 5) { "dtype" } else { "torch_dtype" }, &value);
        }
    }

    /// The number of layers, under the first of the known keys that is there.
    pub fn layer_count(&self) -> Option<u64> {
        generic().layer_count_keys.iter().find_map(|key| self.get_u64(key))
    }

    /// What stands where [`Config::layer_count`] looks, for messages: values that are no whole numbers, or that there are none.
    pub fn layer_counts(&self) -> String {
        let keys = &generic().layer_count_keys;
        let value = |key: &String| Some(format!("`{key}: {}`", shorten(&self.get(key)?.to_string())));
        match keys.iter().filter_map(value).reduce(|all, one| format!("{all}, {one}")) {
            Some(found) => format!("found {found}, not a whole number"),
            None => format!("looked for {}", keys.join(", ")),
        }
    }

    /// Sets the number of layers to `n`. `source_layers` gives for each output layer the layer of this configuration's model from which it
    /// comes, so that lists with an entry per layer (`layer_types`) and lists of layer numbers (`mlp_only_layers`) stay right.
    ///
    /// # Errors
    /// There is no known key of the layer count, or `source_layers` does not have `n` entries.
    pub fn set_layer_count(&mut self, n: usize, source_layers: &[usize]) -> Result<()> {
        let place = self.path.display().to_string();
        let Some(key) = generic().layer_count_keys.iter().find(|key| self.get_u64(key).is_some()) else {
            let found = self.layer_counts();
            return Err(Error::new(format!("{place}: expected the number of layers; {found}"))
                .help("the recipe takes layers by number, so config.json has to say how many there are"));
        };
        if source_layers.len() != n {
            return Err(Error::new(format!("{place}: {n} layers, but {} source layers are given", source_layers.len())));
        }
        let old = self.get_u64(key).unwrap_or(0) as usize;
        self.set(key, n as u64);
        for key in &generic().per_layer_lists {
            if let Some(Value::Array(list)) = self.get(key)
                && list.len() == old
            {
                let renewed: Option<Vec<Value>> = source_layers.iter().map(|&layer| list.get(layer).cloned()).collect();
                let Some(renewed) = renewed else {
                    return Err(Error::new(format!("{place}: {key} has {old} entries, but a layer beyond them is used")));
                };
                self.set(key, renewed);
            }
        }
        for key in &generic().layer_index_lists {
            if let Some(Value::Array(list)) = self.get(key) {
                let listed = |layer: usize| list.iter().any(|value| value.as_u64() == Some(layer as u64));
                let renewed: Vec<Value> =
                    source_layers.iter().enumerate().filter(|(_, layer)| listed(**layer)).map(|(new, _)| Value::from(new)).collect();
                self.set(key, renewed);
            }
        }
        Ok(())
    }

    /// What `tie_word_embeddings` says; None where it is not said.
    pub fn tied(&self) -> Option<bool> {
        self.get_bool("tie_word_embeddings")
    }

    /// Sets `tie_word_embeddings`, at the top and, where it stands there, in `text_config`.
    pub fn set_tied(&mut self, tied: bool) {
        let nested = self.text.as_mut().filter(|text| text.get("tie_word_embeddings").is_some());
        let only_nested = nested.is_some() && self.top.get("tie_word_embeddings").is_none();
        if let Some(text) = nested {
            text.set("tie_word_embeddings", &Value::from(tied));
        }
        if !only_nested {
            self.top.set("tie_word_embeddings", &Value::from(tied));
        }
    }

    /// Number of rows of the embedding.
    pub fn vocab_size(&self) -> Option<u64> {
        self.get_u64("vocab_size")
    }

    /// Whether the weights are quantized (`quantization_config`, or `compression_config` of older files).
    pub fn is_quantized(&self) -> bool {
        ["quantization_config", "compression_config"].iter().any(|key| self.get(key).is_some_and(|value| !value.is_null()))
    }

    /// The text of the file: indented by two spaces, as transformers writes it, with a newline at the end.
    pub fn to_json(&self) -> String {
        let mut top = self.top.clone();
        if let Some(text) = &self.text {
            top.set_raw(NESTED, &text.to_raw());
        }
        format!("{}\n", indent(&top.to_raw()))
    }

    fn get_as<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        match self.top.get(key) {
            Some(_) => self.top.get_as(key),
            None => self.text.as_ref()?.get_as(key),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Object {
    fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|entry| entry.0 == key).map(|entry| &*entry.1)
    }

    fn get_as<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_str(self.get(key)?.get()).ok()
    }

    fn set(&mut self, key: &str, value: &Value) {
        self.set_raw(key, &value.to_string());
    }

    fn set_raw(&mut self, key: &str, json: &str) {
        // `json` was printed from a value or from entries that were parsed.
        let Ok(raw) = RawValue::from_string(json.to_owned()) else { return };
        match self.0.iter_mut().find(|entry| entry.0 == key) {
            Some(entry) => entry.1 = raw,
            None => self.0.push((key.to_owned(), raw)),
        }
    }

    fn to_raw(&self) -> String {
        let entries: Vec<String> = self.0.iter().map(|(key, raw)| format!("{}:{}", Value::from(key.as_str()), raw.get())).collect();
        format!("{{{}}}", entries.join(","))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Object, A::Error> {
                let mut entries: Vec<(String, Box<RawValue>)> = Vec::new();
                let mut places: BTreeMap<String, usize> = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // Of a key given twice the last value counts, as in Python.
                    match places.get(&key) {
                        Some(&place) => entries[place].1 = value,
                        None => {
                            places.insert(key.clone(), entries.len());
                            entries.push((key, value));
                        }
                    }
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Valid JSON with the white space of Python's `json.dumps(indent=2)`; numbers and strings keep their spelling. Without recursion, since
/// nesting comes from untrusted files.
fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut chars = json.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        // Beyond any sensible nesting the white space alone would be quadratic.
        out.extend(std::iter::repeat_n(' ', 2 * depth.min(64)));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push('"');
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                match chars.next_if(|&c| c == '}' || c == ']') {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        newline(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(',');
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("config.json")).unwrap()
    }

    #[test]
    fn what_is_not_set_is_written_back_as_it_was() {
        let text = "{\n  \"z\": 1e-05,\n  \"a\": [\n    1.0,\n    \"x: {y}, \\\" z\"\n  ],\n  \"e\": {},\n  \"l\": [],\n  \"rope\": {\n    \
                    \"factor\": 8.0,\n    \"big\": \
                    123456789012345678901234567890\n  },\n  \"n\": null\n}\n";
        assert_eq!(config(text).to_json(), text);
        let compact: String = text.replace("\n", "").replace("  ", "");
        assert_eq!(config(&compact).to_json(), text);
    }

    #[test]
    fn keys_are_set_where_they_stand() {
        let mut nested = config(
            r#"{"model_type": "gemma3", "text_config": {"vocab_size": 10, "dtype": "float32", "num_hidden_layers": 2},
                "torch_dtype": "float32"}"#,
        );
        nested.set("vocab_size", 12);
        nested.set("new", true);
        nested.set_dtype(DType::BF16);
        let json: Value = serde_json::from_str(&nested.to_json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "model_type": "gemma3",
                "text_config": {"vocab_size": 12, "dtype": "bfloat16", "num_hidden_layers": 2},
                "torch_dtype": "bfloat16",
                "new": true
            })
        );
        assert_eq!((nested.vocab_size(), nested.layer_count(), nested.dtype()), (Some(12), Some(2), Some(DType::BF16)));
    }

    #[test]
    fn the_dtype_key_is_the_sources_own() {
        for (text, key) in [
            (r#"{"torch_dtype": "float32"}"#, "torch_dtype"),
            (r#"{"dtype": "float32"}"#, "dtype"),
            (r#"{"transformers_version": "4.40.0"}"#, "torch_dtype"),
            (r#"{"transformers_version": "5.1.0"}"#, "dtype"),
        ] {
            let mut config = config(text);
            config.set_dtype(DType::F16);
            assert_eq!(config.get_str(key).as_deref(), Some("float16"), "{text}");
            assert_eq!(config.to_json().matches("dtype").count(), 1, "{text}");
        }
    }

    #[test]
    fn per_layer_lists_follow_the_layers() {
        let mut c =
            config(r#"{"num_hidden_layers": 4, "layer_types": ["a", "b", "c", "d"], "mlp_only_layers": [1, 3], "other": [1, 2, 3, 4]}"#);
        c.set_layer_count(5, &[0, 1, 1, 2, 3]).unwrap();
        let json: Value = serde_json::from_str(&c.to_json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "num_hidden_layers": 5,
                "layer_types": ["a", "b", "b", "c", "d"],
                "mlp_only_layers": [1, 2, 4],
                "other": [1, 2, 3, 4]
            })
        );
        assert!(c.set_layer_count(2, &[0]).is_err());
        assert!(config("{}").set_layer_count(1, &[0]).unwrap_err().message().contains("num_hidden_layers"));
    }

    #[test]
    fn tying_is_set_and_read() {
        let mut c = config(r#"{"text_config": {"tie_word_embeddings": true}}"#);
        c.set_tied(false);
        assert_eq!((c.tied(), c.to_json().matches("tie_word_embeddings").count()), (Some(false), 1));
        let mut c = config("{}");
        c.set_tied(true);
        assert_eq!(c.tied(), Some(true));
    }

    #[test]
    fn bad_configurations_are_errors_and_quantized_ones_are_known() {
        for text in ["", "[]", "{", "{\"a\": 1} x", "null", "{\"text_config\": {"] {
            assert!(Config::parse(text, Path::new("dir/config.json")).unwrap_err().message().contains("dir/config.json"), "{text}");
        }
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(config(&deep).to_json().len() > 200_000);
        assert!(config(r#"{"quantization_config": {"bits": 4}}"#).is_quantized());
        assert!(!config(r#"{"quantization_config": null}"#).is_quantized());
        assert!(Config::read(Path::new("/nonexistent")).unwrap_err().message().contains("no config.json"));
    }
}
