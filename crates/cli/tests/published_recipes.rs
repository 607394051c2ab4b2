//! Recipes as people publish them, unchanged, on small models under their Hub names in a Hub cache that the test lays out.

mod checkpoints;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use checkpoints::{deltaic, json, named_by, python, read, say, succeed};
use serde_json::Value;

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
    if python(&interpreter, "hub_cache.py", &[folder.path().join("hub").as_os_str()]).is_none() {
        return;
    }
    let published = checkpoints::workspace().join("tests/recipes/published");
    let expected = json(&published.join("expected.json"));
    let mut recipes: Vec<PathBuf> = published.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    recipes.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    recipes.sort();
    assert_eq!(recipes.len(), expected.as_object().unwrap().len(), "expected.json speaks of every recipe");
    // Opening takes most of the time, and each on one core.
    std::thread::scope(|scope| {
        for part in recipes.chunks(recipes.len().div_ceil(2)) {
            scope.spawn(|| part.iter().for_each(|recipe| check(folder.path(), recipe, &expected, &interpreter)));
        }
    });
}

/// Runs one recipe, looks at what it wrote, and opens it where there is a transformers.
fn check(folder: &Path, recipe: &Path, expected: &Value, interpreter: &Path) {
    let name = recipe.file_name().unwrap().to_str().unwrap();
    let (out, said) = (folder.join(name).with_extension(""), &expected[name]);
    succeed(deltaic().current_dir(folder).env("HF_HUB_CACHE", folder.join("hub")).arg("merge").arg(recipe).arg(&out));
    let config = json(&out.join("config.json"));
    let dtype = config.get("dtype").or(config.get("torch_dtype")).unwrap();
    let found = (&config["num_hidden_layers"], dtype, &config["architectures"][0]);
    assert_eq!(found, (&said["layers"], &said["dtype"], &said["architecture"]), "{name}");
    let (weights, kind) = (read(&out), stored(said["dtype"].as_str().unwrap()));
    let others: Vec<_> = weights.iter().filter(|(_, tensor)| tensor.dtype != kind).map(|(tensor, _)| tensor).collect();
    assert!(others.iter().all(|tensor| tensor.contains("inv_freq")), "{name}: not {kind:?}: {others:?}");
    let layers = said["layers"].as_u64().unwrap();
    assert_eq!(weights.keys().filter(|tensor| tensor.ends_with("mlp.down_proj.weight")).count() as u64, layers, "{name}");
    let layers = layers.to_string();
    if let Some(opened) = python(interpreter, "open_model.py", &[out.as_os_str(), OsStr::new("--layers"), OsStr::new(&layers)]) {
        say(&format!("{name}: {}", opened.trim()));
    }
}
