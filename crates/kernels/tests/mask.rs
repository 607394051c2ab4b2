//! The mask against `docs/mask.md`, whose tables are `reference/mask.py`'s, and against a scalar twin.

use deltaic_kernels::{InstructionSet, Kernels, MaskKey, threshold};
use proptest::prelude::*;

const DEFINITION: &str = include_str!("../../../docs/mask.md");

fn all_kernels() -> impl Iterator<Item = Kernels> {
    InstructionSet::available().filter_map(Kernels::with)
}

/// The cells of the rows of the table with this heading.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let mut rows = DEFINITION.lines().skip_while(|line| *line != heading).skip(2);
    let mut found = Vec::new();
    while let Some(row) = rows.next().filter(|row| row.starts_with('|')) {
        found.push(row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect());
    }
    assert!(!found.is_empty(), "docs/mask.md has a table {heading}");
    found
}

fn hexadecimal<const N: usize>(cell: &str) -> [u32; N] {
    let words: Vec<u32> = cell.split(' ').map(|word| u32::from_str_radix(word, 16).unwrap()).collect();
    words.try_into().unwrap()
}

/// Philox4x32-10 as the paper has it, one counter at a time.
fn philox(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (p0, p1) = (0xD251_1F53 * u64::from(c[0]), 0xCD9E_8D57 * u64::from(c[2]));
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

fn word(key: MaskKey, index: u64) -> u32 {
    let c = 16 * (index / 64) + index % 16;
    philox([c as u32, (c >> 32) as u32, 0, 0], key.0)[(index % 64 / 16) as usize]
}

#[test]
fn the_twin_gives_the_known_answers_of_random123() {
    let rows = table("| counter | key | output |");
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!(philox(hexadecimal(row[0]), hexadecimal(row[1])), hexadecimal(row[2]));
    }
}

#[test]
fn words_are_those_of_the_published_table() {
    let rows = table("| seed | stream | name | key | index | word |");
    for boundary in [1_u64 << 32, 1 << 34, 1 << 36] {
        assert!(rows.iter().any(|row| row[4].parse() == Ok(boundary)), "an element at {boundary}");
    }
    for row in rows {
        let key = MaskKey::new(row[0].parse().unwrap(), row[1].parse().unwrap(), row[2]);
        assert_eq!(key.0, hexadecimal::<2>(row[3]), "{row:?}");
        let index = row[4].parse().unwrap();
        assert_eq!([word(key, index)], hexadecimal(row[5]), "{row:?}");
        for kernels in all_kernels() {
            let mut out = [0; 1];
            kernels.mask_words(key, index, &mut out);
            assert_eq!(out, hexadecimal(row[5]), "{row:?} {}", kernels.instruction_set());
        }
    }
}

#[test]
fn thresholds_are_those_of_the_published_table() {
    for row in table("| drop rate | threshold |") {
        assert_eq!(threshold(row[0].parse().unwrap()), row[1].parse().ok(), "{row:?}");
    }
}

#[test]
fn thresholds_round_half_to_even_and_rates_outside_0_to_1_have_none() {
    let unit = 1.0 / 4_294_967_296.0;
    assert_eq!([0.5, 1.5, 2.5, 3.5].map(|halves| threshold(halves * unit)), [0, 2, 2, 4].map(Some));
    assert_eq!([-unit, 1.0 + 1e-9, f64::NAN, f64::INFINITY].map(threshold), [None; 4]);
    assert_eq!(threshold(-0.0), Some(0));
}

#[test]
fn the_published_mask_is_dropped() {
    let published: Vec<bool> = DEFINITION
        .lines()
        .map(str::trim)
        .find(|line| line.len() == 128 && line.bytes().all(|b| b == b'0' || b == b'1'))
        .unwrap()
        .bytes()
        .map(|b| b == b'1')
        .collect();
    for kernels in all_kernels() {
        let mut x = [1.0; 128];
        kernels.drop_elements(MaskKey::new(7, 1, "model.layers.0.mlp.up_proj.weight"), threshold(0.9).unwrap(), 10.0, 0, &mut x);
        assert_eq!(x.map(|x| x == 10.0).to_vec(), published);
        assert!(x.iter().all(|&x| x == 10.0 || x.to_bits() == 0));
    }
}

#[test]
fn words_agree_with_the_twin_around_the_counter_s_second_word_and_at_the_end_of_all_indices() {
    let key = MaskKey::new(3, 4, "w");
    for centre in [64, 1 << 32, 1 << 34, 1 << 36, 3 << 34, 1 << 63, u64::MAX - 500] {
        for (before, length) in [(64, 128), (0, 64), (1, 200), (37, 301), (17, 5)] {
            let start = centre - before;
            for kernels in all_kernels() {
                let mut out = vec![0; length];
                kernels.mask_words(key, start, &mut out);
                let twin: Vec<u32> = (0..length as u64).map(|i| word(key, start + i)).collect();
                assert_eq!(out, twin, "{} from {start}", kernels.instruction_set());
            }
        }
    }
}

#[test]
fn a_rate_of_0_keeps_all_and_1_drops_even_nan() {
    for kernels in all_kernels() {
        let mut x = [1.5, f32::NAN, f32::INFINITY, -2.0];
        kernels.drop_elements(MaskKey([1, 2]), 0, 1.0, 0, &mut x);
        assert!(x[0] == 1.5 && x[1].is_nan() && x[2] == f32::INFINITY && x[3] == -2.0);
        kernels.drop_elements(MaskKey([1, 2]), 1 << 32, f32::INFINITY, 0, &mut x);
        assert_eq!(x.map(f32::to_bits), [0; 4]);
    }
}

#[test]
fn the_share_of_dropped_elements_is_the_rate_within_five_standard_deviations() {
    const N: usize = 1 << 20;
    let mut x = vec![0.0; N];
    for (stream, rate) in [0.1, 0.5, 0.9, 0.99].into_iter().enumerate() {
        x.fill(1.0);
        Kernels::detect().drop_elements(MaskKey::new(9, stream as u64, "w"), threshold(rate).unwrap(), 1.0, 0, &mut x);
        let dropped = x.iter().filter(|&&x| x == 0.0).count() as f64;
        let deviation = (N as f64 * rate * (1.0 - rate)).sqrt();
        assert!((dropped - N as f64 * rate).abs() < 5.0 * deviation, "{dropped} of {N} at {rate}");
    }
}

#[test]
fn seed_stream_and_name_each_change_the_key() {
    let key = MaskKey::new(1, 2, "a");
    assert_ne!(key, MaskKey::new(2, 2, "a"));
    assert_ne!(key, MaskKey::new(1, 1, "a"));
    assert_ne!(key, MaskKey::new(1, 2, "b"));
}

proptest! {
    #[test]
    fn windows_equal_the_twin_on_every_instruction_set(
        key: [u32; 2], start in prop_oneof![0_u64..300, (1_u64 << 34) - 200..(1 << 34) + 200, any::<u64>().prop_map(|i| i >> 1)],
        length in 0_usize..400, rate in 0.0_f64..=1.0, seed: u32,
    ) {
        let (key, threshold) = (MaskKey(key), threshold(rate).unwrap());
        let x: Vec<f32> = (0..length as u32).map(|i| f32::from_bits(seed.wrapping_add(i).wrapping_mul(0x9E37_79B1))).collect();
        for kernels in all_kernels() {
            let mut out = x.clone();
            kernels.drop_elements(key, threshold, 3.0, start, &mut out);
            for (i, (&out, &x)) in out.iter().zip(&x).enumerate() {
                let twin = if u64::from(word(key, start + i as u64)) >= threshold { x * 3.0 } else { 0.0 };
                prop_assert!(out.to_bits() == twin.to_bits() || (out.is_nan() && twin.is_nan()));
            }
        }
    }

    #[test]
    fn masks_of_one_key_are_nested(key: [u32; 2], a in 0.0_f64..=1.0, b in 0.0_f64..=1.0) {
        let (low, high) = (a.min(b), a.max(b));
        let (mut x, mut y) = ([1.0; 500], [1.0; 500]);
        Kernels::detect().drop_elements(MaskKey(key), threshold(low).unwrap(), 1.0, 5, &mut x);
        Kernels::detect().drop_elements(MaskKey(key), threshold(high).unwrap(), 1.0, 5, &mut y);
        prop_assert!(x.iter().zip(&y).all(|(x, y)| x >= y));
    }
}
