//! What a task asks of a model, and what a model answers: the one border between tasks and whatever runs the model.

use deltaic_checkpoint::Result;
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// What stands before the text that a model is to score or to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// A text, as it stands.
    Text(String),
    /// A conversation, which the model's own chat template turns into text, ready for the assistant's next turn.
    Chat(Vec<Message>),
}

/// How prompt and continuation become one sequence of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenisation {
    /// As lm-evaluation-harness: white space at the prompt's end goes to the continuation, both are tokenised as one text, an empty
    /// prompt is the model's prefix token, and what exceeds the model's window is cut from the left.
    Joint,
    /// Prompt and continuation are tokenised apart (special tokens in either are recognised) and cut from the right to this many tokens.
    Apart {
        /// Longest sequence, in tokens.
        max_tokens: usize,
    },
}

/// One question to a model. Requests are plain data: the same request to the same model has the same answer, so answers can be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Request {
    /// The log-likelihood of a continuation after a prompt.
    LogLikelihood {
        /// What stands before.
        prompt: Prompt,
        /// What is scored, its delimiter included.
        continuation: String,
        /// How both become tokens.
        tokenisation: Tokenisation,
    },
    /// The log-likelihood of a whole text, in windows of the model's length (evaluation.md 7.2).
    Rolling {
        /// The text.
        text: String,
    },
    /// A text written after a prompt.
    Generate {
        /// What stands before.
        prompt: Prompt,
        /// Most tokens to write.
        max_new_tokens: usize,
        /// The text ends before the first of these.
        stop: Vec<String>,
        /// 0 is greedy.
        temperature: f32,
        /// Nucleus; 1 is the whole distribution.
        top_p: f32,
        /// Of the draws, where the temperature is not 0.
        seed: u64,
    },
    /// The raw outputs of a sequence classification or regression head.
    Classify {
        /// First text.
        text: String,
        /// Second text of a pair.
        pair: Option<String>,
        /// Longest sequence with special tokens; the longer text is cut first.
        max_tokens: usize,
    },
}

/// Why a generated text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model's end token, or one of the stop strings.
    Stop,
    /// The limit of new tokens, or the model's window.
    Length,
}

/// What a model answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Answer {
    /// Of [`Request::LogLikelihood`] and [`Request::Rolling`].
    LogLikelihood {
        /// Sum of the natural logarithms of the scored tokens' probabilities.
        sum: f64,
        /// Number of scored tokens.
        tokens: usize,
        /// Whether every scored token was the most likely one.
        greedy: bool,
    },
    /// Of [`Request::Generate`]: the text without its stop string.
    Text {
        /// The text.
        text: String,
        /// Tokens generated.
        tokens: usize,
        /// Why it ends.
        finish: Finish,
    },
    /// Of [`Request::Classify`], one number per label.
    Logits {
        /// In the order of the head's outputs.
        logits: Vec<f32>,
    },
}

/// Something that runs a model: in this process, or behind an endpoint.
pub trait Backend {
    /// The model, as it is called in tables and results.
    fn name(&self) -> &str;

    /// What decides its answers beside the requests (content of the model, dtype, whether a BOS is prepended), as it is recorded with
    /// results and as answers kept from earlier runs are told apart.
    fn identity(&self) -> serde_json::Value;

    /// The names of the head's outputs in their order, where the model says them (config.json's `id2label`).
    fn labels(&self) -> Option<Vec<String>> {
        None
    }

    /// The token that ends the model's turn, as text, where it is known: the end-of-sequence token of its tokenizer.
    fn eos_token(&self) -> Option<String> {
        None
    }

    /// How many prompts have lost tokens so far since they did not fit the model's window, where that is known.
    fn truncated(&self) -> usize {
        0
    }

    /// Whether it can answer such a request at all; known before anything is asked.
    ///
    /// # Errors
    /// It cannot, and why.
    fn check(&self, request: &Request) -> Result<()> {
        let _ = request;
        Ok(())
    }

    /// Answers all requests, in any order; `done(index, answer)` is called once for each, from the calling thread, as answers come.
    ///
    /// # Errors
    /// A request that this backend cannot answer (an endpoint without log-probabilities, a model without a head), a failure of the
    /// model or of the connection, or an error of `done`, after which nothing more is asked.
    fn answer(&self, requests: &[Request], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()>;
}
