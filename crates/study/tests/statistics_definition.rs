//! Statistics of tiny models against their definitions, computed by torch in f64 (`statistics/expected.py`, recorded), and what a run that is
//! stopped leaves.

mod statistics;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deltaic_checkpoint::{DType, TensorSource, Window};
use deltaic_merge::recipe::{FisherBatch, FisherSettings, GramSettings, Padding, Targets};
use deltaic_study::statistics::{
    Example, Examples, StatisticsKind, StatisticsModel, StatisticsOptions, StatisticsSettings, compute, open_statistics, write,
};
use serde_json::Value;
use statistics::expected;
use tempfile::TempDir;

fn model(expected: &Value, name: &str) -> StatisticsModel {
    statistics::model(expected, name, Path::new("no tokenizer"))
}

fn texts(expected: &Value) -> Vec<Example> {
    let texts: Vec<(Vec<u32>, Vec<u32>, f32, usize)> = serde_json::from_value(expected["texts"].clone()).unwrap();
    texts.into_iter().map(|(ids, types, label, first)| Example::new(ids, types, Some(label), first)).collect()
}

fn fisher(batch: usize, targets: Targets) -> StatisticsSettings {
    let batch = if batch == 0 { FisherBatch::Example } else { FisherBatch::Sum { size: batch } };
    StatisticsSettings::Fisher(FisherSettings { normalize: true, minimal: 1e-6, batch, targets })
}

fn values(source: &dyn TensorSource, name: &str) -> Vec<f64> {
    let mut window = Window { dtype: DType::F32, bytes: Vec::new() };
    source.read(name, 0, source.tensors()[name].elements() as usize, &mut window).unwrap();
    window.bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
}

#[test]
fn statistics_are_those_of_their_definitions() {
    let expected = expected();
    let examples = Examples::new(texts(&expected), 0).unwrap();
    let cancel = AtomicBool::new(false);
    let cases = expected["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 18);
    for case in cases {
        let (name, kind) = (case["model"].as_str().unwrap(), case["kind"].as_str().unwrap());
        let batch = case["batch"].as_u64().unwrap() as usize;
        let settings = match (kind, batch) {
            ("fisher", _) => fisher(batch, Targets::Empirical),
            (_, 0) => StatisticsSettings::Gram(GramSettings { padding: Padding::Exclude, batch_size: None }),
            _ => StatisticsSettings::Gram(GramSettings { padding: Padding::Include, batch_size: Some(batch) }),
        };
        let found = compute(&model(&expected, name), &examples, &settings, &StatisticsOptions::new(&cancel)).unwrap();
        let tensors = case["tensors"].as_object().unwrap();
        assert_eq!(found.tensors().keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>(), "{name} {kind}");
        let largest = |tensor: &Value| tensor["largest"].as_f64().unwrap();
        // A key's bias has gradient zero: what is found there is noise.
        let noise = 1e-9 * tensors.values().map(largest).fold(0.0, f64::max);
        let mut worst = 0.0_f64;
        for (tensor, recorded) in tensors {
            let at = format!("{name} {kind} {batch}: {tensor}");
            assert_eq!(serde_json::json!(found.tensors()[tensor].shape), recorded["shape"], "{at}");
            let got = values(&found, tensor);
            let allowed = (1e-4 * largest(recorded)).max(noise);
            for element in recorded["elements"].as_array().unwrap() {
                let (index, want) = (element[0].as_u64().unwrap() as usize, element[1].as_f64().unwrap());
                assert!((got[index] - want).abs() <= allowed, "{at}[{index}]: {} for {want}", got[index]);
                worst = worst.max((got[index] - want).abs() / allowed);
            }
            let (sum, want) = (got.iter().sum::<f64>(), recorded["sum"].as_f64().unwrap());
            assert!((sum - want).abs() <= allowed * got.len() as f64, "{at}: the sum is {sum} for {want}");
        }
        eprintln!("{name} {kind} {batch}: {worst:.4} of what is allowed");
    }
}

#[test]
fn sampled_targets_give_the_expectation_under_the_model() {
    let expected = expected();
    let Example { ids, .. } = texts(&expected).swap_remove(0);
    let only_the_last = Example::new(ids.clone(), Vec::new(), None, ids.len() - 1);
    // Each example has draws of its own.
    const DRAWS: usize = 600;
    let examples = |count| Examples::new(vec![only_the_last.clone(); count], 0).unwrap();
    let (model, cancel) = (model(&expected, "llama"), AtomicBool::new(false));
    let trace = |examples: &Examples, seed| {
        let settings = fisher(0, Targets::Sampled { seed });
        let found = compute(&model, examples, &settings, &StatisticsOptions::new(&cancel)).unwrap();
        found.tensors().keys().map(|name| values(&found, name).iter().sum::<f64>()).sum::<f64>()
    };
    let traces: Vec<f64> = (0..DRAWS as u64 / 20).map(|seed| trace(&examples(20), seed)).collect();
    let mean = traces.iter().sum::<f64>() / traces.len() as f64;
    let variance = traces.iter().map(|trace| (trace - mean).powi(2)).sum::<f64>() / (traces.len() - 1) as f64;
    let error = (variance / traces.len() as f64).sqrt();
    let want = expected["trace"]["value"].as_f64().unwrap();
    eprintln!("{mean} ± {error} for {want}");
    assert!(error < 0.1 * want && (mean - want).abs() <= 4.0 * error, "{mean} ± {error} for {want}");
    assert_eq!(trace(&examples(3), 5), trace(&examples(3), 5));
}

/// What is in a folder.
fn names(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes statistics and stops after so many examples.
fn stopped_after(examples: usize, model: &StatisticsModel, all: &Examples, settings: &StatisticsSettings, out: &Path, memory: u64) {
    let cancel = AtomicBool::new(false);
    let progress = |progress: deltaic_study::statistics::StatisticsProgress| {
        cancel.store(progress.done >= examples, Ordering::Relaxed);
    };
    let options = StatisticsOptions { progress: &progress, memory, ..StatisticsOptions::new(&cancel) };
    let error = write(model, all, settings, out, &options).unwrap_err();
    assert!(error.message().contains("cancelled"), "{error}");
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bytes() {
    let expected = expected();
    let all = Examples::new(texts(&expected).into_iter().cycle().take(40).collect(), 0).unwrap();
    let other = Examples::new(texts(&expected), 0).unwrap();
    let cancel = AtomicBool::new(false);
    let gram = StatisticsSettings::Gram(GramSettings { padding: Padding::Include, batch_size: Some(2) });
    // The sums of Gram matrices with their passes: 12 * 12 * 8 bytes are one, 20 * 20 * 8 another.
    for (settings, memory, stops) in
        [(fisher(0, Targets::Empirical), 0, &[1, 7, 39][..]), (fisher(3, Targets::Empirical), 0, &[6, 39]), (gram, 3200, &[2, 40, 44, 100])]
    {
        let (model, folder) = (model(&expected, "bert-3"), tempfile::tempdir().unwrap());
        let (whole, pieces) = (folder.path().join("whole"), folder.path().join("pieces"));
        // Noted down after every step, too.
        let often = StatisticsOptions { memory, checkpoint: Duration::ZERO, ..StatisticsOptions::new(&cancel) };
        let done = std::cell::Cell::new(0);
        let progress = |_| done.set(done.get() + 1);
        let counted = StatisticsOptions { progress: &progress, ..often };
        let written = write(&model, &all, &settings, &whole, &counted).unwrap();
        let steps = done.take();
        assert_eq!(names(&folder), ["whole"]);
        assert_eq!((written.examples, written.bytes), (40, whole.metadata().unwrap().len()));
        for &stop in stops {
            stopped_after(stop, &model, &all, &settings, &pieces, memory);
            assert_eq!(names(&folder), ["pieces.deltaic-partial", "pieces.deltaic-progress", "whole"]);
        }
        let refused = write(&model, &other, &settings, &pieces, &counted).unwrap_err();
        assert!(refused.to_string().contains("of another run") && refused.to_string().contains("--force"), "{refused}");
        // What is left is of the same run, and only that is done.
        write(&model, &all, &settings, &pieces, &counted).unwrap();
        assert!(done.get() > 0 && done.get() < steps, "{} of {steps}", done.get());
        assert!(std::fs::read(&whole).unwrap() == std::fs::read(&pieces).unwrap());
        assert_eq!(names(&folder), ["pieces", "whole"]);
        // Gram matrices made a few at a time are those made at once.
        let at_once = compute(&model, &all, &settings, &StatisticsOptions::new(&cancel)).unwrap();
        let (file, about) = open_statistics(&whole).unwrap();
        assert_eq!(at_once.tensors().keys().collect::<Vec<_>>(), file.tensors().keys().collect::<Vec<_>>());
        assert!(file.tensors().keys().all(|name| values(&file, name) == values(&at_once, name)));
        let about = about.unwrap();
        assert_eq!((about.kind, about.examples, about.all["model"].as_str()), (settings.kind(), Some(40), "bert-3"));
        if about.kind == StatisticsKind::Gram {
            assert_eq!((about.all["padding"].as_str(), about.all["batch"].as_str()), ("include", "2"));
        }
    }
}

#[test]
fn nothing_is_overwritten_but_by_force_and_damaged_notes_are_said() {
    let expected = expected();
    let (model, examples) = (model(&expected, "bert-1"), Examples::new(texts(&expected), 0).unwrap());
    let (folder, cancel, settings) = (tempfile::tempdir().unwrap(), AtomicBool::new(false), fisher(0, Targets::Empirical));
    let out = folder.path().join("stats.safetensors");
    std::fs::write(&out, "mine").unwrap();
    let error = write(&model, &examples, &settings, &out, &StatisticsOptions::new(&cancel)).unwrap_err();
    assert!(error.to_string().contains("there already") && std::fs::read(&out).unwrap() == b"mine");
    write(&model, &examples, &settings, &out, &StatisticsOptions { force: true, ..StatisticsOptions::new(&cancel) }).unwrap();
    let made = std::fs::read(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    stopped_after(2, &model, &examples, &settings, &out, 0);
    let note = folder.path().join("stats.safetensors.deltaic-progress");
    let whole = std::fs::read(&note).unwrap();
    std::fs::write(&note, &whole[..whole.len() - 3]).unwrap();
    let error = write(&model, &examples, &settings, &out, &StatisticsOptions::new(&cancel)).unwrap_err();
    assert!(error.message().contains("damaged"), "{error}");
    // Without the partial file its note is worth nothing.
    std::fs::write(&note, &whole).unwrap();
    std::fs::remove_file(folder.path().join("stats.safetensors.deltaic-partial")).unwrap();
    write(&model, &examples, &settings, &out, &StatisticsOptions::new(&cancel)).unwrap();
    assert!(std::fs::read(&out).unwrap() == made);
    assert_eq!(names(&folder), ["stats.safetensors"]);
    // What fails before anything was noted down leaves nothing.
    let wrong = Examples::new(vec![Example::new(vec![1, 300], Vec::new(), Some(0.0), 0)], 0).unwrap();
    write(&model, &wrong, &settings, &folder.path().join("other"), &StatisticsOptions::new(&cancel)).unwrap_err();
    assert_eq!(names(&folder), ["stats.safetensors"]);
}

#[test]
fn what_does_not_go_together_is_said() {
    let expected = expected();
    let cancel = AtomicBool::new(false);
    let fails = |name: &str, examples: Vec<Example>| {
        let examples = Examples::new(examples, 0).unwrap();
        let options = StatisticsOptions::new(&cancel);
        compute(&model(&expected, name), &examples, &fisher(0, Targets::Empirical), &options).unwrap_err().to_string()
    };
    assert!(fails("bert-1", vec![Example::new(vec![1, 2], Vec::new(), None, 0)]).contains("has no label"));
    assert!(fails("llama", vec![Example::new(vec![1, 2], Vec::new(), None, 2)]).contains("expected at least one target"));
    assert!(fails("llama", vec![Example::new(vec![1, 300], Vec::new(), None, 1)]).contains("token 300"));
    assert!(fails("bert-2", vec![Example::new(vec![1, 300], Vec::new(), None, 0)]).contains("token 300"));
    assert!(Examples::new(Vec::new(), 0).is_err());
    assert!(Examples::new(vec![Example::new(Vec::new(), Vec::new(), None, 0)], 0).is_err());
}
