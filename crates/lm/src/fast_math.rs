//! Loops of inference over one row, written so that the compiler vectorises them.
//!
//! Sums go into 16 lanes. `exp` and `erf` are approximations whose errors are about those of f32 itself.

use deltaic_kernels::Kernel;

use crate::activation::Activation;

const LANES: usize = 16;

/// `e^x` within two units in the last place; 0 below -87, and nothing above 88 is told apart. (Cephes' `expf`.)
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let tiny = x < -87.0;
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first exact in few bits.
    let r = x - n * (355.0 / 512.0) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if tiny { 0.0 } else { p * power }
}

/// The error function within 2e-7 (Abramowitz and Stegun 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let mut p = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + coefficient;
    }
    (1.0 - p * t * exp(-size * size)).copysign(x)
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    let size = x.abs();
    (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x)
}

/// Sums `f` over elements of one or two slices in lanes.
#[inline(always)]
fn sum(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter().zip(ys) {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane], y[lane]);
        }
    }
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    for (&x, &y) in x_rest.iter().zip(y_rest) {
        total += f(x, y);
    }
    total
}

/// `softmax(scores * scale + mask)`.
pub(crate) struct SoftmaxRow<'a> {
    pub scores: &'a [f32],
    pub scale: f32,
    pub mask: Option<&'a [f32]>,
    pub out: &'a mut [f32],
}

impl Kernel for SoftmaxRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (out, scale) = (self.out, self.scale);
        match self.mask {
            Some(mask) => {
                for ((out, &score), &mask) in out.iter_mut().zip(self.scores).zip(mask) {
                    *out = score * scale + mask;
                }
            }
            None => {
                for (out, &score) in out.iter_mut().zip(self.scores) {
                    *out = score * scale;
                }
            }
        }
        let mut largest = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = out.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                largest[lane] = if chunk[lane] > largest[lane] { chunk[lane] } else { largest[lane] };
            }
        }
        let top = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |top, &value| if value > top { value } else { top });
        for value in out.iter_mut() {
            *value = exp(*value - top);
        }
        let factor = 1.0 / sum(out, out, |value, _| value);
        for value in out.iter_mut() {
            *value *= factor;
        }
    }
}

/// `(x - mean) / sqrt(var + eps) * weight + bias`.
pub(crate) struct LayerNormRow<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub eps: f32,
    pub out: &'a mut [f32],
}

impl Kernel for LayerNormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let size = self.x.len() as f32;
        let mean = sum(self.x, self.x, |x, _| x) / size;
        // In two passes: the mean of squares less the square of the mean loses digits.
        let variance = sum(self.x, self.x, |x, _| (x - mean) * (x - mean)) / size;
        let factor = 1.0 / (variance + self.eps).sqrt();
        for (((out, &x), &weight), &bias) in self.out.iter_mut().zip(self.x).zip(self.weight).zip(self.bias) {
            *out = (x - mean) * factor * weight + bias;
        }
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight`.
pub(crate) struct RmsNormRow<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub eps: f32,
    pub out: &'a mut [f32],
}

impl Kernel for RmsNormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let squares = sum(self.x, self.x, |x, _| x * x) / self.x.len() as f32;
        let factor = 1.0 / (squares + self.eps).sqrt();
        for ((out, &x), &weight) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = x * factor * weight;
        }
    }
}

/// `activation(gate) * up`, or `activation(gate)`.
pub(crate) struct Gate<'a> {
    pub gate: &'a [f32],
    pub up: Option<&'a [f32]>,
    pub activation: Activation,
    pub out: &'a mut [f32],
}

impl Gate<'_> {
    #[inline(always)]
    fn with(self, f: impl Fn(f32) -> f32) {
        match self.up {
            Some(up) => {
                for ((out, &gate), &up) in self.out.iter_mut().zip(self.gate).zip(up) {
                    *out = f(gate) * up;
                }
            }
            None => {
                for (out, &gate) in self.out.iter_mut().zip(self.gate) {
                    *out = f(gate);
                }
            }
        }
    }
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        use std::f32::consts::FRAC_1_SQRT_2;
        // sqrt(2 / pi).
        const ROOT: f32 = 0.797_884_6;
        match self.activation {
            Activation::Gelu => self.with(|x| 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))),
            Activation::GeluTanh => self.with(|x| 0.5 * x * (1.0 + tanh(ROOT * (x + 0.044_715 * x * x * x)))),
            Activation::Relu => self.with(|x| if x < 0.0 { 0.0 } else { x }),
            Activation::Silu => self.with(|x| x / (1.0 + exp(-x))),
            Activation::Tanh => self.with(tanh),
        }
    }
}

/// The products of some of a weight's rows with all of `x`: `out[row of weight][row of x]`.
pub(crate) struct WeightedRows<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub inputs: usize,
    pub out: &'a mut [f32],
}

impl Kernel for WeightedRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let rows = self.x.len() / self.inputs;
        for (weight, out) in self.weight.chunks_exact(self.inputs).zip(self.out.chunks_exact_mut(rows)) {
            for (x, out) in self.x.chunks_exact(self.inputs).zip(out) {
                *out = sum(x, weight, |x, weight| x * weight);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points from -20 to 20, and the ends.
    fn points() -> impl Iterator<Item = f32> {
        (-20_000..=20_000).map(|step| step as f32 * 1e-3).chain([0.0, -0.0, -100.0, 100.0, f32::MIN, f32::MAX])
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place_and_zero_far_below() {
        for x in points().filter(|&x| (-87.0..88.0).contains(&x)) {
            let want = f64::from(x).exp();
            let error = ((f64::from(exp(x)) - want) / want).abs();
            assert!(error < 2.0 * f64::from(f32::EPSILON), "{x}: {error:e}");
        }
        assert_eq!(exp(f32::MIN), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_and_gelu_are_within_what_f32_tells_apart() {
        for x in points().filter(|x| x.abs() < 1e6) {
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 3e-7, "tanh {x}");
            // candle's is computed in f64.
            let want = candle_core::Tensor::new(&[f64::from(x)], &candle_core::Device::Cpu).unwrap().gelu_erf().unwrap();
            let want = want.to_vec1::<f64>().unwrap()[0];
            let mut out = [0.0];
            Gate { gate: &[x], up: None, activation: Activation::Gelu, out: &mut out }.run();
            assert!((f64::from(out[0]) - want).abs() <= 3e-7 * f64::from(x.abs()).max(1.0), "gelu {x}: {} for {want}", out[0]);
        }
    }
}
