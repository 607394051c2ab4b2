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
