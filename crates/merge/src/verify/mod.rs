//! Holds a finished output against itself and against its sources.

mod additions;
mod held;
mod recomputed;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use deltaic_checkpoint::{Checkpoint, DType, Error, Result, TensorSource, Window};
use deltaic_kernels::Kernels;

pub use recomputed::Difference;

use crate::checks::folder::{Expected, Finding, Severity, folder};
use crate::engine::Progress;
use crate::output::MergeOptions;
use crate::plan::{Plan, PlanOptions};
use crate::recipe::{Document, Recorded, UnknownPolicy, parse};
use crate::workers::on_threads;

/// Elements that are read at a time where only values are counted.
const WINDOW: usize = 1 << 17;

/// How much of the weights is computed again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    /// Nothing: the checks alone.
    Checks,
    /// About this share of the elements, within 0 ..= 1, in windows spread evenly from a place that follows from the seed.
    Sample {
        /// The share.
        share: f64,
        /// Where the windows begin.
        seed: u64,
    },
    /// All of them.
    Full,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Verified {
    /// What does not agree, the worst first.
    pub findings: Vec<Finding>,
    /// Elements of the weights.
    pub elements: u64,
    /// Elements that were computed again.
    pub recomputed: u64,
    /// Tensors that are not what they are computed to be.
    pub differences: Vec<Difference>,
}

impl Verified {
    /// Whether nothing is broken or different.
    pub fn is_sound(&self) -> bool {
        self.differences.is_empty() && self.findings.iter().all(|finding| finding.severity != Severity::Broken)
    }
}

/// Runs the checks of a model folder again, counts elements that are NaN or infinite, and computes as much of the weights again from the
/// recorded sources as `extent` says, to compare the bits.
///
/// Whatever `extent` says, config.json, the weights' headers and what `deltaic.yml` and `mergekit_config.yml` say are held against the
/// sources, where these are there and what they were; else a warning says why not.
///
/// # Errors
/// The folder or a source cannot be read; it was cancelled; weights were to be computed again, and `deltaic.yml` cannot be read, or the
/// sources are not there or not what they were. What is wrong with the model is no error, but found.
pub fn verify(
    out: &Path,
    extent: Extent,
    options: &MergeOptions,
    cancel: &AtomicBool,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Verified> {
    let model = Checkpoint::open(out);
    let metadata = model.as_ref().ok().map(TensorSource::metadata);
    let planned = recorded_plan(out).and_then(|(plan, recorded)| {
        held::check_sources(&plan, &recorded, metadata)?;
        Ok((plan, recorded))
    });
    let (planned, not_held) = match planned {
        Ok(planned) => (Some(planned), None),
        Err(error) if extent != Extent::Checks => return Err(error),
        Err(error) => (None, not_held(out, error, metadata.is_some_and(held::is_ours))),
    };
    let mut findings = folder(out, planned.as_ref().map(|(plan, _)| Expected::of(plan)).as_ref())?;
    findings.extend(not_held);
    if let Some((plan, _)) = &planned {
        findings.extend(additions::findings(out, plan)?);
    }
    let Ok(model) = model else {
        // The findings say what is wrong with it.
        return Ok(Verified { findings, elements: 0, recomputed: 0, differences: Vec::new() });
    };
    let elements = model.tensors().values().map(|info| info.elements()).sum();
    findings.extend(non_finite(&model, options, cancel)?);
    let mut verified = Verified { findings, elements, recomputed: 0, differences: Vec::new() };
    if let Some((plan, recorded)) = &planned {
        verified.findings.extend(held::findings(out, &model, plan, recorded)?);
        if extent != Extent::Checks {
            recomputed::compare(&mut verified, &model, plan, extent, options, cancel, progress)?;
        }
    }
    verified.findings.sort_by_key(|finding| finding.severity);
    Ok(verified)
}

/// The name of the file in which an output has its sources.
const RECORD: &str = "deltaic.yml";

/// The plan that `deltaic.yml` describes, and what that records beside it.
fn recorded_plan(out: &Path) -> Result<(Plan, Recorded)> {
    let path = out.join(RECORD);
    if path.symlink_metadata().is_err() {
        return Err(Error::new(format!("{}: not there: which sources and parameters made the model is not known", path.display()))
            .help("only outputs of deltaic are computed again; without --full and --sample the folder alone is checked"));
    }
    let (recipe, _) = parse(Arc::new(Document::read(&path)?), UnknownPolicy::Ignore)?;
    let Some(recorded) = recipe.recorded.clone() else {
        return Err(Error::new(format!("{}: no block `deltaic`, in which the sources are recorded", path.display()))
            .help("only outputs of deltaic are computed again"));
    };
    Ok((Plan::new(recipe, PlanOptions::default())?, recorded))
}

/// The warning that a model was not held against its sources; none for a model that deltaic did not make, of which nothing is known.
fn not_held(out: &Path, error: Error, is_ours: bool) -> Option<Finding> {
    if !is_ours && out.join(RECORD).symlink_metadata().is_err() {
        return None;
    }
    let message = format!("not held against its sources because {}", error.message());
    Some(Finding { severity: Severity::Warning, error: error.with_message(message) })
}

/// A warning for every tensor with elements that are NaN or infinite.
pub(crate) fn non_finite(model: &Checkpoint, options: &MergeOptions, cancel: &AtomicBool) -> Result<Vec<Finding>> {
    let tensors: Vec<_> = model.tensors().values().filter(|info| info.dtype.is_float()).collect();
    let (kernels, next) = (options.kernels()?, AtomicUsize::new(0));
    let found: Mutex<Vec<(usize, u64)>> = Mutex::default();
    let failure: Mutex<Option<Error>> = Mutex::default();
    let fail = |error| {
        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    on_threads(options.threads, || {
        while let Some((number, info)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, tensors.get(i)?))) {
            match count_non_finite(model, &info.name, info.elements(), kernels, cancel) {
                Ok(0) => {}
                Ok(count) => found.lock().unwrap_or_else(PoisonError::into_inner).push((number, count)),
                Err(error) => return fail(error),
            }
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable();
    let finding = |(number, count): (usize, u64)| Finding {
        severity: Severity::Warning,
        error: Error::new(format!("{}: {count} elements are NaN or infinite", tensors[number].name))
            .help("a source has such elements, or a sum left the dtype's range: merge again with --deny-nan to see where it begins"),
    };
    Ok(found.into_iter().map(finding).collect())
}

fn count_non_finite(model: &Checkpoint, name: &str, elements: u64, kernels: Kernels, cancel: &AtomicBool) -> Result<u64> {
    let (mut window, mut values, mut count) = (Window { dtype: DType::F32, bytes: Vec::new() }, Vec::new(), 0);
    for start in (0..elements).step_by(WINDOW) {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::new("cancelled"));
        }
        let length = WINDOW.min((elements - start) as usize);
        model.read(name, start, length, &mut window)?;
        let Some(format) = window.dtype.float_format() else { return Ok(0) };
        values.resize(length, 0.0);
        kernels.widen(format, &window.bytes, &mut values);
        count += kernels.count_non_finite(&values);
    }
    Ok(count)
}
