//! An opened model folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::architecture::Architecture;
use crate::config::Config;
use crate::dtype::shorten;
use crate::error::{Error, Result};
use crate::folder::{WeightFiles, find_weights};
use crate::formats::index::ShardIndex;
use crate::formats::weight_file::WeightFile;
use crate::tensor::{TensorInfo, TensorSource, Window};

/// A model folder: its configuration, and its tensors over all shards.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder, as it was opened.
    pub folder: PathBuf,
    /// Its `config.json`.
    pub config: Config,
    /// What is known of its architecture, with the prefix as this checkpoint spells it.
    pub architecture: Architecture,
    files: Vec<WeightFile>,
    tensors: BTreeMap<String, TensorInfo>,
    holders: BTreeMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a model folder: reads `config.json` and the headers of all shards and checks them; reads no weights.
    ///
    /// # Errors
    /// The folder is not there, has no readable `config.json` or no weights, or a file breaks its format's rules.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let found = if path.exists() { "a file" } else { "nothing" };
            return Err(Error::new(format!("{}: expected a model folder, found {found}", path.display())));
        }
        let weights = find_weights(path)?;
        let config = Config::read(path)?;
        let files = match weights {
            WeightFiles::Single(file) => vec![WeightFile::open(&file)?],
            WeightFiles::Sharded(index) => ShardIndex::read(&index)?.open()?,
        };
        let mut tensors = BTreeMap::new();
        let mut holders = BTreeMap::new();
        let mut metadata = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for (name, info) in file.tensors() {
                tensors.insert(name.clone(), info.clone());
                holders.insert(name.clone(), number);
            }
            for (key, value) in file.metadata() {
                metadata.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let architecture = Architecture::of(&config, tensors.keys().map(String::as_str));
        Ok(Self { folder: path.to_owned(), config, architecture, files, tensors, holders, metadata })
    }

    /// The shards, in the order of their names.
    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, name: &str) -> Option<&WeightFile> {
        self.holders.get(name).map(|&number| &self.files[number])
    }

    /// Reads elements of a tensor from `start` on, in its own dtype, until `bytes` is full.
    ///
    /// # Errors
    /// As [`WeightFile::read_into`].
    pub fn read_into(&self, name: &str, start: u64, bytes: &mut [u8]) -> Result<()> {
        self.holder(name)?.read_into(name, start, bytes)
    }

    fn holder(&self, name: &str) -> Result<&WeightFile> {
        self.file_of(name).ok_or_else(|| Error::new(format!("{}: {}: the model has no such tensor", self.folder.display(), shorten(name))))
    }
}

impl TensorSource for Checkpoint {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        let file = self.holder(name)?;
        window.fill(&self.tensors[name], file.path(), start, count, |bytes| file.read_into(name, start, bytes))
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}
