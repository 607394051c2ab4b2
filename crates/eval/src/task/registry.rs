//! The tasks that are built in.

use std::path::Path;

use deltaic_checkpoint::{Error, Result, shorten};

use super::Task;

macro_rules! tasks {
    ($($file:literal)*) => {
        /// Path below `tasks/` and text of each.
        const FILES: &[(&str, &str)] = &[$(($file, include_str!(concat!("../../tasks/", $file)))),*];
    };
}

tasks! {
    "glue/cola.yml" "glue/sst2.yml" "glue/mrpc.yml" "glue/stsb.yml" "glue/qqp.yml" "glue/mnli.yml" "glue/qnli.yml" "glue/rte.yml"
    "gsm8k.yml" "gsm8k_fewshot.yml" "math.yml"
    "humaneval.yml" "humaneval_harness.yml" "mbpp.yml" "mbpp_harness.yml"
    "alpaca_eval.yml" "pairwise_judge.yml"
    "arc_easy.yml" "arc_challenge.yml" "hellaswag.yml" "mmlu.yml" "winogrande.yml" "truthfulqa_mc1.yml" "truthfulqa_mc2.yml"
    "perplexity.yml" "wikitext.yml" "answer_nll.yml"
}

/// The names of the built-in tasks, in the order of lists.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(file, _)| file.trim_end_matches(".yml"))
}

/// A built-in task, if there is one of that name.
///
/// # Errors
/// None that a test has not excluded: a built-in file that cannot be read.
pub fn built_in(name: &str) -> Result<Option<Task>> {
    let found = FILES.iter().find(|(file, _)| file.strip_suffix(".yml") == Some(name));
    found.map(|(file, text)| Task::parse(file, text)).transpose()
}

/// The task of a name, or of the YAML file at a path.
///
/// # Errors
/// There is neither, or the file cannot be read.
pub fn find(name: &str) -> Result<Task> {
    if let Some(task) = built_in(name)? {
        return Ok(task);
    }
    let path = Path::new(name);
    if path.is_file() || name.ends_with(".yml") || name.ends_with(".yaml") {
        return Task::read(path);
    }
    let all = names().collect::<Vec<_>>().join(", ");
    let error = Error::new(format!("{}: no such task", shorten(name)));
    Err(match meant(name).as_slice() {
        [] => error.help(format!("a path to a YAML file, or one of {all}")),
        meant => error.help(format!("did you mean {}? There are {all}", meant.join(" or "))),
    })
}

/// The tasks that a name may stand for: those that begin with it, else the nearest one, if it is near.
fn meant(name: &str) -> Vec<String> {
    fn last(known: &str) -> &str {
        known.rsplit('/').next().unwrap_or(known)
    }
    let begun = names().filter(|known| name.len() > 1 && (known.starts_with(name) || last(known).starts_with(name)));
    let begun: Vec<String> = begun.map(|known| format!("`{known}`")).collect();
    if !begun.is_empty() {
        return begun;
    }
    let distance = |known: &&str| strsim::damerau_levenshtein(last(name), last(known));
    let nearest = names().min_by_key(distance).filter(|known| distance(known) <= 2);
    nearest.map(|known| format!("`{known}`")).into_iter().collect()
}
