//! Histograms of signed numbers, counts and extremes against naive twins, on every instruction set.

use deltaic_kernels::{
    InstructionSet, Kernels, LaneSums, NO_SLOT, NON_FINITE_BINS, ORDERED_BINS, REFINED_BINS, from_ordered_bits, ordered_bits,
};

fn each_kernels() -> impl Iterator<Item = Kernels> {
    InstructionSet::available().filter_map(Kernels::with)
}

/// Numbers of delta size with repeated ones and zeros of both signs among them.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let one = move |_| match next() % 8 {
        0 => 0.0,
        1 => -0.0,
        2 => 0.002,
        _ => ((next() >> 40) as f32 / 8_388_608.0 - 1.0).powi(3) * 0.01,
    };
    (0..count).map(one).collect()
}

#[test]
fn ordered_bits_are_in_the_order_of_the_numbers_and_lead_back_to_them() {
    let ascending =
        [f32::NEG_INFINITY, f32::MIN, -1.0, -1e-40, -f32::from_bits(1), 0.0, f32::from_bits(1), 1e-40, 1.0, f32::MAX, f32::INFINITY];
    assert!(ascending.windows(2).all(|pair| ordered_bits(pair[0]) < ordered_bits(pair[1])));
    assert!(ascending.iter().all(|x| from_ordered_bits(ordered_bits(*x)).to_bits() == x.to_bits()));
    assert_eq!(ordered_bits(-0.0), ordered_bits(0.0));
    for x in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let bin = (ordered_bits(x) >> 20) as usize;
        assert!(!(NON_FINITE_BINS..ORDERED_BINS - NON_FINITE_BINS).contains(&bin), "{x}");
    }
    for x in [f32::MAX, f32::MIN] {
        assert!((NON_FINITE_BINS..ORDERED_BINS - NON_FINITE_BINS).contains(&((ordered_bits(x) >> 20) as usize)), "{x}");
    }
}

#[test]
fn the_three_histograms_count_what_a_naive_loop_counts() {
    let x = numbers(5003);
    let (wanted, other) = (ordered_bits(0.002), ordered_bits(-0.001));
    for kernels in each_kernels() {
        let mut high = [0; ORDERED_BINS];
        kernels.histogram_ordered(&x, &mut high);
        let mut slots = [NO_SLOT; ORDERED_BINS];
        slots[(wanted >> 20) as usize] = 1;
        slots[(other >> 20) as usize] = 0;
        let mut middle = vec![0; 2 * REFINED_BINS];
        kernels.histogram_ordered_middle(&x, &slots, &mut middle);
        let mut middle_slots = vec![NO_SLOT; 2 * REFINED_BINS];
        middle_slots[REFINED_BINS + (wanted >> 10) as usize % REFINED_BINS] = 0;
        let mut low = vec![0; REFINED_BINS];
        kernels.histogram_ordered_low(&x, &slots, &middle_slots, &mut low);
        let count = |f: &dyn Fn(u32) -> bool| x.iter().filter(|x| f(ordered_bits(**x))).count() as u64;
        (0..ORDERED_BINS).for_each(|bin| assert_eq!(high[bin], count(&|bits| bits >> 20 == bin as u32)));
        for (slot, of) in [(1, wanted), (0, other)] {
            (0..REFINED_BINS).for_each(|bin| {
                assert_eq!(middle[slot * REFINED_BINS + bin], count(&|bits| bits >> 10 == of >> 20 << 10 | bin as u32), "{bin}");
            });
        }
        (0..REFINED_BINS).for_each(|bin| assert_eq!(low[bin], count(&|bits| bits == wanted >> 10 << 10 | bin as u32), "{bin}"));
        assert!(low[wanted as usize % REFINED_BINS] > 0);
    }
}

#[test]
fn counts_extremes_and_sums_are_those_of_a_naive_loop() {
    let x = numbers(3001);
    for kernels in each_kernels() {
        for length in [0, 1, 15, 16, 17, 1000, 3001] {
            let x = &x[..length];
            for limit in [0.0, 0.002, 0.005] {
                assert_eq!(kernels.count_within(x, limit), x.iter().filter(|x| x.abs() <= limit).count() as u64);
            }
            let low = x.iter().copied().fold(f32::INFINITY, f32::min);
            assert_eq!(kernels.extremes(x), (low, x.iter().copied().fold(f32::NEG_INFINITY, f32::max)));
            let mut sums = LaneSums::default();
            kernels.sum(x, &mut sums);
            let mut lanes = [0.0; 16];
            x.iter().enumerate().for_each(|(i, x)| lanes[i % 16] += f64::from(*x));
            assert_eq!(sums.total(), lanes.iter().fold(0.0, |sum, lane| sum + lane));
        }
    }
    assert_eq!(Kernels::detect().count_within(&[f32::NAN, f32::INFINITY, 1.0], 1.0), 1);
}
