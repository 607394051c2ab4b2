//! The zoo's tokenizers against transformers, live. `DELTAIC_ZOO` names the folder of models, `DELTAIC_PYTHON` an interpreter with transformers; without
//! them the test is skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use deltaic_lm::TextTokenizer;
use serde_json::{Value, json};

fn named_by(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: {variable} is not set");
    }
    found
}

#[test]
fn the_zoos_tokenizers_give_the_ids_and_texts_of_transformers() {
    let (Some(zoo), Some(interpreter)) = (named_by("DELTAIC_ZOO"), named_by("DELTAIC_PYTHON")) else { return };
    // The same vocabulary once more as in folders from before tokenizer.json.
    let old = tempfile::tempdir().unwrap();
    for name in ["config.json", "vocab.txt", "tokenizer_config.json"] {
        fs::copy(zoo.join("minilm-sst2").join(name), old.path().join(name)).unwrap();
    }
    let folders = [zoo.join("minilm-sst2"), old.path().to_owned(), zoo.join("smollm2-135m-instruct")];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/tokenize_folders.py");
    let output = Command::new(interpreter).arg(script).args(&folders).env("HF_HUB_OFFLINE", "1").output().unwrap();
    if output.status.code() == Some(77) {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut count = 0;
    for folder in &folders {
        let tokenizer = TextTokenizer::open(folder).unwrap();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            if case["folder"] != json!(folder) {
                continue;
            }
            count += 1;
            let text = case["text"].as_str().unwrap();
            if let Some(pair) = case["pair"].as_str() {
                let encoded = tokenizer.encode_pair(text, Some(pair), case["max_tokens"].as_u64().unwrap() as usize).unwrap();
                assert_eq!((json!(encoded.ids), json!(encoded.type_ids)), (case["ids"].clone(), case["type_ids"].clone()), "{case}");
                continue;
            }
            let plain = tokenizer.encode(text, false).unwrap();
            assert_eq!(json!(tokenizer.encode(text, true).unwrap()), case["ids"], "{case}");
            assert_eq!(json!(plain), case["plain"], "{case}");
            assert_eq!(json!(tokenizer.decode(&plain, false).unwrap()), case["decoded"], "{case}");
        }
    }
    assert!(count > 60, "{count}");
}
