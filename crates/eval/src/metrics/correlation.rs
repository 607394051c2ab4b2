//! Pearson's and Spearman's correlation.

use super::mean;

/// Pearson's sample correlation, in -1..=1.
///
/// 0 where either side is constant (one item is), as Matthews' correlation, which is Pearson's of binary labels, is 0 there; SciPy has NaN.
/// NaN where a value is not finite.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    if x.iter().chain(y).any(|value| !value.is_finite()) {
        return f64::NAN;
    }
    match (direction(x), direction(y)) {
        (Some(x), Some(y)) => x.iter().zip(&y).map(|(x, y)| x * y).sum::<f64>().clamp(-1.0, 1.0),
        _ => 0.0,
    }
}

/// Spearman's correlation: Pearson's of the [`ranks`]. It has a value with infinities, too; NaN where a value is a NaN.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    if x.iter().chain(y).any(|value| value.is_nan()) { f64::NAN } else { pearson(&ranks(x), &ranks(y)) }
}

/// The rank of each value, from 1 for the smallest; equal values get the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    // `==`, not the order's: -0.0 and 0.0 are a tie.
    for ties in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = start as f64 + (ties.len() as f64 + 1.0) / 2.0;
        ties.iter().for_each(|&index| ranks[index] = rank);
        start += ties.len();
    }
    ranks
}

/// The deviations from the mean as a vector of length 1; none where all values are equal.
fn direction(values: &[f64]) -> Option<Vec<f64>> {
    let first = *values.first()?;
    if values.iter().all(|&value| value == first) {
        return None;
    }
    // Scaled, so that neither the sum nor the squares leave an f64's range.
    let values = scaled(values)?;
    let mean = mean(&values);
    let deviations = scaled(&values.iter().map(|value| value - mean).collect::<Vec<_>>())?;
    let length = deviations.iter().map(|deviation| deviation * deviation).sum::<f64>().sqrt();
    Some(deviations.into_iter().map(|deviation| deviation / length).collect())
}

/// The values divided by their largest magnitude; none where that is 0.
fn scaled(values: &[f64]) -> Option<Vec<f64>> {
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    (largest > 0.0).then(|| values.iter().map(|value| value / largest).collect())
}
