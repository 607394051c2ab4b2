//! Evaluation of language models: tasks as data, metrics with standard errors, a sandbox for model-written code, endpoints.

mod backend;

pub use backend::{Answer, Backend, Finish, Message, Prompt, Request, Tokenisation};
