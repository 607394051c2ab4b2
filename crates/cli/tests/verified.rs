//! `deltaic verify`: a whole model passes, a changed one does not; and a merge is repeated from its own `deltaic.yml`.

mod checkpoints;

use std::path::Path;

use checkpoints::{deltaic, fail, files, json, quickstart, read, succeed, write};
use serde_json::Value;

const RECIPES: &[&str] = &[
    "merge_method: dare_linear\nbase_model: base\nmodels: [{model: fine-tune-a}, {model: fine-tune-b}]\nparameters: {weight: 0.5, density: 0.4}\n",
    "preset: paper\nmerge_method: ties\nbase_model: base\nmodels: [{model: fine-tune-a}, {model: fine-tune-b}]\nsparsify: {kind: dare, drop_rate: 0.5}\n",
];

fn merged(folder: &Path, recipe: &str, out: &str, flags: &[&str]) -> std::path::PathBuf {
    let (recipe, out) = (write(folder, "recipe.yml", recipe), folder.join(out));
    succeed(deltaic().arg("merge").arg(recipe).arg(&out).args(flags));
    out
}

/// Flips one bit of one shard's data, at a place that follows from `state`; says where.
fn flip_a_bit(model: &Path, state: &mut u64) -> String {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let shards = checkpoints::shards(model);
    let shard = &shards[(*state >> 33) as usize % shards.len()];
    let mut bytes = std::fs::read(shard).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (byte, bit) = (data + (*state >> 20) as usize % (bytes.len() - data), *state >> 61);
    bytes[byte] ^= 1 << bit;
    std::fs::write(shard, bytes).unwrap();
    format!("{}: bit {bit} of byte {byte}", shard.display())
}

#[test]
fn one_flipped_bit_of_the_weights_is_found_in_each_of_twenty_outputs() {
    let folder = quickstart();
    let mut state = 77;
    for round in 0..20 {
        let flags: &[&str] = if round % 3 == 0 { &["--force", "--out-shard-size", "30KB"] } else { &["--force"] };
        let out = merged(folder.path(), RECIPES[round % RECIPES.len()], "out", flags);
        let whole = succeed(deltaic().arg("verify").arg(&out).arg("--full"));
        assert!(whole.contains("all equal"), "{whole}");
        let place = flip_a_bit(&out, &mut state);
        let message = fail(deltaic().arg("verify").arg(&out).arg("--full"));
        assert!(message.contains("1 elements differ from what the sources give"), "{place}\n{message}");
    }
}

#[test]
fn a_sample_computes_a_part_again_and_its_places_move_with_the_seed() {
    let folder = quickstart();
    let out = merged(folder.path(), RECIPES[0], "out", &[]);
    let sampled = |seed: &str, share: &str| -> Value {
        let text = succeed(deltaic().arg("verify").arg(&out).args(["--json", "--sample", share, "--seed", seed]));
        serde_json::from_str(&text).unwrap()
    };
    let (part, elements) = (sampled("1", "1%"), sampled("1", "100%"));
    assert_eq!(elements["recomputed"], elements["elements"]);
    assert!(part["recomputed"].as_u64().unwrap() > 0 && part["recomputed"].as_u64() < part["elements"].as_u64(), "{part}");
    let counts: std::collections::BTreeSet<u64> =
        (0..8).map(|seed| sampled(&seed.to_string(), "1%")["recomputed"].as_u64().unwrap()).collect();
    assert!(counts.len() > 1, "the same place for every seed: {counts:?}");
}

#[test]
fn what_was_changed_beside_the_weights_is_found_too() {
    let folder = quickstart();
    let out = merged(folder.path(), RECIPES[0], "out", &["--out-shard-size", "30KB"]);
    let original = files(&out);
    let config = |key: &str, value: Value| {
        let mut config = json(&out.join("config.json"));
        config[key] = value;
        std::fs::write(out.join("config.json"), config.to_string()).unwrap();
    };
    let first = checkpoints::shards(&out)[0].clone();
    let changes: [(&str, &dyn Fn(), &str); 5] = [
        ("a layer more in config.json", &|| config("num_hidden_layers", 9.into()), "config.json"),
        (
            "a shard that is cut",
            &|| std::fs::write(&first, &original[&name(&first)][..original[&name(&first)].len() - 4]).unwrap(),
            "safetensors",
        ),
        ("a shard that is gone", &|| std::fs::remove_file(&first).unwrap(), "safetensors"),
        ("a tokenizer that is gone", &|| std::fs::remove_file(out.join("tokenizer.json")).unwrap(), "tokenizer.json"),
        (
            "a header that says less",
            &|| {
                let text = String::from_utf8_lossy(&original[&name(&first)]).into_owned();
                assert!(text.contains("deltaic.seed"));
                let mut bytes = original[&name(&first)].clone();
                let place = bytes.windows(12).position(|window| window == b"deltaic.seed").unwrap();
                bytes[place] = b'D';
                std::fs::write(&first, bytes).unwrap();
            },
            "header",
        ),
    ];
    for (what, change, word) in changes {
        change();
        let message = fail(deltaic().arg("verify").arg(&out).arg("--full"));
        assert!(message.contains(word) && message.len() < 2000, "{what}: {message}");
        original.iter().for_each(|(name, bytes)| std::fs::write(out.join(name), bytes).unwrap());
        succeed(deltaic().arg("verify").arg(&out).arg("--full"));
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_source_that_is_not_what_it_was_is_named() {
    let folder = quickstart();
    let out = merged(folder.path(), RECIPES[0], "out", &[]);
    checkpoints::copy_folder(&folder.path().join("fine-tune-a"), &folder.path().join("fine-tune-b"));
    let message = fail(deltaic().arg("verify").arg(&out).arg("--full"));
    assert!(message.contains("fine-tune-b") && message.contains("not the model that was merged"), "{message}");
}

#[test]
fn a_merge_is_repeated_from_its_own_deltaic_yml_from_another_folder() {
    for (recipe, flags) in [
        (RECIPES[0], &["--out-shard-size", "30KB", "--hash"][..]),
        (RECIPES[1], &["--random-seed", "12"]),
        (
            "merge_method: linear\nmodels: [{model: fine-tune-a, parameters: {weight: 0.3}}, {model: fine-tune-b, parameters: {weight: 0.7}}]\n",
            &["--no-copy-tokenizer"],
        ),
        (
            "merge_method: passthrough\nslices: [{sources: [{model: fine-tune-a, layer_range: [0, 1]}]}, {sources: [{model: fine-tune-b, layer_range: [0, 2]}]}]\n",
            &[],
        ),
    ] {
        let (folder, elsewhere) = (quickstart(), tempfile::tempdir().unwrap());
        let out = merged(folder.path(), recipe, "out", flags);
        let again = elsewhere.path().join("again");
        succeed(deltaic().current_dir(elsewhere.path()).arg("merge").arg(out.join("deltaic.yml")).arg(&again));
        let (mut first, mut second) = (files(&out), files(&again));
        assert!(read(&out).len() > 3);
        // The recipe as it was given is another text; with --hash more was recorded.
        for files in [&mut first, &mut second] {
            files.retain(|name, _| !["mergekit_config.yml", "README.md"].contains(&name.as_str()));
            if flags.contains(&"--hash") {
                files.remove("deltaic.yml");
            }
        }
        assert!(first == second, "{recipe}: {:?}", first.keys().filter(|name| first.get(*name) != second.get(*name)).collect::<Vec<_>>());
    }
}

/// SHA-256 from `sha256sum`.
#[test]
fn the_sources_hashes_are_recorded_on_request() {
    let folder = quickstart();
    let out = merged(folder.path(), RECIPES[0], "out", &["--hash"]);
    let text = std::fs::read_to_string(out.join("deltaic.yml")).unwrap();
    for model in ["base", "fine-tune-a", "fine-tune-b"] {
        let sum = succeed(std::process::Command::new("sha256sum").arg(folder.path().join(model).join("model.safetensors")));
        let hash = sum.split(' ').next().unwrap();
        assert!(text.contains(&format!("\"sha256\":\"{hash}\"")), "{model}: {hash}\n{text}");
    }
}
