//! Conversions against a twin that knows a format only as a table of values, found by arithmetic in f64.

use deltaic_kernels::{FloatFormat, InstructionSet, Kernels};

fn all_kernels() -> impl Iterator<Item = Kernels> {
    InstructionSet::available().filter_map(Kernels::with)
}

/// Exponent bits, mantissa bits, canonical NaN.
fn shape(format: FloatFormat) -> (u32, u32, u32) {
    match format {
        FloatFormat::F16 => (5, 10, 0x7e00),
        FloatFormat::BF16 => (8, 7, 0x7fc0),
        FloatFormat::F8E4M3 => (4, 3, 0x7f),
        FloatFormat::F8E5M2 => (5, 2, 0x7e),
        FloatFormat::F32 | FloatFormat::F64 => unreachable!("only small formats have a table"),
    }
}

const SMALL: [FloatFormat; 4] = [FloatFormat::F16, FloatFormat::BF16, FloatFormat::F8E4M3, FloatFormat::F8E5M2];

/// The value of a pattern: sign, exponent and mantissa multiplied out.
fn value(format: FloatFormat, pattern: u32) -> f64 {
    let (exponent_bits, mantissa_bits, _) = shape(format);
    let top = (1 << exponent_bits) - 1;
    let sign = if pattern >> (exponent_bits + mantissa_bits) == 1 { -1.0 } else { 1.0 };
    let exponent = (pattern >> mantissa_bits) & top;
    let mantissa = pattern & ((1 << mantissa_bits) - 1);
    let bias = (top / 2) as i32;
    let fraction = f64::from(mantissa) / f64::from(1 << mantissa_bits);
    if format == FloatFormat::F8E4M3 && exponent == top && mantissa == 7 {
        return f64::NAN;
    }
    if format != FloatFormat::F8E4M3 && exponent == top {
        return if mantissa == 0 { sign * f64::INFINITY } else { f64::NAN };
    }
    sign * if exponent == 0 { fraction * 2_f64.powi(1 - bias) } else { (1.0 + fraction) * 2_f64.powi(exponent as i32 - bias) }
}

fn bytes_of(format: FloatFormat, pattern: u32) -> Vec<u8> {
    pattern.to_le_bytes()[..format.size()].to_vec()
}

/// The patterns of the finite values from 0 up, with the value where the format would go on as its last one.
fn ladder(format: FloatFormat) -> Vec<f64> {
    let mut values: Vec<f64> = (0..).map(|pattern| value(format, pattern)).take_while(|v| v.is_finite()).collect();
    let last = values.len() - 1;
    values.push(2.0 * values[last] - values[last - 1]);
    values
}

/// To nearest even by search: the pattern of `x`.
fn nearest(format: FloatFormat, ladder: &[f64], x: f32) -> u32 {
    let (exponent_bits, mantissa_bits, nan) = shape(format);
    if x.is_nan() {
        return nan;
    }
    let magnitude = f64::from(x.abs());
    let above = ladder.partition_point(|&v| v < magnitude);
    let pattern = if above == ladder.len() {
        above - 1
    } else if above == 0 {
        0
    } else {
        let (down, up) = (magnitude - ladder[above - 1], ladder[above] - magnitude);
        if down < up || (down == up && above % 2 == 1) { above - 1 } else { above }
    };
    // The last rung stands for what the format cannot hold.
    if pattern == ladder.len() - 1 && format == FloatFormat::F8E4M3 {
        return nan;
    }
    pattern as u32 | u32::from(x.is_sign_negative()) << (exponent_bits + mantissa_bits)
}

fn widen(kernels: Kernels, format: FloatFormat, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / format.size()];
    kernels.widen(format, bytes, &mut out);
    out
}

fn narrow(kernels: Kernels, format: FloatFormat, values: &[f32]) -> (Vec<u8>, u64) {
    let mut out = vec![0; values.len() * format.size()];
    let non_finite = kernels.narrow(format, values, &mut out);
    (out, non_finite)
}

#[test]
fn every_pattern_of_the_small_formats_widens_to_its_value_and_comes_back() {
    for format in SMALL {
        let patterns = 0..1_u32 << (8 * format.size());
        let bytes: Vec<u8> = patterns.clone().flat_map(|pattern| bytes_of(format, pattern)).collect();
        for kernels in all_kernels() {
            let wide = widen(kernels, format, &bytes);
            for (pattern, &wide) in patterns.clone().zip(&wide) {
                let expected = value(format, pattern);
                assert!(
                    wide.is_nan() && expected.is_nan() || f64::from(wide).to_bits() == expected.to_bits(),
                    "{format:?} {pattern:x}: {wide} for {expected}"
                );
            }
            let (back, non_finite) = narrow(kernels, format, &wide);
            assert_eq!(non_finite, wide.iter().filter(|v| !v.is_finite()).count() as u64);
            for (pattern, back) in patterns.clone().zip(back.chunks(format.size())) {
                let expected = if value(format, pattern).is_nan() { shape(format).2 } else { pattern };
                assert_eq!(back, bytes_of(format, expected), "{format:?} {pattern:x}");
            }
        }
    }
}

/// For a format all its values, the halves between neighbours, and what is just below and above each; then random patterns.
fn difficult(ladder: &[f64]) -> Vec<f32> {
    let mut values = Vec::new();
    for pair in ladder.windows(2) {
        for v in [pair[0] as f32, ((pair[0] + pair[1]) / 2.0) as f32, pair[1] as f32] {
            values.extend([v, v.next_up(), if v > 0.0 { v.next_down() } else { v }]);
        }
    }
    values.extend([f32::MAX, f32::INFINITY, f32::NAN, f32::from_bits(0x7f80_0001), f32::MIN_POSITIVE, f32::from_bits(1), 1e-40]);
    values.extend((0..100_000_u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B1) >> 1)));
    values.iter().flat_map(|&v| [v, -v]).collect()
}

#[test]
fn narrowing_rounds_to_nearest_even_at_every_halfway_case() {
    for format in SMALL {
        let ladder = ladder(format);
        let values = difficult(&ladder);
        let expected: Vec<u8> = values.iter().flat_map(|&v| bytes_of(format, nearest(format, &ladder, v))).collect();
        for kernels in all_kernels() {
            let (bytes, _) = narrow(kernels, format, &values);
            for ((v, bytes), expected) in values.iter().zip(bytes.chunks(format.size())).zip(expected.chunks(format.size())) {
                assert_eq!(bytes, expected, "{format:?} {v:e} {} {}", v.to_bits(), kernels.instruction_set());
            }
        }
    }
}

#[test]
fn e4m3_overflows_to_nan_above_464_as_torch_does() {
    let kernels = Kernels::detect();
    let (bytes, non_finite) = narrow(kernels, FloatFormat::F8E4M3, &[448.0, 464.0, 464.1, -464.0, -1e9, f32::NEG_INFINITY]);
    assert_eq!(bytes, [0x7e, 0x7e, 0x7f, 0xfe, 0x7f, 0x7f]);
    assert_eq!(non_finite, 3, "counted as they are written");
}

#[test]
fn f32_and_f64_go_through_unchanged_but_for_nan() {
    let values = difficult(&[0.0, 1.0]);
    for kernels in all_kernels() {
        for format in [FloatFormat::F32, FloatFormat::F64] {
            let (bytes, _) = narrow(kernels, format, &values);
            for ((&v, bytes), back) in values.iter().zip(bytes.chunks(format.size())).zip(widen(kernels, format, &bytes)) {
                let expected = match (format, v.is_nan()) {
                    (FloatFormat::F32, true) => 0x7fc0_0000_u32.to_le_bytes().to_vec(),
                    (FloatFormat::F32, false) => v.to_le_bytes().to_vec(),
                    (_, true) => 0x7ff8_0000_0000_0000_u64.to_le_bytes().to_vec(),
                    (_, false) => f64::from(v).to_le_bytes().to_vec(),
                };
                assert_eq!(bytes, expected);
                assert!(back.to_bits() == v.to_bits() || back.is_nan() && v.is_nan());
            }
        }
    }
}

#[test]
fn f64_is_rounded_to_nearest_even() {
    let half = 1.0 + 2_f64.powi(-24);
    let bytes: Vec<u8> = [half, half.next_up(), half + 2_f64.powi(-23), 1e300, -1e-300].iter().flat_map(|v| v.to_le_bytes()).collect();
    for kernels in all_kernels() {
        let expected = [1.0, 1.0 + f32::EPSILON, 1.0 + 2.0 * f32::EPSILON, f32::INFINITY, -0.0_f32];
        assert_eq!(widen(kernels, FloatFormat::F64, &bytes).iter().map(|v| v.to_bits()).collect::<Vec<_>>(), expected.map(f32::to_bits));
    }
}

#[test]
fn any_length_and_alignment_gives_the_same_bytes() {
    let values: Vec<f32> = (0..300_u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B1))).collect();
    for format in FloatFormat::ALL {
        let (reference, _) = narrow(Kernels::detect(), format, &values);
        for kernels in all_kernels() {
            for (start, length) in (0..70).map(|n| (n % 7, n)).chain([(1, 299), (3, 257)]) {
                let part = &values[start..start + length];
                let mut bytes = vec![0; 1 + length * format.size()];
                let non_finite = kernels.narrow(format, part, &mut bytes[1..]);
                assert_eq!(bytes[1..], reference[start * format.size()..][..length * format.size()]);
                let mut wide = vec![0.0; length];
                kernels.widen(format, &bytes[1..], &mut wide);
                let twin = widen(Kernels::detect(), format, &bytes[1..]);
                assert_eq!(non_finite, twin.iter().filter(|v| !v.is_finite()).count() as u64);
                assert!(wide.iter().zip(&twin).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()));
            }
        }
    }
}
