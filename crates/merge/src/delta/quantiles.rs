//! Exact quantiles of any number of elements by counting, in three passes with little memory.

use deltaic_kernels::{NO_SLOT, NON_FINITE_BINS, ORDERED_BINS, ORDERED_BITS, REFINED_BINS, from_ordered_bits, rank_in};

use super::figures::QUANTILES;

/// Bins that pass number `pass` counts for each target.
pub(super) fn bins(pass: usize) -> usize {
    1 << ORDERED_BITS[pass]
}

/// An element that is looked for.
#[derive(Debug, Clone, Copy)]
struct Rank {
    /// In which of the targets it lies.
    target: usize,
    /// Its rank among the target's elements, from zero, ascending.
    rank: u64,
}

/// The quantiles of one set of elements on their way: the elements of exact rank that they lie between, narrowed down pass by pass.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// Upper bits of the elements that the next pass has to look at; before the first, all.
    targets: Vec<u32>,
    /// Two for each quantile, at its two sides.
    ranks: Vec<Rank>,
    /// Elements that are finite; known after the first pass.
    elements: u64,
}

impl Search {
    pub fn new() -> Self {
        Self { targets: vec![0], ranks: Vec::new(), elements: 0 }
    }

    /// What the next pass has to count: so many histograms, one for the elements that begin with each of these bits.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// Takes what a pass has counted: for each target its histogram. The first pass's has the elements that are not finite cleared here.
    pub fn take(&mut self, pass: usize, counts: &mut [u64]) {
        if pass == 0 {
            counts[..NON_FINITE_BINS].fill(0);
            counts[ORDERED_BINS - NON_FINITE_BINS..].fill(0);
            self.elements = counts.iter().sum();
            self.ranks = if self.elements > 0 { QUANTILES.iter().flat_map(|&q| self.sides(q)).collect() } else { Vec::new() };
        }
        let mut targets = Vec::new();
        for found in &mut self.ranks {
            let histogram = &counts[found.target * bins(pass)..][..bins(pass)];
            let (bin, rank) = rank_in(histogram, found.rank).expect("ranks are below the number of elements counted");
            let target = self.targets[found.target] << ORDERED_BITS[pass] | bin as u32;
            let place = targets.iter().position(|known| *known == target).unwrap_or_else(|| {
                targets.push(target);
                targets.len() - 1
            });
            *found = Rank { target: place, rank };
        }
        self.targets = targets;
    }

    /// The ranks at both sides of a quantile.
    fn sides(&self, q: f64) -> [Rank; 2] {
        let low = (q * (self.elements - 1) as f64).floor() as u64;
        let high = (low + 1).min(self.elements - 1);
        [low, high].map(|rank| Rank { target: 0, rank })
    }

    /// The quantiles, after all passes; NaN where there are no elements.
    pub fn quantiles(&self) -> [f64; 5] {
        std::array::from_fn(|i| {
            let Some([low, high]) = self.ranks.as_chunks::<2>().0.get(i) else { return f64::NAN };
            let [low, high] = [low, high].map(|found| f64::from(from_ordered_bits(self.targets[found.target])));
            let place = QUANTILES[i] * (self.elements - 1) as f64;
            interpolated(low, high, place - place.floor())
        })
    }
}

/// Between two elements as NumPy does it: from the nearer side.
fn interpolated(low: f64, high: f64, t: f64) -> f64 {
    if t >= 0.5 { high - (high - low) * (1.0 - t) } else { low + (high - low) * t }
}

/// The tables by which kernels find the histogram of an element: for the targets of several searches at once.
#[derive(Debug)]
pub(super) struct Lookup {
    pass: usize,
    /// All targets, ascending; their places are the slots.
    targets: Vec<u32>,
    /// By upper bits.
    slots: Box<[u16; ORDERED_BINS]>,
    /// By the slot of the upper bits, then the middle bits; for the last pass.
    middle_slots: Vec<u16>,
}

impl Lookup {
    /// Tables for a pass over elements that belong to all these searches.
    pub fn new<'a>(pass: usize, searches: impl Iterator<Item = &'a Search>) -> Self {
        let mut targets: Vec<u32> = searches.flat_map(|search| search.targets().iter().copied()).collect();
        targets.sort_unstable();
        targets.dedup();
        let mut slots = Box::new([NO_SLOT; ORDERED_BINS]);
        let mut middle_slots = Vec::new();
        match pass {
            0 => {}
            1 => targets.iter().enumerate().for_each(|(slot, target)| slots[*target as usize] = slot as u16),
            _ => {
                let mut uppers: Vec<u32> = targets.iter().map(|target| target >> ORDERED_BITS[1]).collect();
                uppers.dedup();
                uppers.iter().enumerate().for_each(|(slot, upper)| slots[*upper as usize] = slot as u16);
                middle_slots = vec![NO_SLOT; uppers.len() * REFINED_BINS];
                for (slot, target) in targets.iter().enumerate() {
                    let first = slots[(target >> ORDERED_BITS[1]) as usize] as usize;
                    middle_slots[first * REFINED_BINS + *target as usize % REFINED_BINS] = slot as u16;
                }
            }
        }
        Self { pass, targets, slots, middle_slots }
    }

    /// Number of counters.
    pub fn counters(&self) -> usize {
        self.targets.len() * bins(self.pass)
    }

    /// Counts a block of elements.
    pub fn count(&self, kernels: deltaic_kernels::Kernels, delta: &[f32], counts: &mut [u64]) {
        match self.pass {
            0 => kernels.histogram_ordered(delta, counts.try_into().expect("as many counters as were asked for")),
            1 => kernels.histogram_ordered_middle(delta, &self.slots, counts),
            _ => kernels.histogram_ordered_low(delta, &self.slots, &self.middle_slots, counts),
        }
    }

    /// Adds to a search's histograms what was counted for its targets.
    pub fn hand_over(&self, counts: &[u64], search: &Search, all: &mut [u64]) {
        let bins = bins(self.pass);
        for (target, all) in search.targets().iter().zip(all.chunks_mut(bins)) {
            if let Ok(slot) = self.targets.binary_search(target) {
                all.iter_mut().zip(&counts[slot * bins..][..bins]).for_each(|(all, count)| *all += count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaic_kernels::Kernels;

    /// NumPy's definition over sorted elements.
    fn by_sorting(values: &[f32]) -> [f64; 5] {
        let mut sorted: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f32::total_cmp);
        QUANTILES.map(|q| {
            let place = q * (sorted.len() - 1) as f64;
            let low = place.floor() as usize;
            let (a, b) = (f64::from(sorted[low]), f64::from(sorted[(low + 1).min(sorted.len() - 1)]));
            interpolated(a, b, place.fract())
        })
    }

    fn by_counting(values: &[f32]) -> [f64; 5] {
        let mut search = Search::new();
        for pass in 0..3 {
            let lookup = Lookup::new(pass, std::iter::once(&search));
            let mut counts = vec![0; lookup.counters()];
            values.chunks(7).for_each(|chunk| lookup.count(Kernels::detect(), chunk, &mut counts));
            let mut all = vec![0; search.targets().len() * bins(pass)];
            lookup.hand_over(&counts, &search, &mut all);
            search.take(pass, &mut all);
        }
        search.quantiles()
    }

    #[test]
    fn quantiles_by_counting_are_those_by_sorting() {
        let mut state = 1_u64;
        for count in [1, 2, 3, 10, 1000, 5001] {
            let values: Vec<f32> = (0..count)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let x = (state >> 40) as f32 / 8_388_608.0 - 1.0;
                    if state.is_multiple_of(5) { 0.0 } else { 0.01 * x * x * x }
                })
                .collect();
            assert_eq!(by_counting(&values), by_sorting(&values), "{count}");
        }
    }

    #[test]
    fn what_is_not_finite_has_no_part_in_quantiles() {
        let values = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, f32::MAX, f32::MIN, -0.0, 0.0, 1e-45];
        assert_eq!(by_counting(&values), by_sorting(&values));
        assert!(by_counting(&[f32::NAN]).iter().all(|quantile| quantile.is_nan()));
        assert!(by_counting(&[]).iter().all(|quantile| quantile.is_nan()));
    }
}
