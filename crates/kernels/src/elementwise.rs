//! Element-wise arithmetic on f32 slices, each operation rounded once: the words that merge formulas are made of.

use crate::{Kernel, Kernels};

impl Kernels {
    /// `x = x - y`.
    pub fn subtract(self, x: &mut [f32], y: &[f32]) {
        self.run(Zip { out: x, x: y, f: |x, y| x - y });
    }

    /// `x = x + y`.
    pub fn add(self, x: &mut [f32], y: &[f32]) {
        self.run(Zip { out: x, x: y, f: |x, y| x + y });
    }

    /// `x = x * factor`.
    pub fn scale(self, x: &mut [f32], factor: f32) {
        self.run(Map { x, f: |x| x * factor });
    }

    /// `x = x / divisor`.
    pub fn divide(self, x: &mut [f32], divisor: f32) {
        self.run(Map { x, f: |x| x / divisor });
    }

    /// `accumulator = accumulator + weight * x`, the product rounded before the sum.
    pub fn add_scaled(self, accumulator: &mut [f32], weight: f32, x: &[f32]) {
        self.run(Zip { out: accumulator, x, f: |accumulator, x| accumulator + weight * x });
    }

    /// `accumulator = accumulator + weight * x`, the product exact and the sum in f64, then rounded to f32.
    ///
    /// It is what a fused multiply-add gives (but for sums that f64 rounds onto a tie), the same on every machine: matrix products of
    /// BLAS libraries are chains of these.
    pub fn add_exact_product(self, accumulator: &mut [f32], weight: f32, x: &[f32]) {
        let weight = f64::from(weight);
        self.run(Zip { out: accumulator, x, f: |accumulator, x| (f64::from(accumulator) + weight * f64::from(x)) as f32 });
    }

    /// `out = weight * x`.
    pub fn set_scaled(self, out: &mut [f32], weight: f32, x: &[f32]) {
        self.run(Zip { out, x, f: |_, x| weight * x });
    }

    /// `out = a * x + b * y`, both products rounded before the sum.
    pub fn combine(self, out: &mut [f32], a: f32, x: &[f32], b: f32, y: &[f32]) {
        self.run(Combine { out, a, x, b, y });
    }

    /// How many elements are infinite or NaN.
    pub fn count_non_finite(self, x: &[f32]) -> u64 {
        self.run(Count { x, f: |x: f32| !x.is_finite() })
    }

    /// How many elements have exactly this magnitude, in the order of [`magnitude_bits`](crate::magnitude_bits).
    pub fn count_magnitude(self, x: &[f32], bits: u32) -> u64 {
        self.run(Count { x, f: |x| crate::magnitude_bits(x) == bits })
    }
}

struct Map<'a, F> {
    x: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32) -> f32> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.x {
            *x = (self.f)(*x);
        }
    }
}

struct Zip<'a, F> {
    out: &'a mut [f32],
    x: &'a [f32],
    f: F,
}

impl<F: Fn(f32, f32) -> f32> Kernel for Zip<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        assert_eq!(self.out.len(), self.x.len(), "slices of one operation have one length");
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            *out = (self.f)(*out, x);
        }
    }
}

struct Combine<'a> {
    out: &'a mut [f32],
    a: f32,
    x: &'a [f32],
    b: f32,
    y: &'a [f32],
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { out, a, x, b, y } = self;
        assert!(out.len() == x.len() && out.len() == y.len(), "slices of one operation have one length");
        for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
            *out = a * x + b * y;
        }
    }
}

struct Count<'a, F> {
    x: &'a [f32],
    f: F,
}

impl<F: Fn(f32) -> bool> Kernel for Count<'_, F> {
    type Output = u64;

    #[inline(always)]
    fn run(self) -> u64 {
        // A u32 counter per block keeps the loop in 32 bit lanes.
        self.x.chunks(1 << 16).map(|block| u64::from(block.iter().map(|&x| u32::from((self.f)(x))).sum::<u32>())).sum()
    }
}
