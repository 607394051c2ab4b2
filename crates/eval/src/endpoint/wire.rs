//! A request as the JSON of a call.

use deltaic_checkpoint::{Error, Result};
use serde_json::{Value, json};

use crate::{Prompt, Request, Tokenisation};

/// Most stop strings in a call: OpenAI's own server refuses more. The others are found in the text that came.
const MAX_STOPS: usize = 4;
/// Below the server's address.
const CHAT: &str = "/chat/completions";
/// The newer name of `max_tokens` in chat, which some of OpenAI's models demand and many servers do not know.
pub(super) const MAX_COMPLETION_TOKENS: &str = "max_completion_tokens";

/// What is sent, and how its answer is read.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Below the server's address.
    pub path: &'static str,
    /// JSON.
    pub body: Vec<u8>,
    /// What is made of the answer.
    pub expected: Expected,
}

impl Call {
    /// The same chat with the limit of tokens under its newer name; none for other calls.
    pub fn with_newer_limit(&self) -> Option<Self> {
        let mut body: Value = serde_json::from_slice(&self.body).ok().filter(|_| self.path == CHAT)?;
        let limit = body.as_object_mut()?.remove("max_tokens")?;
        body[MAX_COMPLETION_TOKENS] = limit;
        Some(Self { body: body.to_string().into_bytes(), ..self.clone() })
    }
}

/// What is made of an answer.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// A text that ends before the first of these.
    Text { stop: Vec<String> },
    /// The likelihood of `continuation` in the echoed `prompt` + `continuation`.
    Likelihood { prompt: String, continuation: String },
    /// The number of tokens of a prompt.
    PromptTokens,
}

/// Whether an endpoint can answer a request at all.
///
/// # Errors
/// What it cannot answer, with what can be done instead.
pub(super) fn check(request: &Request) -> Result<()> {
    const IN_PROCESS: &str = "run the model in this process: `deltaic eval MODEL` without --endpoint";
    let cannot = |what: &str| Err(Error::new(format!("an endpoint {what}")).help(IN_PROCESS));
    match request {
        Request::Classify { .. } => cannot("has no classification or regression head"),
        Request::LogLikelihood { prompt: Prompt::Chat(_), .. } => cannot("gives no likelihood of a given answer in a conversation"),
        Request::LogLikelihood { tokenisation: Tokenisation::Apart { .. }, .. } => {
            cannot("cannot score a prompt and an answer that are tokenised apart: it is sent text, not tokens")
        }
        Request::LogLikelihood { continuation, .. } if continuation.is_empty() => cannot("cannot score an empty continuation"),
        Request::Rolling { text } if text.is_empty() => cannot("cannot score an empty text"),
        Request::Generate { temperature, top_p, .. } if !(temperature.is_finite() && top_p.is_finite()) => {
            cannot("takes no temperature or top_p that is not finite")
        }
        Request::Generate { .. } | Request::LogLikelihood { .. } | Request::Rolling { .. } => Ok(()),
    }
}

/// The call for a request.
///
/// # Errors
/// As [`check`].
pub(super) fn call(request: &Request, model: &str) -> Result<Call> {
    check(request)?;
    Ok(match request {
        Request::Generate { prompt, max_new_tokens, stop, temperature, top_p, seed } => {
            // f32 as it is written, not as its neighbour in f64.
            let number = |value: f32| value.to_string().parse::<f64>().unwrap_or(f64::from(value));
            let mut body =
                json!({ "model": model, "max_tokens": max_new_tokens, "temperature": number(*temperature), "top_p": number(*top_p) });
            if !stop.is_empty() {
                body["stop"] = json!(stop[..stop.len().min(MAX_STOPS)]);
            }
            if *temperature > 0.0 {
                // Servers keep it in a signed number.
                body["seed"] = json!(seed & (u64::MAX >> 1));
            }
            let path = match prompt {
                Prompt::Text(text) => {
                    body["prompt"] = json!(text);
                    "/completions"
                }
                Prompt::Chat(messages) => {
                    body["messages"] = json!(messages);
                    CHAT
                }
            };
            Call { path, body: body.to_string().into_bytes(), expected: Expected::Text { stop: stop.clone() } }
        }
        Request::LogLikelihood { prompt: Prompt::Text(prompt), continuation, .. } => {
            let expected = Expected::Likelihood { prompt: prompt.clone(), continuation: continuation.clone() };
            echo(model, &format!("{prompt}{continuation}"), expected)
        }
        Request::Rolling { text } => echo(model, text, Expected::Likelihood { prompt: String::new(), continuation: text.clone() }),
        Request::Classify { .. } | Request::LogLikelihood { .. } => return Err(Error::new("an endpoint cannot answer such a request")),
    })
}

/// The call that counts a prompt's tokens.
pub(super) fn count(model: &str, prompt: &str) -> Call {
    echo(model, prompt, Expected::PromptTokens)
}

/// One token is generated and passed over: to some servers (llama-cpp-python) 0 means as many as fit.
fn echo(model: &str, text: &str, expected: Expected) -> Call {
    let body: Value = json!({ "model": model, "prompt": text, "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 1 });
    Call { path: "/completions", body: body.to_string().into_bytes(), expected }
}
