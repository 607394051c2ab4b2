//! What is gathered over a whole tensor, or a whole model, before it is mapped: the contract between methods, sparsifiers and the engine.

use deltaic_kernels::LaneSums;

/// Number of elements that methods and sparsifiers are handed at a time: few enough that a block of each input stays in the first-level
/// cache. Every block but a tensor's last is this long, and starts at a multiple of it.
pub const BLOCK: usize = 1024;

/// What a method wants its inputs to be, and what a sparsifier drops elements of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// Fine-tuned weights.
    Weights,
    /// Fine-tuned minus base.
    Deltas,
}

/// What the next pass over the elements has to gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// That many sums in f64, added in the fixed order of `deltaic_kernels` (16 lanes, blocks of 65,536 elements).
    Sums(usize),
    /// That many counters.
    Counts(usize),
    /// One counter for each block of [`BLOCK`] elements.
    CountPerBlock,
}

/// Where one block of elements adds what it has.
#[derive(Debug)]
pub enum Tally<'a> {
    /// For [`Wanted::Sums`].
    Sums(&'a mut [LaneSums]),
    /// For [`Wanted::Counts`]; for [`Wanted::CountPerBlock`] the one counter of the block at hand.
    Counts(&'a mut [u64]),
}

impl Tally<'_> {
    /// The sums; only what asked for sums is given them.
    pub fn sums(&mut self) -> &mut [LaneSums] {
        match self {
            Tally::Sums(sums) => sums,
            Tally::Counts(_) => unreachable!("sums were asked for"),
        }
    }

    /// The counters; only what asked for counters is given them.
    pub fn counts(&mut self) -> &mut [u64] {
        match self {
            Tally::Counts(counts) => counts,
            Tally::Sums(_) => unreachable!("counters were asked for"),
        }
    }
}

/// What a pass has gathered over all elements.
#[derive(Debug, Clone, PartialEq)]
pub enum Gathered {
    /// Answer to [`Wanted::Sums`].
    Sums(Vec<f64>),
    /// Answer to [`Wanted::Counts`], and to [`Wanted::CountPerBlock`] in the order of the blocks.
    Counts(Vec<u64>),
}

impl Gathered {
    /// The sums; only what asked for sums is given them.
    pub fn sums(self) -> Vec<f64> {
        match self {
            Gathered::Sums(sums) => sums,
            Gathered::Counts(_) => unreachable!("sums were asked for"),
        }
    }

    /// The counters; only what asked for counters is given them.
    pub fn counts(self) -> Vec<u64> {
        match self {
            Gathered::Counts(counts) => counts,
            Gathered::Sums(_) => unreachable!("counters were asked for"),
        }
    }
}

/// The counters as a histogram of `BINS` bins; only what asked for that many is given them.
pub fn histogram<const BINS: usize>(counts: &mut [u64]) -> &mut [u64; BINS] {
    counts.try_into().expect("as many counters as were asked for")
}

/// The bin of a histogram in which the element of that rank (from 0, ascending) lies, and its rank among the elements of the bin.
pub fn bin_of(histogram: &[u64], rank: u64) -> (usize, u64) {
    deltaic_kernels::rank_in(histogram, rank).expect("ranks are below the number of elements counted")
}
