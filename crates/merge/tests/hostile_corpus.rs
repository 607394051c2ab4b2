//! Every file of tests/hostile, given to its reader. The fuzz targets start from the same files and assert the same (fuzz/src/lib.rs).

#[path = "../../../fuzz/src/lib.rs"]
mod readers;

use std::path::{Path, PathBuf};

/// The files of a folder of tests/hostile, sorted, with their bytes.
fn files(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/hostile").join(folder);
    let mut paths: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// `valid-…` is read, `bad-…` is an error; `found-…`, which a fuzzer has found, may be either. What else must hold the reader's function says.
#[track_caller]
fn check(folder: &str, reader: fn(&[u8]) -> bool) {
    let files = files(folder);
    for kind in ["valid-", "bad-"] {
        assert!(
            files.iter().any(|(path, _)| path.file_name().unwrap().to_string_lossy().starts_with(kind)),
            "{folder} has no {kind} files"
        );
    }
    let mut wrong = Vec::new();
    for (path, bytes) in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match (name.split('-').next(), reader(&bytes)) {
            (Some("valid"), true) | (Some("bad"), false) | (Some("found"), _) => {}
            (Some("valid" | "bad"), read) => wrong.push(format!("{folder}/{name}: {}", if read { "was read" } else { "was not read" })),
            _ => panic!("{folder}/{name}: the name begins with valid-, bad- or found-"),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hostile_headers_are_errors() {
    check("safetensors_header", readers::safetensors_header);
}

#[test]
fn hostile_pickles_are_errors() {
    check("torch_pickle", readers::torch_pickle);
    check("torch_file", readers::torch_file);
}

#[test]
fn hostile_indices_are_errors() {
    check("shard_index", readers::shard_index);
}

#[test]
fn hostile_adapter_configurations_are_errors() {
    check("adapter_config", readers::adapter_config);
}

#[test]
fn hostile_configurations_are_errors() {
    check("config_json", readers::config_json);
}

#[test]
fn hostile_tokenizers_are_errors() {
    check("tokenizer", readers::tokenizer);
}

#[test]
fn hostile_recipes_are_errors() {
    check("recipe", readers::recipe);
}
