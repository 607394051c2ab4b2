//! From a model's answers about an item to numbers.

use deltaic_checkpoint::{Error, Result, shorten};
use minijinja::context;
use serde_json::{Value, json};

use crate::backend::{Answer, Finish};
use crate::data::Item;
use crate::extract::{ExactMatch, Pattern, code, gsm8k, math};
use crate::metrics::{Normalisation, ScoredChoice, argmax, pick, true_mass, word_count};
use crate::requests::{Choices, choices};
use crate::task::{
    ChoiceMetric, Classification, Generation, GenerationFile, Kind, MultipleChoice, Perplexity, PostProcess, Protocol, Score,
};

/// What was made of the answers about an item.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    /// The right answer, for records.
    pub gold: Value,
    /// What the model answered, as it was understood.
    pub prediction: Value,
    /// What the model answered, as it came.
    pub answer: Value,
    /// The numbers of which metrics are made, by the names of `Measure`'s columns.
    pub numbers: Vec<(String, f64)>,
    /// The program to run, for tasks that execute.
    pub program: Option<String>,
}

/// Scores the items of a task.
#[derive(Debug)]
pub struct Scorer<'a> {
    kind: Kind<'a>,
    /// For each output of a head the task's label, where the model names its outputs in another order.
    order: Option<Vec<usize>>,
    matchers: Vec<Matcher<'a>>,
}

/// A score of generated texts, compiled.
#[derive(Debug)]
struct Matcher<'a> {
    score: &'a Score,
    pattern: Option<Pattern>,
    exact: ExactMatch,
}

impl<'a> Scorer<'a> {
    /// Compiles what the task says; `head` are the names of the model's outputs, where it has them.
    ///
    /// # Errors
    /// A pattern that is none, or names of outputs that are some of the task's labels and some not.
    pub fn new(kind: Kind<'a>, head: Option<&[String]>) -> Result<Self> {
        let order = match kind {
            Kind::Classification(Classification { labels: Some(labels), .. }) => label_order(labels, head)?,
            _ => None,
        };
        let matcher = |score: &'a Score| {
            let pattern = score.regex.as_deref().map(|regex| Pattern::new(regex, score.take, &score.missing)).transpose()?;
            Ok(Matcher { score, pattern, exact: ExactMatch::new(&score.ignore, score.ignore_case)? })
        };
        let scores = if let Kind::Generation(task) = kind { task.scores.as_slice() } else { &[] };
        Ok(Self { kind, order, matchers: scores.iter().map(matcher).collect::<Result<_>>()? })
    }

    /// The numbers of an item.
    ///
    /// # Errors
    /// An answer of another kind than the request's, a number of logits that is not the task's, a label that the task does not know.
    pub fn score(&self, item: &Item, answers: &[Answer]) -> Result<Scored> {
        let scored = match self.kind {
            Kind::Classification(task) => classification(task, self.order.as_deref(), item, answers),
            Kind::MultipleChoice(task) => multiple_choice(task, item, answers),
            Kind::Generation(task) => generation(task, &self.matchers, item, answers),
            Kind::AnswerNll(_) => log_likelihood(answers).map(|(sum, tokens, greedy)| Scored {
                answer: json!({"log_likelihood": sum, "tokens": tokens, "greedy": greedy}),
                numbers: numbers([("log_likelihood", sum), ("tokens", tokens as f64)]),
                ..Scored::default()
            }),
            Kind::Perplexity(task) => perplexity(task, item, answers),
            Kind::PairwiseJudge(_) => text(answers).map(|(text, ..)| Scored { answer: text.into(), ..Scored::default() }),
        };
        scored.map_err(|error| error.within(std::path::Path::new(&item.place)))
    }
}

/// The task's label of each output, by the outputs' names; none where the names say nothing (`LABEL_0`).
fn label_order(labels: &[Vec<String>], head: Option<&[String]>) -> Result<Option<Vec<usize>>> {
    let Some(head) = head.filter(|head| head.len() == labels.len()) else { return Ok(None) };
    let meant = |output: &String| labels.iter().position(|names| names.iter().any(|name| name.eq_ignore_ascii_case(output)));
    let order: Vec<usize> = head.iter().filter_map(meant).collect();
    let distinct = (0..labels.len()).all(|label| order.contains(&label));
    if order.is_empty() || (order.len() == head.len() && distinct) {
        return Ok((!order.is_empty()).then_some(order));
    }
    let expected: Vec<&str> = labels.iter().filter_map(|names| names.first().map(String::as_str)).collect();
    let found = shorten(&head.join(", "));
    Err(Error::new(format!("config.json: id2label: expected {}, in any order, found {found}", expected.join(", ")))
        .help("take the head of a model that was fine-tuned on this task: --head-from MODEL"))
}

fn wrong_kind(answer: Option<&Answer>) -> Error {
    let found = answer.map_or("no answer", |answer| match answer {
        Answer::LogLikelihood { .. } => "a log-likelihood",
        Answer::Text { .. } => "a text",
        Answer::Logits { .. } => "logits",
    });
    Error::new(format!("the model's answer is not of the question's kind: found {found}"))
}

fn log_likelihood(answers: &[Answer]) -> Result<(f64, usize, bool)> {
    match answers {
        [Answer::LogLikelihood { sum, tokens, greedy }] => Ok((*sum, *tokens, *greedy)),
        other => Err(wrong_kind(other.first())),
    }
}

fn text(answers: &[Answer]) -> Result<(&str, usize, Finish)> {
    match answers {
        [Answer::Text { text, tokens, finish }] => Ok((text, *tokens, *finish)),
        other => Err(wrong_kind(other.first())),
    }
}

fn classification(task: &Classification, order: Option<&[usize]>, item: &Item, answers: &[Answer]) -> Result<Scored> {
    let [Answer::Logits { logits }] = answers else { return Err(wrong_kind(answers.first())) };
    let label = task.label.render(&item.fields)?;
    let outputs = task.labels.as_ref().map_or(1, Vec::len);
    if logits.len() != outputs {
        return Err(Error::new(format!("the head has {} outputs, the task {outputs}", logits.len()))
            .help("take the head of a model that was fine-tuned on this task: --head-from MODEL"));
    }
    let (gold, prediction) = match &task.labels {
        None => {
            let gold = label.trim().parse::<f64>().ok().filter(|gold| gold.is_finite());
            let gold = gold.ok_or_else(|| Error::new(format!("expected a number as score, found `{}`", shorten(&label))))?;
            (gold, f64::from(logits[0]))
        }
        Some(labels) => {
            let gold = labels.iter().position(|names| names.contains(&label)).ok_or_else(|| {
                let known: Vec<&str> = labels.iter().flatten().map(String::as_str).collect();
                Error::new(format!("the label is `{}`; expected one of {}", shorten(&label), known.join(", ")))
            })?;
            let output = argmax(logits.iter().map(|&logit| f64::from(logit)));
            let prediction = output.map(|output| order.and_then(|order| order.get(output).copied()).unwrap_or(output));
            (gold as f64, prediction.map_or(f64::NAN, |prediction| prediction as f64))
        }
    };
    let name = |value: f64| match &task.labels {
        Some(_) => json!((value >= 0.0).then_some(value as usize)),
        None => json!(value),
    };
    Ok(Scored {
        gold: name(gold),
        prediction: name(prediction),
        answer: json!({"logits": logits}),
        numbers: numbers([("prediction", prediction), ("gold", gold)]),
        program: None,
    })
}

fn numbers<const N: usize>(numbers: [(&str, f64); N]) -> Vec<(String, f64)> {
    numbers.map(|(name, number)| (name.to_owned(), number)).to_vec()
}

fn multiple_choice(task: &MultipleChoice, item: &Item, answers: &[Answer]) -> Result<Scored> {
    let Choices { texts, .. } = choices(task, item)?;
    let one = |answer: &Answer| match answer {
        Answer::LogLikelihood { sum, tokens, greedy } => Ok((*sum, *tokens, *greedy)),
        other => Err(wrong_kind(Some(other))),
    };
    let found: Vec<(f64, usize, bool)> = answers.iter().map(one).collect::<Result<_>>()?;
    if found.len() != texts.len() {
        return Err(Error::new(format!("{} answers about {} choices", found.len(), texts.len())));
    }
    let gold = task.gold.as_ref().map(|gold| gold.index(&item.fields, texts.len())).transpose()?;
    let scored = found.iter().zip(&texts).map(|(&(log_likelihood, tokens, _), text)| ScoredChoice { text, log_likelihood, tokens });
    let scored: Vec<ScoredChoice<'_>> = scored.collect();
    let mut numbers = Vec::new();
    let mut prediction = None;
    for &metric in &task.metrics {
        let choice = match metric {
            ChoiceMetric::Acc => pick(&scored, Normalisation::None),
            ChoiceMetric::AccNorm => pick(&scored, Normalisation::Characters),
            ChoiceMetric::AccBytes => pick(&scored, Normalisation::Bytes),
            ChoiceMetric::AccToken => pick(&scored, Normalisation::Tokens),
            ChoiceMetric::Mass => {
                let truths = task.truths.as_ref().ok_or_else(|| Error::new("mass needs truths"))?.texts(&item.fields)?;
                let truths: Vec<bool> = truths.iter().map(|truth| truth == "1" || truth == "true").collect();
                let sums: Vec<f64> = scored.iter().map(|choice| choice.log_likelihood).collect();
                numbers.push((metric.name().to_owned(), true_mass(&sums, &truths)?));
                continue;
            }
        };
        prediction = prediction.or(choice);
        numbers.push((metric.name().to_owned(), f64::from(choice.is_some() && choice == gold)));
    }
    let sums: Vec<f64> = found.iter().map(|choice| choice.0).collect();
    let tokens: Vec<usize> = found.iter().map(|choice| choice.1).collect();
    let greedy: Vec<bool> = found.iter().map(|choice| choice.2).collect();
    let answer = json!({"log_likelihoods": sums, "tokens": tokens, "greedy": greedy});
    Ok(Scored { gold: json!(gold), prediction: json!(prediction), answer, numbers, program: None })
}

fn generation(task: &Generation, matchers: &[Matcher<'_>], item: &Item, answers: &[Answer]) -> Result<Scored> {
    let (answer, tokens, finish) = text(answers)?;
    let gold = task.answer.as_ref().map(|answer| answer.render(&item.fields)).transpose()?;
    let mut scored = Scored { gold: json!(gold), answer: json!({"text": answer, "tokens": tokens, "finish": finish}), ..Scored::default() };
    let mut predictions = serde_json::Map::new();
    for matcher in matchers {
        let (prediction, right) = matcher.is_right(answer, gold.as_deref().unwrap_or_default())?;
        scored.numbers.push((matcher.score.metric.clone(), f64::from(right)));
        if matcher.score.protocol.is_some() {
            scored.numbers.push(("no_answer".to_owned(), f64::from(prediction.is_null())));
        }
        predictions.insert(matcher.score.metric.clone(), prediction);
    }
    scored.prediction = match predictions.len() {
        0 | 1 => predictions.into_iter().next().map(|(_, prediction)| prediction).unwrap_or_default(),
        _ => predictions.into(),
    };
    if task.file == Some(GenerationFile::AlpacaEval) {
        // What the file of generations repeats of the data.
        let field = |name: &str| item.fields.get_attr(name).ok().and_then(|value| serde_json::to_value(value).ok());
        scored.gold = json!({"instruction": field("instruction"), "dataset": field("dataset")});
    }
    if let Some(spec) = &task.code {
        let completion = match spec.post_process {
            PostProcess::None => answer.to_owned(),
            PostProcess::Humaneval => code::humaneval(answer),
            PostProcess::Mbpp => code::mbpp(answer),
        };
        scored.prediction = json!(completion);
        scored.program = Some(spec.program.render(&context! { completion, ..item.fields.clone() })?);
    }
    if task.scores.is_empty() && task.code.is_none() {
        scored.numbers.push(("completed".to_owned(), f64::from(finish == Finish::Stop)));
    }
    Ok(scored)
}

impl Matcher<'_> {
    /// What an answer is understood as (null: nothing), and whether it is right.
    fn is_right(&self, answer: &str, gold: &str) -> Result<(Value, bool)> {
        match self.score.protocol {
            Some(Protocol::Gsm8k) => {
                let (found, gold) = (gsm8k::answer(answer), gsm8k::gold(gold)?);
                Ok((json!(found), found == Some(gold)))
            }
            Some(protocol) => {
                let variant = if protocol == Protocol::Math { math::Variant::Authors } else { math::Variant::Hendrycks };
                Ok((json!(math::answer(answer)), math::is_correct(answer, math::gold(gold), variant)))
            }
            None => {
                let found = self.pattern.as_ref().map_or(answer, |pattern| pattern.answer(answer));
                Ok((json!(found), self.exact.is_match(found, gold)))
            }
        }
    }
}

fn perplexity(task: &Perplexity, item: &Item, answers: &[Answer]) -> Result<Scored> {
    let (sum, tokens, _) = log_likelihood(answers)?;
    let counted = task.counted.as_ref().unwrap_or(&task.text).render(&item.fields)?;
    let (words, bytes) = (word_count(&counted), counted.len());
    Ok(Scored {
        answer: json!({"log_likelihood": sum, "tokens": tokens, "words": words, "bytes": bytes}),
        numbers: numbers([("log_likelihood", sum), ("tokens", tokens as f64), ("words", words as f64), ("bytes", bytes as f64)]),
        ..Scored::default()
    })
}
