//! `deltaic delta`: against NumPy, and how it treats files.

mod checkpoints;

use std::path::{Path, PathBuf};

use checkpoints::{deltaic, fail, named_by, python, say, skipped, small_models, succeed};

/// Compares the report on two models with NumPy's figures; what NumPy says in the end.
fn twin(interpreter: &Path, base: &Path, model: &Path) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    std::fs::write(&report, succeed(deltaic().args(["delta", "--json"]).arg(base).arg(model))).unwrap();
    python(interpreter, "delta_twin.py", &[report.as_os_str(), base.as_os_str(), model.as_os_str()])
}

fn twins(test: &str, folder: Option<PathBuf>, pairs: &[(&str, &str)]) {
    let (Some(folder), Some(interpreter)) = (folder, named_by("DELTAIC_PYTHON", test)) else { return };
    for (base, model) in pairs {
        let (of_base, of_model) = (folder.join(base), folder.join(model));
        if let Some(missing) = [&of_base, &of_model].into_iter().find(|model| !model.is_dir()) {
            skipped(test, &format!("{} is not there", missing.display()));
        } else if let Some(said) = twin(&interpreter, &of_base, &of_model) {
            say(&format!("{base} {model}: {}", said.trim()));
        }
    }
}

#[test]
fn every_figure_of_golden_pairs_is_numpys() {
    const NAME: &str = "every_figure_of_golden_pairs_is_numpys";
    let golden = named_by("DELTAIC_GOLDEN", NAME).map(|golden| golden.join("models"));
    let pairs = [("llama-base", "llama-a"), ("bf16-base", "bf16-c"), ("f16-base", "f16-b"), ("bert-base", "bert-c"), ("llama-a", "bf16-a")];
    twins(NAME, golden, &pairs);
}

#[test]
fn every_figure_of_real_fine_tunes_is_numpys() {
    const NAME: &str = "every_figure_of_real_fine_tunes_is_numpys";
    twins(NAME, named_by("DELTAIC_ZOO", NAME), &[("minilm-l6", "minilm-sst2"), ("minilm-l6", "minilm-stsb")]);
}

/// `deltaic delta` on the small models in `folder`.
fn quick(folder: &Path, more: &[&str]) -> std::process::Command {
    let mut command = deltaic();
    command.current_dir(folder).args(["delta", "base", "fine-tune-a"]).args(more);
    command
}

#[test]
fn the_table_says_the_model_its_kinds_and_layers_and_on_request_every_tensor() {
    let folder = small_models();
    let text = succeed(&mut quick(folder.path(), &[]));
    for part in ["regime", "quantiles", "unchanged", "self_attn.q_proj", "embed_tokens", "layer", "cosine"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("model.layers.1.mlp.up_proj.weight"));
    assert!(succeed(&mut quick(folder.path(), &["--tensors"])).contains("model.layers.1.mlp.up_proj.weight"));
    let excluded = succeed(&mut quick(folder.path(), &["--exclude", ".*self_attn.*"]));
    assert!(excluded.contains("not compared") && excluded.contains("excluded"), "{excluded}");
}

#[test]
fn json_is_the_same_on_any_number_of_threads() {
    let folder = small_models();
    let one = succeed(&mut quick(folder.path(), &["--json", "--threads", "1"]));
    assert_eq!(one, succeed(&mut quick(folder.path(), &["--json", "--threads", "7"])));
    let report: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!((&report["reads"], report["layers"].as_array().unwrap().len()), (&serde_json::json!(3), 2));
    assert!(report["whole"]["cosine"].as_f64().unwrap() > 0.99 && report["kinds"]["norm"]["elements"] == 32);
}

#[test]
fn a_figure_replaces_another_file_only_with_force_and_is_written_whole() {
    let folder = small_models();
    let plot = folder.path().join("delta.svg");
    succeed(&mut quick(folder.path(), &["--plot", "delta.svg"]));
    let drawn = std::fs::read_to_string(&plot).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n") && drawn.contains("fine-tune-a against base"), "{drawn}");
    std::fs::write(&plot, "mine").unwrap();
    let said = fail(&mut quick(folder.path(), &["--plot", "delta.svg"]));
    assert!(said.contains("delta.svg: the file is there already") && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read_to_string(&plot).unwrap(), "mine");
    succeed(&mut quick(folder.path(), &["--plot", "delta.svg", "--force"]));
    assert_eq!(std::fs::read_to_string(&plot).unwrap(), drawn);
    assert!(fail(&mut quick(folder.path(), &["--plot", "nowhere/delta.svg"])).contains("the folder nowhere is not there"));
    assert!(fail(&mut quick(folder.path(), &["--plot", "base", "--force"])).contains("base: a folder"));
    let names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.contains("partial")), "{names:?}");
}

#[test]
fn wrong_input_ends_in_one_message() {
    let folder = small_models();
    assert!(fail(deltaic().current_dir(folder.path()).args(["delta", "base", "nowhere"])).contains("nowhere"));
    assert!(fail(&mut quick(folder.path(), &["--exclude", "("])).contains("regular expression"));
    assert_eq!(deltaic().args(["delta", "base"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn a_merge_says_what_its_samples_say_and_goes_on() {
    let folder = small_models();
    // The same weights in another order: nothing is a fine-tune of anything.
    let path = folder.path().join("fine-tune-b/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let half = (bytes.len() - data) / 4 * 2;
    bytes[data..].rotate_left(half);
    std::fs::write(&path, bytes).unwrap();
    let recipe = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: fine-tune-a}, {model: fine-tune-b}]\nparameters: {weight: 0.5}\n";
    std::fs::write(folder.path().join("r.yml"), recipe).unwrap();
    let output = deltaic().current_dir(folder.path()).args(["merge", "r.yml", "out"]).output().unwrap();
    let said = checkpoints::stderr(&output);
    assert!(output.status.success() && folder.path().join("out/model.safetensors").exists(), "{said}");
    assert_eq!(said.matches("looks like a fine-tune of another base").count(), 1, "{said}");
    assert!(said.contains("warning: fine-tune-b looks like"), "{said}");
}
