//! The quickstart's models, as they are in the repository: each fine-tune has an ability that the other lacks, the recipe's merge has both.
#![cfg(feature = "eval")]

mod checkpoints;

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::{deltaic, succeed, workspace, write};
use serde_json::Value;

/// The least that a model scores on its own task, and the most on one that it was not trained for.
const HAS: f64 = 0.9;
const LACKS: f64 = 0.1;

/// Headlines of `models` by model and task, asked in the folder of the quickstart.
fn scores(models: &[&str]) -> BTreeMap<(String, String), f64> {
    let folder = workspace().join("examples/quickstart");
    let tasks = ["--task", "./reverse.yml", "--task", "./twice.yml", "--data", ".", "--json"];
    let output = succeed(deltaic().current_dir(folder).arg("eval").args(models).args(tasks));
    let json: Value = serde_json::from_str(&output).unwrap();
    let results = json["results"].as_array().unwrap().iter().map(|result| {
        assert_eq!(result["items"], 200);
        let name = |key: &str| result[key].as_str().unwrap().to_owned();
        ((name("model"), name("task")), result["metrics"]["headline"].as_f64().unwrap())
    });
    results.collect()
}

#[test]
fn each_fine_tune_has_one_ability_and_the_base_none() {
    let expected = [("./base", false, false), ("./fine-tune-a", true, false), ("./fine-tune-b", false, true)];
    let scores = scores(&expected.map(|(model, ..)| model));
    for (model, reverses, doubles) in expected {
        for (task, has) in [("reverse", reverses), ("twice", doubles)] {
            let score = scores[&(model.to_owned(), task.to_owned())];
            assert!(if has { score >= HAS } else { score <= LACKS }, "{model} on {task}: {score}");
        }
    }
}

#[test]
fn the_recipes_merge_has_both_abilities_whatever_elements_are_dropped() {
    let text = std::fs::read_to_string(workspace().join("examples/quickstart/recipe.yml")).unwrap();
    assert!(text.contains("\nseed: 42\n"));
    let folder = tempfile::tempdir().unwrap();
    let models = workspace().join("examples/quickstart");
    let absolute = text.replace("./", &format!("{}/", models.display()));
    let recipe = |seed: u64| write(folder.path(), &format!("{seed}.yml"), &absolute.replace("seed: 42", &format!("seed: {seed}")));
    let recipes = [42, 1, 2, 3].map(recipe);
    let scores = scores(&recipes.each_ref().map(|path: &std::path::PathBuf| path.to_str().unwrap()));
    assert_eq!(scores.len(), 8);
    for ((recipe, task), score) in scores {
        assert!(score >= HAS, "{} on {task}: {score}", Path::new(&recipe).file_name().unwrap().display());
    }
}

#[test]
fn all_files_of_the_three_models_are_under_6_mb() {
    let size = |model| checkpoints::files(&workspace().join("examples/quickstart").join(model)).values().map(Vec::len).sum::<usize>();
    let sizes = ["base", "fine-tune-a", "fine-tune-b"].map(size);
    assert!(sizes.iter().sum::<usize>() < 6_000_000, "{sizes:?}");
}
