//! Tensors by name, lazily read: the common language of deltaic's crates.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use crate::dtype::{DType, shorten};
use crate::error::{Error, Result};

/// More dimensions than torch allows are not a tensor.
pub(crate) const MAX_DIMENSIONS: usize = 64;

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

    /// A tensor as an untrusted file names and shapes it, and its size in bytes. No product of its dimensions overflows later.
    ///
    /// # Errors
    /// The name is too long or has control characters, there are too many dimensions, or more than 2^64 bytes. The message names the
    /// tensor, but not the file.
    pub(crate) fn checked(name: String, dtype: DType, shape: Vec<u64>) -> Result<(Self, u64)> {
        check_name(&name)?;
        if shape.len() > MAX_DIMENSIONS {
            return Err(Error::new(format!("{}: expected at most {MAX_DIMENSIONS} dimensions, found {}", shorten(&name), shape.len())));
        }
        // Counted without zeros first, so that no partial product overflows later, whatever the order of dimensions.
        let product = shape.iter().filter(|&&length| length != 0).try_fold(dtype.size() as u64, |bytes, &length| bytes.checked_mul(length));
        let Some(product) = product else {
            return Err(Error::new(format!("{}: the shape {shape:?} has more than 2^64 bytes", shorten(&name))));
        };
        let size = if shape.contains(&0) { 0 } else { product };
        Ok((Self { name, dtype, shape }, size))
    }

    /// An error unless elements `start .. start + count` are within the tensor.
    pub(crate) fn check_range(&self, path: &Path, start: u64, count: u64) -> Result<()> {
        if start.checked_add(count).is_some_and(|end| end <= self.elements()) {
            return Ok(());
        }
        let (name, elements) = (shorten(&self.name), self.elements());
        Err(Error::new(format!("{}: {name}: elements {start} + {count} were asked for, it has {elements}", path.display())))
    }

    /// How many elements `bytes` bytes are, where they are a whole number and within the tensor from element `start` on.
    pub(crate) fn count_of(&self, path: &Path, start: u64, bytes: usize) -> Result<u64> {
        let size = self.dtype.size();
        if !bytes.is_multiple_of(size) {
            let name = shorten(&self.name);
            return Err(Error::new(format!("{}: {name}: {bytes} bytes are no whole number of elements of {size} bytes", path.display())));
        }
        let count = (bytes / size) as u64;
        self.check_range(path, start, count)?;
        Ok(count)
    }
}

/// Names go into messages and tables: a file must not be able to forge or flood these.
fn check_name(name: &str) -> Result<()> {
    const LONGEST_NAME: usize = 1024;
    if name.len() <= LONGEST_NAME && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::new(format!("{}: no name of a tensor: over {LONGEST_NAME} bytes, or with control characters", shorten(name)))
        .help("the file is damaged, or made to mislead: get it from its source again"))
}

/// A reusable buffer for a run of one tensor's elements, in row-major order, little endian.
#[derive(Debug)]
pub struct Window {
    /// The dtype of `bytes`. It may be wider than the tensor's own: a sum with an adapter is F32.
    pub dtype: DType,
    /// The elements, `count * dtype.size()` bytes.
    pub bytes: Vec<u8>,
}

impl Window {
    /// Checks that `start .. start + count` lies within the tensor, sizes the window for it, and lets `read` fill it: what an
    /// implementation of [`TensorSource::read`] needs. `path` is named in messages.
    ///
    /// # Errors
    /// The range leaves the tensor, or `read` fails.
    pub fn fill(
        &mut self,
        info: &TensorInfo,
        path: &Path,
        start: u64,
        count: usize,
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        info.check_range(path, start, count as u64)?;
        self.dtype = info.dtype;
        self.bytes.resize(count * info.dtype.size(), 0);
        read(&mut self.bytes)
    }
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
