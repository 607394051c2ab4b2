//! Tensors by name, lazily read: the common language of deltaic's crates.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use crate::dtype::DType;
use crate::error::Result;

/// Name, dtype and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name as the source spells it.
    pub name: String,
    /// The dtype in which it is stored (for a sum that is computed, such as a base with an adapter: the base's).
    pub dtype: DType,
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A reusable buffer for a run of one tensor's elements, in row-major order, little endian.
#[derive(Debug)]
pub struct Window {
    /// The dtype of `bytes`. It may be wider than the tensor's own: a sum with an adapter is F32.
    pub dtype: DType,
    /// The elements, `count * dtype.size()` bytes.
    pub bytes: Vec<u8>,
}

/// Named, typed tensors, any part of which can be read at any time from any thread.
///
/// Files are one; so are a base with an adapter on it, and later a plan itself or a file of statistics.
pub trait TensorSource: Send + Sync + Debug {
    /// All tensors by name.
    fn tensors(&self) -> &BTreeMap<String, TensorInfo>;

    /// Reads the elements `start .. start + count` of tensor `name` into `window`, whose buffer is reused.
    ///
    /// # Errors
    /// The tensor does not exist, the range leaves it, or the file cannot be read: the message names file and tensor.
    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()>;

    /// String metadata that the source carries (safetensors' `__metadata__`), joined over its files.
    fn metadata(&self) -> &BTreeMap<String, String>;

    /// The files that decide its elements, in a fixed order: weights, and what says how they are added. By their content it is known.
    fn file_paths(&self) -> Vec<PathBuf>;
}
