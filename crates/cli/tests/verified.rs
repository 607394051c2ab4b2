//! `deltaic verify`: a whole model passes, a changed one does not; and a merge is repeated from its own `deltaic.yml`.

mod checkpoints;

use std::path::Path;

use checkpoints::{deltaic, fail, files, json, read, small_models, succeed, write};
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
    let folder = small_models();
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
    let folder = small_models();
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
    let folder = small_models();
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

/// Runs a command that has to succeed; what it says to stderr.
#[track_caller]
fn said(command: &mut std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", checkpoints::stderr(&output));
    checkpoints::stderr(&output)
}

fn fifo(path: &Path) {
    succeed(std::process::Command::new("mkfifo").arg(path));
}

/// Changes a text file of a folder: the first of `from` becomes `to`.
fn replace(folder: &Path, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    std::fs::write(folder.join(file), text.replacen(from, to, 1)).unwrap();
}

#[test]
fn what_an_output_says_of_itself_is_held_against_its_sources_without_computing_it_again() {
    const RECORD: &str = "deltaic.yml";
    let folder = small_models();
    let out = merged(folder.path(), RECIPES[0], "out", &[]);
    let original = files(&out);
    let record = String::from_utf8(original[RECORD].clone()).unwrap();
    let (second, third) = {
        let starts: Vec<usize> = record.match_indices("    - model: ").map(|(start, _)| start).collect();
        (starts[1], starts[2])
    };
    let changes: &[(&str, &str, &str, &str)] = &[
        ("config.json", "{", "{\"more\": 1, ", "config.json: not what the merge writes"),
        (RECORD, "weight: 0.5", "weight: 0.75", "deltaic.yml: the plan's hash: expected"),
        (RECORD, "  plan: \"", "  plan: \"0", "deltaic.yml: the plan's hash: expected"),
        (RECORD, "masks: [", "masks: [{seed: 1, stream: 2}, ", "deltaic.yml: masks (seed, stream): expected"),
        (RECORD, "deltaic:\n  version: ", "deltaic:\n  version: 9", "deltaic.yml: version: expected 0"),
        (RECORD, "      id: \"", "      id: \"0", "deltaic.yml: sources: id of "),
        (RECORD, "\"sample\":\"", "\"sample\":\"0", "deltaic.yml: sources: file: expected model.safetensors of "),
        (RECORD, &record[second..third], "", "deltaic.yml: number of sources: expected 3, found 2"),
        ("mergekit_config.yml", "0.5", "0.75", "mergekit_config.yml: not the recipe that deltaic.yml has"),
        ("mergekit_config.yml", "fine-tune-a", "fine-tune-c", "mergekit_config.yml: not the recipe that deltaic.yml has"),
        ("mergekit_config.yml", "dare_linear", "dare_linea", "mergekit_config.yml:1: "),
    ];
    for (file, from, to, words) in changes {
        replace(&out, file, from, to);
        for extent in [&[][..], &["--full"]] {
            let message = fail(deltaic().arg("verify").arg(&out).args(extent));
            assert!(message.contains(words), "{words}\n{message}");
        }
        original.iter().for_each(|(name, bytes)| std::fs::write(out.join(name), bytes).unwrap());
    }
    assert_eq!(said(deltaic().arg("verify").arg(&out)), "");
}

#[test]
fn an_output_of_another_version_is_compared_in_all_but_the_version() {
    let folder = small_models();
    let out = merged(folder.path(), RECIPES[0], "out", &[]);
    let weights = out.join("model.safetensors");
    let in_header = |from: &[u8], to: &[u8]| {
        let mut bytes = std::fs::read(&weights).unwrap();
        let place = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[place..place + to.len()].copy_from_slice(to);
        std::fs::write(&weights, bytes).unwrap();
    };
    let this = concat!("deltaic.version\":\"", env!("CARGO_PKG_VERSION"));
    in_header(this.as_bytes(), b"deltaic.version\":\"9");
    let message = fail(deltaic().arg("verify").arg(&out));
    assert!(message.contains("header") && message.contains("deltaic.yml: version: expected 9"), "{message}");
    replace(&out, "deltaic.yml", "  version: 0", "  version: 9");
    for extent in [&[][..], &["--full"]] {
        let warning = said(deltaic().arg("verify").arg(&out).args(extent));
        assert!(warning.contains("made by deltaic 9") && warning.contains("hash was not compared"), "{warning}");
    }
    in_header(b"deltaic.seed", b"Deltaic.seed");
    assert!(fail(deltaic().arg("verify").arg(&out)).contains("header"));
}

#[test]
fn what_keeps_an_output_from_being_held_against_its_sources_is_said() {
    let folder = small_models();
    let out = merged(folder.path(), RECIPES[0], "out", &[]);
    let (record, base) = (out.join("deltaic.yml"), folder.path().join("base"));
    let text = std::fs::read(&record).unwrap();
    let gone: &[(&dyn Fn(), &str)] = &[
        (&|| std::fs::write(&record, "merge_method: [").unwrap(), "deltaic.yml:1: "),
        (
            &|| std::fs::write(&record, "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n").unwrap(),
            "no block `deltaic`",
        ),
        (&|| std::fs::remove_file(&record).unwrap(), "deltaic.yml: not there"),
        (
            &|| {
                std::fs::remove_file(&record).unwrap();
                fifo(&record);
            },
            "deltaic.yml: not a file: found a named pipe (FIFO)",
        ),
        (&|| std::fs::rename(&base, folder.path().join("moved")).unwrap(), "/base"),
        (&|| drop(flip_a_bit(&base, &mut 5)), "base: not the model that was merged"),
    ];
    for (make, words) in gone {
        make();
        let warning = said(deltaic().arg("verify").arg(&out));
        assert!(warning.contains("not held against its sources because ") && warning.contains(words), "{words}\n{warning}");
        assert!(fail(deltaic().arg("verify").arg(&out).arg("--full")).contains(words));
        if record.exists() {
            std::fs::remove_file(&record).unwrap();
        }
        std::fs::write(&record, &text).unwrap();
        let _ = std::fs::rename(folder.path().join("moved"), &base);
    }
    // Of a model that deltaic did not make nothing is expected.
    assert_eq!(said(deltaic().arg("verify").arg(folder.path().join("fine-tune-a"))), "");
}

#[test]
fn files_that_the_merge_did_not_write_and_loading_would_take_are_found() {
    let folder = small_models();
    let out = merged(folder.path(), RECIPES[0], "out", &[]);
    std::fs::create_dir(out.join("additional_chat_templates")).unwrap();
    for (name, words) in [
        ("adapter_model.safetensors", "weights that the merge did not write"),
        ("consolidated.safetensors", "weights that the merge did not write"),
        ("pytorch_model.bin", "weights that the merge did not write"),
        ("pytorch_model.bin.index.json", "an index of weights"),
        ("model.safetensors.index.json", "an index of weights"),
        ("adapter_config.json", "an adapter"),
        ("chat_template.jinja", "a chat template"),
        ("additional_chat_templates/tool.jinja", "a chat template"),
        ("modeling_own.py", "code"),
    ] {
        std::fs::write(out.join(name), "{}").unwrap();
        let message = fail(deltaic().arg("verify").arg(&out));
        assert!(message.contains(&format!("{name}: {words}")), "{message}");
        std::fs::remove_file(out.join(name)).unwrap();
    }
    for name in ["merges.txt", "preprocessor_config.json"] {
        std::fs::write(out.join(name), "{}").unwrap();
        let warning = said(deltaic().arg("verify").arg(&out));
        assert!(warning.contains(&format!("warning: {name}: ")) && warning.contains("that the merge did not write"), "{warning}");
        std::fs::remove_file(out.join(name)).unwrap();
    }
    ["LICENSE", ".gitattributes", "README.md"].iter().for_each(|name| std::fs::write(out.join(name), "x").unwrap());
    assert_eq!(said(deltaic().arg("verify").arg(&out)), "");
}

#[test]
fn a_pipe_is_a_recipe_where_the_user_names_it_and_not_within_a_models_folder() {
    let folder = small_models();
    let pipe = folder.path().join("recipe.pipe");
    fifo(&pipe);
    let (writer, out) = (pipe.clone(), folder.path().join("out"));
    let writing = std::thread::spawn(move || std::fs::write(writer, RECIPES[0]).unwrap());
    succeed(deltaic().arg("merge").arg(&pipe).arg(&out));
    writing.join().unwrap();
    std::fs::remove_file(out.join("deltaic.yml")).unwrap();
    fifo(&out.join("deltaic.yml"));
    let recipe = write(folder.path(), "recipe.yml", RECIPES[0]);
    let message = fail(deltaic().arg("merge").arg(recipe).arg(&out).arg("--resume"));
    assert!(message.contains("not empty"), "{message}");
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_source_that_is_not_what_it_was_is_named() {
    let folder = small_models();
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
        let (folder, elsewhere) = (small_models(), tempfile::tempdir().unwrap());
        let out = merged(folder.path(), recipe, "out", flags);
        let again = elsewhere.path().join("again");
        succeed(deltaic().current_dir(elsewhere.path()).arg("merge").arg(out.join("deltaic.yml")).arg(&again));
        for model in [&out, &again] {
            assert_eq!(said(deltaic().arg("verify").arg(model)), "", "{recipe}");
        }
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
    let folder = small_models();
    let out = merged(folder.path(), RECIPES[0], "out", &["--hash"]);
    let text = std::fs::read_to_string(out.join("deltaic.yml")).unwrap();
    for model in ["base", "fine-tune-a", "fine-tune-b"] {
        let sum = succeed(std::process::Command::new("sha256sum").arg(folder.path().join(model).join("model.safetensors")));
        let hash = sum.split(' ').next().unwrap();
        assert!(text.contains(&format!("\"sha256\":\"{hash}\"")), "{model}: {hash}\n{text}");
    }
}
