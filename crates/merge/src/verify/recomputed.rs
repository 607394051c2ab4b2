//! The weights computed again from their sources, and compared bit for bit with those that lie there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use deltaic_checkpoint::{Checkpoint, Result, TensorSource};

use super::{Extent, Verified};
use crate::engine::{self, Control, Progress, Sink};
use crate::output::MergeOptions;
use crate::plan::Plan;

/// A tensor that is not what it is computed to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub tensor: String,
    /// The first element that differs, of those that were computed again.
    pub first: u64,
    /// How many of these differ.
    pub elements: u64,
}

/// Computes weights again and adds what differs.
pub(super) fn compare(
    verified: &mut Verified,
    model: &Checkpoint,
    plan: &Plan,
    extent: Extent,
    options: &MergeOptions,
    cancel: &AtomicBool,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    let comparable = plan.tensors.iter().map(|tensor| {
        let found = model.tensors().get(&tensor.name).map(|info| (info.dtype, &info.shape));
        found == Some((tensor.dtype, &tensor.shape))
    });
    let comparison = Comparison::new(model, plan, comparable.collect(), extent, options.threads);
    let control =
        Control { threads: options.threads, kernels: options.kernels()?, count_swallowed: false, deny_nan: false, cancel, progress };
    engine::run(plan, &comparison, &control)?;
    verified.recomputed = comparison.recomputed.into_inner();
    verified.differences = comparison.differences.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect();
    Ok(())
}

/// Takes what is computed and holds it against what lies there.
struct Comparison<'a> {
    model: &'a Checkpoint,
    plan: &'a Plan,
    /// By tensor: whether it is there with the dtype and shape expected.
    comparable: Vec<bool>,
    /// By tensor: elements of all tensors before it.
    before: Vec<u64>,
    /// One window is compared for so many elements.
    spacing: f64,
    /// Where the first such place lies.
    offset: f64,
    recomputed: AtomicU64,
    differences: Mutex<BTreeMap<usize, Difference>>,
}

impl<'a> Comparison<'a> {
    fn new(model: &'a Checkpoint, plan: &'a Plan, comparable: Vec<bool>, extent: Extent, threads: usize) -> Self {
        let window = plan.window_elements(threads) as u64;
        let (mut total, mut squares, mut before) = (0, 0.0, Vec::new());
        for tensor in &plan.tensors {
            before.push(total);
            total += tensor.elements();
            let (whole, rest) = (tensor.elements() / window, tensor.elements() % window);
            squares += whole as f64 * (window as f64).powi(2) + (rest as f64).powi(2);
        }
        let (spacing, offset) = match extent {
            Extent::Sample { share, seed } if share < 1.0 => {
                // A place falls into a window of n elements with probability n / spacing, and then all n are computed. At least one place.
                let spacing = (squares / total.max(1) as f64 / share.max(1e-9)).min(total.max(1) as f64);
                // The golden ratio's multiples spread the places of successive seeds evenly.
                (spacing, spacing * (seed as f64 * 0.618_033_988_749_895).fract())
            }
            Extent::Sample { .. } | Extent::Checks | Extent::Full => (0.0, 0.0),
        };
        let (recomputed, differences) = (AtomicU64::new(0), Mutex::default());
        Self { model, plan, comparable, before, spacing, offset, recomputed, differences }
    }
}

impl Sink for Comparison<'_> {
    fn wants(&self, tensor: usize, start: u64, count: usize) -> bool {
        if !self.comparable[tensor] || self.spacing == 0.0 {
            return self.comparable[tensor];
        }
        // Whether one of the places `offset + k * spacing` lies within.
        let first = (self.before[tensor] + start) as f64 - self.offset;
        let k = (first / self.spacing).ceil().max(0.0);
        k * self.spacing < first + count as f64
    }

    fn write(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let plan = &self.plan.tensors[tensor];
        let size = plan.dtype.size();
        let start = offset / size as u64;
        let mut found = vec![0; bytes.len()];
        self.model.read_into(&plan.name, start, &mut found)?;
        self.recomputed.fetch_add((bytes.len() / size) as u64, Ordering::Relaxed);
        if found == bytes {
            return Ok(());
        }
        let mut differing = found.chunks_exact(size).zip(bytes.chunks_exact(size)).enumerate().filter(|(_, (a, b))| a != b).map(|(i, _)| i);
        let first = start + differing.next().unwrap_or(0) as u64;
        let elements = 1 + differing.count() as u64;
        let mut differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = differences.entry(tensor).or_insert_with(|| Difference { tensor: plan.name.clone(), first, elements: 0 });
        entry.first = entry.first.min(first);
        entry.elements += elements;
        Ok(())
    }
}
