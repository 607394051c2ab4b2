//! The same recipe gives the same bytes: on any number of threads, with any instruction set, again, and from `deltaic.yml`.

mod checkpoints;

use std::path::Path;

use checkpoints::{deltaic, files, json, read, small_models, succeed, write};
use deltaic_kernels::InstructionSet;
use serde_json::Value;

/// Recipes over base, fine-tune-a and fine-tune-b that cover every method, sparsifier and way to rescale. `A` and `B` stand for
/// `model: ./fine-tune-a` and `model: ./fine-tune-b`.
const RECIPES: &[(&str, &str)] = &[
    ("average", "merge_method: average\nmodels: [{A}, {B}]"),
    ("linear", "merge_method: linear\nmodels: [{A, parameters: {weight: 0.3}}, {B, parameters: {weight: [0.2, 1.1]}}]"),
    (
        "task arithmetic",
        "merge_method: task_arithmetic\nbase_model: ./base\nmodels: [{A, parameters: {weight: 0.7}}, {B, parameters: {weight: -0.4}}]\nparameters: {lambda: 0.9}",
    ),
    (
        "task arithmetic of dare",
        "merge_method: task_arithmetic\nbase_model: ./base\nmodels: [{A, parameters: {weight: 1}}, {B, parameters: {weight: 1}}]\nsparsify: {kind: dare, drop_rate: 0.9}",
    ),
    (
        "ties",
        "merge_method: ties\nbase_model: ./base\nmodels: [{A, parameters: {weight: 0.5, density: 0.3}}, {B, parameters: {weight: 0.8, density: 0.6}}]",
    ),
    (
        "ties, rescaled",
        "merge_method: ties\nbase_model: ./base\nmodels: [{A, parameters: {weight: 1, density: 0.3}}, {B, parameters: {weight: 1, density: 0.6}}]\nparameters: {rescale: true}",
    ),
    ("paper ties", "preset: paper\nmerge_method: ties\nbase_model: ./base\nmodels: [{A}, {B}]\nparameters: {mask_rate: 0.7, lambda: 0.9}"),
    (
        "paper ties of dare",
        "preset: paper\nmerge_method: ties\nbase_model: ./base\nmodels: [{A}, {B}]\nsparsify: {kind: dare, drop_rate: 0.5}\nseed: 9",
    ),
    (
        "dare_linear",
        "merge_method: dare_linear\nbase_model: ./base\nmodels: [{A, parameters: {weight: 0.5, density: 0.3}}, {B, parameters: {weight: 0.5, density: [0.4, 0.8]}}]\nseed: 3",
    ),
    (
        "dare_ties",
        "merge_method: dare_ties\nbase_model: ./base\nmodels: [{A, parameters: {weight: 0.5, density: 0.3}}, {B, parameters: {weight: 0.5, density: 0.6}}]\nseed: 3",
    ),
    ("slerp", "merge_method: slerp\nbase_model: ./fine-tune-a\nmodels: [{A}, {B}]\nparameters: {t: [0.2, 0.9]}"),
    (
        "slerp by slices",
        "merge_method: slerp\nbase_model: ./base\nslices: [{sources: [{model: ./base, layer_range: [0, 2]}, {A, layer_range: [0, 2]}]}]\nparameters: {t: [{filter: mlp, value: 0.3}, {value: 0.6}]}",
    ),
    ("passthrough, scaled", "merge_method: passthrough\nmodels: [{A, parameters: {scale: 0.7}}]"),
    ("model_stock", "merge_method: model_stock\nbase_model: ./base\nmodels: [{A}, {B}]"),
    ("model_stock by rows", "merge_method: model_stock\nbase_model: ./base\nmodels: [{A}, {B}]\nparameters: {filter_wise: true}"),
    ("magnitude", "merge_method: average\nbase_model: ./base\nmodels: [{A}, {B}]\nsparsify: {kind: magnitude, drop_rate: 0.8}"),
    ("dare with l1", "merge_method: average\nbase_model: ./base\nmodels: [{A}, {B}]\nsparsify: {kind: dare, drop_rate: 0.8, rescale: l1}"),
    (
        "magnitude with l1 for one, DropOnly for the other",
        "merge_method: average\nbase_model: ./base\nmodels: [{A, sparsify: {kind: magnitude, density: 0.3, rescale: l1}}, {B, sparsify: {kind: dare, drop_rate: 0.4, rescale: none}}]",
    ),
    (
        "dare of weights",
        "merge_method: average\nbase_model: ./base\nmodels: [{A}, {B}]\nsparsify: {kind: dare, drop_rate: 0.1, of: weights}",
    ),
    (
        "fisher",
        "merge_method: fisher\nmodels: [{A, statistics: a-fisher.safetensors}, {B, statistics: b-fisher.safetensors, parameters: {weight: 0.7}}]",
    ),
    (
        "regmean",
        "merge_method: regmean\nmodels: [{A, statistics: a-gram.safetensors}, {B, statistics: b-gram.safetensors}]\nparameters: {reduce_non_diagonal: 0.9}",
    ),
    ("float32", "merge_method: average\nmodels: [{A}, {B}]\ndtype: float32"),
    ("float16", "merge_method: average\nmodels: [{A}, {B}]\nout_dtype: float16"),
];

fn recipe(text: &str) -> String {
    text.replace("{A", "{model: ./fine-tune-a").replace("{B", "{model: ./fine-tune-b") + "\n"
}

/// A third of all tensors' elements becomes one tensor of more than 2^21, so that windows and reduction blocks are crossed: fine-tunes
/// whose deltas are heavy-tailed and, in bf16, often equal.
fn enlarge(folder: &Path) {
    const SHAPE: [usize; 2] = [1031, 2053];
    for (number, model) in ["base", "fine-tune-a", "fine-tune-b"].iter().enumerate() {
        let path = folder.join(model).join("model.safetensors");
        let mut tensors: Vec<_> = checkpoints::read_file(&path).into_iter().collect();
        let large = &mut tensors.iter_mut().find(|(name, _)| name == "model.layers.1.mlp.up_proj.weight").unwrap().1;
        large.shape = SHAPE.to_vec();
        let element = |i: usize| {
            let random = |salt: u64| {
                let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 ^ (salt << 7));
                ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f32 / 8_388_608.0 - 1.0
            };
            let delta = if number == 0 { 0.0 } else { 0.01 * random(number as u64).powi(3) };
            let bits = (0.05 * random(99) + delta).to_bits();
            ((bits + 0x8000) >> 16) as u16
        };
        large.bytes = (0..SHAPE.iter().product()).flat_map(|i| element(i).to_le_bytes()).collect();
        let views = tensors.iter().map(|(name, tensor)| {
            (name.as_str(), safetensors::tensor::TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Statistics of both fine-tunes, made up: squares for each parameter, and for each layer's weight a positive definite matrix.
fn with_statistics(folder: tempfile::TempDir) -> tempfile::TempDir {
    for (model, short) in [("fine-tune-a", "a"), ("fine-tune-b", "b")] {
        let (mut fisher, mut gram) = (Vec::new(), Vec::new());
        let bytes = |values: &mut dyn Iterator<Item = f64>| values.flat_map(|x| (x as f32).to_le_bytes()).collect::<Vec<u8>>();
        for (name, tensor) in checkpoints::read(&folder.path().join(model)) {
            let values = tensor.values();
            fisher.push((name.clone(), tensor.shape.clone(), bytes(&mut values.iter().map(|x| 1e-3 * x * x))));
            if let ([_, columns], true) = (&tensor.shape[..], name.contains("proj")) {
                let row = &values[..*columns];
                let entry = |k: usize| row[k / columns] * row[k % columns] + if k / columns == k % columns { 0.5 } else { 0.0 };
                gram.push((name, vec![*columns, *columns], bytes(&mut (0..columns * columns).map(entry))));
            }
        }
        for (kind, tensors) in [("fisher", &fisher), ("gram", &gram)] {
            let views = tensors.iter().map(|(name, shape, bytes)| {
                (name.as_str(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
            });
            let file = safetensors::serialize(views, None).unwrap();
            std::fs::write(folder.path().join(format!("{short}-{kind}.safetensors")), file).unwrap();
        }
    }
    folder
}

#[test]
fn every_method_gives_the_same_files_for_any_threads_and_instruction_set_and_again() {
    let folder = small_models();
    enlarge(folder.path());
    let folder = with_statistics(folder);
    let sets: Vec<_> = InstructionSet::available().map(InstructionSet::name).collect();
    checkpoints::say(&format!("instruction sets of this machine: {}", sets.join(", ")));
    let ways = ["1", "2", "5"].into_iter().map(|threads| ["--threads", threads]);
    let ways: Vec<[&str; 2]> = ways.chain(sets.into_iter().map(|set| ["--instruction-set", set])).collect();
    for (name, text) in RECIPES {
        let path = write(folder.path(), "r.yml", &recipe(text));
        let merged = |way: &[&str]| {
            let out = folder.path().join("out");
            succeed(deltaic().args(["merge", "--quiet", "--force"]).args(way).arg(&path).arg(&out));
            files(&out)
        };
        let first = merged(&[]);
        for way in &ways {
            let other = merged(way);
            assert!(first.keys().eq(other.keys()), "{name} {way:?}");
            let different: Vec<_> = first.keys().filter(|file| first[*file] != other[*file]).collect();
            assert!(different.is_empty(), "{name} {way:?}: {different:?}");
        }
    }
}

#[test]
fn deltaic_yml_gives_the_same_weights_and_config_from_any_folder() {
    let (folder, elsewhere) = (with_statistics(small_models()), tempfile::tempdir().unwrap());
    for (name, text) in RECIPES {
        let (out, again) = (folder.path().join("out"), elsewhere.path().join("again"));
        let path = write(folder.path(), "r.yml", &recipe(text));
        succeed(deltaic().args(["merge", "--quiet", "--force"]).arg(&path).arg(&out));
        let moved = elsewhere.path().join("deltaic.yml");
        std::fs::copy(out.join("deltaic.yml"), &moved).unwrap();
        succeed(deltaic().current_dir(&elsewhere).args(["merge", "--force", "--strict", "deltaic.yml"]).arg(&again));
        let (first, second) = (files(&out), files(&again));
        for file in ["model.safetensors", "config.json"] {
            assert!(first[file] == second[file], "{name}: {file} differs");
        }
    }
}

#[test]
fn a_plan_as_json_parses_for_every_method() {
    let folder = with_statistics(small_models());
    for (name, text) in RECIPES {
        let plan = succeed(deltaic().args(["plan", "--json"]).arg(write(folder.path(), "r.yml", &recipe(text))));
        let plan: Value = serde_json::from_str(&plan).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(plan["seed"].is_null(), !text.contains("dare"), "{name}: {}", plan["seed"]);
    }
}

#[test]
fn the_example_of_every_method_and_sparsifier_runs_as_shown() {
    let folder = with_statistics(small_models());
    let definitions: Value = serde_json::from_str(&succeed(deltaic().args(["methods", "--json"]))).unwrap();
    let shown = |name: &str| succeed(deltaic().args(["methods", name]));
    let mut examples = Vec::new();
    for definition in definitions.as_array().unwrap() {
        let (name, example) = (definition["name"].as_str().unwrap(), definition["example"].as_str().unwrap());
        assert!(shown(name).contains(example), "{name}");
        assert!(example.contains(&format!("merge_method: {name}\n")), "{name}");
        examples.push((name.to_owned(), example.to_owned()));
    }
    for name in ["dare", "magnitude"] {
        let text = shown(name);
        examples.push((name.to_owned(), text[text.find("merge_method:").unwrap()..].to_owned()));
    }
    assert!(examples.len() > 10);
    for (name, example) in examples {
        let out = folder.path().join("out");
        succeed(deltaic().args(["merge", "--strict", "--force"]).arg(write(folder.path(), "r.yml", &example)).arg(&out));
        let (base, merged) = (read(&folder.path().join("base")), read(&out));
        assert!(merged.values().all(|tensor| tensor.values().iter().all(|value| value.is_finite())), "{name}");
        assert!(merged.iter().any(|(tensor, merged)| base.get(tensor) != Some(merged)), "{name} changes nothing");
        let layers = json(&out.join("config.json"))["num_hidden_layers"].as_u64().unwrap();
        assert_eq!(merged.keys().filter(|tensor| tensor.contains("q_proj")).count() as u64, layers, "{name}");
    }
}
