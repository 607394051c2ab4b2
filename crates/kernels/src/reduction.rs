//! Sums over a tensor that do not depend on the instruction set, the number of threads or the size of the chunks.
//!
//! A tensor is cut into blocks of [`REDUCTION_BLOCK`] elements. Within a block, element i is added in f64 to lane i mod 16, in order
//! of i; then the 16 lanes are added in order ([`LaneSums::total`]); then the blocks' totals in order ([`ordered_sum`]).

use crate::{Kernel, Kernels};

/// Elements per block of a reduction; the last block of a tensor may be shorter.
pub const REDUCTION_BLOCK: usize = 65_536;

/// Lanes of a block's sum.
pub const LANES: usize = 16;

/// The 16 partial sums of one block.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(align(64))]
pub struct LaneSums([f64; LANES]);

impl LaneSums {
    /// The block's sum: the lanes added in order.
    pub fn total(&self) -> f64 {
        ordered_sum(&self.0)
    }
}

/// The sum of the numbers in the order given, from 0.
pub fn ordered_sum(block_totals: &[f64]) -> f64 {
    block_totals.iter().fold(0.0, |sum, total| sum + total)
}

impl Kernels {
    /// Adds the elements themselves to a block's sums.
    ///
    /// `x` is a part of one block that begins at a multiple of 16 within the block; the parts come in order.
    pub fn sum(self, x: &[f32], sums: &mut LaneSums) {
        self.run(Sum { x, sums, f: |x: f32| f64::from(x) });
    }

    /// Adds the magnitudes |x| to a block's sums (the l1 norm).
    ///
    /// `x` is a part of one block that begins at a multiple of 16 within the block; the parts come in order.
    pub fn sum_magnitudes(self, x: &[f32], sums: &mut LaneSums) {
        self.run(Sum { x, sums, f: |x: f32| f64::from(x.abs()) });
    }

    /// Adds the products x·y, exact in f64, to a block's sums (dot products; with `y = x`, the squared l2 norm).
    ///
    /// `x` and `y` are parts of one block that begin at a multiple of 16 within the block; the parts come in order.
    pub fn sum_products(self, x: &[f32], y: &[f32], sums: &mut LaneSums) {
        self.run(SumProducts { x, y, sums });
    }
}

struct Sum<'a, F> {
    x: &'a [f32],
    sums: &'a mut LaneSums,
    f: F,
}

impl<F: Fn(f32) -> f64> Kernel for Sum<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (chunks, rest) = self.x.as_chunks::<LANES>();
        let mut sums = self.sums.0;
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += (self.f)(chunk[lane]);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum += (self.f)(x);
        }
        self.sums.0 = sums;
    }
}

struct SumProducts<'a> {
    x: &'a [f32],
    y: &'a [f32],
    sums: &'a mut LaneSums,
}

impl Kernel for SumProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, y, sums: out } = self;
        assert_eq!(x.len(), y.len(), "slices of one operation have one length");
        let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        let mut sums = out.0;
        for (x, y) in x.iter().zip(y) {
            for lane in 0..LANES {
                sums[lane] += f64::from(x[lane]) * f64::from(y[lane]);
            }
        }
        for ((sum, &x), &y) in sums.iter_mut().zip(x_rest).zip(y_rest) {
            *sum += f64::from(x) * f64::from(y);
        }
        out.0 = sums;
    }
}
