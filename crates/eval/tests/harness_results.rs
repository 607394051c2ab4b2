//! Results files of lm-evaluation-harness, recorded by `tests/python/harness_results.py`, and files that are none.

use std::fs;
use std::path::{Path, PathBuf};

use deltaic_eval::task::Direction;
use deltaic_eval::{comparisons, harness_results};
use serde_json::Value;
use tempfile::TempDir;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/results")
}

/// What the file itself says, without the reader.
fn file() -> Value {
    let path = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().unwrap() == "json").unwrap();
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_task_of_a_file_is_a_result_under_its_name_here() {
    let results = harness_results::read(&folder()).unwrap();
    let file = file();
    for (harness, own, key, metric) in [
        ("arc_easy", "arc_easy", "acc_norm,none", "acc_norm"),
        ("truthfulqa_mc2", "truthfulqa_mc2", "acc,none", "mass"),
        ("gsm8k", "gsm8k_fewshot", "exact_match,flexible-extract", "flexible_extract"),
    ] {
        let result = results.iter().find(|result| result.task == own).unwrap_or_else(|| panic!("{own}"));
        assert_eq!((result.items, result.direction), (20, Direction::Higher), "{own}");
        assert!(result.model.contains("large-model"), "{}", result.model);
        let expected = &file["results"][harness];
        let json = result.to_json();
        assert_eq!(json["metrics"]["headline"], expected[key], "{own}");
        assert_eq!(json["metrics"][metric], expected[key], "{own}");
        let (name, filter) = key.split_once(',').unwrap();
        assert_eq!(json["stderr"]["headline"], expected[format!("{name}_stderr,{filter}")], "{own}");
        assert_eq!(json["details"]["from"], "lm-evaluation-harness");
        assert_eq!(json["stderr_method"]["headline"], "lm-evaluation-harness");
        assert_eq!(json["seconds"], Value::Null);
    }
}

#[test]
fn with_samples_beside_it_a_result_is_tested_against_another() {
    let first = harness_results::read(&folder()).unwrap();
    let mut second = harness_results::read(&folder()).unwrap();
    second.iter_mut().for_each(|result| result.model = "another".to_owned());
    let found = comparisons(&first.into_iter().chain(second).collect::<Vec<_>>()).unwrap();
    let tasks: Vec<&str> = found.iter().map(|test| test.task.as_str()).collect();
    for task in ["arc_easy", "truthfulqa_mc2", "gsm8k_fewshot"] {
        assert!(tasks.contains(&task), "{tasks:?}");
    }
    assert!(found.iter().all(|test| test.test.difference == 0.0 && test.test.p == Some(1.0)));
}

#[test]
fn results_on_other_items_are_not_tested_against_each_other() {
    let folders = [["0", "1", "2"], ["0", "1", "3"], ["2", "1", "0"]].map(|ids| {
        let scratch = TempDir::new().unwrap();
        fs::write(scratch.path().join("results_1.json"), r#"{"results": {"arc_easy": {"acc_norm,none": 0.5}}}"#).unwrap();
        let samples = ids.map(|id| format!("{{\"doc_id\": {id}, \"filter\": \"none\", \"acc_norm\": {}}}\n", u8::from(id == "1")));
        fs::write(scratch.path().join("samples_arc_easy_1.jsonl"), samples.concat()).unwrap();
        scratch
    });
    let [first, other, turned] = folders.each_ref().map(|folder| harness_results::read(folder.path()).unwrap());
    let tested = |a: &[deltaic_eval::TaskResult], b: &[deltaic_eval::TaskResult]| comparisons(&[a, b].concat()).unwrap().len();
    assert_eq!(tested(&first, &other), 0);
    // The same items in another order are the same.
    assert_eq!(tested(&first, &turned), 1);
}

#[test]
fn glue_and_directions_are_read_as_they_are_here() {
    let scratch = TempDir::new().unwrap();
    let file = serde_json::json!({
        "results": {
            "mrpc": {"acc,none": 0.7, "acc_stderr,none": 0.02, "f1,none": 0.8, "f1_stderr,none": 0.03},
            "sst2": {"acc,none": 0.9, "acc_stderr,none": 0.01},
            "wikitext": {"word_perplexity,none": 20.5, "word_perplexity_stderr,none": "N/A"},
            "brier": {"brier_score,none": 0.2},
        },
        "higher_is_better": {"wikitext": {"word_perplexity": false}, "brier": {"brier_score": false}, "sst2": {"acc": true}},
    });
    fs::write(scratch.path().join("results_1.json"), file.to_string()).unwrap();
    let results = harness_results::read(scratch.path()).unwrap();
    let of = |task: &str| results.iter().find(|result| result.task == task).unwrap_or_else(|| panic!("{task}"));
    let mrpc = of("glue/mrpc").to_json();
    assert!((mrpc["metrics"]["headline"].as_f64().unwrap() - 0.75).abs() < 1e-12);
    assert_eq!(mrpc["stderr"]["headline"], Value::Null);
    assert_eq!((mrpc["metrics"]["accuracy"].as_f64(), mrpc["metrics"]["f1"].as_f64()), (Some(0.7), Some(0.8)));
    assert_eq!(of("glue/sst2").to_json()["metrics"]["accuracy"], 0.9);
    assert_eq!([of("glue/sst2"), of("wikitext"), of("brier")].map(|result| result.direction == Direction::Lower), [false, true, true]);
}

#[test]
fn a_file_that_is_no_result_is_an_error() {
    let scratch = TempDir::new().unwrap();
    for (text, expected) in [
        ("", "EOF"),
        ("[]", "there are no results"),
        ("{\"results\": {}}", "no task has a score"),
        ("{\"results\": {\"mmlu\": {\"alias\": \"mmlu\"}}}", "no task has a score"),
        (&"[".repeat(100_000), "recursion limit"),
    ] {
        let path = scratch.path().join("results_x.json");
        fs::write(&path, text).unwrap();
        let message = harness_results::read(&path).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("results_x.json"), "{message}");
    }
    assert!(harness_results::read(&scratch.path().join("none")).unwrap_err().to_string().contains("none: opening"));
    let empty = TempDir::new().unwrap();
    assert!(harness_results::read(empty.path()).unwrap_err().to_string().contains("there is no results_*.json"));
}

#[test]
fn samples_that_do_not_fit_are_an_error_with_their_line() {
    let scratch = TempDir::new().unwrap();
    fs::write(scratch.path().join("results_1.json"), r#"{"results": {"arc_easy": {"acc_norm,none": 0.5}}}"#).unwrap();
    fs::write(scratch.path().join("samples_arc_easy_1.jsonl"), "{\"doc_id\": 0, \"acc_norm\": 1}\n{\"acc_norm\": 1}\n").unwrap();
    let message = harness_results::read(scratch.path()).unwrap_err().to_string();
    assert!(message.contains("samples_arc_easy_1.jsonl:2: a sample without `doc_id`"), "{message}");
}
