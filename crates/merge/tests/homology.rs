//! Whether samples tell an unrelated model from a fine-tune, over all pairs of the golden models and of the zoo that align.
//!
//! Models of one kind (a folder's name up to the first `-`) are fine-tunes of one base, kinds are unrelated to each other.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deltaic_merge::checks::homology::{Relation, UNRELATED_COSINE, relations};
use deltaic_merge::recipe::{Document, UnknownPolicy, parse};
use deltaic_merge::{Plan, PlanOptions, checks};

/// A model with its kind.
struct Model {
    name: String,
    kind: String,
    path: String,
}

/// Says something whether or not the test passes.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// The models of a folder; adapters stand on the base that their configuration names.
fn models(folder: &Path) -> Vec<Model> {
    let mut folders: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let kind = |name: &str| name.split('-').next().unwrap().to_owned();
    let model = |path: PathBuf| -> Option<Model> {
        if path.join("config.json").exists() {
            return Some(Model { name: name(&path), kind: kind(&name(&path)), path: path.to_str()?.to_owned() });
        }
        let text = std::fs::read_to_string(path.join("adapter_config.json")).ok()?;
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        let base = name(Path::new(config["base_model_name_or_path"].as_str()?));
        let on_base = format!("{}+{}", folder.join(&base).to_str()?, path.to_str()?);
        folder.join(&base).exists().then(|| Model { name: name(&path), kind: kind(&base), path: on_base })
    };
    folders.into_iter().filter_map(model).collect()
}

/// A merge of one model onto another, whole or without what depends on vocabulary and task; None where they do not align.
fn plan(base: &Model, model: &Model, method: &str) -> Option<Plan> {
    let tries = ["", "exclude: ['.*classifier.*']", "exclude: ['.*embed_tokens.*', 'lm_head.*', '.*classifier.*', '.*pooler.*']"];
    tries.iter().find_map(|exclude| {
        let recipe = format!("base_model: {}\nmodels: [{{model: '{}'}}]\n{method}\n{exclude}\n", base.path, model.path);
        let (recipe, _) = parse(Arc::new(Document::new("recipe", recipe, ".")), UnknownPolicy::Strict).unwrap();
        Plan::new(recipe, PlanOptions::default()).ok()
    })
}

fn relation(base: &Model, model: &Model) -> Option<(Plan, Relation)> {
    let plan = plan(base, model, "merge_method: task_arithmetic\nparameters: {weight: 0.5}")?;
    let mut found = relations(&plan).unwrap();
    assert_eq!(found.len(), 1);
    Some((plan, found.remove(0)))
}

/// Checks all ordered pairs of a folder.
fn all_pairs(test: &str, folder: Option<PathBuf>) {
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else { return say(&format!("skipped: {test}: no models")) };
    let models = models(&folder);
    let (mut related, mut unrelated, mut apart) = (Vec::new(), Vec::new(), 0);
    for base in &models {
        for model in models.iter().filter(|model| model.name != base.name) {
            let Some((plan, found)) = relation(base, model) else {
                apart += 1;
                continue;
            };
            let cosines = found.matrices.iter().map(|(_, cosine)| *cosine);
            let (least, most) = (cosines.clone().fold(1.0, f64::min), cosines.fold(-1.0, f64::max));
            say(&format!(
                "{:>24} {:24} norm {:.4} cosine {:.4} of {:2} matrices {least:.3} .. {most:.3}; {}",
                base.name,
                model.name,
                found.relative_norm,
                found.cosine,
                found.matrices.len(),
                found.shares.described()
            ));
            let of_one_kind = base.kind == model.kind;
            assert_eq!(found.is_of_another_base(), !of_one_kind, "{} {}", base.name, model.name);
            let said = checks::before(&plan).unwrap();
            assert_eq!(said.iter().any(|warning| warning.contains("another base than")), !of_one_kind, "{said:?}");
            if of_one_kind { related.push((found.cosine, least)) } else { unrelated.push((found.cosine, most)) }
        }
    }
    let least = |pairs: &[(f64, f64)]| pairs.iter().fold((1.0, 1.0), |(a, b): (f64, f64), (x, y)| (a.min(*x), b.min(*y)));
    let most = |pairs: &[(f64, f64)]| pairs.iter().fold((-1.0, -1.0), |(a, b): (f64, f64), (x, y)| (a.max(*x), b.max(*y)));
    say(&format!(
        "{} pairs of one kind: least cosine, of a matrix {:?}; {} of two kinds: greatest {:?}; {apart} do not align; criterion {UNRELATED_COSINE}",
        related.len(),
        least(&related),
        unrelated.len(),
        most(&unrelated)
    ));
    assert!(!related.is_empty());
}

#[test]
fn an_unrelated_model_is_told_from_a_fine_tune_in_all_pairs_of_the_golden_kinds() {
    let golden = std::env::var_os("DELTAIC_GOLDEN").map(|folder| PathBuf::from(folder).join("models"));
    all_pairs("an_unrelated_model_is_told_from_a_fine_tune_in_all_pairs_of_the_golden_kinds", golden);
}

#[test]
fn an_unrelated_model_is_told_from_a_fine_tune_in_all_pairs_of_the_zoo() {
    let zoo = std::env::var_os("DELTAIC_ZOO").map(PathBuf::from);
    all_pairs("an_unrelated_model_is_told_from_a_fine_tune_in_all_pairs_of_the_zoo", zoo);
}
