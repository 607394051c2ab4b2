//! Differences with their errors over items.

use deltaic_eval::metrics::{bootstrap_p, holm};

/// The level of tests and intervals.
pub const LEVEL: f64 = 0.05;

/// A value, how it spreads over replicates, and its error over items.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// In each replicate.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation: what the masks' seeds do. None of one replicate.
    pub deviation: Option<f64>,
    /// The standard error of the mean over items, the seeds as they are.
    pub stderr: Option<f64>,
    /// The 95% interval of the mean over items: percentiles of resamples.
    pub interval: [f64; 2],
}

impl Spread {
    /// Of the values in each replicate, and of their mean in each resample of the items.
    pub fn new(values: Vec<f64>, resampled: &[f64]) -> Self {
        let mean = mean(&values);
        let (stderr, interval) = (deviation(resampled), interval(resampled));
        Self { deviation: deviation(&values), mean, values, stderr, interval }
    }
}

/// A difference of two arms on the same items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// The first arm's value less the second's.
    pub difference: f64,
    /// Its standard error over items.
    pub stderr: Option<f64>,
    /// Its 95% interval over items.
    pub interval: [f64; 2],
    /// The chance of a difference at least as large where there is none, of this test alone.
    pub p: Option<f64>,
    /// The same after Holm's correction over all tests of one kind.
    pub adjusted: Option<f64>,
}

/// What a test says after correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first arm is better.
    Better,
    /// The first arm is worse.
    Worse,
    /// Neither is shown.
    Open,
}

impl Effect {
    /// Of a difference, and of it in each resample of the items.
    pub fn new(difference: f64, resampled: &[f64]) -> Self {
        let p = bootstrap_p(resampled).filter(|_| difference.is_finite());
        Self { difference, stderr: deviation(resampled), interval: interval(resampled), p, adjusted: None }
    }

    /// What is shown at the level.
    pub fn verdict(&self, lower_is_better: bool) -> Verdict {
        match self.adjusted {
            Some(p) if p < LEVEL && (self.difference > 0.0) != lower_is_better => Verdict::Better,
            Some(p) if p < LEVEL => Verdict::Worse,
            _ => Verdict::Open,
        }
    }
}

/// Corrects the p-values of tests of one kind together.
pub fn correct<'a>(effects: impl IntoIterator<Item = &'a mut Effect>) {
    let effects: Vec<&mut Effect> = effects.into_iter().collect();
    let p: Vec<f64> = effects.iter().map(|effect| effect.p.unwrap_or(f64::NAN)).collect();
    for (effect, adjusted) in effects.into_iter().zip(holm(&p)) {
        effect.adjusted = Some(adjusted).filter(|adjusted| !adjusted.is_nan());
    }
}

/// A p-value with three digits, or what it is below.
pub fn p_in_words(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

/// The mean; not a number of no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation of those that are numbers; none of fewer than two.
fn deviation(values: &[f64]) -> Option<f64> {
    let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if values.len() < 2 {
        return None;
    }
    let mean = mean(&values);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The percentiles between which all but [`LEVEL`] of the values lie, between neighbours by a straight line (NumPy's default).
fn interval(values: &[f64]) -> [f64; 2] {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    [LEVEL / 2.0, 1.0 - LEVEL / 2.0].map(|share| {
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        let place = share * last as f64;
        let below = place.floor() as usize;
        let above = (below + 1).min(last);
        sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.percentile([1, 2, 3, 4, 10], [2.5, 97.5])`, `numpy.std(..., ddof=1)`.
    #[test]
    fn intervals_and_deviations_are_numpys() {
        let values = [3.0, 1.0, f64::NAN, 10.0, 2.0, 4.0];
        let [low, high] = interval(&values);
        assert!((low - 1.1).abs() < 1e-12 && (high - 9.4).abs() < 1e-12, "{low} {high}");
        assert!((deviation(&values).unwrap() - 3.535_533_905_932_738).abs() < 1e-12);
        assert!(deviation(&[1.0]).is_none() && interval(&[])[0].is_nan());
    }

    #[test]
    fn a_test_says_better_or_worse_only_after_correction() {
        let resampled = |shift: f64| -> Vec<f64> { (0..999).map(|i| f64::from(i) / 999.0 - 0.5 + shift).collect() };
        // Of 999 resamples all are above 0: p = 2 / 1000, times 3.
        let mut effects = [Effect::new(1.0, &resampled(1.0)), Effect::new(0.0, &resampled(0.0)), Effect::new(-1.0, &resampled(-1.0))];
        correct(&mut effects);
        let adjusted = effects.map(|effect| effect.adjusted.unwrap());
        assert!((adjusted[0] - 0.006).abs() < 1e-12 && adjusted[1] == 1.0 && (adjusted[2] - 0.006).abs() < 1e-12, "{adjusted:?}");
        assert_eq!(effects.map(|effect| effect.verdict(false)), [Verdict::Better, Verdict::Open, Verdict::Worse]);
        assert_eq!(effects[0].verdict(true), Verdict::Worse);
    }
}
