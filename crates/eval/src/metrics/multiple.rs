//! Many tests at once.

/// Holm's step-down adjustment (Holm 1979): of `m` p-values, sorted, the i-th smallest (from 0) becomes the largest of `(m - j) p_j` over all
/// `j <= i`, at most 1. Where those at most `alpha` are called significant, the chance that any of them is wrongly so is at most `alpha`,
/// however the tests depend on each other.
///
/// What is not a number stays so, and is not counted. The result is in the order of `p`.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&index| !p[index].is_nan()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![f64::NAN; p.len()];
    let mut largest: f64 = 0.0;
    for (place, &index) in order.iter().enumerate() {
        largest = largest.max((order.len() - place) as f64 * p[index]).min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}
