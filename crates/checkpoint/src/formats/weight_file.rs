//! One file of weights, whatever its format.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use crate::error::Result;
use crate::formats::safetensors::SafetensorsFile;
use crate::formats::torch::TorchFile;
use crate::tensor::{TensorInfo, TensorSource, Window};

/// An opened file of weights: those who read tensors need not know its format.
#[derive(Debug)]
pub enum WeightFile {
    /// A safetensors file.
    Safetensors(SafetensorsFile),
    /// A file of `torch.save`.
    Torch(TorchFile),
}

impl WeightFile {
    /// Opens a file by the ending of its name: `.bin`, `.pt`, `.pth` and `.ckpt` are PyTorch's, all others safetensors. Reads headers only.
    ///
    /// # Errors
    /// The file cannot be read or breaks a rule of its format; the message names it.
    pub fn open(path: &Path) -> Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("bin" | "pt" | "pth" | "ckpt") => Ok(Self::Torch(TorchFile::open(path)?)),
            _ => Ok(Self::Safetensors(SafetensorsFile::open(path)?)),
        }
    }

    /// The format's name, as `deltaic inspect` prints it.
    pub fn format(&self) -> &'static str {
        match self {
            Self::Safetensors(_) => "safetensors",
            Self::Torch(file) => file.format(),
        }
    }

    /// The file's path, as it was opened.
    pub fn path(&self) -> &Path {
        match self {
            Self::Safetensors(file) => file.path(),
            Self::Torch(file) => file.path(),
        }
    }

    /// The file, opened for reading, for those who copy or hash ranges of it.
    pub fn file(&self) -> &File {
        match self {
            Self::Safetensors(file) => file.file(),
            Self::Torch(file) => file.file(),
        }
    }

    /// Reads elements of a tensor from `start` on, in row-major order and little endian, in its own dtype, until `bytes` is full.
    ///
    /// # Errors
    /// The tensor does not exist, `bytes` holds no whole number of elements or more than there are, or reading fails.
    pub fn read_into(&self, name: &str, start: u64, bytes: &mut [u8]) -> Result<()> {
        match self {
            Self::Safetensors(file) => file.read_into(name, start, bytes),
            Self::Torch(file) => file.read_into(name, start, bytes),
        }
    }

    fn source(&self) -> &dyn TensorSource {
        match self {
            Self::Safetensors(file) => file,
            Self::Torch(file) => file,
        }
    }
}

impl TensorSource for WeightFile {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        self.source().tensors()
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        self.source().read(name, start, count, window)
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        self.source().metadata()
    }
}
