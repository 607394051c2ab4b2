//! The file system that a program sees: a small one in memory that holds the interpreter's folders, read only, some devices, the program and
//! two empty folders that can be written to. There is no `/proc`, `/sys`, `/home` or `/etc`. All of it goes with the process.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::job::Interpreter;

/// The program's file inside.
pub(crate) const PROGRAM: &str = "/program.py";
/// The working folder, home, and place of temporary files.
pub(crate) const SCRATCH: &str = "/tmp";
/// Where the C library keeps named semaphores, without which `multiprocessing` has no pools.
pub(crate) const SEMAPHORES: &str = "/dev/shm";

/// Where the new root is put together. It hides what was there, in this process's view only, after the sources have been opened.
const STAGE: &str = "/tmp";
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
/// Files that the C library reads.
const FILES: [&str; 2] = ["/etc/ld.so.cache", "/etc/localtime"];
/// As many symbolic links are followed on the way to one path.
const MAX_LINKS: usize = 40;
/// Files and folders in the scratch folder.
const MAX_INODES: u32 = 4096;

/// Builds the new root and makes it this process's root. Gives the paths that are there to be read.
///
/// # Errors
/// The kernel does not allow to mount, or a path of the interpreter cannot be opened.
pub(crate) fn enter(interpreter: &Interpreter, source: &str, scratch_bytes: u64) -> Result<Vec<PathBuf>, String> {
    const NONE: Option<&str> = None;
    let doing = |what: &str| {
        let what = what.to_owned();
        move |e: nix::Error| format!("mounting {what}: {e}")
    };
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // Nothing that is mounted here must show outside.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(doing("private"))?;
    let view = View::of(interpreter)?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), STAGE, Some("tmpfs"), quiet, Some("size=20m,nr_inodes=1k,mode=0755")).map_err(doing("the new root"))?;
    view.bind()?;
    let staged = |path: &str| format!("{STAGE}{path}");
    fs::write(staged(PROGRAM), source).map_err(|e| format!("writing the program: {e}"))?;
    fs::create_dir_all(staged(SCRATCH)).map_err(|e| format!("making the scratch folder: {e}"))?;
    let options = format!("size={scratch_bytes},nr_inodes={MAX_INODES},mode=0777");
    mount(Some("tmpfs"), staged(SCRATCH).as_str(), Some("tmpfs"), quiet, Some(options.as_str())).map_err(doing("the scratch folder"))?;
    fs::create_dir_all(staged(SEMAPHORES)).map_err(|e| format!("making {SEMAPHORES}: {e}"))?;
    let small = Some("size=1m,nr_inodes=64,mode=0777");
    mount(Some("tmpfs"), staged(SEMAPHORES).as_str(), Some("tmpfs"), quiet, small).map_err(doing(SEMAPHORES))?;
    make_read_only()?;
    std::env::set_current_dir(STAGE).map_err(|e| format!("entering the new root: {e}"))?;
    nix::unistd::pivot_root(".", ".").map_err(|e| format!("pivot_root: {e}"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| format!("leaving the old root: {e}"))?;
    std::env::set_current_dir("/").map_err(|e| format!("entering the new root: {e}"))?;
    let mut readable: Vec<PathBuf> = view.sources.into_iter().map(|(path, _)| path).collect();
    readable.push(PROGRAM.into());
    Ok(readable)
}

/// What is to be shown: real files and folders, opened, and the symbolic links that lead to them.
#[derive(Default)]
struct View {
    sources: Vec<(PathBuf, File)>,
    links: BTreeSet<(PathBuf, PathBuf)>,
}

impl View {
    fn of(interpreter: &Interpreter) -> Result<Self, String> {
        let mut view = Self::default();
        view.show(&interpreter.executable)?;
        for path in interpreter.folders.iter().chain(&interpreter.loader) {
            view.show(path)?;
        }
        for path in DEVICES.iter().chain(&FILES).map(Path::new).filter(|path| path.exists()) {
            view.show(path)?;
        }
        // Libraries are named by these, also where they are links to folders in /usr.
        for path in ["/lib", "/lib64"].map(Path::new) {
            if let Ok(target) = fs::read_link(path) {
                view.links.insert((path.to_owned(), target));
            }
        }
        Ok(view)
    }

    /// Adds a path, and every symbolic link on the way.
    fn show(&mut self, path: &Path) -> Result<(), String> {
        let mut path = path.to_owned();
        'links: for _ in 0..MAX_LINKS {
            let mut walked = PathBuf::new();
            for component in path.components() {
                match component {
                    Component::ParentDir => drop(walked.pop()),
                    Component::CurDir => {}
                    other => walked.push(other),
                }
                let Ok(target) = fs::read_link(&walked) else { continue };
                let rest = path.strip_prefix(&walked).map(Path::to_owned).unwrap_or_default();
                let parent = walked.parent().unwrap_or(Path::new("/"));
                path = parent.join(&target).join(rest);
                self.links.insert((walked, target));
                continue 'links;
            }
            if self.sources.iter().any(|(shown, _)| walked.starts_with(shown)) {
                return Ok(());
            }
            let flags = OFlag::O_PATH.bits();
            let source =
                OpenOptions::new().read(true).custom_flags(flags).open(&walked).map_err(|e| format!("{}: {e}", walked.display()))?;
            self.sources.push((walked, source));
            return Ok(());
        }
        Err(format!("{}: more than {MAX_LINKS} symbolic links", path.display()))
    }

    /// Mounts the sources at their places below the stage, by their open files: their own paths may be hidden by now.
    fn bind(&self) -> Result<(), String> {
        let staged = |path: &Path| Path::new(STAGE).join(path.strip_prefix("/").unwrap_or(path));
        let failed = |path: &Path, e: &dyn std::fmt::Display| format!("mounting {}: {e}", path.display());
        for (path, source) in &self.sources {
            let target = staged(path);
            let folder = source.metadata().is_ok_and(|metadata| metadata.is_dir());
            let parent = if folder { &*target } else { target.parent().unwrap_or(&target) };
            fs::create_dir_all(parent).map_err(|e| failed(path, &e))?;
            if !folder {
                File::create(&target).map_err(|e| failed(path, &e))?;
            }
            let source = format!("/proc/self/fd/{}", source.as_raw_fd());
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(source.as_str()), &target, None::<&str>, flags, None::<&str>).map_err(|e| failed(path, &e))?;
        }
        for (link, target) in &self.links {
            let link = staged(link);
            // Within a folder that is mounted, the link is there already.
            if link.symlink_metadata().is_err() {
                let parent = link.parent().unwrap_or(&link);
                fs::create_dir_all(parent).and_then(|()| symlink(target, &link)).map_err(|e| failed(&link, &e))?;
            }
        }
        Ok(())
    }
}

/// Makes every mount below the stage read only, but for the two that are written to. What restricts a mount already must stay, or a user's namespace
/// may not change it.
fn make_read_only() -> Result<(), String> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("/proc/self/mountinfo: {e}"))?;
    let written = [SCRATCH, SEMAPHORES].map(|path| format!("{STAGE}{path}"));
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        Some((unescape(fields.next()?), fields.next()?))
    });
    let mounts: Vec<(String, &str)> = mounts.collect();
    // What was mounted in this place before the stage is hidden by it.
    let stage = mounts.iter().rposition(|(place, _)| place == STAGE).ok_or("the new root is not in /proc/self/mountinfo")?;
    for (place, options) in &mounts[stage..] {
        if !Path::new(place).starts_with(STAGE) || written.contains(place) {
            continue;
        }
        let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
        for option in options.split(',') {
            flags |= match option {
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "nodiratime" => MsFlags::MS_NODIRATIME,
                "relatime" => MsFlags::MS_RELATIME,
                _ => MsFlags::empty(),
            };
        }
        mount(None::<&str>, place.as_str(), None::<&str>, flags, None::<&str>).map_err(|e| format!("making {place} read only: {e}"))?;
    }
    Ok(())
}

/// A path of mountinfo, where blanks and backslashes are written in octal.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}
