//! Files in an output's folder that the merge did not write, and that programs which load the model would take.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result, SideFiles, shorten};

use crate::checks::folder::{Finding, Severity};
use crate::output::taken_over;
use crate::plan::Plan;

/// Endings of files of weights, in any format.
const WEIGHTS: [&str; 10] = ["safetensors", "bin", "pt", "pth", "ckpt", "h5", "msgpack", "gguf", "onnx", "pkl"];
const INDEX: &str = "model.safetensors.index.json";

/// One finding for each such file.
///
/// # Errors
/// A folder cannot be read.
pub(super) fn findings(out: &Path, plan: &Plan) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut add = |severity: Severity, name: &Path, what: &str| {
        let message = format!("{}: {what} that the merge did not write", shorten(&name.to_string_lossy()));
        let error = Error::new(message).help("programs that load the model may take it: remove it, unless it was put there on purpose");
        findings.push(Finding { severity, error });
    };
    let written: BTreeSet<&str> = plan.layout.shards().iter().map(|shard| shard.file_name.as_str()).collect();
    let indexed = plan.layout.index_json().is_some();
    for entry in out.read_dir().context("reading the folder", out)? {
        let name = entry.context("reading the folder", out)?.file_name();
        let (path, text) = (Path::new(&name), name.to_string_lossy().into_owned());
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        if out.join(path).is_dir() || written.contains(text.as_str()) || indexed && text == INDEX {
            continue;
        } else if WEIGHTS.contains(&ending.as_str()) {
            add(Severity::Broken, path, "weights");
        } else if text.contains(".index.") && ending == "json" {
            add(Severity::Broken, path, "an index of weights");
        } else if text == "adapter_config.json" {
            add(Severity::Broken, path, "an adapter");
        }
    }
    let (copied, there) = (taken_over(plan)?, SideFiles::of(out)?);
    let known: BTreeSet<PathBuf> = copied.into_iter().map(|(_, file)| file).collect();
    let mut others = |files: &[PathBuf], severity: Severity, what: &str| {
        files.iter().filter(|file| !known.contains(*file)).for_each(|file| add(severity, file, what));
    };
    others(&there.chat_templates, Severity::Broken, "a chat template");
    others(&there.code, Severity::Broken, "code");
    others(&there.tokenizer, Severity::Warning, "a tokenizer's file");
    others(there.generation_config.as_slice(), Severity::Warning, "settings");
    others(&there.processors, Severity::Warning, "settings");
    others(&there.sentence_transformers, Severity::Warning, "settings");
    Ok(findings)
}
