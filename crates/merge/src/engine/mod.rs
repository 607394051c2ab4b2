//! Runs a plan: workers take windows of tensors in any order and write each at its final offset.
//!
//! A tensor goes through passes: what its sparsifiers gather, what its merge gathers, the map. The worker that finishes a pass's last
//! window starts the next pass at the front of the queue, so that a tensor's bytes are still in the page cache, and nobody waits.

mod tally;
mod worker;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};

use deltaic_checkpoint::{Error, Result, TensorSource};
use deltaic_kernels::{Kernels, REDUCTION_BLOCK};

use self::tally::Store;
use self::worker::{Range, Stages, Worker, rows_unit};
use crate::methods::{ModelWide, Reach};
use crate::plan::{Action, Plan, TensorPlan};
use crate::workers::on_threads;

/// Where the output's bytes go.
pub(crate) trait Sink: Sync {
    /// Whether these elements of a tensor are wanted. A tensor of which none are is passed over.
    fn wants(&self, _tensor: usize, _start: u64, _count: usize) -> bool {
        true
    }

    /// Takes `bytes` of tensor number `tensor` at byte `offset` of it.
    fn write(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()>;

    /// All that is wanted of a tensor was taken.
    fn finished(&self, _tensor: usize, _counts: Counts) -> Result<()> {
        Ok(())
    }

    /// What an earlier run has gathered over the whole model.
    fn model_wide(&self) -> Option<Vec<f64>> {
        None
    }

    /// What was gathered over the whole model.
    fn gathered(&self, _numbers: &[f64]) -> Result<()> {
        Ok(())
    }
}

/// What was counted over a tensor of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Elements that are NaN or infinite.
    pub non_finite: u64,
    /// Of a sample of the elements, those that the merge moved away from the base.
    pub moved: u64,
    /// Of these, those that the output's dtype rounds to what it rounds the base to.
    pub swallowed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.non_finite += other.non_finite;
        self.moved += other.moved;
        self.swallowed += other.swallowed;
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Elements of the output that are done, in this read of the sources.
    pub elements_done: u64,
    /// Elements of the output.
    pub elements: u64,
    /// Bytes read from the sources so far.
    pub bytes_read: u64,
    /// Bytes written so far.
    pub bytes_written: u64,
    /// Which read of all sources this is, from 1: methods that gather over the whole model read more than once.
    pub read: usize,
    /// How many reads there are at most.
    pub reads: usize,
}

/// What a run needs beside the plan.
pub(crate) struct Control<'a> {
    pub threads: usize,
    pub kernels: Kernels,
    /// Whether deltas that the output's dtype swallows are counted.
    pub count_swallowed: bool,
    /// Whether the first element that is NaN or infinite ends the run.
    pub deny_nan: bool,
    pub cancel: &'a AtomicBool,
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

/// Runs the plan. What it counts, the sink is told. Returns what the user should know of how tensors were computed.
pub(crate) fn run(plan: &Plan, sink: &dyn Sink, control: &Control<'_>) -> Result<Vec<String>> {
    let models = plan.sources.iter().map(|source| &*source.tensors);
    let sources: Vec<&dyn TensorSource> = models.chain(plan.auxiliary.iter().map(|file| &*file.tensors)).collect();
    let run = Run {
        plan,
        sources: &sources,
        sink,
        control,
        window: plan.window_elements(control.threads),
        tensors: plan.tensors.iter().map(TensorRun::new).collect(),
        bytes_read: AtomicU64::new(0),
        bytes_written: AtomicU64::new(0),
        elements_done: AtomicU64::new(0),
        read: AtomicUsize::new(1),
    };
    if let Some(model_wide) = &plan.model_wide {
        let numbers = match sink.model_wide() {
            Some(numbers) => numbers,
            None => run.gather_over_the_model(&**model_wide)?,
        };
        for tensor in &run.tensors {
            if let Some(merge) = &mut tensor.stages.write().unwrap_or_else(PoisonError::into_inner).merge {
                merge.take_model_wide(&numbers);
            }
        }
    }
    run.drive(&Goal::Write)?;
    let remark = |(tensor, run): (&TensorPlan, &TensorRun)| {
        let stages = run.stages.read().unwrap_or_else(PoisonError::into_inner);
        stages.merge.as_ref().and_then(|merge| merge.remark()).map(|remark| format!("{}: {remark}", tensor.name))
    };
    Ok(plan.tensors.iter().zip(&run.tensors).filter_map(remark).collect())
}

/// What a drive over all tensors is for.
enum Goal<'a> {
    /// Numbers over the whole model.
    Gather {
        model_wide: &'a dyn ModelWide,
        store: &'a Mutex<Store>,
        /// By tensor: where its elements stand among all, so that sums have one order.
        starts: &'a [u64],
    },
    /// The output.
    Write,
}

/// The pass over its elements that a tensor is in.
#[derive(Debug, Clone, PartialEq)]
enum Pass {
    /// Gathers for these: an input and the first of its sparsifiers that is not ready.
    Sparsifiers(Vec<(usize, usize)>),
    /// Gathers for the merge.
    Merge,
    /// Gathers for the whole model.
    Model,
    /// Writes.
    Write,
}

/// A tensor on its way.
struct TensorRun {
    stages: RwLock<Stages>,
    pass: RwLock<Option<Pass>>,
    stores: Mutex<Vec<Store>>,
    windows_left: AtomicUsize,
    counts: Mutex<Counts>,
}

impl TensorRun {
    fn new(plan: &TensorPlan) -> Self {
        let stages = match &plan.action {
            Action::Copy(_) => Stages { chains: Vec::new(), merge: None },
            Action::Merge { inputs, merge, .. } => Stages {
                chains: inputs.iter().map(|input| input.sparsifiers.iter().map(|stage| stage.sparsifier.fresh()).collect()).collect(),
                merge: Some(merge.fresh()),
            },
        };
        Self {
            stages: RwLock::new(stages),
            pass: RwLock::new(None),
            stores: Mutex::new(Vec::new()),
            windows_left: AtomicUsize::new(0),
            counts: Mutex::default(),
        }
    }

    /// The pass that comes next, given the one that is over.
    fn next_pass(&self, goal: &Goal<'_>, over: Option<&Pass>) -> Option<Pass> {
        let stages = self.stages.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(goal, Goal::Gather { .. }) && stages.merge.is_none() || matches!(over, Some(Pass::Model | Pass::Write)) {
            return None;
        }
        let waiting = |chain: &Vec<Box<dyn crate::sparsifiers::Sparsifier>>| chain.iter().position(|stage| stage.wants().is_some());
        let targets: Vec<_> = stages.chains.iter().enumerate().filter_map(|(i, chain)| Some((i, waiting(chain)?))).collect();
        if !targets.is_empty() {
            return Some(Pass::Sparsifiers(targets));
        }
        match goal {
            Goal::Gather { .. } => Some(Pass::Model),
            Goal::Write if stages.merge.as_ref().is_some_and(|merge| merge.wants().is_some()) => Some(Pass::Merge),
            Goal::Write => Some(Pass::Write),
        }
    }

    /// Hands what a pass has gathered to those that asked for it.
    fn end_pass(&self, pass: &Pass) {
        let stores = std::mem::take(&mut *self.stores.lock().unwrap_or_else(PoisonError::into_inner));
        let mut stages = self.stages.write().unwrap_or_else(PoisonError::into_inner);
        match pass {
            Pass::Sparsifiers(targets) => {
                targets.iter().zip(stores).for_each(|(&(i, j), store)| stages.chains[i][j].take(store.finish()));
            }
            Pass::Merge => {
                let merge = stages.merge.as_mut().expect("only merges gather");
                stores.into_iter().for_each(|store| merge.take(store.finish()));
            }
            Pass::Model | Pass::Write => {}
        }
    }
}

struct Run<'a> {
    plan: &'a Plan,
    sources: &'a [&'a dyn TensorSource],
    sink: &'a dyn Sink,
    control: &'a Control<'a>,
    window: usize,
    tensors: Vec<TensorRun>,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    elements_done: AtomicU64,
    read: AtomicUsize,
}

/// What is to be done, behind one lock.
struct Queue {
    windows: VecDeque<(usize, Range)>,
    next_tensor: usize,
    /// Tensors that have begun and are not over.
    open: usize,
    failure: Option<Error>,
}

/// Keeps the first failure, and wakes everybody to see it.
fn fail(queue: &Mutex<Queue>, changed: &Condvar, error: Error) {
    queue.lock().unwrap_or_else(PoisonError::into_inner).failure.get_or_insert(error);
    changed.notify_all();
}

/// Lets the other workers end when one panics, instead of waiting for its windows for ever.
struct Alarm<'a> {
    queue: &'a Mutex<Queue>,
    changed: &'a Condvar,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            fail(self.queue, self.changed, Error::new("a worker ended early: this is a fault of deltaic, please report it"));
        }
    }
}

impl Run<'_> {
    /// Numbers over the whole model, in as many reads of all sources as it takes.
    fn gather_over_the_model(&self, model_wide: &dyn ModelWide) -> Result<Vec<f64>> {
        let mut model_wide = model_wide.fresh();
        let (starts, elements) = self.starts();
        while let Some(wanted) = model_wide.wants() {
            let store = Mutex::new(Store::new(wanted, elements));
            self.drive(&Goal::Gather { model_wide: &*model_wide, store: &store, starts: &starts })?;
            model_wide.take(store.into_inner().unwrap_or_else(PoisonError::into_inner).finish());
            self.read.fetch_add(1, Ordering::Relaxed);
        }
        let numbers = model_wide.numbers();
        self.sink.gathered(&numbers)?;
        Ok(numbers)
    }

    /// Where each tensor's elements stand among all of the model's, at whole blocks of a reduction, and how many there are. In the order of
    /// names, which the sizes of shards do not change.
    fn starts(&self) -> (Vec<u64>, u64) {
        let mut order: Vec<usize> = (0..self.plan.tensors.len()).collect();
        order.sort_by(|&a, &b| self.plan.tensors[a].name.cmp(&self.plan.tensors[b].name));
        let (mut starts, mut next) = (vec![0; order.len()], 0);
        for number in order {
            starts[number] = next;
            next += self.plan.tensors[number].elements().next_multiple_of(REDUCTION_BLOCK as u64);
        }
        (starts, next)
    }

    /// Takes every tensor to the goal.
    fn drive(&self, goal: &Goal<'_>) -> Result<()> {
        self.elements_done.store(0, Ordering::Relaxed);
        let queue = Mutex::new(Queue { windows: VecDeque::new(), next_tensor: 0, open: 0, failure: None });
        let changed = Condvar::new();
        on_threads(self.control.threads, || {
            let _alarm = Alarm { queue: &queue, changed: &changed };
            let mut worker = Worker::new(self.sources, self.control.kernels);
            while let Some((tensor, range)) = self.next_window(goal, &queue, &changed) {
                if let Err(error) = self.work(goal, &queue, &changed, &mut worker, tensor, range) {
                    fail(&queue, &changed, error);
                }
            }
        });
        match queue.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The next window to work on; `None` when there is nothing left, or after a failure.
    fn next_window(&self, goal: &Goal<'_>, queue: &Mutex<Queue>, changed: &Condvar) -> Option<(usize, Range)> {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.control.cancel.load(Ordering::Relaxed) {
                queue.failure.get_or_insert_with(|| Error::new("cancelled"));
                changed.notify_all();
            }
            if queue.failure.is_some() {
                return None;
            }
            if let Some(window) = queue.windows.pop_front() {
                return Some(window);
            }
            if queue.next_tensor < self.tensors.len() {
                let tensor = queue.next_tensor;
                queue.next_tensor += 1;
                let windows = self.begin_pass(goal, tensor, None);
                if !windows.is_empty() {
                    queue.open += 1;
                    queue.windows.extend(windows);
                    changed.notify_all();
                }
            } else if queue.open == 0 {
                return None;
            } else {
                queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Starts the pass behind `over`: gives its windows, none where the tensor has reached the goal.
    fn begin_pass(&self, goal: &Goal<'_>, number: usize, over: Option<&Pass>) -> Vec<(usize, Range)> {
        let (tensor, plan) = (&self.tensors[number], &self.plan.tensors[number]);
        let elements = plan.elements();
        let Some(pass) = tensor.next_pass(goal, over).filter(|_| elements > 0) else { return Vec::new() };
        let stages = tensor.stages.read().unwrap_or_else(PoisonError::into_inner);
        // Nothing is gathered for a tensor of which nothing is wanted.
        if matches!(goal, Goal::Write) && over.is_none() && self.windows(number, &Pass::Write, &stages).is_empty() {
            self.elements_done.fetch_add(elements, Ordering::Relaxed);
            return Vec::new();
        }
        let wanted: Vec<_> = match &pass {
            Pass::Sparsifiers(targets) => targets.iter().filter_map(|&(i, j)| stages.chains[i][j].wants()).collect(),
            Pass::Merge => stages.merge.iter().filter_map(|merge| merge.wants()).collect(),
            Pass::Model | Pass::Write => Vec::new(),
        };
        *tensor.stores.lock().unwrap_or_else(PoisonError::into_inner) =
            wanted.into_iter().map(|wanted| Store::new(wanted, elements)).collect();
        let windows = self.windows(number, &pass, &stages);
        tensor.windows_left.store(windows.len(), Ordering::Release);
        *tensor.pass.write().unwrap_or_else(PoisonError::into_inner) = Some(pass);
        windows
    }

    /// The windows of a pass over a tensor; of the last pass those that the sink wants.
    fn windows(&self, number: usize, pass: &Pass, stages: &Stages) -> Vec<(usize, Range)> {
        let (plan, writes) = (&self.plan.tensors[number], *pass == Pass::Write);
        let reach = stages.merge.as_ref().filter(|_| writes).map_or(Reach::Elements, |merge| merge.reach());
        let elements = plan.elements();
        let step = match (&plan.action, reach) {
            (Action::Merge { .. }, Reach::Tensor) => elements.max(1) as usize,
            (Action::Merge { row, inputs, .. }, Reach::Rows) => self.window.next_multiple_of(rows_unit(*row, inputs)),
            _ => self.window,
        };
        let ranges = (0..elements).step_by(step).map(|start| Range { start, count: step.min((elements - start) as usize) });
        ranges.filter(|range| !writes || self.sink.wants(number, range.start, range.count)).map(|range| (number, range)).collect()
    }

    /// Works on one window; the last one of a pass starts the next.
    fn work(
        &self,
        goal: &Goal<'_>,
        queue: &Mutex<Queue>,
        changed: &Condvar,
        worker: &mut Worker<'_>,
        number: usize,
        range: Range,
    ) -> Result<()> {
        let tensor = &self.tensors[number];
        let pass = tensor.pass.read().unwrap_or_else(PoisonError::into_inner).clone().expect("a window belongs to a pass");
        self.pass_over(goal, &pass, worker, number, range)?;
        self.bytes_read.fetch_add(std::mem::take(&mut worker.bytes_read), Ordering::Relaxed);
        if matches!(pass, Pass::Model | Pass::Write) {
            self.elements_done.fetch_add(range.count as u64, Ordering::Relaxed);
        }
        (self.control.progress)(self.progress());
        if tensor.windows_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            tensor.end_pass(&pass);
            if pass == Pass::Write {
                self.sink.finished(number, *tensor.counts.lock().unwrap_or_else(PoisonError::into_inner))?;
            }
            let windows = self.begin_pass(goal, number, Some(&pass));
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            if windows.is_empty() {
                queue.open -= 1;
            }
            windows.into_iter().rev().for_each(|window| queue.windows.push_front(window));
            changed.notify_all();
        }
        Ok(())
    }

    fn pass_over(&self, goal: &Goal<'_>, pass: &Pass, worker: &mut Worker<'_>, number: usize, range: Range) -> Result<()> {
        let (tensor, plan) = (&self.tensors[number], &self.plan.tensors[number]);
        let stages = tensor.stages.read().unwrap_or_else(PoisonError::into_inner);
        match (pass, goal) {
            (Pass::Sparsifiers(targets), _) => worker.gather_for_sparsifiers(plan, &stages, targets, range)?,
            (Pass::Merge, _) => worker.gather_for_merge(plan, &stages, range)?,
            (Pass::Model, Goal::Gather { model_wide, store, starts }) => {
                worker.gather_for_model(plan, &stages, *model_wide, range)?;
                store.lock().unwrap_or_else(PoisonError::into_inner).absorb(starts[number] + range.start, &worker.parts[0]);
            }
            (Pass::Model, Goal::Write) => unreachable!("the model is gathered before anything is written"),
            (Pass::Write, _) => {
                let (bytes, counts) = worker.map(plan, &stages, range, self.control.count_swallowed)?;
                if self.control.deny_nan && counts.non_finite > 0 {
                    return Err(Error::new(format!(
                        "{}: elements of the output are NaN or infinite ({} of those from element {} on)",
                        plan.name, counts.non_finite, range.start
                    ))
                    .help("a source has such elements; without --deny-nan they are written and reported")
                    .permanent());
                }
                self.sink.write(number, range.start * plan.dtype.size() as u64, bytes)?;
                self.bytes_written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                *tensor.counts.lock().unwrap_or_else(PoisonError::into_inner) += counts;
            }
        }
        let mut stores = tensor.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.iter_mut().zip(&worker.parts).for_each(|(store, part)| store.absorb(range.start, part));
        Ok(())
    }

    fn progress(&self) -> Progress {
        Progress {
            elements_done: self.elements_done.load(Ordering::Relaxed),
            elements: self.plan.elements(),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            read: self.read.load(Ordering::Relaxed),
            reads: 1 + self.plan.model_wide.as_ref().map_or(0, |model_wide| model_wide.most_passes()),
        }
    }
}
