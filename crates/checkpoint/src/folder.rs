//! Which files of a model folder hold the weights.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::formats::regular_file::is_there;

/// The weights of a model folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightFiles {
    /// One file.
    Single(PathBuf),
    /// The index of several.
    Sharded(PathBuf),
}

/// Finds a folder's weights: `model.safetensors`, else `model.safetensors.index.json`, else the only other safetensors file, else
/// `pytorch_model.bin`, else `pytorch_model.bin.index.json`. So safetensors win where a folder has both.
///
/// # Errors
/// There are none, or only in a format that is not read; the message lists what was looked for and found.
pub fn find_weights(folder: &Path) -> Result<WeightFiles> {
    let single = folder.join("model.safetensors");
    // A link whose target is not there counts: the error of opening it says what is wrong.
    if is_there(&single) {
        return Ok(WeightFiles::Single(single));
    }
    let index = folder.join("model.safetensors.index.json");
    if is_there(&index) {
        return Ok(WeightFiles::Sharded(index));
    }
    let files = entry_names(folder)?.into_iter().filter(|name| !folder.join(name).is_dir());
    let names: Vec<String> = files.filter_map(|name| name.into_string().ok()).collect();
    let place = folder.display();
    let of_kind = |ending: &str| -> Vec<&String> { names.iter().filter(|name| name.ends_with(ending)).collect() };
    let safetensors: Vec<&String> = of_kind(".safetensors").into_iter().filter(|name| *name != "adapter_model.safetensors").collect();
    match safetensors.as_slice() {
        [] => {}
        [only] => return Ok(WeightFiles::Single(folder.join(only))),
        several => {
            return Err(Error::new(format!(
                "{place}: {} safetensors files, but no model.safetensors.index.json that says what they hold: {}",
                several.len(),
                list(several)
            ))
            .help("download the index too, or leave only the file that is meant"));
        }
    }
    for (name, weights) in
        [("pytorch_model.bin", WeightFiles::Single as fn(PathBuf) -> WeightFiles), ("pytorch_model.bin.index.json", WeightFiles::Sharded)]
    {
        if names.iter().any(|found| found == name) {
            return Ok(weights(folder.join(name)));
        }
    }
    if names.iter().any(|name| name == "adapter_config.json") {
        return Err(Error::new(format!("{place}: expected a model, found a PEFT adapter (adapter_config.json)"))
            .help("name the adapter behind its base: `base+adapter`"));
    }
    let other: Vec<&String> =
        [".gguf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"].iter().flat_map(|ending| of_kind(ending)).collect();
    let found = if other.is_empty() { "no weights at all".to_owned() } else { format!("only {}", list(&other)) };
    Err(Error::new(format!(
        "{place}: looked for model.safetensors, model.safetensors.index.json, another *.safetensors, pytorch_model.bin and \
         pytorch_model.bin.index.json; found {found}"
    ))
    .help("deltaic reads safetensors and pytorch_model.bin: fetch or convert the weights in one of these formats"))
}

/// The names of everything in a folder, sorted: of files, links (also those whose targets are not there), pipes, folders.
pub(crate) fn entry_names(folder: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).context("reading the folder", folder)? {
        names.push(entry.context("reading the folder", folder)?.file_name());
    }
    names.sort();
    Ok(names)
}

/// At most eight names in a row.
fn list(names: &[&String]) -> String {
    let shown: Vec<&str> = names.iter().take(8).map(|name| name.as_str()).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
