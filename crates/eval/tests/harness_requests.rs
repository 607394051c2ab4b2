//! Requests and scores against lm-evaluation-harness's own, recorded by `tests/python/harness_requests.py`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::Result;
use deltaic_eval::task::built_in;
use deltaic_eval::{Answer, Backend, Evaluation, Prompt, Request, RunOptions, Tokenisation};
use serde_json::Value;

/// Answers with the log-likelihoods that the record has for context and continuation.
struct Recorded {
    sums: HashMap<(String, String), f64>,
}

impl Backend for Recorded {
    fn name(&self) -> &str {
        "recorded"
    }

    fn identity(&self) -> Value {
        Value::Null
    }

    fn answer(&self, requests: &[Request], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        for (at, request) in requests.iter().enumerate() {
            let Request::LogLikelihood { prompt: Prompt::Text(context), continuation, tokenisation: Tokenisation::Joint } = request else {
                panic!("{request:?}")
            };
            let sum = *self.sums.get(&(context.clone(), continuation.clone())).expect("a request of the harness");
            done(at, Answer::LogLikelihood { sum, tokens: 1, greedy: false })?;
        }
        Ok(())
    }
}

fn check(harness_task: &str, own_task: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness");
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    let expected = &expected[harness_task];
    let items = expected["items"].as_array().unwrap();
    let task = built_in(own_task).unwrap().unwrap();
    let cancel = AtomicBool::new(false);
    let shots = expected["shots"].as_u64().map(|count| count as usize).filter(|&count| count > 0);
    let options = RunOptions { shots, ..RunOptions::new(&cancel) };
    let mut evaluation = Evaluation::read(&task, Some(&folder.join(harness_task)), &options).unwrap();
    let (requests, ranges) = evaluation.requests(None).unwrap();
    assert_eq!(ranges.len(), items.len());
    let mut sums = HashMap::new();
    for (range, item) in ranges.into_iter().zip(items) {
        let theirs = item["requests"].as_array().unwrap();
        assert_eq!(range.len(), theirs.len());
        for (at, (ours, theirs)) in requests[range].iter().zip(theirs).enumerate() {
            match ours {
                Request::LogLikelihood { prompt: Prompt::Text(context), continuation, .. } => {
                    assert_eq!(context, theirs[0].as_str().unwrap());
                    assert_eq!(continuation, theirs[1].as_str().unwrap());
                    let sum = item["log_likelihoods"][at].as_f64().unwrap();
                    sums.insert((context.clone(), continuation.clone()), sum);
                }
                Request::Generate { prompt: Prompt::Text(prompt), stop, .. } => {
                    assert_eq!(prompt, theirs[0].as_str().unwrap());
                    assert_eq!(serde_json::json!(stop), item["until"]);
                }
                Request::Rolling { text } => assert_eq!(text, theirs[1].as_str().unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
    if sums.is_empty() {
        return;
    }
    let result = evaluation.run(&Recorded { sums }).unwrap();
    for (record, item) in result.records.iter().zip(items) {
        let scores: HashMap<&str, f64> = record.numbers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        for (name, theirs) in item["scores"].as_object().unwrap() {
            let ours = if own_task == "truthfulqa_mc2" { scores["mass"] } else { scores[name.as_str()] };
            assert!((ours - theirs.as_f64().unwrap()).abs() < 1e-12, "{own_task} {} {name}: {ours} {theirs}", record.id);
        }
    }
}

#[test]
fn arc_asks_and_scores_as_the_harness_does() {
    check("arc_easy", "arc_easy");
    check("arc_challenge", "arc_challenge");
}

#[test]
fn hellaswag_asks_and_scores_as_the_harness_does() {
    check("hellaswag", "hellaswag");
}

#[test]
fn mmlu_asks_and_scores_as_the_harness_does() {
    check("mmlu", "mmlu");
}

#[test]
fn winogrande_asks_and_scores_as_the_harness_does() {
    check("winogrande", "winogrande");
}

#[test]
fn truthfulqa_asks_and_scores_as_the_harness_does() {
    check("truthfulqa_mc1", "truthfulqa_mc1");
    check("truthfulqa_mc2", "truthfulqa_mc2");
}

#[test]
fn gsm8k_fewshot_asks_as_the_harness_does() {
    check("gsm8k", "gsm8k_fewshot");
}

#[test]
fn wikitext_is_detokenised_and_counted_as_the_harness_does() {
    check("wikitext", "wikitext");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness");
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    let task = built_in("wikitext").unwrap().unwrap();
    let cancel = AtomicBool::new(false);
    let options = RunOptions::new(&cancel);
    let result = Evaluation::read(&task, Some(&folder.join("wikitext")), &options).unwrap().run(&Constant).unwrap();
    for (record, item) in result.records.iter().zip(expected["wikitext"]["items"].as_array().unwrap()) {
        assert_eq!((&record.answer["words"], &record.answer["bytes"]), (&item["words"], &item["bytes"]), "{}", record.id);
    }
}

/// Says the same of every text.
struct Constant;

impl Backend for Constant {
    fn name(&self) -> &str {
        "constant"
    }

    fn identity(&self) -> Value {
        Value::Null
    }

    fn answer(&self, requests: &[Request], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        (0..requests.len()).try_for_each(|at| done(at, Answer::LogLikelihood { sum: -1.0, tokens: 1, greedy: false }))
    }
}

#[test]
fn parquet_files_of_the_hub_hold_the_same_items_as_jsonl() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness");
    let task = built_in("arc_easy").unwrap().unwrap();
    let cancel = AtomicBool::new(false);
    let options = RunOptions::new(&cancel);
    let asked = |data: &str| Evaluation::read(&task, Some(&folder.join(data)), &options).unwrap().requests(None).unwrap().0;
    assert_eq!(asked("parquet"), asked("arc_easy"));
}
