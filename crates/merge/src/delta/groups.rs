//! The sets of tensors whose quantiles are wanted: the model, its kinds and layers, and every tensor for itself.

use super::pairs::Pairs;
use super::quantiles::{Lookup, Search, bins};

/// A set of tensors.
struct Group {
    search: Search,
    /// Number of its tensors.
    members: usize,
    /// Those that this pass has not finished.
    left: usize,
    /// What this pass has counted, from its first tensor on and until its last one: layers do not all take memory at once.
    counts: Vec<u64>,
}

/// All sets. The model is number 0, then kinds, layers, tensors.
pub(super) struct Groups {
    all: Vec<Group>,
    kinds: usize,
    layers: usize,
    /// For each tensor, the groups that it is in.
    of: Vec<Vec<usize>>,
    /// The first pass's counts over the model.
    histogram: Vec<u64>,
}

impl Groups {
    pub fn new(pairs: &Pairs) -> Self {
        let (kinds, layers) = (pairs.kinds.len(), pairs.layers.len());
        let groups = 1 + kinds + layers + pairs.compared.len();
        let mut found = Self { all: Vec::with_capacity(groups), kinds, layers, of: Vec::new(), histogram: vec![0; bins(0)] };
        found.all.resize_with(groups, || Group { search: Search::new(), members: 0, left: 0, counts: Vec::new() });
        for (i, pair) in pairs.compared.iter().enumerate() {
            let layer = pair.layer.and_then(|layer| pairs.layers.binary_search(&layer).ok()).map(|l| found.of_layer(l));
            let of: Vec<usize> = [found.whole(), found.of_kind(pair.kind), found.of_tensor(i)].into_iter().chain(layer).collect();
            of.iter().for_each(|&group| found.all[group].members += 1);
            found.of.push(of);
        }
        found
    }

    /// The number of the set of all tensors.
    pub fn whole(&self) -> usize {
        0
    }

    /// The number of a kind's set.
    pub fn of_kind(&self, kind: usize) -> usize {
        1 + kind
    }

    /// The number of a layer's set, by the layer's place among the layers.
    pub fn of_layer(&self, layer: usize) -> usize {
        1 + self.kinds + layer
    }

    /// The number of a tensor's own set.
    pub fn of_tensor(&self, tensor: usize) -> usize {
        1 + self.kinds + self.layers + tensor
    }

    /// Begins a pass over all tensors.
    pub fn begin(&mut self) {
        self.all.iter_mut().for_each(|group| group.left = group.members);
    }

    /// What a pass has to count over a tensor, for all its sets at once.
    pub fn lookup(&self, pass: usize, tensor: usize) -> Lookup {
        Lookup::new(pass, self.of[tensor].iter().map(|&group| &self.all[group].search))
    }

    /// Takes what a pass has counted over a whole tensor.
    pub fn take(&mut self, pass: usize, tensor: usize, lookup: &Lookup, counts: &[u64]) {
        for &number in &self.of[tensor] {
            let group = &mut self.all[number];
            group.counts.resize(group.search.targets().len() * bins(pass), 0);
            lookup.hand_over(counts, &group.search, &mut group.counts);
            group.left -= 1;
            if group.left == 0 {
                let mut counts = std::mem::take(&mut group.counts);
                group.search.take(pass, &mut counts);
                if pass == 0 && number == 0 {
                    self.histogram = counts;
                }
            }
        }
    }

    /// The quantiles of a set, after all passes.
    pub fn quantiles(&self, group: usize) -> [f64; 5] {
        self.all[group].search.quantiles()
    }

    /// How many elements of the model have which upper bits ([`deltaic_kernels::ordered_bits`]); those that are not finite are left out.
    pub fn histogram(&self) -> &[u64] {
        &self.histogram
    }
}
