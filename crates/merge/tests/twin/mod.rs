//! The formulas of the methods and sparsifiers once more, in f64 and as plainly as they can be written: what the merges are held against.
//!
//! Deltas are taken in f32, as the design has it (DESIGN §4.1), so that equal magnitudes are equal here too. Where a sum that decides a
//! sign cancels to within rounding, the twin does not know: it says NaN.

#![allow(dead_code, reason = "no test binary uses all of it")]

use deltaic_kernels::MaskKey;

/// Fine-tuned minus base, rounded to f32.
pub fn delta(model: &[f32], base: &[f32]) -> Vec<f64> {
    model.iter().zip(base).map(|(model, base)| f64::from(model - base)).collect()
}

fn weighted(inputs: &[Vec<f64>], weights: &[f64], i: usize) -> f64 {
    inputs.iter().zip(weights).map(|(input, weight)| weight * input[i]).sum()
}

/// base + each element of `update`.
pub fn plus(base: &[f32], update: impl IntoIterator<Item = f64>) -> Vec<f64> {
    base.iter().zip(update).map(|(base, update)| f64::from(*base) + update).collect()
}

/// sum(w_i x_i) / divisor.
pub fn weighted_sum(inputs: &[Vec<f64>], weights: &[f64], divisor: f64) -> Vec<f64> {
    (0..inputs[0].len()).map(|i| weighted(inputs, weights, i) / divisor).collect()
}

/// Whether a sum of these is too near to zero for its sign to be known.
fn undecided(terms: &[f64]) -> bool {
    let sum: f64 = terms.iter().sum();
    let rounded = terms.iter().fold(0.0_f32, |sum, term| sum + *term as f32);
    let size: f64 = terms.iter().map(|term| term.abs()).sum();
    sum.abs() <= 1e-6 * size && size > 0.0 && !(sum == 0.0 && rounded == 0.0)
}

/// mergekit's election by the weighted sum, 0 elects +; the merged delta (semantics.md 3.2).
pub fn consensus(deltas: &[Vec<f64>], weights: &[f64], normalize: bool) -> Vec<f64> {
    let element = |i: usize| {
        let terms: Vec<f64> = deltas.iter().zip(weights).map(|(delta, weight)| weight * delta[i]).collect();
        if undecided(&terms) {
            return f64::NAN;
        }
        let elected = if terms.iter().sum::<f64>() >= 0.0 { 1.0 } else { -1.0 };
        let agreeing = || terms.iter().zip(weights).filter(|(term, _)| **term * elected > 0.0);
        let divisor: f64 = agreeing().map(|(_, weight)| weight).sum();
        agreeing().map(|(term, _)| term).sum::<f64>() / if normalize && divisor != 0.0 { divisor } else { 1.0 }
    };
    (0..deltas[0].len()).map(element).collect()
}

/// mergekit's trim: exactly max(1, trunc(density n)) of the largest; of equal ones those of lowest index.
pub fn keep_largest(delta: &[f64], density: f64) -> Vec<f64> {
    if density >= 1.0 || delta.is_empty() {
        return delta.to_vec();
    }
    let keep = ((density * delta.len() as f64) as usize).max(1);
    let mut order: Vec<usize> = (0..delta.len()).collect();
    order.sort_by(|i, j| delta[*j].abs().total_cmp(&delta[*i].abs()));
    let mut kept = vec![0.0; delta.len()];
    order[..keep].iter().for_each(|i| kept[*i] = delta[*i]);
    kept
}

/// The paper's magnitude mask: everything up to and with the trunc(n p)-th smallest goes; nothing where that is 0.
pub fn drop_smallest(delta: &[f64], rate: f64) -> Vec<f64> {
    let rank = (delta.len() as f64 * rate) as usize;
    if rank == 0 {
        return delta.to_vec();
    }
    let mut sorted: Vec<f64> = delta.iter().map(|x| x.abs()).collect();
    sorted.sort_by(f64::total_cmp);
    delta.iter().map(|x| if x.abs() <= sorted[rank - 1] { 0.0 } else { *x }).collect()
}

/// Philox4x32-10's four words of a counter (docs/mask.md).
fn philox(counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for _ in 0..10 {
        let (p0, p1) = (0xD251_1F53 * u64::from(c0), 0xCD9E_8D57 * u64::from(c2));
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ c3 ^ key[1], p0 as u32);
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    [c0, c1, c2, c3]
}

/// Which of `count` elements the mask keeps, by the definition in docs/mask.md.
pub fn keeps(seed: u64, stream: u64, name: &str, rate: f64, count: usize) -> Vec<bool> {
    let key = MaskKey::new(seed, stream, name).0;
    let threshold = (rate * 4_294_967_296.0).round_ties_even() as u64;
    let mut words = Vec::with_capacity(count.next_multiple_of(64));
    for group in 0..count.div_ceil(64) as u64 {
        let counters: Vec<_> = (16 * group..16 * group + 16).map(|c| philox([c as u32, (c >> 32) as u32, 0, 0], key)).collect();
        words.extend((0..64).map(|j| counters[j % 16][j / 16]));
    }
    words.iter().take(count).map(|word| u64::from(*word) >= threshold).collect()
}

/// Selects what is kept.
pub fn select(x: &[f64], keep: &[bool]) -> Vec<f64> {
    x.iter().zip(keep).map(|(x, keep)| if *keep { *x } else { 0.0 }).collect()
}

/// Each element times a factor.
pub fn scaled(x: &[f64], factor: f64) -> Vec<f64> {
    x.iter().map(|x| x * factor).collect()
}

/// mergekit's rescale: the l1 norm before is restored.
pub fn with_l1_of(before: &[f64], after: &[f64]) -> Vec<f64> {
    let norm = |x: &[f64]| x.iter().map(|x| x.abs()).sum::<f64>();
    let (a, b) = (norm(before), norm(after));
    scaled(after, if a < 1e-7 || b < 1e-7 { 1.0 } else { a / b })
}

/// The authors' TIES over the whole model (semantics.md 3.3): by tensor, each model's deltas; gives each tensor's merged delta.
pub fn paper_ties(tensors: &[Vec<Vec<f64>>], weights: &[f64], mask_rate: f64) -> Vec<Vec<f64>> {
    let models = weights.len();
    let thresholds: Vec<f64> = (0..models)
        .map(|model| {
            let mut all: Vec<f64> = tensors.iter().flat_map(|deltas| deltas[model].iter().map(|x| x.abs())).collect();
            let rank = (all.len() as f64 * mask_rate) as usize;
            all.sort_by(f64::total_cmp);
            if rank == 0 { 0.0 } else { all[rank - 1] }
        })
        .collect();
    let trimmed = |deltas: &[Vec<f64>], i: usize| -> Vec<f64> {
        (0..models).map(|model| if deltas[model][i].abs() >= thresholds[model] { deltas[model][i] } else { 0.0 }).collect()
    };
    let sign = |x: f64| {
        if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            0.0
        }
    };
    let each = || tensors.iter().flat_map(|deltas| (0..deltas[0].len()).map(move |i| trimmed(deltas, i)));
    let majority = sign(each().map(|terms| sign(terms.iter().sum())).sum());
    let element = |terms: Vec<f64>| {
        if undecided(&terms) {
            return f64::NAN;
        }
        let sum: f64 = terms.iter().sum();
        let elected = if sum == 0.0 { majority } else { sign(sum) };
        let agreeing = || terms.iter().zip(weights).filter(|(term, _)| **term * elected > 0.0);
        agreeing().map(|(term, weight)| weight * term).sum::<f64>() / agreeing().count().max(1) as f64
    };
    tensors.iter().map(|deltas| (0..deltas[0].len()).map(|i| element(trimmed(deltas, i))).collect()).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Spherical interpolation from `a` (t = 0) to `b` (semantics.md 3.6).
pub fn slerp(a: &[f64], b: &[f64], t: f64) -> Vec<f64> {
    let norm = |x: &[f64]| if dot(x, x).sqrt() <= 1e-8 { 1.0 } else { dot(x, x).sqrt() };
    let cosine = (dot(a, b) / (norm(a) * norm(b))).clamp(-1.0, 1.0);
    let theta = cosine.acos();
    let (from, to) = match cosine.abs() > 0.9995 {
        true => (1.0 - t, t),
        false => (((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin()),
    };
    a.iter().zip(b).map(|(a, b)| from * a + to * b).collect()
}

/// model_stock's merged delta of a tensor or a row: t times the mean.
pub fn model_stock(deltas: &[&[f64]]) -> Vec<f64> {
    let n = deltas.len() as f64;
    let mut cosines = Vec::new();
    for (i, x) in deltas.iter().enumerate() {
        for y in &deltas[i + 1..] {
            cosines.push((dot(x, y) / (dot(x, x).sqrt() * dot(y, y).sqrt()).max(1e-6)).clamp(-1.0, 1.0));
        }
    }
    let cosine = cosines.iter().sum::<f64>() / cosines.len() as f64;
    let denominator = 1.0 + (n - 1.0) * cosine;
    let t = if denominator.abs() < 1e-6 { 0.0 } else { n * cosine / denominator };
    (0..deltas[0].len()).map(|i| t * deltas.iter().map(|delta| delta[i]).sum::<f64>() / n).collect()
}
