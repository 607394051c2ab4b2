//! One's own statistics against those of the authors' program (`shared/golden/cases/{fisher,regmean}-*`), by the rules of its README.
//!
//! The cases lie outside of the repository: `$DELTAIC_GOLDEN`, else `../shared/golden` beside the workspace. Where they are not, the tests
//! say so and pass.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{DType, SafetensorsFile, TensorSource, Window};
use deltaic_eval::LocalSource;
use deltaic_merge::recipe::{DataSettings, DataSource, Document, FisherBatch, Order, Padding, Recipe, UnknownPolicy, parse};
use deltaic_merge::{MergeOptions, MergedInMemory, PlanOptions};
use deltaic_study::statistics::{Examples, StatisticsModel, StatisticsOptions, StatisticsSettings, compute};

/// The cases whose names begin with `prefix`: those with DARE before the method, or those without.
fn cases(prefix: &str, with_dare: bool) -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let folder = std::env::var_os("DELTAIC_GOLDEN").map_or(beside, PathBuf::from).join("cases");
    let Ok(entries) = folder.read_dir() else {
        eprintln!("SKIPPED {prefix}: {} is not there", folder.display());
        return Vec::new();
    };
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| {
        let name = case.file_name().unwrap().to_string_lossy();
        name.starts_with(prefix) && name.ends_with("-dare") == with_dare
    });
    cases.sort();
    assert!(!cases.is_empty(), "{} has no case {prefix}*", folder.display());
    cases
}

fn recipe(case: &Path) -> Recipe {
    parse(Arc::new(Document::read(&case.join("recipe.yml")).unwrap()), UnknownPolicy::Strict).unwrap().0
}

/// A model of a case as its statistics are made of it: after the recipe's sparsifier, where it has one.
fn model(recipe: &Recipe, number: usize) -> StatisticsModel {
    let cancel = AtomicBool::new(false);
    let source = if recipe.sparsify.is_some() {
        let merged =
            MergedInMemory::sparsified(recipe, number, PlanOptions::default(), &MergeOptions::default(), &cancel, &|_| {}).unwrap();
        let (config, tokenizer, id) = (merged.config.clone(), merged.tokenizer.clone(), merged.id.clone());
        LocalSource { name: "sparsified".to_owned(), id, config, tokenizer, tensors: Box::new(merged) }
    } else {
        LocalSource::open(&recipe.models()[number], &[(recipe.document.folder.clone(), "the case")]).unwrap()
    };
    StatisticsModel::new(source, None).unwrap()
}

fn values(source: &dyn TensorSource, name: &str) -> Vec<f32> {
    let elements = source.tensors()[name].elements() as usize;
    let mut window = Window { dtype: DType::F32, bytes: Vec::new() };
    source.read(name, 0, elements, &mut window).unwrap();
    assert_eq!(window.dtype, DType::F32);
    window.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The largest magnitude of a file's elements.
fn largest(source: &dyn TensorSource) -> f32 {
    source.tensors().keys().flat_map(|name| values(source, name)).fold(0.0, |largest, value| largest.max(value.abs()))
}

/// Compares the statistics of every model of a case; gives the worst difference as a part of what is allowed.
fn compare(case: &Path, settings: impl Fn(&Recipe) -> StatisticsSettings) -> f32 {
    let (cancel, recipe) = (AtomicBool::new(false), recipe(case));
    let mut worst = 0.0_f32;
    for (number, reference) in recipe.models().iter().enumerate() {
        // `bert-a` has `inputs-a` and `statistics-a`.
        let (_, letter) = reference.path.rsplit_once('-').unwrap();
        let expected = SafetensorsFile::open(&case.join(format!("statistics-{letter}.safetensors"))).unwrap();
        let model = model(&recipe, number);
        let source = DataSource::Inputs(format!("inputs-{letter}.safetensors"));
        let examples = Examples::read(&DataSettings { source, examples: None, order: Order::File }, case, &model).unwrap();
        assert_eq!(examples.list.len(), 40);
        let found = compute(&model, &examples, &settings(&recipe), &StatisticsOptions::new(&cancel)).unwrap();
        let noise = 1e-9 * largest(&expected);
        for name in expected.tensors().keys() {
            let (got, want) = (values(&found, name), values(&expected, name));
            assert_eq!(found.tensors()[name].shape, expected.tensors()[name].shape, "{name}");
            let allowed = (1e-4 * want.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()))).max(noise);
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= allowed, "{}: {letter}: {name}: {got} for {want}, allowed {allowed}", case.display());
                worst = worst.max((got - want).abs() / allowed);
            }
        }
        // The authors left the classifier out, which was not to be merged; here it is there.
        assert!(found.tensors().contains_key("classifier.weight"));
    }
    worst
}

fn fisher(with_dare: bool) {
    for case in cases("fisher-", with_dare) {
        let worst = compare(&case, |recipe| {
            assert_eq!(recipe.fisher.batch, FisherBatch::Sum { size: 4 });
            StatisticsSettings::Fisher(recipe.fisher)
        });
        eprintln!("{}: {worst:.4} of what is allowed", case.file_name().unwrap().display());
    }
}

fn gram(with_dare: bool) {
    for case in cases("regmean-", with_dare) {
        let worst = compare(&case, |recipe| {
            assert_eq!(recipe.gram.padding, Padding::Include);
            StatisticsSettings::Gram(recipe.gram)
        });
        eprintln!("{}: {worst:.4} of what is allowed", case.file_name().unwrap().display());
    }
}

#[test]
fn fisher_in_batches_is_that_of_the_authors_program() {
    fisher(false);
}

#[test]
fn gram_matrices_with_padding_are_those_of_the_authors_program() {
    gram(false);
}

#[test]
fn statistics_of_sparsified_models_are_those_of_the_authors_program() {
    fisher(true);
    gram(true);
}
