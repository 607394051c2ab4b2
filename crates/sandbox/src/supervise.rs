//! The supervisor: a process per run, outside of the confinement. It starts the confined process, keeps the clock, drains its output, and
//! judges. When it ends, or is killed, everything that it started ends with it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe;

use crate::job::{BROKEN, CONFINE, Ending, FAILED, INSIDE, Job, MAX_JOB, PASSED, STARTED, Verdict};

/// How long setting up may take until the program's first line. The program's own clock starts there.
const SET_UP: Duration = Duration::from_secs(20);
/// How long a process that closed its result pipe may take to end by itself, so that its exit status can be told.
const LAST_BREATH: Duration = Duration::from_millis(200);
/// The longest result that is read.
const MAX_RESULT: usize = 4096;

/// Reads a job from standard input, runs it, writes the verdict to standard output.
pub(crate) fn main() -> i32 {
    let verdict = read_job().and_then(|job| run(&job)).unwrap_or_else(|message| Verdict {
        ending: Ending::Broken(message),
        stdout_tail: String::new(),
        stderr_tail: String::new(),
        seconds: 0.0,
    });
    let written = serde_json::to_vec(&verdict).is_ok_and(|text| std::io::stdout().write_all(&text).is_ok());
    i32::from(!written)
}

fn read_job() -> Result<Job, String> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|e| format!("binding it to its parent: {e}"))?;
    let mut text = Vec::new();
    std::io::stdin().take(MAX_JOB as u64).read_to_end(&mut text).map_err(|e| format!("reading the job: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| format!("reading the job: {e}"))
}

fn run(job: &Job) -> Result<Verdict, String> {
    let nonce = nonce().map_err(|e| format!("/dev/urandom: {e}"))?;
    let mut confined = Confined::start(job, &nonce)?;
    let ending = confined.watch(job, nonce.as_bytes());
    let seconds = confined.seconds();
    let ending = confined.finish(job, ending);
    Ok(Verdict { ending, stdout_tail: confined.stdout.text(), stderr_tail: confined.stderr.text(), seconds })
}

/// 32 random hexadecimal digits.
fn nonce() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The last bytes of a stream; those before are discarded.
struct Tail {
    bytes: Vec<u8>,
    most: usize,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let excess = self.bytes.len().saturating_sub(self.most);
        self.bytes.drain(..excess);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// What the watch came to.
enum Watched {
    /// The result is complete, or its pipe was closed.
    Result,
    /// The clock ran out.
    Late,
}

struct Confined {
    child: Child,
    result: Vec<u8>,
    result_pipe: Option<File>,
    stdout_pipe: Option<File>,
    stderr_pipe: Option<File>,
    stdout: Tail,
    stderr: Tail,
    began: Option<Instant>,
}

impl Confined {
    fn start(job: &Job, nonce: &str) -> Result<Self, String> {
        let trouble = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
        // Not closed on exec: the confined process finds them by their numbers. This process has one thread, which starts one process.
        let (nonce_out, nonce_in) = pipe().map_err(|e| trouble("pipe", &e))?;
        let (result_out, result_in) = pipe().map_err(|e| trouble("pipe", &e))?;
        close_on_exec(&nonce_in).and(close_on_exec(&result_out)).map_err(|e| trouble("fcntl", &e))?;
        File::from(nonce_in).write_all(nonce.as_bytes()).map_err(|e| trouble("pipe", &e))?;
        if !job.unsafe_exec {
            #[cfg(target_os = "linux")]
            crate::confine::leave_namespaces()?;
        }
        let launcher = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe().unwrap_or_default() };
        let mut child = Command::new(launcher)
            .arg(CONFINE)
            .args([nonce_out.as_raw_fd().to_string(), result_in.as_raw_fd().to_string()])
            .env_clear()
            .env(INSIDE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| trouble("starting the confined process", &e))?;
        drop((nonce_out, result_in));
        let sent = serde_json::to_vec(job).map_err(|e| trouble("the job", &e))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A process that ended early says why through the result pipe.
            let _ = stdin.write_all(&sent);
        }
        let tail = || Tail { bytes: Vec::new(), most: job.limits.output_bytes };
        Ok(Self {
            result: Vec::new(),
            result_pipe: Some(File::from(result_out)),
            stdout_pipe: child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe))),
            stderr_pipe: child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe))),
            stdout: tail(),
            stderr: tail(),
            child,
            began: None,
        })
    }

    /// Drains the pipes until there is a result or the time is over.
    fn watch(&mut self, job: &Job, nonce: &[u8]) -> Watched {
        let mut deadline = Instant::now() + SET_UP;
        let passed = [STARTED, PASSED, nonce].concat();
        loop {
            if !self.drain(deadline) {
                return Watched::Late;
            }
            if self.began.is_none() && self.result.starts_with(STARTED) {
                let now = Instant::now();
                self.began = Some(now);
                deadline = now + job.limits.wall_time();
            }
            if self.result == passed || self.result_pipe.is_none() {
                return Watched::Result;
            }
        }
    }

    /// Waits until something can be read, and reads it. False where that takes too long.
    fn drain(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let pipes = [&mut self.result_pipe, &mut self.stdout_pipe, &mut self.stderr_pipe];
        let mut watched: Vec<PollFd> =
            pipes.iter().filter_map(|pipe| pipe.as_ref()).map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
        let milliseconds = u16::try_from(left.as_millis().max(1)).unwrap_or(u16::MAX);
        if poll(&mut watched, PollTimeout::from(milliseconds)).is_err() {
            return true;
        }
        let mut ready = watched.iter().map(|pipe| pipe.any().unwrap_or(true)).collect::<Vec<_>>().into_iter();
        let mut buffer = vec![0; 64 << 10];
        for (i, pipe) in pipes.into_iter().enumerate() {
            let Some(file) = pipe.as_mut() else { continue };
            if ready.next() != Some(true) {
                continue;
            }
            match file.read(&mut buffer) {
                Ok(0) | Err(_) => *pipe = None,
                Ok(n) if i == 0 => self.result.extend_from_slice(&buffer[..n]),
                Ok(n) if i == 1 => self.stdout.push(&buffer[..n]),
                Ok(n) => self.stderr.push(&buffer[..n]),
            }
        }
        if self.result.len() > MAX_RESULT {
            self.result_pipe = None;
        }
        true
    }

    /// Seconds since the program's first line.
    fn seconds(&self) -> f64 {
        self.began.map_or(0.0, |began| began.elapsed().as_secs_f64())
    }

    /// Ends whatever still runs, waits until it is gone, and judges.
    fn finish(&mut self, job: &Job, watched: Watched) -> Ending {
        let began = self.began.is_some();
        let mut by_itself = None;
        let answer = self.result.strip_prefix(STARTED);
        let passed = answer.is_some_and(|answer| answer.starts_with(PASSED)) && self.result_pipe.is_some();
        if matches!(watched, Watched::Result) && !passed {
            let until = Instant::now() + LAST_BREATH;
            while by_itself.is_none() && Instant::now() < until {
                by_itself = self.child.try_wait().ok().flatten();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.kill(job);
        // What was written before the end; a pipe that is still open elsewhere is not waited for.
        while (self.stdout_pipe.is_some() || self.stderr_pipe.is_some()) && self.drain(Instant::now() + Duration::from_millis(2)) {
            if self.seconds() > job.limits.wall_time().as_secs_f64() + 1.0 {
                break;
            }
        }
        let answer = self.result.strip_prefix(STARTED);
        match (watched, answer) {
            (Watched::Late, _) if began => Ending::TimedOut,
            (Watched::Late, _) => Ending::Broken(format!("the interpreter did not start within {} s", SET_UP.as_secs())),
            (Watched::Result, Some(_)) if passed => Ending::Passed,
            (Watched::Result, Some(answer)) => Ending::Failed(match answer.strip_prefix(FAILED) {
                Some(message) => String::from_utf8_lossy(message).into_owned(),
                None => how_it_ended(by_itself),
            }),
            (Watched::Result, None) => Ending::Broken(match self.result.strip_prefix(BROKEN) {
                Some(message) => String::from_utf8_lossy(message).into_owned(),
                None => format!("the interpreter did not start: {} {}", how_it_ended(by_itself), self.stderr.text().trim()),
            }),
        }
    }

    /// The confined process is the first one of its process namespace: the kernel ends all others with it, and lets us wait for them.
    fn kill(&mut self, job: &Job) {
        if job.unsafe_exec {
            let group = nix::unistd::Pid::from_raw(self.child.id() as i32);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn close_on_exec(fd: &OwnedFd) -> nix::Result<i32> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
}

fn how_it_ended(status: Option<std::process::ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("the process ended with exit status {code} before the program's end"),
        Some((_, Some(9))) => "the process was killed: out of memory or CPU time".to_owned(),
        Some((_, Some(signal))) => format!("the process was ended by signal {signal}"),
        _ => "the process closed its result pipe before the program's end".to_owned(),
    }
}
