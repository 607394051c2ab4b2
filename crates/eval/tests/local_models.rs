//! Models in this process on the zoo, against the figures that transformers gave (`shared/zoo`). `DELTAIC_ZOO` names the folder of laid-out
//! models; without it, or without `../shared/zoo`, the tests are skipped.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use deltaic_checkpoint::ModelReference;
use deltaic_eval::task::built_in;
use deltaic_eval::{
    Answer, Backend, Evaluation, Finish, LocalModel, LocalOptions, LocalSource, Message, Prompt, Request, RunOptions, TaskResult,
    Tokenisation,
};
use serde_json::Value;

/// The laid-out models, and the folder with their figures and data.
fn zoo() -> Option<(PathBuf, PathBuf)> {
    let figures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/zoo");
    let models = std::env::var_os("DELTAIC_ZOO").map(PathBuf::from).filter(|path| path.exists());
    if models.is_none() || !figures.exists() {
        eprintln!("skipped: DELTAIC_ZOO is not set, or {} is not there", figures.display());
    }
    models.filter(|_| figures.exists()).map(|models| (models, figures))
}

fn open(reference: &str) -> LocalSource {
    LocalSource::open(&ModelReference::parse(reference).unwrap(), &[]).unwrap()
}

fn load(reference: &str) -> LocalModel {
    LocalModel::load(open(reference), None, LocalOptions::default()).unwrap()
}

/// All answers in the order of the requests.
fn ask(model: &LocalModel, requests: &[Request]) -> Vec<Answer> {
    let mut answers = vec![None; requests.len()];
    model
        .answer(requests, &mut |index, answer| {
            assert!(answers[index].replace(answer).is_none(), "request {index} was answered twice");
            Ok(())
        })
        .unwrap();
    answers.into_iter().map(Option::unwrap).collect()
}

fn json(path: &Path) -> Value {
    // Python's json writes Infinity, which is no JSON.
    serde_json::from_str(&fs::read_to_string(path).unwrap().replace(": Infinity", ": null")).unwrap()
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

fn classify(text: &str, pair: Option<&str>) -> Request {
    Request::Classify { text: text.to_owned(), pair: pair.map(str::to_owned), max_tokens: 128 }
}

/// A built-in task on some of the items of a file or folder.
fn run(task: &str, data: &Path, items: Option<Range<usize>>, system: Option<&str>, model: &LocalModel) -> TaskResult {
    let task = built_in(task).unwrap().unwrap();
    let cancel = AtomicBool::new(false);
    let options = RunOptions { items, system: system.map(str::to_owned), ..RunOptions::new(&cancel) };
    Evaluation::read(&task, Some(data), &options).unwrap().run(model).unwrap()
}

#[test]
fn answer_nll_of_smollm2_and_its_adapters_is_that_of_transformers() {
    let Some((models, figures)) = zoo() else { return };
    // All 200 items take minutes: DELTAIC_NLL_ITEMS says how many.
    let items: usize = std::env::var("DELTAIC_NLL_ITEMS").ok().and_then(|items| items.parse().ok()).unwrap_or(3);
    let expected = json(&figures.join("smollm2-nll.json"));
    let base = models.join("smollm2-135m-instruct").display().to_string();
    let system = Some("You are a helpful AI assistant named SmolLM, trained by Hugging Face");
    for (name, adapter) in [("base", ""), ("gsm8k", "+"), ("code", "+")] {
        let adapter =
            if adapter.is_empty() { String::new() } else { format!("+{}", models.join(format!("smollm2-lora-{name}")).display()) };
        let model = load(&format!("{base}{adapter}"));
        // The first items of GSM8K's test set, the first of the last 200 of CodeAlpaca.
        for (task, file, start) in [("gsm8k", "gsm8k_test.jsonl", 0), ("code", "code_alpaca_2k.json", 1817)] {
            let result = run("answer_nll", &figures.join("data").join(file), Some(start..start + items), system, &model);
            let (mut found_sum, mut expected_sum) = (0.0, 0.0);
            for (record, item) in result.records.iter().zip(expected[name][task]["per_item"].as_array().unwrap()) {
                let (found, nll) = (-record.answer["log_likelihood"].as_f64().unwrap(), item[0].as_f64().unwrap());
                assert_eq!(record.answer["tokens"], item[1], "{name} {task} {}", record.index);
                assert!((found - nll).abs() < 2e-3 * nll, "{name} {task} {}: {found} {nll}", record.index);
                (found_sum, expected_sum) = (found_sum + found, expected_sum + nll);
            }
            eprintln!("{name} {task}: {found_sum:.4}, transformers {expected_sum:.4}");
            assert!((found_sum / expected_sum - 1.0).abs() < 1e-3, "{name} {task}: {found_sum} {expected_sum}");
        }
    }
}

#[test]
fn whole_dev_sets_of_glue_are_predicted_as_by_transformers() {
    let Some((models, figures)) = zoo() else { return };
    for (task, metrics) in
        [("sst2", &["accuracy"][..]), ("mrpc", &["accuracy", "f1"]), ("stsb", &["pearson", "spearman"]), ("cola", &["matthews"])]
    {
        let started = Instant::now();
        let model = load(&models.join(format!("minilm-{task}")).display().to_string());
        let result = run(&format!("glue/{task}"), &figures.join("data/glue"), None, None, &model);
        let figures = json(&figures.join(format!("minilm-{task}.json")));
        let items = figures["dev"]["items"].as_u64().unwrap() as usize;
        assert_eq!(result.items, items, "{task}");
        let found = result.records.iter().map(|record| record.prediction.as_f64().unwrap());
        match &figures["predictions"] {
            Value::String(labels) => {
                let same = found.zip(labels.chars()).filter(|(found, label)| *found == f64::from(label.to_digit(10).unwrap())).count();
                eprintln!("{task}: {same} of {items} predictions, {:.1} s", started.elapsed().as_secs_f64());
                assert!(same as f64 >= 0.998 * items as f64, "{task}: {same} of {items}");
            }
            scores => {
                let scores = scores.as_array().unwrap().iter().map(|score| score.as_f64().unwrap());
                let largest = found.zip(scores).map(|(found, score)| (found - score).abs()).fold(0.0, f64::max);
                eprintln!("{task}: {items} scores within {largest:.1e}, {:.1} s", started.elapsed().as_secs_f64());
                assert!(largest < 1e-3, "{task}: {largest}");
            }
        }
        let json = result.to_json();
        let expected: Vec<f64> = metrics.iter().map(|metric| figures["dev"][*metric].as_f64().unwrap()).collect();
        for (metric, expected) in metrics.iter().zip(&expected) {
            assert!((json["metrics"][*metric].as_f64().unwrap() - expected).abs() < 2e-3, "{task} {metric}: {json}");
        }
        let headline = expected.iter().sum::<f64>() / expected.len() as f64;
        assert!((json["metrics"]["headline"].as_f64().unwrap() - headline).abs() < 2e-3, "{task}: {json}");
    }
}

#[test]
fn logits_of_the_fine_tuned_encoders_are_those_of_transformers_with_their_own_and_with_a_borrowed_head() {
    let Some((models, figures)) = zoo() else { return };
    let lines = |file: &str, skip| {
        fs::read_to_string(figures.join("data/glue").join(file)).unwrap().lines().skip(skip).map(str::to_owned).collect()
    };
    let tables: [(&str, Vec<String>, usize, Option<usize>); 4] = [
        ("sst2", lines("SST-2/dev.tsv", 1), 0, None),
        ("cola", lines("CoLA/dev.tsv", 0), 3, None),
        ("mrpc", lines("MRPC/dev.tsv", 1), 3, Some(4)),
        ("stsb", lines("STS-B/dev.tsv", 1), 7, Some(8)),
    ];
    for (task, lines, first, second) in tables {
        let requests: Vec<Request> = lines
            .iter()
            .take(32)
            .map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                classify(fields[first].trim_end_matches(' '), second.map(|second| fields[second]))
            })
            .collect();
        let folder = models.join(format!("minilm-{task}")).display().to_string();
        let logits: Vec<Vec<f32>> = ask(&load(&folder), &requests).into_iter().map(logits_of).collect();
        let figures = json(&figures.join(format!("minilm-{task}.json")));
        for (found, expected) in logits.iter().zip(figures["logits_first_32"].as_array().unwrap()) {
            let expected: Vec<f64> = expected
                .as_array()
                .map_or_else(|| vec![expected.as_f64().unwrap()], |all| all.iter().map(|x| x.as_f64().unwrap()).collect());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 2e-4, "{task}: {found} {expected}");
            }
        }
        // Its own body with its own head, put together again.
        let head = Some(open(&folder));
        let borrowed = LocalModel::load(open(&folder), head, LocalOptions::default()).unwrap();
        let again: Vec<Vec<f32>> = ask(&borrowed, &requests[..4]).into_iter().map(logits_of).collect();
        for (again, first) in again.iter().flatten().zip(logits.iter().flatten()) {
            assert!((again - first).abs() < 1e-4, "{task}: {again} {first}");
        }
    }
}

fn logits_of(answer: Answer) -> Vec<f32> {
    match answer {
        Answer::Logits { logits } => logits,
        other => panic!("{other:?}"),
    }
}

#[test]
fn texts_are_written_in_any_batch_alike_and_end_before_their_stop_strings() {
    let Some((models, _)) = zoo() else { return };
    let model = load(&models.join("smollm2-135m-instruct").display().to_string());
    let ask_for = |question: &str, stop: &[&str], max_new_tokens| Request::Generate {
        prompt: Prompt::Chat(vec![message("user", question)]),
        max_new_tokens,
        stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
    };
    let requests = [
        ask_for("What is the capital of France?", &[], 32),
        ask_for("What is the capital of France?", &["Paris"], 32),
        ask_for("What is the capital of France? Answer in one long sentence.", &[], 3),
    ];
    let answers = ask(&model, &requests);
    let Answer::Text { text, finish: Finish::Stop, .. } = &answers[0] else { panic!("{answers:?}") };
    // The zoo's README: what transformers writes greedily.
    assert_eq!(text, "The capital of France is Paris.");
    assert!(matches!(&answers[1], Answer::Text { text, finish: Finish::Stop, .. } if text == "The capital of France is "), "{answers:?}");
    assert!(matches!(&answers[2], Answer::Text { tokens: 3, finish: Finish::Length, .. }), "{answers:?}");
    assert_eq!(ask(&model, &requests[..1])[0], answers[0]);

    // A stop string that is a special token ends a text, too, where the model's end token is another one.
    let source = models.join("smollm2-135m-instruct");
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": 0}"#).unwrap();
    let other_end = LocalSource { tokenizer: folder.path().to_owned(), ..open(&source.display().to_string()) };
    let other_end = LocalModel::load(other_end, None, LocalOptions::default()).unwrap();
    let requests = [
        ask_for("What is the capital of France?", &["<|im_end|>"], 32),
        ask_for("What is the capital of France?", &["m_end"], 32),
        ask_for("What is the capital of France?", &[], 16),
    ];
    let answers = ask(&other_end, &requests);
    for answer in &answers[..2] {
        assert!(
            matches!(answer, Answer::Text { text, finish: Finish::Stop, tokens: 8 } if text == "The capital of France is Paris."),
            "{answers:?}"
        );
    }
    assert!(matches!(&answers[2], Answer::Text { tokens: 16, finish: Finish::Length, .. }), "{answers:?}");
}

#[test]
fn a_shorter_length_cuts_prompts_and_windows_and_a_longer_one_than_the_models_is_refused() {
    let Some((models, _)) = zoo() else { return };
    let source = || open(&models.join("smollm2-135m-instruct").display().to_string());
    let with = |length| LocalModel::load(source(), None, LocalOptions { max_length: Some(length), ..LocalOptions::default() });
    let model = with(8).unwrap();
    assert_eq!(model.identity()["max_length"], 8);
    let text = "The capital of France is Paris, and the capital of Italy is Rome.";
    let prompt = Request::LogLikelihood {
        prompt: Prompt::Text(text.to_owned()),
        continuation: " Yes.".to_owned(),
        tokenisation: Tokenisation::Joint,
    };
    // Of what stands before, only the last tokens are seen.
    let cut = Request::LogLikelihood {
        prompt: Prompt::Text(" the capital of Italy is Rome.".to_owned()),
        continuation: " Yes.".to_owned(),
        tokenisation: Tokenisation::Joint,
    };
    let answers = ask(&model, &[prompt, Request::Rolling { text: text.to_owned() }, cut]);
    let [Answer::LogLikelihood { sum: long, .. }, Answer::LogLikelihood { tokens, .. }, Answer::LogLikelihood { sum: short, .. }] =
        answers[..]
    else {
        panic!("{answers:?}")
    };
    assert!((long - short).abs() < 1e-3, "{long} {short}");
    let whole = ask(&load(&models.join("smollm2-135m-instruct").display().to_string()), &[Request::Rolling { text: text.to_owned() }]);
    assert!(matches!(whole[0], Answer::LogLikelihood { tokens: all, .. } if all == tokens), "{whole:?} {tokens}");
    for wrong in [0, 1 << 20] {
        assert!(with(wrong).err().unwrap().to_string().contains("--max-length from 1 to"));
    }
}

#[test]
fn likelihoods_of_windows_and_of_prompts_without_text_are_of_every_token_once() {
    let Some((models, _)) = zoo() else { return };
    let model = load(&models.join("smollm2-135m-instruct").display().to_string());
    let joint = |prompt: &str, continuation: &str| Request::LogLikelihood {
        prompt: Prompt::Text(prompt.to_owned()),
        continuation: continuation.to_owned(),
        tokenisation: Tokenisation::Joint,
    };
    let text = "The capital of France is Paris.";
    let answers = ask(
        &model,
        &[
            Request::Rolling { text: text.to_owned() },
            joint("", text),
            joint("The capital of France is", " Paris."),
            joint("The capital of France is ", "Paris."),
            joint("The capital of", ""),
            Request::Rolling { text: String::new() },
        ],
    );
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[2], answers[3], "white space at the prompt's end belongs to the continuation");
    assert!(matches!(answers[2], Answer::LogLikelihood { tokens: 2, .. }), "{answers:?}");
    for empty in &answers[4..] {
        assert_eq!(*empty, Answer::LogLikelihood { sum: 0.0, tokens: 0, greedy: true });
    }
}

#[test]
fn what_a_model_cannot_do_is_an_error_that_says_so() {
    let Some((models, _)) = zoo() else { return };
    let refuse = |model: &LocalModel, request: Request| model.answer(&[request], &mut |_, _| Ok(())).unwrap_err().to_string();
    let body = load(&models.join("minilm-l6").display().to_string());
    let error = refuse(&body, classify("a", None));
    assert!(error.contains("classifier.weight") && error.contains("--head-from"), "{error}");
    let written =
        Request::Generate { prompt: Prompt::Text("a".into()), max_new_tokens: 1, stop: vec![], temperature: 0.0, top_p: 1.0, seed: 0 };
    assert!(refuse(&body, written).contains("an encoder cannot write texts"));
    assert!(refuse(&body, Request::Rolling { text: "a".into() }).contains("an encoder cannot"));

    let source = models.join("smollm2-135m-instruct");
    let decoder = load(&source.display().to_string());
    assert!(refuse(&decoder, classify("a", None)).contains("a decoder has no classification head"));

    let plain = tempfile::tempdir().unwrap();
    fs::copy(source.join("tokenizer.json"), plain.path().join("tokenizer.json")).unwrap();
    let without_template = LocalSource { tokenizer: plain.path().to_owned(), ..open(&source.display().to_string()) };
    let model = LocalModel::load(without_template, None, LocalOptions::default()).unwrap();
    let chat = Request::Generate {
        prompt: Prompt::Chat(vec![message("user", "a")]),
        max_new_tokens: 1,
        stop: vec![],
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
    };
    assert!(refuse(&model, chat).contains("has no chat template"));
}
