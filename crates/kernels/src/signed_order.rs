//! Order statistics of signed numbers by counting, and what else a study of deltas counts.
//!
//! Flipping the sign bit of positive numbers and all bits of negative ones orders the bits of f32 as its values are
//! ([`ordered_bits`]). The number of exact rank k among any number of elements then comes from three passes with little memory:
//! [`Kernels::histogram_ordered`] counts the upper 12 bits, [`Kernels::histogram_ordered_middle`] the next 10 bits of those elements whose
//! upper bits are wanted, [`Kernels::histogram_ordered_low`] the last 10 bits of what is wanted then. Counts are
//! integers, so histograms of parts may be added in any order.

use crate::{Kernel, Kernels};

/// Bits that each of the three passes counts, the uppermost first.
pub const ORDERED_BITS: [u32; 3] = [12, 10, 10];

/// Bins of [`Kernels::histogram_ordered`]: sign, exponent, three bits of the fraction.
pub const ORDERED_BINS: usize = 1 << ORDERED_BITS[0];

/// Bins of the two refining passes, for every slot.
pub const REFINED_BINS: usize = 1 << ORDERED_BITS[1];

/// Bins of [`Kernels::histogram_ordered`] at either end that hold infinities and NaN only: their exponent is all ones.
pub const NON_FINITE_BINS: usize = 8;

/// In a table of slots: nobody asks for such elements.
pub const NO_SLOT: u16 = u16::MAX;

/// The bits of a number as an integer of the same order; both zeros are one. NaN of either sign is beyond the infinity of its sign.
#[inline(always)]
pub fn ordered_bits(x: f32) -> u32 {
    // -0 + 0 is +0.
    let bits = (x + 0.0).to_bits();
    bits ^ (((bits as i32) >> 31) as u32 | 0x8000_0000)
}

/// The number of these [`ordered_bits`].
pub fn from_ordered_bits(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits ^ 0x8000_0000 } else { !bits })
}

impl Kernels {
    /// Adds each element to the bin of its upper 12 [`ordered_bits`].
    pub fn histogram_ordered(self, x: &[f32], counts: &mut [u64; ORDERED_BINS]) {
        self.run(Upper { x, counts });
    }

    /// Adds each element to the bin of its middle 10 bits in the histogram of its slot: `slots` gives one for its upper 12 bits, or
    /// [`NO_SLOT`]. The histogram of slot s is `counts[s * REFINED_BINS ..][.. REFINED_BINS]`.
    pub fn histogram_ordered_middle(self, x: &[f32], slots: &[u16; ORDERED_BINS], counts: &mut [u64]) {
        self.run(Middle { x, slots, counts });
    }

    /// Adds each element to the bin of its last 10 bits in the histogram of its slot: `slots` gives for its upper 12 bits a number s
    /// or [`NO_SLOT`], then `middle_slots[s * REFINED_BINS + middle bits]` the slot or [`NO_SLOT`].
    pub fn histogram_ordered_low(self, x: &[f32], slots: &[u16; ORDERED_BINS], middle_slots: &[u16], counts: &mut [u64]) {
        self.run(Low { x, slots, middle_slots, counts });
    }

    /// How many elements have a magnitude of at most `limit`; NaN is none of them.
    pub fn count_within(self, x: &[f32], limit: f32) -> u64 {
        self.run(CountWithin { x, limit })
    }

    /// Least and greatest element, `(inf, -inf)` where there are none. Elements are finite.
    pub fn extremes(self, x: &[f32]) -> (f32, f32) {
        self.run(Extremes { x })
    }
}

struct Upper<'a> {
    x: &'a [f32],
    counts: &'a mut [u64; ORDERED_BINS],
}

impl Kernel for Upper<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for &x in self.x {
            self.counts[upper(x) % ORDERED_BINS] += 1;
        }
    }
}

struct Middle<'a> {
    x: &'a [f32],
    slots: &'a [u16; ORDERED_BINS],
    counts: &'a mut [u64],
}

impl Kernel for Middle<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for &x in self.x {
            let slot = self.slots[upper(x) % ORDERED_BINS];
            if slot != NO_SLOT {
                self.counts[slot as usize * REFINED_BINS + middle(x)] += 1;
            }
        }
    }
}

struct Low<'a> {
    x: &'a [f32],
    slots: &'a [u16; ORDERED_BINS],
    middle_slots: &'a [u16],
    counts: &'a mut [u64],
}

impl Kernel for Low<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for &x in self.x {
            let first = self.slots[upper(x) % ORDERED_BINS];
            if first == NO_SLOT {
                continue;
            }
            let slot = self.middle_slots[first as usize * REFINED_BINS + middle(x)];
            if slot != NO_SLOT {
                self.counts[slot as usize * REFINED_BINS + ordered_bits(x) as usize % REFINED_BINS] += 1;
            }
        }
    }
}

#[inline(always)]
fn upper(x: f32) -> usize {
    (ordered_bits(x) >> (ORDERED_BITS[1] + ORDERED_BITS[2])) as usize
}

#[inline(always)]
fn middle(x: f32) -> usize {
    (ordered_bits(x) >> ORDERED_BITS[2]) as usize % REFINED_BINS
}

struct CountWithin<'a> {
    x: &'a [f32],
    limit: f32,
}

impl Kernel for CountWithin<'_> {
    type Output = u64;

    #[inline(always)]
    fn run(self) -> u64 {
        // A u32 counter per block keeps the loop in 32 bit lanes.
        let limit = self.limit;
        self.x.chunks(1 << 16).map(|block| u64::from(block.iter().map(|&x| u32::from(x.abs() <= limit)).sum::<u32>())).sum()
    }
}

struct Extremes<'a> {
    x: &'a [f32],
}

impl Kernel for Extremes<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run(self) -> (f32, f32) {
        const LANES: usize = 16;
        let (mut least, mut greatest) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (chunks, rest) = self.x.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                least[lane] = if chunk[lane] < least[lane] { chunk[lane] } else { least[lane] };
                greatest[lane] = if chunk[lane] > greatest[lane] { chunk[lane] } else { greatest[lane] };
            }
        }
        let low = least.iter().chain(rest).fold(f32::INFINITY, |least, &x| if x < least { x } else { least });
        let high = greatest.iter().chain(rest).fold(f32::NEG_INFINITY, |greatest, &x| if x > greatest { x } else { greatest });
        (low, high)
    }
}
