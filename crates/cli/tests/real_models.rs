//! Real fine-tunes and adapters, opened and compared by Python's programs.
//!
//! `DELTAIC_ZOO` names the folder of models (`minilm-l6` and its fine-tunes, SmolLM2 and its adapters), `DELTAIC_PYTHON` an interpreter
//! with the packages of tests/python/requirements.txt; without them the tests are skipped by name.

mod checkpoints;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use checkpoints::{Tensor, deltaic, named_by, python, read, read_file, say, skipped, succeed, write};

/// The zoo and the interpreter; `None` where one is not named or lacks a model.
fn zoo(test: &str, models: &[&str]) -> Option<(PathBuf, PathBuf)> {
    let (zoo, python) = (named_by("DELTAIC_ZOO", test)?, named_by("DELTAIC_PYTHON", test)?);
    if let Some(missing) = models.iter().find(|model| !zoo.join(model).is_dir()) {
        skipped(test, &format!("{} is not there", zoo.join(missing).display()));
        return None;
    }
    Some((zoo.canonicalize().unwrap(), python))
}

const FINE_TUNES: [&str; 3] = ["minilm-sst2", "minilm-mrpc", "minilm-stsb"];

/// DARE 0.9, then one of the paper's methods.
fn paper_recipe(zoo: &Path, method: &str) -> String {
    let of = |model: &str| zoo.join(model).display().to_string();
    let models: Vec<_> = FINE_TUNES.iter().map(|model| format!("  - model: {}\n", of(model))).collect();
    format!(
        "preset: paper\nmerge_method: {method}\nbase_model: {}\nmodels:\n{}sparsify: {{kind: dare, drop_rate: 0.9}}\nseed: 42\nexclude: ['.*classifier.*']\n",
        of("minilm-l6"),
        models.concat()
    )
}

#[test]
fn dare_merges_of_three_bert_fine_tunes_open_in_transformers_and_are_the_same_on_any_threads_and_instruction_set() {
    const NAME: &str = "dare_merges_of_three_bert_fine_tunes_open_in_transformers_and_are_the_same_on_any_threads_and_instruction_set";
    let Some((zoo, interpreter)) = zoo(NAME, &[&["minilm-l6"], &FINE_TUNES[..]].concat()) else { return };
    let folder = tempfile::tempdir().unwrap();
    for method in ["average", "task_arithmetic", "ties"] {
        let recipe = write(folder.path(), "r.yml", &paper_recipe(&zoo, method));
        let merged = |way: &[&str]| {
            let out = folder.path().join(method);
            succeed(deltaic().args(["merge", "--quiet", "--force"]).args(way).arg(&recipe).arg(&out));
            std::fs::read(out.join("model.safetensors")).unwrap()
        };
        let first = merged(&["--threads", "1"]);
        let sets: Vec<_> = deltaic_kernels::InstructionSet::available().map(|set| ["--instruction-set", set.name()]).collect();
        for way in [["--threads", "2"]].iter().chain(&sets) {
            assert!(merged(way) == first, "{method} {way:?}");
        }
        if let Some(opened) =
            python(&interpreter, "open_model.py", &[folder.path().join(method).as_os_str(), OsStr::new("--layers"), OsStr::new("6")])
        {
            say(&format!("{method}: {}", opened.trim()));
        }
    }
}

#[test]
fn dare_drops_the_share_that_it_was_told_of_every_tensor() {
    const NAME: &str = "dare_drops_the_share_that_it_was_told_of_every_tensor";
    let Some((zoo, interpreter)) = zoo(NAME, &[&["minilm-l6"], &FINE_TUNES[..]].concat()) else { return };
    let folder = tempfile::tempdir().unwrap();
    for (model, rate) in [("minilm-sst2", "0.9"), ("minilm-mrpc", "0.5"), ("minilm-stsb", "0.99")] {
        let (base, model, out) = (zoo.join("minilm-l6"), zoo.join(model), folder.path().join("out"));
        let mut command = deltaic();
        command.args(["dare", "--force", "--quiet", "--seed", "1", "--drop-rate", rate, "--exclude", ".*classifier.*"]);
        succeed(command.arg(&base).arg(&model).arg(&out));
        let arguments = [base.as_os_str(), model.as_os_str(), out.as_os_str(), OsStr::new("--drop-rate"), OsStr::new(rate)];
        let Some(rates) = python(&interpreter, "mask_rates.py", &arguments) else { return };
        say(&format!("{}: {}", model.file_name().unwrap().display(), rates.trim().lines().last().unwrap().trim()));
    }
}

#[test]
fn an_adapter_by_passthrough_equals_pefts_merge_within_one_unit_in_the_last_place() {
    const NAME: &str = "an_adapter_by_passthrough_equals_pefts_merge_within_one_unit_in_the_last_place";
    const ADAPTERS: [&str; 2] = ["smollm2-lora-code", "smollm2-lora-gsm8k"];
    let Some((zoo, interpreter)) = zoo(NAME, &[&["smollm2-135m-instruct"], &ADAPTERS[..]].concat()) else { return };
    let mut beyond = BTreeMap::new();
    for adapter in ADAPTERS {
        let folder = tempfile::tempdir().unwrap();
        let (base, adapter_folder, out) = (zoo.join("smollm2-135m-instruct"), zoo.join(adapter), folder.path().join("out"));
        let recipe = format!("merge_method: passthrough\nmodels: [{{model: '{}+{}'}}]\n", base.display(), adapter_folder.display());
        succeed(deltaic().args(["merge", "--quiet"]).arg(write(folder.path(), "r.yml", &recipe)).arg(&out));
        let peft = folder.path().join("peft");
        if python(&interpreter, "peft_merge.py", &[base.as_os_str(), adapter_folder.as_os_str(), peft.as_os_str()]).is_none() {
            return;
        }
        let (ours, theirs) = (read(&out), read_file(&peft.join("bfloat16/model.safetensors")));
        let distances = Distances::between(&ours, &theirs);
        say(&format!("{adapter}: {distances:?}"));
        beyond.insert(adapter, distances.beyond_one);
    }
    assert!(beyond.values().all(|count| *count == 0), "elements that differ by more than one unit in the last place: {beyond:?}");
}

/// How far two bf16 models are apart, in units in the last place.
#[derive(Debug, Default)]
struct Distances {
    elements: usize,
    equal: usize,
    largest: u32,
    beyond_one: usize,
    furthest: Option<(String, usize, f64, f64)>,
}

impl Distances {
    fn between(ours: &BTreeMap<String, Tensor>, theirs: &BTreeMap<String, Tensor>) -> Self {
        assert!(ours.keys().eq(theirs.keys()), "other tensors than PEFT's");
        let mut found = Self::default();
        for (name, a) in ours {
            let b = &theirs[name];
            assert_eq!((a.dtype, &a.shape), (b.dtype, &b.shape), "{name}");
            assert_eq!(a.dtype, safetensors::Dtype::BF16, "{name}");
            // The place of a number in the order of all bf16 numbers: both zeros are 0.
            let place = |element: &[u8; 2]| {
                let bits = i32::from(u16::from_le_bytes(*element));
                if bits & 0x8000 == 0 { bits } else { -(bits & 0x7fff) }
            };
            let pairs = a.bytes.as_chunks::<2>().0.iter().zip(b.bytes.as_chunks::<2>().0);
            for (index, (x, y)) in pairs.enumerate() {
                let distance = place(x).abs_diff(place(y));
                found.elements += 1;
                found.equal += usize::from(distance == 0);
                found.beyond_one += usize::from(distance > 1);
                if distance > found.largest {
                    found.largest = distance;
                    let value = |tensor: &Tensor| tensor.values()[index];
                    found.furthest = Some((name.clone(), index, value(a), value(b)));
                }
            }
        }
        found
    }
}
