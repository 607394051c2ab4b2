//! Statistics that stay in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deltaic_checkpoint::{DType, Error, Result, TensorInfo, TensorSource, Window, shorten};

use super::run::{Resumed, Store};
use super::slots::{PassSlots, SlotSpec};

/// A model's statistics: f32 tensors by the model's own names, with what they are as metadata (see [`About`](super::About)).
#[derive(Debug)]
pub struct Statistics {
    tensors: BTreeMap<String, TensorInfo>,
    /// Layers with one input share their matrix.
    bytes: BTreeMap<String, Arc<[u8]>>,
    metadata: BTreeMap<String, String>,
    files: Vec<PathBuf>,
}

impl Statistics {
    /// Tensors still to be made; what is not made are zeros. `files` are those of the model that they are made from.
    pub(crate) fn new(shapes: &[(String, DType, Vec<u64>)], metadata: BTreeMap<String, String>, files: Vec<PathBuf>) -> Self {
        let info = |(name, dtype, shape): &(String, DType, Vec<u64>)| {
            (name.clone(), TensorInfo { name: name.clone(), dtype: *dtype, shape: shape.clone() })
        };
        Self { tensors: shapes.iter().map(info).collect(), bytes: BTreeMap::new(), metadata, files }
    }
}

impl Store for Statistics {
    fn resume(&mut self, _specs: &[SlotSpec], _passes: &[Range<usize>]) -> Result<Resumed> {
        Ok(Resumed { pass: 0, step: 0, slots: None })
    }

    fn note(&mut self, _pass: usize, _step: usize, _slots: Option<&PassSlots>) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, names: &[String], bytes: Vec<u8>) -> Result<()> {
        let bytes: Arc<[u8]> = bytes.into();
        self.bytes.extend(names.iter().map(|name| (name.clone(), Arc::clone(&bytes))));
        Ok(())
    }
}

impl TensorSource for Statistics {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        let Some(info) = self.tensors.get(name) else {
            return Err(Error::new(format!("{}: the statistics have no such tensor", shorten(name))));
        };
        window.fill(info, Path::new("the statistics in memory"), start, count, |target| {
            let from = start as usize * info.dtype.size();
            match self.bytes.get(name) {
                Some(bytes) => target.copy_from_slice(&bytes[from..from + target.len()]),
                None => target.fill(0),
            }
            Ok(())
        })
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn file_paths(&self) -> Vec<PathBuf> {
        self.files.clone()
    }
}
