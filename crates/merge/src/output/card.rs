//! The model card: README.md with the Hub's front matter. No path of the user's machine goes into it.

use std::collections::HashSet;
use std::fmt::Write;

use deltaic_checkpoint::Found;

use super::provenance::flags;
use crate::plan::{Plan, Source, Spelling};

/// The text of README.md.
pub(super) fn text(plan: &Plan) -> String {
    let method = plan.recipe.method;
    let mut card = front_matter(plan);
    let _ = writeln!(card, "\n# Merged model\n\nMade with deltaic {}.\n", env!("CARGO_PKG_VERSION"));
    let _ = write!(card, "**Method**: `{}`, {}", method.name, method.summary);
    if let Some(paper) = method.paper {
        let _ = write!(card, " ({})", paper.citation());
    }
    card += ".\n";
    let sparsifiers = plan.recipe.entries().filter_map(|(_, entry)| plan.recipe.sparsify_of(entry)).map(|sparsify| sparsify.kind.as_str());
    let mut kinds: Vec<&str> = sparsifiers.collect();
    kinds.sort_unstable();
    kinds.dedup();
    for definition in kinds.into_iter().filter_map(crate::sparsifiers::find) {
        let _ = write!(card, "\n**Before it**: `{}`, {}", definition.name, definition.summary);
        if let Some(paper) = definition.paper {
            let _ = write!(card, " ({})", paper.citation());
        }
        card += ".\n";
    }
    card += "\n**Models**:\n\n";
    for (i, source) in plan.sources.iter().enumerate() {
        let role = if Some(i) == plan.base { " (base)" } else { "" };
        let _ = writeln!(card, "- {}{role}", linked(source));
    }
    card += "\n**Recipe**, as resolved:\n\n```yaml\n";
    card += &plan.resolved_recipe(Spelling::Labelled);
    card += "```\n\n**Again**, with the recipe as it was given (`mergekit_config.yml`) and the models in place:\n\n```\n";
    let flags: String = flags(plan).iter().map(|flag| format!(" {flag}")).collect();
    let _ = writeln!(card, "deltaic merge mergekit_config.yml OUT{flags}\n```");
    card
}

/// Hub names of a source: the model's, and its adapter's.
fn hub_names(source: &Source) -> impl Iterator<Item = &str> {
    std::iter::once(&source.model).chain(&source.adapter).filter_map(|located| match &located.found {
        Found::Hub { name, .. } => Some(name.as_str()),
        Found::Path(_) => None,
    })
}

fn front_matter(plan: &Plan) -> String {
    let mut seen = HashSet::new();
    let names: Vec<&str> = plan.sources.iter().flat_map(hub_names).filter(|name| seen.insert(*name)).collect();
    let mut matter = String::from("---\n");
    if !names.is_empty() {
        matter += "base_model:\n";
        names.iter().for_each(|name| {
            let _ = writeln!(matter, "- {name}");
        });
    }
    matter += "base_model_relation: merge\nlibrary_name: transformers\ntags:\n- merge\n- deltaic\n---\n";
    matter
}

fn linked(source: &Source) -> String {
    match source.model.found {
        Found::Hub { ref name, .. } if source.adapter.is_none() => format!("[{name}](https://huggingface.co/{name})"),
        _ => source.labelled_reference().to_string(),
    }
}
