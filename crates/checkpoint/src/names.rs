//! One name for each tensor of several models, its canonical name.

use std::collections::{BTreeMap, BTreeSet};

use crate::architecture::{Architecture, generic};
use crate::error::{Error, Result};
use crate::tensor::TensorSource;

/// A source's tensors, for alignment.
#[derive(Debug, Clone)]
pub struct SourceNames<'a> {
    /// Whether it is the base, whose spelling counts last.
    pub is_base: bool,
    /// Its architecture.
    pub architecture: &'a Architecture,
    /// Its own names.
    pub names: Vec<&'a str>,
}

/// A tensor of the union of all sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlignedTensor {
    /// The canonical name.
    pub name: String,
    /// For each source, in the order given, its own name of the tensor; None where it does not store it.
    pub sources: Vec<Option<String>>,
}

/// The union of the tensors of several sources.
#[derive(Debug, Clone)]
pub struct Alignment {
    /// The tensors, sorted by their canonical names.
    pub tensors: Vec<AlignedTensor>,
    /// The architecture, with the prefix as canonical names have it.
    pub architecture: Architecture,
}

/// What a name stands for, independent of spelling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// A tensor of the backbone, without its prefix.
    Backbone(String),
    /// A head, or anything else that never has the prefix.
    Outside(String),
}

impl<'a> SourceNames<'a> {
    /// The names of an opened source.
    pub fn of(is_base: bool, architecture: &'a Architecture, source: &'a dyn TensorSource) -> Self {
        Self { is_base, architecture, names: source.tensors().keys().map(String::as_str).collect() }
    }
}

impl Alignment {
    /// The tensor of a canonical name.
    pub fn get(&self, name: &str) -> Option<&AlignedTensor> {
        self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok().map(|place| &self.tensors[place])
    }
}

/// Gives the tensors of all sources their canonical names: the backbone's prefix is that of the first source, the base not counted, that
/// has a tensor of the backbone; heads never have it. So a bare `BertModel` base (`embeddings.*`) under `bert.*` fine-tunes gives
/// `bert.embeddings.*`, and `bert.pooler.*` for what only the base has.
///
/// A source that has both `x` and `model.x` is not stripped; names are then taken as they are in all sources.
///
/// # Errors
/// There are no sources, or one gives a name twice.
pub fn align(sources: &[SourceNames<'_>]) -> Result<Alignment> {
    let leader = sources.iter().position(|source| !source.is_base).unwrap_or(0);
    let Some(reference) = sources.get(leader) else {
        return Err(Error::new("there are no models whose tensors could be aligned"));
    };
    let prefixes = prefixes(sources, leader);
    let keys: Vec<Vec<Key>> = sources.iter().zip(&prefixes).map(|(source, prefix)| keys(source, prefix, &prefixes)).collect();
    let spelled = |number: &usize| keys[*number].iter().any(|key| matches!(key, Key::Backbone(_)));
    let others = (0..sources.len()).filter(|&number| !sources[number].is_base);
    let canonical = others.chain(0..sources.len()).find(spelled).map_or("", |number| prefixes[number].as_str());
    let mut tensors: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for (number, (source, keys)) in sources.iter().zip(&keys).enumerate() {
        for (name, key) in source.names.iter().zip(keys) {
            let canonical = match key {
                Key::Backbone(rest) => format!("{canonical}{rest}"),
                Key::Outside(name) => name.clone(),
            };
            let entry = tensors.entry(canonical).or_insert_with(|| vec![None; sources.len()]);
            if let Some(earlier) = entry[number].replace((*name).to_owned()) {
                return Err(Error::new(format!("{name} and {earlier} are two names for one tensor of a model")));
            }
        }
    }
    let tensors = tensors.into_iter().map(|(name, sources)| AlignedTensor { name, sources }).collect();
    Ok(Alignment { tensors, architecture: reference.architecture.with_prefix(canonical) })
}

/// The prefix of each source's backbone; all empty where one of them cannot be stripped.
fn prefixes(sources: &[SourceNames<'_>], leader: usize) -> Vec<String> {
    let known = sources.iter().all(|source| !source.architecture.is_generic());
    let mut found: Vec<String> =
        sources.iter().map(|source| source.architecture.respelled(source.names.iter().copied()).prefix().to_owned()).collect();
    if !known {
        for (number, source) in sources.iter().enumerate().filter(|(number, _)| *number != leader) {
            if let Some((own, leaders)) = infer_prefixes(&source.names, &sources[leader].names) {
                found[number] = own;
                if !leaders.is_empty() {
                    found[leader] = leaders;
                }
            }
        }
        // A source that has the prefix that was found in another has it, too.
        let common = found.iter().find(|prefix| !prefix.is_empty()).cloned();
        for (source, prefix) in sources.iter().zip(&mut found) {
            if let Some(common) = &common
                && source.names.iter().any(|name| name.starts_with(common.as_str()))
            {
                prefix.clone_from(common);
            }
        }
    }
    if sources.iter().zip(&found).any(|(source, prefix)| is_ambiguous(&source.names, prefix)) {
        return vec![String::new(); sources.len()];
    }
    found
}

/// Whether names hold both `x` and `prefix` + `x`.
fn is_ambiguous(names: &[&str], prefix: &str) -> bool {
    let all: BTreeSet<&str> = names.iter().copied().collect();
    !prefix.is_empty() && names.iter().any(|name| name.strip_prefix(prefix).is_some_and(|rest| all.contains(rest)))
}

/// For unknown architectures: the prefix (`own`, `other`; one of them empty) by which most names of two sources become equal.
fn infer_prefixes(own: &[&str], other: &[&str]) -> Option<(String, String)> {
    let sets: [BTreeSet<&str>; 2] = [own.iter().copied().collect(), other.iter().copied().collect()];
    let equal = sets[0].intersection(&sets[1]).count();
    let mut best = (equal.max(own.len().min(other.len()) / 2), None);
    for (long, short, own_is_long) in [(&sets[0], &sets[1], true), (&sets[1], &sets[0], false)] {
        let candidates: BTreeSet<&str> = long.iter().filter_map(|name| Some(&name[..name.find('.')? + 1])).collect();
        for prefix in candidates {
            let hits = long.iter().filter(|name| name.strip_prefix(prefix).is_some_and(|rest| short.contains(rest))).count();
            if hits > best.0 {
                let pair = if own_is_long { (prefix.to_owned(), String::new()) } else { (String::new(), prefix.to_owned()) };
                best = (hits, Some(pair));
            }
        }
    }
    best.1
}

/// The keys of a source's names, in their order.
fn keys(source: &SourceNames<'_>, prefix: &str, all: &[String]) -> Vec<Key> {
    let stripping = all.iter().any(|prefix| !prefix.is_empty());
    let key = |name: &&str| {
        let name = *name;
        if !prefix.is_empty() {
            return name.strip_prefix(prefix).map_or_else(|| Key::Outside(name.to_owned()), |rest| Key::Backbone(rest.to_owned()));
        }
        let first = name.split('.').next().unwrap_or(name);
        let head = source.architecture.is_head(name) || source.architecture.is_generic() && generic_head(first);
        if head || !stripping { Key::Outside(name.to_owned()) } else { Key::Backbone(name.to_owned()) }
    };
    source.names.iter().map(key).collect()
}

fn generic_head(component: &str) -> bool {
    generic().heads.iter().any(|head| head == component)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    fn architecture(model_type: &str, names: &[&str]) -> Architecture {
        let config = Config::parse(&format!(r#"{{"model_type": "{model_type}"}}"#), Path::new("config.json")).unwrap();
        Architecture::of(&config, names.iter().copied())
    }

    /// Aligns sources of one model type, the first of which is the base; gives canonical name and own names, `-` for none.
    fn aligned(model_type: &str, sources: &[&[&str]]) -> (Vec<String>, String) {
        let architectures: Vec<Architecture> = sources.iter().map(|names| architecture(model_type, names)).collect();
        let all: Vec<SourceNames<'_>> = sources
            .iter()
            .zip(&architectures)
            .enumerate()
            .map(|(number, (names, architecture))| SourceNames { is_base: number == 0, architecture, names: names.to_vec() })
            .collect();
        let alignment = align(&all).unwrap();
        let own = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".into());
        let rows = alignment
            .tensors
            .iter()
            .map(|tensor| format!("{}: {}", tensor.name, tensor.sources.iter().map(own).collect::<Vec<_>>().join(" ")))
            .collect();
        (rows, alignment.architecture.prefix().to_owned())
    }

    #[test]
    fn a_bare_bert_base_takes_the_prefix_of_its_fine_tunes() {
        let base = ["embeddings.word_embeddings.weight", "encoder.layer.0.x", "pooler.dense.weight"];
        let tuned = ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.x", "classifier.weight"];
        let (rows, prefix) = aligned("bert", &[&base, &tuned]);
        let wanted = [
            "bert.embeddings.word_embeddings.weight: embeddings.word_embeddings.weight bert.embeddings.word_embeddings.weight",
            "bert.encoder.layer.0.x: encoder.layer.0.x bert.encoder.layer.0.x",
            "bert.pooler.dense.weight: pooler.dense.weight -",
            "classifier.weight: - classifier.weight",
        ];
        assert_eq!((rows.as_slice(), prefix.as_str()), (wanted.map(str::to_owned).as_slice(), "bert."));
        let (rows, prefix) = aligned("bert", &[&tuned, &base]);
        assert_eq!(rows[0], "classifier.weight: classifier.weight -");
        assert_eq!((rows[3].as_str(), prefix.as_str()), ("pooler.dense.weight: - pooler.dense.weight", ""));
    }

    #[test]
    fn llamas_with_and_without_prefix_are_one_and_a_head_never_has_it() {
        let (rows, _) = aligned(
            "llama",
            &[&["embed_tokens.weight", "lm_head.weight", "norm.weight"], &["model.embed_tokens.weight", "model.norm.weight"]],
        );
        let wanted = [
            "lm_head.weight: lm_head.weight -",
            "model.embed_tokens.weight: embed_tokens.weight model.embed_tokens.weight",
            "model.norm.weight: norm.weight model.norm.weight",
        ];
        assert_eq!(rows, wanted);
    }

    #[test]
    fn names_that_are_equal_stay_as_they_are() {
        for kind in ["llama", "martian", "t5"] {
            let names = ["lm_head.weight", "model.layers.0.x", "model.norm.weight"];
            let (rows, _) = aligned(kind, &[&names, &names]);
            assert_eq!(rows, names.map(|name| format!("{name}: {name} {name}")), "{kind}");
        }
    }

    #[test]
    fn a_source_with_both_spellings_is_not_stripped() {
        let (rows, prefix) = aligned("llama", &[&["norm.weight"], &["norm.weight", "model.norm.weight"]]);
        assert_eq!(
            (rows, prefix.as_str()),
            (vec!["model.norm.weight: - model.norm.weight".to_owned(), "norm.weight: norm.weight norm.weight".to_owned()], "")
        );
    }

    #[test]
    fn the_prefix_of_an_unknown_architecture_is_inferred() {
        let bare = ["blocks.0.w", "blocks.1.w", "stem.w"];
        let tuned = ["classifier.weight", "net.blocks.0.w", "net.blocks.1.w", "net.stem.w"];
        for sources in [[&bare[..], &tuned[..]], [&tuned[..], &bare[..]]] {
            let (rows, _) = aligned("martian", &sources);
            assert_eq!(rows.len(), 4, "{rows:?}");
            assert_eq!(rows.iter().filter(|row| row.contains(" -") || row.contains(": -")).count(), 1, "{rows:?}");
        }
        assert_eq!(aligned("martian", &[&bare, &tuned]).0[1], "net.blocks.0.w: blocks.0.w net.blocks.0.w");
    }

    #[test]
    fn the_base_alone_is_its_own_spelling_and_no_source_is_an_error() {
        assert_eq!(aligned("llama", &[&["model.norm.weight"]]).0, ["model.norm.weight: model.norm.weight"]);
        assert!(align(&[]).is_err());
    }
}
