//! Answers by regular expression and comparison by exact match, as lm-evaluation-harness has them (its filter `regex` and metric `exact_match`).
//!
//! Patterns are those of the `regex` crate, which takes linear time and has neither look-around nor back-references. What is like Python's: the
//! leftmost match by the order of alternatives, `\d` and `\s` of Unicode, flags such as `(?s)`. What is not: `$` is the end of the text only, where Python's
//! is also before a last line end.

use std::borrow::Cow;

use deltaic_checkpoint::{Error, Result, shorten};
use regex::Regex;
use serde::Deserialize;

use super::python::strip;

/// What stands for the answer where nothing matches.
pub const INVALID: &str = "[invalid]";

/// Which of several matches is the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// The first: `group_select: 0`.
    #[default]
    First,
    /// The last: `group_select: -1`.
    Last,
}

/// A pattern whose match is the answer.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    take: Take,
    missing: String,
}

impl Pattern {
    /// Compiles a pattern; `missing` stands for the answer where nothing matches ([`INVALID`] in the harness).
    ///
    /// # Errors
    /// It is no pattern, or compiles to more than 10 MB.
    pub fn new(pattern: &str, take: Take, missing: &str) -> Result<Self> {
        Ok(Self { regex: compile(pattern)?, take, missing: missing.to_owned() })
    }

    /// The answer, stripped: of a pattern without groups the match, with one group that group, with several the first that is not empty; `missing` where
    /// nothing matches, or all of several groups are empty.
    pub fn answer<'a>(&'a self, text: &'a str) -> &'a str {
        let start = match self.take {
            Take::First => self.regex.find(text),
            Take::Last => self.regex.find_iter(text).last(),
        };
        // Groups cost more than a match: they are looked for in the one that is taken.
        let Some(groups) = start.and_then(|found| self.regex.captures_at(text, found.start())) else { return &self.missing };
        let group = |index: usize| groups.get(index).map_or("", |found| found.as_str());
        let answer = match groups.len() {
            1 => group(0),
            2 => group(1),
            count => (1..count).map(group).find(|found| !found.is_empty()).unwrap_or(&self.missing),
        };
        strip(answer)
    }
}

/// Comparison of answer and gold after deleting from both what does not matter.
#[derive(Debug, Clone)]
pub struct ExactMatch {
    ignore: Vec<Regex>,
    ignore_case: bool,
}

impl ExactMatch {
    /// Deletes all matches of each of `ignore`, in this order; `ignore_case` then lowers both sides.
    ///
    /// # Errors
    /// One of `ignore` is no pattern.
    pub fn new(ignore: &[impl AsRef<str>], ignore_case: bool) -> Result<Self> {
        let ignore = ignore.iter().map(|pattern| compile(pattern.as_ref())).collect::<Result<_>>()?;
        Ok(Self { ignore, ignore_case })
    }

    /// What is compared of a text.
    pub fn normalised<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let delete = |text: Cow<'a, str>, pattern: &Regex| match pattern.replace_all(&text, "") {
            Cow::Borrowed(_) => text,
            Cow::Owned(shorter) => Cow::Owned(shorter),
        };
        let kept = self.ignore.iter().fold(Cow::Borrowed(text), delete);
        if self.ignore_case { Cow::Owned(kept.to_lowercase()) } else { kept }
    }

    /// Whether both are the same text.
    pub fn is_match(&self, answer: &str, gold: &str) -> bool {
        self.normalised(answer) == self.normalised(gold)
    }
}

fn compile(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| {
        Error::new(format!("the pattern `{}`: {}", shorten(pattern), shorten(&error.to_string())))
            .help("patterns are those of Rust's regex crate: https://docs.rs/regex/latest/regex/#syntax")
    })
}
