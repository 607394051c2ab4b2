//! The checks of a model folder: each defect, made by hand in a copy of a good folder, is found; good folders give nothing.

mod checkpoints;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use checkpoints::{Model, Tensor, read, write};
use deltaic_checkpoint::Result;
use deltaic_merge::checks::folder::{Expected, Finding, Severity, folder};
use deltaic_merge::recipe::{Document, UnknownPolicy, parse};
use deltaic_merge::{MergeOptions, Plan, PlanOptions, merge};
use serde_json::{Value, json};

fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart")
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn plan(recipe: &str, folder: &Path, shard_bytes: u64) -> Result<Plan> {
    let document = Arc::new(Document::new("recipe", recipe, folder));
    Plan::new(parse(document, UnknownPolicy::Ignore)?.0, PlanOptions { shard_bytes, ..PlanOptions::default() })
}

fn run(plan: &Plan, out: &Path) {
    merge(plan, out, &MergeOptions::default(), &AtomicBool::new(false), &|_| {}).unwrap();
}

/// Folders: `source` with all kinds of side files, `one` and `sharded` merged from it, `bert` made by hand.
fn good() -> tempfile::TempDir {
    let all = tempfile::tempdir().unwrap();
    let source = all.path().join("source");
    copy_folder(&quickstart().join("base"), &source);
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

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// A change of a configuration's key.
fn set(file: &'static str, key: &'static str, value: Value) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| {
        edit(&folder.join(file), |config| {
            let keys = config.as_object_mut().unwrap();
            if value.is_null() { drop(keys.remove(key)) } else { drop(keys.insert(key.to_owned(), value.clone())) }
        })
    })
}

/// A change of the tensors of a folder with one file.
fn tensors(change: impl Fn(&mut Model) + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| {
        let path = folder.join("model.safetensors");
        let mut model = read(&path);
        change(&mut model);
        write(&path, &model);
    })
}

fn renamed(from: &'static str, to: &'static str) -> Box<dyn Fn(&Path)> {
    tensors(move |model| {
        let these: Vec<String> = model.keys().filter(|name| name.contains(from)).cloned().collect();
        assert!(!these.is_empty(), "{from}");
        for name in these {
            let tensor = model.remove(&name).unwrap();
            if !to.is_empty() {
                model.insert(name.replace(from, to), tensor);
            }
        }
    })
}

fn on_files(change: impl Fn(&Path) + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(change)
}

fn shard(folder: &Path, number: usize) -> PathBuf {
    let mut shards: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    shards.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    shards.sort();
    shards[number].clone()
}

#[test]
fn every_defect_made_by_hand_is_found_and_good_folders_give_nothing() {
    use Severity::{Broken, Warning};
    const INDEX: &str = "model.safetensors.index.json";
    let all = good();
    let source = all.path().join("source");
    let expected = Expected { tokenizer_from: Some(&source), side_files_from: Some(&source) };
    let of = |name: &str| if name == "bert" { Expected::default() } else { expected };
    for name in ["source", "one", "sharded", "bert"] {
        let found = folder(&all.path().join(name), Some(&of(name))).unwrap();
        assert!(found.is_empty(), "{name}: {found:?}");
    }
    let table: Vec<(&str, &str, Box<dyn Fn(&Path)>, Severity, &str)> = vec![
        (
            "one",
            "vocab_size",
            set("config.json", "vocab_size", json!(65)),
            Broken,
            "lm_head.weight: expected [vocab_size = 65, hidden_size = 32] by config.json, found [64, 32]",
        ),
        (
            "one",
            "hidden_size",
            set("config.json", "hidden_size", json!(16)),
            Broken,
            "layers.0.mlp.down_proj.weight: expected [hidden_size = 16",
        ),
        (
            "one",
            "heads",
            set("config.json", "num_attention_heads", json!(8)),
            Broken,
            "q_proj.weight: expected [num_attention_heads*head_dim = 64, hidden_size = 32] by config.json, found [32, 32], and so in 1 further layer",
        ),
        (
            "one",
            "key heads",
            set("config.json", "num_key_value_heads", json!(4)),
            Broken,
            "k_proj.weight: expected [num_key_value_heads*head_dim = 32",
        ),
        (
            "one",
            "head_dim",
            set("config.json", "head_dim", json!(16)),
            Broken,
            "o_proj.weight: expected [hidden_size = 32, num_attention_heads*head_dim = 64]",
        ),
        (
            "one",
            "intermediate_size",
            set("config.json", "intermediate_size", json!(48)),
            Broken,
            "up_proj.weight: expected [intermediate_size = 48",
        ),
        (
            "one",
            "too many layers",
            set("config.json", "num_hidden_layers", json!(4)),
            Broken,
            "expected 4 layers in `model.layers.`, found 2 without number 2, 3",
        ),
        (
            "one",
            "too few layers",
            set("config.json", "num_hidden_layers", json!(1)),
            Warning,
            "expected 1 layer in `model.layers.`, found 1 more, up to number 1",
        ),
        ("one", "a hole", renamed("layers.1.", "layers.5."), Broken, "found 2 without number 1"),
        (
            "one",
            "a tensor of a layer is gone",
            renamed("layers.1.mlp.up_proj.weight", ""),
            Broken,
            "model.layers.1.mlp.up_proj.weight: expected it in every layer, missing in 1 of 2",
        ),
        (
            "one",
            "no embedding",
            renamed("model.embed_tokens.weight", ""),
            Broken,
            "model.embed_tokens.weight: expected the input embedding",
        ),
        ("one", "no head", renamed("lm_head.weight", ""), Broken, "tie_word_embeddings is false: expected a stored lm_head.weight"),
        (
            "one",
            "no head, nothing said",
            on_files(|folder| {
                renamed("lm_head.weight", "")(folder);
                set("config.json", "tie_word_embeddings", Value::Null)(folder);
            }),
            Warning,
            "without tie_word_embeddings a stored lm_head.weight is expected",
        ),
        (
            "one",
            "another head under the tied flag",
            on_files(|folder| {
                tensors(|model| drop(model.insert("lm_head.weight".to_owned(), Tensor::bf16(&[3, 32], &[0.0; 96]))))(folder);
                set("config.json", "tie_word_embeddings", json!(true))(folder);
            }),
            Broken,
            "tie_word_embeddings says that lm_head.weight is model.embed_tokens.weight, found shapes [3, 32] and [64, 32]",
        ),
        (
            "one",
            "dtype",
            set("config.json", "torch_dtype", json!("float32")),
            Warning,
            "expected the dtype of most elements, bfloat16, found float32",
        ),
        (
            "one",
            "the tokenizer's ids",
            on_files(|folder| {
                edit(&folder.join("tokenizer.json"), |tokenizer| tokenizer["added_tokens"] = json!([{"id": 64, "content": "<new>"}]))
            }),
            Warning,
            "expected ids below 64, the rows of model.embed_tokens.weight, found 1 token beyond, such as `<new>` with id 64",
        ),
        (
            "one",
            "a broken tokenizer",
            on_files(|folder| std::fs::write(folder.join("tokenizer.json"), "{").unwrap()),
            Warning,
            "tokenizer.json: not a readable vocabulary",
        ),
        ("one", "padding", set("config.json", "pad_token_id", json!(64)), Broken, "config.json: pad_token_id: expected an id below 64"),
        (
            "one",
            "end",
            set("config.json", "eos_token_id", json!([2, 70])),
            Warning,
            "config.json: eos_token_id: expected an id below 64, the rows of model.embed_tokens.weight, found 70",
        ),
        (
            "one",
            "ends",
            set("generation_config.json", "eos_token_id", json!([2, 99])),
            Warning,
            "generation_config.json: eos_token_id: expected an id below 64",
        ),
        (
            "one",
            "an end less",
            set("generation_config.json", "eos_token_id", json!(2)),
            Broken,
            "generation_config.json: expected the bytes of ",
        ),
        (
            "one",
            "no JSON",
            on_files(|folder| std::fs::write(folder.join("generation_config.json"), "eos").unwrap()),
            Broken,
            "generation_config.json: expected JSON",
        ),
        (
            "one",
            "no generation config",
            on_files(|folder| std::fs::remove_file(folder.join("generation_config.json")).unwrap()),
            Broken,
            "generation_config.json: expected the file of ",
        ),
        (
            "one",
            "no chat template",
            on_files(|folder| std::fs::remove_file(folder.join("chat_template.jinja")).unwrap()),
            Broken,
            "chat_template.jinja: expected the file of ",
        ),
        (
            "one",
            "another chat template",
            set("tokenizer_config.json", "chat_template", json!("{{ x }}")),
            Broken,
            "tokenizer_config.json: expected the bytes of ",
        ),
        (
            "one",
            "no tokenizer.model",
            on_files(|folder| std::fs::remove_file(folder.join("tokenizer.model")).unwrap()),
            Broken,
            "tokenizer.model: expected the file of ",
        ),
        (
            "one",
            "no code",
            on_files(|folder| std::fs::remove_file(folder.join("modeling_own.py")).unwrap()),
            Broken,
            "modeling_own.py: expected the file of ",
        ),
        (
            "one",
            "code that only the configuration names",
            set("config.json", "auto_map", json!({"AutoModel": "modeling_x.X"})),
            Warning,
            "auto_map: expected modeling_x.py in the folder",
        ),
        (
            "one",
            "no configuration",
            on_files(|folder| std::fs::remove_file(folder.join("config.json")).unwrap()),
            Broken,
            "the model folder has no config.json",
        ),
        (
            "one",
            "a cut file",
            on_files(|folder| {
                let file = std::fs::File::options().write(true).open(folder.join("model.safetensors")).unwrap();
                file.set_len(file.metadata().unwrap().len() - 1).unwrap();
            }),
            Broken,
            "model.safetensors: ",
        ),
        ("sharded", "a shard is gone", on_files(|folder| std::fs::remove_file(shard(folder, 1)).unwrap()), Broken, "is not in the folder"),
        (
            "sharded",
            "total_size",
            on_files(|folder| edit(&folder.join(INDEX), |index| index["metadata"]["total_size"] = json!(5))),
            Warning,
            "metadata.total_size: expected 45376, the bytes of all tensors, found 5",
        ),
        (
            "sharded",
            "a tensor only in the index",
            on_files(|folder| {
                edit(&folder.join(INDEX), |index| {
                    let first = index["weight_map"]["model.norm.weight"].clone();
                    index["weight_map"]["model.more.weight"] = first;
                })
            }),
            Broken,
            "model.more.weight: the index says it is in",
        ),
        (
            "sharded",
            "a tensor not in the index",
            on_files(|folder| {
                edit(&folder.join(INDEX), |index| drop(index["weight_map"].as_object_mut().unwrap().remove("model.norm.weight")))
            }),
            Broken,
            "model.norm.weight: found in",
        ),
        (
            "sharded",
            "a shard that nobody names",
            on_files(|folder| assert!(std::fs::copy(shard(folder, 0), folder.join("model-00009-of-00009.safetensors")).unwrap() > 0)),
            Warning,
            "model-00009-of-00009.safetensors: 1 shard that no index names",
        ),
        (
            "bert",
            "vocab_size",
            set("config.json", "vocab_size", json!(6)),
            Broken,
            "bert.embeddings.word_embeddings.weight: expected [vocab_size = 6, hidden_size = 4]",
        ),
        (
            "bert",
            "positions",
            set("config.json", "max_position_embeddings", json!(9)),
            Broken,
            "position_embeddings.weight: expected [max_position_embeddings = 9",
        ),
        (
            "bert",
            "heads that do not divide",
            set("config.json", "num_attention_heads", json!(3)),
            Broken,
            "query.weight: expected [num_attention_heads*head_dim = 3",
        ),
        (
            "bert",
            "intermediate_size",
            set("config.json", "intermediate_size", json!(7)),
            Broken,
            "intermediate.dense.weight: expected [intermediate_size = 7",
        ),
        ("bert", "a layer is gone", renamed("layer.1.", "layer.3."), Broken, "found 2 without number 1"),
        (
            "bert",
            "vocab.txt",
            on_files(|folder| std::fs::write(folder.join("vocab.txt"), "a\nb\nc\nd\ne\nf\ng\n").unwrap()),
            Warning,
            "found 2 tokens beyond, such as `f` with id 5",
        ),
    ];
    for (name, defect, make, severity, message) in &table {
        let copy = all.path().join("copy");
        copy_folder(&all.path().join(name), &copy);
        make(&copy);
        let found = folder(&copy, Some(&of(name))).unwrap_or_else(|error| panic!("{defect}: {error}"));
        let is_it = |finding: &Finding| finding.severity == *severity && finding.error.message().contains(message);
        assert!(found.iter().any(is_it), "{name}, {defect}: {found:#?}");
        assert!(
            found.iter().all(|finding| finding.error.to_string().len() < 2000 && finding.error.to_string().contains("\n  = ")),
            "{defect}: {found:#?}"
        );
        assert!(found.iter().all(|finding| !finding.error.message().contains("copy/")), "{defect}: {found:#?}");
        std::fs::remove_dir_all(&copy).unwrap();
    }
    assert!(folder(&all.path().join("nowhere"), None).is_err());
}

/// The folder that an environment variable names, else the one beside the workspace.
fn golden() -> PathBuf {
    std::env::var_os("DELTAIC_GOLDEN").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from)
}

#[test]
fn models_of_the_golden_cases_and_what_is_merged_of_them_give_no_finding() {
    let golden = golden();
    let Ok(models) = golden.join("models").read_dir() else {
        return eprintln!("skipped: no golden cases at {}", golden.display());
    };
    let mut models: Vec<PathBuf> = models.map(|entry| entry.unwrap().path()).collect();
    models.extend(["base", "fine-tune-a", "fine-tune-b"].map(|name| quickstart().join(name)));
    for model in models.iter().filter(|model| !model.join("adapter_config.json").exists()) {
        let found = folder(model, None).unwrap();
        assert!(found.is_empty(), "{}: {found:?}", model.display());
    }
    let out = tempfile::tempdir().unwrap();
    let mut merged = 0;
    for case in golden.join("cases").read_dir().unwrap() {
        let case = case.unwrap().path();
        let Ok(recipe) = std::fs::read_to_string(case.join("recipe.yml")) else { continue };
        let Ok(plan) = plan(&recipe, &case, 5_000_000_000) else { continue };
        let out = out.path().join(case.file_name().unwrap());
        run(&plan, &out);
        let found = folder(&out, Some(&Expected::of(&plan))).unwrap();
        assert!(found.is_empty(), "{}: {found:?}", case.display());
        merged += 1;
    }
    assert!(merged > 50, "{merged}");
}
