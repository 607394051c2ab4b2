//! Where a model lies: a folder, or the Hub's local cache.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A model folder that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The folder, absolute; links are not resolved.
    pub path: PathBuf,
    /// How it was found.
    pub found: Found,
    /// The revision that was asked for, where a folder was found by its path and so no revision was looked at: transformers
    /// and mergekit ignore it there, too, but the user should be told.
    pub ignored_revision: Option<String>,
}

/// How a model folder was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// By its path; in which of the given folders (their description), `an absolute path` else.
    Path(String),
    /// In the Hub's local cache.
    Hub {
        /// The Hub name, `org/name`.
        name: String,
        /// The commit whose snapshot it is, 40 hexadecimal digits.
        commit: String,
    },
}

/// Finds a model or adapter folder: a path relative to each of `folders` in order (absolute ones as they are), else the Hub's local cache.
///
/// A folder counts where it holds config.json or adapter_config.json. `folders` come with what they are, for messages: `the recipe's
/// folder`.
///
/// # Errors
/// It is in none of these places; the message lists them all, and the help has the command that fetches it.
pub fn locate(name: &str, revision: Option<&str>, folders: &[(PathBuf, &str)]) -> Result<Located> {
    locate_in(name, revision, folders, hub_cache().as_deref())
}

/// As [`locate`], with the Hub's cache given.
///
/// # Errors
/// As [`locate`].
pub fn locate_in(name: &str, revision: Option<&str>, folders: &[(PathBuf, &str)], cache: Option<&Path>) -> Result<Located> {
    let mut tried = Vec::new();
    let given = expand_home(name);
    let places: Vec<(PathBuf, &str)> = if given.is_absolute() {
        vec![(given, "an absolute path")]
    } else {
        folders.iter().map(|(folder, what)| (folder.join(&given), *what)).collect()
    };
    for (path, what) in places {
        match why_no_model(&path) {
            None => {
                let path = std::path::absolute(&path).map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
                return Ok(Located { path, found: Found::Path(what.to_owned()), ignored_revision: revision.map(str::to_owned) });
            }
            Some(why) => tried.push(format!("{} ({what}): {why}", path.display())),
        }
    }
    if !is_hub_name(name) {
        return Err(Error::new(format!("{name}: no model there; looked at {}", tried.join("; ")))
            .help("a model folder holds config.json and safetensors files"));
    }
    match find_snapshot(name, revision, cache) {
        Ok((path, commit)) => Ok(Located { path, found: Found::Hub { name: name.to_owned(), commit }, ignored_revision: None }),
        Err(why) => {
            tried.push(why);
            let fetch = revision.map(|revision| format!(" --revision {revision}")).unwrap_or_default();
            Err(Error::new(format!("{name}: no such model here; looked at {}", tried.join("; ")))
                .help(format!("fetch it with `hf download {name}{fetch}`")))
        }
    }
}

/// The Hub's local cache: `$HF_HUB_CACHE`, `$HUGGINGFACE_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub` or
/// `~/.cache/huggingface/hub`, the first that is set, as huggingface_hub has it. None where there is no home either.
pub fn hub_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(|value| expand_home(&value));
    set("HF_HUB_CACHE")
        .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| set("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/huggingface/hub")))
}

/// Whether a name can be one on the Hub: `name` or `org/name` of letters, digits, `-`, `_` and `.`, each part beginning and ending with a
/// letter, digit or `_`, without `--` and `..` (huggingface_hub's `validate_repo_id`).
pub fn is_hub_name(name: &str) -> bool {
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        part.chars().all(|c| plain(c) || c == '-' || c == '.') && part.starts_with(plain) && part.ends_with(plain)
    };
    name.len() <= 96 && !name.contains("--") && !name.contains("..") && name.matches('/').count() <= 1 && name.split('/').all(part)
}

/// What is wrong with a folder as a model or adapter; None where it is one.
fn why_no_model(path: &Path) -> Option<&'static str> {
    match path {
        _ if path.join("config.json").is_file() || path.join("adapter_config.json").is_file() => None,
        _ if path.is_dir() => Some("the folder has neither config.json nor adapter_config.json"),
        _ if path.exists() => Some("a file, not a folder"),
        _ => Some("not there"),
    }
}

/// Finds a name's snapshot in the cache, and its commit; else says where it was looked for.
fn find_snapshot(name: &str, revision: Option<&str>, cache: Option<&Path>) -> std::result::Result<(PathBuf, String), String> {
    let Some(cache) = cache else {
        return Err("the Hub's cache: neither $HF_HUB_CACHE, $HF_HOME nor $HOME is set".into());
    };
    let cache = std::path::absolute(cache).unwrap_or_else(|_| cache.to_owned());
    let repository = cache.join(format!("models--{}", name.replace('/', "--")));
    let place = format!("the Hub's cache {}", repository.display());
    if !repository.is_dir() {
        return Err(format!("{place}: not there"));
    }
    let revision = revision.unwrap_or("main");
    let Some(commit) = resolve_revision(&repository, revision) else {
        let has: Vec<String> = snapshots(&repository);
        let has = if has.is_empty() { "no snapshots".to_owned() } else { format!("the snapshots {}", has.join(", ")) };
        return Err(format!("{place}: no revision `{revision}`; it has {has}"));
    };
    let snapshot = repository.join("snapshots").join(&commit);
    match why_no_model(&snapshot) {
        None => Ok((snapshot, commit)),
        Some(why) => Err(format!("{}: {why}", snapshot.display())),
    }
}

/// The commit of a branch or tag (`refs/<revision>`), or of a commit hash of which at least 7 digits are given.
fn resolve_revision(repository: &Path, revision: &str) -> Option<String> {
    // A revision such as `refs/pr/3` has slashes, but never a way out of `refs`.
    let safe = !revision.contains(['\\', '\0']) && revision.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if safe
        && let Ok(text) = crate::formats::regular_file::read_text(&repository.join("refs").join(revision), 4096)
        && is_hexadecimal(text.trim())
        && text.trim().len() == 40
    {
        return Some(text.trim().to_owned());
    }
    if !(7..=40).contains(&revision.len()) || !is_hexadecimal(revision) {
        return None;
    }
    let mut matching = snapshots(repository).into_iter().filter(|commit| commit.starts_with(&revision.to_ascii_lowercase()));
    match (matching.next(), matching.next()) {
        (Some(commit), None) => Some(commit),
        _ => None,
    }
}

/// The commits whose snapshots are in the cache, sorted.
fn snapshots(repository: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(repository.join("snapshots")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_hexadecimal(name)).collect();
    names.sort();
    names
}

fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A path with a leading `~` replaced by `$HOME`.
fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix('~'), std::env::var("HOME")) {
        (Some(rest), Ok(home)) if rest.is_empty() || rest.starts_with('/') => PathBuf::from(format!("{home}{rest}")),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn model(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("config.json"), "{}").unwrap();
    }

    fn cache() -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache.path().join("models--org--name");
        model(&repository.join("snapshots").join(COMMIT));
        std::fs::create_dir_all(repository.join("refs/refs/pr")).unwrap();
        std::fs::write(repository.join("refs/main"), COMMIT).unwrap();
        std::fs::write(repository.join("refs/refs/pr/3"), format!("{COMMIT}\n")).unwrap();
        model(cache.path());
        cache
    }

    #[test]
    fn a_path_goes_before_the_cache_and_the_first_folder_before_the_second() {
        let (cache, recipe, working) = (cache(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [(recipe.path().to_owned(), "the recipe's folder"), (working.path().to_owned(), "the working directory")];
        let find = || locate_in("org/name", Some("main"), &folders, Some(cache.path())).unwrap();
        assert_eq!(find().found, Found::Hub { name: "org/name".into(), commit: COMMIT.into() });
        model(&working.path().join("org/name"));
        assert_eq!(find().found, Found::Path("the working directory".into()));
        std::fs::create_dir_all(recipe.path().join("org/name")).unwrap();
        std::fs::write(recipe.path().join("org/name/adapter_config.json"), "{}").unwrap();
        let found = find();
        assert_eq!((found.found, found.ignored_revision.as_deref()), (Found::Path("the recipe's folder".into()), Some("main")));
    }

    #[test]
    fn revisions_are_branches_pull_requests_and_commits() {
        let cache = cache();
        for revision in [None, Some("main"), Some("refs/pr/3"), Some(COMMIT), Some("0123456")] {
            let found = locate_in("org/name", revision, &[], Some(cache.path())).unwrap();
            assert_eq!(found.path, cache.path().join("models--org--name/snapshots").join(COMMIT), "{revision:?}");
        }
        for revision in ["../refs/main", "refs/../main", "v2", "012345", "../../..", "/etc"] {
            let error = locate_in("org/name", Some(revision), &[], Some(cache.path())).unwrap_err();
            assert!(error.message().contains(&format!("no revision `{revision}`")), "{error}");
        }
    }

    #[test]
    fn names_do_not_lead_out_of_the_cache() {
        let cache = cache();
        for name in ["..", "../x", "a/b/c", "a--b", ".hidden/x", "org/..", "a/", "/", "", "x\0y"] {
            assert!(!is_hub_name(name), "{name}");
            assert!(locate_in(name, None, &[], Some(&cache.path().join("models--org--name"))).is_err());
        }
        assert!(is_hub_name("gpt2") && is_hub_name("mistralai/Mistral-7B-v0.1"));
    }

    #[test]
    fn what_is_nowhere_is_an_error_with_all_places_and_the_command() {
        let (cache, folder) = (cache(), tempfile::tempdir().unwrap());
        let folders = [(folder.path().to_owned(), "the recipe's folder")];
        let error = locate_in("org/other", Some("v1"), &folders, Some(cache.path())).unwrap_err().to_string();
        for part in ["the recipe's folder", "models--org--other", "hf download org/other --revision v1"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
