//! Vocabularies of different size: what the recipe's `vocab` makes of them. Fine-tunes often have a row more than their base, for `[PAD]`.

use std::collections::{BTreeMap, BTreeSet};

use deltaic_checkpoint::{Error, ResizedSource, Result, RowFill, TensorInfo, read_vocabulary};

use super::Source;
use super::slots::Slots;
use crate::recipe::{OnMismatch, Recipe};

/// Models or tensors that one message names.
const MAX_SHOWN: usize = 6;

/// The rows of one tensor of the output in those sources that give any of its vocabulary's tensors.
struct Rows<'a> {
    name: &'a str,
    /// By source: the tensor that stands for it there, and its rows.
    of: BTreeMap<usize, (&'a str, u64)>,
    /// Its rows in the output.
    wanted: u64,
}

/// What was done.
#[derive(Default)]
pub(super) struct Fitted {
    /// By source: what its config.json has to say now.
    vocab_sizes: BTreeMap<usize, u64>,
    /// Bytes that are read once more for means.
    pub mean_bytes: u64,
}

impl Fitted {
    /// The `vocab_size` of an output whose config.json is this source's, where that is not what the source's says.
    pub fn vocab_size(&self, source: usize) -> Option<u64> {
        self.vocab_sizes.get(&source).copied()
    }
}

/// Gives the vocabulary's tensors of all sources equally many rows, as the recipe asks. `tokenizer_from` is the source whose tokenizer the
/// output gets.
///
/// # Errors
/// They differ, and the recipe does not say what to do about it.
pub(super) fn fit(
    recipe: &Recipe,
    sources: Vec<Source>,
    slots: &Slots<'_>,
    tokenizer_from: Option<usize>,
    warnings: &mut Vec<String>,
) -> Result<(Vec<Source>, Fitted)> {
    let chosen = recipe.vocab.unwrap_or(OnMismatch::Error);
    let Some(mut all) = rows(recipe, &sources, slots) else { return Ok((sources, Fitted::default())) };
    if all.iter().all(|rows| rows.least() == rows.most()) {
        return Ok((sources, Fitted::default()));
    }
    let fill = match chosen {
        OnMismatch::Error => return Err(mismatch(&sources, &all)),
        OnMismatch::Truncate => RowFill::Mean,
        OnMismatch::Pad(fill) => fill,
    };
    for rows in &mut all {
        rows.wanted = if chosen == OnMismatch::Truncate { rows.least() } else { rows.most() };
    }
    warnings.extend(all.iter().filter(|rows| rows.least() != rows.most()).map(|rows| rows.said(&sources, chosen)));
    let mut fitted = Fitted::default();
    let mut wanted: BTreeMap<usize, BTreeMap<String, u64>> = BTreeMap::new();
    for rows in &all {
        for (&source, &(name, found)) in rows.of.iter().filter(|(_, (_, found))| *found != rows.wanted) {
            wanted.entry(source).or_default().insert(name.to_owned(), rows.wanted);
            // The input embedding comes first in doubt: some architectures have more rows there than `vocab_size` says.
            let said = sources[source].config.vocab_size();
            if said == Some(found) || (slots.architecture.is_embedding(rows.name) && !fitted.vocab_sizes.contains_key(&source)) {
                fitted.vocab_sizes.insert(source, rows.wanted);
            }
        }
    }
    warnings.extend(beyond_the_rows(&sources, slots, &all, tokenizer_from)?);
    let mut resized = Vec::new();
    for (number, source) in sources.into_iter().enumerate() {
        resized.push(match wanted.get(&number) {
            None => source,
            Some(rows) => {
                let folder = source.model.path.clone();
                let tensors = ResizedSource::new(source.tensors, &folder, rows, fill)?;
                fitted.mean_bytes += tensors.mean_bytes();
                Source { tensors: Box::new(tensors), ..source }
            }
        });
    }
    Ok((resized, fitted))
}

/// The rows of all tensors with vocabulary rows that the output has, in all sources that give one of them: with `slices` the embedding and
/// the head may be of different models. None where more than the rows differs: these are then not fine-tunes of one base.
fn rows<'a>(recipe: &Recipe, sources: &'a [Source], slots: &'a Slots<'_>) -> Option<Vec<Rows<'a>>> {
    let mut names = BTreeSet::new();
    let mut givers = BTreeSet::new();
    for slot in slots.slots.iter().filter(|slot| slots.architecture.has_vocabulary_rows(&slot.name)) {
        let excluded = recipe.exclude.iter().any(|pattern| pattern.value.is_match(&slot.name));
        let giving = slots.slices[slot.slice].sources.iter().filter(|source| match excluded {
            true => source.is_base && slots.own_name(source.source, &slot.name).is_some(),
            false => slots.stored_name(source.source, &slot.name).is_some(),
        });
        let giving: Vec<usize> = giving.map(|source| source.source).collect();
        if !giving.is_empty() {
            names.insert(slot.name.as_str());
        }
        givers.extend(giving);
    }
    let mut all = Vec::new();
    for name in names {
        let mut of = BTreeMap::new();
        let mut first: Option<&TensorInfo> = None;
        for &source in &givers {
            let Some((own, _)) = slots.stored_name(source, name) else { continue };
            let info = sources[source].tensors.tensors().get(own)?;
            let rows = *info.shape.first()?;
            if !info.dtype.is_float() || first.is_some_and(|first| first.shape[1..] != info.shape[1..]) {
                return None;
            }
            first = Some(info);
            of.insert(source, (own, rows));
        }
        all.push(Rows { name, of, wanted: 0 });
    }
    Some(all)
}

impl Rows<'_> {
    fn least(&self) -> u64 {
        self.of.values().map(|(_, rows)| *rows).min().unwrap_or(0)
    }

    fn most(&self) -> u64 {
        self.of.values().map(|(_, rows)| *rows).max().unwrap_or(0)
    }

    /// The sources with their rows.
    fn listed(&self, sources: &[Source], with: impl Fn(u64) -> bool) -> String {
        let these: Vec<String> = self
            .of
            .iter()
            .filter(|(_, (_, rows))| with(*rows))
            .map(|(source, (_, rows))| format!("{} has {rows}", sources[*source].reference))
            .collect();
        let more = these.len().saturating_sub(MAX_SHOWN);
        let shown = these[..these.len() - more].join(", ");
        if more == 0 { shown } else { format!("{shown} and {more} more differ") }
    }

    /// What the recipe's `vocab` does to a tensor.
    fn said(&self, sources: &[Source], chosen: OnMismatch) -> String {
        let (name, wanted) = (self.name, self.wanted);
        let what = match chosen {
            OnMismatch::Truncate => "only the first rows are kept; tokens behind them are gone",
            OnMismatch::Pad(RowFill::Mean) => "each row that is made is the mean of that model's own rows",
            OnMismatch::Pad(RowFill::Zero) | OnMismatch::Error => "rows that are made are zero",
        };
        format!("{name}: {wanted} rows by `vocab`, where {}: {what}", self.listed(sources, |rows| rows != wanted))
    }
}

/// The error where the recipe does not say what to do.
fn mismatch(sources: &[Source], all: &[Rows<'_>]) -> Error {
    let first = all.iter().find(|rows| rows.least() != rows.most()).expect("some tensor differs");
    let message = format!("{}: the vocabularies differ in size, in rows: {}", first.name, first.listed(sources, |_| true));
    Error::new(message).help(
        "write `vocab: {on_mismatch: pad}` for a row that fine-tunes added ([PAD]): the others get one too, the mean of their rows; \
         `vocab: {on_mismatch: truncate}` cuts all to the smallest; `exclude` keeps the base's tensors",
    )
}

/// Cut vocabularies may be smaller than the tokenizer that the output gets.
fn beyond_the_rows(sources: &[Source], slots: &Slots<'_>, all: &[Rows<'_>], tokenizer_from: Option<usize>) -> Result<Option<String>> {
    let embedding = all.iter().find(|rows| slots.architecture.is_embedding(rows.name));
    let (Some(embedding), Some(donor)) = (embedding, tokenizer_from) else { return Ok(None) };
    if embedding.of.get(&donor).is_none_or(|(_, rows)| *rows <= embedding.wanted) {
        return Ok(None);
    }
    let beyond = read_vocabulary(sources[donor].folder())?
        .map_or(0, |vocabulary| vocabulary.values().filter(|row| u64::from(**row) >= embedding.wanted).count());
    Ok((beyond > 0).then(|| {
        let donor = &sources[donor].reference;
        let tokens = if beyond == 1 { "1 token".to_owned() } else { format!("{beyond} tokens") };
        format!("{}: the tokenizer of {donor}, which is copied, has {tokens} beyond its {} rows", embedding.name, embedding.wanted)
    }))
}
