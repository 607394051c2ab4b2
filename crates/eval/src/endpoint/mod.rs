//! Models behind a server with OpenAI's interface: completions, chat, and log-likelihoods of echoed prompts.
//!
//! [`Endpoint`] is the backend. `address` makes the server's address out of what the user gave, `wire` turns a request into the JSON of a
//! call, `reading` an answer's JSON into an [`Answer`], `alignment` finds the continuation's tokens in an echoed prompt, `transport` does
//! one HTTP exchange and says of a failure whether it may pass, `dispatch` keeps so many calls going and repeats those that may.

mod address;
mod alignment;
mod api_key;
mod dispatch;
mod reading;
mod transport;
mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use deltaic_checkpoint::{Error, Result};
use serde_json::json;

use crate::{Answer, Backend, Request};

pub use api_key::ApiKey;

/// How a server is asked.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// Its address, `http://` or `https://`, with or without `/v1` at the end.
    pub url: String,
    /// The model's name, as the server knows it.
    pub model: String,
    /// Sent as `Authorization: Bearer`; it is in no message, identity or file.
    pub api_key: Option<ApiKey>,
    /// Most calls at a time; at least 1.
    pub concurrency: usize,
    /// How often one call is repeated after failures that may pass (429, 5xx, time-outs, broken connections, malformed answers).
    pub retries: u32,
    /// Wait before the first repetition; it doubles each time. The wait itself is drawn from the upper half of it.
    pub first_wait: Duration,
    /// Longest wait, also where the server's `Retry-After` asks for more.
    pub longest_wait: Duration,
    /// Longest time for one call, from the connection to the last byte.
    pub timeout: Duration,
    /// Longest time for making the connection.
    pub connect_timeout: Duration,
    /// Longest answer in bytes.
    pub max_response_bytes: u64,
    /// Set from elsewhere, it ends the run at the next twentieth of a second.
    pub cancel: Arc<AtomicBool>,
}

impl EndpointOptions {
    /// Eight calls at a time, each of up to ten minutes and repeated up to eight times, with waits from half a second to a minute.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            api_key: None,
            concurrency: 8,
            retries: 8,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(20),
            max_response_bytes: 64 << 20,
            cancel: Arc::default(),
        }
    }
}

/// A model behind a server with OpenAI's interface.
///
/// - `Generate` of a text asks `/completions`, of a conversation `/chat/completions`, whose template is the server's.
/// - `LogLikelihood` of a text with [`Joint`](crate::Tokenisation::Joint) tokens asks `/completions` with `echo` and `logprobs`. The
///   continuation's tokens are those that begin behind the prompt; where the server's tokens cannot be laid on the text, or one reaches
///   over the border, the prompt's tokens are counted by a call of their own. Whether a BOS is prepended is the server's choice.
/// - `Rolling` is asked in one window: a text longer than the model's is refused by the server, and where the server prepends no BOS the
///   first token has no probability, which is an error.
/// - Everything else (heads, prompts tokenised apart, likelihoods in a conversation) is an error.
///
/// An answer that has come is never asked for again; where one request fails for good, the calls under way are still taken in.
#[derive(Debug)]
pub struct Endpoint {
    base: String,
    model: String,
    concurrency: usize,
    retries: u32,
    first_wait: Duration,
    longest_wait: Duration,
    cancel: Arc<AtomicBool>,
    transport: Arc<transport::Transport>,
}

impl Endpoint {
    /// Checks the address; nothing is sent.
    ///
    /// # Errors
    /// An address that is none, or holds a password or a query; an empty name; a concurrency of 0.
    pub fn new(options: EndpointOptions) -> Result<Self> {
        let base = address::base(&options.url)?;
        if options.model.is_empty() {
            return Err(Error::new("the model behind the endpoint has no name").help(format!("`{base}/models` lists the server's")));
        }
        if options.concurrency == 0 {
            return Err(Error::new("no call to the endpoint is allowed at a time: the concurrency is 0").help("give 1 or more"));
        }
        let transport = Arc::new(transport::Transport::new(&base, &options));
        let EndpointOptions { model, concurrency, retries, first_wait, longest_wait, cancel, .. } = options;
        Ok(Self { base, model, concurrency, retries, first_wait, longest_wait, cancel, transport })
    }
}

impl Backend for Endpoint {
    fn name(&self) -> &str {
        &self.model
    }

    fn identity(&self) -> serde_json::Value {
        json!({ "backend": "endpoint", "url": self.base, "model": self.model })
    }

    fn check(&self, request: &Request) -> Result<()> {
        wire::check(request)
    }

    fn answer(&self, requests: &[Request], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        // What can never be answered is said before anything is asked.
        requests.iter().try_for_each(|request| self.check(request))?;
        dispatch::Dispatch::new(self, requests).run(done)
    }
}
