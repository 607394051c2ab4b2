//! Elements and bytes per second of every kernel and instruction set, beside a copy of the same bytes: `cargo bench -p deltaic-kernels`.
//!
//! As in a merge, each kernel works on blocks of 1024 elements in the first-level cache; the time is the median of many runs over one
//! block. Bytes are those read and written. An argument selects the kernels whose name holds it.

use deltaic_kernels::{ElectedSigns, FloatFormat, InstructionSet, Kernels, LaneSums, MaskKey, Ties, magnitude_bits, threshold};
use std::hint::black_box;
use std::time::Instant;

const BLOCK: usize = 1024;
const PASSES: u32 = 200;
const SAMPLES: usize = 41;

/// Seconds for one pass over a block: the median.
fn median(mut pass: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let begin = Instant::now();
            (0..PASSES).for_each(|_| pass());
            begin.elapsed().as_secs_f64() / f64::from(PASSES)
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[SAMPLES / 2]
}

struct Report {
    filter: Option<String>,
}

impl Report {
    /// Measures one kernel that reads and writes so many bytes per element, and a copy of as many.
    fn measure(&self, set: &str, name: &str, bytes: usize, pass: impl FnMut()) {
        if self.filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            return;
        }
        let seconds = median(pass);
        let copied = BLOCK * bytes / 2;
        let (source, mut target) = (vec![1_u8; copied], vec![0_u8; copied]);
        let copy = median(|| black_box(&mut target[..]).copy_from_slice(black_box(&source)));
        let giga = BLOCK as f64 / 1e9;
        println!(
            "{name:<24} {set:<9} {:8.2} G elements/s {:8.1} GB/s   memcpy {:8.1} GB/s",
            giga / seconds,
            giga * bytes as f64 / seconds,
            giga * bytes as f64 / copy
        );
    }
}

/// Numbers with the magnitudes of fine-tuning deltas; the same in every run.
fn deltas(seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..BLOCK)
        .map(|_| {
            let mut sum = 0.0;
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sum += (state >> 40) as f32 / 16_777_216.0 - 0.5;
            }
            sum * 1e-3
        })
        .collect()
}

fn formats(report: &Report, kernels: Kernels, set: &str) {
    let x = deltas(1);
    for format in FloatFormat::ALL {
        let mut bytes = vec![0; BLOCK * format.size()];
        let mut out = vec![0.0; BLOCK];
        report.measure(set, &format!("narrow {format:?}"), 4 + format.size(), || {
            black_box(kernels.narrow(format, black_box(&x), &mut bytes));
        });
        kernels.narrow(format, &x, &mut bytes);
        report.measure(set, &format!("widen {format:?}"), 4 + format.size(), || {
            kernels.widen(format, black_box(&bytes), black_box(&mut out));
        });
    }
}

fn elementwise(report: &Report, kernels: Kernels, set: &str) {
    let (mut x, y) = (deltas(1), deltas(2));
    let mut out = vec![0.0; BLOCK];
    report.measure(set, "subtract", 12, || kernels.subtract(black_box(&mut x), black_box(&y)));
    report.measure(set, "add_scaled", 12, || kernels.add_scaled(black_box(&mut x), 1e-3, black_box(&y)));
    report.measure(set, "combine", 12, || kernels.combine(black_box(&mut out), 0.5, &x, 0.25, &y));
    report.measure(set, "divide", 8, || kernels.divide(black_box(&mut x), black_box(1.0)));
}

fn mask(report: &Report, kernels: Kernels, set: &str) {
    let key = MaskKey::new(42, 0, "model.layers.0.mlp.up_proj.weight");
    let dropped = threshold(0.9).unwrap_or_default();
    let mut x = deltas(1);
    let mut words = vec![0; BLOCK];
    report.measure(set, "drop_elements", 8, || kernels.drop_elements(key, dropped, 1.0, 0, black_box(&mut x)));
    report.measure(set, "drop_elements unaligned", 8, || kernels.drop_elements(key, dropped, 1.0, 7, black_box(&mut x)));
    report.measure(set, "mask_words", 4, || kernels.mask_words(key, 0, black_box(&mut words)));
}

fn reductions(report: &Report, kernels: Kernels, set: &str) {
    let (x, y) = (deltas(1), deltas(2));
    let mut sums = LaneSums::default();
    report.measure(set, "sum_magnitudes", 4, || kernels.sum_magnitudes(black_box(&x), &mut sums));
    report.measure(set, "sum_products", 8, || kernels.sum_products(black_box(&x), &y, &mut sums));
    let mut zeros = vec![0.0; BLOCK];
    zeros[5] = 1.0;
    let mut high: Box<[u64; 1 << 16]> = vec![0; 1 << 16].try_into().expect("the length is right");
    let mut low: Box<[u64; 1 << 15]> = vec![0; 1 << 15].try_into().expect("the length is right");
    report.measure(set, "histogram_high", 4, || kernels.histogram_high(black_box(&x), &mut high));
    report.measure(set, "histogram_high zeros", 4, || kernels.histogram_high(black_box(&zeros), &mut high));
    report.measure(set, "histogram_low", 4, || kernels.histogram_low(black_box(&x), magnitude_bits(5e-4) >> 15, &mut low));
    report.measure(set, "count_non_finite", 4, || {
        black_box(kernels.count_non_finite(black_box(&x)));
    });
}

fn trims(report: &Report, kernels: Kernels, set: &str) {
    let mut x = deltas(1);
    let mut many = u64::MAX;
    report.measure(set, "trim Drop", 8, || kernels.trim(black_box(&mut x), magnitude_bits(5e-4), Ties::Drop, 1.0));
    let mut first = || kernels.trim(black_box(&mut x), magnitude_bits(5e-4), Ties::KeepFirst(&mut many), 1.0);
    report.measure(set, "trim KeepFirst", 8, &mut first);
}

fn consensus(report: &Report, kernels: Kernels, set: &str) {
    let deltas: Vec<Vec<f32>> = (1..=3).map(deltas).collect();
    let inputs: Vec<&[f32]> = deltas.iter().map(|delta| &delta[..]).collect();
    let mut out = vec![0.0; BLOCK];
    let weights = [0.5, 0.3, 0.2];
    report.measure(set, "consensus_sum of 3", 16, || kernels.consensus_sum(black_box(&inputs), &weights, false, &mut out));
    report.measure(set, "consensus_sum of 3, norm", 16, || kernels.consensus_sum(black_box(&inputs), &weights, true, &mut out));
    report.measure(set, "paper_ties of 3", 16, || kernels.paper_ties(black_box(&inputs), &weights, 1.0, &mut out));
    let mut counts = ElectedSigns::default();
    report.measure(set, "count_elected of 3", 12, || kernels.count_elected(black_box(&inputs), &mut counts));
}

fn main() {
    // Cargo passes `--bench`.
    let report = Report { filter: std::env::args().skip(1).find(|argument| !argument.starts_with('-')) };
    for part in [formats, elementwise, mask, reductions, trims, consensus] {
        for set in InstructionSet::available() {
            if let Some(kernels) = Kernels::with(set) {
                part(&report, kernels, set.name());
            }
        }
    }
}
