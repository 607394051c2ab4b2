//! Finds the Python interpreter and what it has to read.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deltaic_checkpoint::{Error, Result};
use serde::Deserialize;

use crate::job::Interpreter;

/// The program that is asked: an interpreter knows best where its library is. All extension modules are loaded once, so that the shared
/// libraries they need are mapped.
const PROBE: &str = include_str!("probe.py");
/// The longest answer that is read.
const MAX_ANSWER: u64 = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    version: [u32; 3],
    executable: PathBuf,
    loader: Option<PathBuf>,
    folders: Vec<PathBuf>,
}

/// Asks `python`, a path or a name to be found on PATH, for its executable, library and shared libraries.
///
/// # Errors
/// It cannot be started, is older than 3.10, or answers something else.
pub(crate) fn find(python: &Path) -> Result<Interpreter> {
    let name = python.display();
    let help = "name a Python 3.10 or newer with --python";
    let mut child = Command::new(python)
        .args(["-I", "-S", "-B", "-c", PROBE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| Error::new(format!("{name}: the Python interpreter does not start: {e}")).help(help))?;
    let mut text = String::new();
    let read = child.stdout.take().map(|out| out.take(MAX_ANSWER).read_to_string(&mut text));
    let status = child.wait();
    let answer: Answer = match (read, status) {
        (Some(Ok(_)), Ok(status)) if status.success() => serde_json::from_str(&text).ok(),
        _ => None,
    }
    .ok_or_else(|| Error::new(format!("{name}: the Python interpreter did not say where its library is")).help(help))?;
    let [major, minor, _] = answer.version;
    if (major, minor) < (3, 10) {
        return Err(Error::new(format!("{name}: Python {major}.{minor} is too old to run programs: expected 3.10 or newer")).help(help));
    }
    Ok(Interpreter { version: answer.version, executable: answer.executable, loader: answer.loader, folders: outermost(answer.folders) })
}

/// Without the folders that lie in others of the list. The root and first-level folders that are not libraries are not taken: a strange
/// answer must not open the whole file system.
fn outermost(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    folders.retain(|folder| folder.is_absolute() && folder.components().count() > 2);
    folders.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for folder in folders {
        if !kept.iter().any(|outer| folder.starts_with(outer)) {
            kept.push(folder);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_within_others_and_too_wide_ones_are_left_out() {
        let folders = ["/usr/lib/python3.11/lib-dynload", "/usr/lib/python3.11", "/", "/usr", "/usr/lib/x86_64-linux-gnu", "relative/x/y"];
        let kept = outermost(folders.iter().map(PathBuf::from).collect());
        assert_eq!(kept, [PathBuf::from("/usr/lib/python3.11"), PathBuf::from("/usr/lib/x86_64-linux-gnu")]);
    }
}
