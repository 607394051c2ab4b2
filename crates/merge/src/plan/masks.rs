//! Ids of random masks: which are drawn, which the sources carry, and that none is used twice.
//!
//! Masks of one key are equal for the same tensor, and nested: dropping twice with one mask at one rate drops nothing and rescales again.

use std::collections::{BTreeMap, HashMap};

use deltaic_checkpoint::{Error, ModelReference, Result};
use deltaic_kernels::MaskKey;

use super::Source;
use crate::recipe::{Entry, OwnSparsify, Recipe};

/// What a mask's key is made of, the tensor's name aside (`docs/mask.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaskId {
    /// The model's own seed, else the recipe's.
    pub seed: u64,
    /// 2^64 - 1 for a seed of the model's own, else the model's place among the recipe's models.
    pub stream: u64,
}

impl MaskId {
    /// Whether the seed is a model's own.
    pub fn is_own(self) -> bool {
        self.stream == MaskKey::OWN_SEED
    }

    /// The key for one tensor.
    pub fn key(self, tensor_name: &str) -> MaskKey {
        MaskKey::new(self.seed, self.stream, tensor_name)
    }
}

/// The two masks that one model may get: the recipe's sparsifier's, and the method's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Masks {
    pub sparsifier: MaskId,
    pub method: MaskId,
}

/// The streams of the models' masks under the recipe's seed: their places among the recipe's models.
pub(super) struct Streams(HashMap<ModelReference, u64>);

impl Streams {
    pub fn of(recipe: &Recipe) -> Self {
        Self(recipe.models().into_iter().zip(recipe.place.unwrap_or(0)..).collect())
    }
}

/// The masks of one entry; `seed` is the recipe's.
pub(super) fn of(recipe: &Recipe, streams: &Streams, entry: &Entry, seed: u64) -> Masks {
    let place = streams.0.get(&entry.model.value).copied().unwrap_or(0);
    let own = |seed| MaskId { seed, stream: MaskKey::OWN_SEED };
    let method = entry.seed.map_or(MaskId { seed, stream: place }, own);
    let sparsifier = match (&entry.sparsify, &recipe.sparsify) {
        (OwnSparsify::Own(sparsify), _) => sparsify.seed.map_or(method, own),
        (OwnSparsify::Inherited, Some(sparsify)) if entry.seed.is_none() => {
            sparsify.seed.map_or(method, |seed| MaskId { seed, stream: place })
        }
        _ => method,
    };
    Masks { sparsifier, method }
}

/// A mask that is drawn, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Drawn {
    pub id: MaskId,
    /// Number of the source.
    pub source: usize,
    /// Whether the method draws it itself.
    pub by_method: bool,
}

const METADATA_KEY: &str = "deltaic.masks";

/// Checks that no mask is used twice. Returns the ids that the output carries.
pub(super) fn check(sources: &[Source], drawn: &mut [Drawn]) -> Result<Vec<MaskId>> {
    drawn.sort();
    for pair in drawn.windows(2) {
        let (one, other) = (&pair[0], &pair[1]);
        if one.id != other.id {
            continue;
        }
        if one.source == other.source {
            return Err(Error::new(format!(
                "{}: `sparsify` and the merge method would drop with the same mask (seed {}), so that the second drops nothing and rescales again",
                sources[one.source].reference, one.id.seed
            ))
            .help("give `sparsify` a seed of its own: `sparsify: {…, seed: 1}`"));
        }
        return Err(Error::new(format!(
            "{} and {} have the same seed of their own ({}), so their masks would be equal",
            sources[one.source].reference, sources[other.source].reference, one.id.seed
        ))
        .help("give each model another seed"));
    }
    let mut carried = Vec::new();
    for source in sources {
        for id in carried_by(source)? {
            if drawn.iter().any(|drawn| drawn.id == id) {
                return Err(Error::new(format!(
                    "{} was made with the mask of seed {} (stream {}) that is about to be drawn again: dropping twice with one mask drops nothing more",
                    source.reference,
                    id.seed,
                    if id.is_own() { "own".to_owned() } else { id.stream.to_string() }
                ))
                .help("choose another `seed`"));
            }
            carried.push(id);
        }
    }
    carried.extend(drawn.iter().map(|drawn| drawn.id));
    carried.sort_unstable();
    carried.dedup();
    Ok(carried)
}

/// The ids that a source's weights carry.
fn carried_by(source: &Source) -> Result<Vec<MaskId>> {
    let Some(text) = source.tensors.metadata().get(METADATA_KEY) else { return Ok(Vec::new()) };
    serde_json::from_str::<Vec<(u64, u64)>>(text)
        .map(|ids| ids.into_iter().map(|(seed, stream)| MaskId { seed, stream }).collect())
        .map_err(|error| Error::new(format!("{}: the metadata `{METADATA_KEY}` of its weights cannot be read: {error}", source.reference)))
}

/// What the output's weights say of their masks.
pub(super) fn metadata(masks: &[MaskId]) -> BTreeMap<String, String> {
    let ids: Vec<[u64; 2]> = masks.iter().map(|id| [id.seed, id.stream]).collect();
    if ids.is_empty() {
        return BTreeMap::new();
    }
    BTreeMap::from([(METADATA_KEY.to_owned(), serde_json::json!(ids).to_string())])
}
