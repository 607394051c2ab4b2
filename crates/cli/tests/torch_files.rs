//! Files that torch writes on this machine, merged by deltaic and compared with what torch reads from them.
//!
//! `DELTAIC_PYTHON` names an interpreter with torch, `DELTAIC_ZOO` the folder of models; without them the tests are skipped by name. (What
//! torch wrote once is in crates/checkpoint/tests/torch, and is read by that crate's tests everywhere.)

mod checkpoints;

use std::ffi::OsStr;
use std::path::Path;

use checkpoints::{copy_folder, deltaic, named_by, python, read, read_file, small_models, succeed, workspace, write};
use serde_json::Value;

/// Copies a model by passthrough; the folder that it made.
fn passed_through(folder: &Path, model: &str) -> std::path::PathBuf {
    let recipe = write(folder, "passthrough.yml", &format!("merge_method: passthrough\nmodels: [{{model: {model}}}]\n"));
    let out = folder.join("passed_through");
    succeed(deltaic().args(["merge", "--quiet", "--force"]).arg(&recipe).arg(&out));
    out
}

#[test]
fn what_torch_saves_in_any_way_is_merged_as_torch_reads_it() {
    const NAME: &str = "what_torch_saves_in_any_way_is_merged_as_torch_reads_it";
    let Some(interpreter) = named_by("DELTAIC_PYTHON", NAME) else { return };
    let folder = tempfile::tempdir().unwrap();
    for size in [&[][..], &["--large"]] {
        let arguments: Vec<&OsStr> = [folder.path().as_os_str()].into_iter().chain(size.iter().map(OsStr::new)).collect();
        if python(&interpreter, "torch_files.py", &arguments).is_none() {
            return;
        }
        for case in ["legacy", "legacy_protocol_4", "legacy_python_2", "sharded", "zip", "zip_big_endian", "zip_dict", "zip_protocol_4"] {
            let expected = read_file(&folder.path().join(format!("{case}.safetensors")));
            let found = read(&passed_through(folder.path(), &format!("./{case}")));
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{case}");
            for (name, tensor) in expected {
                assert!(found[&name] == tensor, "{case}: {name}");
            }
        }
    }
}

#[test]
fn models_and_adapters_of_torch_give_the_same_bytes_as_their_safetensors() {
    const NAME: &str = "models_and_adapters_of_torch_give_the_same_bytes_as_their_safetensors";
    let (Some(interpreter), Some(zoo)) = (named_by("DELTAIC_PYTHON", NAME), named_by("DELTAIC_ZOO", NAME)) else { return };
    let folder = small_models();
    let recipe = "merge_method: ties\nbase_model: ./base\nmodels:\n  - {model: ./fine-tune-a, parameters: {weight: 0.5, density: 0.5}}\n  \
                  - {model: ./fine-tune-b, parameters: {weight: 0.5, density: 0.5}}\nsparsify: {kind: dare, drop_rate: 0.5}\nseed: 1\n";
    let recipe = write(folder.path(), "r.yml", recipe);
    let merged = || {
        succeed(deltaic().args(["merge", "--quiet", "--force"]).arg(&recipe).arg(folder.path().join("out")));
        read(&folder.path().join("out"))
    };
    let adapter = folder.path().join("adapter");
    copy_folder(&zoo.join("smollm2-lora-code"), &adapter);
    let adapted = || read(&passed_through(folder.path(), &format!("{}+./adapter", zoo.join("smollm2-135m-instruct").display())));
    let before = (merged(), adapted());
    for (model, from, to) in [
        ("base", "model.safetensors", "pytorch_model.bin"),
        ("fine-tune-b", "model.safetensors", "pytorch_model.bin"),
        ("adapter", "adapter_model.safetensors", "adapter_model.bin"),
    ] {
        let (from, to) = (folder.path().join(model).join(from), folder.path().join(model).join(to));
        if python(&interpreter, "torch_files.py", &[to.as_os_str(), OsStr::new("--convert"), from.as_os_str()]).is_none() {
            return;
        }
        std::fs::remove_file(from).unwrap();
    }
    assert!(merged() == before.0);
    assert!(adapted() == before.1);
}

#[test]
fn inspect_says_the_format() {
    let files = workspace().join("crates/checkpoint/tests/torch");
    for (model, format) in [("zip", "PyTorch (zip)"), ("legacy/pytorch_model.bin", "PyTorch (legacy)"), ("zip.safetensors", "safetensors")]
    {
        let model = files.join(model);
        let text = succeed(deltaic().arg("inspect").arg(&model));
        assert!(text.contains(&format!("format          {format}\n")), "{text}");
        let json: Value = serde_json::from_str(&succeed(deltaic().args(["inspect", "--json"]).arg(&model))).unwrap();
        assert!(json.to_string().contains(&format!(r#""format":"{format}""#)), "{json}");
    }
}

#[test]
fn a_decoder_whose_tied_head_is_stored_twice_is_merged_as_from_safetensors_that_store_both() {
    let folder = tempfile::tempdir().unwrap();
    let tied = folder.path().join("tied");
    copy_folder(&workspace().join("crates/checkpoint/tests/torch/tied"), &tied);
    let out = passed_through(folder.path(), "./tied");
    let (found, expected) = (read(&out), read_file(&workspace().join("crates/checkpoint/tests/torch/tied.safetensors")));
    assert_eq!(found, expected);
    assert_eq!(found["lm_head.weight"].bytes, found["model.embed_tokens.weight"].bytes);
    assert_eq!(checkpoints::json(&out.join("config.json"))["tie_word_embeddings"], false);
}
