//! The models that a recipe names, found and opened, each once.

use deltaic_checkpoint::{Error, Located, ModelReference, Result};

use super::PlanOptions;
use crate::recipe::Recipe;

/// A model that takes part, opened.
pub use deltaic_checkpoint::OpenedModel as Source;

/// Opens every model of the recipe, the base first, then in order of appearance.
pub(super) fn open(recipe: &Recipe, options: &PlanOptions, warnings: &mut Vec<String>) -> Result<Vec<Source>> {
    let folders = [(recipe.document.folder.clone(), "the recipe's folder"), (options.working_directory.clone(), "the working directory")];
    let mut sources: Vec<Source> = Vec::new();
    let bases = recipe.base_of(None).into_iter().chain(recipe.entries().filter_map(|(slice, _)| recipe.base_of(slice)));
    for model in bases.chain(recipe.entries().map(|(_, entry)| &entry.model.value)) {
        if position(&sources, model).is_none() {
            sources.push(Source::open(model, &folders)?);
        }
    }
    for located in sources.iter().flat_map(|source| std::iter::once(&source.model).chain(&source.adapter)) {
        if let Some(revision) = &located.ignored_revision {
            warnings.push(format!("{}: a folder has no revisions; `@{revision}` is ignored", located.path.display()));
        }
    }
    check_distinct(&sources)?;
    check_architectures(&sources, options, warnings)?;
    Ok(sources)
}

/// The number of the source that a reference names.
pub(super) fn position(sources: &[Source], model: &ModelReference) -> Option<usize> {
    sources.iter().position(|source| source.reference == *model)
}

/// One model under two names would count twice, or be base and fine-tune at once.
fn check_distinct(sources: &[Source]) -> Result<()> {
    let real = |located: &Located| located.path.canonicalize().unwrap_or_else(|_| located.path.clone());
    let place = |source: &Source| (real(&source.model), source.adapter.as_ref().map(real));
    for (i, source) in sources.iter().enumerate() {
        if let Some(same) = sources[..i].iter().find(|other| place(other) == place(source)) {
            return Err(Error::new(format!("{} and {} are the same model", same.reference, source.reference))
                .help("name it the same way everywhere in the recipe"));
        }
    }
    Ok(())
}

fn check_architectures(sources: &[Source], options: &PlanOptions, warnings: &mut Vec<String>) -> Result<()> {
    let kind = |source: &Source| {
        let named = source.architecture.model_type().map(str::to_owned).or_else(|| source.config.architectures().first().cloned());
        named.unwrap_or_else(|| "an unnamed architecture".to_owned())
    };
    for source in &sources[1..] {
        if source.architecture.same_family(&sources[0].architecture) {
            continue;
        }
        let message = format!(
            "{} is {}, but {} is {}: models of different architectures have no common parameters to merge",
            source.reference,
            kind(source),
            sources[0].reference,
            kind(&sources[0])
        );
        if !options.allow_different_architectures {
            return Err(Error::new(message).help("merge fine-tunes of one base; --allow-crimes tries it all the same"));
        }
        warnings.push(message);
    }
    Ok(())
}
