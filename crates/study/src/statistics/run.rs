//! Going over the examples, as often as it takes, so that it can be stopped and gone on with.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deltaic_checkpoint::{Error, Result};

use super::slots::{PassSlots, SlotSpec};

/// How statistics are made. Nothing of it changes a byte of them.
pub struct StatisticsOptions<'a> {
    /// Whether a file that is there is replaced.
    pub force: bool,
    /// Most bytes that sums of Gram matrices take at a time; where they are more, the examples are gone over again. At least one matrix is
    /// made at a time.
    pub memory: u64,
    /// How long the work goes on before it is noted down beside the output.
    pub checkpoint: Duration,
    /// Once true, the work is noted down and ends with an error.
    pub cancel: &'a AtomicBool,
    /// Is told how far the work has come.
    pub progress: &'a dyn Fn(StatisticsProgress),
}

impl<'a> StatisticsOptions<'a> {
    /// Bytes of sums where nothing else is said: 4 GiB.
    pub const DEFAULT_MEMORY: u64 = 4 << 30;

    /// [`Self::DEFAULT_MEMORY`], a note every 30 seconds, nothing replaced, nothing told.
    pub fn new(cancel: &'a AtomicBool) -> Self {
        Self { force: false, memory: Self::DEFAULT_MEMORY, checkpoint: Duration::from_secs(30), cancel, progress: &|_| {} }
    }
}

/// How far the work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatisticsProgress {
    /// Examples done, over all passes.
    pub done: usize,
    /// Of how many.
    pub total: usize,
}

/// What is gathered, step by step.
pub(crate) trait Work {
    /// What is gathered.
    fn specs(&self) -> &[SlotSpec];

    /// Steps of a pass over the examples.
    fn steps(&self) -> usize;

    /// How many examples are done after a step.
    fn examples_after(&self, step: usize) -> usize;

    /// Adds what a step gives to those slots that the pass has.
    fn step(&mut self, step: usize, slots: &mut PassSlots) -> Result<()>;
}

/// Where work that was noted down goes on: before a step of a pass, with the sums as they were.
pub(crate) struct Resumed {
    pub pass: usize,
    pub step: usize,
    pub slots: Option<PassSlots>,
}

/// Where statistics go.
pub(crate) trait Store {
    /// Takes up what an earlier run has noted down.
    fn resume(&mut self, specs: &[SlotSpec], passes: &[Range<usize>]) -> Result<Resumed>;

    /// Notes down that all before a step of a pass is done.
    fn note(&mut self, pass: usize, step: usize, slots: Option<&PassSlots>) -> Result<()>;

    /// Takes a finished tensor, which has one or several names: little-endian f32.
    fn finish(&mut self, names: &[String], bytes: Vec<u8>) -> Result<()>;
}

/// Does the work, pass by pass.
pub(crate) fn gather(work: &mut dyn Work, passes: &[Range<usize>], store: &mut dyn Store, options: &StatisticsOptions<'_>) -> Result<()> {
    let (steps, mut resumed) = (work.steps(), store.resume(work.specs(), passes)?);
    let examples = steps.checked_sub(1).map_or(0, |last| work.examples_after(last));
    let told = |done| (options.progress)(StatisticsProgress { done, total: examples * passes.len() });
    let mut noted = Noted { last: Instant::now(), took: Duration::ZERO };
    for (pass, range) in passes.iter().enumerate().skip(resumed.pass) {
        let first = std::mem::take(&mut resumed.step);
        let mut slots = match resumed.slots.take() {
            Some(slots) => slots,
            None => PassSlots::zeros(work.specs(), range.clone())?,
        };
        for step in first..steps {
            if options.cancel.load(Ordering::Relaxed) {
                store.note(pass, step, Some(&slots))?;
                return Err(Error::new("cancelled").help("the same command goes on where it stopped"));
            }
            if noted.is_due(options.checkpoint) {
                noted.by(|| store.note(pass, step, Some(&slots)))?;
            }
            work.step(step, &mut slots)?;
            told(pass * examples + work.examples_after(step));
        }
        for (spec, slot) in work.specs()[range.clone()].iter().zip(&slots.slots) {
            let Some(first) = spec.names.first() else { continue };
            store.finish(&spec.names, slot.mean(first)?)?;
        }
        store.note(pass + 1, 0, None)?;
    }
    Ok(())
}

/// When the work was noted down last, and how long it took.
struct Noted {
    last: Instant,
    took: Duration,
}

impl Noted {
    /// Whether it is time again: a disk that takes long gets less to do.
    fn is_due(&self, every: Duration) -> bool {
        self.last.elapsed() >= every.max(self.took * 10)
    }

    fn by(&mut self, note: impl FnOnce() -> Result<()>) -> Result<()> {
        let started = Instant::now();
        note()?;
        (self.last, self.took) = (Instant::now(), started.elapsed());
        Ok(())
    }
}
