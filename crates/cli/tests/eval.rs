//! `deltaic eval` without a model: usage, the list of tasks, results of lm-evaluation-harness.
#![cfg(feature = "eval")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn deltaic(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deltaic")).arg("eval").args(arguments).env("NO_COLOR", "1").output().unwrap()
}

fn results() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../eval/tests/harness/results").display().to_string()
}

#[test]
fn the_list_names_every_built_in_task() {
    let output = deltaic(&["--list"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for task in ["glue/mrpc", "gsm8k_fewshot", "humaneval", "mmlu", "truthfulqa_mc2", "answer_nll", "pairwise_judge"] {
        assert!(text.lines().any(|line| line.split_whitespace().next() == Some(task)), "{task} in\n{text}");
    }
}

#[test]
fn wrong_usage_says_what_is_missing() {
    for (arguments, code, expected) in [
        (&[][..], 1, "no model is given"),
        (&["./model"], 1, "no task is given"),
        (&["./model", "--task", "mrcp"], 1, "did you mean `glue/mrpc`?"),
        (&["./model", "--task", "gsm8k"], 1, "gsm8k: where is its data?"),
        (&["./model", "--task", "gsm8k", "--data", "/no/where"], 1, "/no/where: neither a folder nor a file is there"),
        (&["./model", "--task", "gsm8k", "--shots", "3", "--shots", "4"], 1, "--shots is given more than once"),
        (&["./model", "--task", "gsm8k", "--generations", "x"], 1, "--generations writes one file"),
        (&["./model", "--task", "gsm8k", "--items", "9..3"], 2, "has no items"),
        (&["./model", "--endpoint", "http://127.0.0.1:1"], 2, "--model"),
        (&["./model", "--exec-timeout", "0"], 2, "above 0"),
        (&["./model", "--exec-timeout", "3601"], 2, "up to 3600"),
        (&["./model", "--task", "gsm8k", "--exec-timeout", "5"], 1, "--exec-timeout has no effect on tasks that run no programs"),
        (&["./model", "--task", "gsm8k", "--seed", "5"], 1, "--seed has no effect on tasks without solved examples"),
        (&["./model", "--task", "gsm8k", "--reference", "x"], 1, "--reference has no effect on tasks without a judge"),
        (&["./model", "--task", "gsm8k", "--head-from", "x"], 1, "--head-from has no effect"),
        (
            &["--endpoint", "http://127.0.0.1:1", "--model", "m", "--task", "gsm8k", "--add-bos", "true"],
            1,
            "--add-bos has no effect on models of a server",
        ),
        (&["--harness-results", &results(), "--records", "x"], 1, "--records has no effect on results that are only read"),
        (&["./model", "--task", "gsm8k", "--task", "gsm8k"], 1, "gsm8k: the task is given twice"),
        (&["./model", "./model", "--task", "gsm8k"], 1, "./model: the model is given twice"),
    ] {
        let output = deltaic(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && text.contains(expected), "{arguments:?}: {:?} {text}", output.status);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn no_file_is_replaced_without_force_or_written_where_another_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let line = r#"{"question": "1 + 1", "answer": "2\n#### 2"}"#;
    std::fs::write(path("test.jsonl"), line).unwrap();
    std::fs::write(path("mine.jsonl"), "mine").unwrap();
    let (data, mine, new) = (path("test.jsonl"), path("mine.jsonl"), path("new.jsonl"));
    for (arguments, expected) in [
        (&["--records", &mine][..], "mine.jsonl: the file is there already"),
        (&["--records", &data, "--force"], "--records would replace a file that this run reads"),
        (&["--records", &new, "--cache", &new], "--cache and --records name one file"),
        (&["--records", &path("no/where")], "the folder"),
        (&["--records", &new], "nobody listens there"),
        (&["--records", &mine, "--force"], "nobody listens there"),
    ] {
        let server = ["--endpoint", "http://127.0.0.1:1", "--model", "m", "--task", "gsm8k", "--data", &data];
        let output = deltaic(&[&server[..], arguments].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && text.contains(expected), "{arguments:?}: {text}");
    }
    // A run that failed before its first result leaves everything as it was.
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn results_of_the_harness_stand_in_the_same_tables() {
    let output = deltaic(&["--harness-results", &results(), "--task", "arc_easy", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let results_of = json["results"].as_array().unwrap();
    assert_eq!(results_of.len(), 1);
    assert_eq!((results_of[0]["task"].as_str(), results_of[0]["items"].as_u64()), (Some("arc_easy"), Some(20)));
    let output = deltaic(&["--harness-results", &results()]);
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in ["arc_easy", "gsm8k_fewshot", "somebody/large-model", "0.4000 ±0.1124"] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}
