//! What can be judged about a whole recipe without its models: how many there are, the base, required parameters, seeds.

use std::collections::{HashMap, HashSet};

use deltaic_checkpoint::Result;

use super::node::Node;
use super::unknown::Context;
use super::{Entry, Layout, OwnSparsify, Parameters, Recipe, Slice, Span};
use crate::gather::Operands;
use crate::methods::{Base, Default, Definition, Parameter, Scope};

/// Two names of one thing under `preset: paper`.
pub(super) const SPELLINGS: (&str, &str) = ("mask_rate", "density");

pub(super) fn check(context: &Context<'_>, recipe: &Recipe, root: &Node) -> Result<()> {
    let list = root.entry("models").or_else(|| root.entry("slices")).map_or(recipe.method_span, |(key, _)| key.span);
    match &recipe.layout {
        Layout::Models(entries) => inputs(context, recipe, None, entries, list)?,
        Layout::Slices(slices) => {
            for slice in slices {
                inputs(context, recipe, Some(slice), &slice.sources, slice.span)?;
            }
        }
    }
    sparsified(context, recipe, root)?;
    spellings(context, recipe)?;
    for parameter in recipe.method.parameters.iter().filter(|parameter| parameter.default == Default::Required) {
        if let Some(span) = first_without(recipe, parameter) {
            let (needs, place) = if parameter.scope == Scope::Shared { ("", "at") } else { (" for this model", "here or at") };
            let message = format!("{} needs `{}`{needs}, which is given nowhere", recipe.method.name, parameter.name);
            return context.error(span, message, format!("add `parameters: {{{}: …}}` {place} the top of the recipe", parameter.name));
        }
    }
    seeds(context, recipe)
}

/// Base and number of the inputs of one slice, or of the whole recipe.
fn inputs(context: &Context<'_>, recipe: &Recipe, slice: Option<&Slice>, entries: &[Entry], span: Span) -> Result<()> {
    let method = recipe.method;
    let base = recipe.base_of(slice);
    let mut seen = HashSet::new();
    for entry in entries {
        if !seen.insert(&entry.model.value) {
            let place = if slice.is_some() { "one slice" } else { "`models`" };
            return context.error(entry.model.span, format!("{} stands twice in {place}", entry.model.value), "");
        }
    }
    let takes_base = matches!(method.base, Base::Required | Base::OneOfTheInputs);
    if takes_base && base.is_none() {
        let label =
            if method.base == Base::Required { "the deltas are taken against it" } else { "it says which of the two models is which" };
        return context.error(recipe.method_span, format!("{} needs `base_model`", method.name), label);
    }
    let listed = entries.iter().filter(|entry| recipe.is_base(slice, entry)).count();
    if let (Some(slice), Some(base), true, 0) = (slice, base, takes_base, listed) {
        let message = format!("{} needs the base {base} among the sources of every slice", method.name);
        return context.error(slice.span, message, "it says which of the base's layers belong to this slice");
    }
    let others = entries.len() - listed;
    let found = match method.base {
        Base::Required => others,
        // `models` has the base appended where it is not listed, as in mergekit.
        Base::OneOfTheInputs | Base::Input => others + usize::from(listed > 0 || (slice.is_none() && base.is_some())),
        // A base that is the only model is there to be merged.
        Base::Reference if others == 0 => listed,
        Base::Reference => others,
    };
    let (least, most) = method.models;
    if found < least || most.is_some_and(|most| found > most) {
        return context.error(span, format!("{} takes {}; found {found}", method.name, arity(method)), "");
    }
    Ok(())
}

/// The number of models that a method takes, in words.
pub(super) fn arity(method: &Definition) -> String {
    let counted = match method.base {
        Base::Required | Base::Reference => "the base not counted",
        Base::OneOfTheInputs | Base::Input => "the base counted",
    };
    let models = |number| if number == 1 { "model" } else { "models" };
    match method.models {
        (least, Some(most)) if least == most => format!("exactly {least} {}, {counted}", models(least)),
        (least, Some(most)) => format!("{least} to {most} models, {counted}"),
        (least, None) => format!("at least {least} {}, {counted}", models(least)),
    }
}

/// A sparsifier of deltas needs a base, whatever the method needs.
fn sparsified(context: &Context<'_>, recipe: &Recipe, root: &Node) -> Result<()> {
    for (slice, entry) in recipe.entries() {
        let Some(sparsify) = recipe.sparsify_of(entry).filter(|sparsify| sparsify.of == Operands::Deltas) else { continue };
        if recipe.base_of(slice).is_none() {
            let span = match entry.sparsify {
                OwnSparsify::Own(_) => entry.model.span,
                _ => root.entry("sparsify").map_or(entry.model.span, |(key, _)| key.span),
            };
            let message = format!("`sparsify: {{kind: {}}}` of deltas needs `base_model`", sparsify.kind);
            return context.error(span, message, "the deltas are taken against it; `of: weights` drops elements of the weights themselves");
        }
    }
    Ok(())
}

/// Whether a parameter is given in a block.
fn gives(parameters: &Parameters, name: &str) -> bool {
    parameters.iter().any(|(known, _)| known == name)
}

/// All blocks of parameters that count.
pub(super) fn blocks(recipe: &Recipe) -> impl Iterator<Item = &Parameters> {
    let slices = match &recipe.layout {
        Layout::Models(_) => &[][..],
        Layout::Slices(slices) => slices,
    };
    let of_slices = slices.iter().map(|slice| &slice.parameters);
    std::iter::once(&recipe.parameters).chain(of_slices).chain(recipe.entries().map(|(_, entry)| &entry.parameters))
}

/// Where one of two spellings is given, the other must not be.
fn spellings(context: &Context<'_>, recipe: &Recipe) -> Result<()> {
    let (one, other) = SPELLINGS;
    let place = |name: &str| blocks(recipe).flatten().find(|(known, _)| known == name).map(|(_, setting)| setting.span);
    if recipe.method.parameters.iter().filter(|parameter| parameter.name == one || parameter.name == other).count() == 2
        && let (Some(_), Some(span)) = (place(one), place(other))
    {
        return context.error(span, format!("both `{one}` and `{other}`"), "one is 1 minus the other: give one of them");
    }
    Ok(())
}

/// The first model (for shared parameters: slice) for which no place gives the parameter.
pub(super) fn first_without(recipe: &Recipe, parameter: &Parameter) -> Option<Span> {
    let name = parameter.name;
    if gives(&recipe.parameters, name) {
        return None;
    }
    if parameter.scope == Scope::Shared {
        return match &recipe.layout {
            Layout::Models(_) => Some(recipe.method_span),
            Layout::Slices(slices) => slices.iter().find(|slice| !gives(&slice.parameters, name)).map(|slice| slice.span),
        };
    }
    let listed = recipe.entries().find(|(slice, entry)| {
        let counts = parameter.scope == Scope::PerInput || !recipe.is_base(*slice, entry);
        counts && !gives(&entry.parameters, name) && slice.is_none_or(|slice| !gives(&slice.parameters, name))
    });
    listed.map(|(_, entry)| entry.model.span).or_else(|| {
        let base =
            recipe.base_model.as_ref().filter(|_| parameter.scope == Scope::PerInput && matches!(recipe.layout, Layout::Models(_)))?;
        recipe.entries().all(|(slice, entry)| !recipe.is_base(slice, entry)).then_some(base.span)
    })
}

/// Two models may not have one seed of their own. (Whether any other mask would be drawn twice, the plan knows.)
fn seeds(context: &Context<'_>, recipe: &Recipe) -> Result<()> {
    let mut first = HashMap::new();
    for (_, entry) in recipe.entries() {
        let Some(seed) = entry.seed else { continue };
        let other = *first.entry(seed).or_insert(&entry.model.value);
        if *other != entry.model.value {
            let message = format!("{other} and {} have the same seed of their own", entry.model.value);
            return context.error(entry.model.span, message, "their masks would be equal");
        }
    }
    Ok(())
}
