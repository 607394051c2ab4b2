//! Collects what blocks gather: a part for each window, a store for the whole tensor or model.

use deltaic_kernels::{LaneSums, REDUCTION_BLOCK, ordered_sum};

use crate::gather::{BLOCK, Gathered, Tally, Wanted};

/// What one worker gathers over one window. Kept and used again: histograms are large.
#[derive(Debug)]
pub(super) struct Part {
    wanted: Wanted,
    lanes: Vec<LaneSums>,
    /// By sum, then by reduction block of the window.
    totals: Vec<Vec<f64>>,
    counts: Vec<u64>,
}

impl Part {
    /// An empty part.
    pub fn new() -> Self {
        Self { wanted: Wanted::Counts(0), lanes: Vec::new(), totals: Vec::new(), counts: Vec::new() }
    }

    /// Empties it for a window of `elements` elements.
    pub fn begin(&mut self, wanted: Wanted, elements: usize) {
        let (sums, counts) = match wanted {
            Wanted::Sums(sums) => (sums, 0),
            Wanted::Counts(counts) => (0, counts),
            Wanted::CountPerBlock => (0, elements.div_ceil(BLOCK)),
        };
        self.wanted = wanted;
        self.lanes.clear();
        self.lanes.resize(sums, LaneSums::default());
        self.totals.iter_mut().for_each(Vec::clear);
        self.totals.resize(sums, Vec::new());
        self.counts.clear();
        self.counts.resize(counts, 0);
    }

    /// Where the block that starts at `offset` of the window adds what it has.
    pub fn tally(&mut self, offset: usize) -> Tally<'_> {
        match self.wanted {
            Wanted::Sums(_) => Tally::Sums(&mut self.lanes),
            Wanted::Counts(_) => Tally::Counts(&mut self.counts),
            Wanted::CountPerBlock => Tally::Counts(&mut self.counts[offset / BLOCK..][..1]),
        }
    }

    /// Says that the window is done up to `end`; closes a reduction block where one ends there.
    pub fn end_of_block(&mut self, end: usize, window: usize) {
        if end.is_multiple_of(REDUCTION_BLOCK) || end == window {
            for (lanes, totals) in self.lanes.iter_mut().zip(&mut self.totals) {
                totals.push(std::mem::take(lanes).total());
            }
        }
    }
}

/// What has been gathered over a tensor or a model so far, in whatever order its windows came.
#[derive(Debug)]
pub(super) struct Store {
    /// What is asked for.
    pub wanted: Wanted,
    /// By sum, then by reduction block of the tensor.
    totals: Vec<Vec<f64>>,
    counts: Vec<u64>,
}

impl Store {
    /// An empty store for a tensor of `elements` elements.
    pub fn new(wanted: Wanted, elements: u64) -> Self {
        let blocks = elements.div_ceil(REDUCTION_BLOCK as u64) as usize;
        let (sums, counts) = match wanted {
            Wanted::Sums(sums) => (sums, 0),
            Wanted::Counts(counts) => (0, counts),
            Wanted::CountPerBlock => (0, elements.div_ceil(BLOCK as u64) as usize),
        };
        Self { wanted, totals: vec![vec![0.0; blocks]; sums], counts: vec![0; counts] }
    }

    /// Adds the part of the window that begins at element `start`, a multiple of the reduction block.
    pub fn absorb(&mut self, start: u64, part: &Part) {
        match self.wanted {
            Wanted::Sums(_) => {
                let first = (start / REDUCTION_BLOCK as u64) as usize;
                for (all, some) in self.totals.iter_mut().zip(&part.totals) {
                    all[first..first + some.len()].copy_from_slice(some);
                }
            }
            Wanted::Counts(_) => self.counts.iter_mut().zip(&part.counts).for_each(|(all, some)| *all += some),
            Wanted::CountPerBlock => {
                let first = (start / BLOCK as u64) as usize;
                self.counts[first..first + part.counts.len()].copy_from_slice(&part.counts);
            }
        }
    }

    /// The answer, once every window was absorbed.
    pub fn finish(self) -> Gathered {
        match self.wanted {
            Wanted::Sums(_) => Gathered::Sums(self.totals.iter().map(|totals| ordered_sum(totals)).collect()),
            Wanted::Counts(_) | Wanted::CountPerBlock => Gathered::Counts(self.counts),
        }
    }
}
