//! `dare`: drops elements at random (Yu et al. 2024, "Language Models are Super Mario", eq. 2-4).

use deltaic_kernels::{Kernels, MaskKey, threshold};

use super::{Definition, Own, Sparsifier, complement, l1_factor};
use crate::gather::{Gathered, Tally, Wanted};
use crate::paper::Paper;
use crate::sparsifiers::{Rescale, Sparsify};

pub(super) static DEFINITION: Definition = Definition {
    name: "dare",
    summary: "drop each element with probability p, at random, and rescale the rest",
    formula: "d' = m * d / (1 - p), m ~ Bernoulli(1 - p)        rescale l1: d' = m * d * |d|_1 / |m d|_1;  none: d' = m * d (DropOnly)",
    paper: Some(Paper { title: "Language Models are Super Mario", arxiv: "2311.03099" }),
    random: true,
    prepare: |sparsify, _elements, mask| prepare(sparsify, mask),
};

fn prepare(sparsify: &Sparsify, mask: MaskKey) -> Box<dyn Sparsifier> {
    Box::new(Dare::new(sparsify.drop_rate, sparsify.rescale, mask))
}

/// mergekit's DARE: `density` is kept; 1 is no mask and no rescale.
pub(crate) fn with_density(density: f64, rescale: Rescale, mask: MaskKey) -> Own {
    Own::of(density, || Box::new(Dare::new(complement(density), rescale, mask)))
}

#[derive(Clone)]
struct Dare {
    mask: MaskKey,
    threshold: u64,
    /// What is kept is multiplied by this; `None` until the l1 norms are known.
    factor: Option<f32>,
    l1: bool,
}

impl Dare {
    fn new(drop_rate: f64, rescale: Rescale, mask: MaskKey) -> Self {
        let threshold = threshold(drop_rate).expect("drop rates were checked to lie within 0 ..= 1");
        Self { mask, threshold, factor: rescale.factor(drop_rate), l1: rescale == Rescale::L1 }
    }
}

impl Sparsifier for Dare {
    fn wants(&self) -> Option<Wanted> {
        self.factor.is_none().then_some(Wanted::Sums(2))
    }

    fn gather(&self, kernels: Kernels, start: u64, x: &mut [f32], mut tally: Tally<'_>) {
        let [before, after] = tally.sums() else { unreachable!("two sums were asked for") };
        kernels.sum_magnitudes(x, before);
        kernels.drop_elements(self.mask, self.threshold, 1.0, start, x);
        kernels.sum_magnitudes(x, after);
    }

    fn take(&mut self, gathered: Gathered) {
        let sums = gathered.sums();
        self.factor = Some(l1_factor(sums[0], sums[1]));
    }

    fn apply(&self, kernels: Kernels, start: u64, x: &mut [f32]) {
        let factor = self.factor.expect("the norms were gathered before");
        kernels.drop_elements(self.mask, self.threshold, factor, start, x);
    }

    fn is_random(&self) -> bool {
        true
    }

    fn most_passes(&self) -> usize {
        usize::from(self.l1)
    }

    fn fresh(&self) -> Box<dyn Sparsifier> {
        Box::new(Self { factor: if self.l1 { None } else { self.factor }, ..self.clone() })
    }
}
