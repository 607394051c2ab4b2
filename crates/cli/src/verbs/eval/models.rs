//! Opening what answers: a model of this machine, a recipe's merge, a server; the judge; the sandbox.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Error, ModelReference, Result};
use deltaic_eval::{
    AnswerFile, ApiKey, Backend, Cached, Endpoint, EndpointOptions, LocalModel, LocalOptions, LocalSource, SandboxedPython,
};
use deltaic_sandbox::{Limits, Sandbox, Settings};

use super::wanted::{Source, Wanted};
use crate::arguments::Eval;

/// Opens a model.
pub fn open(source: &Source, arguments: &Eval, cancel: &Arc<AtomicBool>) -> Result<Box<dyn Backend>> {
    match source {
        Source::Served(name) => {
            let url = arguments.endpoint.endpoint.as_deref().unwrap_or_default();
            keep_answers(endpoint(url, name, arguments, cancel)?, arguments)
        }
        Source::Local(model) => {
            let head_from = arguments.head_from.as_deref().map(local_source).transpose()?;
            keep_answers(LocalModel::load(local_source(model)?, head_from, LocalOptions::default())?.named(model), arguments)
        }
        Source::Recipe(path) => {
            let what = format!("{}: evaluating a recipe without writing its merge", path.display());
            Err(Error::not_yet(what).help("merge it first with `deltaic merge`"))
        }
    }
}

fn local_source(model: &str) -> Result<LocalSource> {
    let folders = [(PathBuf::from("."), "the working directory")];
    LocalSource::open(&ModelReference::parse(model)?, &folders)
}

/// Opens the judge, where the arguments name one.
pub fn open_judge(wanted: &Wanted<'_>, cancel: &Arc<AtomicBool>) -> Result<Option<Box<dyn Backend>>> {
    let judge = &wanted.arguments.judge;
    let (Some(url), Some(model)) = (&judge.judge_endpoint, &judge.judge_model) else { return Ok(None) };
    Ok(Some(Box::new(endpoint(url, model, wanted.arguments, cancel)?)))
}

/// Makes the sandbox for programs.
pub fn open_sandbox(arguments: &Eval) -> Result<SandboxedPython> {
    let execution = &arguments.execution;
    let limits = Limits { seconds: execution.exec_timeout, ..Limits::default() };
    let settings = Settings { limits, unsafe_exec: execution.unsafe_exec, ..Settings::default() };
    Ok(SandboxedPython { sandbox: Sandbox::new(settings)?, workers: usize::from(execution.exec_workers) })
}

fn endpoint(url: &str, model: &str, arguments: &Eval, cancel: &Arc<AtomicBool>) -> Result<Endpoint> {
    let api_key = ApiKey::from_environment(arguments.endpoint.api_key_variable.as_deref())?;
    let concurrency = usize::from(arguments.endpoint.concurrency);
    Endpoint::new(EndpointOptions { api_key, concurrency, cancel: Arc::clone(cancel), ..EndpointOptions::new(url, model) })
}

fn keep_answers<B: Backend + 'static>(backend: B, arguments: &Eval) -> Result<Box<dyn Backend>> {
    match &arguments.cache {
        None => Ok(Box::new(backend)),
        Some(path) => Ok(Box::new(Cached::new(backend, AnswerFile::open(path)?))),
    }
}
