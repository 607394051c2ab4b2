//! Element-wise loops, reductions, order statistics, trims and sign consensus against naive twins, on every instruction set.

use deltaic_kernels::{
    ElectedSigns, HIGH_BINS, InstructionSet, Kernel, Kernels, LOW_BINS, LaneSums, REDUCTION_BLOCK, Ties, magnitude_bits, magnitude_of_bins,
    ordered_sum, rank_in,
};

/// Lengths with every kind of tail, at starts with every kind of misalignment.
const WINDOWS: [(usize, usize); 14] =
    [(0, 0), (0, 1), (1, 15), (3, 16), (5, 17), (7, 63), (0, 64), (1, 65), (2, 127), (0, 1024), (1, 1023), (9, 1500), (11, 1999), (3, 300)];

fn each_kernels_and_window(mut check: impl FnMut(Kernels, usize, usize)) {
    for kernels in InstructionSet::available().filter_map(Kernels::with) {
        for (start, length) in WINDOWS {
            check(kernels, start, length);
        }
    }
}

/// Random numbers of delta size, with all patterns of bits, zeros of both signs, repeated values, NaN and infinities among them.
fn numbers(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as u32
    };
    (0..2048)
        .map(|_| match next() % 16 {
            0 => f32::from_bits(next()),
            1 => [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(1), -f32::MIN_POSITIVE, f32::MAX]
                [next() as usize % 8],
            2..=6 => [0.5, -0.5, 0.25, 1.0, -1.0][next() as usize % 5],
            _ => (next() as f32 / u32::MAX as f32 - 0.5) * 0.01,
        })
        .collect()
}

#[track_caller]
fn assert_same(found: &[f32], expected: &[f32], kernels: Kernels) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
            "element {i} on {}: {found:e}, expected {expected:e}",
            kernels.instruction_set()
        );
    }
}

#[test]
fn element_wise_operations_round_after_each_step() {
    let (x, y) = (numbers(1), numbers(2));
    each_kernels_and_window(|kernels, start, length| {
        let (x, y) = (&x[start..][..length], &y[start + 1..][..length]);
        let check = |kernel: &dyn Fn(&mut [f32]), twin: &dyn Fn(f32, f32) -> f32| {
            let mut out = x.to_vec();
            kernel(&mut out);
            assert_same(&out, &x.iter().zip(y).map(|(&x, &y)| twin(x, y)).collect::<Vec<_>>(), kernels);
        };
        check(&|out| kernels.subtract(out, y), &|x, y| x - y);
        check(&|out| kernels.add(out, y), &|x, y| x + y);
        check(&|out| kernels.scale(out, 0.3), &|x, _| x * 0.3);
        check(&|out| kernels.divide(out, 0.3), &|x, _| x / 0.3);
        check(&|out| kernels.add_scaled(out, 0.3, y), &|x, y| {
            let product = std::hint::black_box(0.3 * y);
            x + product
        });
        // Rust's own fused multiply-add is the independent twin: it rounds once, and none of these sums lies so near a tie that f64 moves it.
        check(&|out| kernels.add_exact_product(out, 0.3, y), &|x, y| 0.3_f32.mul_add(y, x));
        check(&|out| kernels.set_scaled(out, 0.3, y), &|_, y| 0.3 * y);
        check(&|out| kernels.combine(out, 0.7, x, -0.3, y), &|x, y| {
            let (a, b) = std::hint::black_box((0.7 * x, -0.3 * y));
            a + b
        });
    });
}

#[test]
fn counts_are_exact() {
    let x = numbers(3);
    each_kernels_and_window(|kernels, start, length| {
        let x = &x[start..][..length];
        assert_eq!(kernels.count_non_finite(x), x.iter().filter(|x| !x.is_finite()).count() as u64);
        assert_eq!(kernels.count_magnitude(x, 0.5_f32.to_bits()), x.iter().filter(|x| x.abs() == 0.5).count() as u64);
        assert_eq!(kernels.count_magnitude(x, magnitude_bits(f32::NAN)), x.iter().filter(|x| x.is_nan()).count() as u64);
    });
}

#[test]
fn reductions_sum_in_sixteen_lanes_however_a_block_is_cut() {
    let finite = |seed| numbers(seed).into_iter().map(|x| if x.abs() < 1e10 { x } else { 1.0 }).collect::<Vec<f32>>();
    let (x, y) = (finite(4), finite(5));
    each_kernels_and_window(|kernels, start, length| {
        let (x, y) = (&x[start..][..length], &y[start..][..length]);
        let (mut magnitudes, mut products) = ([0.0_f64; 16], [0.0_f64; 16]);
        for (i, (&x, &y)) in x.iter().zip(y).enumerate() {
            magnitudes[i % 16] += f64::from(x).abs();
            products[i % 16] += f64::from(x) * f64::from(y);
        }
        let total = |lanes: [f64; 16]| lanes.into_iter().fold(0.0, |sum, lane| sum + lane);
        for cut in [16, 48, 1024] {
            let (mut found_magnitudes, mut found_products) = (LaneSums::default(), LaneSums::default());
            for (x, y) in x.chunks(cut).zip(y.chunks(cut)) {
                kernels.sum_magnitudes(x, &mut found_magnitudes);
                kernels.sum_products(x, y, &mut found_products);
            }
            assert_eq!(found_magnitudes.total().to_bits(), total(magnitudes).to_bits());
            assert_eq!(found_products.total().to_bits(), total(products).to_bits());
        }
    });
    assert_eq!(ordered_sum(&[1e16, 1.0, -1e16]), 0.0);
    assert_eq!(REDUCTION_BLOCK % 16, 0);
}

#[test]
fn two_histograms_give_the_magnitude_of_every_rank() {
    let x = numbers(6);
    let mut sorted: Vec<u32> = x.iter().map(|x| (x.to_bits() & 0x7fff_ffff).min(0x7f80_0001)).collect();
    sorted.sort_unstable();
    for kernels in InstructionSet::available().filter_map(Kernels::with) {
        let mut high: Box<[u64; HIGH_BINS]> = vec![0; HIGH_BINS].try_into().unwrap();
        x.chunks(333).for_each(|part| kernels.histogram_high(part, &mut high));
        assert_eq!(high.iter().sum::<u64>(), x.len() as u64);
        for rank in (0..x.len()).step_by(7).chain([x.len() - 1]) {
            let (bin, left) = rank_in(&high[..], rank as u64).unwrap();
            let mut low: Box<[u64; LOW_BINS]> = vec![0; LOW_BINS].try_into().unwrap();
            x.chunks(333).for_each(|part| kernels.histogram_low(part, bin as u32, &mut low));
            assert_eq!(low.iter().sum::<u64>(), high[bin]);
            let (low_bin, _) = rank_in(&low[..], left).unwrap();
            assert_eq!(magnitude_of_bins(bin, low_bin), sorted[rank], "rank {rank}");
        }
        assert_eq!(rank_in(&high[..], x.len() as u64), None);
    }
}

#[test]
fn trims_keep_what_is_above_the_threshold_and_ties_as_told() {
    let x = numbers(7);
    let magnitude = |x: f32| if x.is_nan() { f64::INFINITY.next_up() } else { f64::from(x).abs() };
    each_kernels_and_window(|kernels, start, length| {
        let x = &x[start..][..length];
        for cut in [0.0, 0.002, 0.5, 1.0, f32::INFINITY] {
            let greater = |x: f32| x.is_nan() || magnitude(x) > f64::from(cut);
            let tie = |x: f32| !x.is_nan() && magnitude(x) == f64::from(cut);
            let ties = x.iter().filter(|&&x| tie(x)).count() as u64;
            let twin = |mut allowed: u64| -> (Vec<f32>, u64) {
                let mut keep = |x: f32| {
                    let kept_tie = tie(x) && allowed > 0;
                    allowed -= u64::from(kept_tie);
                    greater(x) || kept_tie
                };
                let out = x.iter().map(|&x| if keep(x) { x * 1.25 } else { 0.0 }).collect();
                (out, allowed)
            };
            let trimmed = |ties: Ties<'_>| {
                let mut out = x.to_vec();
                kernels.trim(&mut out, cut.to_bits(), ties, 1.25);
                out
            };
            assert_same(&trimmed(Ties::Keep), &twin(u64::MAX).0, kernels);
            assert_same(&trimmed(Ties::Drop), &twin(0).0, kernels);
            for allowed in [0, 1, ties / 2, ties.saturating_sub(1), ties, ties + 3] {
                let mut remaining = allowed;
                assert_same(&trimmed(Ties::KeepFirst(&mut remaining)), &twin(allowed).0, kernels);
                assert_eq!(remaining, twin(allowed).1);
            }
        }
    });
}

/// Small multiples of 1/4, so that sums cancel often, with NaN and infinities among them.
fn votes(seed: u64) -> Vec<f32> {
    let rare = |x: f32| if x.is_finite() { x } else { 0.25 };
    let odd = |(i, x): (usize, f32)| if i % 97 == 5 { x } else { rare(x) };
    numbers(seed).into_iter().map(|x| if x.abs() < 0.01 { (x * 400.0).round() / 4.0 } else { x }).enumerate().map(odd).collect()
}

fn each_election(mut check: impl FnMut(Kernels, &[&[f32]], &[f32])) {
    let votes: Vec<Vec<f32>> = (20..25).map(votes).collect();
    for count in 0..=5 {
        each_kernels_and_window(|kernels, start, length| {
            let inputs: Vec<&[f32]> = votes[..count].iter().enumerate().map(|(i, v)| &v[start + i..][..length]).collect();
            check(kernels, &inputs, &[1.0, -0.5, 0.3, 0.2, 0.5][..count]);
        });
    }
}

#[test]
fn mergekit_s_consensus_is_semantics_3_2() {
    each_election(|kernels, inputs, weights| {
        let length = inputs.first().map_or(20, |input| input.len());
        for normalize in [false, true] {
            let twin = |i: usize| {
                let weighted: Vec<f32> = inputs.iter().zip(weights).map(|(d, weight)| weight * d[i]).collect();
                let sum = weighted.iter().fold(0.0_f32, |sum, s| sum + s);
                let elected = if sum >= 0.0 { 1.0 } else { -1.0 };
                let (mut merged, mut divisor) = (0.0_f32, 0.0_f32);
                for (s, weight) in weighted.iter().zip(weights) {
                    if *s != 0.0 && s.signum() == elected {
                        merged += s;
                        divisor += weight;
                    }
                }
                let divisor = if divisor == 0.0 { 1.0 } else { divisor };
                if sum.is_nan() {
                    f32::NAN
                } else if normalize {
                    merged / divisor
                } else {
                    merged
                }
            };
            let mut out = vec![7.0; length];
            kernels.consensus_sum(inputs, weights, normalize, &mut out);
            assert_same(&out, &(0..length).map(twin).collect::<Vec<_>>(), kernels);
        }
    });
}

#[test]
fn the_authors_ties_is_semantics_3_3() {
    each_election(|kernels, inputs, weights| {
        let length = inputs.first().map_or(20, |input| input.len());
        for majority in [-1.0, 0.0, 1.0] {
            let twin = |i: usize| {
                let sum = inputs.iter().fold(0.0_f32, |sum, d| sum + d[i]);
                let sign = if sum > 0.0 {
                    1.0
                } else if sum < 0.0 {
                    -1.0
                } else {
                    majority
                };
                let kept: Vec<(f32, f32)> = inputs.iter().zip(weights).map(|(d, &w)| (d[i], w)).filter(|(d, _)| d * sign > 0.0).collect();
                let merged = kept.iter().fold(0.0_f32, |sum, (d, w)| sum + w * d);
                if sum.is_nan() { f32::NAN } else { merged / kept.len().max(1) as f32 }
            };
            let mut out = vec![7.0; length];
            kernels.paper_ties(inputs, weights, majority, &mut out);
            assert_same(&out, &(0..length).map(twin).collect::<Vec<_>>(), kernels);
        }
    });
}

#[test]
fn elected_signs_are_counted() {
    let mut cancelled_somewhere = false;
    each_election(|kernels, inputs, _| {
        let mut expected = ElectedSigns { positive: 1, negative: 2, cancelled: 3 };
        let mut counts = expected;
        for i in 0..inputs.first().map_or(0, |input| input.len()) {
            let sum = inputs.iter().fold(0.0_f32, |sum, d| sum + d[i]);
            expected.positive += u64::from(sum > 0.0);
            expected.negative += u64::from(sum < 0.0);
            expected.cancelled += u64::from(sum == 0.0 && inputs.iter().any(|d| d[i] != 0.0));
        }
        kernels.count_elected(inputs, &mut counts);
        assert_eq!(counts, expected);
        cancelled_somewhere |= counts.cancelled > 3;
    });
    assert!(cancelled_somewhere, "the test's data must have cancelling sums");
}

#[test]
fn a_kernel_of_another_crate_runs_on_every_instruction_set() {
    struct Squares<'a>(&'a mut [f32]);
    impl Kernel for Squares<'_> {
        type Output = usize;

        #[inline(always)]
        fn run(self) -> usize {
            self.0.iter_mut().for_each(|x| *x *= *x);
            self.0.len()
        }
    }
    for kernels in InstructionSet::available().filter_map(Kernels::with) {
        let mut x = [1.0, 2.0, 3.0];
        assert_eq!(kernels.run(Squares(&mut x)), 3);
        assert_eq!(x, [1.0, 4.0, 9.0]);
    }
}

#[test]
#[should_panic(expected = "one length")]
fn slices_of_different_lengths_are_the_caller_s_fault() {
    Kernels::detect().add(&mut [0.0; 3], &[0.0; 4]);
}
