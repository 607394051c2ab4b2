//! What a hostile program finds around itself, and what is asserted about it from outside.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One program at a time: what is left over must be its own.
static ONE: Mutex<()> = Mutex::new(());

const SECRET: &str = "deltaic_secret";
const TIMEOUT: f64 = 3.0;
/// The default of `Limits::processes`.
const MOST_THREADS: usize = 16;
/// The default of `Limits::memory_bytes`.
const MOST_MEMORY: u64 = 1 << 30;

/// Who starts the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests.
    Own,
    /// User 65534, as root can become.
    Nobody,
}

impl User {
    /// Whether sandboxes can be started as this user here.
    pub fn is_possible(self) -> bool {
        let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        self == Self::Own || root && self.command(Path::new("/usr/bin/python3")).arg("-V").output().is_ok_and(|out| out.status.success())
    }

    fn command(self, program: &Path) -> Command {
        match self {
            Self::Own => Command::new(program),
            Self::Nobody => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(program).env("PATH", "/usr/bin:/bin");
                command
            }
        }
    }
}

/// Runs a test in a scene of each user; says which are skipped.
pub fn each_user(test: &str, body: impl Fn(&mut Scene)) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for user in [User::Own, User::Nobody] {
        if user.is_possible() {
            body(&mut Scene::new(user));
        } else {
            println!("skipped: {test} as {user:?}: needs root, setpriv and /usr/bin/python3");
        }
    }
}

pub struct Scene {
    pub user: User,
    folder: tempfile::TempDir,
    victim: PathBuf,
    launcher: PathBuf,
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    abstract_stream: UnixListener,
    abstract_datagram: UnixDatagram,
    abstract_name: String,
    sentinel: Child,
    before: HashSet<u32>,
}

/// What a run came to, and what was seen of it while it ran.
pub struct Report {
    /// `passed`, `timed out` or `failed: message`.
    pub status: String,
    /// The kept output.
    pub output: String,
    /// The most threads of its processes at one time.
    pub most_threads: usize,
    /// The most memory of one of its processes in bytes, resident.
    pub most_memory: u64,
    /// How much the machine's memory in shared files grew at most, in bytes.
    pub most_shared: u64,
    /// Rights of its first process.
    pub rights: Option<Rights>,
    seconds: f64,
}

#[derive(Debug, Clone)]
pub struct Rights {
    pub users: Vec<u32>,
    pub capabilities: u64,
    pub no_new_privs: u64,
    pub seccomp: u64,
}

impl Scene {
    fn new(user: User) -> Self {
        let folder = tempfile::Builder::new().prefix("sandbox-scene").tempdir_in("/var/tmp").unwrap();
        let open_to_all = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        open_to_all(folder.path(), 0o755);
        let launcher = folder.path().join("launcher");
        fs::copy(env!("CARGO_BIN_EXE_deltaic-sandbox"), &launcher).unwrap();
        open_to_all(&launcher, 0o755);
        let victim = folder.path().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("secret"), SECRET).unwrap();
        open_to_all(&victim.join("secret"), 0o666);
        open_to_all(&victim, 0o777);
        let socket = folder.path().join("socket");
        let unix = UnixListener::bind(&socket).unwrap();
        open_to_all(&socket, 0o777);
        let abstract_name = format!("deltaic-{}", std::process::id());
        let address = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let scene = Self {
            user,
            udp: UdpSocket::bind(("127.0.0.1", port)).unwrap(),
            abstract_stream: UnixListener::bind_addr(&address(&abstract_name)).unwrap(),
            abstract_datagram: UnixDatagram::bind_addr(&address(&format!("{abstract_name}-datagram"))).unwrap(),
            sentinel: user.command(Path::new("/bin/sleep")).arg("1000").stdout(Stdio::null()).env("SECRET", SECRET).spawn().unwrap(),
            before: python_processes(),
            folder,
            victim,
            launcher,
            tcp,
            unix,
            abstract_name,
        };
        scene.tcp.set_nonblocking(true).unwrap();
        scene.udp.set_nonblocking(true).unwrap();
        scene.unix.set_nonblocking(true).unwrap();
        scene.abstract_stream.set_nonblocking(true).unwrap();
        scene.abstract_datagram.set_nonblocking(true).unwrap();
        scene
    }

    /// Runs a program, its `@NAME@`s replaced, in a sandbox of this user; watches it from outside.
    pub fn run(&mut self, source: &str) -> Report {
        let program = self.folder.path().join("hostile.py");
        let source = source
            .replace("@VICTIM@", self.victim.to_str().unwrap())
            .replace("@PORT@", &self.tcp.local_addr().unwrap().port().to_string())
            .replace("@UNIX@", self.folder.path().join("socket").to_str().unwrap())
            .replace("@ABSTRACT@", &self.abstract_name)
            .replace("@SENTINEL@", &self.sentinel.id().to_string());
        fs::write(&program, source).unwrap();
        let began = Instant::now();
        let mut command = self.user.command(&self.launcher);
        command.args(["--exec-timeout", &TIMEOUT.to_string()]).arg(&program).env("SECRET", SECRET).stdin(Stdio::null());
        let done = AtomicBool::new(false);
        let (output, mut report) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| self.sample(&done));
            let output = command.output().unwrap();
            done.store(true, Ordering::Relaxed);
            (output, sampler.join().unwrap())
        });
        report.seconds = began.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(&output.stdout);
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        assert!(output.status.success(), "the sandbox failed: {}", String::from_utf8_lossy(&output.stderr));
        let status = first.strip_prefix(&format!("{}: ", program.display())).unwrap();
        report.status = status.rsplit_once(" (").unwrap_or((status, "")).0.to_owned();
        report.output = rest.to_owned();
        report
    }

    fn sample(&self, done: &AtomicBool) -> Report {
        let shared_before = shared_memory();
        let mut report = Report {
            status: String::new(),
            output: String::new(),
            most_threads: 0,
            most_memory: 0,
            most_shared: 0,
            rights: None,
            seconds: 0.0,
        };
        while !done.load(Ordering::Relaxed) {
            let mut threads = 0;
            for pid in python_processes().difference(&self.before) {
                threads += fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
                let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
                report.most_memory = report.most_memory.max(numbers(&status, "VmRSS", 10).first().copied().unwrap_or(0) << 10);
                let first = |field: &str, base: u32| numbers(&status, field, base).first().copied().unwrap_or(u64::MAX);
                report.rights.get_or_insert_with(|| Rights {
                    users: numbers(&status, "Uid", 10).into_iter().map(|user| user as u32).collect(),
                    capabilities: first("CapEff", 16) | first("CapPrm", 16) | first("CapAmb", 16),
                    no_new_privs: first("NoNewPrivs", 10),
                    seccomp: first("Seccomp", 10),
                });
            }
            report.most_threads = report.most_threads.max(threads);
            report.most_shared = report.most_shared.max(shared_memory().saturating_sub(shared_before));
            std::thread::sleep(Duration::from_millis(20));
        }
        report
    }

    /// What holds after every program.
    pub fn check(&mut self, report: &Report) {
        // Four seconds of the first program and of starting up on a busy machine.
        assert!(report.seconds < TIMEOUT + 20.0, "took {} s", report.seconds);
        assert!(report.output.len() <= 2 * 3 * (4 << 10), "{} bytes of output were kept", report.output.len());
        assert!(!report.output.contains(SECRET), "a secret was read: {}", report.output);
        assert!(report.most_threads <= MOST_THREADS, "{} threads at a time", report.most_threads);
        assert!(report.most_memory <= MOST_MEMORY, "{} bytes of memory", report.most_memory);
        assert!(report.most_shared < 512 << 20, "files in memory grew by {} bytes", report.most_shared);
        self.check_sockets();
        self.check_files();
        assert_eq!(self.sentinel.try_wait().unwrap(), None, "another process was killed");
        let status = fs::read_to_string(format!("/proc/{}/status", self.sentinel.id())).unwrap();
        assert!(status.contains("State:\tS") && status.contains("TracerPid:\t0"), "another process was stopped or traced: {status}");
        self.check_processes();
    }

    fn check_sockets(&self) {
        let nothing = |kind: Option<ErrorKind>| assert_eq!(kind, Some(ErrorKind::WouldBlock), "something arrived at a socket");
        nothing(self.tcp.accept().err().map(|e| e.kind()));
        nothing(self.unix.accept().err().map(|e| e.kind()));
        nothing(self.abstract_stream.accept().err().map(|e| e.kind()));
        nothing(self.udp.recv(&mut [0; 8]).err().map(|e| e.kind()));
        nothing(self.abstract_datagram.recv(&mut [0; 8]).err().map(|e| e.kind()));
    }

    fn check_files(&self) {
        let names: Vec<_> = fs::read_dir(&self.victim).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"], "the folder that all may write to was changed");
        let secret = self.victim.join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o7777, 0o666);
        for folder in ["/", "/tmp", "/dev", "/dev/shm", "/var/tmp", "/etc", "/run", "/home", "/root", "/usr", "/usr/lib"] {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for name in entries.filter_map(|entry| entry.ok()).map(|entry| entry.file_name().to_string_lossy().into_owned()) {
                assert!(
                    !["deltaic_marker", "deltaic_left", "huge0", "program.py"].iter().any(|left| name.starts_with(left)),
                    "{folder}/{name} is left over"
                );
            }
        }
    }

    fn check_processes(&self) {
        // The kernel has ended them before the sandbox returned; another user of this machine may run sandboxes, too.
        let until = Instant::now() + Duration::from_secs(10);
        let left = |seen: &HashSet<u32>| -> HashSet<u32> { python_processes().intersection(seen).copied().collect() };
        let mut seen: HashSet<u32> = python_processes().difference(&self.before).copied().collect();
        while !seen.is_empty() {
            assert!(Instant::now() < until, "processes live on: {seen:?}");
            std::thread::sleep(Duration::from_millis(50));
            seen = left(&seen);
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.sentinel.kill();
        let _ = self.sentinel.wait();
    }
}

/// All processes here that run the sandbox's bootstrap.
fn python_processes() -> HashSet<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| contains(&line, b"/program.py\0"))).collect()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The numbers of one line of a `status` file.
fn numbers(status: &str, field: &str, base: u32) -> Vec<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap_or("");
    line.split_whitespace().filter_map(|word| u64::from_str_radix(word, base).ok()).collect()
}

/// Bytes of files in memory on this machine.
fn shared_memory() -> u64 {
    let table = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    numbers(&table, "Shmem", 10).first().copied().unwrap_or(0) << 10
}
