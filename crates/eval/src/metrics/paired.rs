//! Two models on the same items: is the difference of a metric more than chance?

use deltaic_checkpoint::{Error, Result};
use serde::Serialize;

use super::bootstrap::Resamples;
use super::metric::Metric;
use super::{mean, sample_deviation};

/// The difference of a metric between two models on the same items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairedTest {
    /// First minus second.
    pub difference: f64,
    /// Its standard error: of means `sd/sqrt(n)` of the items' differences, else the bootstrap's. None of a single item.
    pub stderr: Option<f64>,
    /// Two-sided: the chance of a difference at least as large where there is none, in 0..=1; none where the difference is not defined.
    pub p: Option<f64>,
    /// The test.
    pub method: PairedMethod,
}

/// A test of two models on the same items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PairedMethod {
    /// McNemar's, exact: of right and wrong.
    Mcnemar,
    /// The paired bootstrap: of anything else.
    PairedBootstrap,
}

/// Tests two models' values of the same metric on the same items: [`mcnemar`] where every item is right (1) or wrong (0), else [`paired_bootstrap`].
///
/// # Errors
/// The metrics, or the resamples, are not over the same number of items.
pub fn compare(first: &Metric, second: &Metric, resamples: &Resamples) -> Result<PairedTest> {
    let verdicts = |metric: &Metric| -> Option<Vec<bool>> {
        metric.per_item()?.into_iter().map(|value| if value == 1.0 { Some(true) } else { (value == 0.0).then_some(false) }).collect()
    };
    match (verdicts(first), verdicts(second)) {
        (Some(first), Some(second)) => mcnemar(&first, &second),
        _ => paired_bootstrap(first, second, resamples),
    }
}

/// McNemar's exact test of the share of right items: of those that one model alone has right, each is one's or the other's with chance 1/2 where
/// there is no difference. With `b` and `c` of them, `p = min(1, 2 P(X <= min(b, c)))`, X binomial of `b + c` and 1/2.
///
/// # Errors
/// There are no items, or not as many on either side.
pub fn mcnemar(first: &[bool], second: &[bool]) -> Result<PairedTest> {
    if first.len() != second.len() || first.is_empty() {
        return Err(Error::new(format!("a paired test of {} and {} items", first.len(), second.len())));
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(&a, &b)| f64::from(a) - f64::from(b)).collect();
    let only_first = differences.iter().filter(|&&difference| difference > 0.0).count();
    let only_second = differences.iter().filter(|&&difference| difference < 0.0).count();
    Ok(PairedTest {
        difference: mean(&differences),
        stderr: mean_error(&differences),
        p: Some(two_sided_sign_test(only_first, only_second)),
        method: PairedMethod::Mcnemar,
    })
}

/// The paired bootstrap: the difference over each of the sets of items that both models share. The p-value inverts the percentile interval:
/// `2 min(1 + #{d <= 0}, 1 + #{d >= 0}) / (1 + sets)`, at most 1; its least value is 2 / 1001 for 1,000 sets (Davison and Hinkley 1997, 4.2.5
/// on the added 1), and at least `2 / 2^n` of n items, as a sign test's. Sets where the difference is not a number are left out.
///
/// # Errors
/// The metrics, or the resamples, are not over the same number of items.
pub fn paired_bootstrap(first: &Metric, second: &Metric, resamples: &Resamples) -> Result<PairedTest> {
    let items = [first.items(), second.items(), resamples.items()];
    if items.iter().any(|&count| count != items[0]) {
        return Err(Error::new(format!(
            "{}: a paired test of {} and {} items over {} resampled",
            first.name(),
            items[0],
            items[1],
            items[2]
        )));
    }
    let difference = first.value() - second.value();
    let mut differences = resamples.map(|set| first.value_on(set) - second.value_on(set));
    differences.retain(|difference| !difference.is_nan());
    let stderr = match (first.per_item(), second.per_item()) {
        (Some(first), Some(second)) => mean_error(&first.iter().zip(&second).map(|(a, b)| a - b).collect::<Vec<_>>()),
        _ if items[0] < 2 => None,
        _ => sample_deviation(&differences),
    };
    // Of few items the sets are few: no test of them can say more than that all point one way.
    let least = 2.0 * 0.5_f64.powi(items[0].min(1 << 10) as i32);
    let p = bootstrap_p(&differences).filter(|_| difference.is_finite()).map(|p| p.max(least).min(1.0));
    Ok(PairedTest { difference, stderr, p, method: PairedMethod::PairedBootstrap })
}

/// The two-sided p-value of differences over resamples, which inverts the percentile interval: see [`paired_bootstrap`]. None where none of
/// them is a number.
pub fn bootstrap_p(differences: &[f64]) -> Option<f64> {
    let numbers = differences.iter().filter(|difference| !difference.is_nan());
    let count = numbers.clone().count();
    let at_most = numbers.clone().filter(|difference| **difference <= 0.0).count();
    let at_least = numbers.filter(|difference| **difference >= 0.0).count();
    let p = 2.0 * (1 + at_most.min(at_least)) as f64 / (1 + count) as f64;
    (count > 0).then_some(p.min(1.0))
}

fn mean_error(differences: &[f64]) -> Option<f64> {
    sample_deviation(differences).map(|deviation| deviation / (differences.len() as f64).sqrt())
}

/// `min(1, 2 P(X <= min(b, c)))` of a fair binomial over `b + c`.
fn two_sided_sign_test(b: usize, c: usize) -> f64 {
    let (least, n) = (b.min(c), b + c);
    // The largest term by its logarithm, since 2^-n is 0 from n = 1075 on; the others from it: C(n, i - 1) = C(n, i) i / (n - i + 1).
    let ln_factorial = |n: usize| libm::lgamma(n as f64 + 1.0);
    let ln_largest = ln_factorial(n) - ln_factorial(least) - ln_factorial(n - least) - n as f64 * std::f64::consts::LN_2;
    let (mut term, mut sum) = (1.0, 1.0);
    for i in (1..=least).rev() {
        term *= i as f64 / (n - i + 1) as f64;
        sum += term;
    }
    (2.0 * libm::exp(ln_largest) * sum).min(1.0)
}
