//! `adapter_config.json` of PEFT, as far as adding a LoRA to its base needs it.

use std::path::{Path, PathBuf};

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::formats::regular_file::{AGAIN, read_text};

/// A configuration of more bytes is not one.
const MAX_CONFIG: u64 = 4 << 20;
/// Greatest size of all compiled patterns together: compiling takes memory, and time.
const MAX_PATTERNS: usize = 8 << 20;
/// Keys that change nothing of what a finished adapter adds: where and how it was trained, or how its factors were first set. What
/// is not here and not read below must be null, false or empty.
const WITHOUT_EFFECT: [&str; 27] = [
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "enable_lora",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "merge_weights",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "bias",
];
/// Initialisations that change the base's weights, too: the adapter then belongs to other weights than those of the base.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];
/// Variants that are not plain LoRA: key, and what it is called.
const VARIANTS: [(&str, &str); 9] = [
    ("use_dora", "a DoRA adapter"),
    ("alora_invocation_tokens", "an activated LoRA (aLoRA)"),
    ("layer_replication", "a LoRA with replicated layers"),
    ("trainable_token_indices", "a LoRA with trainable tokens"),
    ("target_parameters", "a LoRA on bare parameters"),
    ("use_qalora", "a QA-LoRA adapter"),
    ("use_bdlora", "a block-diagonal LoRA (BD-LoRA)"),
    ("kasa_config", "a KaSA adapter"),
    ("monteclora_config", "a MonteCLoRA adapter"),
];

/// What `adapter_config.json` says of a LoRA adapter.
#[derive(Debug, Clone)]
pub struct AdapterConfig {
    path: PathBuf,
    rank: u64,
    alpha: f64,
    use_rslora: bool,
    rank_pattern: Vec<(Regex, f64)>,
    alpha_pattern: Vec<(Regex, f64)>,
    /// Whether targets are stored as `[in, out]` (GPT-2's Conv1D), so that the factors' product is transposed.
    pub fan_in_fan_out: bool,
    /// Modules that the adapter stores whole.
    pub modules_to_save: Vec<String>,
    /// Whether an embedding and the head that is tied to it were trained as one.
    pub ensure_weight_tying: bool,
}

impl AdapterConfig {
    /// Reads the configuration of an adapter's folder.
    ///
    /// # Errors
    /// It is missing or unreadable, or the adapter is not plain LoRA: DoRA, another PEFT method and so on, each by its name.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("adapter_config.json");
        if !path.exists() {
            return Err(Error::new(format!("{}: expected a PEFT adapter, but there is no adapter_config.json", folder.display()))
                .help("name the folder that PEFT saved, which holds adapter_config.json and adapter_model.safetensors"));
        }
        Self::parse(&read_text(&path, MAX_CONFIG)?, &path)
    }

    /// Reads a configuration from text; `path` is for messages.
    ///
    /// # Errors
    /// As [`AdapterConfig::read`], but for what reading the file may bring.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let map: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| Error::new(format!("{}: not a readable configuration: {error}", path.display())).help(AGAIN))?;
        check_kind(&map).map_err(|error| error.within(path))?;
        Self::build(path, &map).map_err(|error| error.within(path))
    }

    fn build(path: &Path, map: &Map<String, Value>) -> Result<Self> {
        let rank = match map.get("r") {
            None => 8,
            Some(value) => value.as_u64().filter(|rank| *rank > 0).ok_or_else(|| wrong("r", "a whole number above zero", value))?,
        };
        let alpha = number(map, "lora_alpha")?.unwrap_or(8.0);
        // What it names has been trained already; but a configuration of another type is not one that PEFT reads.
        if !map.get("target_modules").is_some_and(Value::is_string) {
            names(map, "target_modules", "a pattern or a list of names")?;
        }
        Ok(Self {
            path: path.to_owned(),
            rank,
            alpha,
            use_rslora: flag(map, "use_rslora")?,
            rank_pattern: patterns(map, "rank_pattern")?,
            alpha_pattern: patterns(map, "alpha_pattern")?,
            fan_in_fan_out: flag(map, "fan_in_fan_out")?,
            modules_to_save: names(map, "modules_to_save", "a list of names")?,
            ensure_weight_tying: flag(map, "ensure_weight_tying")?,
        })
    }

    /// The file from which it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rank of a module's factors. The first pattern counts that matches the module's name or its last components
    /// (`(.*\.)?(pattern)$`, PEFT's `get_pattern_key`).
    pub fn rank_of(&self, module: &str) -> u64 {
        first_match(&self.rank_pattern, module).map_or(self.rank, |rank| rank as u64)
    }

    /// The factor on `B A`: alpha / r, or alpha / sqrt(r) with rsLoRA, with the module's own alpha and rank.
    pub fn scaling_of(&self, module: &str) -> f64 {
        let rank = self.rank_of(module) as f64;
        let alpha = first_match(&self.alpha_pattern, module).unwrap_or(self.alpha);
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Whether a tensor belongs to one of `modules_to_save`, as PEFT finds them: the module's name, or its last components.
    pub fn saves_module_of(&self, tensor: &str) -> bool {
        self.modules_to_save.iter().any(|module| is_of_module(tensor, module))
    }
}

/// Whether a tensor belongs to a module that is named by its last components.
pub(crate) fn is_of_module(tensor: &str, module: &str) -> bool {
    let starts = std::iter::once(0).chain(tensor.match_indices('.').map(|(dot, _)| dot + 1));
    starts.into_iter().any(|start| tensor[start..].strip_prefix(module).is_some_and(|rest| rest.starts_with('.')))
}

/// What to do about an adapter that is more than deltaic reads.
const MERGE: &str = "merge it into its base with PEFT's `merge_and_unload`, and give the result";

/// An error unless the adapter is a plain LoRA.
fn check_kind(map: &Map<String, Value>) -> Result<()> {
    let kind = map.get("peft_type").and_then(Value::as_str).unwrap_or("none");
    if kind != "LORA" {
        return Err(Error::new(format!("expected a LoRA adapter, found peft_type {kind}")).help(MERGE));
    }
    if let Some((key, what)) = VARIANTS.iter().find(|(key, _)| map.get(*key).is_some_and(is_set)) {
        return Err(Error::new(format!("{what} (`{key}`) is not applied on the fly: only plain LoRA is")).help(MERGE));
    }
    if let Some(init) = map.get("init_lora_weights").and_then(Value::as_str)
        && CHANGES_BASE.iter().any(|name| init.starts_with(name))
    {
        return Err(Error::new(format!("the adapter was begun with `init_lora_weights: {init}`, which changes the base's weights, too"))
            .help("save it again with PEFT's `path_initial_model_for_weight_conversion`, or merge it there"));
    }
    if map.get("arrow_config").is_some_and(is_set) {
        return Err(Error::new("an Arrow router over several adapters (`arrow_config`) has no one sum with its base")
            .help("merge the adapters one by one"));
    }
    const READ: [&str; 8] =
        ["peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "modules_to_save"];
    let unknown = |key: &str| !READ.contains(&key) && !WITHOUT_EFFECT.contains(&key) && VARIANTS.iter().all(|(variant, _)| *variant != key);
    match map.iter().find(|(key, value)| unknown(key) && is_set(value)) {
        Some((key, value)) => {
            let value: String = value.to_string().chars().take(80).collect();
            Err(Error::new(format!("`{key}: {value}` is not known to deltaic, and may change what the adapter adds")).help(MERGE))
        }
        None => Ok(()),
    }
}

/// Whether a setting is switched on: not null, false, or empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    let found: String = found.to_string().chars().take(80).collect();
    Error::new(format!("`{key}`: expected {expected}, found {found}")).help(AGAIN)
}

fn flag(map: &Map<String, Value>, key: &str) -> Result<bool> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| wrong(key, "true or false", value)),
    }
}

fn names(map: &Map<String, Value>, key: &str, expected: &str) -> Result<Vec<String>> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => serde_json::from_value(value.clone()).map_err(|_| wrong(key, expected, value)),
    }
}

fn number(map: &Map<String, Value>, key: &str) -> Result<Option<f64>> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => finite(value).map(Some).ok_or_else(|| wrong(key, "a number that is finite in f32", value)),
    }
}

/// A number that is one in f32, too, in which factors are multiplied.
fn finite(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| (*number as f32).is_finite())
}

/// Reads `rank_pattern` or `alpha_pattern`: regular expressions over module names, in the order of the file.
fn patterns(map: &Map<String, Value>, key: &str) -> Result<Vec<(Regex, f64)>> {
    let entries = match map.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(entries)) => entries,
        Some(value) => return Err(wrong(key, "an object of numbers", value)),
    };
    let most = MAX_PATTERNS / entries.len().max(1);
    let mut patterns = Vec::with_capacity(entries.len());
    for (pattern, value) in entries {
        let number = finite(value).filter(|number| key == "alpha_pattern" || *number >= 1.0 && number.fract() == 0.0);
        let number = number.ok_or_else(|| wrong(key, "whole numbers above zero", value))?;
        let whole = format!(r"^(?:.*\.)?(?:{pattern})$");
        let regex = RegexBuilder::new(&whole).size_limit(most).dfa_size_limit(most).build().map_err(|_| {
            Error::new(format!("`{key}`: `{pattern}` is not a regular expression that deltaic can read (there is no look-around)"))
                .help(MERGE)
        })?;
        patterns.push((regex, number));
    }
    Ok(patterns)
}

fn first_match(patterns: &[(Regex, f64)], module: &str) -> Option<f64> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<AdapterConfig> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("adapter_config.json"), json).unwrap();
        AdapterConfig::read(folder.path())
    }

    #[test]
    fn patterns_are_matched_as_peft_does() {
        let config = read(
            r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8,
                "rank_pattern": {"layers.1.mlp.up_proj": 2, "^model.x": 16, "v_proj|o_proj": 1},
                "alpha_pattern": {"proj": 3, "up_proj": 5}}"#,
        )
        .unwrap();
        for (module, rank, scaling) in [
            ("model.layers.1.mlp.up_proj", 2, 2.5),
            ("model.layers.11.mlp.up_proj", 4, 1.25),
            ("model.layers.0.q_proj", 4, 2.0),
            ("model.x", 16, 0.5),
            ("base.model.x", 4, 2.0),
            ("model.o_proj", 1, 8.0),
            ("a.proj", 4, 0.75),
        ] {
            assert_eq!((config.rank_of(module), config.scaling_of(module)), (rank, scaling), "{module}");
        }
        assert_eq!(read(r#"{"peft_type": "LORA", "r": 16, "lora_alpha": 5, "use_rslora": true}"#).unwrap().scaling_of("x"), 1.25);
    }

    #[test]
    fn saved_modules_are_found_by_their_last_components() {
        let config = read(r#"{"peft_type": "LORA", "modules_to_save": ["lm_head", "classifier.out"]}"#).unwrap();
        for (tensor, saved) in [
            ("lm_head.weight", true),
            ("model.lm_head.weight", true),
            ("x_lm_head.weight", false),
            ("classifier.out.bias", true),
            ("classifier.weight", false),
        ] {
            assert_eq!(config.saves_module_of(tensor), saved, "{tensor}");
        }
    }

    #[test]
    fn what_is_not_plain_lora_is_refused_by_name() {
        for (json, word) in [
            (r#"{"peft_type": "IA3"}"#, "IA3"),
            (r#"{}"#, "none"),
            (r#"{"peft_type": "LORA", "use_dora": true}"#, "DoRA"),
            (r#"{"peft_type": "LORA", "layer_replication": [[0, 2]]}"#, "replicated"),
            (r#"{"peft_type": "LORA", "alora_invocation_tokens": [1]}"#, "aLoRA"),
            (r#"{"peft_type": "LORA", "trainable_token_indices": [1]}"#, "trainable tokens"),
            (r#"{"peft_type": "LORA", "target_parameters": ["x"]}"#, "bare parameters"),
            (r#"{"peft_type": "LORA", "use_qalora": true}"#, "QA-LoRA"),
            (r#"{"peft_type": "LORA", "use_bdlora": {"x": 1}}"#, "BD-LoRA"),
            (r#"{"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"}"#, "pissa"),
            (r#"{"peft_type": "LORA", "use_next_thing": 1}"#, "use_next_thing"),
            (r#"{"peft_type": "LORA", "r": 0}"#, "`r`"),
            (r#"{"peft_type": "LORA", "target_modules": 3}"#, "`target_modules`: expected a pattern or a list of names, found 3"),
            (r#"{"peft_type": "LORA", "target_modules": ["q", 1]}"#, "target_modules"),
            (r#"{"peft_type": "LORA", "modules_to_save": "score"}"#, "modules_to_save"),
            (r#"{"peft_type": "LORA", "rank_pattern": {"(": 3}}"#, "rank_pattern"),
            (r#"["peft_type"]"#, "adapter_config.json"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.message().contains(word) && error.message().contains("adapter_config.json"), "{json}: {error}");
        }
    }
}
