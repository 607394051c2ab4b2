//! One's own statistics against those of the authors' program (`shared/golden/cases/{fisher,regmean}-*`), by the rules of its README.
//!
//! The cases lie outside of the repository: `$DELTAIC_GOLDEN`, else `../shared/golden` beside the workspace. Where they are not, the tests
//! say so and pass.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::{DType, ModelReference, SafetensorsFile, TensorSource, Window};
use deltaic_eval::LocalSource;
use deltaic_merge::recipe::{DataSettings, DataSource, FisherBatch, FisherSettings, GramSettings, Order, Padding, Targets};
use deltaic_study::statistics::{Examples, StatisticsModel, StatisticsOptions, StatisticsSettings, compute};

fn cases(prefix: &str) -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let folder = std::env::var_os("DELTAIC_GOLDEN").map_or(beside, PathBuf::from).join("cases");
    let Ok(entries) = folder.read_dir() else {
        eprintln!("SKIPPED {prefix}: {} is not there", folder.display());
        return Vec::new();
    };
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    // With DARE the statistics are those of the sparsified models: another test's.
    cases.retain(|case| {
        let name = case.file_name().unwrap().to_string_lossy();
        name.starts_with(prefix) && !name.ends_with("-dare")
    });
    cases.sort();
    assert!(!cases.is_empty(), "{} has no case {prefix}*", folder.display());
    cases
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
fn compare(case: &Path, settings: &StatisticsSettings) -> f32 {
    let cancel = AtomicBool::new(false);
    let mut worst = 0.0_f32;
    for model in ["a", "b", "c"] {
        let given = case.join(format!("statistics-{model}.safetensors"));
        if !given.exists() {
            continue;
        }
        let expected = SafetensorsFile::open(&given).unwrap();
        let folder = case.join(format!("../../models/bert-{model}"));
        let source = LocalSource::open(&ModelReference::new(folder.to_str().unwrap()), &[]).unwrap();
        let model_there = StatisticsModel::new(source, None).unwrap();
        let data =
            DataSettings { source: DataSource::Inputs(format!("inputs-{model}.safetensors")), examples: None, order: Order::File };
        let examples = Examples::read(&data, case, &model_there).unwrap();
        assert_eq!(examples.list.len(), 40);
        let found = compute(&model_there, &examples, settings, &StatisticsOptions::new(&cancel)).unwrap();
        let noise = 1e-9 * largest(&expected);
        for name in expected.tensors().keys() {
            let (got, want) = (values(&found, name), values(&expected, name));
            assert_eq!(found.tensors()[name].shape, expected.tensors()[name].shape, "{name}");
            let allowed = (1e-4 * want.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()))).max(noise);
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= allowed, "{}: {model}: {name}: {got} for {want}, allowed {allowed}", case.display());
                worst = worst.max((got - want).abs() / allowed);
            }
        }
        // The authors left the classifier out, which was not to be merged; here it is there.
        assert!(found.tensors().contains_key("classifier.weight"));
    }
    worst
}

#[test]
fn fisher_in_batches_is_that_of_the_authors_program() {
    for case in cases("fisher-") {
        // All recipes say `fisher: {batch: sum, batch_size: 4}`.
        assert!(std::fs::read_to_string(case.join("recipe.yml")).unwrap().contains("batch: sum, batch_size: 4"));
        let (batch, targets) = (FisherBatch::Sum { size: 4 }, Targets::Empirical);
        let worst = compare(&case, &StatisticsSettings::Fisher(FisherSettings { normalize: true, minimal: 1e-6, batch, targets }));
        eprintln!("{}: {worst:.4} of what is allowed", case.file_name().unwrap().display());
    }
}

#[test]
fn gram_matrices_with_padding_are_those_of_the_authors_program() {
    for case in cases("regmean-") {
        let worst = compare(&case, &StatisticsSettings::Gram(GramSettings { padding: Padding::Include, batch_size: None }));
        eprintln!("{}: {worst:.4} of what is allowed", case.file_name().unwrap().display());
    }
}
