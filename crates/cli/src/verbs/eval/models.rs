//! Opening what answers: a model of this machine, a recipe's merge, a server; the judge; the sandbox.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use deltaic_checkpoint::{Error, ModelReference, Result};
use deltaic_eval::{
    AnswerFile, ApiKey, Backend, Cached, Endpoint, EndpointOptions, Evaluation, LocalModel, LocalOptions, LocalSource, SandboxedPython,
};
use deltaic_merge::recipe::{Document, UnknownPolicy, parse};
use deltaic_merge::{MergeOptions, MergedInMemory, PlanOptions};
use deltaic_sandbox::{Confinement, Sandbox, Settings};

use super::wanted::{Source, Wanted};
use crate::arguments::Eval;
use crate::messages::Messages;

/// The file of answers, which models and judge share.
pub type Answers = Option<Arc<Mutex<AnswerFile>>>;

/// Opens the file of answers, where the arguments name one.
pub fn open_answers(arguments: &Eval) -> Result<Answers> {
    let file = arguments.cache.as_deref().map(AnswerFile::open).transpose()?;
    Ok(file.map(|file| Arc::new(Mutex::new(file))))
}

/// Whether a model is there and can do the tasks at all: said before the first question, not hours later. Of local models only headers are read.
pub fn check(source: &Source, wanted: &Wanted<'_>, evaluations: &mut [Evaluation<'_>], cancel: &Arc<AtomicBool>) -> Result<()> {
    let arguments = wanted.arguments;
    match source {
        Source::Served(name) => {
            let server = endpoint(arguments.endpoint.endpoint.as_deref().unwrap_or_default(), name, arguments, cancel)?;
            evaluations.iter_mut().try_for_each(|evaluation| evaluation.check(&server))
        }
        Source::Local(model) => {
            let model = local_source(model)?;
            wanted.tasks.iter().try_for_each(|task| model.check(task))?;
            arguments.local.head_from.as_deref().map_or(Ok(()), |head| local_source(head).map(drop))
        }
        Source::Recipe(path) => parse(Arc::new(Document::read(path)?), UnknownPolicy::Default).map(drop),
    }
}

/// Opens a model.
pub fn open(
    source: &Source,
    arguments: &Eval,
    answers: &Answers,
    messages: &Messages,
    cancel: &Arc<AtomicBool>,
) -> Result<Box<dyn Backend>> {
    let local = |source| {
        let head = arguments.local.head_from.as_deref().map(local_source).transpose()?;
        Ok::<_, Error>(LocalModel::load(source, head, local_options(arguments))?.cancelled_by(Arc::clone(cancel)))
    };
    match source {
        Source::Served(name) => {
            let url = arguments.endpoint.endpoint.as_deref().unwrap_or_default();
            Ok(keep_answers(endpoint(url, name, arguments, cancel)?, answers))
        }
        Source::Local(model) => Ok(keep_answers(local(local_source(model)?)?.named(model), answers)),
        Source::Recipe(path) => Ok(keep_answers(local(merged(path, messages, cancel)?)?, answers)),
    }
}

fn local_options(arguments: &Eval) -> LocalOptions {
    let local = &arguments.local;
    let batch_tokens = local.batch_tokens.map_or(LocalOptions::default().batch_tokens, |tokens| tokens as usize);
    LocalOptions { add_bos: local.add_bos, batch_tokens, max_length: local.max_length }
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
pub fn open_judge(wanted: &Wanted<'_>, answers: &Answers, cancel: &Arc<AtomicBool>) -> Result<Option<Box<dyn Backend>>> {
    let judge = &wanted.arguments.judge;
    let (Some(url), Some(model)) = (&judge.judge_endpoint, &judge.judge_model) else { return Ok(None) };
    Ok(Some(keep_answers(endpoint(url, model, wanted.arguments, cancel)?, answers)))
}

/// Makes the sandbox for programs.
pub fn open_sandbox(arguments: &Eval, messages: &Messages) -> Result<SandboxedPython> {
    let execution = &arguments.execution;
    let mut settings = Settings::default();
    settings.limits.seconds = execution.exec_timeout.unwrap_or(settings.limits.seconds);
    settings.confinement = if execution.unsafe_exec { Confinement::WherePossible } else { Confinement::Required };
    if let Some(python) = &execution.python {
        settings.python.clone_from(python);
    }
    let sandbox = Sandbox::new(settings)?;
    if let Some(why) = sandbox.unconfined_because() {
        messages.warning(&format!("programs that models write are run without a sandbox, with all that you may do: {why}"));
    }
    Ok(SandboxedPython { sandbox, workers: usize::from(execution.exec_workers.unwrap_or(2)) })
}

fn endpoint(url: &str, model: &str, arguments: &Eval, cancel: &Arc<AtomicBool>) -> Result<Endpoint> {
    let api_key = ApiKey::from_environment(arguments.endpoint.api_key_variable.as_deref())?;
    let concurrency = usize::from(arguments.endpoint.concurrency);
    Endpoint::new(EndpointOptions { api_key, concurrency, cancel: Arc::clone(cancel), ..EndpointOptions::new(url, model) })
}

fn keep_answers<B: Backend + 'static>(backend: B, answers: &Answers) -> Box<dyn Backend> {
    match answers {
        None => Box::new(backend),
        Some(file) => Box::new(Cached::sharing(backend, Arc::clone(file))),
    }
}
