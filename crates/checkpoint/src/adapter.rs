//! A PEFT LoRA adapter on its base, added while it is read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use deltaic_kernels::{FloatFormat, Kernels};

use crate::adapter_config::{AdapterConfig, is_of_module};
use crate::adapter_names::Role;
use crate::dtype::{DType, shorten};
use crate::error::{Error, Result};
use crate::formats::weight_file::WeightFile;
use crate::model::Checkpoint;
use crate::names::{AlignedTensor, SourceNames, align};
use crate::tensor::{TensorInfo, TensorSource, Window};

/// Factors of finished tensors are kept up to so many bytes; those of the tensor at work always.
const CACHE_BYTES: usize = 48 << 20;
/// Elements that are summed at a time: two such blocks fit the first-level cache.
const BLOCK: usize = 1024;

/// A base with a LoRA adapter on it. Adapted tensors are `W + scaling * (B A)`, computed in f32 and not rounded to the base's dtype: their
/// windows are F32. All others are read as they are stored.
///
/// A tensor changes only in the modules that the adapter names. Where it changes an embedding or a head that the base ties, the other one
/// stays as it was, and so becomes a tensor of its own (`lm_head.weight`): that is the model that was trained. (PEFT's `merge_and_unload`
/// adds to both, as both are one tensor in memory.) With `ensure_weight_tying` they stay one.
#[derive(Debug)]
pub struct AdaptedModel {
    base: Checkpoint,
    folder: PathBuf,
    config: AdapterConfig,
    file: WeightFile,
    tensors: BTreeMap<String, TensorInfo>,
    changed: BTreeMap<String, Changed>,
    cache: Mutex<VecDeque<(String, Arc<Factors>)>>,
}

/// A tensor that is not simply the base's of the same name.
#[derive(Debug, Clone)]
struct Changed {
    stored: Stored,
    delta: Option<Delta>,
}

/// Where the elements lie to which a delta is added.
#[derive(Debug, Clone)]
enum Stored {
    Base(String),
    Adapter(String),
}

/// What is added to a tensor.
#[derive(Debug, Clone)]
struct Delta {
    /// The adapter's names of A `[r, in]` and B `[out, r]`; no A for a bias, to which `scaling * B` is added.
    a: Option<String>,
    b: String,
    /// Whether the product `B A` is transposed.
    transposed: bool,
    scaling: f32,
}

/// A delta's factors in f32: element (row, column) is the sum over k of `rows[row, k] * columns[k, column]`.
#[derive(Debug)]
struct Factors {
    rank: usize,
    width: usize,
    rows: Vec<f32>,
    columns: Vec<f32>,
}

/// What the adapter's file holds for one module.
#[derive(Debug, Default)]
struct Module {
    a: Option<String>,
    b: Option<String>,
    bias: Option<String>,
    embedding: bool,
}

impl Module {
    /// The names of the tensors that the module's parts change.
    fn targets(&self, name: &str) -> impl Iterator<Item = String> {
        std::iter::once(format!("{name}.weight")).chain(self.bias.as_ref().map(|_| format!("{name}.bias")))
    }
}

impl AdaptedModel {
    /// Puts the adapter of a folder on its base. Reads headers only.
    ///
    /// # Errors
    /// The adapter is not plain LoRA, is not complete, or a tensor of it does not fit the base or has no use.
    pub fn new(base: Checkpoint, adapter_folder: &Path) -> Result<Self> {
        let config = AdapterConfig::read(adapter_folder)?;
        let path = find_file(adapter_folder)?;
        let file = WeightFile::open(&path)?;
        let mut model = Self {
            tensors: base.tensors().clone(),
            base,
            folder: adapter_folder.to_owned(),
            config,
            file,
            changed: BTreeMap::new(),
            cache: Mutex::default(),
        };
        model.resolve().map_err(|error| error.within(&path))?;
        Ok(model)
    }

    /// The base.
    pub fn base(&self) -> &Checkpoint {
        &self.base
    }

    /// The adapter's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The adapter's configuration.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The adapter's file.
    pub fn file(&self) -> &WeightFile {
        &self.file
    }

    /// Whether a tensor is a sum with the adapter's factors; its windows are F32.
    pub fn is_adapted(&self, name: &str) -> bool {
        self.changed.get(name).is_some_and(|changed| changed.delta.is_some())
    }

    /// Finds for each tensor of the adapter's file what it does to which of the base's.
    fn resolve(&mut self) -> Result<()> {
        if self.file.tensors().is_empty() {
            return Err(Error::new("the adapter has no tensors, so it would change nothing").help("get it from its source again"));
        }
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        let mut whole: BTreeMap<String, String> = BTreeMap::new();
        for name in self.file.tensors().keys() {
            let earlier = match Role::of(name)? {
                Role::A { module, embedding } => {
                    let entry = modules.entry(module).or_default();
                    entry.embedding |= embedding;
                    entry.a.replace(name.clone())
                }
                Role::B { module, embedding } => {
                    let entry = modules.entry(module).or_default();
                    entry.embedding |= embedding;
                    entry.b.replace(name.clone())
                }
                Role::Bias { module } => modules.entry(module).or_default().bias.replace(name.clone()),
                Role::Whole { tensor } => whole.insert(tensor, name.clone()),
            };
            if let Some(earlier) = earlier {
                return Err(Error::new(format!("{} and {}: the file holds two adapters; expected one", shorten(&earlier), shorten(name))));
            }
        }
        let wanted: BTreeSet<String> =
            modules.iter().flat_map(|(name, module)| module.targets(name)).chain(whole.keys().cloned()).collect();
        let names = self.names_in_base(&wanted)?;
        for (tensor, stored) in &whole {
            self.replace(&names[tensor], tensor, stored)?;
        }
        for (name, module) in &modules {
            self.add_module(&names, name, module)?;
        }
        self.check_saved(whole.keys())?;
        self.untie();
        Ok(())
    }

    /// An error where a module that the adapter should store whole is not in its file.
    ///
    /// PEFT lists `classifier` and `score` for every sequence classifier, of which a model has one: so a module may be missing that the base
    /// does not have either, but not all of them. (PEFT itself would leave the base's, or random weights, in its place.)
    fn check_saved<'s>(&self, stored: impl Iterator<Item = &'s String> + Clone) -> Result<()> {
        let modules = &self.config.modules_to_save;
        let is_stored = |module: &str| stored.clone().any(|tensor| is_of_module(tensor, module));
        let in_base = |module: &str| self.base.tensors().keys().any(|tensor| is_of_module(tensor, module));
        let missing = match modules.iter().find(|module| in_base(module) && !is_stored(module)) {
            None if modules.is_empty() || modules.iter().any(|module| is_stored(module)) => return Ok(()),
            None => &modules[0],
            Some(missing) => missing,
        };
        let config = self.config.path().display();
        Err(Error::new(format!("`modules_to_save` of {config} names `{}`, but the file has no tensor of that module", shorten(missing)))
            .help("the adapter is not complete: get its weights again, or take the module out of `modules_to_save` if it was not trained"))
    }

    /// The base's spelling of the adapter's names; of those that it does not have, as it would be.
    fn names_in_base(&self, wanted: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
        let architecture = self.base.architecture.respelled(wanted.iter().map(String::as_str));
        let adapter = SourceNames { is_base: true, architecture: &architecture, names: wanted.iter().map(String::as_str).collect() };
        let base = SourceNames::of(false, &self.base.architecture, &self.base);
        let aligned = align(&[base, adapter])?;
        let spelled = |tensor: AlignedTensor| Some((tensor.sources[1].clone()?, tensor.sources[0].clone().unwrap_or(tensor.name)));
        Ok(aligned.tensors.into_iter().filter_map(spelled).collect())
    }

    /// A tensor that the adapter stores whole takes the base's place.
    fn replace(&mut self, name: &str, tensor: &str, stored: &str) -> Result<()> {
        let info = self.file.tensors()[stored].clone();
        let known = self.tensors.get(name);
        if let Some(known) = known
            && known.shape != info.shape
        {
            return Err(Error::new(format!("{}: expected the base's shape {:?}, found {:?}", shorten(stored), known.shape, info.shape))
                .help("the adapter's tokens were added to the base's, or it belongs to another base"));
        }
        let head = self.config.saves_module_of(tensor) || self.base.architecture.tied_partner(name).is_some();
        if known.is_none() && !head {
            return Err(self.without_target(stored, name));
        }
        self.tensors.insert(name.to_owned(), TensorInfo { name: name.to_owned(), ..info });
        self.changed.insert(name.to_owned(), Changed { stored: Stored::Adapter(stored.to_owned()), delta: None });
        Ok(())
    }

    /// Adds the factors of one module, and its bias, to the base's tensors.
    fn add_module(&mut self, names: &BTreeMap<String, String>, module: &str, parts: &Module) -> Result<()> {
        let (Some(a), Some(b)) = (&parts.a, &parts.b) else {
            let (found, missing) = match (&parts.a, &parts.b) {
                (Some(a), _) => (a.clone(), "B"),
                (_, b) => (b.clone().or(parts.bias.clone()).unwrap_or_default(), "A"),
            };
            return Err(Error::new(format!("{}: the adapter holds no factor {missing} for this module", shorten(&found)))
                .help("the file is not complete: download it again"));
        };
        let name = &names[&format!("{module}.weight")];
        let (info, stored) = self.target(a, name)?;
        // PEFT corrects `fan_in_fan_out` by the module's class; where the class is not known, the configuration counts.
        let transposed = parts.embedding || self.base.architecture.is_conv1d(name).unwrap_or(self.config.fan_in_fan_out);
        self.check_factors(module, a, b, &info, transposed)?;
        let scaling = self.config.scaling_of(module) as f32;
        let delta = Some(Delta { a: Some(a.clone()), b: b.clone(), transposed, scaling });
        self.tensors.insert(name.clone(), info);
        self.changed.insert(name.clone(), Changed { stored, delta });
        if let Some(bias) = &parts.bias {
            let name = &names[&format!("{module}.bias")];
            let (info, stored) = self.target(bias, name)?;
            let found = &self.file.tensors()[bias];
            if found.shape != info.shape || !found.dtype.is_float() {
                let (dtype, shape) = (found.dtype.safetensors_name(), &found.shape);
                return Err(Error::new(format!("{}: expected floats of shape {:?}, found {dtype} {shape:?}", shorten(bias), info.shape)));
            }
            self.changed
                .insert(name.clone(), Changed { stored, delta: Some(Delta { a: None, b: bias.clone(), transposed: false, scaling }) });
        }
        Ok(())
    }

    /// The tensor to which `part` of the adapter is added: the base's, one that the adapter stores whole, or the embedding to which a
    /// head that is not stored is tied.
    fn target(&self, part: &str, name: &str) -> Result<(TensorInfo, Stored)> {
        if let Some(info) = self.tensors.get(name) {
            let stored = self.changed.get(name).map_or_else(|| Stored::Base(name.to_owned()), |changed| changed.stored.clone());
            return Ok((info.clone(), stored));
        }
        let partner = self.base.architecture.tied_partner(name).filter(|_| self.base.architecture.is_tied(&self.base.config));
        match partner.and_then(|partner| self.base.tensors().get(&partner)) {
            Some(info) => Ok((TensorInfo { name: name.to_owned(), ..info.clone() }, self.shared_embedding(&info.name))),
            None => Err(self.without_target(part, name)),
        }
    }

    fn without_target(&self, part: &str, name: &str) -> Error {
        Error::new(format!("{}: the base {} has no tensor {}", shorten(part), self.base.folder.display(), shorten(name)))
            .help("every tensor of an adapter must have a use: is this the base for which it was trained?")
    }

    /// Checks dtypes, ranks and shapes of a module's factors against the base's tensor.
    fn check_factors(&self, module: &str, a: &str, b: &str, target: &TensorInfo, transposed: bool) -> Result<()> {
        let (first, second) = (&self.file.tensors()[a], &self.file.tensors()[b]);
        if let Some(convolution) = [first, second].into_iter().find(|info| info.shape.len() > 2) {
            return Err(Error::new(format!(
                "{}: a convolution's adapter {:?} is not applied; only linear layers and embeddings are",
                shorten(&convolution.name),
                convolution.shape
            ))
            .help("merge it into its base with PEFT's `merge_and_unload`, and give the result"));
        }
        let rank = self.config.rank_of(module);
        let expected = match target.shape[..] {
            [rows, columns] if transposed => Some([vec![rank, rows], vec![columns, rank]]),
            [rows, columns] => Some([vec![rank, columns], vec![rows, rank]]),
            _ => None,
        };
        let Some(expected) = expected else {
            return Err(Error::new(format!(
                "{}: expected a matrix in the base, found {} of shape {:?}",
                shorten(a),
                shorten(&target.name),
                target.shape
            )));
        };
        for (info, shape) in [first, second].into_iter().zip(expected) {
            if info.shape != shape {
                let (name, base) = (shorten(&info.name), &target.shape);
                return Err(Error::new(format!(
                    "{name}: expected shape {shape:?} (rank {rank} by adapter_config.json, the base's tensor is {base:?}), found {:?}",
                    info.shape
                ))
                .help("the adapter belongs to another base, or its configuration is not its own"));
            }
        }
        match [first, second, target].into_iter().find(|info| !info.dtype.is_float()) {
            Some(info) => Err(Error::new(format!("{}: expected floats, found {}", shorten(&info.name), info.dtype.safetensors_name()))
                .help("a quantized base cannot take an adapter")),
            None => Ok(()),
        }
    }

    /// Where an embedding was changed and the head that is tied to it was not, the head becomes a tensor of its own.
    fn untie(&mut self) {
        if self.config.ensure_weight_tying || !self.base.architecture.is_tied(&self.base.config) {
            return;
        }
        for (head, embedding) in self.base.architecture.tied_pairs() {
            let (Some(info), Some(changed)) = (self.base.tensors().get(&embedding), self.changed.get(&embedding)) else { continue };
            let own = changed.delta.is_some() || self.config.saves_module_of(&embedding);
            let head_is_shared =
                self.base.architecture.is_decoder() && self.base.architecture.is_head(&head) && !self.tensors.contains_key(&head);
            if own && head_is_shared {
                let stored = self.shared_embedding(&embedding);
                self.tensors
                    .insert(head.clone(), TensorInfo { name: head.clone(), dtype: self.stored_dtype(&stored), shape: info.shape.clone() });
                self.changed.insert(head, Changed { stored, delta: None });
            }
        }
    }

    /// What lies in memory under an embedding and the head that is tied to it: the base's, or one that the adapter's file has in its
    /// place without making a module of its own of it (saved embedding layers).
    fn shared_embedding(&self, embedding: &str) -> Stored {
        match self.changed.get(embedding) {
            Some(Changed { stored: Stored::Adapter(name), .. }) if !self.config.saves_module_of(embedding) => Stored::Adapter(name.clone()),
            _ => Stored::Base(embedding.to_owned()),
        }
    }

    fn stored_dtype(&self, stored: &Stored) -> DType {
        match stored {
            Stored::Base(name) => self.base.tensors()[name].dtype,
            Stored::Adapter(name) => self.file.tensors()[name].dtype,
        }
    }

    fn read_stored(&self, stored: &Stored, start: u64, bytes: &mut [u8]) -> Result<()> {
        match stored {
            Stored::Base(name) => self.base.read_into(name, start, bytes),
            Stored::Adapter(name) => self.file.read_into(name, start, bytes),
        }
    }

    fn float_format(&self, name: &str, dtype: DType) -> Result<FloatFormat> {
        let wrong =
            || Error::new(format!("{}: {}: expected floats, found {}", self.folder.display(), shorten(name), dtype.safetensors_name()));
        dtype.float_format().ok_or_else(wrong)
    }

    /// The factors of a tensor's delta, from the cache or the file.
    fn factors(&self, name: &str, delta: &Delta, info: &TensorInfo) -> Result<Arc<Factors>> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, factors)) = lock().iter().find(|entry| entry.0 == name) {
            return Ok(factors.clone());
        }
        // Read without the lock: at worst two threads read the same factors once each.
        let factors = Arc::new(self.load(delta, info)?);
        let mut cache = lock();
        cache.retain(|entry| entry.0 != name);
        cache.push_back((name.to_owned(), factors.clone()));
        let mut bytes: usize = cache.iter().map(|entry| entry.1.bytes()).sum();
        while bytes > CACHE_BYTES && cache.len() > 1 {
            bytes -= cache.pop_front().map_or(0, |entry| entry.1.bytes());
        }
        Ok(factors)
    }

    fn load(&self, delta: &Delta, info: &TensorInfo) -> Result<Factors> {
        let b = self.factor(&delta.b)?;
        let Some(a) = &delta.a else {
            return Ok(Factors { rank: 1, width: b.len(), rows: vec![1.0], columns: b });
        };
        let rank = self.file.tensors()[a].shape[0] as usize;
        let a = self.factor(a)?;
        let (rows, columns) = if delta.transposed { (transpose(&a, rank), transpose(&b, info.shape[1] as usize)) } else { (b, a) };
        Ok(Factors { rank, width: info.shape[1] as usize, rows, columns })
    }

    /// A whole tensor of the adapter's file in f32.
    fn factor(&self, name: &str) -> Result<Vec<f32>> {
        let info = &self.file.tensors()[name];
        // Checked when the file was opened: a tensor has no more bytes than its file (or 16 MiB, where a view repeats elements).
        let mut bytes = vec![0; info.elements() as usize * info.dtype.size()];
        self.file.read_into(name, 0, &mut bytes)?;
        let mut values = vec![0.0; info.elements() as usize];
        Kernels::detect().widen(self.float_format(&info.name, info.dtype)?, &bytes, &mut values);
        Ok(values)
    }
}

impl TensorSource for AdaptedModel {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        let Some(changed) = self.changed.get(name) else {
            return self.base.read(name, start, count, window);
        };
        let info = &self.tensors[name];
        info.check_range(&self.folder, start, count as u64)?;
        let dtype = self.stored_dtype(&changed.stored);
        let size = dtype.size();
        let Some(delta) = &changed.delta else {
            window.dtype = dtype;
            window.bytes.resize(count * size, 0);
            return self.read_stored(&changed.stored, start, &mut window.bytes);
        };
        let factors = self.factors(name, delta, info)?;
        // Stored elements go to the buffer's end and sums to its beginning, so that sums never reach what was not read yet.
        let wide = size.max(4);
        let first = count * (wide - size);
        window.dtype = DType::F32;
        window.bytes.resize(count * wide, 0);
        self.read_stored(&changed.stored, start, &mut window.bytes[first..])?;
        let (kernels, format) = (Kernels::detect(), self.float_format(name, dtype)?);
        let (mut values, mut sums) = ([0f32; BLOCK], [0f32; BLOCK]);
        let mut done = 0;
        while done < count {
            let position = start as usize + done;
            let (row, column) = (position / factors.width, position % factors.width);
            let length = BLOCK.min(count - done).min(factors.width - column);
            let (values, sums) = (&mut values[..length], &mut sums[..length]);
            kernels.widen(format, &window.bytes[first + done * size..first + (done + length) * size], values);
            factors.sum_into(kernels, row, column, sums);
            kernels.scale(sums, delta.scaling);
            kernels.add(sums, values);
            for (out, sum) in window.bytes[done * 4..(done + length) * 4].chunks_exact_mut(4).zip(sums.iter()) {
                out.copy_from_slice(&sum.to_le_bytes());
            }
            done += length;
        }
        window.bytes.truncate(count * 4);
        Ok(())
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        self.base.metadata()
    }
}

impl Factors {
    /// Sums over k in order, `sums[j] += rows[row, k] * columns[k, column + j]`, each product exact and each sum rounded to f32: so PEFT's
    /// `B @ A`, a chain of fused multiply-adds, is met to the bit where its library sums in the same order.
    fn sum_into(&self, kernels: Kernels, row: usize, column: usize, sums: &mut [f32]) {
        sums.fill(0.0);
        for k in 0..self.rank {
            let start = k * self.width + column;
            kernels.add_exact_product(sums, self.rows[row * self.rank + k], &self.columns[start..start + sums.len()]);
        }
    }

    fn bytes(&self) -> usize {
        (self.rows.len() + self.columns.len()) * 4
    }
}

/// The file of an adapter's weights.
fn find_file(folder: &Path) -> Result<PathBuf> {
    let names = ["adapter_model.safetensors", "adapter_model.bin"];
    names.iter().map(|name| folder.join(name)).find(|path| path.exists()).ok_or_else(|| {
        Error::new(format!("{}: the adapter's weights are not there: looked for {}", folder.display(), names.join(" and ")))
            .help("the download is not complete: fetch the adapter again")
    })
}

/// The transpose of a matrix of so many rows.
fn transpose(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len().checked_div(rows).unwrap_or(0);
    let mut out = Vec::with_capacity(matrix.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| matrix[row * columns + column]));
    }
    out
}
