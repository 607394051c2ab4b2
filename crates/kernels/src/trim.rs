//! Trimming by magnitude: the elements above a threshold stay, the others become zero.

use crate::{Kernel, Kernels, magnitude_bits};

/// What becomes of the elements whose magnitude equals the threshold.
#[derive(Debug)]
pub enum Ties<'a> {
    /// All stay.
    Keep,
    /// All become zero.
    Drop,
    /// So many stay, in the order of their index; the number goes down as they are met, window after window.
    KeepFirst(&'a mut u64),
}

impl Kernels {
    /// `x = x * scale` where [`magnitude_bits`] of x are greater than the threshold, or equal to it and `ties` says so; else `x = +0`.
    ///
    /// NaN has the greatest magnitude of all and stays.
    pub fn trim(self, x: &mut [f32], threshold: u32, ties: Ties<'_>, scale: f32) {
        match ties {
            Ties::Keep => self.run(KeepAbove { x, threshold, keep_ties: true, scale }),
            Ties::Drop => self.run(KeepAbove { x, threshold, keep_ties: false, scale }),
            Ties::KeepFirst(remaining) => {
                for block in x.chunks_mut(1024) {
                    self.trim_block(block, threshold, remaining, scale);
                }
            }
        }
    }

    /// Where the number of ties left ends within a block, and only there, elements are looked at one by one.
    fn trim_block(self, x: &mut [f32], threshold: u32, remaining: &mut u64, scale: f32) {
        let ties = if *remaining == 0 { 0 } else { self.count_magnitude(x, threshold) };
        if ties <= *remaining {
            let keep_ties = *remaining > 0;
            *remaining -= ties;
            return self.run(KeepAbove { x, threshold, keep_ties, scale });
        }
        for x in x {
            let bits = magnitude_bits(*x);
            let keep = bits > threshold || (bits == threshold && *remaining > 0);
            *remaining -= u64::from(keep && bits == threshold);
            *x = if keep { *x * scale } else { 0.0 };
        }
    }
}

struct KeepAbove<'a> {
    x: &'a mut [f32],
    threshold: u32,
    keep_ties: bool,
    scale: f32,
}

impl Kernel for KeepAbove<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // The smallest magnitude that stays; it cannot overflow, for there is a greatest magnitude, and a threshold above it drops all.
        let least = self.threshold.saturating_add(u32::from(!self.keep_ties));
        for x in self.x {
            *x = if magnitude_bits(*x) >= least { *x * self.scale } else { 0.0 };
        }
    }
}
