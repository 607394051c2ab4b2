//! A body with the head of another model (`--head-from`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use deltaic_checkpoint::{Architecture, Config, Error, Result, TensorInfo, TensorSource, Window};

use crate::weights::canonical_name;

/// The tensors of a body, with those of another model's head in place of its own. A pooler that the body lacks comes with the head, which
/// was trained on it.
#[derive(Debug)]
pub struct HeadFrom {
    body: Box<dyn TensorSource>,
    head: Box<dyn TensorSource>,
    tensors: BTreeMap<String, TensorInfo>,
    /// Names, as they are here, of what comes from the head's model, with that model's own names.
    from_head: BTreeMap<String, String>,
}

impl HeadFrom {
    /// Puts the head of `head` on `body`. `head_config` is of the head's model; the shapes that config.json of the body cannot know, the
    /// number of labels, are the head's.
    ///
    /// # Errors
    /// The two are not of one architecture, or the other model has no head either.
    pub fn new(body: Box<dyn TensorSource>, body_config: &Config, head: Box<dyn TensorSource>, head_config: &Config) -> Result<Self> {
        let body_architecture = Architecture::of(body_config, body.tensors().keys().map(String::as_str));
        let head_architecture = Architecture::of(head_config, head.tensors().keys().map(String::as_str));
        let folder = |config: &Config| config.path().parent().unwrap_or(config.path()).display().to_string();
        if !body_architecture.same_family(&head_architecture) {
            let kind = |architecture: &Architecture| architecture.model_type().unwrap_or("unknown").to_owned();
            let (body, head) = (kind(&body_architecture), kind(&head_architecture));
            let (place, other) = (folder(head_config), folder(body_config));
            return Err(Error::new(format!("{place}: expected a {body} model, as {other} is, to take its head; found {head}")));
        }
        let mut tensors: BTreeMap<String, TensorInfo> = body
            .tensors()
            .iter()
            .filter(|(name, _)| !body_architecture.is_head(name))
            .map(|(name, info)| (name.clone(), info.clone()))
            .collect();
        let known: BTreeSet<String> = tensors.keys().map(|name| canonical_name(name, body_architecture.prefix())).collect();
        let mut from_head = BTreeMap::new();
        let mut has_head = false;
        for (name, info) in head.tensors() {
            let canonical = canonical_name(name, head_architecture.prefix());
            let is_head = head_architecture.is_head(name);
            has_head |= is_head;
            let pooler = canonical.starts_with("pooler.") && !known.contains(&canonical);
            if !is_head && !pooler {
                continue;
            }
            let here = if is_head { name.clone() } else { format!("{}{canonical}", body_architecture.prefix()) };
            tensors.insert(here.clone(), TensorInfo { name: here.clone(), ..info.clone() });
            from_head.insert(here, name.clone());
        }
        if !has_head {
            return Err(Error::new(format!("{}: expected a model with a head, found no tensor of one", folder(head_config)))
                .help("`--head-from` takes a fine-tuned model, which has `classifier.weight`"));
        }
        Ok(Self { body, head, tensors, from_head })
    }
}

impl TensorSource for HeadFrom {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        match self.from_head.get(name) {
            Some(own) => self.head.read(own, start, count, window),
            None => self.body.read(name, start, count, window),
        }
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        self.body.metadata()
    }

    fn file_paths(&self) -> Vec<PathBuf> {
        self.body.file_paths().into_iter().chain(self.head.file_paths()).collect()
    }
}
