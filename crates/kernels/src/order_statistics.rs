//! Order statistics of magnitudes by counting.
//!
//! The bits of a non-negative f32 are ordered as its values are, so the magnitude of exact rank k among any number of elements, in
//! any order, comes from two passes with fixed memory: [`Kernels::histogram_high`] counts the upper 16 of the 31 magnitude bits,
//! [`rank_in`] finds the bin that holds rank k, [`Kernels::histogram_low`] counts the lower 15 bits of that bin's elements, and
//! [`rank_in`] with the rank that is left finds the magnitude ([`magnitude_of_bins`]). Counts are integers, so histograms of parts
//! may be added in any order.

use crate::{Kernel, Kernels};

/// Bins of [`Kernels::histogram_high`]: the upper 16 bits of a magnitude.
pub const HIGH_BINS: usize = 1 << 16;

/// Bins of [`Kernels::histogram_low`]: the lower 15 bits of a magnitude.
pub const LOW_BINS: usize = 1 << 15;

/// The magnitude |x| as bits, in the order of magnitudes: 0 for zeros, `7f800000` for infinities, and `7f800001`, the greatest, for
/// every NaN (its own payload is the hardware's choice).
#[inline(always)]
pub fn magnitude_bits(x: f32) -> u32 {
    (x.to_bits() & 0x7fff_ffff).min(0x7f80_0001)
}

/// The [`magnitude_bits`] of a bin of the high histogram and one of the low.
pub fn magnitude_of_bins(high: usize, low: usize) -> u32 {
    (high as u32) << 15 | low as u32
}

/// The bin that holds the element of this rank (0 is the smallest), and the rank of that element within the bin.
///
/// `None` where the histogram counts no more than `rank` elements.
pub fn rank_in(histogram: &[u64], rank: u64) -> Option<(usize, u64)> {
    let mut left = rank;
    for (bin, &count) in histogram.iter().enumerate() {
        if left < count {
            return Some((bin, left));
        }
        left -= count;
    }
    None
}

impl Kernels {
    /// Adds each element to the bin of its upper magnitude bits, `magnitude_bits(x) >> 15`.
    pub fn histogram_high(self, x: &[f32], histogram: &mut [u64; HIGH_BINS]) {
        self.run(HistogramHigh { x, histogram });
    }

    /// Adds those elements whose upper magnitude bits are `high` to the bin of their lower 15 bits.
    pub fn histogram_low(self, x: &[f32], high: u32, histogram: &mut [u64; LOW_BINS]) {
        self.run(HistogramLow { x, high, histogram });
    }
}

struct HistogramHigh<'a> {
    x: &'a [f32],
    histogram: &'a mut [u64; HIGH_BINS],
}

impl Kernel for HistogramHigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for &x in self.x {
            self.histogram[(magnitude_bits(x) >> 15) as usize % HIGH_BINS] += 1;
        }
    }
}

struct HistogramLow<'a> {
    x: &'a [f32],
    high: u32,
    histogram: &'a mut [u64; LOW_BINS],
}

impl Kernel for HistogramLow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // Few elements are in the bin: look at 32 at once first.
        for chunk in self.x.chunks(32) {
            if chunk.iter().fold(false, |found, &x| found | (magnitude_bits(x) >> 15 == self.high)) {
                for bits in chunk.iter().map(|&x| magnitude_bits(x)).filter(|bits| bits >> 15 == self.high) {
                    self.histogram[bits as usize % LOW_BINS] += 1;
                }
            }
        }
    }
}
