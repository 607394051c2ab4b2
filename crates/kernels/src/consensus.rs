//! Sign consensus (TIES, Yadav et al. 2023, arXiv 2306.01708): elect a sign per element, merge the inputs that have it.
//!
//! Two variants are in use and give different models: mergekit's, on weighted deltas ([`Kernels::consensus_sum`]), and that of the
//! program by the authors of DARE, on unweighted ones ([`Kernels::paper_ties`]).
//!
//! All sums are in f32, in the order of the inputs, from +0. **NaN**: where an input of an element is NaN, or infinities cancel, the
//! elected sum is NaN and so is the output.

use crate::{Kernel, Kernels};

/// How many elements elected which sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ElectedSigns {
    /// Elements whose deltas have a sum above 0.
    pub positive: u64,
    /// Elements whose deltas have a sum below 0.
    pub negative: u64,
    /// Elements whose deltas have the sum 0 though not all of them are 0: these take the majority's sign.
    pub cancelled: u64,
}

impl Kernels {
    /// mergekit's consensus, per element over s_i = w_i d_i, with d_i in `deltas` and w_i in `weights`:
    ///
    /// S = Σ s_i; the sign + is elected where S >= 0, else −; A = the inputs with that sign (a zero has none); M = Σ_A s_i. With
    /// `normalize`, M / D, where D = Σ_A w_i, or 1 where that is exactly 0.
    ///
    /// All slices have the length of `out`, and there are as many weights as inputs (none of either gives zeros); otherwise it panics.
    pub fn consensus_sum(self, deltas: &[&[f32]], weights: &[f32], normalize: bool, out: &mut [f32]) {
        check_inputs(deltas, weights, out.len());
        if normalize {
            self.run(ConsensusSum::<true> { deltas, weights, out });
        } else {
            self.run(ConsensusSum::<false> { deltas, weights, out });
        }
    }

    /// The authors' election and disjoint mean, per element over the trimmed, unweighted deltas d_i:
    ///
    /// g = sign(Σ d_i), and `majority` (−1, 0 or 1; the sign of the sum of all g over the model) where that is 0; A = the deltas with
    /// the sign g; M = Σ_A w_i d_i / max(|A|, 1). The authors have no weights, which is w_i = 1.
    ///
    /// All slices have the length of `out`, and there are as many weights as inputs (none of either gives zeros); otherwise it panics.
    pub fn paper_ties(self, deltas: &[&[f32]], weights: &[f32], majority: f32, out: &mut [f32]) {
        check_inputs(deltas, weights, out.len());
        self.run(PaperTies { deltas, weights, majority, out });
    }

    /// Counts the signs that [`paper_ties`](Self::paper_ties) elects, for the majority. A sum that is NaN counts nowhere.
    ///
    /// All slices have the same length; otherwise it panics.
    pub fn count_elected(self, deltas: &[&[f32]], counts: &mut ElectedSigns) {
        let length = deltas.first().map_or(0, |delta| delta.len());
        assert!(deltas.iter().all(|delta| delta.len() == length), "slices of one operation have one length");
        self.run(CountElected { deltas, length, counts });
    }
}

fn check_inputs(inputs: &[&[f32]], weights: &[f32], length: usize) {
    assert_eq!(inputs.len(), weights.len(), "one weight per input");
    assert!(inputs.iter().all(|input| input.len() == length), "slices of one operation have one length");
}

/// Elements worked on at once: enough for the compiler to make vector loops of the inner loops, few enough for the first-level cache.
const WIDTH: usize = 64;

/// Elements `at .. at + W` of an input.
#[inline(always)]
fn window<const W: usize>(x: &[f32], at: usize) -> &[f32; W] {
    x[at..].first_chunk().expect("windows lie within the slices")
}

/// x, negated where `elected` is negative: above 0 where x is not zero and has that sign.
#[inline(always)]
fn with_sign_of(x: f32, elected: f32) -> f32 {
    f32::from_bits(x.to_bits() ^ (elected.to_bits() & 0x8000_0000))
}

/// The sums over the inputs, in order. They begin at +0 and so are never −0.
#[inline(always)]
fn sum_inputs<const W: usize>(inputs: &[&[f32]], at: usize) -> [f32; W] {
    let mut sum = [0.0; W];
    for input in inputs {
        let x = window::<W>(input, at);
        for lane in 0..W {
            sum[lane] += x[lane];
        }
    }
    sum
}

/// Calls a function for each window of `out`, then for each of the elements left.
macro_rules! for_each_window {
    ($out:expr, $kernel:expr) => {
        let (windows, rest) = $out.as_chunks_mut::<WIDTH>();
        let whole = windows.len() * WIDTH;
        for (index, out) in windows.iter_mut().enumerate() {
            $kernel.window::<WIDTH>(index * WIDTH, out);
        }
        for (index, out) in rest.iter_mut().enumerate() {
            $kernel.window::<1>(whole + index, std::array::from_mut(out));
        }
    };
}

struct ConsensusSum<'a, const NORMALIZE: bool> {
    deltas: &'a [&'a [f32]],
    weights: &'a [f32],
    out: &'a mut [f32],
}

impl<const NORMALIZE: bool> ConsensusSum<'_, NORMALIZE> {
    #[inline(always)]
    fn window<const W: usize>(&self, at: usize, out: &mut [f32; W]) {
        let mut sum = [0.0_f32; W];
        for (input, &weight) in self.deltas.iter().zip(self.weights) {
            let d = window::<W>(input, at);
            for lane in 0..W {
                sum[lane] += weight * d[lane];
            }
        }
        let (mut merged, mut divisor) = ([0.0_f32; W], [0.0_f32; W]);
        for (input, &weight) in self.deltas.iter().zip(self.weights) {
            let d = window::<W>(input, at);
            let mut s = [0.0_f32; W];
            for lane in 0..W {
                s[lane] = weight * d[lane];
            }
            for lane in 0..W {
                let agrees = with_sign_of(s[lane], sum[lane]) > 0.0;
                merged[lane] += if agrees { s[lane] } else { 0.0 };
                if NORMALIZE {
                    divisor[lane] += if agrees { weight } else { 0.0 };
                }
            }
        }
        for lane in 0..W {
            let divisor = if NORMALIZE & (divisor[lane] != 0.0) { divisor[lane] } else { 1.0 };
            let value = if NORMALIZE { merged[lane] / divisor } else { merged[lane] };
            out[lane] = if sum[lane].is_nan() { f32::NAN } else { value };
        }
    }
}

impl<const NORMALIZE: bool> Kernel for ConsensusSum<'_, NORMALIZE> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        for_each_window!(std::mem::take(&mut self.out), self);
    }
}

struct PaperTies<'a> {
    deltas: &'a [&'a [f32]],
    weights: &'a [f32],
    majority: f32,
    out: &'a mut [f32],
}

impl PaperTies<'_> {
    #[inline(always)]
    fn window<const W: usize>(&self, at: usize, out: &mut [f32; W]) {
        let sum = sum_inputs::<W>(self.deltas, at);
        // Where nothing is elected, an infinite limit keeps every delta out: cheaper than a second condition in the inner loop.
        let (mut elected, mut limit) = ([0.0_f32; W], [0.0_f32; W]);
        for lane in 0..W {
            elected[lane] = if sum[lane] == 0.0 { self.majority } else { sum[lane] };
            limit[lane] = if elected[lane] == 0.0 { f32::INFINITY } else { 0.0 };
        }
        let (mut merged, mut kept) = ([0.0_f32; W], [0_u32; W]);
        for (delta, &weight) in self.deltas.iter().zip(self.weights) {
            let d = window::<W>(delta, at);
            for lane in 0..W {
                // As bits and integers: written with selects, the compiler makes branches of them.
                let agrees = u32::from(with_sign_of(d[lane], elected[lane]) > limit[lane]);
                merged[lane] += f32::from_bits((weight * d[lane]).to_bits() & agrees.wrapping_neg());
                kept[lane] += agrees;
            }
        }
        for lane in 0..W {
            let mean = merged[lane] / kept[lane].max(1) as f32;
            out[lane] = if sum[lane].is_nan() { f32::NAN } else { mean };
        }
    }
}

impl Kernel for PaperTies<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        for_each_window!(std::mem::take(&mut self.out), self);
    }
}

struct CountElected<'a> {
    deltas: &'a [&'a [f32]],
    length: usize,
    counts: &'a mut ElectedSigns,
}

impl CountElected<'_> {
    #[inline(always)]
    fn window<const W: usize>(&mut self, at: usize) {
        let sum = sum_inputs::<W>(self.deltas, at);
        let mut any = [0_u32; W];
        for delta in self.deltas {
            let d = window::<W>(delta, at);
            for lane in 0..W {
                // Without the sign: a zero has no other bits.
                any[lane] |= d[lane].to_bits() << 1;
            }
        }
        let (mut positive, mut negative, mut cancelled) = (0_u32, 0_u32, 0_u32);
        for lane in 0..W {
            positive += u32::from(sum[lane] > 0.0);
            negative += u32::from(sum[lane] < 0.0);
            cancelled += u32::from((sum[lane] == 0.0) & (any[lane] != 0));
        }
        self.counts.positive += u64::from(positive);
        self.counts.negative += u64::from(negative);
        self.counts.cancelled += u64::from(cancelled);
    }
}

impl Kernel for CountElected<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let whole = self.length - self.length % WIDTH;
        for at in (0..whole).step_by(WIDTH) {
            self.window::<WIDTH>(at);
        }
        for at in whole..self.length {
            self.window::<1>(at);
        }
    }
}
