//! Whole runs on hand-made items, 20 of each, with a model whose answers are known and metrics that were worked out by hand.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use deltaic_checkpoint::Result;
use deltaic_eval::task::{GenerationFile, built_in};
use deltaic_eval::{
    Answer, Backend, Evaluation, Executed, Executor, Finish, Prompt, Request, RunOptions, Task, TaskResult, Tokenisation, comparisons,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A model that answers by a function.
struct Model<F> {
    name: &'static str,
    labels: Option<Vec<String>>,
    answer: F,
}

impl<F: Fn(&Request) -> Answer> Backend for Model<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn identity(&self) -> Value {
        json!({"made": "by hand"})
    }

    fn labels(&self) -> Option<Vec<String>> {
        self.labels.clone()
    }

    fn eos_token(&self) -> Option<String> {
        Some("<end>".to_owned())
    }

    fn answer(&self, requests: &[Request], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        // In another order than asked, as endpoints answer.
        (0..requests.len()).rev().try_for_each(|at| done(at, (self.answer)(&requests[at])))
    }
}

fn model<F: Fn(&Request) -> Answer>(answer: F) -> Model<F> {
    Model { name: "model", labels: None, answer }
}

/// The text that a request ends with, or classifies.
fn text_of(request: &Request) -> String {
    let of_prompt = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Chat(messages) => messages.last().unwrap().content.clone(),
    };
    match request {
        Request::Classify { text, pair, .. } => format!("{text}|{}", pair.as_deref().unwrap_or_default()),
        Request::Generate { prompt, .. } => of_prompt(prompt),
        Request::LogLikelihood { prompt, continuation, .. } => format!("{}|{continuation}", of_prompt(prompt)),
        Request::Rolling { text } => text.clone(),
    }
}

/// The number after `item ` in a request.
fn item(request: &Request) -> usize {
    let text = text_of(request);
    let digits = text.rsplit_once("item ").unwrap_or_else(|| panic!("{text}")).1;
    digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

fn logits(logits: &[f32]) -> Answer {
    Answer::Logits { logits: logits.to_vec() }
}

fn says(text: impl Into<String>) -> Answer {
    Answer::Text { text: text.into(), tokens: 3, finish: Finish::Stop }
}

fn likely(sum: f64, tokens: usize) -> Answer {
    Answer::LogLikelihood { sum, tokens, greedy: false }
}

fn folder(name: &str, lines: impl Iterator<Item = String>) -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, lines.map(|line| line + "\n").collect::<String>()).unwrap();
    folder
}

fn run_with(task: &str, data: &Path, backend: &dyn Backend, options: &RunOptions<'_>) -> Result<TaskResult> {
    let task = built_in(task)?.expect("a built-in task");
    Evaluation::read(&task, Some(data), options)?.run(backend)
}

fn run(task: &str, data: &TempDir, backend: &dyn Backend) -> TaskResult {
    let cancel = AtomicBool::new(false);
    run_with(task, data.path(), backend, &RunOptions::new(&cancel)).unwrap()
}

#[track_caller]
fn assert_metric(result: &TaskResult, name: &str, expected: f64) {
    let json = result.to_json();
    let found = json["metrics"][name].as_f64().unwrap_or_else(|| panic!("{name} in {json}"));
    assert!((found - expected).abs() < 1e-12, "{name}: {found}, expected {expected}");
}

#[test]
fn mrpc_is_the_mean_of_accuracy_and_f1() {
    let header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String".to_owned();
    // Gold 1 for items 0 to 11; the model says 1 for items 2 to 13: 10 true positives, 2 false ones on either side, 6 true negatives.
    let lines = (0..20).map(|i| format!("{}\t1\t2\tfirst\titem {i}", u8::from(i < 12)));
    let data = folder("MRPC/dev.tsv", [header].into_iter().chain(lines));
    let result =
        run("glue/mrpc", &data, &model(|request| if (2..14).contains(&item(request)) { logits(&[0.1, 0.2]) } else { logits(&[0.2, 0.1]) }));
    assert_eq!(result.items, 20);
    assert_metric(&result, "accuracy", 16.0 / 20.0);
    assert_metric(&result, "f1", 20.0 / 24.0);
    assert_metric(&result, "headline", (16.0 / 20.0 + 20.0 / 24.0) / 2.0);
    let json = result.to_json();
    assert_eq!(json["stderr_method"]["accuracy"], "sd/sqrt(n)");
    assert_eq!(json["stderr_method"]["headline"], "bootstrap (1000 resamples)");
    // The sample standard deviation of 16 ones and 4 zeros is sqrt(20/19 * 0.8 * 0.2).
    let expected = (20.0_f64 / 19.0 * 0.16).sqrt() / 20.0_f64.sqrt();
    assert!((json["stderr"]["accuracy"].as_f64().unwrap() - expected).abs() < 1e-12);
}

#[test]
fn cola_is_matthews_correlation_and_equal_logits_are_the_first_label() {
    // 5 of each of the four cases but for one: TP 5, TN 5, FP 5, FN 5 gives 0; here TP 8, TN 6, FP 4, FN 2.
    let lines = (0..20).map(|i| format!("x\t{}\t\titem {i}", u8::from(i < 10)));
    let data = folder("CoLA/dev.tsv", lines);
    let says_one = |i: usize| i < 8 || (10..14).contains(&i);
    let result =
        run("glue/cola", &data, &model(|request| if says_one(item(request)) { logits(&[-1.0, 0.0]) } else { logits(&[0.5, 0.5]) }));
    assert_metric(&result, "headline", (8.0 * 6.0 - 4.0 * 2.0) / (12.0_f64 * 10.0 * 10.0 * 8.0).sqrt());
    assert_metric(&result, "accuracy", 14.0 / 20.0);
}

#[test]
fn stsb_is_the_mean_of_both_correlations_of_the_raw_output() {
    let header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore".to_owned();
    let lines = (0..20).map(|i| format!("{i}\tg\tf\t2012\t1\tnone\tnone\ta\titem {i}\t{}", f64::from(i) / 4.0));
    let data = folder("STS-B/dev.tsv", [header].into_iter().chain(lines));
    // A decreasing line beyond 0 to 5: both correlations are -1, nothing is clipped.
    let result = run("glue/stsb", &data, &model(|request| logits(&[9.0 - item(request) as f32])));
    for metric in ["pearson", "spearman", "headline"] {
        assert_metric(&result, metric, -1.0);
    }
}

#[test]
fn a_head_with_labels_in_another_order_is_read_by_their_names() {
    let header = "index\tsentence1\tsentence2\tlabel".to_owned();
    let lines = (0..20).map(|i| format!("{i}\ta\titem {i}\t{}", if i < 15 { "entailment" } else { "not_entailment" }));
    let data = folder("RTE/dev.tsv", [header].into_iter().chain(lines));
    let first = |_: &Request| logits(&[1.0, 0.0]);
    let named = |names: [&str; 2]| Model { name: "model", labels: Some(names.map(str::to_owned).to_vec()), answer: first };
    assert_metric(&run("glue/rte", &data, &named(["LABEL_0", "LABEL_1"])), "accuracy", 15.0 / 20.0);
    assert_metric(&run("glue/rte", &data, &named(["NOT_ENTAILMENT", "ENTAILMENT"])), "accuracy", 5.0 / 20.0);
    let cancel = AtomicBool::new(false);
    let strange = run_with("glue/rte", data.path(), &named(["entailment", "neutral"]), &RunOptions::new(&cancel)).unwrap_err().to_string();
    assert!(strange.contains("expected entailment, not_entailment, in any order, found entailment, neutral"), "{strange}");
    let three = model(|_: &Request| logits(&[0.0; 3]));
    let message = run_with("glue/rte", data.path(), &three, &RunOptions::new(&cancel)).unwrap_err().to_string();
    assert!(message.contains("dev.tsv:2: the head has 3 outputs, the task 2") && message.contains("--head-from"), "{message}");
}

#[test]
fn arc_normalises_by_characters_bytes_and_tokens() {
    // Sums -10, -12 and -9 of choices with 2, 6 and 3 characters, 4, 6 and 3 bytes, 5, 2 and 3 tokens:
    // the best by sum is the third, by characters (-5, -2, -3) the second, by bytes (-2.5, -2, -3) the second, by tokens (-2, -6, -3) the first.
    let line = |i: usize| {
        let answer = ["A", "B", "C"][i % 3];
        json!({"id": i.to_string(), "question": format!("item {i}"), "choices": {"text": ["éé", "abcdef", "abc"], "label": ["A", "B", "C"]}, "answerKey": answer})
            .to_string()
    };
    let data = folder("test.jsonl", (0..20).map(line));
    let result = run(
        "arc_easy",
        &data,
        &model(|request| match text_of(request).rsplit_once("| ").unwrap().1 {
            "éé" => likely(-10.0, 5),
            "abcdef" => likely(-12.0, 2),
            _ => likely(-9.0, 3),
        }),
    );
    // Of 20 items 7 have A as gold, 7 B, 6 C.
    assert_metric(&result, "acc", 6.0 / 20.0);
    assert_metric(&result, "acc_norm", 7.0 / 20.0);
    assert_metric(&result, "acc_bytes", 7.0 / 20.0);
    assert_metric(&result, "acc_token", 7.0 / 20.0);
    assert_metric(&result, "headline", 7.0 / 20.0);
    assert_eq!(result.records[1].prediction, json!(2));
    assert_eq!(result.records[1].numbers.iter().map(|(_, right)| *right).collect::<Vec<_>>(), [0.0, 1.0, 1.0, 0.0]);
}

#[test]
fn truthfulqas_mass_is_the_true_choices_share() {
    let line = |i: usize| {
        let targets = json!({"choices": ["a", "b", "c"], "labels": [1, i % 2, 0]});
        json!({"question": format!("item {i}"), "mc1_targets": targets, "mc2_targets": targets}).to_string()
    };
    let data = folder("validation.jsonl", (0..20).map(line));
    // Probabilities 1, 1 and 2, far below what exp can hold.
    let result = run(
        "truthfulqa_mc2",
        &data,
        &model(|request| likely(-5000.0 + if text_of(request).ends_with(" c") { 2.0_f64.ln() } else { 0.0 }, 1)),
    );
    assert_metric(&result, "headline", (0.25 + 0.5) / 2.0);
}

#[test]
fn gsm8k_counts_texts_without_an_answer_as_wrong() {
    let data = folder(
        "gsm8k_test.jsonl",
        (0..20).map(|i| json!({"question": format!("item {i}"), "answer": format!("x\n#### 1,0{i:02}")}).to_string()),
    );
    let result = run(
        "gsm8k",
        &data,
        &model(|request| {
            match text_of(request).split("item ").nth(1).and_then(|rest| rest.split('\n').next()).unwrap().parse::<usize>().unwrap() {
                i @ 0..7 => says(format!("so The answer is: 1,0{i:02}.")),
                i @ 7..10 => says(format!("The answer is: {}", 1000 + i)),
                10..15 => says("The answer is: 5"),
                _ => says("I do not know"),
            }
        }),
    );
    assert_metric(&result, "accuracy", 10.0 / 20.0);
    assert_metric(&result, "no_answer", 5.0 / 20.0);
    assert_eq!(result.details.get("answers_without_text"), None);
    let silent = run(
        "gsm8k",
        &data,
        &model(|request: &Request| says(if text_of(request).contains("item 7\n") { "The answer is: 1007" } else { " " })),
    );
    assert_eq!(silent.details["answers_without_text"], 19);
    assert_eq!(result.records[19].prediction, Value::Null);
    let Request::Generate { max_new_tokens, stop, temperature, .. } = &result.records[0].requests[0] else { panic!() };
    assert_eq!((*max_new_tokens, stop.len(), *temperature), (1024, 4, 0.0));
}

#[test]
fn gsm8k_fewshot_scores_one_text_twice_and_records_its_shots() {
    let folder = folder("test.jsonl", (0..20).map(|i| json!({"question": format!("item {i}"), "answer": format!("#### {i}")}).to_string()));
    let shots: String =
        (0..8).map(|i| json!({"question": format!("shot {i}"), "answer": format!("#### {i}")}).to_string() + "\n").collect();
    fs::write(folder.path().join("train.jsonl"), shots).unwrap();
    let backend = model(|request: &Request| match item(request) {
        // Strict takes the first match, flexible the last number of the text.
        i @ 0..8 => says(format!(" it is\n#### {i}\nand 99")),
        i @ 8..18 => says(format!(" so {i}.")),
        _ => says("none"),
    });
    let result = run("gsm8k_fewshot", &folder, &backend);
    assert_metric(&result, "strict_match", 8.0 / 20.0);
    assert_metric(&result, "headline", 10.0 / 20.0);
    assert_eq!(result.details["shots"], json!({"count": 5, "seed": null, "ids": {"": ["0", "1", "2", "3", "4"]}}));
    assert!(text_of(&result.records[0].requests[0]).starts_with("Question: shot 0\nAnswer: #### 0\n\nQuestion: shot 1\n"));

    // Drawn ones are the same for the same seed, and others for another.
    let cancel = AtomicBool::new(false);
    let drawn = |seed| {
        let options = RunOptions { seed: Some(seed), shots: Some(3), ..RunOptions::new(&cancel) };
        run_with("gsm8k_fewshot", folder.path(), &backend, &options).unwrap().details["shots"].clone()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1)["ids"], drawn(2)["ids"]);
    // A question is never its own example, however its file is named, and the records say which ones it had.
    let roundabout = folder.path().join(".").join("../").join(folder.path().file_name().unwrap()).join("test.jsonl");
    let options = RunOptions { shots_file: Some(&roundabout), ..RunOptions::new(&cancel) };
    let result = run_with("gsm8k_fewshot", folder.path(), &backend, &options).unwrap();
    for index in [0, 2, 19] {
        let text = text_of(&result.records[index].requests[0]);
        assert_eq!(text.matches(&format!("Question: item {index}\n")).count(), 1, "{text}");
        assert_eq!(text.matches("Question: ").count(), 6, "{text}");
    }
    let taken = &result.details["shots"];
    assert_eq!(taken["ids"][""], json!(["0", "1", "2", "3", "4"]));
    assert_eq!(taken["ids_without_the_item"]["2"], json!(["0", "1", "3", "4", "5"]));
    assert_eq!(taken["ids_without_the_item"].as_object().unwrap().len(), 5);
    let options = RunOptions { shots_file: Some(&roundabout), shots: Some(20), ..RunOptions::new(&cancel) };
    let message = run_with("gsm8k_fewshot", folder.path(), &backend, &options).unwrap_err().to_string();
    assert!(message.contains("expected 20 solved examples beside the question itself, found 19"), "{message}");
    // Too many, and none at all, are errors that say what is there.
    let options = RunOptions { shots: Some(9), ..RunOptions::new(&cancel) };
    let message = run_with("gsm8k_fewshot", folder.path(), &backend, &options).unwrap_err().to_string();
    assert!(message.contains("expected 9 solved examples, found 8"), "{message}");
    fs::remove_file(folder.path().join("train.jsonl")).unwrap();
    let message = run_with("gsm8k_fewshot", folder.path(), &backend, &RunOptions::new(&cancel)).unwrap_err().to_string();
    assert!(message.contains("gsm8k_train.jsonl, train.jsonl") && message.contains("--shots FILE"), "{message}");
}

#[test]
fn answer_nll_is_the_sum_over_all_tokens_by_their_number() {
    let data = folder("test.jsonl", (0..20).map(|i| json!({"question": format!("item {i}"), "answer": "a"}).to_string()));
    // Item i: i + 1 tokens of (i + 1) / 10 nats each: sum (i + 1)^2 / 10 over 210 tokens.
    let backend = model(|request: &Request| {
        let Request::LogLikelihood { continuation, tokenisation: Tokenisation::Apart { max_tokens: 512 }, .. } = request else { panic!() };
        assert_eq!(continuation, "a<end>");
        let tokens = item(request) + 1;
        likely(-((tokens * tokens) as f64) / 10.0, tokens)
    });
    let result = run("answer_nll", &data, &backend);
    assert_metric(&result, "headline", 287.0 / 210.0);
    assert_metric(&result, "perplexity", (287.0_f64 / 210.0).exp());
    assert_eq!(result.to_json()["direction"], "lower");
    let cancel = AtomicBool::new(false);
    let options = RunOptions { items: Some(18..20), system: Some("Be brief.".to_owned()), ..RunOptions::new(&cancel) };
    let result = run_with("answer_nll", data.path(), &backend, &options).unwrap();
    assert_metric(&result, "nll", (36.1 + 40.0) / 39.0);
    assert_eq!(result.records.iter().map(|record| record.index).collect::<Vec<_>>(), [18, 19]);
    let Request::LogLikelihood { prompt: Prompt::Chat(messages), .. } = &result.records[0].requests[0] else { panic!() };
    assert_eq!((messages[0].role.as_str(), messages[0].content.as_str()), ("system", "Be brief."));
    let open = RunOptions { items: Some(18..usize::MAX), system: Some("Be brief.".to_owned()), ..RunOptions::new(&cancel) };
    assert_metric(&run_with("answer_nll", data.path(), &backend, &open).unwrap(), "nll", (36.1 + 40.0) / 39.0);
    let options = RunOptions { items: Some(20..usize::MAX), ..RunOptions::new(&cancel) };
    assert!(run_with("answer_nll", data.path(), &backend, &options).unwrap_err().to_string().contains("items 20..20 of 20"));
    let options = RunOptions { items: Some(18..21), ..RunOptions::new(&cancel) };
    assert!(run_with("answer_nll", data.path(), &backend, &options).unwrap_err().to_string().contains("items 18..21 of 20"));
}

#[test]
fn perplexities_sum_over_documents_before_they_divide() {
    let data = folder("test.jsonl", (0..20).map(|i| json!({"text": format!("é item {i}")}).to_string()));
    let result = run("perplexity", &data, &model(|request| likely(-(item(request) as f64), 4)));
    // 190 nats, 3 words each; bytes: "é item " has 8, ten numbers of one digit and ten of two.
    assert_metric(&result, "word_perplexity", (190.0_f64 / 60.0).exp());
    assert_metric(&result, "byte_perplexity", (190.0_f64 / 190.0).exp());
    assert_metric(&result, "bits_per_byte", 1.0 / std::f64::consts::LN_2);
    assert_metric(&result, "nll", 190.0 / 80.0);
}

struct Pass;

impl Executor for Pass {
    fn execute(&self, programs: &[String], _: &AtomicBool, _: &(dyn Fn(usize) + Sync)) -> Result<Vec<Executed>> {
        let outcome = |program: &String| match program.contains("right") {
            true => Executed::Passed,
            false if program.contains("slow") => Executed::TimedOut,
            false => Executed::Failed("AssertionError".to_owned()),
        };
        Ok(programs.iter().map(outcome).collect())
    }

    fn details(&self) -> Value {
        json!({"sandboxed": "in a test"})
    }
}

#[test]
fn humaneval_runs_prompt_completion_and_test() {
    let line = |i: usize| {
        let prompt = format!("def f():\n    # item {i}\n");
        json!({"task_id": format!("HumanEval/{i}"), "prompt": prompt, "entry_point": "f", "test": "def check(f):\n    assert f()\n"})
            .to_string()
    };
    let data = folder("HumanEval.jsonl", (0..20).map(line));
    let cancel = AtomicBool::new(false);
    let options = RunOptions { executor: Some(&Pass), ..RunOptions::new(&cancel) };
    let backend = model(|request: &Request| match item(request) {
        0..9 => says("Sure.\n```python\ndef f():\n\treturn 'right'\n```\nDone."),
        9..12 => says("def f(): slow()"),
        _ => says("def f(): pass"),
    });
    let result = run_with("humaneval", data.path(), &backend, &options).unwrap();
    assert_metric(&result, "headline", 9.0 / 20.0);
    assert_metric(&result, "timed_out", 3.0 / 20.0);
    let file = result.generations(GenerationFile::Humaneval).unwrap();
    let first: Value = serde_json::from_str(file.lines().next().unwrap()).unwrap();
    assert_eq!(first["task_id"], "HumanEval/0");
    assert_eq!(first["completion"], "def f():\n    return 'right'");
    assert_eq!(first["all_code"], "Sure.\n```python\ndef f():\n    return 'right'\n```\nDone.");
    let mut records = Vec::new();
    result.write_records(&mut records).unwrap();
    let last: Value = serde_json::from_str(std::str::from_utf8(&records).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!(last["execution"], "failed: AssertionError");
    assert_eq!(last["id"], "HumanEval/19");
    let message = run_with("humaneval", data.path(), &backend, &RunOptions::new(&cancel)).unwrap_err().to_string();
    assert!(message.contains("the task runs programs"), "{message}");
    assert_eq!(result.details["execution"], json!({"sandboxed": "in a test"}));
}

#[test]
fn mbpps_programs_have_the_setup_before_the_asserts() {
    struct Collects(std::sync::Mutex<Vec<String>>);
    impl Executor for Collects {
        fn execute(&self, programs: &[String], _: &AtomicBool, _: &(dyn Fn(usize) + Sync)) -> Result<Vec<Executed>> {
            self.0.lock().unwrap().extend(programs.iter().cloned());
            Ok(vec![Executed::Passed; programs.len()])
        }
    }
    let line = |i: usize| {
        json!({"task_id": i, "text": format!("item {i}"), "code": "", "test_list": ["assert a", "assert b", "assert c"], "test_setup_code": "import x"}).to_string()
    };
    let data = folder("mbpp.jsonl", (11..31).map(line));
    let cancel = AtomicBool::new(false);
    let programs = Collects(std::sync::Mutex::default());
    let options = RunOptions { executor: Some(&programs), ..RunOptions::new(&cancel) };
    let result = run_with("mbpp_harness", data.path(), &model(|_: &Request| says("a = 1\n")), &options).unwrap();
    assert_metric(&result, "headline", 1.0);
    assert_eq!(programs.0.lock().unwrap()[0], "a = 1\n\nimport x\nassert a\nassert b\nassert c");
    let prompt = text_of(&result.records[0].requests[0]);
    assert!(
        prompt.contains("[BEGIN]\ndef similar_elements(test_tup1") && prompt.contains("\n[DONE]\n\nYou are an expert Python programmer"),
        "{prompt}"
    );
    assert!(prompt.ends_with("Your code should pass these tests:\n\nassert a\nassert b\nassert c\n[BEGIN]\n"), "{prompt}");
    let file: Value = serde_json::from_str(&result.generations(GenerationFile::Mbpp).unwrap()).unwrap();
    assert_eq!(file.as_array().unwrap().len(), 20);
    assert_eq!(file[19], json!(["a = 1\n"]));
    // A program's place in the file is its task's: what begins later has none.
    let task = built_in("mbpp").unwrap().unwrap();
    let options = RunOptions { items: Some(5..20), ..options };
    let message = Evaluation::read(&task, Some(data.path()), &options).unwrap().check_generations().unwrap_err().to_string();
    assert!(message.contains("program 0 is that of task 11, found 16"), "{message}");
}

#[test]
fn alpaca_evals_file_has_what_its_judge_reads_and_nothing_is_scored() {
    let items: Vec<Value> =
        (0..20).map(|i| json!({"instruction": format!("item {i}"), "output": "o", "generator": "g", "dataset": "d"})).collect();
    let data = folder("alpaca_eval.json", [json!(items).to_string()].into_iter());
    let result = run("alpaca_eval", &data, &model(|_: &Request| says(" An answer.\n")));
    assert_eq!(result.to_json()["metrics"]["headline"], Value::Null);
    let file: Value = serde_json::from_str(&result.generations(GenerationFile::AlpacaEval).unwrap()).unwrap();
    assert_eq!(file[3], json!({"instruction": "item 3", "output": " An answer.\n", "generator": "model", "dataset": "d"}));
}

#[test]
fn a_judge_is_asked_in_both_orders_and_draws_count_half() {
    let items: Vec<Value> = (0..20).map(|i| json!({"instruction": format!("item {i}."), "output": "theirs"})).collect();
    let data = folder("alpaca_eval.json", [json!(items).to_string()].into_iter());
    let reference = data.path().join("alpaca_eval.json");
    // Items 0 to 4: the judge always prefers "ours"; 5 to 9: always what stands first; 10 to 14: a draw; then it says nothing that can be read.
    let judge = model(|request: &Request| {
        let text = text_of(request);
        let ours_first = text.find("ours").unwrap() < text.find("theirs").unwrap();
        match text.split("item ").nth(1).unwrap().split('.').next().unwrap().parse::<usize>().unwrap() {
            0..5 => says(if ours_first { "It is [[B]]? No. [[A]]" } else { "[[B]]" }),
            5..10 => says("[[A]]"),
            10..15 => says("[[C]]"),
            _ => says("Both are fine."),
        }
    });
    let cancel = AtomicBool::new(false);
    let options = RunOptions { judge: Some(&judge), reference: Some(&reference), ..RunOptions::new(&cancel) };
    let result = run_with("pairwise_judge", data.path(), &model(|_: &Request| says("ours")), &options).unwrap();
    assert_metric(&result, "win_rate", (5.0 + 2.5 + 2.5 + 2.5) / 20.0);
    assert_metric(&result, "unreadable", 0.25);
    let message = run_with("pairwise_judge", data.path(), &judge, &RunOptions::new(&cancel)).unwrap_err().to_string();
    assert!(message.contains("--judge-endpoint"), "{message}");
    // What the reference file lacks is said before anything is asked.
    fs::write(data.path().join("theirs.jsonl"), json!({"instruction": "item 0.", "output": "theirs"}).to_string()).unwrap();
    let reference = data.path().join("theirs.jsonl");
    let options = RunOptions { judge: Some(&judge), reference: Some(&reference), ..RunOptions::new(&cancel) };
    let never = model(|_: &Request| -> Answer { panic!("a model was asked") });
    let message = run_with("pairwise_judge", data.path(), &never, &options).unwrap_err().to_string();
    assert!(message.contains("theirs.jsonl: there is no answer to `item 1.`"), "{message}");
}

#[test]
fn two_models_on_the_same_items_are_tested_against_each_other() {
    let header = "sentence\tlabel".to_owned();
    let data = folder("SST-2/dev.tsv", [header].into_iter().chain((0..20).map(|i| format!("item {i}\t1"))));
    let right_below = |name, limit| Model {
        name,
        labels: None,
        answer: move |request: &Request| if item(request) < limit { logits(&[0.0, 1.0]) } else { logits(&[1.0, 0.0]) },
    };
    let results = [run("glue/sst2", &data, &right_below("a", 18)), run("glue/sst2", &data, &right_below("b", 12))];
    let found = comparisons(&results).unwrap();
    assert_eq!((found.len(), found[0].first.as_str(), found[0].second.as_str()), (1, "a", "b"));
    assert!((found[0].test.difference - 0.3).abs() < 1e-12);
    // Six items that only one has right: McNemar's exact p is 2 / 2^6.
    assert!((found[0].test.p.unwrap() - 2.0 / 64.0).abs() < 1e-9);
    assert_eq!(json!(found[0])["method"], "mcnemar");
}

#[test]
fn a_limit_of_new_tokens_takes_the_place_of_the_tasks() {
    let data = folder("gsm8k_test.jsonl", (0..20).map(|i| json!({"question": format!("item {i}"), "answer": "#### 1"}).to_string()));
    let cancel = AtomicBool::new(false);
    let limited = |tokens| RunOptions { max_new_tokens: Some(tokens), ..RunOptions::new(&cancel) };
    let result = run_with("gsm8k", data.path(), &model(|_: &Request| says("none")), &limited(7)).unwrap();
    assert!(matches!(result.records[0].requests[0], Request::Generate { max_new_tokens: 7, .. }));
    assert_eq!(result.details["max_new_tokens"], 7);
    let refused =
        |task: &str, tokens| run_with(task, data.path(), &model(|_: &Request| says("")), &limited(tokens)).unwrap_err().to_string();
    assert!(refused("gsm8k", 0).contains("0 new tokens"));
    assert!(refused("answer_nll", 7).contains("generates no text"));
}

#[test]
fn mmlus_shots_are_of_the_items_subject_and_a_file_of_them_needs_a_number() {
    // The official archive: one folder of a name that is nobody's own, a file for each subject, no header.
    let folder = TempDir::new().unwrap();
    for subject in ["anatomy", "astronomy"] {
        for (split, count) in [("dev", 2), ("test", 10)] {
            let rows = (0..count).map(|i| format!("{subject} {split} item {i},a,b,c,d,B\n"));
            let path = folder.path().join(format!("data/{split}/{subject}_{split}.csv"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, rows.collect::<String>()).unwrap();
        }
    }
    let cancel = AtomicBool::new(false);
    let backend = model(|request: &Request| likely(if text_of(request).ends_with("| B") { -1.0 } else { -2.0 }, 1));
    let options = RunOptions { shots: Some(2), ..RunOptions::new(&cancel) };
    let result = run_with("mmlu", folder.path(), &backend, &options).unwrap();
    assert_eq!(result.items, 20);
    assert_metric(&result, "acc", 1.0);
    let last = text_of(&result.records[19].requests[0]);
    assert!(last.contains("astronomy dev item 1") && !last.contains("anatomy dev"), "{last}");
    assert_eq!(result.details["shots"]["ids"].as_object().unwrap().len(), 2);
    // Of one subject there is one example: only items of that subject lack one.
    let few = folder.path().join("few.jsonl");
    let row = |subject: &str| json!({"subject": subject, "question": "q", "choices": ["a", "b", "c", "d"], "answer": 1}).to_string();
    fs::write(&few, ["anatomy", "anatomy", "astronomy"].map(|subject| row(subject) + "\n").concat()).unwrap();
    let with = |shots, items| RunOptions { shots, items, shots_file: Some(&few), ..RunOptions::new(&cancel) };
    assert_eq!(run_with("mmlu", folder.path(), &backend, &with(Some(2), Some(0..10))).unwrap().items, 10);
    let message = run_with("mmlu", folder.path(), &backend, &with(Some(2), None)).unwrap_err().to_string();
    assert!(message.contains("few.jsonl: expected 2 solved examples of astronomy, found 1"), "{message}");
    let message = run_with("mmlu", folder.path(), &backend, &with(None, None)).unwrap_err().to_string();
    assert!(message.contains("no number of examples") && message.contains("--shots K --shots FILE"), "{message}");
}

#[test]
fn inline_examples_are_named_where_they_are_too_few() {
    let line = |i: usize| json!({"task_id": i, "text": "item", "test_list": ["a", "b", "c"], "test_setup_code": ""}).to_string();
    let data = folder("mbpp.jsonl", (11..31).map(line));
    let cancel = AtomicBool::new(false);
    let options = RunOptions { shots: Some(4), executor: Some(&Pass), ..RunOptions::new(&cancel) };
    let message = run_with("mbpp_harness", data.path(), &model(|_: &Request| says("")), &options).unwrap_err().to_string();
    assert!(message.contains("mbpp_harness, shots.inline: expected 4 solved examples, found 3"), "{message}");
}

#[test]
fn a_backend_that_cannot_answer_says_so_before_what_it_does_not_know() {
    let data = folder("test.jsonl", (0..20).map(|i| json!({"question": format!("item {i}"), "answer": "a"}).to_string()));
    let endpoint = deltaic_eval::Endpoint::new(deltaic_eval::EndpointOptions::new("http://127.0.0.1:9", "m")).unwrap();
    let cancel = AtomicBool::new(false);
    let message = run_with("answer_nll", data.path(), &endpoint, &RunOptions::new(&cancel)).unwrap_err().to_string();
    assert!(message.contains("no likelihood of a given answer in a conversation"), "{message}");
}

#[test]
fn kept_answers_have_the_models_labels_and_end_of_turn() {
    let folder = TempDir::new().unwrap();
    let file = deltaic_eval::AnswerFile::open(&folder.path().join("answers")).unwrap();
    let named = Model { name: "m", labels: Some(vec!["a".to_owned()]), answer: |_: &Request| says("") };
    let cached = deltaic_eval::Cached::new(named, file);
    assert_eq!((cached.labels(), cached.eos_token()), (Some(vec!["a".to_owned()]), Some("<end>".to_owned())));
}

#[test]
fn what_does_not_fit_a_task_is_an_error() {
    let data = folder("SST-2/dev.tsv", ["sentence\tlabel".to_owned(), "item 0\tgood".to_owned()].into_iter());
    let cancel = AtomicBool::new(false);
    let said =
        |backend: &dyn Backend, options: &RunOptions<'_>| run_with("glue/sst2", data.path(), backend, options).unwrap_err().to_string();
    let two = model(|_: &Request| logits(&[0.0, 1.0]));
    let options = || RunOptions::new(&cancel);
    assert!(said(&two, &options()).contains("dev.tsv:2: the label is `good`; expected one of negative, 0, positive, 1"));
    assert!(said(&model(|_: &Request| says("x")), &options()).contains("not of the question's kind: found a text"));
    assert!(said(&two, &RunOptions { shots: Some(2), ..options() }).contains("the task has no shots"));
    assert!(said(&two, &RunOptions { system: Some(String::new()), ..options() }).contains("has no system message"));
    assert!(said(&two, &RunOptions { limit: Some(0), ..options() }).contains("a limit of no items"));
    struct Silent;
    impl Backend for Silent {
        fn name(&self) -> &str {
            "silent"
        }
        fn identity(&self) -> Value {
            Value::Null
        }
        fn answer(&self, _: &[Request], _: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
            Ok(())
        }
    }
    assert!(said(&Silent, &options()).contains("silent: question 0 of 1 was not answered"));
    let failing = model(|_: &Request| logits(&[f32::NAN, f32::NAN]));
    let good = folder("SST-2/dev.tsv", ["sentence\tlabel".to_owned(), "item 0\t0".to_owned()].into_iter());
    let result = run("glue/sst2", &good, &failing);
    assert_metric(&result, "accuracy", 0.0);
    assert_eq!(result.records[0].prediction, Value::Null);
    cancel.store(true, Ordering::Relaxed);
    assert!(said(&two, &options()).contains("cancelled"));
}

/// The first YAML block of a document of the repository after a text.
fn example(document: &str, after: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document);
    let text = fs::read_to_string(path).unwrap();
    let rest = text.split_once(after).unwrap().1;
    rest.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_examples_of_the_documents_run() {
    let task = Task::parse("docs/tasks.md", &example("docs/tasks.md", "# Tasks")).unwrap();
    let country = |i: usize| json!({"country": format!("item {i}"), "capital": "Rome"}).to_string();
    let data = folder("capitals.jsonl", (0..20).map(country));
    fs::write(data.path().join("capitals_train.jsonl"), json!({"country": "France", "capital": "Paris"}).to_string()).unwrap();
    let cancel = AtomicBool::new(false);
    let options = RunOptions::new(&cancel);
    let mut evaluation = Evaluation::read(&task, Some(data.path()), &options).unwrap();
    let result =
        evaluation.run(&model(|request| if text_of(request).contains("item 1") { says(" ROME") } else { says(" Rome.") })).unwrap();
    // "ROME" gives no match of `[A-Z][a-z]+`: items 1 and 10 to 19 are wrong.
    assert_metric(&result, "headline", 9.0 / 20.0);
    assert_eq!(
        text_of(&result.records[0].requests[0]),
        "Question: What is the capital of France?\nAnswer: Paris\n\nQuestion: What is the capital of item 0?\nAnswer:"
    );

    let task = Task::parse("CONTRIBUTING.md", &example("CONTRIBUTING.md", "## Add a task")).unwrap();
    let line = |i: usize| json!({"question": "is it", "passage": format!("item {i}"), "answer": i < 5}).to_string();
    let data = folder("val.jsonl", (0..20).map(line));
    let mut evaluation = Evaluation::read(&task, Some(data.path()), &options).unwrap();
    let result = evaluation.run(&model(|request| likely(if text_of(request).ends_with(" yes") { -1.0 } else { -2.0 }, 1))).unwrap();
    assert_metric(&result, "headline", 5.0 / 20.0);
}
