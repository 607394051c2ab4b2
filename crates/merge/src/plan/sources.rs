//! The models that a recipe names, found and opened, each once.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use deltaic_checkpoint::{Error, Located, ModelReference, Result, SideFiles, open_regular};

use super::PlanOptions;
use crate::recipe::Recipe;

/// A model that takes part, opened.
pub use deltaic_checkpoint::OpenedModel as Source;

/// Whether a recipe may have meant a source by a name: the end of its place is spelled so. Revisions say nothing, a place has none.
pub(super) fn may_be_called(source: &Source, name: &ModelReference) -> bool {
    let own = source.absolute_reference();
    let lora = match (&own.lora, &name.lora) {
        (Some((own, _)), Some((name, _))) => ends_with(own, name),
        (own, name) => own.is_none() && name.is_none(),
    };
    lora && ends_with(&own.path, &name.path)
}

/// Every model of the recipe, each once: the base first, then in order of appearance.
pub(super) fn named(recipe: &Recipe) -> Vec<&ModelReference> {
    let bases = recipe.base_of(None).into_iter().chain(recipe.entries().filter_map(|(slice, _)| recipe.base_of(slice)));
    let mut seen = HashSet::new();
    bases.chain(recipe.entries().map(|(_, entry)| &entry.model.value)).filter(|model| seen.insert(*model)).collect()
}

/// Opens every model of the recipe, in the order of [`named`].
pub(super) fn open(recipe: &Recipe, options: &PlanOptions, warnings: &mut Vec<String>) -> Result<Vec<Source>> {
    let folders = [(recipe.document.folder.clone(), "the recipe's folder"), (options.working_directory.clone(), "the working directory")];
    let sources: Vec<Source> = named(recipe).into_iter().map(|model| Source::open(model, &folders)).collect::<Result<_>>()?;
    for located in sources.iter().flat_map(|source| std::iter::once(&source.model).chain(&source.adapter)) {
        if let Some(revision) = &located.ignored_revision {
            warnings.push(format!("{}: a folder has no revisions; `@{revision}` is ignored", located.path.display()));
        }
    }
    check_distinct(&sources)?;
    check_architectures(&sources, options, warnings)?;
    Ok(sources)
}

/// Whether a place ends with a path as it was given, as far as that goes down: without `~`, and what stands before `..`.
fn ends_with(place: &str, given: &str) -> bool {
    let parts: Vec<Component<'_>> = Path::new(given.strip_prefix("~/").unwrap_or(given)).components().collect();
    let down = parts.rsplit(|part| *part == Component::ParentDir).next().unwrap_or_default();
    let tail: PathBuf = down.iter().filter(|part| matches!(part, Component::Normal(_))).collect();
    Path::new(place).ends_with(tail)
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

/// That the side files which the output takes over can be opened: a link whose target is not there, or a pipe, would be missed when the
/// merged model is used.
pub(super) fn check_side_files(sources: &[Source], tokenizer_from: Option<usize>, side_files_from: usize) -> Result<()> {
    let check = |source: usize, of: fn(&SideFiles) -> Vec<&Path>| -> Result<()> {
        let folder = sources[source].folder();
        of(&SideFiles::of(folder)?).into_iter().try_for_each(|file| open_regular(&folder.join(file)).map(drop))
    };
    if let Some(source) = tokenizer_from {
        check(source, SideFiles::tokenizer_and_templates)?;
    }
    check(side_files_from, SideFiles::others)
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
