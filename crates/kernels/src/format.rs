//! Floating-point formats of checkpoints to f32 and back.
//!
//! Integer code without branches and without intrinsics: the compiler turns it into vector instructions of every instruction set.
//! The 16 and 8 bit formats share two functions, generic over the number of exponent and mantissa bits.

use std::cmp::Ordering;

use crate::{Kernel, Kernels};

/// A floating-point format as checkpoints store it, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatFormat {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16: 5 exponent bits, 10 mantissa bits.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// `float8_e4m3fn` (Micikevicius et al. 2022): no infinities, one NaN per sign, largest value 448.
    F8E4M3,
    /// `float8_e5m2` (Micikevicius et al. 2022): the upper half of a binary16.
    F8E5M2,
}

impl FloatFormat {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::F64, Self::F32, Self::F16, Self::BF16, Self::F8E4M3, Self::F8E5M2];

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::F8E4M3 | Self::F8E5M2 => 1,
        }
    }
}

impl Kernels {
    /// Reads `out.len()` elements of `format` into f32: exact, but F64, which is rounded to nearest even.
    ///
    /// `bytes` has `out.len() * format.size()` bytes at any alignment; otherwise it panics.
    pub fn widen(self, format: FloatFormat, bytes: &[u8], out: &mut [f32]) {
        self.run(Widen { format, bytes, out });
    }

    /// Writes f32 values as `format`, rounded to nearest even, and returns how many elements of the output are not finite.
    ///
    /// Too large values become infinite, in F8E4M3, which has no infinities, NaN (above 464, as torch does it). Every NaN becomes one
    /// pattern, the positive quiet NaN (F64 `7ff8…`, F32 `7fc00000`, F16 `7e00`, BF16 `7fc0`, F8E4M3 `7f`, F8E5M2 `7e`), since
    /// its sign and payload are the hardware's choice.
    ///
    /// `out` has `values.len() * format.size()` bytes at any alignment; otherwise it panics.
    pub fn narrow(self, format: FloatFormat, values: &[f32], out: &mut [u8]) -> u64 {
        self.run(Narrow { format, values, out })
    }
}

struct Widen<'a> {
    format: FloatFormat,
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { format, bytes, out } = self;
        match format {
            FloatFormat::F64 => widen_each(bytes, out, |b| f64::from_le_bytes(b) as f32),
            FloatFormat::F32 => widen_each(bytes, out, f32::from_le_bytes),
            FloatFormat::F16 => widen_each(bytes, out, |b| widen_ieee::<5, 10>(u16::from_le_bytes(b).into())),
            FloatFormat::BF16 => widen_each(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
            FloatFormat::F8E4M3 => widen_each(bytes, out, |[b]| widen_e4m3(b.into())),
            FloatFormat::F8E5M2 => widen_each(bytes, out, |[b]| widen_ieee::<5, 2>(b.into())),
        }
    }
}

struct Narrow<'a> {
    format: FloatFormat,
    values: &'a [f32],
    out: &'a mut [u8],
}

impl Kernel for Narrow<'_> {
    type Output = u64;

    #[inline(always)]
    fn run(self) -> u64 {
        let Self { format, values, out } = self;
        let greatest = greatest_finite(format);
        match format {
            FloatFormat::F64 => {
                narrow_each(values, out, greatest, |v| if v.is_nan() { CANONICAL_NAN_F64 } else { f64::from(v).to_le_bytes() })
            }
            FloatFormat::F32 => narrow_each(values, out, greatest, |v| if v.is_nan() { CANONICAL_NAN_F32 } else { v.to_le_bytes() }),
            FloatFormat::F16 => narrow_each(values, out, greatest, |v| (narrow_ieee::<5, 10>(v) as u16).to_le_bytes()),
            FloatFormat::BF16 => narrow_each(values, out, greatest, |v| narrow_bf16(v).to_le_bytes()),
            FloatFormat::F8E4M3 => narrow_each(values, out, greatest, |v| [narrow_e4m3(v) as u8]),
            FloatFormat::F8E5M2 => narrow_each(values, out, greatest, |v| [narrow_ieee::<5, 2>(v) as u8]),
        }
    }
}

const CANONICAL_NAN_F64: [u8; 8] = 0x7ff8_0000_0000_0000_u64.to_le_bytes();
const CANONICAL_NAN_F32: [u8; 4] = 0x7fc0_0000_u32.to_le_bytes();
const INFINITY_F32: u32 = 0x7f80_0000;

#[inline(always)]
fn widen_each<const SIZE: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; SIZE]) -> f32) {
    let (elements, rest) = bytes.as_chunks::<SIZE>();
    assert!(elements.len() == out.len() && rest.is_empty(), "{} bytes for {} elements of {SIZE} bytes", bytes.len(), out.len());
    for (out, &element) in out.iter_mut().zip(elements) {
        *out = convert(element);
    }
}

#[inline(always)]
fn narrow_each<const SIZE: usize>(values: &[f32], out: &mut [u8], greatest: f32, convert: impl Fn(f32) -> [u8; SIZE]) -> u64 {
    // A u32 counter keeps the loop in 32 bit lanes; blocks keep it from overflowing.
    const BLOCK: usize = 1 << 16;
    let bytes = out.len();
    let (elements, rest) = out.as_chunks_mut::<SIZE>();
    assert!(elements.len() == values.len() && rest.is_empty(), "{bytes} bytes for {} elements of {SIZE} bytes", values.len());
    let mut non_finite = 0;
    for (values, elements) in values.chunks(BLOCK).zip(elements.chunks_mut(BLOCK)) {
        let mut count = 0_u32;
        for (&value, element) in values.iter().zip(elements) {
            // Not `value.abs() > greatest`: NaN counts.
            count += u32::from(!matches!(value.abs().partial_cmp(&greatest), Some(Ordering::Less | Ordering::Equal)));
            *element = convert(value);
        }
        non_finite += u64::from(count);
    }
    non_finite
}

/// The greatest f32 that is still finite once it is rounded to a format.
const fn greatest_finite(format: FloatFormat) -> f32 {
    match format {
        FloatFormat::F64 | FloatFormat::F32 => f32::MAX,
        // Just below the half-way points 65520, (2 - 2^-8) 2^127 and 61440, which go to the even neighbour, infinity.
        FloatFormat::F16 => f32::from_bits(65520_f32.to_bits() - 1),
        FloatFormat::BF16 => f32::from_bits(0x7f7f_7fff),
        FloatFormat::F8E5M2 => f32::from_bits(61440_f32.to_bits() - 1),
        // Half-way, and 448 is the even neighbour.
        FloatFormat::F8E4M3 => 464.0,
    }
}

/// What must be added to the exponent of a format with so many exponent bits to make it a binary32's.
const fn bias_difference(exponent_bits: u32) -> u32 {
    127 - ((1 << (exponent_bits - 1)) - 1)
}

/// Sign and finite magnitude of a small format, as bits of an f32; the caller sees to infinities and NaN.
#[inline(always)]
fn widen_finite<const EXPONENT: u32, const MANTISSA: u32>(bits: u32) -> (u32, u32) {
    let bias = bias_difference(EXPONENT);
    let sign = (bits >> (EXPONENT + MANTISSA)) << 31;
    let shifted = (bits & ((1 << (EXPONENT + MANTISSA)) - 1)) << (23 - MANTISSA);
    let normal = shifted + (bias << 23);
    // A subnormal m * 2^k is (1 + m) * 2^k - 2^k: exact, and no subnormal f32 is ever an operand (those are slow on some machines).
    let subnormal = (f32::from_bits(normal + (1 << 23)) - f32::from_bits((bias + 1) << 23)).to_bits();
    (sign, if shifted < 1 << 23 { subnormal } else { normal })
}

#[inline(always)]
fn widen_ieee<const EXPONENT: u32, const MANTISSA: u32>(bits: u32) -> f32 {
    let (sign, magnitude) = widen_finite::<EXPONENT, MANTISSA>(bits);
    let special = (bits >> MANTISSA) & ((1 << EXPONENT) - 1) == (1 << EXPONENT) - 1;
    f32::from_bits(sign | if special { magnitude | INFINITY_F32 } else { magnitude })
}

#[inline(always)]
fn widen_e4m3(bits: u32) -> f32 {
    let (sign, magnitude) = widen_finite::<4, 3>(bits);
    f32::from_bits(sign | if bits & 0x7f == 0x7f { 0x7fc0_0000 } else { magnitude })
}

/// Sign bit and rounded magnitude in a small format, as if its exponent went on; not for NaN.
#[inline(always)]
fn narrow_finite<const EXPONENT: u32, const MANTISSA: u32>(value: f32) -> (u32, u32) {
    let bias = bias_difference(EXPONENT);
    let bits = value.to_bits();
    let sign = (bits >> 31) << (EXPONENT + MANTISSA);
    let magnitude = bits & 0x7fff_ffff;
    // To nearest even in integers: half a unit less one, and one more where the last bit kept is odd. The carry goes up as it should.
    let half = (1 << (22 - MANTISSA)) - 1;
    let rounded = magnitude.wrapping_add(half + ((magnitude >> (23 - MANTISSA)) & 1));
    let normal = rounded.wrapping_sub(bias << 23) >> (23 - MANTISSA);
    // A subnormal result: this sum's unit in the last place is the format's smallest value, so the adder does the rounding.
    let unit = f32::from_bits((bias + 24 - MANTISSA) << 23);
    let subnormal = (f32::from_bits(magnitude) + unit).to_bits().wrapping_sub(unit.to_bits());
    (sign, if magnitude < (bias + 1) << 23 { subnormal } else { normal })
}

#[inline(always)]
fn narrow_ieee<const EXPONENT: u32, const MANTISSA: u32>(value: f32) -> u32 {
    let (sign, magnitude) = narrow_finite::<EXPONENT, MANTISSA>(value);
    let infinity = ((1 << EXPONENT) - 1) << MANTISSA;
    if value.is_nan() { infinity | 1 << (MANTISSA - 1) } else { sign | magnitude.min(infinity) }
}

#[inline(always)]
fn narrow_e4m3(value: f32) -> u32 {
    let (sign, magnitude) = narrow_finite::<4, 3>(value);
    if value.is_nan() | (magnitude >= 0x7f) { 0x7f } else { sign | magnitude }
}

#[inline(always)]
fn narrow_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    (if value.is_nan() { 0x7fc0 } else { rounded }) as u16
}
