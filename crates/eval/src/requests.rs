//! What a model is asked about an item.

use deltaic_checkpoint::{Error, Result};
use minijinja::{Value, context};

use crate::backend::{Message, Prompt, Request, Tokenisation};
use crate::data::Item;
use crate::shots::ShotTexts;
use crate::task::{AnswerNll, Classification, Generation, Kind, MultipleChoice, PairwiseJudge, Perplexity};

/// What the requests of all items share.
#[derive(Debug, Default)]
pub struct Setting<'a> {
    /// Solved examples.
    pub shots: Option<ShotTexts<'a>>,
    /// A system's message in place of the task's.
    pub system: Option<String>,
    /// Whether prompts that are text are sent as a user's message.
    pub as_chat: bool,
    /// What ends a turn of the model.
    pub eos_token: Option<String>,
    /// Most tokens of a generated text, in place of the task's.
    pub max_new_tokens: Option<usize>,
}

/// The requests about an item, in the order in which scoring expects their answers.
///
/// # Errors
/// An item that the task's templates do not fit; the message names its file and line.
pub fn requests(kind: Kind<'_>, setting: &Setting<'_>, item: &Item) -> Result<Vec<Request>> {
    let requests = match kind {
        Kind::Classification(task) => classification(task, item),
        Kind::MultipleChoice(task) => multiple_choice(task, setting, item),
        Kind::Generation(task) => generation(task, setting, item),
        Kind::AnswerNll(task) => answer_nll(task, setting, item),
        Kind::Perplexity(task) => document(task, item),
        Kind::PairwiseJudge(task) => judged_answer(task, setting, item),
    };
    requests.map_err(|error| error.within(std::path::Path::new(&item.place)))
}

fn classification(task: &Classification, item: &Item) -> Result<Vec<Request>> {
    let text = task.text.render(&item.fields)?;
    let pair = task.pair.as_ref().map(|pair| pair.render(&item.fields)).transpose()?;
    Ok(vec![Request::Classify { text, pair, max_tokens: task.max_tokens }])
}

/// Contexts and continuations of an item's choices, and the texts by whose lengths they are normalised.
pub(crate) struct Choices {
    pub contexts: Vec<String>,
    pub continuations: Vec<String>,
    pub texts: Vec<String>,
}

/// The choices of an item.
pub(crate) fn choices(task: &MultipleChoice, item: &Item) -> Result<Choices> {
    let (contexts, texts) = match (&task.context, &task.choices, &task.contexts, &task.continuation) {
        (Some(context), Some(choices), ..) => {
            let texts = choices.texts(&item.fields)?;
            (vec![context.render(&item.fields)?; texts.len()], texts)
        }
        (.., Some(contexts), Some(continuation)) => {
            let contexts = contexts.texts(&item.fields)?;
            let text = continuation.render(&item.fields)?;
            let texts = vec![text; contexts.len()];
            (contexts, texts)
        }
        _ => return Err(Error::new("multiple_choice: expected context and choices, or contexts and continuation")),
    };
    if texts.len() < 2 {
        return Err(Error::new(format!("expected at least two choices, found {}", texts.len())));
    }
    let continuations = texts.iter().map(|text| format!("{}{text}", task.delimiter)).collect();
    Ok(Choices { contexts, continuations, texts })
}

fn multiple_choice(task: &MultipleChoice, setting: &Setting<'_>, item: &Item) -> Result<Vec<Request>> {
    let preamble = task.preamble.as_ref().map(|preamble| preamble.render(&item.fields)).transpose()?.unwrap_or_default();
    let shots = setting.shots.as_ref().map(|shots| shots.before(item)).transpose()?.unwrap_or_default();
    let Choices { contexts, continuations, .. } = choices(task, item)?;
    let request = |(context, continuation): (String, String)| Request::LogLikelihood {
        prompt: Prompt::Text(format!("{preamble}{shots}{context}")),
        continuation,
        tokenisation: Tokenisation::Joint,
    };
    Ok(contexts.into_iter().zip(continuations).map(request).collect())
}

/// A solved example as it stands before questions.
pub(crate) fn example_text(kind: Kind<'_>, shot: &Item) -> Result<String> {
    match kind {
        Kind::MultipleChoice(task) => {
            let Choices { contexts, continuations, .. } = choices(task, shot)?;
            let gold = task.gold.as_ref().ok_or_else(|| Error::new("the task has no gold, so it can have no shots"))?;
            let gold = gold.index(&shot.fields, contexts.len())?;
            Ok(format!("{}{}", contexts[gold], continuations[gold]))
        }
        Kind::Generation(task) => {
            let answer = task.answer.as_ref().ok_or_else(|| Error::new("the task has no answer, so it can have no shots"))?;
            Ok(format!("{}{}{}", task.prompt.render(&shot.fields)?, task.delimiter, answer.render(&shot.fields)?))
        }
        _ => Err(Error::new("this kind of task has no shots")),
    }
}

/// A text as it stands, or a conversation.
fn prompt(text: String, chat: bool, system: Option<&str>) -> Result<Prompt> {
    if !chat {
        return match system {
            None => Ok(Prompt::Text(text)),
            Some(_) => Err(Error::new("the task's prompt is text, which has no system message").help("leave --system out, or add --chat")),
        };
    }
    let message = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    let system = system.map(|system| message("system", system));
    Ok(Prompt::Chat(system.into_iter().chain([message("user", &text)]).collect()))
}

fn greedy(prompt: Prompt, max_new_tokens: usize, stop: &[String]) -> Request {
    Request::Generate { prompt, max_new_tokens, stop: stop.to_vec(), temperature: 0.0, top_p: 1.0, seed: 0 }
}

fn generation(task: &Generation, setting: &Setting<'_>, item: &Item) -> Result<Vec<Request>> {
    let shots = setting.shots.as_ref().map(|shots| shots.before(item)).transpose()?.unwrap_or_default();
    let text = format!("{shots}{}", task.prompt.render(&item.fields)?);
    let system = setting.system.as_deref().or(task.system.as_deref());
    let max_new_tokens = setting.max_new_tokens.unwrap_or(task.max_new_tokens);
    Ok(vec![greedy(prompt(text, task.chat || setting.as_chat, system)?, max_new_tokens, &task.stop)])
}

fn answer_nll(task: &AnswerNll, setting: &Setting<'_>, item: &Item) -> Result<Vec<Request>> {
    let fields = match &setting.eos_token {
        Some(eos_token) => context! { eos_token, ..item.fields.clone() },
        None if task.answer.mentions("eos_token") => {
            return Err(Error::new("the end of the model's turn is not known here, but the task's answer has `eos_token`")
                .help("copy the task's file and write the token itself in `answer`"));
        }
        None => item.fields.clone(),
    };
    let system = setting.system.as_deref().or(task.system.as_deref());
    Ok(vec![Request::LogLikelihood {
        prompt: prompt(task.prompt.render(&fields)?, task.chat, system)?,
        continuation: task.answer.render(&fields)?,
        tokenisation: Tokenisation::Apart { max_tokens: task.max_tokens },
    }])
}

fn document(task: &Perplexity, item: &Item) -> Result<Vec<Request>> {
    let text = task.text.render(&item.fields)?;
    if text.trim().is_empty() {
        return Err(Error::new("the document is empty: there is nothing to predict").help("leave such items out with data.keep"));
    }
    Ok(vec![Request::Rolling { text }])
}

fn judged_answer(task: &PairwiseJudge, setting: &Setting<'_>, item: &Item) -> Result<Vec<Request>> {
    let system = setting.system.as_deref().or(task.system.as_deref());
    let prompt = prompt(task.prompt.render(&item.fields)?, task.chat || setting.as_chat, system)?;
    Ok(vec![greedy(prompt, setting.max_new_tokens.unwrap_or(task.max_new_tokens), &[])])
}

/// What the judge is asked about an item: the model's answer as A, then as B.
pub(crate) fn verdicts(task: &PairwiseJudge, item: &Item, answer: &str, reference: &str) -> Result<[Request; 2]> {
    let ask = |answer_a: &str, answer_b: &str| {
        let fields: Value = context! { answer_a, answer_b, ..item.fields.clone() };
        let prompt = prompt(task.judge.render(&fields)?, true, task.judge_system.as_deref())?;
        Ok(greedy(prompt, task.judge_tokens, &[]))
    };
    let both = || Ok([ask(answer, reference)?, ask(reference, answer)?]);
    both().map_err(|error: Error| error.within(std::path::Path::new(&item.place)))
}
