//! Reads both models window by window: workers take windows in order, whoever finishes a tensor's last one hands its sums and counts over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deltaic_checkpoint::{DType, Error, Result, Window};
use deltaic_kernels::{Kernels, REDUCTION_BLOCK};

use super::figures::{Adder, SUMS, Totals};
use super::groups::Groups;
use super::pairs::{Pair, Pairs};
use super::quantiles::Lookup;
use crate::engine::Progress;
use crate::gather::BLOCK;
use crate::workers::on_threads;

/// How often both models are read.
pub(super) const READS: usize = 3;

/// Elements of a window: few enough that what was read is still in the second-level cache when it is widened.
const WINDOW: usize = 1 << 17;
/// The windows of all workers together stay under this; more workers than fit are not started.
const WINDOW_MEMORY: usize = 64 << 20;

/// What a study needs to run.
pub(super) struct Run<'a> {
    pub pairs: &'a Pairs,
    pub threads: usize,
    pub kernels: Kernels,
    pub cancel: &'a AtomicBool,
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

/// What was found.
pub(super) struct Found {
    /// For each tensor.
    pub totals: Vec<Totals>,
    /// The quantiles.
    pub groups: Groups,
}

/// A tensor that is being read.
struct Reading {
    tensor: usize,
    lookup: Lookup,
    state: Mutex<State>,
}

/// What was found over a tensor so far, in whatever order its windows came.
struct State {
    windows_left: usize,
    totals: Totals,
    /// By reduction block.
    blocks: Vec<[f64; SUMS]>,
    counts: Vec<u64>,
}

/// What is to be read next, behind one lock.
struct Queue {
    next_tensor: usize,
    reading: Option<Arc<Reading>>,
    next_element: u64,
    failure: Option<Error>,
}

/// Everything that workers share in one read.
struct Pass<'a> {
    number: usize,
    queue: Mutex<Queue>,
    groups: Mutex<&'a mut Groups>,
    totals: Mutex<&'a mut Vec<Totals>>,
    elements: u64,
    elements_done: AtomicU64,
    bytes_read: &'a AtomicU64,
    window: usize,
}

/// A worker's buffers.
struct Worker {
    windows: [Window; 2],
    blocks: [Vec<f32>; 2],
    delta: Vec<f32>,
    counts: Vec<u64>,
}

impl Run<'_> {
    /// Reads everything as often as it takes.
    pub fn all(&self) -> Result<Found> {
        let mut found = Found { totals: vec![Totals::default(); self.pairs.compared.len()], groups: Groups::new(self.pairs) };
        let bytes_read = AtomicU64::new(0);
        let threads = self.threads.clamp(1, WINDOW_MEMORY / (REDUCTION_BLOCK * 2 * size_of::<f32>()));
        let fitting = WINDOW_MEMORY / (threads * 2 * size_of::<f32>());
        let window = (fitting / REDUCTION_BLOCK * REDUCTION_BLOCK).clamp(REDUCTION_BLOCK, WINDOW);
        for number in 0..READS {
            found.groups.begin();
            let queue = Queue { next_tensor: 0, reading: None, next_element: 0, failure: None };
            let pass = Pass {
                number,
                queue: Mutex::new(queue),
                groups: Mutex::new(&mut found.groups),
                totals: Mutex::new(&mut found.totals),
                elements: self.pairs.compared.iter().map(Pair::elements).sum(),
                elements_done: AtomicU64::new(0),
                bytes_read: &bytes_read,
                window,
            };
            on_threads(threads, || self.work(&pass));
            if let Some(error) = pass.queue.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
                return Err(error);
            }
        }
        Ok(found)
    }

    fn work(&self, pass: &Pass<'_>) {
        let window = || Window { dtype: DType::F32, bytes: Vec::new() };
        let mut worker = Worker { windows: [window(), window()], blocks: Default::default(), delta: Vec::new(), counts: Vec::new() };
        while let Some((reading, start, count)) = self.next_window(pass) {
            if let Err(error) = self.read_window(pass, &mut worker, &reading, start, count) {
                lock(&pass.queue).failure.get_or_insert(error);
            }
        }
    }

    /// The next window; `None` when there is nothing left, or after a failure.
    fn next_window(&self, pass: &Pass<'_>) -> Option<(Arc<Reading>, u64, usize)> {
        let mut queue = lock(&pass.queue);
        if self.cancel.load(Ordering::Relaxed) {
            queue.failure.get_or_insert_with(|| Error::new("cancelled"));
        }
        if queue.failure.is_some() {
            return None;
        }
        while queue.reading.is_none() {
            let tensor = queue.next_tensor;
            let elements = self.pairs.compared.get(tensor)?.elements();
            queue.next_tensor += 1;
            let lookup = lock(&pass.groups).lookup(pass.number, tensor);
            if elements == 0 {
                lock(&pass.groups).take(pass.number, tensor, &lookup, &vec![0; lookup.counters()]);
                continue;
            }
            let counts = vec![0; lookup.counters()];
            let windows_left = elements.div_ceil(pass.window as u64) as usize;
            let state = State { windows_left, totals: Totals::default(), blocks: Vec::new(), counts };
            queue.reading = Some(Arc::new(Reading { tensor, lookup, state: Mutex::new(state) }));
            queue.next_element = 0;
        }
        let reading = queue.reading.clone()?;
        let (start, elements) = (queue.next_element, self.pairs.compared[reading.tensor].elements());
        let count = pass.window.min((elements - start) as usize);
        queue.next_element += count as u64;
        if queue.next_element == elements {
            queue.reading = None;
        }
        Some((reading, start, count))
    }

    fn read_window(&self, pass: &Pass<'_>, worker: &mut Worker, reading: &Reading, start: u64, count: usize) -> Result<()> {
        let pair = &self.pairs.compared[reading.tensor];
        for ((source, own), window) in self.pairs.sources.iter().zip(&pair.own).zip(&mut worker.windows) {
            source.tensors.read(own, start, count, window)?;
            pass.bytes_read.fetch_add(window.bytes.len() as u64, Ordering::Relaxed);
        }
        worker.counts.clear();
        worker.counts.resize(reading.lookup.counters(), 0);
        let mut adder = Adder::default();
        for offset in (0..count).step_by(BLOCK) {
            let length = BLOCK.min(count - offset);
            worker.load(self.kernels, offset, length);
            reading.lookup.count(self.kernels, &worker.delta, &mut worker.counts);
            if pass.number == 0 {
                let [base, model] = &mut worker.blocks;
                adder.add(self.kernels, &mut worker.delta, base, model);
                if (offset + length).is_multiple_of(REDUCTION_BLOCK) || offset + length == count {
                    adder.end_block();
                }
            }
        }
        let done = pass.elements_done.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        (self.progress)(Progress {
            elements_done: done,
            elements: pass.elements,
            bytes_read: pass.bytes_read.load(Ordering::Relaxed),
            bytes_written: 0,
            read: pass.number + 1,
            reads: READS,
        });
        if let Some(state) = reading.absorb(start, &adder, &worker.counts) {
            lock(&pass.groups).take(pass.number, reading.tensor, &reading.lookup, &state.counts);
            if pass.number == 0 {
                lock(&pass.totals)[reading.tensor] = state.finished();
            }
        }
        Ok(())
    }
}

impl Worker {
    /// Widens a block of both windows and takes their difference.
    fn load(&mut self, kernels: Kernels, offset: usize, count: usize) {
        for (window, block) in self.windows.iter().zip(&mut self.blocks) {
            let format = window.dtype.float_format().expect("only floating tensors are compared");
            block.resize(count, 0.0);
            kernels.widen(format, &window.bytes[offset * format.size()..][..count * format.size()], block);
        }
        self.delta.clone_from(&self.blocks[1]);
        kernels.subtract(&mut self.delta, &self.blocks[0]);
    }
}

impl Reading {
    /// Adds a window's findings. The last one gets them all.
    fn absorb(&self, start: u64, adder: &Adder, counts: &[u64]) -> Option<State> {
        let mut state = lock(&self.state);
        state.totals.add_counts(adder.counts());
        let first = (start / REDUCTION_BLOCK as u64) as usize;
        let end = first + adder.blocks.len();
        if state.blocks.len() < end {
            state.blocks.resize(end, [0.0; SUMS]);
        }
        state.blocks[first..end].copy_from_slice(&adder.blocks);
        state.counts.iter_mut().zip(counts).for_each(|(all, some)| *all += some);
        state.windows_left -= 1;
        let empty = State { windows_left: 0, totals: Totals::default(), blocks: Vec::new(), counts: Vec::new() };
        (state.windows_left == 0).then(|| std::mem::replace(&mut *state, empty))
    }
}

impl State {
    fn finished(mut self) -> Totals {
        self.totals.set_sums(&self.blocks);
        self.totals
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
