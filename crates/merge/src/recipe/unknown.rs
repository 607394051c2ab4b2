//! What has no effect: keys and parameters that nobody knows, that stand in the wrong place, or that belong to another method.
//!
//! mergekit ignores them, so published recipes carry them. They are collected and reported together; one that is nearly a known one is an
//! error.

use std::fmt;

use deltaic_checkpoint::{Error, Result};

use super::document::escaped;
use super::node::{Key, Node};
use super::{Document, Span};

/// Greatest number of findings that are shown; a published recipe has a handful.
const MAX_SHOWN: usize = 100;

/// What is done about keys and parameters without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownPolicy {
    /// A warning; one that is nearly a known one is an error.
    #[default]
    Default,
    /// A warning, whatever it looks like (`--ignore-unknown`).
    Ignore,
    /// An error (`--strict`).
    Strict,
}

/// Something in a recipe that has no effect: a message with its line, as an error has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key without effect.
struct Finding {
    span: Span,
    message: String,
    /// The known key that was probably meant.
    suggestion: Option<String>,
    /// What to say behind "no effect here".
    note: String,
}

/// What the parser carries along.
pub(super) struct Context<'d> {
    pub document: &'d Document,
    findings: Vec<Finding>,
    /// How it is said that something has no effect, so that it is true of the preset and the method at hand.
    pub effect: &'static str,
}

/// A mapping whose keys have been looked through.
pub(super) struct Fields<'n>(&'n Node);

impl<'n> Fields<'n> {
    /// The value of a key that is there and not null.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.0.get(key)
    }

    /// Key and value, also where the value is null.
    pub fn entry(&self, key: &str) -> Option<&'n (Key, Node)> {
        self.0.entry(key)
    }
}

impl<'d> Context<'d> {
    pub fn new(document: &'d Document) -> Self {
        Self { document, findings: Vec::new(), effect: "no effect here, nor in mergekit" }
    }

    /// An error about a node.
    pub fn error<T>(&self, span: Span, message: impl AsRef<str>, label: impl AsRef<str>) -> Result<T> {
        Err(self.document.error(span, message, label))
    }

    /// The keys of a mapping of mergekit's language. Those that are not `known` are noted; `name` is allowed everywhere.
    ///
    /// `block` says what the mapping is, such as `a slice`; empty for the recipe itself.
    pub fn fields<'n>(&mut self, node: &'n Node, block: &str, known: &[&str]) -> Result<Fields<'n>> {
        let pairs = self.pairs(node, block)?;
        for (key, _) in pairs.iter().filter(|(key, _)| key.text != "name" && !known.contains(&key.text.as_str())) {
            self.unknown(key, block, known);
        }
        Ok(Fields(node))
    }

    /// The keys of a mapping that is deltaic's own, where an unknown one is always an error.
    pub fn own_fields<'n>(&self, node: &'n Node, block: &str, known: &[&str]) -> Result<Fields<'n>> {
        let pairs = self.pairs(node, block)?;
        if let Some((key, _)) = pairs.iter().find(|(key, _)| !known.contains(&key.text.as_str())) {
            let label = match nearest(&key.text, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known: {}", known.join(", ")),
            };
            return self.error(key.span, format!("unknown key `{}` in {block}", escaped(&key.text)), label);
        }
        Ok(Fields(node))
    }

    fn pairs<'n>(&self, node: &'n Node, block: &str) -> Result<&'n [(Key, Node)]> {
        match node.pairs() {
            Some(pairs) => Ok(pairs),
            None => self.error(node.span, format!("{block} is a mapping of keys to values; found {}", node.described()), ""),
        }
    }

    fn unknown(&mut self, key: &Key, block: &str, known: &[&str]) {
        let in_block = if block.is_empty() { String::new() } else { format!(" in {block}") };
        let name = escaped(&key.text);
        let (message, suggestion, note) = match home(&key.text) {
            Some(home) => (format!("the key `{name}` is in the wrong place{in_block}"), None, format!("it belongs {home}")),
            None => (format!("unknown key `{name}`{in_block}"), nearest(&key.text, known.iter().copied()), String::new()),
        };
        self.note(key.span, message, suggestion, note);
    }

    /// Notes something without effect.
    pub fn note(&mut self, span: Span, message: String, suggestion: Option<&str>, note: String) {
        self.findings.push(Finding { span, message, suggestion: suggestion.map(str::to_owned), note });
    }

    /// What the policy makes of the findings: warnings beside the result, or one error with all of them. A key that is nearly a known one
    /// is reported before the error that it led to.
    pub fn finish<T>(mut self, policy: UnknownPolicy, result: Result<T>) -> Result<(T, Vec<Warning>)> {
        self.findings.sort_by_key(|finding| finding.span.start);
        let rendered = |finding: &Finding| {
            let label = match &finding.suggestion {
                Some(near) if policy != UnknownPolicy::Ignore => format!("did you mean `{near}`?"),
                _ if finding.note.is_empty() => self.effect.to_owned(),
                _ => format!("{}; {}", self.effect, finding.note),
            };
            self.document.render(finding.span, &finding.message, &label)
        };
        let is_fatal = |finding: &&Finding| match policy {
            UnknownPolicy::Default => finding.suggestion.is_some(),
            UnknownPolicy::Ignore => false,
            UnknownPolicy::Strict => result.is_ok() || finding.suggestion.is_some(),
        };
        let name = escaped(&self.document.name);
        let fatal: Vec<String> = self.findings.iter().filter(is_fatal).take(MAX_SHOWN).map(rendered).collect();
        match (fatal.len(), self.findings.iter().filter(is_fatal).count()) {
            (0, _) => {
                let mut warnings: Vec<Warning> = self.findings.iter().take(MAX_SHOWN).map(|finding| Warning(rendered(finding))).collect();
                if let Some(more) = self.findings.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
                    warnings.push(Warning(format!("{name}: {more} more keys with {}", self.effect)));
                }
                Ok((result?, warnings))
            }
            (1, _) => Err(Error::new(&fatal[0])),
            (_, all) => Err(Error::new(format!("{name}: {all} keys without effect\n{}", within(&fatal).join("\n")))),
        }
    }
}

/// As many findings from the first on as one message can show.
fn within(findings: &[String]) -> &[String] {
    const LONGEST: usize = 1200;
    let mut length = 0;
    let fit = findings.iter().take_while(|finding| {
        length += finding.chars().count() + 1;
        length <= LONGEST
    });
    &findings[..fit.count().max(1)]
}

/// The known name that `word` was probably meant to be: a few letters off, never more than a third of them.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    const LONGEST: usize = 60;
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase().replace('-', "_");
    known
        .map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 2 && distance * 3 <= word.chars().count().max(name.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Where a key belongs that is known, but not where it stands.
fn home(key: &str) -> Option<&'static str> {
    Some(match key {
        "merge_method" | "models" | "slices" | "dtype" | "out_dtype" | "tokenizer_source" | "preset" | "exclude" | "vocab" => {
            "at the top of the recipe"
        }
        "base_model" => "at the top of the recipe or in a slice",
        "sparsify" | "seed" => "at the top of the recipe or beside `model`",
        "parameters" => "at the top of the recipe, in a slice, or beside `model`",
        "layer_range" => "beside `model` in the sources of a slice",
        "sources" | "residual_weight" => "in a slice",
        "data" => "at the top of the recipe or beside `model`",
        "statistics" => "beside `model`",
        "fisher" | "gram" => "at the top of the recipe",
        "drop_rate" => "in `sparsify`",
        "on_mismatch" => "in `vocab`",
        _ if crate::methods::all().any(|method| method.parameters.iter().any(|parameter| parameter.name == key)) => "in `parameters`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_known_means_a_few_letters_of_many() {
        let known = ["density", "weight", "t", "normalize", "models", "base_model"];
        let near = |word| nearest(word, known.into_iter());
        assert_eq!(near("densty"), Some("density"));
        assert_eq!(near("wieght"), Some("weight"));
        assert_eq!(near("Weights"), Some("weight"));
        assert_eq!(near("base-model"), Some("base_model"));
        assert_eq!(near("model"), Some("models"));
        for other in ["r", "T1", "eps", "gamma", "norm", "", "日本", &"x".repeat(100)] {
            assert_eq!(near(other), None, "{other}");
        }
    }
}
