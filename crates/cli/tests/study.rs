//! `deltaic study` and `deltaic similarity` on the small decoders of tests/models.
#![cfg(feature = "eval")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const STUDY: &str = r#"
study: small
description: Does a decoder's study run?
base: base
evaluate_base: true
models:
  - {name: a, model: fine-tune-a, task: text}
  - {name: b, model: fine-tune-b, task: more}
tasks:
  - {name: text, task: perplexity, data: text.jsonl}
  - {name: more, task: perplexity, data: more.jsonl, items: 1..4}
single:
  - {tasks: all, drop_rates: [0.0]}
merges:
  sets: [all]
  drop_rates: [0.5]
  methods:
    - {method: task_arithmetic, grid: {lambda: [0.5, 1.0]}}
delta_ranges: true
similarity: {operations: [dare], drop_rates: [0.5]}
"#;

fn deltaic(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deltaic")).args(arguments).current_dir(folder).env("NO_COLOR", "1").output().unwrap()
}

fn models() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models")).unwrap()
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("small.yml"), STUDY).unwrap();
    let line = |text: &str| format!("{}\n", serde_json::json!({"text": text}));
    let texts =
        ["the code of a list", "one two three add is a number", "read the question and answer yes or no", "return a string", "print it"];
    for name in ["text.jsonl", "more.jsonl"] {
        fs::write(folder.path().join(name), texts.map(line).concat()).unwrap();
    }
    fs::write(folder.path().join("texts.txt"), texts.join("\n\n")).unwrap();
    folder
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_study_of_decoders_runs_and_is_not_run_again() {
    let folder = folder();
    let models = models().display().to_string();
    let study = ["study", "small.yml", "out", "--models", models.as_str()];
    let dry = stdout(&deltaic(folder.path(), &[&study[..], &["--dry-run"]].concat()));
    // The base and both fine-tunes on both tasks, two points without DARE and with it on both, two ranges, two similarities.
    assert!(dry.contains("18 cells, 18 of them to run"), "{dry}");
    assert!(!folder.path().join("out").exists());
    let report: Value = serde_json::from_str(&stdout(&deltaic(folder.path(), &[&study[..], &["--json"]].concat()))).unwrap();
    assert_eq!((&report["cells"], &report["cells_done"]), (&14.into(), &14.into()));
    for file in
        ["small.csv", "small.html", "small-merges.svg", "small-deltas-a.svg", "small-similarity.svg", "results.jsonl", "measures.jsonl"]
    {
        assert!(folder.path().join("out").join(file).exists(), "{file}");
    }
    let dry: Value = serde_json::from_str(&stdout(&deltaic(folder.path(), &[&study[..], &["--dry-run", "--json"]].concat()))).unwrap();
    assert!(dry["cells"].as_array().unwrap().iter().all(|cell| cell["done"] == true) && dry["hours_left"] == 0.0);
    let again = deltaic(folder.path(), &study);
    assert!(stdout(&again).contains("out/small.html") && !String::from_utf8_lossy(&again.stderr).contains("left"));
    // Lower is better: a merge's score is the fine-tune's own perplexity by the merge's.
    let page = fs::read_to_string(folder.path().join("out/small.html")).unwrap();
    assert!(page.contains("word_perplexity, lower is better"));
}

#[test]
fn a_study_names_what_is_missing() {
    let folder = folder();
    for (arguments, expected) in [
        (&["study", "small.yml", "out"][..], "--models DIR"),
        (&["study", "nothing.yml", "out"], "nothing.yml"),
        (&["study", "text.jsonl", "out"], "text.jsonl"),
        (&["similarity", "a", "b", "--text", "nothing.txt"], "nothing.txt"),
    ] {
        let output = deltaic(folder.path(), arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && text.contains(expected), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty() && !folder.path().join("out").exists());
    }
}

#[test]
fn hidden_states_of_a_model_are_its_own_and_a_fine_tunes_are_near() {
    let folder = folder();
    let at = |name: &str| models().join(name).display().to_string();
    let compare = |other: &str| -> Value {
        let text = stdout(&deltaic(folder.path(), &["similarity", &at("base"), &at(other), "--text", "texts.txt", "--json"]));
        serde_json::from_str(&text).unwrap()
    };
    let same = compare("base");
    let states = same["states"].as_array().unwrap();
    // The embeddings and two layers.
    assert_eq!(states.len(), 3);
    assert!(states.iter().all(|state| (state["mean"].as_f64().unwrap() - 1.0).abs() < 1e-12), "{same}");
    let near = compare("fine-tune-a");
    assert_eq!(near["tokens"], same["tokens"]);
    let mean = |state: &Value| state["mean"].as_f64().unwrap();
    assert!(near["states"].as_array().unwrap().iter().all(|state| mean(state) < 1.0 - 1e-6 && mean(state) > 0.5), "{near}");
}
