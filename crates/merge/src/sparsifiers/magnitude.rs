//! `magnitude`: drops the smallest elements of each tensor. The cut is exact: a histogram of the upper 16 magnitude bits, one refinement.

use deltaic_kernels::{HIGH_BINS, Kernels, LOW_BINS, MaskKey, Ties, magnitude_of_bins};

use super::{Definition, Own, Sparsifier, l1_factor};
use crate::gather::{BLOCK, Gathered, Tally, Wanted, bin_of, histogram};
use crate::sparsifiers::Sparsify;

pub(super) static DEFINITION: Definition = Definition {
    name: "magnitude",
    summary: "drop the share p of smallest magnitude in each tensor, and rescale the rest",
    formula: "d' = d / (1 - p) where |d| > the trunc(n p)-th smallest        rescale l1: |d|_1 is restored;  none: d' = d (MP)",
    paper: None,
    random: false,
    prepare: |sparsify, elements, _mask: MaskKey| prepare(sparsify, elements),
};

/// The paper's baseline: everything up to and with the trunc(n p)-th smallest magnitude is dropped, ties too.
fn prepare(sparsify: &Sparsify, elements: u64) -> Box<dyn Sparsifier> {
    let rank = (elements as f64 * sparsify.drop_rate) as u64;
    let factor = sparsify.rescale.factor(sparsify.drop_rate);
    Box::new(Magnitude::new(if rank == 0 { Cut::Nothing } else { Cut::DropUpTo(rank) }, factor))
}

/// mergekit's trim: exactly `max(1, trunc(density n))` of the largest are kept, of equal ones those of lowest index; density 1 trims nothing.
pub(crate) fn keep_largest(density: f64, elements: u64, rescale: bool) -> Own {
    Own::of(density, || {
        let keep = ((density * elements as f64) as u64).max(1);
        // An empty tensor has no element to keep.
        let cut = if elements == 0 { Cut::Nothing } else { Cut::Keep { keep, of: elements } };
        Box::new(Magnitude::new(cut, if rescale { None } else { Some(1.0) }))
    })
}

/// Where the cut lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Nothing is dropped.
    Nothing,
    /// The element of that 1-based rank by ascending magnitude goes, with all that are no larger.
    DropUpTo(u64),
    /// That many of the largest stay, the earliest where magnitudes tie.
    Keep { keep: u64, of: u64 },
}

impl Cut {
    /// 0-based rank, by ascending magnitude, of the element whose magnitude is the cut; `None` where no cut is needed.
    fn rank(self) -> Option<u64> {
        match self {
            Cut::Nothing => None,
            Cut::DropUpTo(rank) => Some(rank - 1),
            Cut::Keep { keep, of } => Some(of - keep),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Upper,
    /// The upper bits of the cut, and the rank among the elements that share them.
    Lower {
        upper: u32,
        rank: u64,
    },
    /// Counts the ties at the cut, block by block: only some of them stay.
    Ties,
    /// l1 norms before and after.
    Norms,
    Done,
}

#[derive(Debug, Clone)]
struct Magnitude {
    cut: Cut,
    step: Step,
    /// Magnitude bits of the cut.
    bits: u32,
    /// Whether and which ties at the cut stay: how many, and how many lie before each block.
    kept_ties: u64,
    ties_before: Vec<u64>,
    factor: Option<f32>,
    l1: bool,
}

impl Magnitude {
    fn new(cut: Cut, factor: Option<f32>) -> Self {
        let new = Self { cut, step: Step::Upper, bits: 0, kept_ties: 0, ties_before: Vec::new(), factor, l1: factor.is_none() };
        if cut.rank().is_some() { new } else { Self { step: new.after_the_cut(), ..new } }
    }

    fn after_the_cut(&self) -> Step {
        if self.factor.is_none() { Step::Norms } else { Step::Done }
    }

    /// Knows the cut; decides about its ties. `equal` elements have its magnitude, `rank` of them come before the one ranked.
    fn found(&mut self, bits: u32, rank: u64, equal: u64) -> Step {
        self.bits = bits;
        self.kept_ties = match self.cut {
            Cut::DropUpTo(_) | Cut::Nothing => 0,
            Cut::Keep { .. } => equal - rank,
        };
        // Ties of zeros need no order: a zero that stays is a zero.
        if self.kept_ties == 0 || self.kept_ties == equal || bits == 0 { self.after_the_cut() } else { Step::Ties }
    }

    fn drop(&self, kernels: Kernels, start: u64, factor: f32, x: &mut [f32]) {
        if self.cut == Cut::Nothing {
            return kernels.scale(x, factor);
        }
        if self.kept_ties == 0 {
            return kernels.trim(x, self.bits, Ties::Drop, factor);
        }
        if self.ties_before.is_empty() {
            return kernels.trim(x, self.bits, Ties::Keep, factor);
        }
        let before = self.ties_before[(start / BLOCK as u64) as usize];
        let mut remaining = self.kept_ties.saturating_sub(before);
        kernels.trim(x, self.bits, Ties::KeepFirst(&mut remaining), factor);
    }
}

impl Sparsifier for Magnitude {
    fn wants(&self) -> Option<Wanted> {
        match self.step {
            Step::Upper => Some(Wanted::Counts(HIGH_BINS)),
            Step::Lower { .. } => Some(Wanted::Counts(LOW_BINS)),
            Step::Ties => Some(Wanted::CountPerBlock),
            Step::Norms => Some(Wanted::Sums(2)),
            Step::Done => None,
        }
    }

    fn gather(&self, kernels: Kernels, start: u64, x: &mut [f32], mut tally: Tally<'_>) {
        match self.step {
            Step::Upper => kernels.histogram_high(x, histogram(tally.counts())),
            Step::Lower { upper, .. } => kernels.histogram_low(x, upper, histogram(tally.counts())),
            Step::Ties => tally.counts()[0] += kernels.count_magnitude(x, self.bits),
            Step::Norms => {
                let [before, after] = tally.sums() else { unreachable!("two sums were asked for") };
                kernels.sum_magnitudes(x, before);
                self.drop(kernels, start, 1.0, x);
                kernels.sum_magnitudes(x, after);
            }
            Step::Done => {}
        }
    }

    fn take(&mut self, gathered: Gathered) {
        self.step = match self.step {
            Step::Upper => {
                let rank = self.cut.rank().expect("a histogram is asked for only where there is a cut");
                let (upper, rank) = bin_of(&gathered.counts(), rank);
                Step::Lower { upper: upper as u32, rank }
            }
            Step::Lower { upper, rank } => {
                let histogram = gathered.counts();
                let (lower, rank) = bin_of(&histogram, rank);
                self.found(magnitude_of_bins(upper as usize, lower), rank, histogram[lower])
            }
            Step::Ties => {
                let counts = gathered.counts().into_iter();
                self.ties_before = counts.scan(0, |before, count| Some(std::mem::replace(before, *before + count))).collect();
                self.after_the_cut()
            }
            Step::Norms | Step::Done => {
                let sums = gathered.sums();
                self.factor = Some(l1_factor(sums[0], sums[1]));
                Step::Done
            }
        };
    }

    fn apply(&self, kernels: Kernels, start: u64, x: &mut [f32]) {
        self.drop(kernels, start, self.factor.expect("the norms were gathered before"), x);
    }

    fn most_passes(&self) -> usize {
        let cut = match self.cut {
            Cut::Nothing => 0,
            Cut::DropUpTo(_) => 2,
            Cut::Keep { .. } => 3,
        };
        cut + usize::from(self.l1)
    }

    fn fresh(&self) -> Box<dyn Sparsifier> {
        Box::new(Self::new(self.cut, if self.l1 { None } else { self.factor }))
    }
}
