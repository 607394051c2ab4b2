//! A recipe as YAML again, with every default filled in.

use std::fmt::Write;

use deltaic_checkpoint::ModelReference;

use super::check::{SPELLINGS, blocks, first_without};
use super::{Entry, Layout, OwnSparsify, Parameters, Recipe, Scalar, Setting, TokenizerSource, own, statistics, vocab};
use crate::gather::Operands;
use crate::methods::{Default, Preset, Statistics};
use crate::sparsifiers::{Rescale, Sparsify};

/// What models and files are called in a recipe that is written.
pub struct Names<'a> {
    /// Of models.
    pub model: &'a dyn Fn(&ModelReference) -> ModelReference,
    /// Of files and folders that the recipe names beside models.
    pub file: &'a dyn Fn(&str) -> String,
}

impl Recipe {
    /// The recipe as YAML that reads again as the same recipe, with every default filled in: preset, sparsifiers, and the method's
    /// parameters that not every model is given. `names` says what models and files are to be called; `seed` is written where the recipe has none.
    pub fn to_yaml(&self, names: &Names<'_>, seed: Option<u64>) -> String {
        let mut out = format!("merge_method: {}\npreset: {}\n", text(self.method.name), preset_name(self.preset));
        let mut line = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(out, "{key}: {value}");
            }
        };
        let model = |reference: &ModelReference| written_model(&(names.model)(reference));
        line("base_model", self.base_model.as_ref().map(|base| model(&base.value)));
        line("seed", self.seed.or(seed).map(|seed| seed.to_string()));
        line("sparsify", self.sparsify.as_ref().map(sparsify));
        let patterns: Vec<_> = self.exclude.iter().map(|pattern| text(own::pattern_text(&pattern.value))).collect();
        line("exclude", (!patterns.is_empty()).then(|| format!("[{}]", patterns.join(", "))));
        line("vocab", self.vocab.map(vocab::written));
        let file = |given: &str| text(&(names.file)(given));
        let of_data = self.method.statistics.is_some();
        line("data", self.data.as_ref().filter(|_| of_data).map(|data| statistics::written_data(&data.value, text, file)));
        match self.method.statistics {
            None => {}
            Some(Statistics::Fisher) => line("fisher", Some(statistics::written_fisher(&self.fisher, number))),
            Some(Statistics::Gram) => line("gram", Some(statistics::written_gram(&self.gram))),
        }
        line("dtype", self.dtype.map(|dtype| own::dtype_name(dtype).to_owned()));
        line("out_dtype", self.out_dtype.or(self.dtype).map(|dtype| own::dtype_name(dtype).to_owned()));
        line(
            "tokenizer_source",
            self.tokenizer_source.as_ref().map(|source| match &source.value {
                TokenizerSource::Base => "base".to_owned(),
                TokenizerSource::Union => "union".to_owned(),
                TokenizerSource::Model(reference) => match model(reference) {
                    word if word == "base" || word == "union" => long_form(&(names.model)(reference)),
                    other => other,
                },
            }),
        );
        let mut settings = written(&self.parameters);
        settings.extend(self.defaults());
        line("parameters", (!settings.is_empty()).then(|| format!("{{{}}}", settings.join(", "))));
        self.write_layout(&mut out, &model, &file);
        out
    }

    /// Defaults of the method's parameters that some model is not given.
    fn defaults(&self) -> Vec<String> {
        let given = |name: &str| blocks(self).flatten().any(|(known, _)| known == name);
        let other_spelling = |name: &str| match SPELLINGS {
            (one, other) if name == one => given(other),
            (one, other) if name == other => given(one),
            _ => false,
        };
        let counts = |parameter: &&crate::methods::Parameter| {
            let (name, missing) = (parameter.name, first_without(self, parameter).is_some());
            missing && !parameter.no_effect && (given(name) || !other_spelling(name))
        };
        let default = |parameter: &crate::methods::Parameter| match parameter.default {
            Default::Number(value) => Some(format!("{}: {}", parameter.name, number(value))),
            Default::Bool(value) => Some(format!("{}: {value}", parameter.name)),
            Default::Required | Default::Absent => None,
        };
        self.method.parameters.iter().filter(counts).filter_map(default).collect()
    }

    fn write_layout(&self, out: &mut String, model: &dyn Fn(&ModelReference) -> String, file: &dyn Fn(&str) -> String) {
        match &self.layout {
            Layout::Models(entries) if entries.is_empty() => out.push_str("models: []\n"),
            Layout::Models(entries) => {
                out.push_str("models:\n");
                entries.iter().for_each(|entry| write_entry(out, "  ", entry, model, file));
            }
            Layout::Slices(slices) => {
                out.push_str("slices:\n");
                for slice in slices {
                    out.push_str("  - sources:\n");
                    slice.sources.iter().for_each(|entry| write_entry(out, "      ", entry, model, file));
                    if let Some(base) = &slice.base_model {
                        let _ = writeln!(out, "    base_model: {}", model(&base.value));
                    }
                    write_parameters(out, "    ", &slice.parameters);
                }
            }
        }
    }
}

/// A model in the short form, or in the long one where the short form would read as another.
fn written_model(model: &ModelReference) -> String {
    let short = model.to_string();
    if ModelReference::parse(&short).is_ok_and(|read| read == *model) { text(&short) } else { long_form(model) }
}

fn long_form(model: &ModelReference) -> String {
    let part = |path: &str, revision: &Option<String>| match revision {
        Some(revision) => format!("{{path: {}, revision: {}}}", text(path), text(revision)),
        None => format!("{{path: {}}}", text(path)),
    };
    let lora = model.lora.as_ref().map_or(String::new(), |(path, revision)| format!(", lora: {}", part(path, revision)));
    format!("{{model: {}{lora}}}", part(&model.path, &model.revision))
}

fn preset_name(preset: Preset) -> &'static str {
    match preset {
        Preset::Mergekit => "mergekit",
        Preset::Paper => "paper",
    }
}

fn write_entry(out: &mut String, indent: &str, entry: &Entry, model: &dyn Fn(&ModelReference) -> String, file: &dyn Fn(&str) -> String) {
    let _ = writeln!(out, "{indent}- model: {}", model(&entry.model.value));
    if let Some((first, end)) = entry.layer_range {
        let _ = writeln!(out, "{indent}  layer_range: [{first}, {end}]");
    }
    match &entry.sparsify {
        OwnSparsify::Inherited => {}
        OwnSparsify::Off => {
            let _ = writeln!(out, "{indent}  sparsify: none");
        }
        OwnSparsify::Own(own) => {
            let _ = writeln!(out, "{indent}  sparsify: {}", sparsify(own));
        }
    }
    if let Some(seed) = entry.seed {
        let _ = writeln!(out, "{indent}  seed: {seed}");
    }
    if let Some(statistics) = &entry.statistics {
        let _ = writeln!(out, "{indent}  statistics: {}", file(&statistics.value));
    }
    if let Some(data) = &entry.data {
        let _ = writeln!(out, "{indent}  data: {}", statistics::written_data(&data.value, text, file));
    }
    write_parameters(out, &format!("{indent}  "), &entry.parameters);
}

fn write_parameters(out: &mut String, indent: &str, parameters: &Parameters) {
    if !parameters.is_empty() {
        let _ = writeln!(out, "{indent}parameters: {{{}}}", written(parameters).join(", "));
    }
}

fn written(parameters: &Parameters) -> Vec<String> {
    parameters.iter().map(|(name, setting)| format!("{}: {}", text(name), written_setting(&setting.value))).collect()
}

fn written_setting(setting: &Setting) -> String {
    match setting {
        Setting::Scalar(value) => scalar(value),
        Setting::Gradient(values) => format!("[{}]", values.iter().map(|value| number(*value)).collect::<Vec<_>>().join(", ")),
        Setting::Steps(values) => format!("[{}]", values.iter().map(scalar).collect::<Vec<_>>().join(", ")),
        Setting::Conditional(clauses) => {
            let clause = |(filter, setting): &(Option<String>, Setting)| match filter {
                Some(filter) => format!("{{filter: {}, value: {}}}", text(filter), written_setting(setting)),
                None => format!("{{value: {}}}", written_setting(setting)),
            };
            format!("[{}]", clauses.iter().map(clause).collect::<Vec<_>>().join(", "))
        }
    }
}

fn scalar(value: &Scalar) -> String {
    match value {
        Scalar::Bool(truth) => truth.to_string(),
        Scalar::Number(value) => number(*value),
        Scalar::Text(value) => quoted(value),
    }
}

fn sparsify(sparsify: &Sparsify) -> String {
    let rescale = match sparsify.rescale {
        Rescale::Inverse => "inverse",
        Rescale::L1 => "l1",
        Rescale::None => "none",
    };
    let of = match sparsify.of {
        Operands::Deltas => "delta",
        Operands::Weights => "weights",
    };
    let seed = sparsify.seed.map_or(String::new(), |seed| format!(", seed: {seed}"));
    format!("{{kind: {}, drop_rate: {}, rescale: {rescale}, of: {of}{seed}}}", text(&sparsify.kind), number(sparsify.drop_rate))
}

/// The shortest decimal that reads as the same f64, spelled so that YAML 1.1 takes it for a number too (`1.0e-10`).
fn number(value: f64) -> String {
    let short = format!("{value:?}");
    match short.split_once('e') {
        None => short,
        Some((mantissa, exponent)) => {
            let point = if mantissa.contains('.') { "" } else { ".0" };
            let sign = if exponent.starts_with('-') { "" } else { "+" };
            format!("{mantissa}{point}e{sign}{exponent}")
        }
    }
}

/// Text as it stands where YAML cannot mistake it, else in quotes.
fn text(value: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+');
    let starts_safely = value.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.' | '/'));
    if starts_safely && value.chars().all(safe) && own::is_plain_text(value) && !value.starts_with("...") {
        value.to_owned()
    } else {
        quoted(value)
    }
}

/// Text in double quotes, everything that is not plainly visible escaped.
fn quoted(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || super::document::is_invisible(c) || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}
