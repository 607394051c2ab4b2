//! The figures of a set of deltas, and the sums from which they come.

use deltaic_kernels::{Kernels, LaneSums, ordered_sum};

use super::regime::{LIMITS, Shares};

/// The quantiles that are given.
pub const QUANTILES: [f64; 5] = [0.001, 0.01, 0.5, 0.99, 0.999];

/// Figures of the deltas d = model - base of a tensor, layer, kind or model. All but `elements` and `not_finite` are over those elements
/// whose delta is finite; where there are none, they are NaN. (`min` and `max` are f32 values; all else is computed in f64.)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Number of elements.
    pub elements: u64,
    /// Elements whose delta is NaN or infinite, since the base's or the model's is.
    pub not_finite: u64,
    /// Elements that are equal in both models.
    pub unchanged: u64,
    /// Elements with |d| at most each of [`LIMITS`].
    pub within: [u64; 4],
    /// Least delta.
    pub min: f64,
    /// Greatest delta.
    pub max: f64,
    /// Mean of d.
    pub mean: f64,
    /// Mean of |d|.
    pub mean_magnitude: f64,
    /// Standard deviation of d (over n, not n - 1).
    pub std: f64,
    /// [`QUANTILES`] of d, exact, between two elements interpolated as NumPy does by default (`linear`).
    pub quantiles: [f64; 5],
    /// Cosine of the angle between base and model as vectors; NaN where one of them is zero.
    pub cosine: f64,
    /// Euclidean norm of d over that of the base; NaN where the base is zero.
    pub relative_norm: f64,
    /// Euclidean norm of d.
    pub norm: f64,
    /// Euclidean norm of the base.
    pub base_norm: f64,
}

impl Figures {
    /// Elements whose delta is finite.
    pub fn finite(&self) -> u64 {
        self.elements - self.not_finite
    }

    /// Share of unchanged elements.
    pub fn unchanged_share(&self) -> f64 {
        self.unchanged as f64 / self.finite() as f64
    }

    /// Shares of the elements within each of [`LIMITS`].
    pub fn within_shares(&self) -> [f64; 4] {
        self.within.map(|count| count as f64 / self.finite() as f64)
    }

    /// What decides about the regime.
    pub fn shares(&self) -> Shares {
        Shares { unchanged: self.unchanged_share(), within: self.within_shares() }
    }
}

/// Number of [`Totals::sums`]: d, |d|, d², base², model², base times model.
pub(crate) const SUMS: usize = 6;

/// Counts and sums over a set of elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    pub elements: u64,
    pub not_finite: u64,
    pub unchanged: u64,
    pub within: [u64; 4],
    min: f32,
    max: f32,
    sums: [f64; SUMS],
}

impl Default for Totals {
    fn default() -> Self {
        let (min, max) = (f32::INFINITY, f32::NEG_INFINITY);
        Self { elements: 0, not_finite: 0, unchanged: 0, within: [0; 4], min, max, sums: [0.0; SUMS] }
    }
}

impl Totals {
    /// Adds those of more elements; sums are added in the order of the calls.
    pub fn add(&mut self, more: &Totals) {
        self.add_counts(more);
        self.sums.iter_mut().zip(more.sums).for_each(|(sum, more)| *sum += more);
    }

    /// Adds the counts alone: those of a tensor's parts come in any order.
    pub fn add_counts(&mut self, more: &Totals) {
        self.elements += more.elements;
        self.not_finite += more.not_finite;
        self.unchanged += more.unchanged;
        self.within.iter_mut().zip(more.within).for_each(|(count, more)| *count += more);
        self.min = self.min.min(more.min);
        self.max = self.max.max(more.max);
    }

    /// Sets a tensor's sums from those of all its reduction blocks, in order.
    pub fn set_sums(&mut self, blocks: &[[f64; SUMS]]) {
        self.sums = std::array::from_fn(|i| ordered_sum(&blocks.iter().map(|block| block[i]).collect::<Vec<_>>()));
    }

    /// Cosine of base and model.
    pub fn cosine(&self) -> f64 {
        let [_, _, _, base, model, product] = self.sums;
        if base > 0.0 && model > 0.0 { (product / (base * model).sqrt()).clamp(-1.0, 1.0) } else { f64::NAN }
    }

    /// Norm of the deltas over the base's.
    pub fn relative_norm(&self) -> f64 {
        let [_, _, square, base, ..] = self.sums;
        if base > 0.0 { (square / base).sqrt() } else { f64::NAN }
    }

    /// Elements whose delta is finite.
    pub fn finite(&self) -> u64 {
        self.elements - self.not_finite
    }

    /// What decides about the regime.
    pub fn shares(&self) -> Shares {
        let n = self.finite() as f64;
        Shares { unchanged: self.unchanged as f64 / n, within: self.within.map(|count| count as f64 / n) }
    }

    /// The figures, with quantiles that were found elsewhere.
    pub fn figures(&self, quantiles: [f64; 5]) -> Figures {
        let n = self.finite() as f64;
        let known = |value: f64| if n > 0.0 { value } else { f64::NAN };
        let [delta, magnitude, square, base, ..] = self.sums;
        let mean = delta / n;
        Figures {
            elements: self.elements,
            not_finite: self.not_finite,
            unchanged: self.unchanged,
            within: self.within,
            // -0 + 0 is +0.
            min: known(f64::from(self.min) + 0.0),
            max: known(f64::from(self.max) + 0.0),
            mean,
            mean_magnitude: magnitude / n,
            std: known((square / n - mean * mean).max(0.0).sqrt()),
            quantiles,
            cosine: self.cosine(),
            relative_norm: self.relative_norm(),
            norm: known(square.sqrt()),
            base_norm: known(base.sqrt()),
        }
    }
}

/// Adds up blocks of one tensor's elements, in the fixed order of `deltaic_kernels`: 16 lanes, blocks of 65,536 elements.
#[derive(Debug, Default)]
pub(crate) struct Adder {
    counts: Totals,
    lanes: [LaneSums; SUMS],
    /// For each reduction block that was closed.
    pub blocks: Vec<[f64; SUMS]>,
}

impl Adder {
    /// Adds a block. `delta` is model - base; where it is not finite, all three are set to zero here, so that no sum sees it.
    pub fn add(&mut self, kernels: Kernels, delta: &mut [f32], base: &mut [f32], model: &mut [f32]) {
        let not_finite = kernels.count_non_finite(delta);
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        if not_finite == 0 {
            (min, max) = kernels.extremes(delta);
        } else {
            for ((delta, base), model) in delta.iter_mut().zip(&mut *base).zip(&mut *model) {
                if delta.is_finite() {
                    (min, max) = (min.min(*delta), max.max(*delta));
                } else {
                    (*delta, *base, *model) = (0.0, 0.0, 0.0);
                }
            }
        }
        let of_finite = |count: u64| count - not_finite;
        self.counts.add_counts(&Totals {
            elements: delta.len() as u64,
            not_finite,
            unchanged: of_finite(kernels.count_within(delta, 0.0)),
            within: LIMITS.map(|limit| of_finite(kernels.count_within(delta, limit))),
            min,
            max,
            ..Totals::default()
        });
        let [sum, magnitude, square, base_square, model_square, product] = &mut self.lanes;
        kernels.sum(delta, sum);
        kernels.sum_magnitudes(delta, magnitude);
        kernels.sum_products(delta, delta, square);
        kernels.sum_products(base, base, base_square);
        kernels.sum_products(model, model, model_square);
        kernels.sum_products(base, model, product);
    }

    /// Closes a reduction block.
    pub fn end_block(&mut self) {
        self.blocks.push(self.lanes.map(|lanes| lanes.total()));
        self.lanes = Default::default();
    }

    /// What was counted, without the sums.
    pub fn counts(&self) -> &Totals {
        &self.counts
    }
}
