//! Results of lm-evaluation-harness, so that models which are too large to run here stand in the same tables.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result, shorten};
use serde_json::{Map, Value, json};

use crate::data::{Data, Item};
use crate::metrics::{Estimate, Metric, StderrMethod};
use crate::report::TaskResult;
use crate::task::{self, Direction};

/// Greatest results file in bytes. (Samples are data files, with their limits.)
const MAX_BYTES: u64 = 256 << 20;

/// A task of the harness, its name here, and the metrics whose mean is its headline.
const TASKS: &[(&str, &str, &[&str])] = &[
    ("gsm8k", "gsm8k_fewshot", &["exact_match,flexible-extract"]),
    ("humaneval", "humaneval_harness", &["pass@1,create_test"]),
    ("mbpp", "mbpp_harness", &["pass_at_1,none"]),
    ("arc_easy", "arc_easy", &["acc_norm,none"]),
    ("arc_challenge", "arc_challenge", &["acc_norm,none"]),
    ("hellaswag", "hellaswag", &["acc_norm,none"]),
    ("mmlu", "mmlu", &["acc,none"]),
    ("winogrande", "winogrande", &["acc,none"]),
    ("truthfulqa_mc1", "truthfulqa_mc1", &["acc,none"]),
    ("truthfulqa_mc2", "truthfulqa_mc2", &["acc,none"]),
    ("wikitext", "wikitext", &["word_perplexity,none"]),
    ("cola", "glue/cola", &["mcc,none"]),
    ("sst2", "glue/sst2", &["acc,none"]),
    ("mrpc", "glue/mrpc", &["acc,none", "f1,none"]),
    ("qqp", "glue/qqp", &["acc,none", "f1,none"]),
    ("mnli", "glue/mnli", &["acc,none"]),
    ("qnli", "glue/qnli", &["acc,none"]),
    ("rte", "glue/rte", &["acc,none"]),
];

/// Metrics of the harness, with their filter, that have another name here.
const METRICS: &[(&str, &str)] = &[
    ("exact_match,strict-match", "strict_match"),
    ("exact_match,flexible-extract", "flexible_extract"),
    ("pass@1,create_test", "pass@1"),
    ("pass_at_1,none", "pass@1"),
    ("mcc,none", "matthews"),
];

/// Reads a results file (`results_….json`, or what `--output_path` was), or the newest in a folder. Where the samples of a task lie beside it
/// (`samples_TASK_….jsonl`, from `--log_samples`), its items are known, and it can be tested against other models.
///
/// # Errors
/// The file cannot be read or is no result of the harness; samples are not as the harness writes them.
pub fn read(path: &Path) -> Result<Vec<TaskResult>> {
    let path = if path.is_dir() { newest(path, "results_", ".json")? } else { path.to_owned() };
    let mut text = String::new();
    let file = File::open(&path).context("opening", &path)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).context("reading", &path)?;
    let wrong = |what: &str| {
        Error::new(format!("{}: {what}", path.display())).help("expected a results_….json of lm-evaluation-harness with the key `results`")
    };
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(&format!("more than {MAX_BYTES} bytes")));
    }
    let all: Value = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let results = all["results"].as_object().ok_or_else(|| wrong("there are no results"))?;
    let model = model_name(&all);
    let mut found = Vec::new();
    for (name, metrics) in results {
        // A group without a score of its own has only an alias.
        let Some(metrics) = metrics.as_object().filter(|metrics| metrics.values().any(Value::is_number)) else { continue };
        let mut result = of_task(&all, &model, name, metrics);
        // A mean of several metrics over all items is not one over the items' own.
        if let (Some(samples), [key]) = (samples(&path, name), headline_keys(name, metrics).as_slice())
            && let Some((items, headline)) = headline_of_items(&samples, key)?
        {
            result = result.with_items(items, headline);
        }
        found.push(result);
    }
    if found.is_empty() { Err(wrong("no task has a score")) } else { Ok(found) }
}

fn of_task(all: &Value, model: &str, name: &str, metrics: &Map<String, Value>) -> TaskResult {
    let own = TASKS.iter().find(|(harness, ..)| *harness == name).map_or(name, |(_, own, _)| own);
    let headline = headline_keys(name, metrics);
    let estimate = |key: &str| {
        let value = metrics.get(key).and_then(Value::as_f64)?;
        let (metric, filter) = key.split_once(',').unwrap_or((key, ""));
        let stderr_key = if filter.is_empty() { format!("{metric}_stderr") } else { format!("{metric}_stderr,{filter}") };
        let stderr = metrics.get(&stderr_key).and_then(Value::as_f64);
        Some(Estimate { value, stderr, method: StderrMethod::Harness })
    };
    let names =
        metrics.keys().filter(|key| !key.contains("_stderr") && !["alias", "name", "sample_len", "samples"].contains(&key.as_str()));
    let metric_name = |key: &str| {
        let known = METRICS.iter().find(|(harness, _)| *harness == key).map(|(_, name)| (*name).to_owned());
        let of_task = match key {
            "acc,none" if name == "truthfulqa_mc2" => Some("mass"),
            "acc,none" if own.starts_with("glue/") => Some("accuracy"),
            _ => None,
        };
        known.or(of_task.map(str::to_owned)).unwrap_or_else(|| key.trim_end_matches(",none").replace(',', "/"))
    };
    let estimates = names.filter_map(|key| Some((metric_name(key), estimate(key)?))).collect();
    let items = all["n-samples"][name]["effective"].as_u64().or(metrics.get("sample_len").and_then(Value::as_u64)).unwrap_or(0) as usize;
    let parts: Vec<Estimate> = headline.iter().filter_map(|key| estimate(key)).collect();
    let mean = match parts.as_slice() {
        [] => None,
        [only] => Some(*only),
        // What the standard error of the mean is does not follow from those of the parts.
        several => {
            let value = several.iter().map(|part| part.value).sum::<f64>() / several.len() as f64;
            Some(Estimate { value, stderr: None, method: StderrMethod::Harness })
        }
    };
    let mut result = TaskResult::computed_elsewhere(model.to_owned(), own.to_owned(), items, estimates, mean);
    let metric_of = |key: &String| key.split(',').next().unwrap_or_default().to_owned();
    result.direction = match headline.first().and_then(|key| all["higher_is_better"][name][metric_of(key)].as_bool()) {
        Some(true) => Direction::Higher,
        Some(false) => Direction::Lower,
        None => task::built_in(&result.task).ok().flatten().map(|task| task.direction).unwrap_or_default(),
    };
    result.details = json!({
        "from": "lm-evaluation-harness",
        "task": name,
        "version": all["versions"][name],
        "shots": all["n-shot"][name],
        "harness": all["lm_eval_version"],
    });
    result
}

/// The keys of the headline: the table's, else the first number that is there.
fn headline_keys(name: &str, metrics: &Map<String, Value>) -> Vec<String> {
    let of_table = TASKS.iter().find(|(harness, ..)| *harness == name).map(|(.., keys)| *keys);
    let of_subject = name.starts_with("mmlu_").then_some(["acc,none"].as_slice());
    if let Some(keys) = of_table.or(of_subject).filter(|keys| keys.iter().all(|key| metrics.contains_key(*key))) {
        return keys.iter().map(|key| (*key).to_owned()).collect();
    }
    let first = metrics.iter().find(|(key, value)| value.is_number() && key.contains(',') && !key.contains("_stderr"));
    first.map(|(key, _)| key.clone()).into_iter().collect()
}

fn model_name(all: &Value) -> String {
    let of_arguments = || {
        let arguments = &all["config"]["model_args"];
        let of_text = arguments.as_str().and_then(|text| text.split(',').find_map(|pair| pair.trim().strip_prefix("pretrained=")));
        of_text.or(arguments["pretrained"].as_str())
    };
    let name = all["model_name"].as_str().filter(|name| !name.is_empty()).or_else(of_arguments);
    shorten(name.or(all["config"]["model"].as_str()).unwrap_or("lm-evaluation-harness"))
}

/// The samples file of a task beside a results file: that of the same run, by the time in its name, else the newest.
fn samples(results: &Path, task: &str) -> Option<PathBuf> {
    let folder = results.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = results.file_name()?.to_str()?;
    let time = name.strip_prefix("results_").and_then(|rest| rest.strip_suffix(".json"));
    let same_run = time.map(|time| folder.join(format!("samples_{task}_{time}.jsonl"))).filter(|path| path.is_file());
    // The names of tasks go on in others' (mmlu, mmlu_anatomy): what follows the task's is a year.
    same_run.or_else(|| newest(folder, &format!("samples_{task}_2"), ".jsonl").ok())
}

/// The file of a folder with the greatest name, which has the time in it.
fn newest(folder: &Path, beginning: &str, end: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).context("listing", folder)?.filter_map(std::result::Result::ok).take(100_000);
    let names = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(beginning) && name.ends_with(end)));
    names.map(|entry| entry.path()).max().ok_or_else(|| {
        Error::new(format!("{}: there is no {beginning}*{end}", folder.display()))
            .help("give the results file of lm-evaluation-harness itself")
    })
}

/// The numbers of a task's items, and the headline over them in their order; none where the samples do not hold it item by item.
fn headline_of_items(samples: &Path, key: &str) -> Result<Option<(Vec<usize>, Metric)>> {
    let (metric, filter) = key.split_once(',').unwrap_or((key, "none"));
    let mut values = BTreeMap::new();
    for Item { fields, place, .. } in Data::read_any(samples)? {
        let field = |name: &str| fields.get_attr(name).ok().filter(|value| !value.is_undefined() && !value.is_none());
        if field("filter").is_some_and(|used| used.as_str() != Some(filter)) {
            continue;
        }
        let number = field(metric).and_then(|value| f64::try_from(value).ok());
        let item = field("doc_id").and_then(|value| value.as_usize());
        let Some(item) = item else { return Err(Error::new(format!("{place}: a sample without `doc_id`"))) };
        let Some(number) = number else { return Ok(None) };
        values.insert(item, number);
    }
    if values.is_empty() {
        return Ok(None);
    }
    let (items, values) = values.into_iter().unzip();
    Ok(Some((items, Metric::mean("headline", values)?)))
}
