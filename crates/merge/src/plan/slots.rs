//! The places of the output: which tensors it has, from which slice each is, and by what name each source of the slice has it.

use std::collections::{BTreeMap, BTreeSet};

use deltaic_checkpoint::{Alignment, Architecture, Error, Position, Result, SourceNames, align};

use super::{Source, sources::position};
use crate::recipe::{Entry, Layout, Parameters, Recipe, Slice};

/// Greatest number of layers of an output; the layer count of a config.json is not to be trusted with the memory for them.
const MAX_LAYERS: usize = 10_000;

/// A source of a run of layers.
pub(super) struct SliceSource<'a> {
    /// Number of the source.
    pub source: usize,
    /// What the recipe says of it; a base that is only named as such has no entry.
    pub entry: Option<&'a Entry>,
    /// Whether it is the base of its slice.
    pub is_base: bool,
    /// Its first layer.
    first_layer: usize,
}

/// A run of output layers with the tensors before or behind the layers where it is the first or the last.
pub(super) struct SliceOf<'a> {
    /// Its sources in the recipe's order; with `models` the base is appended where it is not listed.
    pub sources: Vec<SliceSource<'a>>,
    /// The slice's own parameters.
    pub parameters: Option<&'a Parameters>,
    layers: usize,
}

/// A tensor of the output.
pub(super) struct Slot {
    /// Its name.
    pub name: String,
    /// Number of its slice.
    pub slice: usize,
    /// Layer position in 0 ..= 1, for gradients.
    pub t: f64,
    /// For each source of the slice, the canonical name of what it gives here.
    pub canonical: Vec<String>,
}

/// All places.
pub(super) struct Slots<'a> {
    pub slices: Vec<SliceOf<'a>>,
    pub slots: Vec<Slot>,
    /// The architecture with canonical names.
    pub architecture: Architecture,
    alignment: Alignment,
    /// For each output layer, the source layer it was counted as in its slice's first source; `None` without `slices`.
    pub layers: Option<Vec<usize>>,
}

impl Slots<'_> {
    /// The source's own name of a canonical tensor, where it stores it.
    pub fn own_name(&self, source: usize, canonical: &str) -> Option<&str> {
        self.alignment.get(canonical).and_then(|tensor| tensor.sources[source].as_deref())
    }

    /// The source's own name of what it gives for a canonical one, and whether that is lent: a head that it does not store is its embedding.
    pub fn stored_name(&self, source: usize, canonical: &str) -> Option<(&str, bool)> {
        let lent = || self.own_name(source, &self.architecture.tied_partner(canonical)?).map(|name| (name, true));
        self.own_name(source, canonical).map(|name| (name, false)).or_else(lent)
    }

    /// The first source of the first slice.
    pub fn first_source(&self) -> usize {
        self.slices[0].sources[0].source
    }
}

/// Lays out the output's tensors.
pub(super) fn resolve<'a>(recipe: &'a Recipe, sources: &[Source]) -> Result<Slots<'a>> {
    let bases: Vec<usize> = recipe.base_of(None).and_then(|base| position(sources, base)).into_iter().collect();
    let names: Vec<SourceNames<'_>> =
        sources.iter().enumerate().map(|(i, source)| SourceNames::of(bases.contains(&i), &source.architecture, &*source.tensors)).collect();
    let alignment = align(&names)?;
    let architecture = alignment.architecture.clone();
    let (slices, layers) = match &recipe.layout {
        Layout::Models(entries) => (vec![whole_models(recipe, sources, &architecture, entries)?], None),
        Layout::Slices(slices) => {
            let resolved: Vec<_> = slices.iter().map(|slice| run_of_layers(recipe, sources, slice)).collect::<Result<_>>()?;
            check_layer_ranges(sources, &architecture, &resolved)?;
            let taken = resolved.iter().flat_map(|slice| (0..slice.layers).map(|k| slice.sources[0].first_layer + k)).collect();
            (resolved, Some(taken))
        }
    };
    let mut slots = Slots { slices, slots: Vec::new(), architecture, alignment, layers };
    slots.slots = if slots.layers.is_some() { stacked(&slots) } else { unstacked(&slots) };
    Ok(slots)
}

fn whole_models<'a>(recipe: &'a Recipe, sources: &[Source], architecture: &Architecture, entries: &'a [Entry]) -> Result<SliceOf<'a>> {
    let mut all: Vec<SliceSource<'a>> = entries.iter().map(|entry| slice_source(recipe, sources, None, entry)).collect();
    if let Some(base) = recipe.base_of(None).and_then(|base| position(sources, base))
        && all.iter().all(|source| !source.is_base)
    {
        all.push(SliceSource { source: base, entry: None, is_base: true, first_layer: 0 });
    }
    let count = |source: &SliceSource<'_>| architecture.layer_count(&sources[source.source].config);
    let layers = count(&all[0]);
    for source in &all {
        if count(source) != layers {
            let said = |count: Option<u64>| count.map_or("no number of layers".to_owned(), |count| format!("{count} layers"));
            return Err(Error::new(format!(
                "{}: config.json says {}, that of {} {}",
                sources[source.source].reference,
                said(count(source)),
                sources[all[0].source].reference,
                said(layers)
            ))
            .help("take layers from models of different depth with `slices`"));
        }
    }
    Ok(SliceOf { sources: all, parameters: None, layers: layers.unwrap_or(0) as usize })
}

fn slice_source<'a>(recipe: &'a Recipe, sources: &[Source], slice: Option<&'a Slice>, entry: &'a Entry) -> SliceSource<'a> {
    SliceSource {
        source: position(sources, &entry.model.value).expect("every model of the recipe was opened"),
        entry: Some(entry),
        is_base: recipe.is_base(slice, entry),
        first_layer: entry.layer_range.map_or(0, |(first, _)| first),
    }
}

fn run_of_layers<'a>(recipe: &'a Recipe, sources: &[Source], slice: &'a Slice) -> Result<SliceOf<'a>> {
    let all: Vec<SliceSource<'a>> = slice.sources.iter().map(|entry| slice_source(recipe, sources, Some(slice), entry)).collect();
    let layers = slice.sources.first().and_then(|entry| entry.layer_range).map_or(0, |(first, end)| end - first);
    Ok(SliceOf { sources: all, parameters: Some(&slice.parameters), layers })
}

/// Every layer that a slice takes has to be in its model; how many there are is checked before anything is made of them.
fn check_layer_ranges(sources: &[Source], architecture: &Architecture, slices: &[SliceOf<'_>]) -> Result<()> {
    for slice in slices {
        for taken in &slice.sources {
            let source = &sources[taken.source];
            let end = taken.first_layer + slice.layers;
            let Some(count) = architecture.layer_count(&source.config) else {
                return Err(Error::new(format!(
                    "{}: config.json says no number of layers ({}), and `slices` take layers",
                    source.reference,
                    source.config.layer_counts()
                ))
                .help("`models` merges whole models of any architecture"));
            };
            if end as u64 > count {
                return Err(Error::new(format!(
                    "{}: layer_range [{}, {end}] reaches beyond its {count} layers",
                    source.reference, taken.first_layer
                ))
                .help(format!("layer ranges are half-open: [0, {count}] is all of them")));
            }
            let stored: BTreeSet<usize> = source.tensors.tensors().keys().filter_map(|name| source.architecture.layer_of(name)).collect();
            if let Some(layer) = (taken.first_layer..end).find(|layer| !stored.contains(layer)) {
                return Err(Error::new(format!(
                    "{}: config.json says {count} layers, but no tensor is of layer {layer} (from 0)",
                    source.reference
                ))
                .help("config.json and weights are not of one model: download the folder again"));
            }
        }
    }
    let all: usize = slices.iter().map(|slice| slice.layers).sum();
    if all > MAX_LAYERS {
        return Err(Error::new(format!("the slices take {all} layers, expected at most {MAX_LAYERS}"))
            .help("no model has as many: see the recipe's layer ranges, and the layer counts in config.json"));
    }
    Ok(())
}

/// Layer position of layer `k` of `layers`.
fn layer_position(k: usize, layers: usize) -> f64 {
    if layers > 1 { k as f64 / (layers - 1) as f64 } else { 1.0 }
}

/// The output of `models`: every tensor of the union, by its canonical name.
fn unstacked(slots: &Slots<'_>) -> Vec<Slot> {
    let slice = &slots.slices[0];
    let slot = |name: &String| Slot {
        name: name.clone(),
        slice: 0,
        t: match slots.architecture.position(name) {
            Position::Layer(k) => layer_position(k, slice.layers),
            Position::Before | Position::After => 0.0,
        },
        canonical: vec![name.clone(); slice.sources.len()],
    };
    slots.alignment.tensors.iter().map(|tensor| slot(&tensor.name)).collect()
}

/// The output of `slices`: layers are numbered over all slices, what stands before them is the first slice's, what stands behind the last's.
fn stacked(slots: &Slots<'_>) -> Vec<Slot> {
    let architecture = &slots.architecture;
    let last = slots.slices.len() - 1;
    let has = |slice: &SliceOf<'_>, name: &str| slice.sources.iter().any(|source| slots.own_name(source.source, name).is_some());
    let mut by_layer: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    let mut found = Vec::new();
    for tensor in &slots.alignment.tensors {
        let number = match architecture.position(&tensor.name) {
            Position::Layer(layer) => {
                by_layer.entry(layer).or_default().push(&tensor.name);
                continue;
            }
            Position::Before => 0,
            Position::After => last,
        };
        let slice = &slots.slices[number];
        if has(slice, &tensor.name) {
            found.push(Slot {
                name: tensor.name.clone(),
                slice: number,
                t: 0.0,
                canonical: vec![tensor.name.clone(); slice.sources.len()],
            });
        }
    }
    let mut out = 0;
    for (number, slice) in slots.slices.iter().enumerate() {
        for k in 0..slice.layers {
            let mut layer: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for source in &slice.sources {
                for name in by_layer.get(&(source.first_layer + k)).into_iter().flatten() {
                    if slots.own_name(source.source, name).is_some() {
                        layer.entry(architecture.with_layer(name, out)).or_insert_with(|| {
                            slice.sources.iter().map(|source| architecture.with_layer(name, source.first_layer + k)).collect()
                        });
                    }
                }
            }
            let t = layer_position(k, slice.layers);
            found.extend(layer.into_iter().map(|(name, canonical)| Slot { name, slice: number, t, canonical }));
            out += 1;
        }
    }
    found
}
