//! What will be done: for every output tensor its sources, its parameters as plain numbers, its shard and offset. A plan is complete:
//! running it needs no decision. Making one reads headers only (and buffers of a few bytes, to see whether they differ).

mod config;
mod masks;
mod parameters;
mod slots;
mod sources;
mod statistics;
mod tensors;
mod tokenizer;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Architecture, Config, DType, FileIdentity, ModelReference, Result, ShardLayout, TensorSource};
use deltaic_kernels::REDUCTION_BLOCK;
use sha2::{Digest, Sha256};

pub use masks::MaskId;
pub use sources::Source;

use crate::gather::Operands;
use crate::methods::{ModelWide, Reach, TensorMerge};
use crate::recipe::{Names, Recipe, Recorded};
use crate::sparsifiers::Sparsifier;

/// Number of elements of a window, where the memory allows it: few enough that what was just read is still in the second-level cache
/// when it is widened (at 2^20 a merge took a fifth longer, at 2^16 the calls cost more).
const WINDOW: usize = 1 << 17;
/// All windows of all workers together stay under this.
const WINDOW_MEMORY: usize = 128 << 20;

/// Decisions that a recipe does not hold.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Greatest size of a shard in bytes; 0: one shard; without it what the recipe records, else [`SHARD_BYTES`].
    pub shard_bytes: Option<u64>,
    /// Seed for recipes without one; without both it follows from the recipe's bytes.
    pub seed: Option<u64>,
    /// Whether the tokenizer's files are copied where the recipe does not ask for them (`tokenizer_source`).
    pub copy_tokenizer: bool,
    /// Merge models of different architectures all the same.
    pub allow_different_architectures: bool,
    /// The working directory, where paths are looked for that are not found beside the recipe.
    pub working_directory: PathBuf,
    /// By model, as the recipe names it: the file of statistics that was made from the recipe's `data`.
    pub statistics: BTreeMap<String, PathBuf>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            shard_bytes: None,
            seed: None,
            copy_tokenizer: true,
            allow_different_architectures: false,
            working_directory: PathBuf::from("."),
            statistics: BTreeMap::new(),
        }
    }
}

/// Greatest size of a shard where nobody says another: that of transformers' files.
pub const SHARD_BYTES: u64 = 5_000_000_000;

impl PlanOptions {
    /// The options with what a `deltaic.yml` records about the run that wrote it: repeated, it makes the same files.
    fn with_recorded(mut self, recorded: Option<&Recorded>) -> Self {
        if let Some(recorded) = recorded {
            self.shard_bytes = self.shard_bytes.or(recorded.shard_bytes);
            self.copy_tokenizer &= recorded.copy_tokenizer.unwrap_or(true);
            self.allow_different_architectures |= recorded.allow_different_architectures.unwrap_or(false);
        }
        self
    }
}

/// How models and files are called in a resolved recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As the recipe names them.
    AsNamed,
    /// By absolute paths, and commits of the Hub: the same files from any folder.
    Absolute,
    /// As they may be published: without places on this machine.
    Labelled,
}

/// A file of statistics that the method takes.
pub(crate) struct Auxiliary {
    pub tensors: Box<dyn TensorSource>,
    pub identity: FileIdentity,
}

/// A tensor of a source, or of a file of statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceTensor {
    /// Number of the source; those of statistics come behind the models.
    pub source: usize,
    /// The tensor's name there.
    pub name: String,
}

/// Where an input's elements come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Its own tensor.
    Own(SourceTensor),
    /// The base's: it is the base, or all of its delta is dropped.
    Base,
}

/// A sparsifier before the method.
pub(crate) struct SparsifierPlan {
    /// What it drops elements of.
    pub of: Operands,
    /// The sparsifier with nothing gathered yet.
    pub sparsifier: Box<dyn Sparsifier>,
}

/// An input of a merge.
pub(crate) struct InputPlan {
    /// Where its elements come from.
    pub reads: Reads,
    /// What is dropped of it, in this order.
    pub sparsifiers: Vec<SparsifierPlan>,
    /// Its statistics, where the merge reads them, with their number of elements.
    pub statistics: Option<(SourceTensor, u64)>,
}

/// What is done for a tensor.
pub(crate) enum Action {
    /// It is copied, bit for bit where its dtype stays.
    Copy(SourceTensor),
    /// It is computed.
    Merge {
        /// The base, where deltas are taken.
        base: Option<SourceTensor>,
        /// The inputs that take part.
        inputs: Vec<InputPlan>,
        /// The arithmetic.
        merge: Box<dyn TensorMerge>,
        /// Length of the last axis.
        row: u64,
    },
}

/// A tensor of the output.
pub struct TensorPlan {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<u64>,
    /// What is done for it.
    pub(crate) action: Action,
    /// Bytes of one element of every source together, as stored.
    stored_bytes: usize,
    /// The same in memory: a sum with an adapter is float32.
    window_bytes: usize,
}

impl TensorPlan {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether it is copied.
    pub fn is_copy(&self) -> bool {
        matches!(self.action, Action::Copy(_))
    }

    /// Greatest number of reads of its sources, the model-wide ones not counted.
    pub fn most_reads(&self) -> usize {
        match &self.action {
            Action::Copy(_) => 1,
            Action::Merge { inputs, merge, .. } => {
                let of = |input: &InputPlan| input.sparsifiers.iter().map(|stage| stage.sparsifier.most_passes()).sum::<usize>();
                1 + merge.most_passes() + inputs.iter().map(of).max().unwrap_or(0)
            }
        }
    }
}

/// What a run takes.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Bytes read from the sources, at most.
    pub bytes_read: u64,
    /// Greatest number of reads of any tensor.
    pub reads: usize,
    /// Threads without `--threads`.
    pub threads: usize,
    /// Bytes of memory for windows with that many threads.
    pub window_memory: u64,
}

/// A complete plan of a merge.
pub struct Plan {
    /// The recipe, as written.
    pub recipe: Recipe,
    /// Its seed, as written or derived.
    pub seed: u64,
    /// The sources, each once.
    pub sources: Vec<Source>,
    /// The files of statistics.
    pub(crate) auxiliary: Vec<Auxiliary>,
    /// The base's number among the sources.
    pub base: Option<usize>,
    /// The tensors, in the order of their places in the output.
    pub tensors: Vec<TensorPlan>,
    /// Where each goes.
    pub layout: ShardLayout,
    /// The output's config.json.
    pub config: Config,
    /// What is known of its architecture, with canonical names.
    pub architecture: Architecture,
    /// Whose tokenizer and chat templates the output gets.
    pub tokenizer_from: Option<usize>,
    /// Whose generation config and other side files the output gets.
    pub side_files_from: usize,
    /// Ids of the random masks in the output: those drawn here, and those that the sources carry.
    pub masks: Vec<MaskId>,
    /// What the user should know before the work starts.
    pub warnings: Vec<String>,
    /// The options it was made with.
    pub options: PlanOptions,
    /// Ids of the masks that are drawn here.
    drawn: Vec<MaskId>,
    /// Bytes that are read once more for rows that are made.
    mean_bytes: u64,
    /// What is gathered over the whole model first.
    pub(crate) model_wide: Option<Box<dyn ModelWide>>,
}

impl Plan {
    /// Resolves a recipe against the headers of its models.
    ///
    /// # Errors
    /// A model is not found or cannot be read; models do not fit each other; parameters are missing; what is asked for is not built yet.
    pub fn new(recipe: Recipe, options: PlanOptions) -> Result<Self> {
        let options = options.with_recorded(recipe.recorded.as_ref());
        let mut warnings = Vec::new();
        let sources = sources::open(&recipe, &options, &mut warnings)?;
        let base = recipe.base_of(None).and_then(|model| sources::position(&sources, model));
        // Before shapes are compared: a setting that would make them fit is then the better news.
        let wants_tokenizer = options.copy_tokenizer || recipe.tokenizer_source.is_some();
        let tokenizer_from = tokenizer::donor(&recipe, &sources, base)?.filter(|_| wants_tokenizer);
        let slots = slots::resolve(&recipe, &sources)?;
        let (sources, vocabulary) = vocabulary::fit(&recipe, sources, &slots, tokenizer_from, &mut warnings)?;
        let seed = recipe.seed.or(options.seed).unwrap_or_else(|| recipe.seed_or_derived());
        let statistics = statistics::open(&recipe, &sources, &options, &mut warnings)?;
        let mut planned = tensors::plan(&recipe, &sources, &statistics, &slots, seed, &mut warnings)?;
        let masks = masks::check(&sources, &mut planned.masks)?;
        let mut tensors = planned.tensors;
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let shapes: Vec<_> = tensors.iter().map(|tensor| (tensor.name.clone(), tensor.dtype, tensor.shape.clone())).collect();
        let drawn: Vec<MaskId> = planned.masks.iter().map(|drawn| drawn.id).collect();
        let seeded = drawn.iter().any(|id| !id.is_own() && id.seed == seed);
        let auxiliary: Vec<Auxiliary> =
            statistics.into_iter().map(|file| Auxiliary { tensors: file.tensors, identity: file.identity }).collect();
        let metadata = metadata(&sources, &auxiliary, &masks, seeded.then_some(seed));
        let layout = ShardLayout::new(&shapes, options.shard_bytes.unwrap_or(SHARD_BYTES), &metadata)?;
        let place = |tensor: &TensorPlan| layout.place(&tensor.name).map(|place| (place.shard, place.offset));
        tensors.sort_by_key(place);
        let config = config::resolve(&recipe, &sources, &slots, &vocabulary, base, &tensors)?;
        let architecture = slots.architecture.clone();
        let side_files_from = base.unwrap_or(slots.first_source());
        sources::check_side_files(&sources, tokenizer_from, side_files_from)?;
        warnings.dedup();
        Ok(Self {
            recipe,
            seed,
            sources,
            auxiliary,
            base,
            tensors,
            layout,
            config,
            architecture,
            tokenizer_from,
            side_files_from,
            masks,
            drawn,
            warnings,
            options,
            mean_bytes: vocabulary.mean_bytes,
            model_wide: planned.model_wide,
        })
    }

    /// Elements of all tensors of the output.
    pub fn elements(&self) -> u64 {
        self.tensors.iter().map(TensorPlan::elements).sum()
    }

    /// Whether masks are drawn from the recipe's seed, so that it matters.
    pub fn draws_from_the_recipes_seed(&self) -> bool {
        self.drawn.iter().any(|id| !id.is_own() && id.seed == self.seed)
    }

    /// The resolved recipe, with every default filled in.
    pub fn resolved_recipe(&self, spelling: Spelling) -> String {
        let model = |model: &ModelReference| match (sources::position(&self.sources, model), spelling) {
            (None, _) | (_, Spelling::AsNamed) => model.clone(),
            (Some(source), Spelling::Absolute) => self.sources[source].absolute_reference(),
            (Some(source), Spelling::Labelled) => self.sources[source].labelled_reference(),
        };
        let file = |given: &str| self.file_called(given, spelling);
        self.recipe.to_yaml(&Names { model: &model, file: &file }, self.draws_from_the_recipes_seed().then_some(self.seed))
    }

    /// What a file or folder beside the models is called.
    fn file_called(&self, given: &str, spelling: Spelling) -> String {
        match spelling {
            Spelling::AsNamed => given.to_owned(),
            Spelling::Absolute => statistics::find(&self.recipe, &self.options, given)
                .map_or_else(|_| given.to_owned(), |path| path.to_string_lossy().into_owned()),
            Spelling::Labelled => Path::new(given).file_name().map_or_else(|| given.to_owned(), |name| name.to_string_lossy().into_owned()),
        }
    }

    /// Whether a recipe says what this plan's does, whatever it calls the models: those are taken in the order of their appearance, as far
    /// as their names can be those of the sources.
    pub(crate) fn is_of(&self, recipe: &Recipe) -> bool {
        let named = sources::named(recipe);
        if named.len() != self.sources.len() || !named.iter().zip(&self.sources).all(|(name, source)| sources::may_be_called(source, name))
        {
            return false;
        }
        let model = |model: &ModelReference| match named.iter().position(|known| *known == model) {
            Some(source) => self.sources[source].absolute_reference(),
            None => model.clone(),
        };
        let file = |given: &str| self.file_called(given, Spelling::Absolute);
        let seed = self.draws_from_the_recipes_seed().then_some(self.seed);
        recipe.to_yaml(&Names { model: &model, file: &file }, seed) == self.resolved_recipe(Spelling::Absolute)
    }

    /// A hash of all that decides about the output's bytes, in 64 hexadecimal digits: deltaic's version, the resolved recipe, the sources'
    /// places and contents (as far as samples of their files tell), the layout, config.json.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.resolved_recipe(Spelling::Absolute));
        for shard in self.layout.shards() {
            // Its metadata holds the version and the sources' ids.
            hash.update(&shard.header);
        }
        hash.update(self.config.to_json());
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the run takes.
    pub fn summary(&self) -> Summary {
        let model_wide = self.model_wide.as_ref().map_or(0, |model_wide| model_wide.most_passes());
        let reads = |tensor: &TensorPlan| tensor.most_reads() + if tensor.is_copy() { 0 } else { model_wide };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let bytes = |tensor: &TensorPlan| tensor.elements() * tensor.stored_bytes as u64 * reads(tensor) as u64;
        Summary {
            bytes_read: self.tensors.iter().map(bytes).sum::<u64>() + self.mean_bytes,
            reads: self.tensors.iter().map(reads).max().unwrap_or(1),
            threads,
            window_memory: ((self.window_elements(threads) * self.window_bytes_per_element() * threads) as u64)
                .max(self.whole_tensors(threads)),
        }
    }

    /// Bytes of memory for those tensors that are merged as a whole, where each of the threads works on the largest.
    fn whole_tensors(&self, threads: usize) -> u64 {
        let of = |tensor: &TensorPlan| match &tensor.action {
            Action::Merge { inputs, merge, .. } if merge.reach() == Reach::Tensor => {
                let statistics: u64 = inputs.iter().filter_map(|input| input.statistics.as_ref()).map(|(_, elements)| elements * 8).sum();
                tensor.elements() * (tensor.window_bytes as u64 + 3 * 8) + statistics * 2
            }
            _ => 0,
        };
        self.tensors.iter().map(of).max().unwrap_or(0) * threads as u64
    }

    fn window_bytes_per_element(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.window_bytes + tensor.dtype.size()).max().unwrap_or(1)
    }

    /// Elements of a window: such that all workers' windows of all inputs and the output fit into the memory set aside for them.
    pub(crate) fn window_elements(&self, threads: usize) -> usize {
        let fitting = WINDOW_MEMORY / (self.window_bytes_per_element() * threads.max(1));
        (fitting / REDUCTION_BLOCK * REDUCTION_BLOCK).clamp(REDUCTION_BLOCK, WINDOW)
    }

    /// Counts of tensors by what is done for them: copied, merged.
    pub fn counts(&self) -> (usize, usize) {
        let copies = self.tensors.iter().filter(|tensor| tensor.is_copy()).count();
        (copies, self.tensors.len() - copies)
    }
}

/// What the weights' files say of how they were made: no place, no time.
fn metadata(sources: &[Source], auxiliary: &[Auxiliary], masks: &[MaskId], seed: Option<u64>) -> BTreeMap<String, String> {
    let ids: Vec<String> = sources.iter().map(Source::id).collect();
    let mut metadata = masks::metadata(masks);
    metadata.insert("deltaic.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    metadata.insert("deltaic.sources".to_owned(), serde_json::json!(ids).to_string());
    if !auxiliary.is_empty() {
        let ids: Vec<&str> = auxiliary.iter().map(|file| file.identity.sample.as_str()).collect();
        metadata.insert("deltaic.statistics_of_sources".to_owned(), serde_json::json!(ids).to_string());
    }
    metadata.extend(seed.map(|seed| ("deltaic.seed".to_owned(), seed.to_string())));
    metadata
}
