//! Which files are a task's.

use std::fs;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result};

/// Most entries of a folder that are looked at for a name with `*`.
const MAX_ENTRIES: usize = 100_000;

/// The files of the first name that is there: each name in each of `folders` below `data`, then in `data` itself. A `data` that is a file
/// is the one.
pub fn find(task: &str, folders: &[String], names: &[String], data: &Path) -> Result<Vec<PathBuf>> {
    if data.is_file() {
        return Ok(vec![data.to_owned()]);
    }
    if !data.is_dir() {
        return Err(Error::new(format!("{}: neither a folder nor a file is there", data.display()))
            .help(format!("--data is a folder with the official files, or the file of {task}")));
    }
    let folders = folders.iter().map(|folder| data.join(folder)).filter(|folder| folder.is_dir());
    let folders: Vec<PathBuf> = folders.chain([data.to_owned()]).collect();
    for folder in &folders {
        for name in names {
            for name in [name.clone(), format!("{name}.gz")] {
                let found = matches(folder, &name)?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
    }
    let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(Error::new(format!("{task}: no file of it is in {}", places.join(", or in ")))
        .help(format!("looked for {} (also with .gz)", names.join(", "))))
}

/// The files below a folder that match a name of components with `*`, sorted.
fn matches(folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut paths = vec![folder.to_owned()];
    for component in name.split('/') {
        let mut next = Vec::new();
        for path in paths {
            if !component.contains('*') {
                next.push(path.join(component));
                continue;
            }
            if !path.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&path).context("listing", &path)?.take(MAX_ENTRIES) {
                let entry = entry.context("listing", &path)?;
                if entry.file_name().to_str().is_some_and(|name| is_match(name, component)) {
                    next.push(entry.path());
                }
            }
        }
        paths = next;
    }
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

/// Whether a name matches a pattern in which `*` is any run of characters.
fn is_match(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (name, pattern, expected) in [
            ("test-00000-of-00001.parquet", "test-*.parquet", true),
            ("test.parquet", "test-*.parquet", false),
            ("ab", "ab", true),
            ("abc", "ab", false),
            ("ab", "ab*", true),
            ("a_test.csv", "*_test.csv", true),
            ("xaxbx", "x*x*x", true),
            ("xx", "x*x*x", false),
        ] {
            assert_eq!(is_match(name, pattern), expected, "{name} {pattern}");
        }
    }
}
