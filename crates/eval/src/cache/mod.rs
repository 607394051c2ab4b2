//! Answers that are kept: a run that was ended goes on where it was, and no question is asked twice.

mod file;
mod key;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deltaic_checkpoint::Result;

use crate::{Answer, Backend, Request};

pub use file::AnswerFile;
use key::{Key, Keys};

/// A backend whose answers are kept in a file, and asked for only where they are not there yet.
///
/// An answer is known by the backend's [`identity`](Backend::identity) and the request, so one file serves several models and tasks. An
/// answer is written before it is handed on: what was handed on is never asked for again, not even after `kill -9`. Equal requests, in one
/// run or in several, are asked once.
#[derive(Debug)]
pub struct Cached<B> {
    backend: B,
    keys: Keys,
    file: Arc<Mutex<AnswerFile>>,
    asked: AtomicUsize,
    reused: AtomicUsize,
}

impl<B: Backend> Cached<B> {
    /// A backend with the file that keeps its answers.
    pub fn new(backend: B, file: AnswerFile) -> Self {
        Self::sharing(backend, Arc::new(Mutex::new(file)))
    }

    /// The same with a file that other backends have, too: it is opened once, since it is locked.
    pub fn sharing(backend: B, file: Arc<Mutex<AnswerFile>>) -> Self {
        let keys = Keys::new(&backend.identity());
        Self { backend, keys, file, asked: AtomicUsize::new(0), reused: AtomicUsize::new(0) }
    }

    /// How many requests the backend has answered so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// How many requests were answered without it so far: from the file, or as an equal request was.
    pub fn reused(&self) -> usize {
        self.reused.load(Ordering::Relaxed)
    }

    fn known(&self, key: &Key) -> Option<Answer> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, key: Key, answer: &Answer) -> Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).append(key, answer)
    }

    /// Asks the backend for `requests`, and hands each answer to all of `indices`.
    fn ask(&self, asked: &Asked, done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        self.backend.answer(&asked.requests, &mut |at, answer| {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.keep(asked.keys[at], &answer)?;
            self.reused.fetch_add(asked.indices[at].len() - 1, Ordering::Relaxed);
            asked.indices[at].iter().try_for_each(|&index| done(index, answer.clone()))
        })
    }
}

/// What the backend is asked for: each once.
#[derive(Default)]
struct Asked {
    requests: Vec<Request>,
    keys: Vec<Key>,
    /// Which of the caller's requests are this one; never empty.
    indices: Vec<Vec<usize>>,
}

impl<B: Backend> Backend for Cached<B> {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn identity(&self) -> serde_json::Value {
        self.backend.identity()
    }

    fn labels(&self) -> Option<Vec<String>> {
        self.backend.labels()
    }

    fn eos_token(&self) -> Option<String> {
        self.backend.eos_token()
    }

    fn truncated(&self) -> usize {
        self.backend.truncated()
    }

    fn check(&self, request: &Request) -> Result<()> {
        self.backend.check(request)
    }

    fn answer(&self, requests: &[Request], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        let mut asked = Asked::default();
        let mut seen: HashMap<Key, usize> = HashMap::new();
        for (index, request) in requests.iter().enumerate() {
            let key = self.keys.key(request)?;
            if let Some(answer) = self.known(&key) {
                self.reused.fetch_add(1, Ordering::Relaxed);
                done(index, answer)?;
                continue;
            }
            match seen.entry(key) {
                Entry::Occupied(at) => asked.indices[*at.get()].push(index),
                Entry::Vacant(at) => {
                    at.insert(asked.requests.len());
                    asked.requests.push(request.clone());
                    asked.keys.push(key);
                    asked.indices.push(vec![index]);
                }
            }
        }
        if asked.requests.is_empty() {
            return Ok(());
        }
        let outcome = self.ask(&asked, done);
        let synced = self.file.lock().unwrap_or_else(PoisonError::into_inner).sync();
        outcome.and(synced)
    }
}
