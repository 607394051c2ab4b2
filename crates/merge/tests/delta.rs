//! The study of deltas on small models whose figures can be told by hand.

mod checkpoints;

use std::sync::atomic::{AtomicBool, Ordering};

use checkpoints::{LLAMA, Model, Models, SHAPES, Tensor, family};
use deltaic_checkpoint::{ModelReference, Result};
use deltaic_merge::delta::{DeltaStudy, Regime, StudyOptions, study};

fn compare(models: &Models, options: &StudyOptions) -> Result<DeltaStudy> {
    let at = |name: &str| ModelReference::new(models.path().join(name).to_str().unwrap());
    study(&at("base"), &at("model"), options, &AtomicBool::new(false), &|_| {})
}

fn of(base: &Model, model: &Model) -> DeltaStudy {
    compare(&Models::new(LLAMA, &[("base", base), ("model", model)]), &StudyOptions::default()).unwrap()
}

fn tensors(entries: &[(&str, &[f32])]) -> Model {
    entries.iter().map(|(name, values)| ((*name).to_owned(), Tensor::f32(&[values.len()], values))).collect()
}

#[test]
fn figures_of_a_few_numbers_are_what_one_computes_by_hand() {
    let base = tensors(&[("model.norm.weight", &[1.0, 2.0, -2.0, 4.0])]);
    let model = tensors(&[("model.norm.weight", &[1.0, 2.5, -2.0, 3.0])]);
    let figures = of(&base, &model).whole;
    assert_eq!((figures.elements, figures.unchanged, figures.within), (4, 2, [2; 4]));
    assert_eq!((figures.min, figures.max, figures.mean, figures.mean_magnitude), (-1.0, 0.5, -0.125, 0.375));
    assert_eq!((figures.quantiles[2], figures.base_norm, figures.norm), (0.0, 5.0, 1.25_f64.sqrt()));
    assert_eq!(figures.std, (1.25_f64 / 4.0 - 0.125 * 0.125).sqrt());
    // 1*1 + 2*2.5 + 2*2 + 4*3 = 22.
    assert!((figures.cosine - 22.0 / (25.0_f64.sqrt() * 20.25_f64.sqrt())).abs() < 1e-15);
    assert!((figures.relative_norm - 1.25_f64.sqrt() / 5.0).abs() < 1e-15);
}

#[test]
fn what_is_not_finite_is_counted_apart_and_changes_no_figure() {
    let base = tensors(&[("model.norm.weight", &[1.0, 0.0, 1.0, f32::INFINITY, f32::NAN, 3.0])]);
    let model = tensors(&[("model.norm.weight", &[1.5, 0.0, f32::NAN, f32::INFINITY, 1.0, f32::NEG_INFINITY])]);
    let figures = of(&base, &model).whole;
    assert_eq!((figures.elements, figures.not_finite, figures.finite()), (6, 4, 2));
    assert_eq!((figures.unchanged, figures.min, figures.max, figures.base_norm), (1, 0.0, 0.5, 1.0));
    assert_eq!((figures.quantiles[2], figures.cosine), (0.25, 1.0));
    let nothing = tensors(&[("model.norm.weight", &[f32::NAN])]);
    let figures = of(&nothing, &nothing).whole;
    assert!(
        figures.min.is_nan() && figures.mean.is_nan() && figures.std.is_nan() && figures.quantiles[0].is_nan() && figures.cosine.is_nan()
    );
}

#[test]
fn a_pair_without_elements_has_no_regime_and_a_figure_without_nan() {
    let empty = tensors(&[("model.norm.weight", &[]), ("model.layers.0.x.weight", &[])]);
    let unknown = tensors(&[("model.norm.weight", &[f32::NAN])]);
    for model in [empty, unknown] {
        let found = of(&model, &model);
        assert_eq!(found.regime(), Regime::NothingCompared);
        assert!(found.regime().meaning().starts_with("nothing was compared"));
        let figure = found.to_svg();
        assert!(!figure.contains("NaN") && !figure.contains("inf") && figure.contains("unchanged: \u{2013};"), "{figure}");
    }
}

#[test]
fn an_equal_model_is_unchanged_and_a_zero_base_has_no_cosine() {
    let base = tensors(&[("model.norm.weight", &[1.0, 2.0]), ("model.layers.0.x.weight", &[0.0, 0.0])]);
    let found = of(&base, &base);
    assert_eq!((found.regime(), found.whole.cosine, found.whole.relative_norm), (Regime::Unchanged, 1.0, 0.0));
    assert!(found.layers[0].1.cosine.is_nan() && found.layers[0].1.relative_norm.is_nan());
}

#[test]
fn what_cannot_be_compared_is_listed_with_its_reason() {
    let mut base = tensors(&[("model.norm.weight", &[1.0]), ("only.base", &[1.0]), ("shape", &[1.0, 2.0]), ("score.weight", &[1.0])]);
    let mut model = tensors(&[("model.norm.weight", &[1.0]), ("only.model", &[1.0]), ("shape", &[1.0]), ("score.weight", &[2.0])]);
    for model in [&mut base, &mut model] {
        model.insert("numbers".to_owned(), Tensor::i64(&[1, 2]));
        model.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), Tensor::f32(&[1], &[1.0]));
    }
    let models = Models::new(LLAMA, &[("base", &base), ("model", &model)]);
    let found = compare(&models, &StudyOptions { exclude: vec!["score.*".to_owned()], ..StudyOptions::default() }).unwrap();
    assert_eq!(found.tensors.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["model.norm.weight"]);
    let reason = |name: &str| found.not_compared.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.reason.as_str()).unwrap();
    assert_eq!(reason("only.base"), "only the base has it");
    assert_eq!(reason("only.model"), "only the model has it");
    assert_eq!(reason("shape"), "shape [2] in the base, [1] in the model");
    assert_eq!(reason("numbers"), "not floating: int64");
    assert_eq!(reason("score.weight"), "excluded");
    assert!(reason("model.layers.0.self_attn.rotary_emb.inv_freq").starts_with("a buffer"));
}

#[test]
fn a_head_that_the_base_does_not_store_is_compared_with_its_embedding() {
    let base = tensors(&[("model.embed_tokens.weight", &[1.0, 2.0])]);
    let model = tensors(&[("model.embed_tokens.weight", &[1.0, 2.0]), ("lm_head.weight", &[1.0, 2.5])]);
    let found = of(&base, &model);
    assert_eq!(
        found.kinds.iter().map(|(kind, figures)| (kind.as_str(), figures.max)).collect::<Vec<_>>(),
        [("embed_tokens", 0.0), ("lm_head", 0.5)]
    );
}

#[test]
fn figures_are_the_same_on_any_number_of_threads_and_sets_are_those_of_their_tensors() {
    for dtype in ["F32", "BF16"] {
        let [base, model, ..] = family(&SHAPES, dtype);
        let models = Models::new(LLAMA, &[("base", &base), ("model", &model)]);
        let first = compare(&models, &StudyOptions { threads: 1, ..StudyOptions::default() }).unwrap();
        for threads in [2, 5, 64] {
            let found = compare(&models, &StudyOptions { threads, ..StudyOptions::default() }).unwrap();
            // NaN is not equal to itself; its text is.
            assert_eq!(
                format!("{:?}", (&found.whole, &found.kinds, &found.layers)),
                format!("{:?}", (&first.whole, &first.kinds, &first.layers))
            );
            assert_eq!(format!("{:?}", found.tensors), format!("{:?}", first.tensors));
            assert_eq!(found.to_svg(), first.to_svg());
        }
        let elements: u64 = first.tensors.iter().map(|tensor| tensor.figures.elements).sum();
        assert_eq!(first.whole.elements, elements);
        assert_eq!(first.layers.iter().map(|(layer, _)| *layer).collect::<Vec<_>>(), [0, 1]);
        let values = |model: &Model| model.values().flat_map(Tensor::values).collect::<Vec<f32>>();
        let mut deltas: Vec<f32> = values(&base).iter().zip(values(&model)).map(|(base, model)| model - base).collect();
        deltas.sort_by(f32::total_cmp);
        assert_eq!((first.whole.min, first.whole.max), (f64::from(deltas[0]), f64::from(deltas[deltas.len() - 1])));
        let place = 0.99 * (deltas.len() - 1) as f64;
        let (low, high) = (f64::from(deltas[place as usize]), f64::from(deltas[place as usize + 1]));
        assert!((low..=high).contains(&first.whole.quantiles[3]), "{low} {high} {:?}", first.whole.quantiles);
    }
}

#[test]
fn many_kinds_are_told_apart_up_to_a_limit() {
    let names: Vec<String> = (0..500).map(|i| format!("model.layers.0.part_{i}x.weight")).collect();
    let model: Model = names.iter().enumerate().map(|(i, name)| (name.clone(), Tensor::f32(&[i + 1], &vec![1.0; i + 1]))).collect();
    let found = of(&model, &model);
    assert_eq!(found.kinds.len(), 64);
    assert!(found.kinds.iter().any(|(kind, _)| kind == "other kinds"));
    assert_eq!(found.kinds.iter().map(|(_, figures)| figures.elements).sum::<u64>(), found.whole.elements);
}

#[test]
fn a_study_can_be_cancelled_and_says_what_it_cannot_do() {
    let [base, model, ..] = family(&SHAPES, "F32");
    let models = Models::new(LLAMA, &[("base", &base), ("model", &model)]);
    let at = |name: &str| ModelReference::new(models.path().join(name).to_str().unwrap());
    let cancel = AtomicBool::new(false);
    let failed = study(&at("base"), &at("model"), &StudyOptions::default(), &cancel, &|_| cancel.store(true, Ordering::Relaxed));
    assert_eq!(failed.unwrap_err().message(), "cancelled");
    let wrong = compare(&models, &StudyOptions { exclude: vec!["(".to_owned()], ..StudyOptions::default() }).unwrap_err();
    assert!(wrong.message().contains("`--exclude (`"), "{wrong}");
    let nothing = compare(&models, &StudyOptions { exclude: vec![".*".to_owned()], ..StudyOptions::default() }).unwrap_err();
    assert!(nothing.message().contains("no floating tensor"), "{nothing}");
}
