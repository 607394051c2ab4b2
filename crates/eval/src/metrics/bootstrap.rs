//! Resampled items: drawn with replacement, the same on every machine, shared by all models that are compared.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use super::sample_deviation;

/// How many resamples a standard error or a test is made of.
pub const RESAMPLES: usize = 1000;

/// `count` sets of as many items as there are, drawn with replacement. They are computed where they are used, not stored: set `i` is a function of
/// `items`, `seed` and `i` alone, so models on the same items see the same sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resamples {
    items: u32,
    count: usize,
    seed: u64,
}

impl Resamples {
    /// Sets of indices below `items`.
    pub fn new(items: u32, count: usize, seed: u64) -> Self {
        Self { items, count, seed }
    }

    /// How many items there are, and in each set.
    pub fn items(&self) -> usize {
        self.items as usize
    }

    /// How many sets there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Puts set `index` in place of what `set` holds.
    ///
    /// The words are ChaCha8's, its key the seed (64 bits, little endian, then zeros), its stream (nonce) the set's index. An index below `items` is
    /// the high half of word x items, where the low half is at least 2^32 mod `items`; else the next word's (Lemire 2019: no bias).
    pub fn draw(&self, index: usize, set: &mut Vec<u32>) {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        let mut words = ChaCha8Rng::from_seed(key);
        words.set_stream(index as u64);
        set.clear();
        // Of no items the set is empty; 2^32 mod items is computed once.
        let Some(least) = self.items.wrapping_neg().checked_rem(self.items) else { return };
        while set.len() < self.items() {
            let product = u64::from(words.next_u32()) * u64::from(self.items);
            if product as u32 >= least {
                set.push((product >> 32) as u32);
            }
        }
    }

    /// A statistic of every set, in order.
    pub fn map(&self, mut statistic: impl FnMut(&[u32]) -> f64) -> Vec<f64> {
        let mut set = Vec::new();
        let indices = 0..self.count;
        indices
            .map(|index| {
                self.draw(index, &mut set);
                statistic(&set)
            })
            .collect()
    }

    /// The bootstrap's standard error of a statistic: its sample standard deviation over the sets. None for fewer than two items or sets, or where a
    /// value is not finite.
    pub fn standard_error(&self, statistic: impl FnMut(&[u32]) -> f64) -> Option<f64> {
        if self.items < 2 { None } else { sample_deviation(&self.map(statistic)) }
    }
}
