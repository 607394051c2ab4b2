//! Tokenizers in the formats from before tokenizer.json, against what transformers and sentencepiece made of the same files
//! (`tests/python/small_tokenizers.py` recorded `tokenizers/expected.json`).

use std::fs;
use std::path::{Path, PathBuf};

use deltaic_lm::{Encoded, TextTokenizer};
use serde_json::{Map, Value, json};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers").join(name)
}

/// A copy of a small tokenizer, with more in its tokenizer_config.json.
fn with_config(name: &str, more: &Map<String, Value>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = copy.path().join("tokenizer_config.json");
    let mut config: Map<String, Value> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config.extend(more.clone());
    fs::write(&path, Value::Object(config).to_string()).unwrap();
    copy
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn old_formats_give_the_ids_and_texts_of_transformers_and_sentencepiece() {
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(folder("expected.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut opened: Vec<(Value, TextTokenizer)> = Vec::new();
    for case in &cases {
        let key = json!([case["folder"], case["config"]]);
        if !opened.iter().any(|(other, _)| *other == key) {
            let copy = with_config(case["folder"].as_str().unwrap(), case["config"].as_object().unwrap());
            opened.push((key.clone(), TextTokenizer::open(copy.path()).unwrap()));
        }
        let (_, tokenizer) = opened.iter().find(|(other, _)| *other == key).unwrap();
        let text = case["text"].as_str().unwrap();
        let mut compare = |what: &str, found: Value| {
            if case.get(what).is_some_and(|expected| *expected != found) {
                wrong.push(format!("{key} {text:?}: {what}\n  expected {}\n  found    {found}", case[what]));
            }
        };
        if let Some(max_tokens) = case["max_tokens"].as_u64() {
            let encoded = tokenizer.encode_pair(text, case["pair"].as_str(), max_tokens as usize).unwrap();
            compare("ids", json!(encoded.ids));
            compare("type_ids", json!(encoded.type_ids));
            continue;
        }
        compare("ids", json!(tokenizer.encode(text, true).unwrap()));
        let plain = tokenizer.encode(text, false).unwrap();
        compare("plain", json!(plain));
        compare("sentencepiece", json!(plain));
        if case.get("plain").is_some() {
            compare("decoded", json!(tokenizer.decode(&ids(&case["plain"]), false).unwrap()));
        }
    }
    assert!(cases.len() > 300);
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn special_tokens_come_from_every_file_that_names_them() {
    let copy = with_config("llama", &Map::new());
    let tokenizer = TextTokenizer::open(copy.path()).unwrap();
    let special = tokenizer.special();
    let id = |token: &Option<deltaic_lm::SpecialToken>| token.as_ref().map(|token| token.id);
    assert_eq!((id(&special.bos), id(&special.eos), id(&special.unk), id(&special.pad)), (Some(1), Some(2), Some(0), None));
    assert_eq!(special.end_ids, [2]);
    assert!(tokenizer.adds_bos(), "Llama's tokenizer adds a BOS unless it is told not to");

    let write = |name: &str, value: Value| fs::write(copy.path().join(name), value.to_string()).unwrap();
    write("config.json", json!({"model_type": "llama", "eos_token_id": 5}));
    write("special_tokens_map.json", json!({"pad_token": {"content": "[PAD]", "normalized": false}}));
    write("added_tokens.json", json!({"[PAD]": 520}));
    let tokenizer = TextTokenizer::open(copy.path()).unwrap();
    assert_eq!(id(&tokenizer.special().pad), Some(520));
    assert_eq!(tokenizer.special().end_ids, [5]);
    assert_eq!(tokenizer.encode("[PAD]", false).unwrap(), [520]);
    assert_eq!(tokenizer.vocabulary_size(), 521);

    write("generation_config.json", json!({"eos_token_id": [2, 7, 9]}));
    assert_eq!(TextTokenizer::open(copy.path()).unwrap().special().end_ids, [2, 7, 9]);
    write("generation_config.json", json!({"eos_token_id": 7}));
    assert_eq!(TextTokenizer::open(copy.path()).unwrap().special().end_ids, [7]);

    write("added_tokens.json", json!({"[PAD]": 777}));
    let error = TextTokenizer::open(copy.path()).unwrap_err();
    assert!(error.message().contains("declared with id 777, but the next free row is 520"), "{error}");
}

#[test]
fn skipped_special_tokens_leave_the_text() {
    let tokenizer = TextTokenizer::open(&folder("roberta")).unwrap();
    let ids = tokenizer.encode("Hello world", true).unwrap();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "Hello world");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<s>Hello world</s>");
}

#[test]
fn a_length_without_room_for_the_special_tokens_is_an_error() {
    let tokenizer = TextTokenizer::open(&folder("bert")).unwrap();
    let error = tokenizer.encode_pair("a", Some("b"), 2).unwrap_err();
    assert!(error.message().contains("3 special tokens do not fit into 2"), "{error}");
    let (cls, sep) = (tokenizer.token_id("[CLS]").unwrap(), tokenizer.token_id("[SEP]").unwrap());
    assert_eq!(tokenizer.encode_pair("a", Some("b"), 3).unwrap(), Encoded { ids: vec![cls, sep, sep], type_ids: vec![0, 0, 1] });
}

#[test]
fn a_folder_without_a_tokenizer_names_the_files_that_are_looked_for() {
    let empty = tempfile::tempdir().unwrap();
    let error = TextTokenizer::open(empty.path()).unwrap_err().to_string();
    for name in ["tokenizer.json", "vocab.txt", "vocab.json with merges.txt", "tokenizer.model"] {
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn damaged_files_are_errors_that_name_the_file() {
    let cases: [(&str, &str, &[u8]); 12] = [
        ("llama", "tokenizer.model", b"not a protobuf"),
        ("llama", "tokenizer.model", b""),
        ("llama", "tokenizer_config.json", b"[]"),
        ("llama", "tokenizer.json", br#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["aaaaaaa bbbbbbbbb"]}}"#),
        ("llama", "tokenizer.json", br#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}"#),
        (
            "llama",
            "tokenizer.json",
            br#"{"model": {"type": "BPE", "continuing_subword_prefix": "@@@@", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}}"#,
        ),
        ("llama", "tokenizer.json", br#"{"model": {}, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}"#),
        ("bert", "vocab.txt", b"a\nb\n"),
        ("gpt2", "vocab.json", b"{\"a\": -1}"),
        ("gpt2", "merges.txt", b"a b c\n"),
        ("gpt2", "merges.txt", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n"),
        ("gpt2", "tokenizer_config.json", br#"{"tokenizer_class": "CLIPTokenizer"}"#),
    ];
    for (name, file, bytes) in cases {
        let copy = with_config(name, &Map::new());
        fs::write(copy.path().join(file), bytes).unwrap();
        let error = TextTokenizer::open(copy.path()).unwrap_err();
        assert!(
            error.message().contains(if name == "gpt2" && file.ends_with("config.json") { "vocab.json" } else { file }),
            "{file}: {error}"
        );
    }
}

#[test]
fn a_tokenizer_that_the_library_panics_on_is_an_error() {
    // The template names a token that it does not define.
    let folder = tempfile::tempdir().unwrap();
    let template =
        json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}], "pair": [], "special_tokens": {}});
    let file = json!({"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "post_processor": template});
    fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    let error = TextTokenizer::open(folder.path()).unwrap_err();
    assert!(error.message().contains("tokenizer.json"), "{error}");
}

#[test]
fn damaged_sentencepiece_models_never_panic() {
    for (name, file) in [("llama", "tokenizer.model"), ("xlm-roberta", "sentencepiece.bpe.model"), ("t5", "spiece.model")] {
        let bytes = fs::read(folder(name).join(file)).unwrap();
        let copy = with_config(name, &Map::new());
        // Every 53rd byte changed in turn, and cuts: what can still be opened has to encode or fail, too.
        for position in (0..bytes.len()).step_by(53) {
            let mut changed = bytes.clone();
            changed[position] ^= 0x55;
            for damaged in [&changed[..], &bytes[..position]] {
                fs::write(copy.path().join(file), damaged).unwrap();
                if let Ok(tokenizer) = TextTokenizer::open(copy.path()) {
                    let _ = tokenizer.encode("Hello \u{fb01}ne e\u{301} 世界\t🙂 aaaa", true);
                }
            }
        }
    }
}
