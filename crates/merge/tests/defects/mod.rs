//! Good model folders, and what is done to a copy of them so that they are good no longer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::Result;
use deltaic_merge::recipe::{Document, UnknownPolicy, parse};
use deltaic_merge::{MergeOptions, Plan, PlanOptions, merge};
use serde_json::{Value, json};

use crate::checkpoints::{Model, Tensor, read, write};

pub fn small_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models")
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

pub fn plan(recipe: &str, folder: &Path, shard_bytes: u64) -> Result<Plan> {
    let document = Arc::new(Document::new("recipe", recipe, folder));
    Plan::new(parse(document, UnknownPolicy::Ignore)?.0, PlanOptions { shard_bytes: Some(shard_bytes), ..PlanOptions::default() })
}

pub fn run(plan: &Plan, out: &Path) {
    merge(plan, out, &MergeOptions::default(), &AtomicBool::new(false), &|_| {}).unwrap();
}

/// Folders: `source` with all kinds of side files, `one` and `sharded` merged from it, `bert` made by hand.
pub fn good() -> tempfile::TempDir {
    let all = tempfile::tempdir().unwrap();
    let source = all.path().join("source");
    copy_folder(&small_models().join("base"), &source);
    for (name, text) in [
        ("chat_template.jinja", "{{ messages }}"),
        ("tokenizer.model", "\u{1}pieces"),
        ("modeling_own.py", "class Own: pass\n"),
        ("generation_config.json", r#"{"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": null}"#),
    ] {
        std::fs::write(source.join(name), text).unwrap();
    }
    edit(&source.join("config.json"), |config| {
        config["auto_map"] = json!({"AutoModel": "modeling_own.Own", "AutoConfig": "org/model--other.X"})
    });
    let recipe = "{merge_method: average, models: [{model: ./source}]}";
    run(&plan(recipe, all.path(), 0).unwrap(), &all.path().join("one"));
    run(&plan(recipe, all.path(), 9_000).unwrap(), &all.path().join("sharded"));
    bert(&all.path().join("bert"));
    all
}

fn bert(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let config = json!({"architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 4, "intermediate_size": 6,
        "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 5, "max_position_embeddings": 8, "type_vocab_size": 2,
        "pad_token_id": 0, "torch_dtype": "float32"});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("vocab.txt"), "[PAD]\na\nb\nc\nd\n").unwrap();
    let mut model = Model::new();
    let mut add = |name: &str, shape: &[usize]| {
        model.insert(name.to_owned(), Tensor::f32(shape, &vec![0.5; shape.iter().product()]));
    };
    add("bert.embeddings.word_embeddings.weight", &[5, 4]);
    add("bert.embeddings.position_embeddings.weight", &[8, 4]);
    add("bert.embeddings.token_type_embeddings.weight", &[2, 4]);
    add("cls.predictions.bias", &[5]);
    for layer in ["0", "1"] {
        for (name, shape) in [
            ("attention.self.query", [4, 4]),
            ("attention.self.key", [4, 4]),
            ("attention.self.value", [4, 4]),
            ("attention.output.dense", [4, 4]),
            ("intermediate.dense", [6, 4]),
            ("output.dense", [4, 6]),
        ] {
            add(&format!("bert.encoder.layer.{layer}.{name}.weight"), &shape);
        }
    }
    write(&folder.join("model.safetensors"), &model);
}

/// Changes a JSON file.
pub fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// Sets a configuration's key, or (null) removes it.
pub fn set(path: &Path, key: &str, value: &str) {
    let value: Value = serde_json::from_str(value).unwrap();
    edit(path, |config| {
        let keys = config.as_object_mut().unwrap();
        keys.remove(key);
        if !value.is_null() {
            keys.insert(key.to_owned(), value.clone());
        }
    });
}

/// Gives the tensors of a folder with one file, whose names have `from` in them, other names; an empty one removes them.
pub fn rename(folder: &Path, from: &str, to: &str) {
    let path = folder.join("model.safetensors");
    let mut model = read(&path);
    let these: Vec<String> = model.keys().filter(|name| name.contains(from)).cloned().collect();
    assert!(!these.is_empty(), "{from}");
    for name in these {
        let tensor = model.remove(&name).unwrap();
        if !to.is_empty() {
            model.insert(name.replace(from, to), tensor);
        }
    }
    write(&path, &model);
}

/// Puts a tensor in.
pub fn insert(folder: &Path, name: &str, tensor: Tensor) {
    let path = folder.join("model.safetensors");
    let mut model = read(&path);
    model.insert(name.to_owned(), tensor);
    write(&path, &model);
}

/// A folder's safetensors file of this number.
pub fn shard(folder: &Path, number: usize) -> PathBuf {
    let mut shards: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    shards.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    shards.sort();
    shards[number].clone()
}
