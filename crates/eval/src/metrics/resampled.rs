//! A metric over many resamples of the same items, without sorting anew for each.

use super::bootstrap::Resamples;
use super::metric::{Metric, Statistic};

impl Metric {
    /// The metric over each of the sets of items, in their order: what [`Metric::value_on`] gives for each, up to rounding. For ranks the items
    /// are sorted once, not for every set.
    pub fn over(&self, resamples: &Resamples) -> Vec<f64> {
        let prepared = Prepared::new(self);
        let mut counts = Vec::new();
        resamples.map(|set| prepared.value_on(set, &mut counts))
    }
}

/// A metric with what is the same for all sets.
enum Prepared<'a> {
    Ranked([Order; 2]),
    Average(Vec<Prepared<'a>>),
    Other(&'a Metric),
}

/// Items by their values.
struct Order {
    /// The items, those with the smallest values first.
    items: Vec<u32>,
    /// How many of them have equal values, from the first on.
    ties: Vec<usize>,
}

impl Order {
    fn of(values: &[f64]) -> Self {
        let mut items: Vec<u32> = (0..values.len() as u32).collect();
        items.sort_unstable_by(|&a, &b| values[a as usize].total_cmp(&values[b as usize]));
        // `==`, not the order's: -0.0 and 0.0 are a tie, as in `ranks`.
        let ties = items.chunk_by(|&a, &b| values[a as usize] == values[b as usize]).map(<[u32]>::len).collect();
        Self { items, ties }
    }

    /// Each item's mean rank, less the mean of all ranks, where item i is there `counts[i]` times.
    fn deviations(&self, counts: &[u32], middle: f64) -> Vec<f64> {
        let mut deviations = vec![0.0; counts.len()];
        let (mut start, mut before) = (0, 0.0);
        for &ties in &self.ties {
            let equal = &self.items[start..start + ties];
            let count: u32 = equal.iter().map(|&item| counts[item as usize]).sum();
            let rank = before + (f64::from(count) + 1.0) / 2.0;
            equal.iter().for_each(|&item| deviations[item as usize] = rank - middle);
            (start, before) = (start + ties, before + f64::from(count));
        }
        deviations
    }
}

impl<'a> Prepared<'a> {
    fn new(metric: &'a Metric) -> Self {
        match metric.statistic() {
            Statistic::Spearman(scores) if scores.0.iter().chain(&scores.1).all(|value| !value.is_nan()) => {
                Self::Ranked([Order::of(&scores.0), Order::of(&scores.1)])
            }
            Statistic::Average(metrics) => Self::Average(metrics.iter().map(Self::new).collect()),
            _ => Self::Other(metric),
        }
    }

    fn value_on(&self, set: &[u32], counts: &mut Vec<u32>) -> f64 {
        match self {
            Self::Other(metric) => metric.value_on(set),
            Self::Average(metrics) => metrics.iter().map(|metric| metric.value_on(set, counts)).sum::<f64>() / metrics.len() as f64,
            Self::Ranked([x, y]) => {
                counts.clear();
                counts.resize(x.items.len(), 0);
                set.iter().for_each(|&item| counts[item as usize] += 1);
                let middle = (set.len() as f64 + 1.0) / 2.0;
                correlation(&x.deviations(counts, middle), &y.deviations(counts, middle), counts)
            }
        }
    }
}

/// Pearson's correlation of deviations from the means, item i counted `counts[i]` times; 0 where a side is constant.
fn correlation(x: &[f64], y: &[f64], counts: &[u32]) -> f64 {
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for ((&x, &y), &count) in x.iter().zip(y).zip(counts) {
        let count = f64::from(count);
        xx += count * x * x;
        yy += count * y * y;
        xy += count * x * y;
    }
    if xx == 0.0 || yy == 0.0 { 0.0 } else { (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0) }
}
