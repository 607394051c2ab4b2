//! What a server answered, out of its JSON.
//!
//! The shapes are those of OpenAI's completions and chat completions, as vLLM, llama.cpp and llama-cpp-python write them too.
//! Everything may be missing or null; what a request needs is asked for where it is used.

use std::collections::BTreeMap;

use deltaic_checkpoint::{Error, Result};
use serde::Deserialize;

use super::alignment;
use super::wire::Expected;
use crate::extract::first_stop;
use crate::{Answer, Finish};

const NO_ECHO: &str =
    "use a server that has `echo` with `logprobs` in /completions (vLLM, llama-cpp-python), or run the model in this process";

/// A completion or chat completion.
#[derive(Debug, Deserialize)]
pub(super) struct Completion {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    /// Some gateways answer 200 and have the failure in here.
    pub error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    text: Option<String>,
    message: Option<ChatMessage>,
    finish_reason: Option<String>,
    logprobs: Option<LogProbabilities>,
}

#[derive(Debug, Deserialize)]
struct ChatMessage {
    content: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    completion_tokens: Option<usize>,
}

/// OpenAI's `logprobs` of a completion: parallel lists, one entry per token, the prompt's tokens first.
#[derive(Debug, Deserialize)]
struct LogProbabilities {
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f64>>>,
    top_logprobs: Option<Vec<Option<Likeliest>>>,
    text_offset: Option<Vec<usize>>,
}

/// The most likely tokens at one place, and the one that is there.
type Likeliest = BTreeMap<String, Option<f64>>;

/// The tokens of an echoed prompt, without the generated one.
#[derive(Debug)]
pub(super) struct Echoed {
    /// Text of each token; of special tokens in front, too.
    pub tokens: Vec<String>,
    /// Where each begins, in characters, as the server counts.
    pub offsets: Option<Vec<usize>>,
    /// Natural logarithm of each token's probability; none for the first.
    logprobs: Vec<Option<f64>>,
    /// The greatest logarithm among those listed for each token.
    greatest: Vec<Option<f64>>,
}

/// An answer, or that a second call is needed for it.
#[derive(Debug)]
pub(super) enum Read {
    /// The answer.
    Answer(Answer),
    /// The echoed text's tokens cannot be laid on its characters: how many of them are the prompt's has to be asked.
    Count(Echoed),
    /// Of [`Expected::PromptTokens`].
    PromptTokens(usize),
}

/// Reads what was asked for.
///
/// # Errors
/// What is expected is not there, and will not be there the next time: an endpoint without log-probabilities, or without echo.
/// `None` where the answer is malformed and another may be better.
pub(super) fn read(completion: Completion, expected: &Expected) -> Result<Option<Read>> {
    let Some(choice) = completion.choices.into_iter().next() else { return Ok(None) };
    let usage = completion.usage;
    match expected {
        Expected::Text { stop } => Ok(text(choice, usage.as_ref(), stop).map(Read::Answer)),
        Expected::Likelihood { prompt, continuation } => {
            let full = format!("{prompt}{continuation}");
            let echoed = echoed(choice, usage.as_ref(), &full)?;
            match alignment::continuation(&echoed.tokens, echoed.offsets.as_deref(), prompt, &full) {
                Some(first) => likelihood(&echoed, first).map(Read::Answer).map(Some),
                None if prompt.trim_end().is_empty() => {
                    Err(Error::new("the endpoint's tokens cannot be laid on the text that is to be scored")
                        .help("the server's `logprobs` neither have the text's pieces nor right offsets: run the model in this process"))
                }
                None => Ok(Some(Read::Count(echoed))),
            }
        }
        Expected::PromptTokens => {
            Ok(choice.logprobs.and_then(|list| list.tokens).map(|tokens| Read::PromptTokens(prompt_tokens(&tokens, usage.as_ref()))))
        }
    }
}

/// A generated text, cut before the first stop string in it.
fn text(choice: Choice, usage: Option<&Usage>, stop: &[String]) -> Option<Answer> {
    let mut text = match (choice.text, choice.message) {
        (Some(text), _) => text,
        // Null where all tokens went into what the server keeps apart (reasoning, calls of tools).
        (None, Some(message)) => message.content.unwrap_or_default(),
        (None, None) => return None,
    };
    let mut finish = if choice.finish_reason.as_deref() == Some("length") { Finish::Length } else { Finish::Stop };
    if let Some(end) = first_stop(&text, stop) {
        text.truncate(end);
        finish = Finish::Stop;
    }
    Some(Answer::Text { text, tokens: usage.and_then(|usage| usage.completion_tokens).unwrap_or(0), finish })
}

/// The lists of an echoed prompt, checked against each other.
fn echoed(choice: Choice, usage: Option<&Usage>, full: &str) -> Result<Echoed> {
    // Special tokens may stand in front of the text.
    let is_echo = choice.text.as_deref().is_some_and(|text| text.starts_with(full) || text.contains(full));
    if !is_echo {
        return Err(Error::new("the endpoint does not repeat the prompt (`echo`), so it gives no likelihood of a given text").help(NO_ECHO));
    }
    let lists = choice.logprobs.and_then(|lists| Some((lists.tokens?, lists.token_logprobs?, lists.top_logprobs, lists.text_offset)));
    let Some((mut tokens, mut logprobs, top, offsets)) = lists else {
        return Err(Error::new("the endpoint gives no log-probabilities of the prompt's tokens").help(NO_ECHO));
    };
    let top = top.ok_or_else(no_greatest)?;
    let count = tokens.len();
    if [logprobs.len(), top.len(), offsets.as_ref().map_or(count, Vec::len)] != [count; 3] {
        return Err(Error::new(format!(
            "the endpoint's lists of tokens are not of one length: {count} tokens, {} log-probabilities, {} lists of the most likely",
            logprobs.len(),
            top.len()
        ))
        .help(NO_ECHO));
    }
    let kept = prompt_tokens(&tokens, usage);
    tokens.truncate(kept);
    logprobs.truncate(kept);
    let greatest = top.into_iter().take(kept).map(|listed| listed.and_then(|of| of.into_values().flatten().reduce(f64::max))).collect();
    Ok(Echoed { tokens, offsets: offsets.map(|all| all[..kept].to_vec()), logprobs, greatest })
}

fn no_greatest() -> Error {
    Error::new("the endpoint does not say which tokens are the most likely ones (`top_logprobs`)").help(NO_ECHO)
}

/// How many of the tokens are the prompt's: all but those generated, of which one was asked for.
///
/// Not `usage.prompt_tokens`: llama-cpp-python counts a BOS there that its lists do not have.
fn prompt_tokens(tokens: &[String], usage: Option<&Usage>) -> usize {
    let generated = usage.and_then(|usage| usage.completion_tokens).filter(|&count| count <= 1).unwrap_or(1);
    tokens.len().saturating_sub(generated)
}

/// The sum over the tokens from `first` on.
///
/// # Errors
/// A token that is scored has no probability: the first one of a text, where the server prepends no BOS.
pub(super) fn likelihood(echoed: &Echoed, first: usize) -> Result<Answer> {
    let scored = first..echoed.tokens.len();
    if scored.is_empty() {
        return Err(Error::new("the endpoint's tokens leave none for the text that is to be scored").help(NO_ECHO));
    }
    let mut sum = 0.0;
    let mut greedy = true;
    for at in scored.clone() {
        let Some(logprob) = echoed.logprobs[at] else {
            return Err(Error::new(format!("the endpoint gives no probability of token {at} of a text that is to be scored"))
                .help("an empty prompt needs a server that prepends a BOS: run the model in this process"));
        };
        let greatest = echoed.greatest[at].ok_or_else(no_greatest)?;
        sum += logprob;
        greedy &= logprob >= greatest;
    }
    Ok(Answer::LogLikelihood { sum, tokens: scored.len(), greedy })
}
