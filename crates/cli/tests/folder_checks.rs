//! The checks of a model folder raise no false alarm: over a model of every architecture as transformers saves it, and over the zoo and
//! what is merged of it. `DELTAIC_ZOO` and `DELTAIC_PYTHON` as in `real_models.rs`.

mod checkpoints;

use std::path::Path;

use checkpoints::{deltaic, named_by, python, say, skipped, succeed, write};
use deltaic_merge::checks::folder::{Expected, folder};

#[track_caller]
fn assert_clean(model: &Path, expected: Option<&Expected<'_>>) {
    let found = folder(model, expected).unwrap();
    assert!(found.is_empty(), "{}: {found:#?}", model.display());
}

#[test]
fn a_model_of_every_architecture_as_transformers_saves_it_gives_no_finding() {
    const NAME: &str = "a_model_of_every_architecture_as_transformers_saves_it_gives_no_finding";
    let Some(interpreter) = named_by("DELTAIC_PYTHON", NAME) else { return };
    let models = tempfile::tempdir().unwrap();
    let Some(count) = python(&interpreter, "every_architecture.py", &[models.path().as_os_str()]) else { return };
    let mut checked = 0;
    for model in models.path().read_dir().unwrap() {
        assert_clean(&model.unwrap().path(), None);
        checked += 1;
    }
    assert_eq!(checked.to_string(), count.trim());
    say(&format!("{checked} models"));
}

#[test]
fn the_zoo_and_its_merges_give_no_finding() {
    const NAME: &str = "the_zoo_and_its_merges_give_no_finding";
    let Some(zoo) = named_by("DELTAIC_ZOO", NAME) else { return };
    let out = tempfile::tempdir().unwrap();
    let bert = "merge_method: task_arithmetic\nbase_model: minilm-l6\nmodels:\n  - {model: minilm-sst2, parameters: {weight: 0.5}}\n  - {model: minilm-mrpc, parameters: {weight: 0.5}}\nexclude: ['.*classifier.*']\n";
    let adapted = "merge_method: average\nmodels:\n  - model: smollm2-135m-instruct+smollm2-lora-code\n  - model: smollm2-135m-instruct+smollm2-lora-gsm8k\n";
    for (model, recipe) in [("minilm-l6", bert), ("smollm2-135m-instruct", adapted)] {
        let source = zoo.join(model);
        if !source.is_dir() {
            skipped(NAME, &format!("{} is not there", source.display()));
            continue;
        }
        assert_clean(&source, None);
        let merged = out.path().join(model);
        succeed(deltaic().current_dir(&zoo).args(["merge", "--quiet"]).arg(write(out.path(), "r.yml", recipe)).arg(&merged));
        assert_clean(&merged, Some(&Expected { tokenizer_from: Some(&source), side_files_from: Some(&source) }));
    }
    for model in ["minilm-sst2", "minilm-mrpc", "minilm-stsb", "minilm-cola"].map(|name| zoo.join(name)) {
        if model.is_dir() {
            assert_clean(&model, None);
        }
    }
}
