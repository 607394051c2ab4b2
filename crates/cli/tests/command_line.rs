//! The command line as a user meets it: what is printed where, what becomes of OUT, and how a run ends.

mod checkpoints;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use checkpoints::{deltaic, fail, files, header, json, read, read_file, shards, small_models, stderr, succeed, write};
use serde_json::Value;

const AVERAGE: &str = "merge_method: average\nbase_model: ./base\nmodels: [{model: ./fine-tune-a}, {model: ./fine-tune-b}]\n";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn merge_makes_out_and_prints_its_path_and_size_on_stdout_and_nothing_else() {
    let folder = small_models();
    let out = folder.path().join("out");
    let stdout = succeed(deltaic().arg("merge").arg(write(folder.path(), "r.yml", AVERAGE)).arg(&out));
    let path = format!("{}  ", out.display());
    assert!(stdout.starts_with(&path) && stdout.ends_with('\n') && stdout.lines().count() == 1, "{stdout}");
    assert!(stdout.trim_end().ends_with('B'), "{stdout}");
    let expected = [
        "README.md",
        "config.json",
        "deltaic.yml",
        "generation_config.json",
        "mergekit_config.yml",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&out), expected);
    assert_eq!(files(&out)["mergekit_config.yml"], AVERAGE.as_bytes());
    assert_eq!(names(folder.path()), ["base", "fine-tune-a", "fine-tune-b", "out", "r.yml"]);
}

#[test]
fn json_of_a_merge_has_folder_and_the_bytes_of_all_files() {
    let folder = small_models();
    let out = folder.path().join("out");
    let stdout = succeed(deltaic().args(["merge", "--json"]).arg(write(folder.path(), "r.yml", AVERAGE)).arg(&out));
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(result["folder"], out.to_str().unwrap());
    assert_eq!(result["bytes"], files(&out).values().map(Vec::len).sum::<usize>());
    assert_eq!(result["seed"], Value::Null, "nothing is drawn at random");
}

#[test]
fn out_with_something_in_it_is_refused_and_untouched() {
    let folder = small_models();
    let (out, recipe) = (folder.path().join("out"), write(folder.path(), "r.yml", AVERAGE));
    std::fs::create_dir(&out).unwrap();
    write(&out, "notes.txt", "mine");
    let before = names(folder.path());
    assert!(fail(deltaic().arg("merge").arg(&recipe).arg(&out)).contains("--force"));
    assert_eq!((names(&out), names(folder.path())), (vec!["notes.txt".to_owned()], before));
    let file = write(folder.path(), "file", "mine");
    assert!(fail(deltaic().args(["merge", "--force"]).arg(&recipe).arg(&file)).contains("not a folder"));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[test]
fn an_empty_folder_is_as_good_as_none() {
    let folder = small_models();
    std::fs::create_dir(folder.path().join("out")).unwrap();
    succeed(deltaic().current_dir(&folder).arg("merge").arg(write(folder.path(), "r.yml", AVERAGE)).arg("out"));
    assert!(folder.path().join("out/model.safetensors").exists());
}

#[test]
fn force_replaces_all_of_the_old_out() {
    let folder = small_models();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    write(&out, "model-00001-of-00002.safetensors", "of an older merge");
    succeed(deltaic().args(["merge", "--force"]).arg(write(folder.path(), "r.yml", AVERAGE)).arg(&out));
    assert!(!out.join("model-00001-of-00002.safetensors").exists());
    assert_eq!(read(&out).len(), read(&folder.path().join("base")).len());
    assert_eq!(names(folder.path()), ["base", "fine-tune-a", "fine-tune-b", "out", "r.yml"]);
}

#[test]
fn out_at_inside_or_above_a_source_is_refused_even_with_force() {
    let folder = small_models();
    let recipe = write(folder.path(), "r.yml", AVERAGE);
    std::fs::create_dir(folder.path().join("base/empty")).unwrap();
    for out in ["base", "fine-tune-a", "base/empty", "base/new", "fine-tune-b/new/er", ".", "base/../fine-tune-a/."] {
        let message = fail(deltaic().current_dir(&folder).args(["merge", "--force"]).arg(&recipe).arg(out));
        assert!(message.contains("source"), "{out}: {message}");
        let mut expected = names(&checkpoints::workspace().join("tests/models/base"));
        assert_eq!(names(&folder.path().join("fine-tune-b")), expected, "{out}");
        expected.insert(1, "empty".to_owned());
        assert_eq!(names(&folder.path().join("base")), expected, "{out}");
    }
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let folder = small_models();
    let recipe = write(folder.path(), "r.yml", AVERAGE);
    let before = names(folder.path());
    let dry = succeed(deltaic().current_dir(&folder).args(["merge", "--dry-run", "r.yml", "out"]));
    assert_eq!(dry, succeed(deltaic().arg("plan").arg(&recipe)));
    assert!(dry.contains("merge_method: average") && dry.contains("model.norm.weight"), "{dry}");
    assert_eq!(names(folder.path()), before);
    let message = fail(deltaic().current_dir(&folder).args(["merge", "--dry-run", "--force", "r.yml", "base"]));
    assert!(message.contains("source"), "a dry run says what the run would say: {message}");
}

#[test]
fn plan_as_json_accounts_for_every_tensor_and_byte() {
    let folder = small_models();
    let plan: Value =
        serde_json::from_str(&succeed(deltaic().args(["plan", "--json"]).arg(write(folder.path(), "r.yml", AVERAGE)))).unwrap();
    let base = read(&folder.path().join("base"));
    assert_eq!(plan["tensors"].as_array().unwrap().len(), base.len());
    assert_eq!(plan["bytes_written"], base.values().map(|tensor| tensor.bytes.len()).sum::<usize>());
    assert_eq!(plan["parameters"], base.values().map(|tensor| tensor.shape.iter().product::<usize>()).sum::<usize>());
    assert_eq!(plan["sources"].as_array().unwrap().len(), 3);
}

#[test]
fn exit_codes_tell_done_from_failed_from_wrong_usage() {
    let folder = small_models();
    let code = |arguments: &[&str]| deltaic().current_dir(&folder).args(arguments).output().unwrap().status.code();
    write(folder.path(), "r.yml", AVERAGE);
    write(folder.path(), "wrong.yml", "merge_method: averge\nmodels: [{model: ./base}]\n");
    for (expected, arguments) in [
        (0, &["--help"][..]),
        (0, &["--version"]),
        (0, &["merge", "--help"]),
        (0, &["plan", "r.yml"]),
        (1, &["plan", "no-such-recipe.yml"]),
        (1, &["merge", "wrong.yml", "out"]),
        (1, &["inspect", "./no-such-model"]),
        (1, &["methods", "no-such-method"]),
        (2, &[]),
        (2, &["mrege", "r.yml", "out"]),
        (2, &["merge", "r.yml"]),
        (2, &["merge", "r.yml", "out", "--no-such-flag"]),
        (2, &["merge", "r.yml", "out", "--threads", "0"]),
        (2, &["merge", "r.yml", "out", "--strict", "--ignore-unknown"]),
        (2, &["merge", "r.yml", "out", "--instruction-set", "sse9"]),
        (2, &["dare", "base", "fine-tune-a", "out", "--drop-rate", "1.5"]),
    ] {
        assert_eq!(code(arguments), Some(expected), "{arguments:?}");
    }
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let folder = small_models();
    let recipe = write(folder.path(), "r.yml", AVERAGE);
    for verb in ["methods", "plan", "completions"] {
        let mut command = deltaic();
        match verb {
            "plan" => command.arg(verb).arg(&recipe),
            "completions" => command.args([verb, "bash"]),
            _ => command.arg(verb),
        };
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{verb}: {:?}", output.status);
        assert_eq!(stderr(&output), "", "{verb}");
    }
}

#[test]
fn a_recipe_is_read_from_stdin_with_paths_from_the_working_directory() {
    let folder = small_models();
    let mut child = deltaic().current_dir(&folder).args(["merge", "-", "out"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(AVERAGE.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    succeed(deltaic().arg("merge").arg(write(folder.path(), "r.yml", AVERAGE)).arg(folder.path().join("other")));
    assert_eq!(read(&folder.path().join("out")), read(&folder.path().join("other")));
}

#[test]
fn card_config_and_weights_hold_no_path_of_this_machine() {
    let folder = small_models();
    let absolute = AVERAGE.replace("./", &format!("{}/", folder.path().display())) + "sparsify: {kind: dare, drop_rate: 0.5}\n";
    let recipe = write(folder.path(), "r.yml", &absolute);
    let out = folder.path().join("out");
    succeed(deltaic().arg("merge").arg(&recipe).arg(&out));
    let place = folder.path().to_str().unwrap();
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("fine-tune-a"), "a local model goes by its last component: {card}");
    assert!(!card.contains(place), "{card}");
    assert!(!header(&out.join("model.safetensors")).contains(place));
    assert!(!std::fs::read_to_string(out.join("config.json")).unwrap().contains(place));
    assert!(std::fs::read_to_string(out.join("deltaic.yml")).unwrap().contains(place), "this one runs from any folder");
}

#[test]
fn the_shard_size_splits_the_weights_and_the_index_says_where_they_are() {
    let folder = small_models();
    let recipe = write(folder.path(), "r.yml", AVERAGE);
    let (whole, split) = (folder.path().join("whole"), folder.path().join("split"));
    succeed(deltaic().arg("merge").arg(&recipe).arg(&whole));
    succeed(deltaic().args(["merge", "--out-shard-size", "10KB"]).arg(&recipe).arg(&split));
    assert_eq!(read(&whole), read(&split));
    assert!(!whole.join("model.safetensors.index.json").exists());
    let (index, shards) = (json(&split.join("model.safetensors.index.json")), shards(&split));
    let (mut placed, mut total) = (0, 0);
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        assert_eq!(shard.file_name().unwrap(), name.as_str());
        let tensors = read_file(shard);
        let bytes: usize = tensors.values().map(|tensor| tensor.bytes.len()).sum();
        assert!(bytes <= 10_000 || tensors.len() == 1, "{name} has {bytes} bytes");
        assert!(tensors.keys().all(|tensor| index["weight_map"][tensor] == name.as_str()), "{name}");
        (placed, total) = (placed + tensors.len(), total + bytes);
    }
    assert!(shards.len() > 3);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), placed);
    assert_eq!(index["metadata"]["total_size"], total);
}

#[test]
fn what_comes_later_is_an_error_that_begins_with_not_yet() {
    let folder = small_models();
    for (what, recipe) in [
        ("della", "merge_method: della\nbase_model: ./base\nmodels: [{model: ./fine-tune-a, parameters: {weight: 1}}]\n"),
        ("chat_template", &format!("{AVERAGE}chat_template: chatml\n")),
        ("documents", &format!("{AVERAGE}---\n{AVERAGE}")),
    ] {
        let message = fail(deltaic().current_dir(&folder).arg("plan").arg(write(folder.path(), "r.yml", recipe)));
        assert!(message.starts_with("error: not yet: "), "{what}: {message}");
    }
}

#[test]
fn a_wrong_key_is_an_error_with_line_and_suggestion() {
    let folder = small_models();
    let recipe = "merge_method: ties\nbase_model: ./base\nmodels:\n  - model: ./fine-tune-a\n    parameters: {weight: 1, densty: 0.5}\n";
    let recipe = write(folder.path(), "r.yml", recipe);
    let message = fail(deltaic().arg("plan").arg(&recipe));
    assert!(message.contains("r.yml:5: ") && message.contains("did you mean `density`?") && message.contains("^^^^^^"), "{message}");
    succeed(deltaic().args(["plan", "--ignore-unknown"]).arg(&recipe));
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeed(deltaic().args(["completions", shell]));
        assert!(script.len() > 1000 && script.contains("merge"), "{shell}: {} bytes", script.len());
    }
}

#[test]
fn inspect_counts_what_the_file_holds() {
    let base = checkpoints::workspace().join("tests/models/base");
    let inspected: Value = serde_json::from_str(&succeed(deltaic().args(["inspect", "--json"]).arg(&base))).unwrap();
    let text = inspected.to_string();
    let parameters: usize = read(&base).values().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    assert!(text.contains(&parameters.to_string()) && text.contains("LlamaForCausalLM") && text.contains("model.norm.weight"), "{text}");
}

/// A model of one zero tensor of 2^26 elements: written as a hole, read as zeros, and work for a while.
fn large_model(folder: &Path) {
    const ELEMENTS: u64 = 1 << 26;
    std::fs::create_dir(folder).unwrap();
    write(folder, "config.json", r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1}"#);
    let header =
        format!(r#"{{"model.layers.0.mlp.up_proj.weight":{{"dtype":"F32","shape":[8192,8192],"data_offsets":[0,{}]}}}}"#, 4 * ELEMENTS);
    let header = format!("{header:width$}", width = header.len().next_multiple_of(8));
    let mut file = std::fs::File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + 4 * ELEMENTS).unwrap();
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_work_and_leaves_what_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    ["base", "a", "b"].iter().for_each(|model| large_model(&folder.path().join(model)));
    let of = |model| format!("{{model: ./{model}, parameters: {{weight: 0.5, density: 0.5}}}}");
    write(folder.path(), "r.yml", &format!("merge_method: ties\nbase_model: ./base\nmodels: [{}, {}]\n", of("a"), of("b")));
    std::fs::create_dir(folder.path().join("out")).unwrap();
    write(&folder.path().join("out"), "config.json", r#"{"model_type": "llama"}"#);
    let before = names(folder.path());
    for (signal, out) in [("-INT", "new"), ("-TERM", "new"), ("-INT", "out")] {
        let mut command = deltaic();
        command.current_dir(&folder).args(["merge", "--force", "--threads", "2", "r.yml", out]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !names(folder.path()).iter().any(|name| name.contains(".partial-")) {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the merge did not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(30));
        assert!(std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let sent = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(sent.elapsed() < Duration::from_secs(20), "{signal}: still at work");
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{signal}: {}", stderr(&output));
        assert!(stderr(&output).contains("cancelled") && output.stdout.is_empty(), "{signal}: {}", stderr(&output));
        assert_eq!(names(folder.path()), before, "{signal}");
        assert_eq!(names(&folder.path().join("out")), ["config.json"], "{signal}");
    }
}

#[test]
fn links_neither_bring_files_of_this_machine_into_the_output_nor_let_it_be_written_over_a_source() {
    let folder = small_models();
    let (base, store, view) = (folder.path().join("base"), folder.path().join("fine-tune-a"), folder.path().join("view"));
    let recipe = write(
        folder.path(),
        "r.yml",
        "merge_method: task_arithmetic\nbase_model: ./base\nmodels: [{model: ./view, parameters: {weight: 0.5}}]\n",
    );
    std::fs::create_dir(&view).unwrap();
    for name in names(&store) {
        std::os::unix::fs::symlink(store.join(&name), view.join(&name)).unwrap();
    }
    let before = files(&store);
    assert!(fail(deltaic().args(["merge", "--force"]).arg(&recipe).arg(&store)).contains("source"));
    assert_eq!(files(&store), before);

    let secret = write(folder.path(), "secret", "mine alone");
    std::fs::remove_file(base.join("tokenizer.json")).unwrap();
    std::os::unix::fs::symlink(&secret, base.join("tokenizer.json")).unwrap();
    let out = folder.path().join("out");
    assert!(fail(deltaic().arg("merge").arg(&recipe).arg(&out)).contains("a link out of the model's folder"));
    assert!(!out.exists());
}

#[test]
fn an_out_that_is_a_link_is_refused_before_the_work() {
    let folder = small_models();
    let (link, recipe) = (folder.path().join("link"), write(folder.path(), "r.yml", AVERAGE));
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for target in ["empty", "nowhere"] {
        std::os::unix::fs::symlink(folder.path().join(target), &link).unwrap();
        assert!(fail(deltaic().args(["merge", "--force", "--dry-run"]).arg(&recipe).arg(&link)).contains("a symbolic link"));
        std::fs::remove_file(&link).unwrap();
    }
}

#[test]
fn deny_nan_writes_nothing_where_an_element_is_not_finite() {
    let folder = small_models();
    // An infinite scale makes every element infinite or NaN.
    let recipe = "merge_method: passthrough\nmodels: [{model: ./base, parameters: {scale: 3.0e+38}}]\nout_dtype: float16\n";
    let (recipe, out) = (write(folder.path(), "r.yml", recipe), folder.path().join("out"));
    assert!(fail(deltaic().args(["merge", "--deny-nan"]).arg(&recipe).arg(&out)).contains("NaN or infinite"));
    assert!(!out.exists());
    succeed(deltaic().arg("merge").arg(&recipe).arg(&out));
}

#[test]
fn no_copy_tokenizer_leaves_out_what_the_recipe_does_not_ask_for() {
    let folder = small_models();
    for (more, copied) in [("", false), ("tokenizer_source: base\n", true)] {
        let recipe = write(folder.path(), "r.yml", &format!("{AVERAGE}{more}"));
        let out = folder.path().join("out");
        succeed(deltaic().args(["merge", "--quiet", "--force", "--no-copy-tokenizer"]).arg(&recipe).arg(&out));
        assert_eq!(out.join("tokenizer.json").exists(), copied, "{more}");
        assert!(out.join("generation_config.json").exists());
    }
}
