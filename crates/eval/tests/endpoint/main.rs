//! Endpoints and kept answers against a server that the tests start.

mod faults;
mod recorded;
mod resuming;
mod server;

use std::time::Duration;

use deltaic_checkpoint::Result;
use deltaic_eval::{Answer, Backend, Endpoint, EndpointOptions, Prompt, Request, Tokenisation};

use server::Server;

/// An endpoint with waits that no test has to sit out; calls are repeated as often as it takes.
fn patient(server: &Server) -> EndpointOptions {
    let mut options = EndpointOptions::new(server.url(), "model");
    options.retries = 10_000;
    options.first_wait = Duration::from_millis(1);
    options.longest_wait = Duration::from_millis(20);
    options
}

fn generate(prompt: impl Into<String>) -> Request {
    Request::Generate { prompt: Prompt::Text(prompt.into()), max_new_tokens: 16, stop: vec![], temperature: 0.0, top_p: 1.0, seed: 0 }
}

fn likelihood(prompt: &str, continuation: &str) -> Request {
    let prompt = Prompt::Text(prompt.to_owned());
    Request::LogLikelihood { prompt, continuation: continuation.to_owned(), tokenisation: Tokenisation::Joint }
}

/// All answers, in order; each must come exactly once.
fn answers(backend: &impl Backend, requests: &[Request]) -> Result<Vec<Answer>> {
    let mut answers = vec![None; requests.len()];
    let caller = std::thread::current().id();
    backend.answer(requests, &mut |index, answer| {
        assert_eq!(std::thread::current().id(), caller);
        assert!(answers[index].replace(answer).is_none(), "request {index} is answered twice");
        Ok(())
    })?;
    Ok(answers.into_iter().map(|answer| answer.expect("a request was not answered")).collect())
}

fn answer(server: &Server, request: Request) -> Result<Answer> {
    Ok(answers(&Endpoint::new(patient(server))?, &[request])?.remove(0))
}

fn text(answer: &Answer) -> &str {
    match answer {
        Answer::Text { text, .. } => text,
        other => panic!("{other:?} is no text"),
    }
}
