//! Recipes as a whole: messages, the golden cases, round trips, hostile text.

use std::path::PathBuf;
use std::sync::Arc;

use deltaic_checkpoint::{Error, ModelReference};
use proptest::prelude::*;

use super::{Document, Layout, Names, Recipe, Setting, Spanned, UnknownPolicy, Warning, check, lookup, parse};
use crate::methods;

fn read_with(text: &str, unknown: UnknownPolicy) -> Result<(Recipe, Vec<Warning>), Error> {
    parse(Arc::new(Document::new("recipe.yml", text, "")), unknown)
}

fn read(text: &str) -> Recipe {
    match read_with(text, UnknownPolicy::Default) {
        Ok((recipe, _)) => recipe,
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// Models and files by the names that the recipe has for them.
fn as_named() -> Names<'static> {
    Names { model: &ModelReference::clone, file: &str::to_owned }
}

/// What a recipe gives, as the command line shows it: the error, or the warnings, or `fine`.
fn shown(text: &str, unknown: UnknownPolicy) -> String {
    match read_with(text, unknown) {
        Ok((_, warnings)) if warnings.is_empty() => "fine".to_owned(),
        Ok((_, warnings)) => warnings.iter().map(|warning| format!("warning: {warning}")).collect::<Vec<_>>().join("\n"),
        Err(error) => format!("error: {error}"),
    }
}

/// `messages.txt`: recipes between lines `=== [ignore|strict] title` and `---`, each followed by what is said about it.
#[test]
fn messages_name_the_line_what_is_wrong_and_what_to_do() {
    let mut failed = Vec::new();
    for case in include_str!("messages.txt").split("=== ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (recipe, expected) = rest.split_once("-----\n").unwrap();
        let policy = match title.split(' ').next() {
            Some("[ignore]") => UnknownPolicy::Ignore,
            Some("[strict]") => UnknownPolicy::Strict,
            _ => UnknownPolicy::Default,
        };
        let found = shown(recipe, policy);
        if found != expected.trim_end() {
            failed.push(format!("=== {title}\n{recipe}-----\n{found}\n"));
        }
    }
    assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed.join(""));
}

#[test]
fn every_golden_recipe_is_read_or_not_built_yet_and_survives_being_written() {
    let golden = std::env::var_os("DELTAIC_GOLDEN")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden")), PathBuf::from);
    let Ok(cases) = std::fs::read_dir(golden.join("cases")) else {
        eprintln!("skipped: no golden cases at {}", golden.display());
        return;
    };
    let mut read_cases = 0;
    for case in cases {
        let path = case.unwrap().path().join("recipe.yml");
        match parse(Arc::new(Document::read(&path).unwrap()), UnknownPolicy::Default) {
            Ok((recipe, warnings)) => {
                read_cases += 1;
                assert!(warnings.is_empty() || path.ends_with("parameters-without-effect/recipe.yml"), "{warnings:?}");
                same_when_written(&recipe);
            }
            Err(error) => assert!(error.is_not_yet(), "{error}"),
        }
    }
    assert!(read_cases >= 80, "only {read_cases}");
}

#[test]
fn the_examples_of_all_methods_are_recipes() {
    for method in methods::all() {
        let recipe = read(method.example);
        assert_eq!((recipe.method.name, recipe.method.preset), (method.name, method.preset));
        same_when_written(&recipe);
    }
}

#[test]
fn streams_are_places_among_the_models_without_the_base() {
    let recipe = read(
        "merge_method: ties\nbase_model: b\nparameters: {weight: 1}\nslices:\n\
         - sources: [{model: b, layer_range: [0, 1]}, {model: x, layer_range: [0, 1]}, {model: y, layer_range: [0, 1]}]\n\
         - base_model: y\n  sources: [{model: y, layer_range: [0, 1]}, {model: b, layer_range: [0, 1]}, {model: x, layer_range: [0, 1]}]\n",
    );
    let names: Vec<String> = recipe.models().iter().map(ModelReference::to_string).collect();
    assert_eq!(names, ["x", "y", "b"]);
}

#[test]
fn a_seed_is_as_written_or_the_hash_of_the_document() {
    let text = "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n";
    assert_eq!(read(&format!("{text}seed: 18446744073709551615\n")).seed_or_derived(), u64::MAX);
    // sha256sum of the text: its first eight bytes, the last first.
    assert_eq!(read(text).seed_or_derived(), SEED_OF_THE_TEXT);
}

const SEED_OF_THE_TEXT: u64 = 12029015554946083385;

#[test]
fn exclude_matches_whole_names_only() {
    let recipe = read("merge_method: average\nmodels: [{model: a}]\nexclude: ['.*classifier.*', 'a|b', '(?i)HEAD']\n");
    let excluded = |name: &str| recipe.exclude.iter().any(|pattern| pattern.value.is_match(name));
    assert!(excluded("classifier.weight") && excluded("x.classifier.bias") && excluded("a") && excluded("b") && excluded("head"));
    assert!(!excluded("ab") && !excluded("a\n") && !excluded("heads"));
}

#[test]
fn merge_keys_share_parameters_between_models() {
    let recipe = read(
        "x: &own {parameters: {weight: 0.5}}\nmerge_method: ties\nbase_model: b\nmodels:\n\
         - {<<: *own, model: a}\n- {model: c, parameters: {weight: 1e-1}}\n",
    );
    let Layout::Models(entries) = &recipe.layout else { panic!("models") };
    let weight = |at: usize| lookup(&[&entries[at].parameters], "weight", "x", 0.0).and_then(|value| value.value.as_number());
    assert_eq!((weight(0), weight(1)), (Some(0.5), Some(0.1)));
}

#[test]
fn a_model_in_the_long_form_is_taken_as_it_is() {
    let recipe = read(
        "merge_method: average\nmodels:\n- model: {model: {path: '/a@b/c+d', revision: r}, lora: {path: l}}\n\
         - model: {model: {path: x}}\n- model: x@main+y@z\n",
    );
    let models = recipe.models();
    assert_eq!((models[0].path.as_str(), models[0].revision.as_deref()), ("/a@b/c+d", Some("r")));
    assert_eq!(models[0].lora, Some(("l".to_owned(), None)));
    assert_eq!(models[1], ModelReference::new("x"));
    assert_eq!(models[2].lora, Some(("y".to_owned(), Some("z".to_owned()))));
    same_when_written(&recipe);
}

/// Writing and reading changes nothing but spans, and but for defaults that are now written.
fn same_when_written(recipe: &Recipe) {
    let written = recipe.to_yaml(&as_named(), Some(recipe.seed_or_derived()));
    let again = match read_with(&written, UnknownPolicy::Strict) {
        Ok((again, _)) => again,
        Err(error) => panic!("{error}\n{written}"),
    };
    assert_eq!(again.to_yaml(&as_named(), None), written, "written twice is written once");
    assert_eq!(again.seed, Some(recipe.seed_or_derived()));
    assert_eq!((again.preset, again.method.name), (recipe.preset, recipe.method.name));
    assert_eq!((again.dtype, again.out_dtype), (recipe.dtype, recipe.out_dtype.or(recipe.dtype)));
    let value = |spanned: &Option<Spanned<ModelReference>>| spanned.as_ref().map(|spanned| spanned.value.clone());
    assert_eq!(value(&again.base_model), value(&recipe.base_model));
    assert_eq!(again.sparsify, recipe.sparsify);
    let patterns = |recipe: &Recipe| recipe.exclude.iter().map(|pattern| pattern.value.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(patterns(&again), patterns(recipe));
    assert_eq!(again.tokenizer_source.as_ref().map(|source| &source.value), recipe.tokenizer_source.as_ref().map(|source| &source.value));
    assert_eq!(again.entries().count(), recipe.entries().count());
    for ((slice, entry), (slice_again, entry_again)) in recipe.entries().zip(again.entries()) {
        assert_eq!(entry.model.value, entry_again.model.value);
        assert_eq!((entry.layer_range, entry.seed, &entry.sparsify), (entry_again.layer_range, entry_again.seed, &entry_again.sparsify));
        assert_eq!(recipe.base_of(slice), again.base_of(slice_again));
    }
    let settings = |recipe: &Recipe| -> Vec<Vec<(String, Setting)>> {
        let strip = |block: &super::Parameters| block.iter().map(|(name, setting)| (name.clone(), setting.value.clone())).collect();
        check::blocks(recipe).skip(1).map(strip).collect()
    };
    assert_eq!(settings(&again), settings(recipe), "the parameters of models and slices");
    let top: Vec<_> = recipe.parameters.iter().map(|(name, setting)| (name, &setting.value)).collect();
    let top_again: Vec<_> = again.parameters.iter().map(|(name, setting)| (name, &setting.value)).collect();
    assert_eq!(top_again[..top.len()], top, "the recipe's parameters, before the defaults");
}

/// Values of a parameter within 0 and 1, in all forms.
fn setting(depth: u32) -> BoxedStrategy<String> {
    let number = prop_oneof![
        (0.0..=1.0).prop_map(|value: f64| format!("{value:?}")),
        Just("1e-10".to_owned()),
        Just("'0.25'".to_owned()),
        Just("yes".to_owned()),
        Just("0".to_owned()),
    ];
    let list = proptest::collection::vec(number.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(", ")));
    if depth == 0 {
        return prop_oneof![number, list].boxed();
    }
    let filter = prop_oneof![
        Just(String::new()),
        Just("filter: '*', ".to_owned()),
        "[ -~é\u{1b}\u{200b}]{0,6}"
            .prop_map(|text| { format!("filter: \"{}\", ", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\u{1b}', "\\e")) })
    ];
    let clause = (filter, setting(0)).prop_map(|(filter, value)| format!("{{{filter}value: {value}}}"));
    let clauses = proptest::collection::vec(clause.clone(), 1..4).prop_map(|clauses| format!("[{}]", clauses.join(", ")));
    prop_oneof![number, list, clause, clauses].boxed()
}

fn sparsify() -> impl Strategy<Value = String> {
    let kind = prop_oneof![Just("dare"), Just("magnitude")];
    let rescale = prop_oneof![Just(""), Just(", rescale: none"), Just(", rescale: l1")];
    let of = prop_oneof![Just(""), Just(", of: weights")];
    (kind, 0.0..=1.0f64, rescale, of).prop_map(|(kind, rate, rescale, of)| format!("{{kind: {kind}, density: {rate:?}{rescale}{of}}}"))
}

/// Recipes that are well formed, if not all of them mean anything.
fn recipe() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("./x y/b"), Just("'007'"), Just("org/c@main+org/d"), Just("{model: {path: '/p@q/r+s'}}")];
    let entry = (name.clone(), setting(1), setting(1), proptest::option::of(sparsify()), proptest::option::of(any::<u64>()));
    let method =
        prop_oneof![Just("linear"), Just("ties"), Just("task_arithmetic"), Just("average"), Just("dare_ties"), Just("model_stock")];
    let models = proptest::collection::vec(entry, 1..5);
    (method, any::<(bool, bool)>(), models, setting(1), proptest::option::of(sparsify()), proptest::option::of(any::<u64>())).prop_map(
        |(method, (paper, sliced), models, weight, sparse, seed)| {
            let mut text = format!("merge_method: {method}\nbase_model: base\nparameters: {{weight: {weight}, normalize: off}}\n");
            let optional =
                |key: &str, value: Option<String>, indent: &str| value.map_or(String::new(), |value| format!("{indent}{key}: {value}\n"));
            text += if paper { "preset: paper\n" } else { "" };
            text += &optional("sparsify", sparse, "");
            text += &optional("seed", seed.map(|seed| seed.to_string()), "");
            let base = "      - {model: base, layer_range: [3, 5]}\n";
            text +=
                &if sliced { format!("slices:\n  - parameters: {{lambda: 0.5}}\n    sources:\n{base}") } else { "models:\n".to_owned() };
            for (name, weight, density, sparse, seed) in models {
                text += &format!("      - model: {name}\n        parameters: {{weight: {weight}, density: {density}}}\n");
                text += if sliced { "        layer_range: [0, 2]\n" } else { "" };
                text += &optional("sparsify", sparse, "        ");
                text += &optional("seed", seed.map(|seed| seed.to_string()), "        ");
            }
            text
        },
    )
}

/// What means something in YAML, and some that does not.
const NEW_TEXT: &str = "[-\\[\\]{}:,&*!|>'\"#%@`?<~ \t\r\n\u{0}\u{feff}a0.é]{0,3}";

proptest! {
    #[test]
    fn a_recipe_that_is_read_survives_being_written(text in recipe()) {
        if let Ok((recipe, _)) = read_with(&text, UnknownPolicy::Ignore) {
            same_when_written(&recipe);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(
        text in recipe(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), NEW_TEXT, 0usize..4), 0..8),
    ) {
        let mut characters: Vec<char> = text.chars().collect();
        for (at, new, removed) in edits {
            let at = at.index(characters.len() + 1);
            let end = (at + removed).min(characters.len());
            characters.splice(at..end, new.chars());
        }
        let text: String = characters.into_iter().collect();
        for policy in [UnknownPolicy::Default, UnknownPolicy::Ignore, UnknownPolicy::Strict] {
            if let Ok((recipe, _)) = read_with(&text, policy) {
                same_when_written(&recipe);
            }
        }
    }
}
