//! What a folder says of itself, held against what planning gives again from the recorded sources: config.json, the weights' headers,
//! `deltaic.yml` and `mergekit_config.yml`. It reads headers and small files only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use deltaic_checkpoint::{Checkpoint, Context, Error, Result, Shard, TensorSource, open_regular, shorten};
use serde_json::Value;

use crate::checks::folder::{Finding, Severity};
use crate::plan::{Plan, Source};
use crate::recipe::{Document, Recorded, RecordedFile, RecordedSource, UnknownPolicy, parse};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Keys of the weights' metadata.
const VERSION_KEY: &str = "deltaic.version";
const SOURCES_KEY: &str = "deltaic.sources";

/// A longer header the format does not allow.
const MAX_HEADER: u64 = 100_000_000;

/// What to do about weights that are others.
const OTHER_WEIGHTS: &str = "the weights are not those that the merge writes";
/// What to do about a `deltaic.yml` that says something else.
const OTHER_RECORD: &str = "deltaic.yml was changed since the merge, or a source's config.json was: merge again for one that is true. \
                            Where only the sources' places are others, put links at the old ones";

/// Whether weights say that deltaic made them.
pub(super) fn is_ours(metadata: &BTreeMap<String, String>) -> bool {
    metadata.contains_key(VERSION_KEY)
}

/// What the sources were for the merge they have to be now. `metadata` is the weights': an id that these have too is right, whatever
/// `deltaic.yml` says.
pub(super) fn check_sources(plan: &Plan, recorded: &Recorded, metadata: Option<&BTreeMap<String, String>>) -> Result<()> {
    let of_weights: Vec<String> = metadata.and_then(|metadata| serde_json::from_str(metadata.get(SOURCES_KEY)?).ok()).unwrap_or_default();
    for (number, (source, RecordedSource { id, .. })) in plan.sources.iter().zip(&recorded.sources).enumerate() {
        let now = source.id();
        if now != *id && of_weights.get(number) != Some(&now) {
            return Err(Error::new(format!(
                "{}: not the model that was merged: the id of its content is {now}, deltaic.yml has {}",
                source.absolute_reference(),
                shorten(id)
            ))
            .help("put the model back as it was; without --full and --sample the folder alone is checked"));
        }
    }
    Ok(())
}

/// All that is not as planning gives it again.
///
/// # Errors
/// A file of the weights cannot be read.
pub(super) fn findings(out: &Path, model: &Checkpoint, plan: &Plan, recorded: &Recorded) -> Result<Vec<Finding>> {
    let mut held = Held { plan, recorded, findings: Vec::new() };
    if model.config.to_json() != plan.config.to_json() {
        let help = "it was changed since, or that of its source was; if that was meant, all is well with it";
        held.broken("config.json: not what the merge writes".to_owned(), help);
    }
    held.version(model.metadata().get(VERSION_KEY));
    held.headers(model)?;
    held.tensors(model);
    held.record();
    held.given_recipe(out);
    Ok(held.findings)
}

struct Held<'a> {
    plan: &'a Plan,
    recorded: &'a Recorded,
    findings: Vec<Finding>,
}

impl Held<'_> {
    fn broken(&mut self, message: String, help: &str) {
        self.findings.push(Finding { severity: Severity::Broken, error: Error::new(message).help(help) });
    }

    fn warning(&mut self, message: String, help: &str) {
        self.findings.push(Finding { severity: Severity::Warning, error: Error::new(message).help(help) });
    }

    /// Whether this version of deltaic made the model, so that it has to write the same.
    fn is_this_version(&self) -> bool {
        self.recorded.version == VERSION
    }

    /// The version that `deltaic.yml` records, against the one that the weights have.
    fn version(&mut self, of_weights: Option<&String>) {
        let said = shorten(&self.recorded.version);
        if let Some(version) = of_weights.filter(|version| **version != self.recorded.version) {
            let message = format!("deltaic.yml: version: expected {}, as the weights have it, found {said}", shorten(version));
            self.broken(message, OTHER_RECORD);
        } else if !self.is_this_version() {
            let message = format!("deltaic.yml: made by deltaic {said}, this is {VERSION}: the plan's hash was not compared");
            self.warning(message, "verify it with that version to have all of it compared");
        }
    }

    /// The headers of the weights' files; of another version's all but the version.
    fn headers(&mut self, model: &Checkpoint) -> Result<()> {
        let plan = self.plan;
        for shard in plan.layout.shards() {
            let found = model.files().iter().find(|file| file.path().ends_with(&shard.file_name));
            let equal = match found {
                None => false,
                Some(file) if self.is_this_version() => first_bytes(file.path(), shard.header.len())? == shard.header,
                Some(file) => equal_but_for_the_version(shard, file.path())?,
            };
            if !equal {
                let message = format!("{}: its header is not what the merge writes", shard.file_name);
                self.broken(message, "the file was damaged or changed since");
            }
        }
        Ok(())
    }

    /// That the tensors are those of the plan.
    fn tensors(&mut self, model: &Checkpoint) {
        let plan = self.plan;
        for tensor in &plan.tensors {
            let found = model.tensors().get(&tensor.name).map(|info| (info.dtype, &info.shape));
            if found != Some((tensor.dtype, &tensor.shape)) {
                let found = found.map_or("nothing".to_owned(), |(dtype, shape)| format!("{} {shape:?}", dtype.safetensors_name()));
                let expected = tensor.dtype.safetensors_name();
                self.broken(format!("{}: expected {expected} {:?}, found {found}", tensor.name, tensor.shape), OTHER_WEIGHTS);
            }
        }
        let known: BTreeSet<&str> = plan.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        for name in model.tensors().keys().filter(|name| !known.contains(name.as_str())) {
            self.broken(format!("{}: the merge writes no such tensor", shorten(name)), OTHER_WEIGHTS);
        }
    }

    /// A value that `deltaic.yml` records, against the one that planning gives.
    fn recorded_is(&mut self, what: &str, expected: impl Display, found: impl Display) {
        let (expected, found) = (expected.to_string(), found.to_string());
        if expected != found {
            self.broken(format!("deltaic.yml: {what}: expected {}, found {}", shorten(&expected), shorten(&found)), OTHER_RECORD);
        }
    }

    /// What `deltaic.yml` records beside the recipe.
    fn record(&mut self) {
        let (plan, recorded) = (self.plan, self.recorded);
        if self.is_this_version() {
            self.recorded_is("the plan's hash", plan.hash(), &recorded.plan);
        }
        let none = || "none".to_owned();
        let seed = |seed: Option<u64>| seed.map_or_else(none, |seed| seed.to_string());
        self.recorded_is("seed", seed(plan.draws_from_the_recipes_seed().then_some(plan.seed)), seed(recorded.seed));
        let masks: Vec<(u64, u64)> = plan.masks.iter().map(|id| (id.seed, id.stream)).collect();
        let found = recorded.masks.as_ref().map_or_else(none, |masks| format!("{masks:?}"));
        self.recorded_is("masks (seed, stream)", format!("{masks:?}"), found);
        self.recorded_is("number of sources", plan.sources.len(), recorded.sources.len());
        for (source, recorded) in plan.sources.iter().zip(&recorded.sources) {
            self.source(source, recorded);
        }
    }

    fn source(&mut self, source: &Source, recorded: &RecordedSource) {
        let name = source.absolute_reference().to_string();
        self.recorded_is("sources: model", &name, &recorded.model);
        self.recorded_is(&format!("sources: id of {}", shorten(&name)), source.id(), &recorded.id);
        self.recorded_is(&format!("sources: number of files of {}", shorten(&name)), source.files.len(), recorded.files.len());
        for (file, recorded) in source.files.iter().zip(&recorded.files) {
            let RecordedFile { name, bytes, sample, blob } = recorded;
            let bytes = bytes.map_or("?".to_owned(), |bytes| bytes.to_string());
            let expected = format!("{} of {} bytes, {}", file.name(), file.bytes, file.sample);
            self.recorded_is("sources: file", expected, format!("{name} of {bytes} bytes, {sample}"));
            // What is a link into the Hub's cache at one time may be the file itself at another.
            if let (Some(expected), Some(found)) = (&file.blob, blob) {
                self.recorded_is("sources: blob", expected, found);
            }
        }
    }

    /// `mergekit_config.yml`, the recipe as it was given, has to say what `deltaic.yml` says. What other versions read in it may differ.
    fn given_recipe(&mut self, out: &Path) {
        const NAME: &str = "mergekit_config.yml";
        let path = out.join(NAME);
        if path.symlink_metadata().is_err() {
            let message = format!("{NAME}: expected the recipe as it was given, found none");
            return self.warning(message, "deltaic.yml has the same recipe, resolved");
        }
        let read = || parse(Arc::new(Document::read(&path)?), UnknownPolicy::Ignore);
        let message = match read() {
            Ok((recipe, _)) if self.plan.is_of(&recipe) => return,
            Ok(_) => format!("{NAME}: not the recipe that deltaic.yml has, resolved"),
            Err(error) => error.message().replace(&format!("{}/", out.display()), ""),
        };
        let help =
            "one of the two was changed since the merge: which of them made the weights, `deltaic verify --full` says of deltaic.yml";
        if self.is_this_version() { self.broken(message, help) } else { self.warning(message, help) }
    }
}

/// So many bytes of a file from its beginning, or fewer where it is shorter.
fn first_bytes(path: &Path, count: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(count as u64).read_to_end(&mut bytes).context("reading the header", path)?;
    Ok(bytes)
}

/// Whether a file's header says what a shard's does, the version aside. That it is a header was seen when the file was opened.
fn equal_but_for_the_version(shard: &Shard, path: &Path) -> Result<bool> {
    let said = |header: &[u8]| {
        let mut header: Value = serde_json::from_slice(header.get(8..)?).ok()?;
        header.get_mut("__metadata__").and_then(Value::as_object_mut).map(|metadata| metadata.shift_remove(VERSION_KEY));
        Some(header)
    };
    let length = first_bytes(path, 8)?.try_into().map_or(0, u64::from_le_bytes);
    let found = first_bytes(path, 8 + length.min(MAX_HEADER) as usize)?;
    Ok(said(&found).is_some_and(|found| Some(found) == said(&shard.header)))
}
