//! Opening what answers: a model of this machine, a recipe's merge, a server; the judge; the sandbox.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{ModelReference, Result};
use deltaic_eval::{
    AnswerFile, ApiKey, Backend, Cached, Endpoint, EndpointOptions, LocalModel, LocalOptions, LocalSource, SandboxedPython,
};
use deltaic_merge::recipe::{Document, UnknownPolicy, parse};
use deltaic_merge::{MergeOptions, MergedInMemory, PlanOptions};
use deltaic_sandbox::{Limits, Sandbox, Settings};

use super::wanted::{Source, Wanted};
use crate::arguments::Eval;
use crate::messages::Messages;

/// Opens a model.
pub fn open(source: &Source, arguments: &Eval, messages: &Messages, cancel: &Arc<AtomicBool>) -> Result<Box<dyn Backend>> {
    let head_from = || arguments.head_from.as_deref().map(local_source).transpose();
    match source {
        Source::Served(name) => {
            let url = arguments.endpoint.endpoint.as_deref().unwrap_or_default();
            keep_answers(endpoint(url, name, arguments, cancel)?, arguments)
        }
        Source::Local(model) => {
            keep_answers(LocalModel::load(local_source(model)?, head_from()?, LocalOptions::default())?.named(model), arguments)
        }
        Source::Recipe(path) => {
            keep_answers(LocalModel::load(merged(path, messages, cancel)?, head_from()?, LocalOptions::default())?, arguments)
        }
    }
}

/// A recipe's merge, made in memory and in f32: nothing of it is written, and nothing is rounded to the dtype that it would be written in.
fn merged(recipe: &Path, messages: &Messages, cancel: &AtomicBool) -> Result<LocalSource> {
    let (parsed, warnings) = parse(Arc::new(Document::read(recipe)?), UnknownPolicy::Default)?;
    warnings.iter().for_each(|warning| messages.warning(&warning.to_string()));
    let merged = MergedInMemory::merge(parsed, PlanOptions::default(), &MergeOptions::default(), cancel, &|_| {})?;
    merged.warnings.iter().for_each(|warning| messages.warning(warning));
    let (name, id) = (recipe.display().to_string(), merged.id.clone());
    let (config, tokenizer) = (merged.config.clone(), merged.tokenizer.clone());
    Ok(LocalSource { name, id, config, tokenizer, tensors: Box::new(merged) })
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
