//! Where an output may go.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Config, Context, Error, Result};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

use super::MergeOptions;
use super::moving::{check_others, is_half_moved};
use crate::plan::Plan;

/// How a finished output comes to its place.
pub(super) enum Place {
    /// It is made beside OUT and renamed to it.
    Beside { out: PathBuf },
    /// OUT is a mount point, to which nothing can be renamed: it is made inside and its files are moved.
    Inside { out: PathBuf },
}

/// What the folders begin with in which outputs are made inside of mount points.
const INSIDE: &str = ".deltaic.partial-";
/// Digits of a plan's hash that such folders have in their names.
const DIGITS: usize = 16;

impl Place {
    /// Finds out which it is.
    pub fn of(out: &Path) -> Result<Self> {
        let absolute = std::path::absolute(out).context("resolving the path", out)?;
        if is_mount_point(&absolute) {
            return Ok(Self::Inside { out: absolute });
        }
        if absolute.parent().is_none() || absolute.file_name().is_none() {
            return Err(Error::new(format!("{}: not a folder that can be made", out.display())).help("name a folder for the output"));
        }
        Ok(Self::Beside { out: absolute })
    }

    /// The output's folder, absolute.
    pub fn out(&self) -> &Path {
        match self {
            Self::Beside { out } | Self::Inside { out } => out,
        }
    }

    /// The folder in which an output of the plan with this hash is made.
    pub fn partial(&self, hash: &str) -> PathBuf {
        let hash = &hash[..DIGITS.min(hash.len())];
        match self {
            Self::Inside { out } => out.join(format!("{INSIDE}{hash}")),
            Self::Beside { out } => {
                let mut name = out.file_name().unwrap_or_default().to_owned();
                name.push(format!(".partial-{hash}"));
                out.with_file_name(name)
            }
        }
    }
}

/// Says early what [`merge`](super::merge) would say: whether `out` can be written to.
///
/// # Errors
/// `out` is a file, a folder with something in it (unless a model is to be replaced, by `force`), or one of the sources.
pub fn check_out(plan: &Plan, out: &Path, options: &MergeOptions) -> Result<()> {
    if out.is_symlink() {
        return Err(Error::new(format!("{}: a symbolic link", out.display()))
            .help("name the folder itself, so that it can be replaced in one step"));
    }
    let real = real_place(out)?;
    for located in plan.sources.iter().flat_map(|source| std::iter::once(&source.model).chain(&source.adapter)) {
        let source = located.path.canonicalize().unwrap_or_else(|_| located.path.clone());
        if source.starts_with(&real) || real.starts_with(&source) || has_files_in(&source, &real) {
            return Err(Error::new(format!("{}: this is where a source of the merge lies ({})", out.display(), located.path.display()))
                .help("choose another folder for the output: sources are never overwritten, not even with --force"));
        }
    }
    if !real.exists() {
        return Ok(());
    }
    if !real.is_dir() {
        return Err(Error::new(format!("{}: a file, not a folder", out.display())).help("choose a folder for the output"));
    }
    out.read_dir().context("reading the folder", out)?;
    let partial = Place::of(out)?.partial(&plan.hash());
    if is_half_moved(&partial) {
        return Err(Error::new(format!("{}: an earlier run of this merge was stopped while it put the model in place", partial.display()))
            .help("finish it with --resume"));
    }
    check_others(out, &partial)?;
    match (is_empty(out), options.force) {
        (true, _) => Ok(()),
        (false, false) => Err(Error::new(format!("{}: the folder is not empty", out.display()))
            .help("choose another folder, or replace the model with --force")),
        (false, true) => check_is_model(out).map_err(|error| {
            error.help("--force replaces a whole folder, and only a model's: choose another folder, or remove this one yourself")
        }),
    }
}

/// Whether there is nothing at a path that an output would replace: no folder, or none with anything but what deltaic itself left there.
pub(super) fn is_empty(out: &Path) -> bool {
    let ours = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name == "lost+found" || name.starts_with(INSIDE));
    let mut entries = out.read_dir().into_iter().flatten().flatten();
    entries.all(|entry| ours(&entry.file_name()))
}

/// An error unless a folder is a model's and holds nothing else: `--force` on a wrong path must not delete what is no model.
fn check_is_model(folder: &Path) -> Result<()> {
    let other = |what: String| Error::new(format!("{}: the folder holds other things than a model ({what})", folder.display()));
    let known = |config: Config| config.model_type().is_some() || !config.architectures().is_empty();
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.starts_with("pytorch_model") && name.ends_with(".bin");
    let mut names = folder.read_dir().context("reading the folder", folder)?.flatten().map(|entry| entry.file_name());
    if !names.any(|name| name.to_str().is_some_and(is_weights)) && !Config::read(folder).is_ok_and(known) {
        return Err(other("no weights, and no config.json of a model".to_owned()));
    }
    match first_foreign(folder, 0)? {
        None => Ok(()),
        Some(foreign) => Err(other(format!("{} is no file of a model", foreign.display()))),
    }
}

/// The first file in a folder that no model has beside its weights.
fn first_foreign(folder: &Path, depth: usize) -> Result<Option<PathBuf>> {
    const DEEPEST: usize = 3;
    const ENDINGS: [&str; 22] = [
        "safetensors",
        "bin",
        "pt",
        "pth",
        "gguf",
        "onnx",
        "msgpack",
        "h5",
        "json",
        "jsonl",
        "txt",
        "md",
        "yml",
        "yaml",
        "py",
        "jinja",
        "model",
        "spm",
        "bpe",
        "tiktoken",
        "vocab",
        "svg",
    ];
    const NAMES: [&str; 5] = [".gitattributes", "LICENSE", "NOTICE", "USE_POLICY", "lost+found"];
    for entry in folder.read_dir().context("reading the folder", folder)? {
        let path = entry.context("reading the folder", folder)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let of_a_model = path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending));
        if NAMES.contains(&name) || name.starts_with(INSIDE) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() && depth < DEEPEST {
            if let Some(foreign) = first_foreign(&path, depth + 1)? {
                return Ok(Some(foreign));
            }
        } else if !of_a_model {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a folder's files are links to files below another.
fn has_files_in(folder: &Path, other: &Path) -> bool {
    let real = folder.read_dir().into_iter().flatten().flatten().filter_map(|entry| entry.path().canonicalize().ok());
    real.into_iter().any(|file| file.starts_with(other))
}

/// Where a path leads, links resolved as far as it exists.
fn real_place(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).context("resolving the path", path)?;
    let existing = absolute.ancestors().find_map(|ancestor| Some((ancestor.canonicalize().ok()?, absolute.strip_prefix(ancestor).ok()?)));
    // Components, not `join`: an empty rest would leave a separator behind.
    Ok(existing.map_or_else(|| absolute.clone(), |(real, rest)| real.components().chain(rest.components()).collect()))
}

/// Whether a file system is mounted at a path.
fn is_mount_point(path: &Path) -> bool {
    if let Ok(found) = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        && found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
    {
        return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    // An older kernel: another device than the folder it is in.
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    device(path).is_some() && path.parent().is_some_and(|parent| device(parent) != device(path))
}
