//! A model's tensors, read from any [`TensorSource`] as f32.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use candle_core::{Device, Tensor, Var};
use deltaic_checkpoint::{Architecture, Config, Error, Result, TensorSource, Window, shorten};
use deltaic_kernels::Kernels;

use crate::device::Computed;

/// Elements that are read at once.
const WINDOW: usize = 1 << 18;

/// What a model is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Answers only: fused kernels, no gradients.
    Inference,
    /// Every operation has a gradient, and every parameter is a [`Var`].
    Differentiable,
}

/// The tensors of a source under canonical names: without the backbone's prefix (`bert.`, `model.`, or none), `LayerNorm.gamma` and
/// `.beta` as `.weight` and `.bias`. Each is read when it is taken.
pub struct Weights<'s> {
    source: &'s dyn TensorSource,
    architecture: Architecture,
    folder: PathBuf,
    mode: Mode,
    device: Device,
    /// Canonical names with the source's own.
    stored: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    parameters: BTreeMap<String, Var>,
}

impl<'s> Weights<'s> {
    /// The tensors of `source`, whose architecture `config` says.
    ///
    /// # Errors
    /// Two tensors have one canonical name, or the weights are quantized.
    pub fn open(source: &'s dyn TensorSource, config: &Config, mode: Mode, device: &Device) -> Result<Self> {
        let folder = config.path().parent().unwrap_or(config.path()).to_owned();
        if config.is_quantized() {
            return Err(Error::new(format!("{}: `quantization_config`: quantized weights cannot be run", config.path().display()))
                .help("take the model's 16-bit or 32-bit weights, or a server with `--endpoint URL --model NAME`"));
        }
        let architecture = Architecture::of(config, source.tensors().keys().map(String::as_str));
        let mut stored = BTreeMap::new();
        for name in source.tensors().keys() {
            let canonical = canonical_name(name, architecture.prefix());
            if let Some(other) = stored.insert(canonical.clone(), name.clone()) {
                let (one, other) = (shorten(name), shorten(&other));
                return Err(Error::new(format!("{}: {other} and {one} are both {}", folder.display(), shorten(&canonical))));
            }
        }
        let device = device.clone();
        Ok(Self { source, architecture, folder, mode, device, stored, taken: BTreeSet::new(), parameters: BTreeMap::new() })
    }

    /// What the model is loaded for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What is known of the architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Whether there is a tensor of this canonical name.
    pub fn contains(&self, name: &str) -> bool {
        self.stored.contains_key(name)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[u64]> {
        Some(&self.source.tensors()[self.stored.get(name)?].shape)
    }

    /// Reads a tensor of the expected shape as f32: exactly, but for F64, which is rounded.
    ///
    /// # Errors
    /// It is not there (where it belongs to a head, the help says `--head-from`), is not of this shape, holds no floats, or cannot be read.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(stored) = self.stored.get(name).cloned() else { return Err(self.missing(name)) };
        let info = &self.source.tensors()[&stored];
        let place = || format!("{}: {}", self.folder.display(), shorten(&stored));
        if !info.shape.iter().copied().eq(shape.iter().map(|&length| length as u64)) {
            return Err(Error::new(format!("{}: expected shape {shape:?} by config.json, found {:?}", place(), info.shape))
                .help("config.json and weights are not of one model: `deltaic inspect` shows both"));
        }
        let count: usize = shape.iter().product();
        let mut values: Vec<f32> = Vec::new();
        values.try_reserve_exact(count).map_err(|_| Error::new(format!("{}: no memory for {count} elements", place())))?;
        let mut window = Window { dtype: info.dtype, bytes: Vec::new() };
        while values.len() < count {
            let start = values.len();
            let length = WINDOW.min(count - start);
            self.source.read(&stored, start as u64, length, &mut window)?;
            let Some(format) = window.dtype.float_format() else {
                return Err(Error::new(format!("{}: expected floats, found {}", place(), window.dtype.safetensors_name())));
            };
            values.resize(start + length, 0.0);
            Kernels::detect().widen(format, &window.bytes, &mut values[start..]);
        }
        let tensor = Tensor::from_vec(values, shape, &self.device).computed()?;
        self.taken.insert(name.to_owned());
        if self.mode == Mode::Inference {
            return Ok(tensor);
        }
        let variable = Var::from_tensor(&tensor).computed()?;
        let tensor = variable.as_tensor().clone();
        self.parameters.insert(name.to_owned(), variable);
        Ok(tensor)
    }

    /// Ends the reading: the parameters by canonical name, none in inference.
    ///
    /// # Errors
    /// The backbone has tensors that nobody took: config.json describes another architecture than the weights have.
    pub fn finish(self) -> Result<BTreeMap<String, Var>> {
        let left: Vec<&String> = self
            .stored
            .iter()
            .filter(|(canonical, stored)| {
                let known = self.taken.contains(*canonical) || self.architecture.is_buffer(stored);
                !known && !self.architecture.is_head(canonical) && !self.architecture.is_head(stored)
            })
            .map(|(_, stored)| stored)
            .collect();
        let Some(first) = left.first() else { return Ok(self.parameters) };
        let (place, more) = (self.folder.display(), left.len());
        let model = self.architecture.model_type().unwrap_or("unknown").to_owned();
        Err(Error::new(format!("{place}: {}: a {} model has no such tensor ({more} in all)", shorten(first), shorten(&model)))
            .help("config.json's `model_type` and keys have to be those of the weights"))
    }

    fn missing(&self, name: &str) -> Error {
        let error = Error::new(format!("{}: {}: the model has no such tensor", self.folder.display(), shorten(name)));
        let of_head = self.architecture.is_head(name) || name.starts_with("pooler.");
        if of_head && !self.architecture.is_decoder() {
            return error.help("it has a body without a classification head: `--head-from MODEL` takes the head of another model");
        }
        error.help("config.json asks for it: the weights are incomplete, or not of this configuration")
    }
}

/// A tensor's name without the backbone's `prefix`, in today's spelling.
pub fn canonical_name(name: &str, prefix: &str) -> String {
    let name = name.strip_prefix(prefix).unwrap_or(name);
    // As in the first BERTs, converted from TensorFlow.
    match (name.strip_suffix("LayerNorm.gamma"), name.strip_suffix("LayerNorm.beta")) {
        (Some(start), _) => format!("{start}LayerNorm.weight"),
        (_, Some(start)) => format!("{start}LayerNorm.bias"),
        _ => name.to_owned(),
    }
}
