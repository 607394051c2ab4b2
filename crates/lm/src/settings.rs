//! Reading keys of `config.json` with messages that name key and value.

use deltaic_checkpoint::{Config, Error, Result, shorten};
use serde_json::Value;

/// Sizes above this are no model's; products of two stay far from overflow.
const MAX_SIZE: u64 = 1 << 28;

/// The keys of a configuration. A key that is null counts as missing.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a>(pub &'a Config);

impl Keys<'_> {
    /// The value of the first of `names` that is there.
    fn first(self, names: &[&str]) -> Option<(String, Value)> {
        names.iter().find_map(|&name| Some((name.to_owned(), self.0.get(name).filter(|value| !value.is_null())?)))
    }

    /// A size of at least one, under the first of the names that is there.
    pub fn size(self, names: &[&str]) -> Result<usize> {
        self.optional_size(names)?.ok_or_else(|| {
            Error::new(format!("{}: expected `{}`, found no such key", self.0.path().display(), names[0]))
                .help("config.json does not describe the model whose weights are beside it: copy it from where the model was published")
        })
    }

    /// As [`Keys::size`], where it may be missing.
    pub fn optional_size(self, names: &[&str]) -> Result<Option<usize>> {
        let Some((name, value)) = self.first(names) else { return Ok(None) };
        match value.as_u64() {
            Some(size @ 1..=MAX_SIZE) => Ok(Some(size as usize)),
            _ => Err(self.wrong(&name, &value, &format!("a whole number from 1 to {MAX_SIZE}"))),
        }
    }

    /// A whole number from zero up.
    pub fn count_or(self, name: &str, default: usize) -> Result<usize> {
        let Some((_, value)) = self.first(&[name]) else { return Ok(default) };
        match value.as_u64() {
            Some(count @ 0..=MAX_SIZE) => Ok(count as usize),
            _ => Err(self.wrong(name, &value, &format!("a whole number from 0 to {MAX_SIZE}"))),
        }
    }

    /// A finite number.
    pub fn number(self, name: &str) -> Result<Option<f64>> {
        let Some((_, value)) = self.first(&[name]) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.wrong(name, &value, "a number")),
        }
    }

    /// A number above zero.
    pub fn positive(self, name: &str) -> Result<Option<f64>> {
        match self.number(name)? {
            Some(number) if number <= 0.0 => Err(self.wrong(name, &Value::from(number), "a number above 0")),
            number => Ok(number),
        }
    }

    /// True or false.
    pub fn flag(self, name: &str, default: bool) -> Result<bool> {
        let Some((_, value)) = self.first(&[name]) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(name, &value, "true or false"))
    }

    /// A string, under the first of the names that is there.
    pub fn text(self, names: &[&str]) -> Result<Option<(String, String)>> {
        let Some((name, value)) = self.first(names) else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some((name, text.to_owned()))),
            None => Err(self.wrong(&name, &value, "a string")),
        }
    }

    /// A list of strings.
    pub fn texts(self, name: &str) -> Result<Option<Vec<String>>> {
        let Some((_, value)) = self.first(&[name]) else { return Ok(None) };
        let list: Option<Vec<String>> =
            value.as_array().and_then(|list| list.iter().map(|entry| entry.as_str().map(str::to_owned)).collect());
        list.map(Some).ok_or_else(|| self.wrong(name, &value, "a list of strings"))
    }

    /// The error that `name` has a value which is not `expected`.
    pub fn wrong(self, name: &str, value: &Value, expected: &str) -> Error {
        Error::new(format!("{}: `{name}: {}`: expected {expected}", self.0.path().display(), shorten(&value.to_string())))
    }

    /// The error that `name` has a value which is valid, but which models here do not know.
    pub fn unknown(self, name: &str, value: &str, known: &[&str]) -> Error {
        let known = known.join(", ");
        Error::new(format!("{}: `{name}: {}` is not one that deltaic can run, expected {known}", self.0.path().display(), shorten(value)))
            .help("a server that runs the model can be evaluated with `--endpoint URL --model NAME`")
    }
}
