//! Metrics over items with their standard errors, and tests of two models on the same items.
//!
//! A task runner makes a [`Metric`] of what it measured on each item; [`Metric::estimate`] gives value and standard error, [`compare`] tests
//! two models. What is not defined (a correlation with a NaN) is a NaN here and `null` in JSON.

mod bootstrap;
mod choice;
mod classification;
mod correlation;
mod metric;
mod multiple;
mod paired;
mod perplexity;
mod preference;
mod resampled;

pub use bootstrap::{RESAMPLES, Resamples};
pub use choice::{Normalisation, ScoredChoice, argmax, pick, true_mass};
pub use classification::Confusion;
pub use correlation::{pearson, ranks, spearman};
pub use metric::{Estimate, Metric, StderrMethod};
pub use multiple::holm;
pub use paired::{PairedMethod, PairedTest, bootstrap_p, compare, mcnemar, paired_bootstrap};
pub use perplexity::word_count;
pub use preference::Preference;

/// The sum over `n`; NaN of no values.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation, with `n - 1` below; none of fewer than two values, or where it is not finite.
pub(crate) fn sample_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt()).filter(|deviation| deviation.is_finite())
}
