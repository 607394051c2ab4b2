//! Templates and expressions over the fields of an item: Jinja as minijinja has it, with the few filters that data sets need.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

use deltaic_checkpoint::{Error, Result, shorten};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use regex::Regex;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::wikitext;
use crate::extract::python::strip;

/// Most steps of one template or expression, so that none runs without end.
const MAX_STEPS: u64 = 10_000_000;
/// Longest text that a filter may make of another one, in bytes: what minijinja's own filters make counts as steps.
const MAX_TEXT: usize = 64 << 20;
/// Most fields that a message names.
const MAX_NAMES: usize = 20;

/// The one environment: no loader, so that a template names no file; a field that is not there is an error, not an empty text.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("strip", |text: String| strip(&text).to_owned());
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("position", position);
    environment.add_filter("find", find);
    environment.add_filter("pages", |text: String| wikitext::pages(&text));
    environment.add_filter("wikitext_detokenise", |text: String| wikitext::detokenise(&text));
    environment
});

/// A compiled pattern; patterns stand in task files, so there are few, and each is compiled once.
fn pattern(pattern: &str) -> std::result::Result<Regex, minijinja::Error> {
    static COMPILED: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = compiled.get(pattern) {
        return Ok(regex.clone());
    }
    let regex = Regex::new(pattern).map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string()))?;
    // A pattern made of an item's text would be another for each: those are not kept.
    if compiled.len() < 256 {
        compiled.insert(pattern.to_owned(), regex.clone());
    }
    Ok(regex)
}

/// `text | regex_replace(pattern, with)`: every match, from left to right; `$1` in `with` is a group.
fn regex_replace(text: String, from: &str, with: &str) -> std::result::Result<String, minijinja::Error> {
    let (pattern, mut replaced, mut end) = (pattern(from)?, String::new(), 0);
    for groups in pattern.captures_iter(&text) {
        let Some(whole) = groups.get(0) else { continue };
        replaced += &text[end..whole.start()];
        groups.expand(with, &mut replaced);
        end = whole.end();
        if replaced.len() > MAX_TEXT {
            let message = format!("regex_replace: the text grows beyond {MAX_TEXT} bytes");
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
        }
    }
    replaced += &text[end..];
    Ok(replaced)
}

/// `list | position(value)`: where a value first stands in a list; an error where it does not.
fn position(list: Value, wanted: Value, options: Kwargs) -> std::result::Result<usize, minijinja::Error> {
    options.assert_all_used()?;
    let found = list.try_iter()?.position(|value| value == wanted);
    found.ok_or_else(|| minijinja::Error::new(ErrorKind::InvalidOperation, format!("{wanted} does not stand in {list}")))
}

/// `text | find(what)`: where a text first stands in another, in characters; an error where it does not.
fn find(text: &str, what: &str) -> std::result::Result<usize, minijinja::Error> {
    let found = text.find(what).map(|at| text[..at].chars().count());
    found.ok_or_else(|| minijinja::Error::new(ErrorKind::InvalidOperation, format!("`{what}` does not stand in `{}`", shorten(text))))
}

/// A template as a task file has it, such as `Question: {{ question }}`, with its place in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Template(Spanned<String>);

impl Template {
    /// The template's text.
    pub fn source(&self) -> &str {
        &self.0.value
    }

    /// The line of the task file in which it begins.
    pub fn line(&self) -> u64 {
        self.0.referenced.line()
    }

    /// Whether the text says the name of a field or variable.
    pub fn mentions(&self, name: &str) -> bool {
        self.source().contains(name)
    }

    /// Whether it can be parsed, before there is an item.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        ENVIRONMENT.template_from_str(self.source()).map(drop).map_err(|error| describe(&error))
    }

    /// The text for an item.
    ///
    /// # Errors
    /// A field that the item does not have, or an operation that its value does not allow.
    pub fn render(&self, values: &Value) -> Result<String> {
        let template = ENVIRONMENT.template_from_str(self.source());
        let named = || template.as_ref().map(|template| template.undeclared_variables(false)).unwrap_or_default();
        let rendered = template.as_ref().map_err(describe).and_then(|template| {
            template.render(values).map_err(|error| {
                let missing = (error.kind() == ErrorKind::UndefinedError).then(|| missing(named(), values)).flatten();
                missing.unwrap_or_else(|| describe(&error))
            })
        });
        rendered.map_err(|what| Error::new(format!("the template `{}`: {what}", shorten(self.source()))))
    }
}

/// An expression as a task file has it, such as `choices.label | position(answerKey)`, with its place in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Expression(Spanned<String>);

impl Expression {
    /// The expression's text.
    pub fn source(&self) -> &str {
        &self.0.value
    }

    /// The line of the task file in which it begins.
    pub fn line(&self) -> u64 {
        self.0.referenced.line()
    }

    /// Whether it can be parsed, before there is an item.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        ENVIRONMENT.compile_expression(self.source()).map(drop).map_err(|error| describe(&error))
    }

    /// The value for an item.
    ///
    /// # Errors
    /// A field that the item does not have, or an operation that its value does not allow.
    pub fn evaluate(&self, values: &Value) -> Result<Value> {
        let failed = |what: &str| Error::new(format!("the expression `{}`: {what}", shorten(self.source())));
        let expression = ENVIRONMENT.compile_expression(self.source()).map_err(|error| failed(&describe(&error)))?;
        let lacks = || missing(expression.undeclared_variables(false), values);
        match expression.eval(values) {
            Ok(value) if value.is_undefined() => Err(failed(lacks().as_deref().unwrap_or("there is no such field"))),
            Ok(value) => Ok(value),
            Err(error) => {
                let missing = (error.kind() == ErrorKind::UndefinedError).then(lacks).flatten();
                Err(failed(&missing.unwrap_or_else(|| describe(&error))))
            }
        }
    }

    /// The value as a list of texts.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and a value that is no list of texts or numbers.
    pub fn texts(&self, values: &Value) -> Result<Vec<String>> {
        let value = self.evaluate(values)?;
        let no_list = || Error::new(format!("the expression `{}`: expected a list, found {}", shorten(self.source()), value.kind()));
        if value.kind() == ValueKind::String || value.kind() == ValueKind::Map {
            return Err(no_list());
        }
        Ok(value.try_iter().map_err(|_| no_list())?.map(|text| text.to_string()).collect())
    }

    /// The value as an index below `count`.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and a value that is no whole number below `count`.
    pub fn index(&self, values: &Value, count: usize) -> Result<usize> {
        let value = self.evaluate(values)?;
        let index = value.as_usize().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        index.filter(|&index| index < count).ok_or_else(|| {
            Error::new(format!("the expression `{}`: expected an index below {count}, found {value}", shorten(self.source())))
        })
    }
}

/// Which of the fields that are named an item lacks, and which it has; none where none of them is missing.
fn missing(named: HashSet<String>, values: &Value) -> Option<String> {
    let there: BTreeSet<String> = values.try_iter().ok()?.map(|name| name.to_string()).collect();
    let is_global = |name: &str| ENVIRONMENT.globals().any(|(global, _)| global == name);
    let missing: BTreeSet<String> = named.into_iter().filter(|name| !there.contains(name) && !is_global(name)).collect();
    if missing.is_empty() {
        return None;
    }
    let list = |names: BTreeSet<String>| {
        let mut shown: Vec<String> = names.iter().take(MAX_NAMES).map(|name| format!("`{}`", shorten(name))).collect();
        if names.len() > MAX_NAMES {
            shown.push("…".to_owned());
        }
        shown.join(", ")
    };
    Some(format!("there is no field {}; there are {}", list(missing), list(there)))
}

fn describe(error: &minijinja::Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text += &format!(": {}", shorten(detail));
    }
    match error.line() {
        Some(line) if line > 1 => format!("{text} (its line {line})"),
        _ => text,
    }
}
