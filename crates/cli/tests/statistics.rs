//! `deltaic fisher` and `deltaic gram`: usage, and golden cases of the authors' program from the command line. The cases lie outside of the
//! repository (`$DELTAIC_GOLDEN`, else `../shared/golden`); where they are not, their test says so and passes.
#![cfg(feature = "eval")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use serde_json::Value;

fn deltaic(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deltaic")).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

#[test]
fn wrong_usage_says_what_is_missing() {
    for (arguments, code, expected) in [
        (&["fisher"][..], 2, "--out"),
        (&["fisher", "-o", "/tmp/none.safetensors"], 2, "<MODEL|--recipe <RECIPE>>"),
        (&["fisher", "./model", "-o", "/tmp/none.safetensors"], 1, "no examples are given"),
        (&["fisher", "./model", "-o", "/tmp/none.safetensors", "--task", "glue/mrpc"], 2, "--data"),
        (
            &["fisher", "./model", "-o", "/tmp/none.safetensors", "--inputs", "x", "--batch-size", "4"],
            1,
            "--batch-size without --batch sum",
        ),
        (&["fisher", "./model", "-o", "/tmp/none.safetensors", "--inputs", "x", "--seed", "4"], 2, "--order"),
        (&["fisher", "--recipe", "r.yml", "-o", "/tmp/none.safetensors"], 2, "--model"),
        (&["fisher", "--recipe", "r.yml", "--model", "0", "-o", "/tmp/none.safetensors", "--batch", "sum"], 2, "cannot be used with"),
        (
            &["gram", "./model", "-o", "/tmp/none.safetensors", "--inputs", "x", "--batch-size", "4"],
            1,
            "--batch-size without --padding include",
        ),
        (&["gram", "./model", "-o", "/tmp/none.safetensors", "--inputs", "x", "--examples", "0"], 2, "from 1 on"),
        (&["gram", "./model", "-o", "/tmp", "--inputs", "x"], 1, "a folder, not a file"),
        (&["gram", "./model", "-o", "/proc/version", "--inputs", "x"], 1, "there already"),
    ] {
        let output = deltaic(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && text.contains(expected), "{arguments:?}: {:?} {text}", output.status);
        assert!(output.stdout.is_empty());
    }
}

fn golden() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let folder = std::env::var_os("DELTAIC_GOLDEN").map_or(beside, PathBuf::from);
    if !folder.exists() {
        eprintln!("SKIPPED: {} is not there", folder.display());
    }
    Some(folder).filter(|folder| folder.exists())
}

/// Whether all tensors of `expected` are in `found` within the tolerance of the golden cases.
fn compare(found: &Path, expected: &Path) {
    let (found, expected) = (std::fs::read(found).unwrap(), std::fs::read(expected).unwrap());
    let (found, expected) = (SafeTensors::deserialize(&found).unwrap(), SafeTensors::deserialize(&expected).unwrap());
    let floats = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect() };
    let largest = |values: &[f32]| values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let noise = 1e-9 * expected.tensors().iter().map(|(_, tensor)| largest(&floats(tensor.data()))).fold(0.0, f32::max);
    for (name, want) in expected.tensors() {
        let (got, want) = (floats(found.tensor(&name).unwrap().data()), floats(want.data()));
        let allowed = (1e-4 * largest(&want)).max(noise);
        assert!(got.len() == want.len() && got.iter().zip(&want).all(|(got, want)| (got - want).abs() <= allowed), "{name}");
    }
}

#[test]
fn golden_cases_from_the_command_line() {
    let Some(golden) = golden() else { return };
    let out = tempfile::tempdir().unwrap();
    let path = |relative: &str| golden.join(relative).display().to_string();
    let file = |name: &str| out.path().join(name).display().to_string();
    let (fisher, gram, sparsified) = (file("fisher"), file("gram"), file("sparsified"));
    let (model, fisher_inputs) = (path("models/bert-c"), path("cases/fisher-ac/inputs-c.safetensors"));
    let run = |arguments: &[&str]| {
        let output = deltaic(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let arguments = ["fisher", &model, "--inputs", &fisher_inputs, "--batch", "sum", "--batch-size", "4", "-o", &fisher, "--json"];
    let result: Value = serde_json::from_str(&run(&arguments)).unwrap();
    assert_eq!((result["examples"].as_u64(), result["file"].as_str()), (Some(40), Some(fisher.as_str())));
    assert_eq!(result["bytes"].as_u64(), Some(std::fs::metadata(&fisher).unwrap().len()));
    compare(fisher.as_ref(), &golden.join("cases/fisher-ac/statistics-c.safetensors"));
    assert!(!deltaic(&arguments).status.success());
    // With the smallest memory every layer has a pass of its own.
    let gram_inputs = path("cases/regmean-ac-0.9/inputs-c.safetensors");
    let said = run(&["gram", &model, "--inputs", &gram_inputs, "--padding", "include", "--memory", "0", "-o", &gram]);
    assert!(said.contains(&gram) && said.contains("gram of 40 examples"), "{said}");
    compare(gram.as_ref(), &golden.join("cases/regmean-ac-0.9/statistics-c.safetensors"));
    // The recipe's batches hold, and its DARE.
    let (recipe, inputs) = (path("cases/fisher-ac-dare/recipe.yml"), path("cases/fisher-ac-dare/inputs-c.safetensors"));
    run(&["fisher", "--recipe", &recipe, "--model", "1", "--inputs", &inputs, "-o", &sparsified]);
    compare(sparsified.as_ref(), &golden.join("cases/fisher-ac-dare/statistics-c.safetensors"));
}
