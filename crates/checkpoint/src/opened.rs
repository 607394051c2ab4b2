//! A model as it is named, found and opened.

use std::path::{Path, PathBuf};

use crate::adapter::AdaptedModel;
use crate::architecture::Architecture;
use crate::config::Config;
use crate::error::Result;
use crate::hub::{Found, Located, locate};
use crate::identity::{FileIdentity, joined_id};
use crate::model::Checkpoint;
use crate::reference::ModelReference;
use crate::tensor::TensorSource;

/// An opened model: a folder, perhaps with an adapter on it.
#[derive(Debug)]
pub struct OpenedModel {
    /// How it was named.
    pub reference: ModelReference,
    /// Where it lies.
    pub model: Located,
    /// Where its adapter lies.
    pub adapter: Option<Located>,
    /// Its tensors.
    pub tensors: Box<dyn TensorSource>,
    /// Its config.json.
    pub config: Config,
    /// What is known of its architecture.
    pub architecture: Architecture,
    /// The files of its weights, known by their content.
    pub files: Vec<FileIdentity>,
}

impl OpenedModel {
    /// Finds and opens a model; `folders` are those where a relative path is looked for, with what they are, for messages.
    ///
    /// # Errors
    /// The model or its adapter is nowhere, or a file of theirs breaks its format's rules.
    pub fn open(reference: &ModelReference, folders: &[(PathBuf, &str)]) -> Result<Self> {
        let model = locate(&reference.path, reference.revision.as_deref(), folders)?;
        let checkpoint = Checkpoint::open(&model.path)?;
        let (config, architecture) = (checkpoint.config.clone(), checkpoint.architecture.clone());
        let (adapter, tensors): (_, Box<dyn TensorSource>) = match &reference.lora {
            None => (None, Box::new(checkpoint)),
            Some((lora, revision)) => {
                let adapter = locate(lora, revision.as_deref(), folders)?;
                let adapted = AdaptedModel::new(checkpoint, &adapter.path)?;
                (Some(adapter), Box::new(adapted))
            }
        };
        let files = tensors.file_paths().iter().map(|path| FileIdentity::of(path)).collect::<Result<_>>()?;
        Ok(Self { reference: reference.clone(), model, adapter, tensors, config, architecture, files })
    }

    /// An id of its content, the same wherever it lies: SHA-256 over samples of its files, in hexadecimal digits.
    pub fn id(&self) -> String {
        joined_id(&self.files)
    }

    /// The model's folder.
    pub fn folder(&self) -> &Path {
        &self.model.path
    }

    /// The reference as it may be published: a local folder goes by its last path component.
    pub fn labelled_reference(&self) -> ModelReference {
        let label = |name: &str, located: &Located| match located.found {
            Found::Hub { .. } => name.to_owned(),
            Found::Path(_) => ModelReference::new(name).label_where(false, false),
        };
        let lora = self.reference.lora.as_ref().zip(self.adapter.as_ref());
        ModelReference {
            path: label(&self.reference.path, &self.model),
            revision: self.reference.revision.clone(),
            lora: lora.map(|((name, revision), located)| (label(name, located), revision.clone())),
        }
    }

    /// The reference with absolute paths, and with commits where it came from the Hub's cache: it names the same files from any folder.
    pub fn absolute_reference(&self) -> ModelReference {
        let pinned = |located: &Located| match &located.found {
            Found::Hub { name, commit } => (name.clone(), Some(commit.clone())),
            Found::Path(_) => (located.path.to_string_lossy().into_owned(), None),
        };
        let (path, revision) = pinned(&self.model);
        ModelReference { path, revision, lora: self.adapter.as_ref().map(pinned) }
    }
}
