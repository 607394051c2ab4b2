//! The output's config.json.

use deltaic_checkpoint::{Config, Result};

use super::slots::Slots;
use super::vocabulary::Fitted;
use super::{Source, TensorPlan};
use crate::recipe::Recipe;

/// The base's config.json, or the first fine-tune's where the output holds tensors that only fine-tunes have; changed in the layer count,
/// the vocabulary's size, the dtype, and whether the head is tied.
pub(super) fn resolve(
    recipe: &Recipe,
    sources: &[Source],
    slots: &Slots<'_>,
    vocabulary: &Fitted,
    base: Option<usize>,
    tensors: &[TensorPlan],
) -> Result<Config> {
    let first = slots.first_source();
    let fine_tune = slots.slices[0].sources.iter().find(|source| !source.is_base).map_or(first, |source| source.source);
    let from = match base {
        Some(base) if slots.layers.is_some() || tensors.iter().all(|tensor| stores(slots, base, &tensor.name)) => base,
        Some(_) => fine_tune,
        None => first,
    };
    let mut config = sources[from].config.clone();
    if let Some(layers) = &slots.layers {
        config.set_layer_count(layers.len(), layers)?;
    }
    if let Some(rows) = vocabulary.vocab_size(from) {
        config.set("vocab_size", rows);
    }
    // Tensors that the recipe gives no dtype keep the base's.
    let of_base = || base.filter(|base| *base != from).and_then(|base| sources[base].config.dtype());
    if let Some(dtype) = recipe.out_dtype.or(recipe.dtype).or_else(of_base) {
        config.set_dtype(dtype);
    }
    if slots.architecture.is_decoder() {
        for (head, embedding) in slots.architecture.tied_pairs() {
            let written = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
            if written(&embedding) && slots.architecture.is_tied(&config) == written(&head) {
                config.set_tied(!written(&head));
            }
        }
    }
    Ok(config)
}

/// Whether a source stores a tensor of the output; a head counts where its embedding is there to lend it, and buffers do not decide.
fn stores(slots: &Slots<'_>, source: usize, name: &str) -> bool {
    let lent = || slots.architecture.tied_partner(name).is_some_and(|embedding| slots.own_name(source, &embedding).is_some());
    slots.own_name(source, name).is_some() || slots.architecture.is_buffer(name) || lent()
}
