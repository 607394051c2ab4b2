//! A judge's comparison of answers with a reference's, in both orders.

use std::collections::HashMap;
use std::path::Path;

use deltaic_checkpoint::{Error, Result, shorten};
use regex::Regex;
use serde_json::json;

use crate::backend::{Answer, Request};
use crate::data::{Data, Item};
use crate::metrics::Preference;
use crate::requests::verdicts;
use crate::score::Scored;
use crate::task::PairwiseJudge;

/// The reference's answers, by the task's `key`.
pub struct References {
    place: String,
    answers: HashMap<String, String>,
}

impl References {
    /// Reads the reference file, which has an answer for each of the items.
    ///
    /// # Errors
    /// The file cannot be read, or lacks an item's answer.
    pub fn read(task: &PairwiseJudge, file: &Path, items: &[Item]) -> Result<Self> {
        let mut answers = HashMap::new();
        for row in Data::read_any(file)? {
            let texts = || Ok((task.key.render(&row.fields)?, task.reference.render(&row.fields)?));
            let (key, answer) = texts().map_err(|error: Error| error.within(Path::new(&row.place)))?;
            answers.insert(key, answer);
        }
        let references = Self { place: file.display().to_string(), answers };
        items.iter().try_for_each(|item| references.of(task, item).map(drop))?;
        Ok(references)
    }

    fn of(&self, task: &PairwiseJudge, item: &Item) -> Result<&str> {
        let key = task.key.render(&item.fields).map_err(|error| error.within(Path::new(&item.place)))?;
        self.answers.get(&key).map(String::as_str).ok_or_else(|| {
            Error::new(format!("{}: there is no answer to `{}`", self.place, shorten(&key)))
                .help("the reference file has an answer for each item, found by the task's `key`")
        })
    }
}

/// What a judge is asked: two requests for each item, with the model's answer as A, then as B.
pub struct Judged {
    /// The requests, in the order of the items.
    pub requests: Vec<Request>,
    verdict: Regex,
}

impl Judged {
    /// Writes the judge's prompts about scored answers.
    ///
    /// # Errors
    /// A prompt that the item does not fit.
    pub fn new(task: &PairwiseJudge, references: &References, items: &[Item], scored: &[Scored]) -> Result<Self> {
        let mut requests = Vec::new();
        for (item, scored) in items.iter().zip(scored) {
            requests.extend(verdicts(task, item, scored.answer.as_str().unwrap_or_default(), references.of(task, item)?)?);
        }
        let verdict = Regex::new(&task.verdict).map_err(|error| Error::new(format!("pairwise_judge.verdict: {error}")))?;
        Ok(Self { requests, verdict })
    }

    /// Takes the judge's answers into the items' numbers: `win_rate` is the mean over both orders, where a draw and a verdict that cannot be
    /// read count half; `unreadable` is the share of such verdicts.
    ///
    /// # Errors
    /// An answer that is no text.
    pub fn score(&self, answers: &[Answer], scored: &mut [Scored]) -> Result<()> {
        for (pair, scored) in answers.chunks(2).zip(scored) {
            let mut said = Vec::new();
            for (order, answer) in pair.iter().enumerate() {
                let Answer::Text { text, .. } = answer else { return Err(Error::new("the judge's answer is no text")) };
                said.push((text, self.preference(text, order == 0)));
            }
            let value = |preference: Option<Preference>| preference.unwrap_or(Preference::Draw).value();
            let win_rate = said.iter().map(|(_, preference)| value(*preference)).sum::<f64>() / 2.0;
            let unreadable = said.iter().filter(|(_, preference)| preference.is_none()).count() as f64 / 2.0;
            scored.numbers.extend([("win_rate".to_owned(), win_rate), ("unreadable".to_owned(), unreadable)]);
            scored.prediction = json!(said.iter().map(|(_, preference)| preference).collect::<Vec<_>>());
            let texts: Vec<_> = said.iter().map(|(text, _)| text).collect();
            scored.answer = json!({"text": scored.answer, "verdicts": texts});
        }
        Ok(())
    }

    fn preference(&self, text: &str, model_is_a: bool) -> Option<Preference> {
        let last = self.verdict.captures_iter(text).last()?;
        let said = last.get(1).or_else(|| last.get(0))?.as_str();
        Some(match (said, model_is_a) {
            ("A", true) | ("B", false) => Preference::Win,
            ("A", false) | ("B", true) => Preference::Loss,
            _ => Preference::Draw,
        })
    }
}
