//! A merge that is not written: its tensors in memory, in f32, for whoever runs the model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use deltaic_checkpoint::{Config, DType, Error, Result, TensorInfo, TensorSource, Window, shorten};

use crate::engine::{self, Control, Progress, Sink};
use crate::methods::Trim;
use crate::output::MergeOptions;
use crate::plan::{Plan, PlanOptions, TensorPlan};
use crate::recipe::Recipe;

/// A merged model in memory. Its sums are f32, whatever the recipe writes: nothing is rounded on the way to where the model is run.
#[derive(Debug)]
pub struct MergedInMemory {
    /// Its config.json, as the merge would write it, with dtype float32.
    pub config: Config,
    /// The model folder from which the merge would copy the tokenizer.
    pub tokenizer: PathBuf,
    /// What the user should know of the plan.
    pub warnings: Vec<String>,
    /// What the method trimmed of each model over the whole of it (the paper's `ties`); empty for other methods.
    pub trims: Vec<Trim>,
    /// Hash of the resolved recipe and of what its sources are: the same merge has the same.
    pub id: String,
    tensors: BTreeMap<String, TensorInfo>,
    bytes: BTreeMap<String, Vec<u8>>,
    metadata: BTreeMap<String, String>,
    files: Vec<PathBuf>,
}

impl MergedInMemory {
    /// One model of a recipe after its sparsifier, counted from 0, the base not counted: what the statistics of Fisher merging and RegMean
    /// are made of where models are sparsified first. It has the mask that it has in the recipe, and its own of the tensors that are excluded.
    ///
    /// # Errors
    /// As [`Recipe::alone`] and [`MergedInMemory::merge`].
    pub fn sparsified(
        recipe: &Recipe,
        model: usize,
        plan: PlanOptions,
        options: &MergeOptions,
        cancel: &AtomicBool,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Self> {
        Self::merge(recipe.alone(model)?, plan, options, cancel, progress)
    }

    /// Merges as `recipe` says. It takes the memory of the whole model in f32. Of `options` only threads, kernels and `deny_nan` count.
    ///
    /// # Errors
    /// As [`Plan::new`] and [`merge`](crate::merge), of what concerns the sources.
    pub fn merge(
        mut recipe: Recipe,
        plan: PlanOptions,
        options: &MergeOptions,
        cancel: &AtomicBool,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Self> {
        recipe.out_dtype = Some(DType::F32);
        // One shard: where the files would be cut means nothing here.
        let plan = Plan::new(recipe, PlanOptions { shard_bytes: Some(0), ..plan })?;
        let memory = Memory::new(&plan)?;
        let control = Control {
            threads: options.threads,
            kernels: options.kernels()?,
            count_swallowed: false,
            deny_nan: options.deny_nan,
            cancel,
            progress,
        };
        let remarks = engine::run(&plan, &memory, &control)?;
        let info = |tensor: &TensorPlan| TensorInfo { name: tensor.name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() };
        let names = plan.tensors.iter().map(|tensor| tensor.name.clone());
        Ok(Self {
            config: plan.config.clone(),
            tokenizer: plan.sources[plan.tokenizer_from.unwrap_or(plan.side_files_from)].folder().to_owned(),
            warnings: plan.warnings.iter().cloned().chain(remarks).collect(),
            trims: plan.model_wide.as_ref().map_or_else(Vec::new, |model_wide| model_wide.trims(&memory.gathered())),
            id: plan.hash(),
            tensors: plan.tensors.iter().map(|tensor| (tensor.name.clone(), info(tensor))).collect(),
            bytes: names
                .zip(memory.tensors.into_iter().map(|tensor| tensor.into_inner().unwrap_or_else(PoisonError::into_inner)))
                .collect(),
            metadata: BTreeMap::new(),
            files: plan.sources.iter().flat_map(|source| source.tensors.file_paths()).collect(),
        })
    }
}

impl TensorSource for MergedInMemory {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        let Some((info, bytes)) = self.tensors.get(name).zip(self.bytes.get(name)) else {
            return Err(Error::new(format!("{}: the merged model has no such tensor", shorten(name))));
        };
        window.fill(info, Path::new("the merged model"), start, count, |target| {
            let from = start as usize * info.dtype.size();
            target.copy_from_slice(&bytes[from..from + target.len()]);
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

/// The sink: a buffer for every tensor of the plan.
struct Memory {
    tensors: Vec<Mutex<Vec<u8>>>,
    /// What was gathered over the whole model.
    gathered: Mutex<Vec<f64>>,
}

impl Memory {
    fn new(plan: &Plan) -> Result<Self> {
        let buffer = |tensor: &TensorPlan| {
            let bytes = tensor.elements() as usize * tensor.dtype.size();
            let mut buffer = Vec::new();
            buffer.try_reserve_exact(bytes).map_err(|_| {
                Error::new(format!("{}: no memory for its {bytes} bytes: the merged model has to fit into memory", tensor.name))
                    .help("write the merge with `deltaic merge`, and run what is written")
            })?;
            buffer.resize(bytes, 0);
            Ok(Mutex::new(buffer))
        };
        Ok(Self { tensors: plan.tensors.iter().map(buffer).collect::<Result<_>>()?, gathered: Mutex::default() })
    }

    fn gathered(&self) -> Vec<f64> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for Memory {
    fn write(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut buffer = self.tensors[tensor].lock().unwrap_or_else(PoisonError::into_inner);
        buffer[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn gathered(&self, numbers: &[f64]) -> Result<()> {
        *self.gathered.lock().unwrap_or_else(PoisonError::into_inner) = numbers.to_vec();
        Ok(())
    }
}
