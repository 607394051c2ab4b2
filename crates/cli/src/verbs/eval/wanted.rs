//! What the arguments mean: tasks, models, shots.

use std::path::PathBuf;

use deltaic_checkpoint::{Error, Result};
use deltaic_eval::task::{self, Task};

use crate::arguments::Eval;

/// What is to be evaluated.
pub struct Wanted<'a> {
    pub arguments: &'a Eval,
    pub tasks: Vec<Task>,
    pub models: Vec<Source>,
    /// Whether a task runs programs.
    pub executes: bool,
    pub shots: Option<usize>,
    pub shots_file: Option<PathBuf>,
}

/// Where a model is.
pub enum Source {
    /// At the server, by this name.
    Served(String),
    /// On this machine: a folder, a Hub name, an adapter on a base.
    Local(String),
    /// A recipe, to be merged in memory.
    Recipe(PathBuf),
}

impl<'a> Wanted<'a> {
    pub fn new(arguments: &'a Eval) -> Result<Self> {
        let tasks: Vec<Task> = arguments.tasks.iter().map(|name| task::find(name)).collect::<Result<_>>()?;
        let served = arguments.endpoint.served.iter().cloned().map(Source::Served);
        let models: Vec<Source> = arguments.models.iter().map(|model| source(model)).chain(served).collect();
        if models.is_empty() && arguments.harness_results.is_empty() {
            return Err(Error::new("no model is given").help("a model's folder, or --endpoint URL --model NAME"));
        }
        if !models.is_empty() && tasks.is_empty() {
            return Err(Error::new("no task is given").help("--task TASK; `deltaic eval --list` shows them"));
        }
        // Results of the harness alone need no task: one that is given chooses among them.
        let only_read = models.is_empty();
        let (shots, shots_file) = shots(&arguments.shots)?;
        if arguments.generations.is_some() {
            let form = |task: &Task| task.generation.as_ref().and_then(|generation| generation.file);
            match tasks.as_slice() {
                [task] if models.len() == 1 && form(task).is_some() => {}
                _ => {
                    return Err(Error::new("--generations writes one file, of one model on one task that has a form for it")
                        .help("humaneval, mbpp, their _harness variants, or alpaca_eval"));
                }
            }
        }
        let executes = !only_read && tasks.iter().any(|task| task.generation.as_ref().is_some_and(|generation| generation.code.is_some()));
        Ok(Self { arguments, tasks, models, executes, shots, shots_file })
    }
}

/// The one place where it is decided what a model argument is.
fn source(model: &str) -> Source {
    let is_recipe = model.ends_with(".yml") || model.ends_with(".yaml");
    if is_recipe { Source::Recipe(model.into()) } else { Source::Local(model.to_owned()) }
}

/// `--shots 5`, `--shots FILE`, or both.
fn shots(given: &[String]) -> Result<(Option<usize>, Option<PathBuf>)> {
    let (mut count, mut file) = (None, None);
    for shots in given {
        let repeated = match shots.parse::<usize>() {
            Ok(number) => count.replace(number).is_some(),
            Err(_) => file.replace(PathBuf::from(shots)).is_some(),
        };
        if repeated {
            return Err(Error::new("--shots is given more than once").help("a number and a file, once each"));
        }
    }
    Ok((count, file))
}
