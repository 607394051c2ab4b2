//! Which examples are taken, and what tokens they are.

mod statistics;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use deltaic_lm::TextTokenizer;
use deltaic_merge::recipe::{DataSettings, DataSource, Order};
use deltaic_study::statistics::{DOCUMENT_TOKENS, Example, Examples, StatisticsModel, permutation};
use statistics::{expected, model};

fn tokenizers(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lm/tests/tokenizers").join(name)
}

fn of_task(task: &str, split: Option<&str>, examples: Option<usize>, order: Order) -> DataSettings {
    let source = DataSource::Task { task: task.to_owned(), path: "data".to_owned(), split: split.map(str::to_owned) };
    DataSettings { source, examples, order }
}

fn bert() -> (StatisticsModel, TextTokenizer) {
    (model(&expected(), "bert-1", &tokenizers("bert")), TextTokenizer::open(&tokenizers("bert")).unwrap())
}

fn llama() -> (StatisticsModel, TextTokenizer) {
    (model(&expected(), "llama", &tokenizers("llama")), TextTokenizer::open(&tokenizers("llama")).unwrap())
}

fn error(data: &DataSettings, folder: &Path, model: &StatisticsModel) -> String {
    Examples::read(data, folder, model).unwrap_err().to_string()
}

#[test]
fn a_regressions_examples_are_pairs_with_scores_in_the_order_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (data, (model, tokenizer)) = (folder.path().join("data/STS-B"), bert());
    std::fs::create_dir_all(&data).unwrap();
    let rows: Vec<(String, String, f32)> = (0..20).map(|k| (format!("a {k}"), format!("the {k} b"), k as f32 / 4.0)).collect();
    let lines: String = rows.iter().map(|(a, b, score)| format!("{a}\t{b}\t{score}\n")).collect();
    std::fs::write(data.join("train.tsv"), format!("sentence1\tsentence2\tscore\n{lines}")).unwrap();
    let expected = |number: usize| {
        let (a, b, score) = &rows[number];
        // The model has 12 positions.
        let encoded = tokenizer.encode_pair(a, Some(b), 12).unwrap();
        Example::new(encoded.ids, encoded.type_ids, Some(*score), 0)
    };
    let read = |data: &DataSettings| Examples::read(data, folder.path(), &model).unwrap();
    let all = read(&of_task("glue/stsb", Some("train"), None, Order::File));
    assert_eq!(all.list, (0..20).map(expected).collect::<Vec<_>>());
    let permuted = read(&of_task("glue/stsb", Some("train"), Some(5), Order::Permuted { seed: 3 }));
    assert_eq!(permuted.list, permutation(3, 20)[..5].iter().map(|&number| expected(number)).collect::<Vec<_>>());
    assert_ne!(permuted.digest(), read(&of_task("glue/stsb", Some("train"), Some(5), Order::File)).digest());
    let failed = |data: &DataSettings| error(data, folder.path(), &model);
    assert!(failed(&of_task("glue/stsb", Some("train"), Some(21), Order::File)).contains("expected 21 examples, found 20"));
    assert!(failed(&of_task("glue/stsb", Some("train20k"), None, Order::File)).contains("train20k.tsv"));
    assert!(failed(&of_task("answer_nll", None, None, Order::File)).contains("no file of it is in"));
    std::fs::write(folder.path().join("data/test.jsonl"), "{\"question\": \"a\", \"answer\": \"b\"}\n").unwrap();
    assert!(failed(&of_task("answer_nll", None, None, Order::File)).contains("glue/mrpc"));
    std::fs::write(data.join("bad.tsv"), "sentence1\tsentence2\tscore\na\tb\tmuch\n").unwrap();
    let failure = failed(&of_task("glue/stsb", Some("bad"), None, Order::File));
    assert!(failure.contains("bad.tsv:2") && failure.contains("`much`"), "{failure}");
}

#[test]
fn answers_are_targets_and_items_without_room_for_them_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = llama();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(
        folder.path().join("own.yml"),
        "task: own\ndescription: own\nheadline: nll\ndirection: lower\ndata: {files: [test.jsonl]}\n\
         answer_nll: {prompt: '{{ q }} ', chat: false, answer: '{{ a }}', max_tokens: 12}\n",
    )
    .unwrap();
    let long = "the ".repeat(40);
    let lines = [("a b", "c d"), (long.as_str(), "x"), ("the", "a b c")].map(|(q, a)| serde_json::json!({"q": q, "a": a}).to_string());
    std::fs::write(folder.path().join("data/test.jsonl"), lines.join("\n")).unwrap();
    let examples = Examples::read(&of_task("own.yml", None, None, Order::File), folder.path(), &model).unwrap();
    assert_eq!((examples.list.len(), examples.skipped), (2, 1));
    for (example, (q, a)) in examples.list.iter().zip([("a b ", "c d"), ("the ", "a b c")]) {
        // The tokenizer's texts begin with a BOS.
        let prompt = tokenizer.encode(q, true).unwrap();
        let answer = tokenizer.encode(a, false).unwrap();
        let mut ids = [prompt.clone(), answer].concat();
        ids.truncate(12);
        assert_eq!((&example.ids, example.scored_from), (&ids, prompt.len()));
    }
    let two = of_task("own.yml", None, Some(2), Order::File);
    assert_eq!(Examples::read(&two, folder.path(), &model).unwrap().digest(), examples.digest());
    assert!(error(&of_task("own.yml", None, Some(3), Order::File), folder.path(), &model).contains("expected 3 examples, found 2"));
    assert!(error(&of_task("own.yml", None, None, Order::File), folder.path(), &bert().0).contains("an encoder"));
}

#[test]
fn a_plain_text_is_cut_into_pieces_whose_first_tokens_are_no_targets() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = llama();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let text = "the a b ".repeat(30);
    std::fs::write(folder.path().join("data/documents.txt"), &text).unwrap();
    let examples = Examples::read(&of_task("perplexity", None, None, Order::File), folder.path(), &model).unwrap();
    let tokens = tokenizer.encode(&text, true).unwrap();
    // The model has 32 positions.
    assert!(examples.list.len() > 1 && examples.list.iter().all(|example| example.ids.len() <= DOCUMENT_TOKENS.min(32)));
    assert_eq!(examples.list.iter().flat_map(|example| example.ids.clone()).collect::<Vec<_>>(), tokens);
    assert!(examples.list.iter().all(|example| example.scored_from == 1));
}

#[test]
fn files_of_inputs_are_checked() {
    let (folder, model) = (tempfile::tempdir().unwrap(), bert().0);
    let path = folder.path().join("inputs.safetensors");
    let data = DataSettings { source: DataSource::Inputs("inputs.safetensors".to_owned()), examples: None, order: Order::File };
    let save = |tensors: &[(&str, Tensor)]| {
        let tensors: HashMap<String, Tensor> = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
    };
    let ids = |rows: &[[i64; 3]]| Tensor::new(rows.concat(), &Device::Cpu).and_then(|ids| ids.reshape((rows.len(), 3))).unwrap();
    let two = ids(&[[5, 6, 0], [7, 8, 9]]);
    let labels = Tensor::new(&[0.5_f32, 2.0], &Device::Cpu).unwrap();
    save(&[("input_ids", two.clone()), ("attention_mask", ids(&[[1, 1, 0], [1, 1, 1]])), ("labels", labels)]);
    let examples = Examples::read(&data, folder.path(), &model).unwrap();
    assert_eq!(examples.list[0].attended, [true, true, false]);
    assert_eq!((examples.list[0].ids.as_slice(), examples.list[1].label), (&[5, 6, 0][..], Some(2.0)));
    for (tensors, expected) in [
        (vec![("attention_mask", two.clone())], "expected token ids of shape [N, T]"),
        (vec![("input_ids", two.flatten_all().unwrap())], "found shape [6]"),
        (vec![("input_ids", two.clone()), ("attention_mask", ids(&[[1, 1, 1]]))], "attention_mask: expected shape [2, 3]"),
        (vec![("input_ids", two.clone()), ("attention_mask", two.clone())], "expected 0 and 1, found 5"),
        (vec![("input_ids", two.clone()), ("attention_mask", ids(&[[0, 0, 0], [1, 1, 1]]))], "example 0 has no token"),
        (vec![("input_ids", ids(&[[1, -2, 3]]))], "found -2"),
        (vec![("input_ids", two.clone()), ("labels", Tensor::new(&[1_i64], &Device::Cpu).unwrap())], "labels: expected shape [2]"),
        (vec![("input_ids", two.to_dtype(candle_core::DType::F16).unwrap())], "found F16"),
    ] {
        save(&tensors);
        let failure = error(&data, folder.path(), &model);
        assert!(failure.contains(expected) && failure.contains("inputs.safetensors"), "{expected}: {failure}");
    }
}
