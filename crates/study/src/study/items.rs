//! A study's tasks with their items, known by their content.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{Context, FileIdentity, Result};
use deltaic_eval::task::{self, Direction};
use deltaic_eval::{Evaluation, RunOptions, Task};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::cells::{Cell, Part};
use super::models::Places;
use super::schema::{SelectOn, Study};
use super::subject::Subject;
use crate::statistics::permutation;

/// The tasks of a study, read from their files.
///
/// # Errors
/// There is no such task, or its file is not as tasks are.
pub fn tasks(study: &Study, places: &Places) -> Result<Vec<Task>> {
    study.tasks.iter().map(|spec| task::find(&task_name(&spec.task, places))).collect()
}

/// The name of a built-in task, or the path of a task's file.
fn task_name(name: &str, places: &Places) -> String {
    if name.ends_with(".yml") || name.ends_with(".yaml") { places.study.join(name).display().to_string() } else { name.to_owned() }
}

/// How each task is run.
pub fn run_options<'a>(
    study: &Study,
    cancel: &'a AtomicBool,
    progress: &'a (dyn Fn(deltaic_eval::Progress) + Sync),
) -> Vec<RunOptions<'a>> {
    let options = study.tasks.iter().map(|task| RunOptions {
        items: task.items.as_ref().map(|items| items.0.clone()),
        system: task.system.clone(),
        progress,
        ..RunOptions::new(cancel)
    });
    options.collect()
}

/// The items of one part of a task.
pub struct TaskPart {
    /// How many there are.
    pub items: usize,
    /// What decides about a result on them beside the subject.
    pub contents: Value,
    /// The hash of that.
    pub id: String,
}

/// What is known of a study's tasks, by part.
pub struct Tasks {
    parts: Vec<[Option<TaskPart>; 3]>,
    /// Of each task, whether lower headlines are better.
    pub lower_is_better: Vec<bool>,
    /// Of each task, whether a subject needs its head.
    takes_head: Vec<bool>,
}

/// The items themselves, to be asked about, by part.
pub struct Evaluations<'a> {
    parts: Vec<[Option<Evaluation<'a>>; 3]>,
}

/// Reads the items of all tasks.
///
/// # Errors
/// Data that is missing or malformed.
pub fn read<'a>(study: &Study, places: &Places, tasks: &'a [Task], options: &'a [RunOptions<'a>]) -> Result<(Tasks, Evaluations<'a>)> {
    let (mut known, mut evaluations) = (Vec::new(), Vec::new());
    for (number, (task, options)) in tasks.iter().zip(options).enumerate() {
        let spec = &study.tasks[number];
        let data = spec.data.as_ref().map_or_else(|| places.data.clone(), |data| places.data.join(data));
        let read = || Evaluation::read(task, Some(&data), options).map_err(|error| error.within(Path::new(&spec.name)));
        let all = read()?;
        let mut of_task = [None, None, None];
        if let Some(selection) = study.merges.as_ref().and_then(|merges| merges.selection)
            && selection.select == SelectOn::Half
        {
            let (compared, reported) = halves(&all.numbers(), selection.seed, selection.items);
            for (part, numbers) in [(Part::Selection, compared), (Part::Report, reported)] {
                let mut evaluation = read()?;
                evaluation.keep(&numbers)?;
                of_task[part as usize] = Some(evaluation);
            }
        }
        of_task[Part::All as usize] = Some(all);
        let file = task_name(&spec.task, places);
        let mut parts = [None, None, None];
        for (part, evaluation) in parts.iter_mut().zip(&mut of_task) {
            let known = evaluation.as_mut().map(|evaluation| TaskPart::new(task, &file, spec.system.as_deref(), evaluation));
            *part = known.transpose()?;
        }
        known.push(parts);
        evaluations.push(of_task);
    }
    let lower_is_better = tasks.iter().map(|task| task.direction == Direction::Lower).collect();
    let takes_head = tasks.iter().map(|task| task.classification.is_some()).collect();
    Ok((Tasks { parts: known, lower_is_better, takes_head }, Evaluations { parts: evaluations }))
}

impl Tasks {
    /// The model whose head a cell's subject gets: the one that was fine-tuned on the task, unless it is the subject.
    pub fn head_of(&self, study: &Study, cell: &Cell) -> Option<usize> {
        let owner = study.model_of(cell.task).filter(|_| self.takes_head[cell.task])?;
        (cell.subject != Subject::FineTuned(owner)).then_some(owner)
    }

    /// Whether a task is a classification or regression, which needs a head.
    pub fn is_classification(&self, task: usize) -> bool {
        self.takes_head[task]
    }

    /// The items of a cell.
    pub fn of(&self, cell: &Cell) -> &TaskPart {
        self.part(cell.task, cell.part).expect("cells name the parts that the study has")
    }

    /// A part of a task; none where the study has no such part.
    pub fn part(&self, task: usize, part: Part) -> Option<&TaskPart> {
        self.parts[task][part as usize].as_ref()
    }
}

impl<'a> Evaluations<'a> {
    /// The items of a cell.
    pub fn of(&mut self, cell: &Cell) -> &mut Evaluation<'a> {
        self.parts[cell.task][cell.part as usize].as_mut().expect("cells name the parts that the study has")
    }
}

impl TaskPart {
    fn new(task: &Task, file: &str, system: Option<&str>, evaluation: &mut Evaluation<'_>) -> Result<Self> {
        let mut data = Sha256::new();
        let cancel = AtomicBool::new(false);
        for path in evaluation.files() {
            data.update(FileIdentity::of(path)?.sha256(&cancel)?);
        }
        // What a model is asked shows what templates make of the data; a placeholder stands for a token that is the model's own.
        let (requests, _) = evaluation.requests(Some("{eos}".to_owned()))?;
        let mut contents = json!({
            "task": task.task,
            "data": hexadecimal(&data.finalize()),
            "items": digest(&json!(evaluation.numbers()).to_string()),
            "requests": digest(&json!(requests).to_string()),
        });
        if file.ends_with(".yml") || file.ends_with(".yaml") {
            contents["definition"] = digest(&fs::read_to_string(file).context("reading the task", Path::new(file))?).into();
        }
        if let Some(system) = system {
            contents["system"] = system.into();
        }
        let id = digest(&contents.to_string());
        Ok(Self { items: evaluation.items(), contents, id })
    }
}

/// The items, permuted as NumPy's `RandomState(seed).permutation` does and parted: the first half (rounded down), of which at most so many,
/// and the second.
pub fn halves(numbers: &[usize], seed: u32, most: Option<usize>) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let permuted: Vec<usize> = permutation(seed, numbers.len()).into_iter().map(|place| numbers[place]).collect();
    let (first, second) = permuted.split_at(permuted.len() / 2);
    let compared = first.iter().take(most.unwrap_or(usize::MAX)).copied().collect();
    (compared, second.iter().copied().collect())
}

/// SHA-256 of a text, in hexadecimal digits.
pub fn digest(text: &str) -> String {
    hexadecimal(&Sha256::digest(text.as_bytes()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
