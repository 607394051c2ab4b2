//! Golden cases: the real binary over every case of the folder, compared as the cases' own `compare.py` does.
//!
//! The cases lie outside of the repository: `$DELTAIC_GOLDEN`, else `../shared/golden` beside the workspace.

mod checkpoints;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use checkpoints::{deltaic, json, named_by, read, read_file, say, skipped, stderr};
use serde_json::Value;

/// What came of one case.
enum Outcome {
    /// It ended with `error: not yet:`.
    NotYet,
    /// It was compared.
    Compared(Comparison),
}

#[derive(Default)]
struct Comparison {
    largest_error: f64,
    largest_in: String,
    outside: usize,
    elements: usize,
    wrong: Vec<String>,
}

#[test]
fn every_golden_case_is_met_within_its_tolerance() {
    const NAME: &str = "every_golden_case_is_met_within_its_tolerance";
    let default = checkpoints::workspace().join("../shared/golden");
    let golden = match std::env::var_os("DELTAIC_GOLDEN") {
        Some(_) => named_by("DELTAIC_GOLDEN", NAME).unwrap_or(default),
        None => default,
    };
    let Ok(entries) = golden.join("cases").read_dir() else {
        return skipped(NAME, &format!("{} is not there", golden.join("cases").display()));
    };
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("case.json").is_file()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} has no cases", golden.display());
    let out = tempfile::tempdir().unwrap();
    let (mut not_yet, mut failed, mut compared) = (Vec::new(), Vec::new(), 0);
    say(&format!("{:34} {:>13} {:>15}  largest in", "case", "largest error", "outside"));
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        match run(case, &out.path().join(&name)) {
            Outcome::NotYet => not_yet.push(name),
            Outcome::Compared(found) => {
                compared += 1;
                let outside = format!("{}/{}", found.outside, found.elements);
                let wrong = if found.wrong.is_empty() { String::new() } else { format!("  WRONG: {}", found.wrong.join("; ")) };
                say(&format!("{name:34} {:13.3e} {outside:>15}  {}{wrong}", found.largest_error, found.largest_in));
                if !found.wrong.is_empty() {
                    failed.push(name);
                }
            }
        }
    }
    say(&format!("{compared} cases compared; {} not yet: {}", not_yet.len(), not_yet.join(" ")));
    assert!(failed.is_empty(), "{} of {compared} cases: {failed:?}", failed.len());
}

/// Merges the case's recipe and compares what comes out.
fn run(case: &Path, out: &Path) -> Outcome {
    let output = deltaic().args(["merge", "--quiet"]).arg(case.join("recipe.yml")).arg(out).output().unwrap();
    let mut comparison = Comparison::default();
    if output.status.success() {
        compare(case, out, &mut comparison);
        return Outcome::Compared(comparison);
    }
    let message = stderr(&output);
    if message.starts_with("error: not yet:") {
        return Outcome::NotYet;
    }
    comparison.wrong.push(message.trim().to_owned());
    Outcome::Compared(comparison)
}

fn compare(case_dir: &Path, out: &Path, found: &mut Comparison) {
    let case = json(&case_dir.join("case.json"));
    let (expected, got) = (read_file(&case_dir.join("expected.safetensors")), read(out));
    let ignored: BTreeSet<&str> = case["may_be_there"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    found.wrong.extend(expected.keys().filter(|name| !got.contains_key(*name)).map(|name| format!("missing {name}")));
    let superfluous = got.keys().filter(|name| !expected.contains_key(*name) && !ignored.contains(name.as_str()));
    found.wrong.extend(superfluous.map(|name| format!("superfluous {name}")));
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{}: no tolerance", case_dir.display()));
    let (absolute, relative) = (number(&case["tolerance"]["absolute"]), number(&case["tolerance"]["relative"]));
    for (name, e) in &expected {
        let Some(g) = got.get(name) else { continue };
        if (e.dtype, &e.shape) != (g.dtype, &g.shape) {
            found.wrong.push(format!("{name}: expected {:?} {:?}, found {:?} {:?}", e.dtype, e.shape, g.dtype, g.shape));
            continue;
        }
        let mut finite = true;
        for (e, g) in e.values().into_iter().zip(g.values()) {
            let error = (g - e).abs();
            finite &= error.is_finite();
            found.elements += 1;
            found.outside += usize::from(error.is_nan() || error > absolute + relative * e.abs());
            if error > found.largest_error {
                (found.largest_error, found.largest_in) = (error, name.clone());
            }
        }
        if !finite {
            found.wrong.push(format!("{name}: not finite"));
        }
    }
    let allowed = case["outliers"].as_f64().unwrap_or(0.0) * found.elements as f64;
    if found.outside as f64 > allowed {
        found.wrong.push(format!("{} of {} elements outside", found.outside, found.elements));
    }
    compare_config(&case, out, found);
    compare_tokenizer(case_dir, &case, out, found);
}

fn compare_config(case: &Value, out: &Path, found: &mut Comparison) {
    let layers = &case["num_hidden_layers"];
    let config = json(&out.join("config.json"));
    if !layers.is_null() && config.get("num_hidden_layers").is_some_and(|said| said != layers) {
        found.wrong.push(format!("config.json should say {layers} layers"));
    }
}

/// What of the tokenizer can be seen without running it: vocabulary, chat template, and the number of rows.
fn compare_tokenizer(case_dir: &Path, case: &Value, out: &Path, found: &mut Comparison) {
    if !case_dir.join("expected-tokenizer.json").exists() {
        return;
    }
    let expected = json(&case_dir.join("expected-tokenizer.json"));
    if !out.join("tokenizer.json").exists() {
        return found.wrong.push("no tokenizer.json".to_owned());
    }
    let tokenizer = json(&out.join("tokenizer.json"));
    let model = tokenizer["model"]["vocab"].as_object().into_iter().flatten().map(|(token, id)| (token.clone(), id.clone()));
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let added = added.filter_map(|token| Some((token["content"].as_str()?.to_owned(), token["id"].clone())));
    let vocabulary: BTreeMap<String, Value> = model.chain(added).collect();
    if serde_json::to_value(vocabulary).unwrap() != expected["vocabulary"] {
        found.wrong.push("another vocabulary".to_owned());
    }
    let from_settings = || {
        let settings = out.join("tokenizer_config.json");
        settings.exists().then(|| json(&settings)["chat_template"].as_str().map(str::to_owned)).flatten()
    };
    let template = std::fs::read_to_string(out.join("chat_template.jinja")).ok().or_else(from_settings).unwrap_or_default();
    if template.trim() != expected["chat_template"].as_str().unwrap_or_default().trim() {
        found.wrong.push(format!("chat template {template:?}"));
    }
    if json(&out.join("config.json"))["vocab_size"] != case["vocab_size"] {
        found.wrong.push(format!("config.json should say vocab_size {}", case["vocab_size"]));
    }
}
