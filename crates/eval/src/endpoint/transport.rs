//! One exchange with a server, and whether what went wrong may pass.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use deltaic_checkpoint::Error;
use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};

use super::api_key::ApiKey;
use super::reading::Completion;
use super::wire::{Call, MAX_COMPLETION_TOKENS};
use super::{EndpointOptions, address};

/// Most bytes that are read of an answer that says no.
const MAX_REFUSAL: u64 = 1 << 16;
/// Most characters of a server's own words in a message.
const MAX_WORDS: usize = 400;

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// For the user, should it be the last one.
    pub error: Error,
    /// Whether the same call is made again.
    pub again: Again,
    /// Whether the server refuses `max_tokens` and names the newer parameter.
    wants_newer_limit: bool,
}

/// Whether a failure may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The same call would fail in the same way.
    Never,
    /// After a wait.
    Later,
    /// After the wait that the server asks for, and nothing else before it.
    After(Duration),
}

impl Failure {
    pub(super) fn lasting(error: Error) -> Self {
        Self { error, again: Again::Never, wants_newer_limit: false }
    }

    fn passing(error: Error) -> Self {
        Self { error, again: Again::Later, wants_newer_limit: false }
    }
}

/// Connections to one server, shared by threads.
#[derive(Debug)]
pub(super) struct Transport {
    agent: Agent,
    base: String,
    key: Option<ApiKey>,
    max_response_bytes: u64,
    /// Whether the server has asked for the newer name of the limit of tokens.
    newer_limit: AtomicBool,
    /// Whether the server has ever answered: until then a host that is not known or refuses is a mistake, not a disturbance.
    answered: AtomicBool,
    /// Whether it has ever answered with a completion: until then a page is another server's, not a gateway's excuse.
    understood: AtomicBool,
}

impl Transport {
    pub(super) fn new(base: &str, options: &EndpointOptions) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // A call that was sent on elsewhere would take the key along.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(options.timeout))
            .timeout_connect(Some(options.connect_timeout.min(options.timeout)))
            .max_idle_connections_per_host(options.concurrency)
            .max_idle_connections(options.concurrency)
            .user_agent(concat!("deltaic/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build());
        if address::is_loopback(base) {
            config = config.proxy(None);
        }
        Self {
            agent: config.build().new_agent(),
            base: base.to_owned(),
            key: options.api_key.clone(),
            max_response_bytes: options.max_response_bytes,
            newer_limit: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            understood: AtomicBool::new(false),
        }
    }

    /// Makes the call and reads the answer's JSON. A server that wants the limit of tokens under its newer name gets it so from then on.
    pub(super) fn exchange(&self, call: &Call) -> Result<Completion, Failure> {
        let newer = call.with_newer_limit();
        if let Some(newer) = newer.as_ref().filter(|_| self.newer_limit.load(Ordering::Relaxed)) {
            return self.send(newer);
        }
        match (self.send(call), newer) {
            (Err(failure), Some(newer)) if failure.wants_newer_limit => {
                let answer = self.send(&newer)?;
                self.newer_limit.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            (answer, _) => answer,
        }
    }

    fn send(&self, call: &Call) -> Result<Completion, Failure> {
        let url = format!("{}{}", self.base, call.path);
        let mut request = self.agent.post(&url).content_type("application/json").header("Accept", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", key.header());
        }
        let mut response = request.send(&call.body[..]).map_err(|error| self.no_answer(&url, error))?;
        self.answered.store(true, Ordering::Relaxed);
        if response.status() != StatusCode::OK {
            let mut words = Vec::new();
            // What can be read of it serves.
            let _ = response.body_mut().as_reader().take(MAX_REFUSAL).read_to_end(&mut words);
            return Err(self.refusal(&url, response.status(), response.headers(), &words));
        }
        let body = response.body_mut().with_config().limit(self.max_response_bytes).read_to_vec();
        let body = body.map_err(|error| self.no_answer(&url, error))?;
        let completion: Completion = serde_json::from_slice(&body).map_err(|error| {
            let error = Error::new(format!("{url}: the answer is not the JSON of a completion: {error}")).help(NO_JSON);
            let is_page = body.trim_ascii_start().starts_with(b"<") && !self.understood.load(Ordering::Relaxed);
            if is_page { Failure::lasting(error) } else { Failure::passing(error) }
        })?;
        self.understood.store(true, Ordering::Relaxed);
        match &completion.error {
            Some(error) if !error.is_null() => Err(Failure::passing(Error::new(format!("{url}: {}", self.words(&body))))),
            _ => Ok(completion),
        }
    }

    /// The JSON is a completion's and has nothing in it.
    pub(super) fn empty(&self, call: &Call) -> Failure {
        Failure::passing(Error::new(format!("{}{}: the answer has no choice with a text", self.base, call.path)).help(NO_JSON))
    }

    /// No answer came, or not all of it.
    fn no_answer(&self, url: &str, error: ureq::Error) -> Failure {
        let error = &error;
        let failed = |why: &str, help: &str| Error::new(format!("{url}: {why}")).help(help);
        match error {
            ureq::Error::Timeout(what) => Failure::passing(failed(
                &format!("no answer in time ({what})"),
                "see whether the server works on the calls at all; fewer at a time, or a longer time-out, may help",
            )),
            _ if is_unknown_host(error) && !self.answered.load(Ordering::Relaxed) => {
                Failure::lasting(failed("the host is not known", "see whether the address is right"))
            }
            ureq::Error::Io(cause) if cause.kind() == std::io::ErrorKind::ConnectionRefused && !self.answered.load(Ordering::Relaxed) => {
                Failure::lasting(failed("nobody listens there", "start the server first, and see whether address and port are right"))
            }
            _ if is_tls(error) => Failure::lasting(failed(
                &error.to_string(),
                "https needs the server's certificate to be trusted on this machine (package ca-certificates, or $SSL_CERT_FILE)",
            )),
            ureq::Error::Io(_)
            | ureq::Error::ConnectionFailed
            | ureq::Error::HostNotFound
            | ureq::Error::BodyStalled
            | ureq::Error::Protocol(_) => Failure::passing(failed(&error.to_string(), "see whether the server runs, and its log")),
            ureq::Error::BodyExceedsLimit(limit) => {
                Failure::lasting(failed(&format!("the answer is longer than {limit} bytes"), "see whether this is a server of models"))
            }
            _ => Failure::lasting(failed(&error.to_string(), "see whether the address is right")),
        }
    }

    /// The server answers with another status than 200.
    fn refusal(&self, url: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        let mut message = format!("{url}: {status}");
        if let Some(to) = headers.get("location").and_then(|to| to.to_str().ok()).filter(|_| status.is_redirection()) {
            message += &format!(" to {}", shown(to));
        }
        let words = self.words(body);
        if !words.is_empty() {
            message += &format!(": {words}");
        }
        let help = match status.as_u16() {
            300..=399 => "give the address that the server points to, if you trust it",
            401 | 403 => "give the server's API key in OPENAI_API_KEY or in the variable that you name",
            404 => "see whether the address is right, the server has this model, and it has this kind of call (some have chat only)",
            400 | 422 => {
                "the server does not take this call: a prompt longer than its window, a model of another name, or a parameter it does not know"
            }
            _ => "see the server's log",
        };
        let error = Error::new(message).help(help);
        match (status.as_u16(), retry_after(headers)) {
            (429 | 503, Some(wait)) => Failure { error, again: Again::After(wait), wants_newer_limit: false },
            (400 | 422, _) => Failure { error, again: Again::Never, wants_newer_limit: words.contains(MAX_COMPLETION_TOKENS) },
            (501 | 505, _) => Failure::lasting(error),
            (408 | 409 | 425 | 429 | 500.., _) => Failure::passing(error),
            _ => Failure::lasting(error),
        }
    }

    /// What a server says of a failure: the message in its JSON, else its text; without the key, bounded and on one line.
    fn words(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        let message = parsed.as_ref().and_then(|json| {
            ["/error/message", "/message", "/detail", "/error"]
                .iter()
                .find_map(|place| json.pointer(place).filter(|value| !value.is_null()))
        });
        let text = match message {
            Some(serde_json::Value::String(message)) => message.clone(),
            Some(other) => other.to_string(),
            None => text.into_owned(),
        };
        shown(&self.key.as_ref().map_or(text.clone(), |key| key.hide_in(&text)))
    }
}

const NO_JSON: &str = "see whether this is the address of a server with OpenAI's interface";

/// Whether no certificate could be agreed on; what happens within a handshake comes as an I/O error.
fn is_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}

/// Whether the host has no address. The standard library has no kind of error for that.
fn is_unknown_host(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound => true,
        ureq::Error::Io(error) => error.to_string().starts_with("failed to lookup address"),
        _ => false,
    }
}

/// A foreign text in a message: bounded, on one line, nothing in it that controls a terminal.
fn shown(text: &str) -> String {
    let is_hostile = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let text = text.trim();
    let mut shown: String =
        text.chars().take(MAX_WORDS).flat_map(|c| if is_hostile(c) { c.escape_default().collect() } else { vec![c] }).collect();
    if text.chars().nth(MAX_WORDS).is_some() {
        shown.push('…');
    }
    shown
}

/// The wait that `Retry-After` asks for: a number of seconds or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([("retry-after".parse::<ureq::http::HeaderName>().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn the_wait_a_server_asks_for_is_seconds_or_a_date() {
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("0.5")), Some(Duration::from_millis(500)));
        // A date that has passed: at once.
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT")), Some(Duration::ZERO));
        let far = retry_after(&headers("Fri, 31 Dec 9999 23:59:59 GMT")).unwrap();
        assert!(far > Duration::from_secs(1_000_000_000));
        for nonsense in ["-1", "soon", "NaN", "1e300", ""] {
            assert_eq!(retry_after(&headers(nonsense)), None, "{nonsense}");
        }
    }

    #[test]
    fn a_servers_words_are_bounded_on_one_line_and_without_the_key() {
        let mut options = EndpointOptions::new("http://localhost:1", "m");
        options.api_key = Some(ApiKey::new("sk-123").unwrap());
        let transport = Transport::new("http://localhost:1/v1", &options);
        // The shapes of OpenAI, vLLM before 0.11, FastAPI, and of a proxy's page.
        for (body, expected) in [
            (r#"{"error": {"message": "Incorrect API key provided: sk-123", "type": "x"}}"#, "Incorrect API key provided: [API key]"),
            (r#"{"object": "error", "message": "too\nlong", "code": 400}"#, "too\\nlong"),
            (r#"{"detail": "Not Found"}"#, "Not Found"),
            (r#"{"error": "model 'm' not found"}"#, "model 'm' not found"),
            ("<html>\u{1b}[2J</html>", "<html>\\u{1b}[2J</html>"),
            ("", ""),
        ] {
            assert_eq!(transport.words(body.as_bytes()), expected);
        }
        assert_eq!(transport.words("é".repeat(9999).as_bytes()).chars().count(), MAX_WORDS + 1);
        assert!(!format!("{transport:?}").contains("sk-123"));
    }
}
