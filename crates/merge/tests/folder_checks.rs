//! The checks of a model folder: each defect, made by hand in a copy of a good folder, is found; good folders give nothing.

mod checkpoints;
mod defects;

use std::path::{Path, PathBuf};

use checkpoints::Tensor;
use defects::{copy_folder, edit, good, insert, plan, rename, run, set, shard, small_models};
use deltaic_merge::checks::folder::{Expected, Finding, Severity, folder};

use Severity::{Broken, Warning};

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
const GENERATION: &str = "generation_config.json";

/// Folder, file, key and its new value (`null`: none), and what is found.
const KEYS: &[(&str, &str, &str, &str, Severity, &str)] = &[
    (
        "one",
        CONFIG,
        "vocab_size",
        "65",
        Broken,
        "lm_head.weight: expected [vocab_size = 65, hidden_size = 32] by config.json, found [64, 32]",
    ),
    ("one", CONFIG, "hidden_size", "16", Broken, "layers.0.mlp.down_proj.weight: expected [hidden_size = 16"),
    ("one", CONFIG, "num_attention_heads", "8", Broken, "q_proj.weight: expected [num_attention_heads*head_dim = 64, hidden_size = 32] by"),
    ("one", CONFIG, "num_attention_heads", "8", Broken, "config.json, found [32, 32], and so in 1 further layer"),
    ("one", CONFIG, "num_key_value_heads", "4", Broken, "k_proj.weight: expected [num_key_value_heads*head_dim = 32"),
    ("one", CONFIG, "head_dim", "16", Broken, "o_proj.weight: expected [hidden_size = 32, num_attention_heads*head_dim = 64]"),
    ("one", CONFIG, "intermediate_size", "48", Broken, "up_proj.weight: expected [intermediate_size = 48"),
    ("one", CONFIG, "num_hidden_layers", "4", Broken, "expected 4 layers in `model.layers.`, found 2 without number 2, 3"),
    ("one", CONFIG, "num_hidden_layers", "1", Warning, "expected 1 layer in `model.layers.`, found 1 more, up to number 1"),
    ("one", CONFIG, "torch_dtype", r#""float32""#, Warning, "expected the dtype of most elements, bfloat16, found float32"),
    ("one", CONFIG, "pad_token_id", "64", Broken, "config.json: pad_token_id: expected an id below 64"),
    ("one", CONFIG, "eos_token_id", "[2, 70]", Warning, "config.json: eos_token_id: expected an id below 64, the rows of model.embed"),
    ("one", CONFIG, "auto_map", r#"{"AutoModel": "modeling_x.X"}"#, Warning, "auto_map: expected modeling_x.py in the folder"),
    ("one", GENERATION, "eos_token_id", "[2, 99]", Warning, "generation_config.json: eos_token_id: expected an id below 64"),
    ("one", GENERATION, "eos_token_id", "2", Broken, "generation_config.json: expected the bytes of "),
    ("one", "tokenizer_config.json", "chat_template", r#""{{ x }}""#, Broken, "tokenizer_config.json: expected the bytes of "),
    (
        "one",
        "tokenizer.json",
        "added_tokens",
        r#"[{"id": 64, "content": "<new>"}]"#,
        Warning,
        "found 1 token beyond, such as `<new>` with id 64",
    ),
    (
        "sharded",
        INDEX,
        "metadata",
        r#"{"total_size": 5}"#,
        Warning,
        "metadata.total_size: expected 45376, the bytes of all tensors, found 5",
    ),
    ("bert", CONFIG, "vocab_size", "6", Broken, "bert.embeddings.word_embeddings.weight: expected [vocab_size = 6, hidden_size = 4]"),
    ("bert", CONFIG, "max_position_embeddings", "9", Broken, "position_embeddings.weight: expected [max_position_embeddings = 9"),
    ("bert", CONFIG, "num_attention_heads", "3", Broken, "query.weight: expected [num_attention_heads*head_dim = 3"),
    ("bert", CONFIG, "intermediate_size", "7", Broken, "intermediate.dense.weight: expected [intermediate_size = 7"),
];

/// Folder, part of tensors' names and what stands there instead (empty: they are gone), and what is found.
const NAMES: &[(&str, &str, &str, &str)] = &[
    ("one", "layers.1.", "layers.5.", "found 2 without number 1"),
    ("one", "layers.1.mlp.up_proj.weight", "", "model.layers.1.mlp.up_proj.weight: expected it in every layer, missing in 1 of 2"),
    ("one", "model.embed_tokens.weight", "", "model.embed_tokens.weight: expected the input embedding"),
    ("one", "lm_head.weight", "", "tie_word_embeddings is false: expected a stored lm_head.weight"),
    ("bert", "layer.1.", "layer.3.", "found 2 without number 1"),
];

/// Files that are there and then not, and what is found.
const FILES: &[(&str, &str)] = &[
    (GENERATION, "generation_config.json: expected the file of "),
    ("chat_template.jinja", "chat_template.jinja: expected the file of "),
    ("tokenizer.model", "tokenizer.model: expected the file of "),
    ("modeling_own.py", "modeling_own.py: expected the file of "),
    (CONFIG, "the model folder has no config.json"),
];

/// Folder, what is done to it, and what is found.
type Other = (&'static str, fn(&Path), Severity, &'static str);

fn others() -> [Other; 9] {
    let head: fn(&Path) = |folder| {
        rename(folder, "lm_head.weight", "");
        set(&folder.join(CONFIG), "tie_word_embeddings", "null");
    };
    let tied: fn(&Path) = |folder| {
        insert(folder, "lm_head.weight", Tensor::bf16(&[3, 32], &[0.0; 96]));
        set(&folder.join(CONFIG), "tie_word_embeddings", "true");
    };
    let cut: fn(&Path) = |folder| {
        let file = std::fs::File::options().write(true).open(folder.join("model.safetensors")).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    };
    let named: fn(&Path) = |folder| {
        edit(&folder.join(INDEX), |index| index["weight_map"]["model.more.weight"] = index["weight_map"]["model.norm.weight"].clone());
    };
    let unnamed: fn(&Path) = |folder| {
        edit(&folder.join(INDEX), |index| drop(index["weight_map"].as_object_mut().unwrap().remove("model.norm.weight")));
    };
    let stray: fn(&Path) = |folder| {
        std::fs::copy(shard(folder, 0), folder.join("model-00009-of-00009.safetensors")).unwrap();
    };
    [
        ("one", head, Warning, "without tie_word_embeddings a stored lm_head.weight is expected"),
        ("one", tied, Broken, "says that lm_head.weight is model.embed_tokens.weight, found shapes [3, 32] and [64, 32]"),
        ("one", cut, Broken, "model.safetensors: "),
        ("one", |folder| std::fs::write(folder.join("tokenizer.json"), "{").unwrap(), Warning, "tokenizer.json: not a readable vocabulary"),
        ("one", |folder| std::fs::write(folder.join(GENERATION), "eos").unwrap(), Broken, "generation_config.json: expected JSON"),
        ("sharded", |folder| std::fs::remove_file(shard(folder, 1)).unwrap(), Broken, "is not in the folder"),
        ("sharded", named, Broken, "model.more.weight: the index says it is in"),
        ("sharded", unnamed, Broken, "model.norm.weight: found in"),
        ("sharded", stray, Warning, "model-00009-of-00009.safetensors: 1 shard that no index names"),
    ]
}

#[test]
fn every_defect_made_by_hand_is_found_and_good_folders_give_nothing() {
    let all = good();
    let source = all.path().join("source");
    let expected = Expected { tokenizer_from: Some(&source), side_files_from: Some(&source) };
    let of = |name: &str| if name == "bert" { Expected::default() } else { expected };
    for name in ["source", "one", "sharded", "bert"] {
        let found = folder(&all.path().join(name), Some(&of(name))).unwrap();
        assert!(found.is_empty(), "{name}: {found:?}");
    }
    let check = |name: &str, make: &dyn Fn(&Path), severity: Severity, message: &str| {
        let copy = all.path().join("copy");
        copy_folder(&all.path().join(name), &copy);
        make(&copy);
        let found = folder(&copy, Some(&of(name))).unwrap_or_else(|error| panic!("{message}: {error}"));
        let is_it = |finding: &Finding| finding.severity == severity && finding.error.message().contains(message);
        assert!(found.iter().any(is_it), "{name}: no finding says `{message}`: {found:#?}");
        for shown in found.iter().map(|finding| finding.error.to_string()) {
            assert!(shown.len() < 2000 && shown.contains("\n  = ") && !shown.contains("copy/"), "{message}: {shown}");
        }
        std::fs::remove_dir_all(&copy).unwrap();
    };
    for &(name, file, key, value, severity, message) in KEYS {
        check(name, &|folder| set(&folder.join(file), key, value), severity, message);
    }
    for &(name, from, to, message) in NAMES {
        check(name, &|folder| rename(folder, from, to), Broken, message);
    }
    for &(file, message) in FILES {
        check("one", &|folder| std::fs::remove_file(folder.join(file)).unwrap(), Broken, message);
    }
    for (name, make, severity, message) in others() {
        check(name, &make, severity, message);
    }
    check(
        "bert",
        &|folder| std::fs::write(folder.join("vocab.txt"), "a\nb\nc\nd\ne\nf\ng\n").unwrap(),
        Warning,
        "2 tokens beyond, such as `f`",
    );
    assert!(folder(&all.path().join("nowhere"), None).is_err());
}

#[test]
fn a_side_file_that_cannot_be_read_ends_the_plan_and_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let all = tempfile::tempdir().unwrap();
    let source = all.path().join("source");
    copy_folder(&small_models().join("base"), &source);
    // Python's names need not be UTF-8: such a file is copied as any other.
    let code = std::ffi::OsStr::from_bytes(b"modeling_\xff.py");
    std::fs::write(source.join(code), "class Own: pass\n").unwrap();
    let recipe = "{merge_method: average, models: [{model: ./source}]}";
    run(&plan(recipe, all.path(), 0).unwrap(), &all.path().join("out"));
    assert_eq!(std::fs::read(all.path().join("out").join(code)).unwrap(), b"class Own: pass\n");
    for (name, words) in
        [(GENERATION, "a link that points to gone, which is not there"), ("chat_template.jinja", "found a named pipe (FIFO)")]
    {
        let (path, aside) = (source.join(name), all.path().join("aside"));
        let was_there = std::fs::rename(&path, &aside).is_ok();
        if name == GENERATION {
            std::os::unix::fs::symlink("gone", &path).unwrap();
        } else {
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }
        let error = plan(recipe, all.path(), 0).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(name) && error.contains(words) && error.contains("\n  = "), "{error}");
        std::fs::remove_file(&path).unwrap();
        if was_there {
            std::fs::rename(&aside, &path).unwrap();
        }
    }
    plan(recipe, all.path(), 0).unwrap();
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
    models.extend(["base", "fine-tune-a", "fine-tune-b"].map(|name| small_models().join(name)));
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
