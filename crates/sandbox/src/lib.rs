//! Runs Python programs that a model wrote, each in a sandbox of its own process, and says whether a program ran to its end.
//!
//! # What a program can do
//! Compute, with the standard library of one Python interpreter; read that library; write files in an empty scratch folder in memory; start
//! threads and processes, as many as [`Limits::processes`]. It cannot reach the network or other processes, read other files or what other runs wrote,
//! write anywhere else, gain rights, or outlive its run. Its time, memory, processes, open files, files and output are limited by [`Limits`].
//!
//! # How
//! For each run the caller's own binary is executed twice, with a hidden first argument that [`run_if_inside`] recognises, so that nothing but
//! safe calls is needed:
//!
//! ```text
//! caller, a thread per worker     job as JSON on stdin, verdict as JSON on stdout
//!   supervisor                    new namespaces of processes, network, IPC, names; keeps the clock; drains the output; judges
//!     confined                    first of its process namespace: new mounts and root, no rights, limits, Landlock, seccomp; then exec:
//!     python3                     the bootstrap, which runs the program
//! ```
//!
//! The supervisor is killed when its caller ends, the confined process when its supervisor ends, and all processes of its namespace with it. As
//! root, the program runs as a user of its own (a random number that owns no file), because `RLIMIT_NPROC` does not bind root; as a plain user, in a
//! namespace of users, where it has no rights either. What the kernel has to offer is tried once, in [`Sandbox::new`]; where it is not enough, that is an error.
//!
//! # Who judges
//! A program passed if it ran to its end: `exit(0)`, `os._exit(0)` or `SystemExit` in its middle is a failure. What proves the end is a nonce
//! of the supervisor. It stays unread in a pipe while the program runs; the bootstrap reads it after the program's last statement and sends it back. It is in no
//! source, argument, environment or frame; the pipes' numbers are random.
//!
//! What remains: program and bootstrap share a process, so a program written against *this* crate can try every file number, read the nonce,
//! and send it, or find what is called at the end among the objects that Python's garbage collector lists. A model that writes that instead of a solution is not caught. A kernel with a hole that the allowed system calls reach is none either: the
//! programs expected here are careless, not attacks on kernels; for those, use a virtual machine. Memory is limited per process, so a run may
//! take [`Limits::processes`] times [`Limits::memory_bytes`].

#[cfg(unix)]
mod confine;
mod interpreter;
mod job;
mod launch;
#[cfg(target_os = "linux")]
mod root_folder;
#[cfg(unix)]
mod supervise;
#[cfg(target_os = "linux")]
mod syscalls;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deltaic_checkpoint::{Error, Result};
use serde::{Deserialize, Serialize};

use job::{Ending, Interpreter, Job, Verdict};

/// What one run may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time in seconds, from the program's first line; then it is killed with all that it started. 3 as in OpenAI's human-eval.
    pub seconds: f64,
    /// Address space of each process in bytes.
    pub memory_bytes: u64,
    /// Processes and threads at the same time.
    pub processes: u64,
    /// Open files of each process, at least 64.
    pub open_files: u64,
    /// The longest file in bytes.
    pub file_bytes: u64,
    /// The scratch folder's size in bytes.
    pub scratch_bytes: u64,
    /// How much of standard output, and of standard error, is kept: the last bytes.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            seconds: 3.0,
            memory_bytes: 1 << 30,
            processes: 16,
            open_files: 256,
            file_bytes: 16 << 20,
            scratch_bytes: 32 << 20,
            output_bytes: 4 << 10,
        }
    }
}

/// The longest time that a run may be given, in seconds.
pub const MAX_SECONDS: f64 = 3600.0;

impl Limits {
    pub(crate) fn wall_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: &str, found: &dyn std::fmt::Display, expected: &str| {
            Err(Error::new(format!("limits of model-written programs: {what} is {found}: expected {expected}")))
        };
        if !(self.seconds > 0.0 && self.seconds <= MAX_SECONDS) {
            return wrong("the time", &format!("{} s", self.seconds), &format!("more than 0 and at most {MAX_SECONDS} s"));
        }
        if self.memory_bytes < 64 << 20 {
            return wrong("the memory", &self.memory_bytes, "at least 67108864 bytes (64 MiB)");
        }
        if self.processes < 1 {
            return wrong("the number of processes", &self.processes, "at least 1");
        }
        if !(64..=4096).contains(&self.open_files) {
            return wrong("the number of open files", &self.open_files, "64 to 4096");
        }
        if self.scratch_bytes < 4096 || self.output_bytes > 1 << 20 {
            return wrong("the scratch folder or kept output", &self.scratch_bytes, "at least 4096 bytes, and at most 1 MiB of output");
        }
        Ok(())
    }
}

/// A program to be run: the model's code with its tests behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Python source. It is executed as OpenAI's human-eval does, with empty globals: `__name__` is not `"__main__"`.
    pub source: String,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It ran to its end without an exception.
    Passed,
    /// The time was over, and it was killed.
    TimedOut,
    /// An exception (`SystemExit` is one, too), or the process ended before the program did; the message says which.
    Failed(String),
}

impl std::fmt::Display for Status {
    /// As OpenAI's human-eval writes it: `passed`, `timed out`, `failed: message`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Failed(message) => write!(f, "failed: {message}"),
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How the program ended.
    pub status: Status,
    /// The end of its standard output, at most [`Limits::output_bytes`].
    pub stdout_tail: String,
    /// The end of its standard error, at most [`Limits::output_bytes`].
    pub stderr_tail: String,
    /// Seconds of wall time from its first line on.
    pub seconds: f64,
}

/// What a sandbox is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What one run may use.
    pub limits: Limits,
    /// The Python interpreter: a path, or a name to be found on PATH. Programs see its standard library only, no installed packages.
    pub python: PathBuf,
    /// The binary that is executed again; its `main` begins with [`run_if_inside`]. The running one where this is `None`.
    pub launcher: Option<PathBuf>,
    /// What happens where programs cannot be confined.
    pub confinement: Confinement,
}

/// Whether programs are confined. Unconfined they have limits of time, memory and files only, and can do whatever this user can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Confinement {
    /// They are; where the kernel gives no sandbox, [`Sandbox::new`] is an error.
    #[default]
    Required,
    /// They are, unless the kernel gives no sandbox ([`Sandbox::unconfined_because`]).
    WherePossible,
    /// They are not.
    None,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limits: Limits::default(), python: "python3".into(), launcher: None, confinement: Confinement::Required }
    }
}

/// A tried sandbox; programs are run in it, each on its own, from any thread.
#[derive(Debug, Clone)]
pub struct Sandbox {
    limits: Limits,
    interpreter: Interpreter,
    launcher: PathBuf,
    /// Why programs are not confined; none where they are.
    unconfined: Option<String>,
}

impl Sandbox {
    /// Finds the interpreter, and runs a program to see that the kernel gives what is needed.
    ///
    /// # Errors
    /// A limit is out of range; there is no interpreter; the launcher does not call [`run_if_inside`]; the kernel, or a container around, gives
    /// no namespaces, no mounts or no filter of system calls, and [`Settings::confinement`] asks for it.
    pub fn new(settings: Settings) -> Result<Self> {
        settings.limits.check()?;
        launch::check_outside()?;
        let launcher = match settings.launcher {
            Some(launcher) => launcher,
            None => std::env::current_exe().map_err(|e| Error::new(format!("the running program's own path: {e}")))?,
        };
        let interpreter = interpreter::find(&settings.python)?;
        let unconfined = (settings.confinement == Confinement::None).then(|| "it was not asked for".to_owned());
        let mut sandbox = Self { limits: settings.limits, interpreter, launcher, unconfined };
        let first = Program { source: "import json, math, re, typing\n".to_owned() };
        let cancel = AtomicBool::new(false);
        let mut verdict = sandbox.verdict(&first, &cancel)?;
        if let (Confinement::WherePossible, Ending::Broken(why)) = (settings.confinement, &verdict.ending) {
            sandbox.unconfined = Some(why.clone());
            verdict = sandbox.verdict(&first, &cancel)?;
        }
        match outcome(verdict)?.status {
            Status::Passed => Ok(sandbox),
            other => Err(Error::new(format!("{}: a program of one line does not run in the sandbox: {other}", settings.python.display()))),
        }
    }

    /// What one run may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The interpreter's version: major, minor, micro.
    pub fn python_version(&self) -> [u32; 3] {
        self.interpreter.version
    }

    /// Why programs are not confined; none where they are.
    pub fn unconfined_because(&self) -> Option<&str> {
        self.unconfined.as_deref()
    }

    /// Runs one program and waits for its end.
    ///
    /// # Errors
    /// The sandbox could not be set up. What the program does is never an error but an [`Outcome`].
    pub fn run(&self, program: &Program) -> Result<Outcome> {
        self.run_unless(program, &AtomicBool::new(false))
    }

    fn run_unless(&self, program: &Program, cancel: &AtomicBool) -> Result<Outcome> {
        self.verdict(program, cancel).and_then(outcome)
    }

    fn verdict(&self, program: &Program, cancel: &AtomicBool) -> Result<Verdict> {
        let mut job = Job {
            source: program.source.clone(),
            limits: self.limits.clone(),
            interpreter: self.interpreter.clone(),
            unsafe_exec: self.unconfined.is_some(),
            scratch: None,
        };
        launch::run(&self.launcher, &mut job, cancel)
    }

    /// Runs all programs, `workers` at a time, and gives their outcomes in the programs' order. `done` hears of each when it ends, in any order.
    /// Setting `cancel` kills what runs.
    ///
    /// # Errors
    /// The first of [`Sandbox::run`], or that it was cancelled; what still runs then is killed.
    pub fn run_all(
        &self,
        programs: &[Program],
        workers: usize,
        cancel: &AtomicBool,
        done: &(dyn Fn(usize, &Outcome) + Sync),
    ) -> Result<Vec<Outcome>> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let outcomes: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; programs.len()]);
        let failure = Mutex::new(None);
        let lock_poisoned = "no thread panics while it holds this";
        let work = || {
            while !stop.load(Ordering::Relaxed) && !cancel.load(Ordering::Relaxed) {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(program) = programs.get(i) else { return };
                match self.run_unless(program, cancel) {
                    Ok(outcome) => {
                        done(i, &outcome);
                        outcomes.lock().expect(lock_poisoned)[i] = Some(outcome);
                    }
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        failure.lock().expect(lock_poisoned).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..workers.clamp(1, programs.len().max(1)) {
                scope.spawn(work);
            }
        });
        if let Some(error) = failure.into_inner().expect(lock_poisoned) {
            return Err(error);
        }
        let outcomes = outcomes.into_inner().expect(lock_poisoned);
        outcomes.into_iter().collect::<Option<_>>().ok_or_else(launch::cancelled)
    }
}

fn outcome(verdict: Verdict) -> Result<Outcome> {
    let status = match verdict.ending {
        Ending::Passed => Status::Passed,
        Ending::TimedOut => Status::TimedOut,
        Ending::Failed(message) => Status::Failed(message),
        Ending::Broken(message) => {
            let help = "model-written programs are run in a sandbox only; --unsafe-exec runs them without one where the kernel gives none, \
                with all that you may do yourself";
            return Err(Error::new(format!("the sandbox for model-written programs: {message}")).help(help));
        }
    };
    Ok(Outcome { status, stdout_tail: verdict.stdout_tail, stderr_tail: verdict.stderr_tail, seconds: verdict.seconds })
}

/// To be called first in `main`, before any thread is started: where this process was started by a [`Sandbox`], it does its part and exits.
/// Otherwise it returns at once.
pub fn run_if_inside() {
    #[cfg(unix)]
    {
        let mut arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
        if std::env::var_os(job::INSIDE).is_none() {
            return;
        }
        match arguments.next().as_deref() {
            Some(job::SUPERVISE) => std::process::exit(supervise::main()),
            Some(job::CONFINE) => std::process::exit(confine::main(arguments)),
            _ => {}
        }
    }
}
