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
        if let Some(twice) = twice(tasks.iter().map(|task| task.task.as_str())) {
            return Err(Error::new(format!("{twice}: the task is given twice")).help("results go by its name: give it once"));
        }
        if let Some(twice) = twice(arguments.models.iter().chain(&arguments.endpoint.served).map(String::as_str)) {
            return Err(Error::new(format!("{twice}: the model is given twice")).help("results go by its name: give it once"));
        }
        let executes = !only_read && tasks.iter().any(executes);
        let wanted = Self { arguments, tasks, models, executes, shots, shots_file };
        wanted.check_used()?;
        Ok(wanted)
    }

    /// An option that no model and no task has a use for is a mistake: its user expects something of it.
    fn check_used(&self) -> Result<()> {
        let arguments = self.arguments;
        let (local, execution) = (&arguments.local, &arguments.execution);
        let runs = !self.models.is_empty();
        let runs_here = self.models.iter().any(|model| !matches!(model, Source::Served(_)));
        let any = |used: &dyn Fn(&Task) -> bool| runs && self.tasks.iter().any(used);
        let (judged, classifies) = (any(&|task| task.pairwise_judge.is_some()), any(&|task| task.classification.is_some()));
        let has_shots = any(&|task| task.shots.as_ref().is_some_and(|shots| self.shots.unwrap_or(shots.count) > 0));
        let of_no_model = "results that are only read";
        let options = [
            ("--records", arguments.records.is_some(), runs, of_no_model),
            ("--generations", arguments.generations.is_some(), runs, of_no_model),
            ("--cache", arguments.cache.is_some(), runs, of_no_model),
            (
                "--force",
                arguments.force,
                arguments.records.is_some() || arguments.generations.is_some(),
                "a run without --records or --generations",
            ),
            ("--seed", arguments.seed.is_some(), has_shots, "tasks without solved examples (--shots K)"),
            ("--reference", arguments.judge.reference.is_some(), judged, "tasks without a judge"),
            ("--judge-endpoint", arguments.judge.judge_endpoint.is_some(), judged, "tasks without a judge"),
            ("--exec-timeout", execution.exec_timeout.is_some(), self.executes, "tasks that run no programs"),
            ("--exec-workers", execution.exec_workers.is_some(), self.executes, "tasks that run no programs"),
            ("--python", execution.python.is_some(), self.executes, "tasks that run no programs"),
            ("--unsafe-exec", execution.unsafe_exec, self.executes, "tasks that run no programs"),
            (
                "--head-from",
                local.head_from.is_some(),
                runs_here && classifies,
                "tasks without a classification head, or models of a server",
            ),
            ("--add-bos", local.add_bos.is_some(), runs_here, "models of a server"),
            ("--max-length", local.max_length.is_some(), runs_here, "models of a server"),
            ("--batch-tokens", local.batch_tokens.is_some(), runs_here, "models of a server"),
        ];
        match options.into_iter().find(|(_, given, used, _)| *given && !used) {
            None => Ok(()),
            Some((option, .., what)) => Err(Error::new(format!("{option} has no effect on {what}")).help("leave it out")),
        }
    }
}

/// The first name that has stood before.
fn twice<'n>(names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

fn executes(task: &Task) -> bool {
    task.generation.as_ref().is_some_and(|generation| generation.code.is_some())
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
