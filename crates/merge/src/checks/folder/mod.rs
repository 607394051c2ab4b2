//! A model folder as it lies on disk: do weights, config.json, tokenizer and side files agree? Headers and small files are read only.
//!
//! It is run over an output before it takes its place, and again by `deltaic verify`. What is known of the architecture decides how much is
//! checked (`crates/checkpoint/architectures`); of an unknown one only what names tell.

mod configuration;
mod shapes;
mod side_files;
mod tokens;

use std::path::Path;

use deltaic_checkpoint::{Checkpoint, Config, Error, Result, ShardIndex, TensorInfo, TensorSource, WeightFiles, find_weights};

use crate::plan::Plan;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The model will not load, or is not what it should be.
    Broken,
    /// It loads, and may be meant; published models have such flaws too.
    Warning,
}

/// Something that does not agree.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A message that names file (relative to the folder), tensor, expected and found, and what to do.
    pub error: Error,
}

/// What stands in a message between the first place where something is wrong and the number of further ones.
const FURTHER: &str = ", and so in ";

impl Finding {
    /// What is wrong, without in how many further layers: the same in a model and in one made of more or fewer of its layers.
    pub fn flaw(&self) -> &str {
        self.error.message().split(FURTHER).next().unwrap_or_default()
    }
}

/// What the folder has to have besides what it says itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// The folder whose tokenizer and chat templates it has to have, byte for byte; None where none were copied.
    pub tokenizer_from: Option<&'a Path>,
    /// The folder whose other side files (generation config, processors, code) it has to have.
    pub side_files_from: Option<&'a Path>,
}

impl<'a> Expected<'a> {
    /// What a plan's output has to have.
    pub fn of(plan: &'a Plan) -> Self {
        let folder = |source: usize| plan.sources[source].folder();
        Self { tokenizer_from: plan.tokenizer_from.map(folder), side_files_from: Some(folder(plan.side_files_from)) }
    }
}

/// What the checks know, and what they found.
struct Checks<'a> {
    folder: &'a Path,
    model: &'a Checkpoint,
    findings: Vec<Finding>,
}

/// Checks a model folder; what is broken comes first.
///
/// # Errors
/// `out` is no folder, or a file of it or of `expected` cannot be read. What is wrong in the files is a finding.
pub fn folder(out: &Path, expected: Option<&Expected<'_>>) -> Result<Vec<Finding>> {
    if !out.is_dir() {
        return Err(Error::new(format!("{}: expected a model folder, found none", out.display())));
    }
    let mut findings = match expected {
        Some(expected) => side_files::missing(out, expected)?,
        None => Vec::new(),
    };
    match Checkpoint::open(out) {
        Ok(model) => {
            let mut checks = Checks { folder: out, model: &model, findings };
            checks.index()?;
            checks.shapes();
            checks.layers();
            checks.tied();
            checks.dtype();
            checks.tokens();
            checks.code();
            findings = checks.findings;
        }
        Err(error) => {
            // Messages name files relative to the folder: it may be about to take another name.
            let message = error.message().replace(&format!("{}/", out.display()), "");
            findings.push(Finding { severity: Severity::Broken, error: error.with_message(message) });
        }
    }
    findings.sort_by_key(|finding| finding.severity);
    Ok(findings)
}

impl<'a> Checks<'a> {
    fn broken(&mut self, message: String, help: &str) {
        self.findings.push(Finding { severity: Severity::Broken, error: Error::new(message).help(help) });
    }

    fn warning(&mut self, message: String, help: &str) {
        self.findings.push(Finding { severity: Severity::Warning, error: Error::new(message).help(help) });
    }

    fn config(&self) -> &'a Config {
        &self.model.config
    }

    fn tensors(&self) -> impl Iterator<Item = &'a TensorInfo> {
        self.model.tensors().values()
    }

    /// The file's name that holds a tensor.
    fn file_of(&self, tensor: &str) -> String {
        let name = self.model.file_of(tensor).and_then(|file| file.path().file_name());
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Number of rows of the input embedding, with its name.
    fn embedding(&self) -> Option<(&'a str, u64)> {
        let embeddings = self.tensors().filter(|info| self.model.architecture.is_embedding(&info.name));
        embeddings.filter_map(|info| Some((info.name.as_str(), *info.shape.first()?))).min_by_key(|(_, rows)| *rows)
    }

    /// That the index says how many bytes there are, and that no shard lies there that nobody names. (That index and headers name the same
    /// tensors was checked when the model was opened.)
    fn index(&mut self) -> Result<()> {
        const INDEX: &str = "model.safetensors.index.json";
        let mut named = Vec::new();
        if let WeightFiles::Sharded(path) = find_weights(self.folder)? {
            let index = ShardIndex::read(&path)?;
            let bytes: u64 = self.tensors().map(|info| info.elements() * info.dtype.size() as u64).sum();
            if let Some(said) = index.total_size().filter(|said| *said != bytes as f64) {
                let message = format!("{INDEX}: metadata.total_size: expected {bytes}, the bytes of all tensors, found {said}");
                self.warning(message, "programs that plan memory by it plan wrongly; write the right number there");
            }
            named.extend(index.shards().into_iter().map(str::to_owned));
        }
        let is_shard = |name: &str| name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors");
        let mut strays = side_files::names(self.folder)?;
        strays.retain(|name| is_shard(name) && !named.contains(name));
        if let Some(stray) = strays.first() {
            let message = format!("{stray}: {} that no index names, so that nobody reads what is in them", counted(strays.len(), "shard"));
            self.warning(message, "they are left from another model: remove them");
        }
        Ok(())
    }
}

/// `1 layer`, `3 layers`.
fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
