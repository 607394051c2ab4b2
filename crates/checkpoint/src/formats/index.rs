//! `model.safetensors.index.json` and `pytorch_model.bin.index.json`: which shard holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dtype::shorten;
use crate::error::{Error, Result};
use crate::formats::regular_file::{AGAIN, read_text};
use crate::formats::safetensors::UniqueMap;
use crate::formats::weight_file::WeightFile;
use crate::tensor::TensorSource;

/// An index of more bytes is not one.
const MAX_INDEX: u64 = 100_000_000;

/// The weight map of a sharded checkpoint.
#[derive(Debug, Clone)]
pub struct ShardIndex {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
    total_size: Option<f64>,
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: UniqueMap,
    metadata: Option<Box<RawValue>>,
}

/// What the metadata say, where they say it as a number.
#[derive(Deserialize)]
struct RawMetadata {
    total_size: Option<f64>,
}

impl ShardIndex {
    /// Reads an index. Every shard's name must be a plain file name, so that no index leads out of its folder.
    ///
    /// # Errors
    /// The file cannot be read, is no index, names a tensor twice, or a shard outside the folder.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path, MAX_INDEX)?, path)
    }

    /// Reads an index from text; `path` is where it lies, beside its shards.
    ///
    /// # Errors
    /// As [`ShardIndex::read`], but for what reading the file may bring.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let raw: RawIndex = serde_json::from_str(text)
            .map_err(|error| Error::new(format!("{}: not an index of shards: {error}", path.display())).help(AGAIN))?;
        let metadata = raw.metadata.and_then(|metadata| serde_json::from_str::<RawMetadata>(metadata.get()).ok());
        let weight_map = raw.weight_map.0;
        for (name, shard) in &weight_map {
            if !is_plain_file_name(shard) {
                let (tensor, shard) = (shorten(name), shorten(shard));
                return Err(Error::new(format!(
                    "{}: {tensor}: expected a file name within the folder, found the shard `{shard}`",
                    path.display()
                ))
                .help("an index must not lead out of its folder: do not trust this checkpoint"));
            }
        }
        if weight_map.is_empty() {
            return Err(Error::new(format!("{}: the index names no tensors", path.display())).help(AGAIN));
        }
        Ok(Self { path: path.to_owned(), weight_map, total_size: metadata.and_then(|metadata| metadata.total_size) })
    }

    /// The names of the shards, sorted.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Which shard holds which tensor.
    pub fn weight_map(&self) -> &BTreeMap<String, String> {
        &self.weight_map
    }

    /// The bytes of all tensors together, where the index says it: only the tensors' own, no headers.
    pub fn total_size(&self) -> Option<f64> {
        self.total_size
    }

    /// Opens all shards, in the order of their names, and checks that index and shards say the same.
    ///
    /// # Errors
    /// A shard is missing or broken; a tensor of the index is not in its shard, one of a shard not in the index, or in two shards.
    pub fn open(&self) -> Result<Vec<WeightFile>> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut holders: BTreeMap<String, &str> = BTreeMap::new();
        let mut files = Vec::new();
        for shard in self.shards() {
            let path = folder.join(shard);
            if !path.exists() {
                let wanted = self.weight_map.values().filter(|other| *other == shard).count();
                return Err(Error::new(format!("{}: the shard `{shard}` ({wanted} tensors) is not in the folder", self.path.display()))
                    .help("the download is not complete: fetch the missing shard"));
            }
            let file = WeightFile::open(&path)?;
            for name in file.tensors().keys() {
                self.check_holder(name, shard, holders.insert(name.clone(), shard))?;
            }
            files.push(file);
        }
        match self.weight_map.iter().find(|(name, _)| !holders.contains_key(*name)) {
            Some((name, shard)) => {
                Err(self.lie(format!("{}: the index says it is in `{shard}`, but that file does not have it", shorten(name))))
            }
            None => Ok(files),
        }
    }

    /// Checks one tensor that was found in `shard`, and before that perhaps in `earlier`.
    fn check_holder(&self, name: &str, shard: &str, earlier: Option<&str>) -> Result<()> {
        let tensor = shorten(name);
        if let Some(earlier) = earlier {
            return Err(self.lie(format!("{tensor}: the tensor is in two shards, `{earlier}` and `{shard}`")));
        }
        match self.weight_map.get(name) {
            Some(said) if said == shard => Ok(()),
            Some(said) => Err(self.lie(format!("{tensor}: the index says it is in `{said}`, found in `{shard}`"))),
            None => Err(self.lie(format!("{tensor}: found in `{shard}`, but the index does not name it"))),
        }
    }

    fn lie(&self, what: String) -> Error {
        Error::new(format!("{}: {what}", self.path.display())).help("index and shards are not of one checkpoint: download the folder again")
    }
}

/// Whether a name is one file name, without any way out of the folder that holds it.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    plain && !name.contains(['/', '\\', '\0'])
}
