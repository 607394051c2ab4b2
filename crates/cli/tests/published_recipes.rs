//! Recipes as people publish them, unchanged, on small models under their Hub names in a Hub cache that the test lays out.

mod checkpoints;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use checkpoints::{deltaic, json, named_by, python, read, say, stderr};

/// The dtype as safetensors spells it.
fn stored(torch_name: &str) -> safetensors::Dtype {
    match torch_name {
        "float16" => safetensors::Dtype::F16,
        "bfloat16" => safetensors::Dtype::BF16,
        "float32" => safetensors::Dtype::F32,
        other => panic!("expected.json: {other}"),
    }
}

#[test]
fn every_published_recipe_runs_unchanged_and_opens_with_the_right_layers() {
    const NAME: &str = "every_published_recipe_runs_unchanged_and_opens_with_the_right_layers";
    let Some(interpreter) = named_by("DELTAIC_PYTHON", NAME) else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("hub");
    if python(&interpreter, "hub_cache.py", &[cache.as_os_str()]).is_none() {
        return;
    }
    let published = checkpoints::workspace().join("tests/recipes/published");
    let expected = json(&published.join("expected.json"));
    let mut recipes: Vec<PathBuf> = published.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    recipes.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    recipes.sort();
    assert_eq!(recipes.len(), expected.as_object().unwrap().len(), "expected.json speaks of every recipe");
    let mut failed = BTreeMap::new();
    let mut opens = true;
    for recipe in &recipes {
        let name = recipe.file_name().unwrap().to_str().unwrap().to_owned();
        let out = folder.path().join(&name).with_extension("");
        let output = deltaic().current_dir(&folder).env("HF_HUB_CACHE", &cache).arg("merge").arg(recipe).arg(&out).output().unwrap();
        if !output.status.success() {
            failed.insert(name, stderr(&output));
            continue;
        }
        let (said, config) = (&expected[&name], json(&out.join("config.json")));
        let dtype = config.get("dtype").or(config.get("torch_dtype")).unwrap();
        let found = (&config["num_hidden_layers"], dtype, &config["architectures"][0]);
        assert_eq!(found, (&said["layers"], &said["dtype"], &said["architecture"]), "{name}");
        let weights = read(&out);
        let kind = stored(said["dtype"].as_str().unwrap());
        let others: Vec<_> = weights.iter().filter(|(_, tensor)| tensor.dtype != kind).map(|(name, _)| name).collect();
        assert!(others.iter().all(|tensor| tensor.contains("inv_freq")), "{name}: not {kind:?}: {others:?}");
        let layers = said["layers"].as_u64().unwrap();
        assert_eq!(weights.keys().filter(|tensor| tensor.ends_with("mlp.down_proj.weight")).count() as u64, layers, "{name}");
        if opens {
            let opened = python(&interpreter, "open_model.py", &[out.as_os_str(), OsStr::new("--layers"), OsStr::new(&layers.to_string())]);
            opens = opened.is_some();
            say(&format!("{name}: {}", opened.as_deref().unwrap_or("runs, was not opened").trim()));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
