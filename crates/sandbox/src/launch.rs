//! The caller's side of a run: starts the supervisor, hands it the job, reads its verdict.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use deltaic_checkpoint::{Error, Result};

use crate::job::{Ending, INSIDE, Job, MAX_JOB, SUPERVISE, Verdict};

/// The supervisor keeps the time itself; a supervisor that is this late is killed.
const GRACE: Duration = Duration::from_secs(40);
/// How often the cancel flag is looked at.
const TICK: Duration = Duration::from_millis(50);
/// The longest verdict: two tails of 1 MiB, where JSON writes up to 6 bytes for one.
const MAX_VERDICT: u64 = 16 << 20;

/// The error of a run that was cancelled.
pub(crate) fn cancelled() -> Error {
    Error::new("running model-written programs was cancelled")
}

/// # Errors
/// This process is itself one that a sandbox started, with a binary that does not begin with `run_if_inside`.
pub(crate) fn check_outside() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Err(Error::new(format!("{INSIDE} is set: a sandbox starts no sandboxes")));
    }
    Ok(())
}

/// Runs a job under its own supervisor. Without confinement the scratch folder is made and removed here.
pub(crate) fn run(launcher: &Path, job: &mut Job, cancel: &AtomicBool) -> Result<Verdict> {
    let scratch = job.unsafe_exec.then(Scratch::new).transpose()?;
    job.scratch = scratch.as_ref().map(|scratch| scratch.0.clone());
    let text = serde_json::to_vec(job).map_err(|e| Error::new(format!("a program for the sandbox: {e}")))?;
    if text.len() >= MAX_JOB {
        // A model that wrote it has failed at this program; the others are run.
        let ending = Ending::Failed(format!("the program is too long to be run: {} bytes", job.source.len()));
        return Ok(Verdict { ending, stdout_tail: String::new(), stderr_tail: String::new(), seconds: 0.0 });
    }
    let trouble = |what: &str, e: std::io::Error| Error::new(format!("{}: {what} a sandbox: {e}", launcher.display()));
    let child = Command::new(launcher)
        .arg(SUPERVISE)
        .env_clear()
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| trouble("starting", e))?;
    let mut supervisor = Supervisor(child);
    if let Some(mut stdin) = supervisor.0.stdin.take() {
        // A launcher that does not read it gives no verdict either, which is told below.
        let _ = stdin.write_all(&text);
    }
    let deadline = Instant::now() + job.limits.wall_time() + GRACE;
    let answer = supervisor.answer(cancel, deadline)?;
    serde_json::from_slice(&answer).map_err(|_| {
        let help = "the program that starts sandboxes calls deltaic_sandbox::run_if_inside() first in its main";
        Error::new(format!("{}: the sandbox's supervisor gave no verdict", launcher.display())).help(help)
    })
}

/// Killed, and waited for, when this is dropped.
struct Supervisor(Child);

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Supervisor {
    fn answer(&mut self, cancel: &AtomicBool, deadline: Instant) -> Result<Vec<u8>> {
        let Some(stdout) = self.0.stdout.take() else { return Ok(Vec::new()) };
        let (send, receive) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut text = Vec::new();
                let _ = stdout.take(MAX_VERDICT).read_to_end(&mut text);
                let _ = send.send(text);
            });
            loop {
                match receive.recv_timeout(TICK) {
                    Ok(text) => return Ok(text),
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(Vec::new()),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                }
                let reason = if cancel.load(Ordering::Relaxed) {
                    cancelled()
                } else if Instant::now() > deadline {
                    Error::new("the sandbox's supervisor did not answer in time")
                } else {
                    continue;
                };
                // Its end closes the pipe, and with it ends the reading thread.
                let _ = self.0.kill();
                return Err(reason);
            }
        })
    }
}

/// A folder for one unconfined run, removed when this is dropped.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let parent = std::env::temp_dir();
        for _ in 0..100 {
            let mut bytes = [0; 8];
            std::fs::File::open("/dev/urandom")
                .and_then(|mut file| file.read_exact(&mut bytes))
                .map_err(|e| Error::new(format!("/dev/urandom: {e}")))?;
            let path = parent.join(format!("deltaic-{:016x}", u64::from_le_bytes(bytes)));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::new(format!("{}: making a scratch folder: {e}", path.display()))),
            }
        }
        Err(Error::new(format!("{}: no scratch folder could be made", parent.display())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
