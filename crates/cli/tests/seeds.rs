//! Seeds and the ids of masks, as a user meets them (DESIGN §5, docs/mask.md).

mod checkpoints;

use std::path::Path;

use checkpoints::{Tensor, deltaic, fail, read, small_models, stderr, succeed, write};
use sha2::{Digest, Sha256};

/// Merges a recipe of the folder's models; the weights.
#[track_caller]
fn merged(folder: &Path, recipe: &str) -> std::collections::BTreeMap<String, Tensor> {
    let out = folder.join("out");
    succeed(deltaic().args(["merge", "--quiet", "--force"]).arg(write(folder, "r.yml", recipe)).arg(&out));
    read(&out)
}

/// The seed that a run says it draws with.
fn said(text: &str) -> Option<u64> {
    text.split("seed ").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// `dare` before task arithmetic of the models, each with what stands behind its name.
fn dare_of(models: &[&str], more: &str) -> String {
    let models: Vec<_> = models.iter().map(|model| format!("{{model: {model}, parameters: {{weight: 1}}}}")).collect();
    format!(
        "merge_method: task_arithmetic\nbase_model: ./base\nmodels: [{}]\nsparsify: {{kind: dare, drop_rate: 0.7}}\n{more}",
        models.join(", ")
    )
}

#[test]
fn without_a_seed_it_is_derived_from_the_documents_bytes_and_printed() {
    let folder = small_models();
    let mut outputs = Vec::new();
    for comment in ["# one\n", "# two\n"] {
        let recipe = dare_of(&["./fine-tune-a"], comment);
        let path = write(folder.path(), "r.yml", &recipe);
        let output = deltaic().args(["merge", "--force"]).arg(&path).arg(folder.path().join("out")).output().unwrap();
        let digest = Sha256::digest(recipe.as_bytes());
        let expected = u64::from_le_bytes(digest[..8].try_into().unwrap());
        assert_eq!(said(&stderr(&output)), Some(expected), "{}", stderr(&output));
        let weights = read(&folder.path().join("out"));
        assert!(weights == merged(folder.path(), &dare_of(&["./fine-tune-a"], &format!("seed: {expected}\n"))));
        outputs.push(weights);
    }
    assert!(outputs[0] != outputs[1], "another document has another mask");
}

#[test]
fn a_random_seed_on_the_command_line_counts_only_where_the_recipe_has_none() {
    let folder = small_models();
    let with_flag = |recipe: &str| {
        let out = folder.path().join("flag");
        succeed(deltaic().args(["merge", "-q", "--force", "--random-seed", "5"]).arg(write(folder.path(), "f.yml", recipe)).arg(&out));
        read(&out)
    };
    let of = |more: &str| dare_of(&["./fine-tune-a"], more);
    assert!(with_flag(&of("")) == merged(folder.path(), &of("seed: 5\n")));
    assert!(with_flag(&of("seed: 6\n")) == merged(folder.path(), &of("seed: 6\n")));
}

#[test]
fn dare_gives_what_the_recipe_that_says_the_same_gives() {
    let folder = small_models();
    for (flags, sparsify) in [
        (&[][..], "drop_rate: 0.9"),
        (&["--rescale", "l1"], "drop_rate: 0.9, rescale: l1"),
        (&["--rescale", "none"], "density: 0.1, rescale: none"),
        (&["--of", "weights"], "drop_rate: 0.9, of: weights"),
        (&["--exclude", ".*norm.*"], "drop_rate: 0.9"),
        (&["--out-dtype", "float32"], "drop_rate: 0.9"),
    ] {
        let out = folder.path().join("dare");
        let mut command = deltaic();
        command.current_dir(&folder).args(["dare", "base", "fine-tune-a", "dare", "--force", "--drop-rate", "0.9", "--seed", "7"]);
        succeed(command.args(flags));
        let more = match flags {
            ["--exclude", pattern] => format!("exclude: ['{pattern}']\n"),
            ["--out-dtype", dtype] => format!("out_dtype: {dtype}\n"),
            _ => String::new(),
        };
        let recipe = format!(
            "preset: paper\nmerge_method: average\nbase_model: ./base\nmodels: [{{model: ./fine-tune-a, seed: 7}}]\nsparsify: {{kind: dare, {sparsify}}}\n{more}"
        );
        assert!(read(&out) == merged(folder.path(), &recipe), "{flags:?}");
    }
}

#[test]
fn dare_without_a_seed_follows_from_base_model_and_options() {
    let folder = small_models();
    let run = |model: &str, rate: &str| {
        let mut command = deltaic();
        command.current_dir(&folder).args(["dare", "base", model, "out", "--force", "--drop-rate", rate]);
        succeed(&mut command);
        let text = std::fs::read_to_string(folder.path().join("out/deltaic.yml")).unwrap();
        (read(&folder.path().join("out")), text)
    };
    assert!(run("fine-tune-a", "0.5") == run("fine-tune-a", "0.5"));
    let masks = |text: &str| text.lines().find(|line| line.contains("masks:")).unwrap().to_owned();
    let of = |model: &str, rate: &str| masks(&run(model, rate).1);
    assert_ne!(of("fine-tune-a", "0.5"), of("fine-tune-b", "0.5"));
    assert_ne!(of("fine-tune-a", "0.5"), of("fine-tune-a", "0.6"));
}

#[test]
fn a_model_with_its_own_seed_has_the_same_mask_alone_and_beside_others() {
    let folder = small_models();
    // The base under another name: a fine-tune that changes nothing, so that it takes a place and no more.
    checkpoints::copy_folder(&folder.path().join("base"), &folder.path().join("unchanged"));
    let own = "./fine-tune-a, seed: 7";
    let alone = merged(folder.path(), &dare_of(&[own], ""));
    assert!(alone == merged(folder.path(), &dare_of(&[own, "./unchanged"], "")));
    assert!(alone == merged(folder.path(), &dare_of(&["./unchanged", own], "seed: 1\n")));
    let places = ["./fine-tune-a", "./unchanged"];
    let first = merged(folder.path(), &dare_of(&places, "seed: 7\n"));
    let second = merged(folder.path(), &dare_of(&[places[1], places[0]], "seed: 7\n"));
    assert!(first != second, "with the recipe's seed the place decides");
    assert!(first != alone, "and it is another mask than that of an own seed");
}

#[test]
fn a_source_that_carries_the_mask_about_to_be_drawn_is_refused() {
    let folder = small_models();
    let mut command = deltaic();
    succeed(command.current_dir(&folder).args(["dare", "base", "fine-tune-a", "dropped", "--drop-rate", "0.5", "--seed", "7"]));
    let mut again = deltaic();
    again.current_dir(&folder).args(["dare", "base", "dropped", "out", "--drop-rate", "0.5", "--seed"]);
    let message = fail(again.arg("7"));
    assert!(message.contains("seed 7") && message.contains("dropped"), "{message}");
    let mut another = deltaic();
    succeed(another.current_dir(&folder).args(["dare", "base", "dropped", "twice", "--drop-rate", "0.5", "--seed", "8"]));
    // Ids are handed on: what was made from a dropped model carries both.
    for seed in ["7", "8"] {
        let mut third = deltaic();
        third.current_dir(&folder).args(["dare", "base", "twice", "out", "--drop-rate", "0.5", "--seed", seed]);
        assert!(fail(&mut third).contains("mask"), "{seed}");
    }
    // And so does a plain average of such a model.
    let recipe = "merge_method: average\nmodels: [{model: ./dropped}, {model: ./fine-tune-b}]\n";
    merged(folder.path(), recipe);
    let mut of_average = deltaic();
    of_average.current_dir(&folder).args(["dare", "base", "out", "other", "--drop-rate", "0.5", "--seed", "7"]);
    assert!(fail(&mut of_average).contains("mask"));
}

#[test]
fn one_seed_for_two_masks_of_one_recipe_is_refused() {
    let folder = small_models();
    let models = |of: [&str; 2]| of.map(|own| format!("{{model: ./fine-tune-{own}, parameters: {{weight: 1, density: 0.5}}}}")).join(", ");
    for (what, recipe, works) in [
        (
            "sparsify before dare_ties",
            format!(
                "merge_method: dare_ties\nbase_model: ./base\nmodels: [{}]\nsparsify: {{kind: dare, drop_rate: 0.5}}\n",
                models(["a", "b"])
            ),
            format!(
                "merge_method: dare_ties\nbase_model: ./base\nmodels: [{}]\nsparsify: {{kind: dare, drop_rate: 0.5, seed: 1}}\n",
                models(["a", "b"])
            ),
        ),
        (
            "two models with one own seed",
            dare_of(&["./fine-tune-a, seed: 3", "./fine-tune-b, seed: 3"], ""),
            dare_of(&["./fine-tune-a, seed: 3", "./fine-tune-b, seed: 4"], ""),
        ),
        (
            "two models of dare_linear with one own seed",
            format!("merge_method: dare_linear\nbase_model: ./base\nmodels: [{}]\n", models(["a, seed: 3", "b, seed: 3"])),
            format!("merge_method: dare_linear\nbase_model: ./base\nmodels: [{}]\n", models(["a, seed: 3", "b"])),
        ),
    ] {
        let message = fail(deltaic().arg("plan").arg(write(folder.path(), "r.yml", &recipe)));
        assert!(message.contains("seed") && message.contains("mask"), "{what}: {message}");
        merged(folder.path(), &works);
    }
}
