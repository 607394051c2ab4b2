//! Side files: those of the sources have to be in the output, byte for byte.

use std::io::{BufRead, BufReader};
use std::path::Path;

use deltaic_checkpoint::{Context, Error, Result, SideFiles, open_regular};
use serde_json::Value;

use super::{Expected, Finding, Severity};

/// A settings file of more bytes is not one.
const MAX_SETTINGS: u64 = 16 << 20;
/// Bytes of two files that are compared at a time.
const STEP: usize = 1 << 16;

/// Files of the sources that are not in the folder, or are not the same there.
pub(super) fn missing(out: &Path, expected: &Expected<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut compare = |source: &Path, file: &Path| -> Result<()> {
        let (there, here) = (source.join(file), out.join(file));
        let message = if !here.is_file() {
            format!("{}: expected the file of {}, found none", file.display(), source.display())
        } else if !same_bytes(&there, &here)? {
            format!("{}: expected the bytes of {}, found others", file.display(), there.display())
        } else {
            return Ok(());
        };
        let error = Error::new(message).help("the model would work otherwise than its source: copy the file from there");
        findings.push(Finding { severity: Severity::Broken, error });
        Ok(())
    };
    if let Some(source) = expected.tokenizer_from {
        SideFiles::of(source)?.tokenizer_and_templates().into_iter().try_for_each(|file| compare(source, file))?;
    }
    if let Some(source) = expected.side_files_from {
        SideFiles::of(source)?.others().into_iter().try_for_each(|file| compare(source, file))?;
    }
    Ok(findings)
}

fn same_bytes(one: &Path, other: &Path) -> Result<bool> {
    let open = |path: &Path| open_regular(path).map(|file| BufReader::with_capacity(STEP, file));
    let (mut first, mut second) = (open(one)?, open(other)?);
    loop {
        let (a, b) = (first.fill_buf().context("reading", one)?, second.fill_buf().context("reading", other)?);
        let count = a.len().min(b.len());
        if a[..count] != b[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(a.len() == b.len());
        }
        first.consume(count);
        second.consume(count);
    }
}

/// A settings file; None where it is not there. Its errors do not name the file.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>> {
    let Ok(metadata) = path.metadata() else { return Ok(None) };
    if !metadata.is_file() || metadata.len() > MAX_SETTINGS {
        return Err(Error::new(format!("expected a file of at most {MAX_SETTINGS} bytes, found {}", metadata.len())));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Error::new(format!("reading: {error}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    serde_json::from_str(text).map(Some).map_err(|error| Error::new(format!("expected JSON: {error}")))
}

/// The names of a folder's files, sorted.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in folder.read_dir().context("reading the folder", folder)? {
        names.extend(entry.context("reading the folder", folder)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
