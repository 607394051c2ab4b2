//! What the three processes of a run tell each other, as JSON: the job on the way in, the verdict on the way out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Limits;

/// First argument of the program's own binary when it is to supervise one run.
pub(crate) const SUPERVISE: &str = "--deltaic-sandbox-supervise";
/// First argument of the program's own binary when it is to confine itself and become the interpreter.
pub(crate) const CONFINE: &str = "--deltaic-sandbox-confine";
/// Set in the environment of both, so that a binary that does not know these arguments cannot start sandboxes without end.
pub(crate) const INSIDE: &str = "DELTAIC_SANDBOX_INSIDE";

/// The longest job in bytes; a program that a model wrote is far shorter.
pub(crate) const MAX_JOB: usize = 16 << 20;

/// What the interpreter reports before the program's first line.
pub(crate) const STARTED: &[u8] = b"started\n";
/// Followed by the nonce: the program ran to its end.
pub(crate) const PASSED: &[u8] = b"passed ";
/// Followed by a message: the program raised an exception.
pub(crate) const FAILED: &[u8] = b"failed ";
/// Followed by a message: the sandbox could not be set up.
pub(crate) const BROKEN: &[u8] = b"broken ";

/// One program to be run, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) source: String,
    pub(crate) limits: Limits,
    pub(crate) interpreter: Interpreter,
    /// Limits only, no confinement.
    pub(crate) unsafe_exec: bool,
    /// Without namespaces the scratch folder is one that the caller made.
    pub(crate) scratch: Option<PathBuf>,
}

/// A Python interpreter and the paths that it reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Interpreter {
    /// Major, minor, micro.
    pub(crate) version: [u32; 3],
    /// The executable, without symbolic links.
    pub(crate) executable: PathBuf,
    /// The program's loader, as the executable names it.
    pub(crate) loader: Option<PathBuf>,
    /// Folders of the standard library and of the shared libraries.
    pub(crate) folders: Vec<PathBuf>,
}

/// What the supervisor found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) ending: Ending,
    pub(crate) stdout_tail: String,
    pub(crate) stderr_tail: String,
    pub(crate) seconds: f64,
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ending {
    Passed,
    TimedOut,
    Failed(String),
    /// The program never began: the fault is the sandbox's.
    Broken(String),
}
