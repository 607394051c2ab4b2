//! Metrics against scikit-learn, SciPy and lm-evaluation-harness, recorded by `tests/python/metrics.py`, and against cases worked by hand.

use deltaic_eval::metrics::{
    Confusion, Metric, Normalisation, PairedMethod, Preference, Resamples, ScoredChoice, StderrMethod, argmax, compare, holm, mcnemar,
    paired_bootstrap, pearson, pick, ranks, spearman, true_mass, word_count,
};
use proptest::prelude::*;
use serde_json::Value;

fn recorded(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("data/metrics.json")).unwrap();
    all[part].as_array().unwrap().clone()
}

/// A number, or one of those that JSON has not, as text.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|number| number as usize).collect()
}

fn said(labels: &[usize]) -> Vec<Option<usize>> {
    labels.iter().copied().map(Some).collect()
}

#[track_caller]
fn assert_close(found: f64, expected: f64, relative: f64) {
    let close = (found.is_nan() && expected.is_nan()) || (found - expected).abs() <= relative * expected.abs().max(1e-3);
    assert!(close, "found {found}, expected {expected}");
}

#[test]
fn accuracy_f1_and_matthews_are_scikit_learns() {
    for case in recorded("labels") {
        let (gold, predicted) = (indices(&case["gold"]), said(&indices(&case["predicted"])));
        let counts = Confusion::of(gold.iter().copied().zip(predicted.iter().copied()));
        assert_close(counts.f1(), number(&case["f1"]), 1e-12);
        assert_close(counts.matthews(), number(&case["matthews"]), 1e-12);
        assert_close(Metric::accuracy("a", &gold, &predicted).unwrap().value(), number(&case["accuracy"]), 1e-12);
        assert_close(Metric::f1("f", &gold, &predicted).unwrap().value(), number(&case["f1"]), 1e-12);
        assert_close(Metric::matthews("m", &gold, &predicted).unwrap().value(), number(&case["matthews"]), 1e-12);
    }
}

#[test]
fn an_item_without_a_prediction_counts_as_wrong() {
    let counts = Confusion::of([(1, None), (0, None), (1, Some(1)), (0, Some(0))]);
    assert_eq!(counts, Confusion { true_positives: 1, false_positives: 1, false_negatives: 1, true_negatives: 1 });
    assert_eq!(Metric::accuracy("a", &[1, 0], &[None, Some(0)]).unwrap().value(), 0.5);
}

#[test]
fn correlations_and_ranks_are_scipys_and_0_where_a_side_is_constant() {
    for case in recorded("scores") {
        let (gold, predicted) = (numbers(&case["gold"]), numbers(&case["predicted"]));
        assert_eq!(ranks(&predicted), numbers(&case["ranks"]));
        assert_close(pearson(&gold, &predicted), number(&case["pearson"]), 1e-9);
        assert_close(spearman(&gold, &predicted), number(&case["spearman"]), 1e-9);
    }
    assert!(spearman(&[1.0, 2.0], &[f64::NAN, 1.0]).is_nan());
    assert_eq!(ranks(&[0.0, -0.0, -1.0]), [2.5, 2.5, 1.0]);
    assert_eq!(pearson(&[], &[]), 0.0);
}

#[test]
fn choices_are_picked_as_numpy_does_on_the_harness_s_scores() {
    for case in recorded("choices") {
        let texts: Vec<&str> = case["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let (sums, tokens) = (numbers(&case["log_likelihoods"]), indices(&case["tokens"]));
        let choices: Vec<_> =
            (0..texts.len()).map(|i| ScoredChoice { text: texts[i], log_likelihood: sums[i], tokens: tokens[i] }).collect();
        for (name, normalisation) in [
            ("acc", Normalisation::None),
            ("acc_norm", Normalisation::Characters),
            ("acc_bytes", Normalisation::Bytes),
            ("acc_token", Normalisation::Tokens),
        ] {
            assert_eq!(pick(&choices, normalisation), Some(number(&case[name]) as usize), "{name} of {case}");
        }
        let truths: Vec<bool> = case["truths"].as_array().unwrap().iter().map(|truth| truth.as_bool().unwrap()).collect();
        assert_close(true_mass(&sums, &truths).unwrap(), number(&case["mass"]), 1e-12);
    }
}

#[test]
fn what_is_not_a_number_is_never_picked_and_has_no_mass() {
    assert_eq!(argmax([f64::NAN, 1.0, 2.0, 2.0]), Some(2));
    assert_eq!(argmax([f64::NAN, f64::NAN]), None);
    assert_eq!(argmax([f64::NEG_INFINITY, f64::NEG_INFINITY]), Some(0));
    assert_eq!(argmax([]), None);
    for lost in [[f64::NAN, -1.0], [f64::NEG_INFINITY; 2], [f64::INFINITY, 0.0]] {
        assert_eq!(true_mass(&lost, &[true, true]).unwrap(), 0.0);
    }
    assert!(true_mass(&[0.0], &[]).is_err());
}

#[test]
fn resamples_are_those_of_chacha8_written_from_its_specification() {
    for case in recorded("bootstraps") {
        let resamples = Resamples::new(indices(&case["gold"]).len() as u32, 3, case["seed"].as_u64().unwrap());
        for (index, expected) in case["first_sets"].as_array().unwrap().iter().enumerate() {
            let mut set = vec![99];
            resamples.draw(index, &mut set);
            assert_eq!(set.iter().map(|&item| item as usize).collect::<Vec<_>>(), indices(expected));
        }
    }
}

#[test]
fn bootstrap_errors_and_p_values_are_those_of_the_libraries_on_the_same_resamples() {
    for case in recorded("bootstraps") {
        let [gold, predicted, other] = ["gold", "predicted", "other"].map(|name| indices(&case[name]));
        let (scores, guesses) = (numbers(&case["scores"]), numbers(&case["guesses"]));
        let resamples = Resamples::new(gold.len() as u32, 40, case["seed"].as_u64().unwrap());
        let mrpc = |labels: &[usize]| {
            let labels = said(labels);
            let parts = vec![Metric::accuracy("accuracy", &gold, &labels).unwrap(), Metric::f1("f1", &gold, &labels).unwrap()];
            Metric::average("headline", parts).unwrap()
        };
        for (name, metric) in [
            ("f1", Metric::f1("", &gold, &said(&predicted)).unwrap()),
            ("matthews", Metric::matthews("", &gold, &said(&predicted)).unwrap()),
            ("pearson", Metric::pearson("", &scores, &guesses).unwrap()),
            ("spearman", Metric::spearman("", &scores, &guesses).unwrap()),
            ("mrpc", mrpc(&predicted)),
        ] {
            let estimate = metric.estimate(&resamples);
            assert_close(estimate.stderr.unwrap(), number(&case[name]), 1e-9);
            assert_eq!(estimate.method, StderrMethod::Bootstrap { resamples: 40 });
        }
        let estimate = Metric::accuracy("", &gold, &said(&predicted)).unwrap().estimate(&resamples);
        assert_close(estimate.stderr.unwrap(), number(&case["accuracy"]), 1e-12);
        assert_eq!(estimate.method, StderrMethod::Mean);
        let test = compare(&mrpc(&predicted), &mrpc(&other), &resamples).unwrap();
        assert_eq!(test.method, PairedMethod::PairedBootstrap);
        assert_close(test.difference, number(&case["difference"]), 1e-12);
        assert_close(test.stderr.unwrap(), number(&case["difference_stderr"]), 1e-9);
        assert_close(test.p.unwrap(), number(&case["p"]), 1e-12);
    }
}

#[test]
fn perplexities_are_the_harness_s_and_their_errors_those_of_numerical_derivatives() {
    for case in recorded("perplexities") {
        let [sums, words, bytes] = ["log_likelihoods", "words", "bytes"].map(|name| numbers(&case[name]));
        let unused = Resamples::new(sums.len() as u32, 0, 0);
        for (name, metric) in [
            ("nll", Metric::nll("", &sums, &words).unwrap()),
            ("word_perplexity", Metric::perplexity("", &sums, &words).unwrap()),
            ("byte_perplexity", Metric::perplexity("", &sums, &bytes).unwrap()),
            ("bits_per_byte", Metric::bits_per_byte("", &sums, &bytes).unwrap()),
        ] {
            let estimate = metric.estimate(&unused);
            assert_close(estimate.value, number(&case[name]), 1e-12);
            assert_eq!(estimate.method, StderrMethod::Delta);
            if let Some(expected) = case.get(format!("{name}_stderr")) {
                assert_close(estimate.stderr.unwrap(), number(expected), 1e-6);
            }
        }
    }
}

#[test]
fn words_are_counted_as_python_splits_a_page() {
    for case in recorded("words") {
        assert_eq!(word_count(case[0].as_str().unwrap()), number(&case[1]) as usize, "{case}");
    }
}

#[test]
fn mcnemars_p_is_scipys_exact_binomial_test() {
    for case in recorded("mcnemar") {
        let [b, c] = [0, 1].map(|index| number(&case[index]) as usize);
        // Five items that both have right, and those that one has.
        let first: Vec<bool> = (0..5 + b + c).map(|item| item < 5 + b).collect();
        let second: Vec<bool> = (0..5 + b + c).map(|item| item < 5 || item >= 5 + b).collect();
        let test = mcnemar(&first, &second).unwrap();
        assert_close(test.difference, (b as f64 - c as f64) / (5 + b + c) as f64, 1e-12);
        let (found, expected) = (test.p.unwrap(), number(&case[2]));
        assert!(found == expected || (found / expected - 1.0).abs() < 1e-9, "{case}: found {found}");
    }
}

#[test]
fn right_and_wrong_are_compared_by_mcnemar_and_values_between_by_the_bootstrap() {
    let resamples = Resamples::new(4, 100, 1);
    let metric = |values: &[f64]| Metric::mean("m", values.to_vec()).unwrap();
    let test = compare(&metric(&[1.0, 1.0, 0.0, 1.0]), &metric(&[1.0, 0.0, 0.0, 1.0]), &resamples).unwrap();
    assert_eq!((test.method, test.difference, test.p), (PairedMethod::Mcnemar, 0.25, Some(1.0)));
    // The differences are 0, 1, 0, 0: their sample deviation is 0.5.
    assert_eq!(test.stderr, Some(0.25));
    let drawn = [Preference::Win, Preference::Draw, Preference::Loss, Preference::Win].map(Preference::value);
    let test = compare(&metric(&drawn), &metric(&[0.0; 4]), &resamples).unwrap();
    assert_eq!((test.method, test.difference), (PairedMethod::PairedBootstrap, 0.625));
    // Every set of two items that differ alike differs so: still no more than 2 / 2^2.
    let two = |value| Metric::mean("m", vec![value; 2]).unwrap();
    assert_eq!(paired_bootstrap(&two(0.75), &two(0.25), &Resamples::new(2, 1000, 0)).unwrap().p, Some(0.5));
    let same = paired_bootstrap(&metric(&drawn), &metric(&drawn), &resamples).unwrap();
    assert_eq!((same.difference, same.stderr, same.p), (0.0, Some(0.0), Some(1.0)));
}

#[test]
fn a_single_item_has_a_value_and_no_error_and_no_item_is_an_error() {
    let resamples = Resamples::new(1, 100, 0);
    let (gold, said) = ([1], [Some(1)]);
    for metric in [Metric::accuracy("a", &gold, &said), Metric::f1("f", &gold, &said), Metric::nll("n", &[-2.0], &[2.0])] {
        let estimate = metric.unwrap().estimate(&resamples);
        assert_eq!((estimate.value, estimate.stderr), (1.0, None));
    }
    assert!(Metric::mean("acc", vec![]).unwrap_err().message().contains("acc: a metric of no items"));
    assert!(Metric::f1("f1", &[1, 0], &[Some(1)]).is_err());
    assert!(Metric::average("mean", vec![]).is_err());
    let two = vec![Metric::mean("a", vec![1.0]).unwrap(), Metric::mean("b", vec![1.0, 0.0]).unwrap()];
    assert!(Metric::average("mean", two).unwrap_err().message().contains("a is over 1 items, b over 2"));
    assert!(mcnemar(&[], &[]).is_err());
}

#[test]
fn what_is_not_defined_is_null_in_json() {
    let broken = Metric::pearson("pearson", &[1.0, 2.0, 3.0], &[f64::NAN, 1.0, 2.0]).unwrap();
    let estimate = broken.estimate(&Resamples::new(3, 10, 0));
    let json = serde_json::to_string(&estimate).unwrap();
    assert_eq!(json, r#"{"value":null,"stderr":null,"method":"bootstrap (10 resamples)"}"#);
    let none_counted = Metric::nll("nll", &[-1.0, -1.0], &[0.0, 0.0]).unwrap();
    assert_eq!(none_counted.estimate(&Resamples::new(2, 10, 0)).stderr, None);
    let test = compare(&broken, &broken, &Resamples::new(3, 10, 0)).unwrap();
    assert_eq!(test.p, None);
}

#[test]
fn a_mean_of_means_has_the_error_of_each_items_mean() {
    let parts = vec![Metric::mean("a", vec![1.0, 0.0, 1.0]).unwrap(), Metric::mean("b", vec![0.0, 0.0, 1.0]).unwrap()];
    let estimate = Metric::average("both", parts).unwrap().estimate(&Resamples::new(3, 0, 0));
    // By hand: 0.5, 0, 1 have the mean 0.5 and the sample deviation 0.5.
    assert_close(estimate.value, 0.5, 1e-15);
    assert_close(estimate.stderr.unwrap(), 0.5 / 3.0_f64.sqrt(), 1e-15);
    assert_eq!(estimate.method, StderrMethod::Mean);
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), -5.0..5.0, Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(0.0), Just(f64::MAX)]
}

proptest! {
    #[test]
    fn no_numbers_make_a_metric_panic(pairs in prop::collection::vec((any_number(), any_number()), 0..12), seed: u64) {
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let labels: Vec<usize> = x.iter().map(|&value| value as usize).collect();
        let said: Vec<Option<usize>> = y.iter().map(|&value| (value >= 0.0).then_some(value as usize)).collect();
        let truths: Vec<bool> = y.iter().map(|&value| value > 0.0).collect();
        let resamples = Resamples::new(x.len() as u32, 5, seed);
        prop_assert!((-1.0..=1.0).contains(&pearson(&x, &y)) || x.iter().chain(&y).any(|value| !value.is_finite()));
        prop_assert!((0.0..=1.0).contains(&true_mass(&x, &truths).unwrap()));
        let metrics = [
            Metric::mean("", x.clone()), Metric::f1("", &labels, &said), Metric::matthews("", &labels, &said), Metric::pearson("", &x, &y),
            Metric::spearman("", &x, &y), Metric::nll("", &x, &y), Metric::perplexity("", &x, &y), Metric::bits_per_byte("", &x, &y),
        ];
        for metric in metrics.into_iter().flatten() {
            let estimate = metric.estimate(&resamples);
            prop_assert!(estimate.stderr.is_none_or(f64::is_finite));
            let test = compare(&metric, &metric, &resamples).unwrap();
            prop_assert!(test.p.is_none_or(|p| p == 1.0));
        }
    }

    #[test]
    fn spearman_and_pearson_do_not_see_scale_and_sign_turns_them(x in prop::collection::vec(-9_i8..9, 3..20), y in prop::collection::vec(-9_i8..9, 20)) {
        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
        let y: Vec<f64> = y[..x.len()].iter().map(|&value| f64::from(value)).collect();
        let turned: Vec<f64> = x.iter().map(|value| -3.0 * value + 1.0).collect();
        prop_assert!((pearson(&x, &y) + pearson(&turned, &y)).abs() < 1e-12);
        prop_assert!((spearman(&x, &y) + spearman(&turned, &y)).abs() < 1e-12);
        prop_assert_eq!(pearson(&x, &y), pearson(&y, &x));
    }

    #[test]
    fn every_resampled_index_is_an_items(items in 1_u32..5000, index: usize, seed: u64) {
        let mut set = Vec::new();
        Resamples::new(items, 1, seed).draw(index, &mut set);
        prop_assert_eq!(set.len(), items as usize);
        prop_assert!(set.iter().all(|&item| item < items));
    }
}

/// Worked by hand: sorted 0.005, 0.01, 0.02, 0.04, times 4, 3, 2, 1, each at least the one before; R's `p.adjust(p, "holm")` has the same.
#[test]
fn holms_adjustment_is_the_one_worked_by_hand() {
    for (p, expected) in [
        (&[0.04, 0.005, 0.02, 0.01][..], &[0.04, 0.02, 0.04, 0.03][..]),
        (&[0.01, 0.011, 0.9][..], &[0.03, 0.03, 0.9][..]),
        (&[0.5, 0.6][..], &[1.0, 1.0][..]),
        (&[0.02, f64::NAN, 0.03][..], &[0.04, f64::NAN, 0.04][..]),
        (&[][..], &[][..]),
    ] {
        let found = holm(p);
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(&found, &expected)| assert_close(found, expected, 1e-12));
    }
}

#[test]
fn a_metric_over_resamples_is_its_value_on_each() {
    let gold: Vec<f64> = (0..60).map(|i| f64::from((i * 7) % 13) / 2.0).collect();
    // With ties, a negative zero among them, and a part in order.
    let predicted: Vec<f64> = (0..60).map(|i| if i % 5 == 0 { -0.0 } else { f64::from((i * i) % 17) - 8.0 }).collect();
    let with_nan: Vec<f64> = predicted.iter().enumerate().map(|(i, &value)| if i == 3 { f64::NAN } else { value }).collect();
    let labels: Vec<usize> = (0..60).map(|i| i % 3 % 2).collect();
    let said: Vec<Option<usize>> = (0..60).map(|i| Some(i % 2)).collect();
    let both = |scores: &[f64]| vec![Metric::pearson("p", &gold, scores).unwrap(), Metric::spearman("s", &gold, scores).unwrap()];
    let metrics = [
        Metric::spearman("s", &gold, &predicted).unwrap(),
        Metric::average("h", both(&predicted)).unwrap(),
        Metric::spearman("n", &gold, &with_nan).unwrap(),
        Metric::spearman("c", &gold, &[1.0; 60]).unwrap(),
        Metric::matthews("m", &labels, &said).unwrap(),
    ];
    let resamples = Resamples::new(60, 300, 5);
    for metric in metrics {
        let expected = resamples.map(|set| metric.value_on(set));
        let found = metric.over(&resamples);
        assert_eq!(found.len(), 300);
        found.iter().zip(expected).for_each(|(&found, expected)| assert_close(found, expected, 1e-12));
    }
}
