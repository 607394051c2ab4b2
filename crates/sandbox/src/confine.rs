//! The confined process: takes everything away from itself, then becomes the interpreter. All of it goes through safe calls, since nothing
//! runs between fork and exec; the order matters and is explained at each step.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::job::{BROKEN, Job, MAX_JOB};

const BOOTSTRAP: &str = include_str!("bootstrap.py");

/// Confines this process as the job on standard input says, and executes the interpreter. Comes back only where that fails.
pub(crate) fn main(mut arguments: impl Iterator<Item = String>) -> i32 {
    let mut number = || arguments.next()?.parse::<i32>().ok();
    let (Some(nonce), Some(result)) = (number(), number()) else { return 2 };
    let pipes = Pipes::open(nonce, result);
    let Ok(pipes) = pipes else { return 3 };
    let message = match read_job().and_then(|job| become_interpreter(&job, &pipes)) {
        Ok(never) => match never {},
        Err(message) => message,
    };
    let mut report = BROKEN.to_vec();
    report.extend(message.bytes().take(3000));
    let _ = (&pipes.result).write_all(&report);
    1
}

fn read_job() -> Result<Job, String> {
    let mut text = Vec::new();
    std::io::stdin().take(MAX_JOB as u64 + (1 << 16)).read_to_end(&mut text).map_err(|e| format!("reading the job: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| format!("reading the job: {e}"))
}

/// The two pipes to the supervisor, opened anew, so that the numbers in this process's arguments mean nothing any more.
struct Pipes {
    nonce: File,
    result: File,
}

impl Pipes {
    fn open(nonce: i32, result: i32) -> std::io::Result<Self> {
        let pipes = Self {
            nonce: File::open(format!("/dev/fd/{nonce}"))?,
            result: OpenOptions::new().write(true).open(format!("/dev/fd/{result}"))?,
        };
        nix::unistd::close(nonce)?;
        nix::unistd::close(result)?;
        Ok(pipes)
    }

    /// The pipe as the interpreter inherits it, at the first free number from `from`.
    fn inherited(pipe: &File, from: u64) -> Result<String, String> {
        let number = fcntl(pipe.as_fd(), FcntlArg::F_DUPFD(from as i32)).map_err(|e| format!("fcntl(F_DUPFD): {e}"))?;
        Ok(number.to_string())
    }
}

/// Where things lie inside.
struct Inside {
    program: PathBuf,
    scratch: PathBuf,
}

fn become_interpreter(job: &Job, pipes: &Pipes) -> Result<std::convert::Infallible, String> {
    let random = random()?;
    // Numbers that a program does not know: all below the limit on open files.
    let files = job.limits.open_files;
    let nonce = Pipes::inherited(&pipes.nonce, 32 + random[0] % (files - 40))?;
    let result = Pipes::inherited(&pipes.result, 32 + random[1] % (files - 40))?;
    let inside = if job.unsafe_exec { unconfined(job)? } else { confined(job, random[2])? };
    let mut python = Command::new(&job.interpreter.executable);
    // Like -I, but for PYTHONHASHSEED: sets iterate in the same order in every run. The program's folder is not imported from.
    python.args(["-S", "-s", "-B", "-c", BOOTSTRAP]).arg(&inside.program).args([&result, &nonce]);
    python.env_clear().env("PYTHONHASHSEED", "0").env("PYTHONUTF8", "1").env("LANG", "C.UTF-8");
    python.env("HOME", &inside.scratch).env("TMPDIR", &inside.scratch).env("OMP_NUM_THREADS", "1");
    std::env::set_current_dir(&inside.scratch).map_err(|e| format!("entering the scratch folder: {e}"))?;
    set_limits(job)?;
    #[cfg(target_os = "linux")]
    if !job.unsafe_exec {
        // The last step: afterwards little more than exec is possible.
        crate::syscalls::filter()?;
    }
    let error = python.exec();
    Err(format!("{}: {error}", job.interpreter.executable.display()))
}

fn random() -> Result<[u64; 3], String> {
    let mut bytes = [0; 24];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(|e| format!("/dev/urandom: {e}"))?;
    Ok(std::array::from_fn(|i| bytes[8 * i..8 * i + 8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))))
}

/// No confinement: a process group of its own, in a folder that the caller made and removes.
fn unconfined(job: &Job) -> Result<Inside, String> {
    let scratch = job.scratch.clone().ok_or("there is no scratch folder")?;
    nix::unistd::setsid().map_err(|e| format!("setsid: {e}"))?;
    let program = scratch.join("program.py");
    std::fs::write(&program, &job.source).map_err(|e| format!("{}: {e}", program.display()))?;
    Ok(Inside { program, scratch })
}

#[cfg(not(target_os = "linux"))]
fn confined(_job: &Job, _random: u64) -> Result<Inside, String> {
    Err("programs are confined on Linux only".to_owned())
}

#[cfg(target_os = "linux")]
use linux::confined;
#[cfg(target_os = "linux")]
pub(crate) use linux::leave_namespaces;

/// Kernel features that only Linux has.
#[cfg(target_os = "linux")]
mod linux {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::signal::Signal;
    use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

    use super::{AsFd, Inside, Job, Path, PathBuf};
    use crate::root_folder;

    /// The program's user and group inside: nobody.
    const NOBODY: u32 = 65534;

    /// Leaves the namespaces of processes, network, IPC, names and control groups; the process namespace is the next child's, of which it is
    /// the first process. A plain user needs a namespace of users for that.
    ///
    /// # Errors
    /// The kernel, or what contains this machine, does not allow it.
    pub(crate) fn leave_namespaces() -> Result<(), String> {
        let mut flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        if geteuid().is_root() {
            return unshare(flags).map_err(|e| missing("namespaces for processes, network and IPC", "CAP_SYS_ADMIN", e));
        }
        flags |= CloneFlags::CLONE_NEWUSER;
        let (user, group) = (geteuid(), getegid());
        unshare(flags).map_err(|e| missing("namespaces for users, processes, network and IPC", "user.max_user_namespaces > 0", e))?;
        map_user(0, user.as_raw(), 0, group.as_raw())
    }

    fn missing(what: &str, needs: &str, error: nix::Error) -> String {
        format!("the kernel does not give {what} ({error}); this needs {needs}, and a container that allows unshare")
    }

    fn map_user(inside: u32, outside: u32, group_inside: u32, group_outside: u32) -> Result<(), String> {
        let write = |file: &str, text: String| std::fs::write(file, text).map_err(|e| format!("{file}: {e}"));
        write("/proc/self/setgroups", "deny".to_owned())?;
        write("/proc/self/uid_map", format!("{inside} {outside} 1"))?;
        write("/proc/self/gid_map", format!("{group_inside} {group_outside} 1"))
    }

    pub(super) fn confined(job: &Job, random: u64) -> Result<Inside, String> {
        // If memory runs out, the kernel takes this process first. Not everywhere can it be written; the limit on memory remains.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        let root = geteuid().is_root() && is_initial_root();
        if root {
            unshare(CloneFlags::CLONE_NEWNS).map_err(|e| missing("a namespace for mounts", "CAP_SYS_ADMIN", e))?;
        } else {
            // Root of the supervisor's namespace so far: one more namespace gives this process a name without any rights after exec.
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
                .map_err(|e| missing("a namespace for mounts", "user.max_user_namespaces > 1", e))?;
            map_user(NOBODY, 0, NOBODY, 0)?;
        }
        let readable = root_folder::enter(&job.interpreter, &job.source, job.limits.scratch_bytes)?;
        if root {
            become_nobody(random)?;
        }
        // Bound to the supervisor's life. A change of user clears it, so it comes after; the supervisor may have died before.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("prctl(PR_SET_PDEATHSIG): {e}"))?;
        let stdout = std::io::stdout();
        let mut reader = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        if poll(&mut reader, PollTimeout::ZERO).is_ok_and(|n| n > 0) {
            return Err("the supervisor is gone".to_owned());
        }
        nix::sys::prctl::set_no_new_privs().map_err(|e| format!("prctl(PR_SET_NO_NEW_PRIVS): {e}"))?;
        restrict_paths(&readable)?;
        Ok(Inside { program: root_folder::PROGRAM.into(), scratch: root_folder::SCRATCH.into() })
    }

    /// Whether user 0 here is the machine's (or the container's) root rather than the one that `leave_namespaces` mapped: that map is of one user.
    fn is_initial_root() -> bool {
        std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().nth(2) != Some("1"))
    }

    /// From root to a user of this run only, which owns no file: so that limits bind (`RLIMIT_NPROC` does not bind root) and count this run's
    /// processes alone. All capabilities go with it.
    fn become_nobody(random: u64) -> Result<(), String> {
        setgroups(&[]).map_err(|e| format!("setgroups: {e}"))?;
        let become_id = |id: u32| {
            setresgid(Gid::from_raw(id), Gid::from_raw(id), Gid::from_raw(id))?;
            setresuid(Uid::from_raw(id), Uid::from_raw(id), Uid::from_raw(id))
        };
        // A container may have 65,536 users only.
        let own = 0x7000_0000 | (random as u32 & 0x00ff_ffff);
        become_id(own).or_else(|_| become_id(NOBODY)).map_err(|e| format!("giving up root: {e}"))
    }

    /// Landlock, where the kernel has it, as a second wall behind the mounts: reading below `readable`, writing in the scratch folder, no TCP,
    /// no abstract Unix sockets or signals out of here.
    fn restrict_paths(readable: &[PathBuf]) -> Result<(), String> {
        use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope, path_beneath_rules};
        let abi = ABI::V6;
        let written = [root_folder::SCRATCH, root_folder::SEMAPHORES, "/dev/null"].map(Path::new);
        let restrict = || {
            Ruleset::default()
                .handle_access(AccessFs::from_all(abi))?
                .handle_access(AccessNet::from_all(abi))?
                .scope(Scope::from_all(abi))?
                .create()?
                .add_rules(path_beneath_rules(readable, AccessFs::from_read(abi)))?
                .add_rules(path_beneath_rules(written, AccessFs::from_all(abi)))?
                .restrict_self()
        };
        restrict().map(drop).map_err(|e: landlock::RulesetError| format!("Landlock: {e}"))
    }
}

fn set_limits(job: &Job) -> Result<(), String> {
    let limits = &job.limits;
    let seconds = limits.wall_time().as_secs() + 2;
    let mut all = vec![
        (Resource::RLIMIT_CPU, "CPU", seconds),
        (Resource::RLIMIT_FSIZE, "FSIZE", limits.file_bytes),
        (Resource::RLIMIT_NOFILE, "NOFILE", limits.open_files),
        (Resource::RLIMIT_CORE, "CORE", 0),
        (Resource::RLIMIT_AS, "AS", limits.memory_bytes),
    ];
    // In a user's own session this would count the user's other processes.
    if !job.unsafe_exec {
        all.push((Resource::RLIMIT_NPROC, "NPROC", limits.processes));
        #[cfg(target_os = "linux")]
        all.extend([(Resource::RLIMIT_MSGQUEUE, "MSGQUEUE", 0), (Resource::RLIMIT_MEMLOCK, "MEMLOCK", 0)]);
    }
    for (resource, name, limit) in all {
        let (_, hard) = getrlimit(resource).map_err(|e| format!("getrlimit(RLIMIT_{name}): {e}"))?;
        let limit = limit.min(hard);
        // macOS refuses a limit on addresses.
        if let Err(e) = setrlimit(resource, limit, limit)
            && !(job.unsafe_exec && name == "AS")
        {
            return Err(format!("setrlimit(RLIMIT_{name}): {e}"));
        }
    }
    Ok(())
}
