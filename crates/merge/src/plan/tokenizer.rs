//! Whose tokenizer the output gets.

use deltaic_checkpoint::{Error, Result, SideFiles, read_vocabulary};

use super::{Source, sources::position};
use crate::recipe::{Recipe, TokenizerSource};

/// The source whose tokenizer files are copied: the base's, else the first's that has any; with `tokenizer_source` the one it names.
///
/// # Errors
/// `tokenizer_source` asks for rows to be moved: the vocabularies differ, and that is not built yet.
pub(super) fn donor(recipe: &Recipe, sources: &[Source], base: Option<usize>) -> Result<Option<usize>> {
    let has_files = |source: &usize| SideFiles::of(sources[*source].folder()).map(|files| !files.tokenizer_and_templates().is_empty());
    let in_order = base.into_iter().chain((0..sources.len()).filter(|source| Some(*source) != base));
    let mut first = None;
    for source in in_order {
        if has_files(&source)? {
            first = Some(source);
            break;
        }
    }
    let Some(asked) = &recipe.tokenizer_source else { return Ok(first) };
    let donor = match &asked.value {
        TokenizerSource::Base | TokenizerSource::Union => first.unwrap_or(base.unwrap_or(0)),
        TokenizerSource::Model(model) => position(sources, model).ok_or_else(|| {
            recipe.document.not_yet(asked.span, format!("`tokenizer_source: {model}`, which is none of the models that are merged"))
        })?,
    };
    let vocabulary = read_vocabulary(sources[donor].folder())?;
    if vocabulary.is_none() {
        return Err(Error::new(format!(
            "{}: no vocabulary that can be read, and `tokenizer_source` asks for it",
            sources[donor].reference
        ))
        .help("a tokenizer.json, vocab.json or vocab.txt is looked for; without `tokenizer_source` the files are copied as they are"));
    }
    for source in sources {
        // A model whose tokenizer cannot be read is taken to have the donor's, as mergekit has it.
        if let Some(other) = read_vocabulary(source.folder())?
            && Some(&other) != vocabulary.as_ref()
        {
            let message = format!(
                "`tokenizer_source` with vocabularies that differ ({} has {} tokens, {} has {})",
                sources[donor].reference,
                vocabulary.as_ref().map_or(0, |vocabulary| vocabulary.len()),
                source.reference,
                other.len()
            );
            return Err(recipe.document.not_yet(asked.span, message));
        }
    }
    Ok(Some(donor))
}
