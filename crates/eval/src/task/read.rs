//! Reading a task's file: what serde checks, and what it cannot.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use deltaic_checkpoint::{Context, Error, Result, shorten};
use regex::Regex;
use serde::{Deserialize, Deserializer};

use super::{ClassificationMetric, Direction, Expression, Headline, Kind, Task, Template};
use crate::task::ChoiceMetric;
use crate::yaml::from_yaml;

/// Greatest task file in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Most tokens that a task can ask for in one generation.
pub(crate) const MAX_NEW_TOKENS: usize = 1 << 20;
/// Metrics of which the lower value is the better one.
const LOWER: [&str; 8] =
    ["nll", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "no_answer", "timed_out", "unreadable"];

impl<'de> Deserialize<'de> for Headline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;
        impl<'de> serde::de::Visitor<'de> for Names {
            type Value = Headline;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a metric's name or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<Headline, E> {
                Ok(Headline(vec![name.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut names: A) -> std::result::Result<Headline, A::Error> {
                let mut headline = Vec::new();
                while let Some(name) = names.next_element()? {
                    headline.push(name);
                }
                Ok(Headline(headline))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

pub(super) fn number_of_kinds(task: &str, several: bool) -> Error {
    let found = if several { "several" } else { "none" };
    Error::new(format!("{}: expected one kind of task, found {found}", shorten(task)))
        .help("give exactly one of classification, multiple_choice, generation, answer_nll, perplexity, pairwise_judge")
}

impl Task {
    /// Reads a task's file.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or says what [`Self::parse`] refuses.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).context("opening the task", path)?;
        let mut text = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut text).context("reading the task", path)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::new(format!("{}: a task file has at most {MAX_BYTES} bytes", path.display())));
        }
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of a task's file; `name` stands for the file in messages.
    ///
    /// # Errors
    /// What is no YAML, an unknown or missing key (with line, and the key that was meant), a template, expression or pattern that cannot
    /// be parsed, a metric that the kind of task does not have.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut task: Self = from_yaml(name, text)?;
        let check = Checker { name };
        let kind = task.kind().map_err(|error| error.within(Path::new(name)))?;
        check.files(&task)?;
        let metrics = check.kind(kind)?;
        if let Some(unknown) = task.headline.0.iter().find(|name| !metrics.contains(name)) {
            let message = format!("{name}: the headline `{}` is no metric of this task", shorten(unknown));
            return Err(Error::new(message).help(format!("it has {}", metrics.join(", "))));
        }
        let mut seen = BTreeSet::new();
        // A metric that comes about in one way only may stand for several scores (`no_answer`).
        if let Some(twice) = metrics.iter().find(|metric| !seen.insert(*metric) && *metric != "no_answer") {
            return Err(Error::new(format!("{name}: two metrics are called `{}`", shorten(twice))).help("give each a name of its own"));
        }
        task.direction = check.direction(&task)?;
        Ok(task)
    }

    /// Which value of a headline's metric is the better one; none for a metric that the task's file has named itself.
    fn direction_of(&self, metric: &str) -> Option<Direction> {
        let scores = self.generation.as_ref().map(|generation| generation.scores.as_slice()).unwrap_or_default();
        let own = scores.iter().any(|score| score.metric == metric);
        (!own).then_some(if LOWER.contains(&metric) { Direction::Lower } else { Direction::Higher })
    }
}

struct Checker<'a> {
    name: &'a str,
}

impl Checker<'_> {
    fn wrong(&self, line: u64, what: &str) -> Error {
        Error::new(format!("{}:{line}: {what}", self.name))
    }

    /// The direction as given, else as the headline's metrics have it.
    fn direction(&self, task: &Task) -> Result<Direction> {
        let known = task.headline.0.iter().filter_map(|metric| Some((metric, task.direction_of(metric)?)));
        let mut found = task.given_direction;
        for (metric, direction) in known {
            if *found.get_or_insert(direction) != direction {
                let better = if direction == Direction::Lower { "lower" } else { "higher" };
                let metric = shorten(metric);
                let message = format!("{}: of `{metric}`, which is in the headline, the {better} value is the better one", self.name);
                return Err(Error::new(message).help(match task.given_direction {
                    Some(_) => format!("leave `direction` out, or say `direction: {better}`"),
                    None => "a mean of metrics with both directions has none: take one of them as headline".to_owned(),
                }));
            }
        }
        Ok(found.unwrap_or_default())
    }

    fn templates<'t>(&self, templates: impl IntoIterator<Item = Option<&'t Template>>) -> Result<()> {
        templates.into_iter().flatten().try_for_each(|template| template.check().map_err(|what| self.wrong(template.line(), &what)))
    }

    fn expressions<'t>(&self, expressions: impl IntoIterator<Item = Option<&'t Expression>>) -> Result<()> {
        expressions.into_iter().flatten().try_for_each(|expression| expression.check().map_err(|what| self.wrong(expression.line(), &what)))
    }

    fn pattern(&self, pattern: &str) -> Result<()> {
        let error = Regex::new(pattern).map(drop);
        error.map_err(|error| Error::new(format!("{}: the pattern `{}`: {error}", self.name, shorten(pattern))))
    }

    fn files(&self, task: &Task) -> Result<()> {
        let data = &task.data;
        self.templates([data.id.as_ref()])?;
        self.expressions([data.keep.as_ref(), data.each.as_ref()])?;
        self.expressions(data.define.0.iter().map(|(_, expression)| Some(expression)))?;
        if data.files.is_empty() {
            return Err(Error::new(format!("{}: data.files is empty; expected the names of the task's files", self.name)));
        }
        if let Some((field, value)) = data.columns.iter().find(|(_, value)| !value.is_string() && !value.is_i64()) {
            let message = format!("{}: data.columns.{}: expected a name or a number, found {value}", self.name, shorten(field));
            return Err(Error::new(message));
        }
        if task.shots.as_ref().is_some_and(|shots| !shots.inline.is_empty() && !shots.files.is_empty()) {
            return Err(Error::new(format!("{}: shots: expected files or inline examples, found both", self.name)));
        }
        self.expressions([task.shots.as_ref().and_then(|shots| shots.group.as_ref())])
    }

    /// Checks what a kind says; the names of its metrics.
    fn kind(&self, kind: Kind<'_>) -> Result<Vec<String>> {
        let of_this_file = |error: Error| error.within(Path::new(self.name));
        match kind {
            Kind::Classification(spec) => {
                self.templates([Some(&spec.text), spec.pair.as_ref(), Some(&spec.label)])?;
                let regression = [ClassificationMetric::Pearson, ClassificationMetric::Spearman];
                if let Some(metric) = spec.metrics.iter().find(|metric| regression.contains(metric) == spec.labels.is_some()) {
                    let what = if spec.labels.is_some() { "a task with labels" } else { "a regression (a task without labels)" };
                    return Err(Error::new(format!("{}: {} is no metric of {what}", self.name, metric.name())));
                }
                if spec.labels.as_ref().is_some_and(|labels| labels.len() < 2 || labels.iter().any(Vec::is_empty)) {
                    return Err(Error::new(format!("{}: expected at least two labels with a name each", self.name)));
                }
                let binary = [ClassificationMetric::F1, ClassificationMetric::Matthews];
                let labels = spec.labels.as_ref().map_or(0, Vec::len);
                if let Some(metric) = spec.metrics.iter().find(|metric| binary.contains(metric) && labels != 2) {
                    let message = format!("{}: {} is a metric of two labels, found {labels}", self.name, metric.name());
                    return Err(Error::new(message).help("take accuracy"));
                }
                Ok(spec.metrics.iter().map(|metric| metric.name().to_owned()).collect())
            }
            Kind::MultipleChoice(spec) => {
                self.templates([spec.preamble.as_ref(), spec.context.as_ref(), spec.continuation.as_ref()])?;
                self.expressions([&spec.choices, &spec.contexts, &spec.gold, &spec.truths].map(Option::as_ref))?;
                self.choices(spec)?;
                Ok(spec.metrics.iter().map(|metric| metric.name().to_owned()).collect())
            }
            Kind::Generation(spec) => self.generation(spec),
            Kind::AnswerNll(spec) => {
                self.templates([Some(&spec.prompt), Some(&spec.answer)])?;
                Ok(["nll", "perplexity"].map(str::to_owned).to_vec())
            }
            Kind::Perplexity(spec) => {
                self.templates([Some(&spec.text), spec.counted.as_ref()])?;
                Ok(["word_perplexity", "byte_perplexity", "bits_per_byte", "nll"].map(str::to_owned).to_vec())
            }
            Kind::PairwiseJudge(spec) => {
                self.templates([&spec.prompt, &spec.key, &spec.reference, &spec.judge].map(Some))?;
                self.pattern(&spec.verdict)?;
                self.tokens(spec.max_new_tokens.max(spec.judge_tokens)).map_err(of_this_file)?;
                Ok(["win_rate", "unreadable"].map(str::to_owned).to_vec())
            }
        }
    }

    fn choices(&self, spec: &super::MultipleChoice) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(format!("{}: multiple_choice: {what}", self.name)));
        match (&spec.context, &spec.choices, &spec.contexts, &spec.continuation) {
            (Some(_), Some(_), None, None) | (None, None, Some(_), Some(_)) => {}
            _ => return wrong("expected either context and choices, or contexts and continuation"),
        }
        if spec.metrics.contains(&ChoiceMetric::Mass) && spec.truths.is_none() {
            return wrong("mass needs truths");
        }
        if spec.metrics.iter().any(|&metric| metric != ChoiceMetric::Mass) && spec.gold.is_none() {
            return wrong("acc needs gold");
        }
        Ok(())
    }

    fn generation(&self, spec: &super::Generation) -> Result<Vec<String>> {
        self.templates([Some(&spec.prompt), spec.answer.as_ref(), spec.code.as_ref().map(|code| &code.program)])?;
        self.tokens(spec.max_new_tokens)?;
        if spec.stop.iter().any(String::is_empty) {
            return Err(Error::new(format!("{}: generation.stop: an empty stop string stops nothing", self.name)).help("leave it out"));
        }
        let mut metrics: Vec<String> = Vec::new();
        for score in &spec.scores {
            let place = format!("{}: generation.scores: {}", self.name, shorten(&score.metric));
            if score.protocol.is_some() && score.regex.is_some() {
                return Err(Error::new(format!("{place}: expected a protocol or a regex, found both")));
            }
            if spec.answer.is_none() {
                return Err(Error::new(format!("{place}: there is no answer to compare with")).help("give generation.answer"));
            }
            score.regex.iter().chain(&score.ignore).try_for_each(|pattern| self.pattern(pattern))?;
            metrics.push(score.metric.clone());
            if score.protocol.is_some() {
                metrics.push("no_answer".to_owned());
            }
        }
        if spec.code.is_some() {
            metrics.extend(["pass@1".to_owned(), "timed_out".to_owned()]);
        }
        Ok(metrics)
    }

    fn tokens(&self, tokens: usize) -> Result<()> {
        if (1..=MAX_NEW_TOKENS).contains(&tokens) {
            return Ok(());
        }
        Err(Error::new(format!("{}: expected 1 to {MAX_NEW_TOKENS} new tokens, found {tokens}", self.name)))
    }
}
