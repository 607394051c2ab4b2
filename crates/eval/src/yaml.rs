//! YAML files that users write, read into typed values.

use deltaic_checkpoint::{Error, Result, shorten};
use serde::de::DeserializeOwned;

/// Reads a YAML text; `name` stands for its file in messages.
///
/// # Errors
/// What is no YAML, an unknown or missing key, a value of the wrong type: with the line, and the key that was meant.
pub fn from_yaml<T: DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    serde_saphyr::from_str(text).map_err(|error| describe(name, text, &error))
}

/// The message of the YAML reader in deltaic's form, with a suggestion where a key is nearly a known one.
fn describe(name: &str, text: &str, error: &serde_saphyr::Error) -> Error {
    let error = error.without_snippet();
    let message = error.to_string();
    let Some(location) = error.location() else { return Error::new(format!("{name}: {message}")) };
    let (line, column) = (location.line(), location.column());
    let said = message.split(" at line ").next().unwrap_or(&message);
    let shown = text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
    let number = line.to_string();
    let caret = " ".repeat((column.saturating_sub(1) as usize).min(200));
    let help = suggestion(said);
    let full = format!("{name}:{line}: {said}\n  {number} | {}\n  {} | {caret}^", shorten(shown), " ".repeat(number.len()));
    match help {
        Some(meant) => Error::new(full).help(format!("did you mean `{meant}`?")),
        None => Error::new(full),
    }
}

/// Of "unknown field `x`, expected one of a, b": the known one nearest to x, if it is near.
fn suggestion(message: &str) -> Option<String> {
    let (unknown, expected) = message.strip_prefix("unknown ")?.split_once(", expected ")?;
    let unknown = unknown.split('`').nth(1)?;
    let known = expected.split([',', ' ', '`']).filter(|word| !["", "one", "of", "or"].contains(word));
    let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(unknown, known))?;
    (strsim::damerau_levenshtein(unknown, nearest) <= 1 + unknown.len() / 4).then(|| nearest.to_owned())
}
