//! What configurations of models that are merged have to agree in: keys that say how weights are used, so that weights of one model
//! mean something else under another one's. The list is data (`must_agree` in `architectures/generic.json`).

use serde::Deserialize;
use serde_json::Value;

use crate::architecture::generic;
use crate::config::Config;
use crate::dtype::shorten;

/// One thing that has to agree.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MustAgree {
    /// The keys that say it, in the order in which they are looked for.
    keys: Vec<String>,
    /// What it decides, as the end of a sentence.
    meaning: String,
    /// Whether `null` says that there is none; otherwise it says nothing.
    #[serde(default)]
    null_is_none: bool,
}

/// A key of which two configurations say different things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// The key, as the first of the two spells it.
    pub key: String,
    /// What either says, as JSON, shortened.
    pub values: [String; 2],
    /// What it decides.
    pub meaning: String,
}

impl Config {
    /// In what two configurations disagree that has to agree for their weights to be merged. A key that one of them does not have says
    /// nothing, for it may be the other's value that is the default. `rope_parameters` of transformers 5 is read as `rope_theta` and
    /// `rope_scaling`.
    pub fn disagreements(&self, other: &Self) -> Vec<Disagreement> {
        generic().must_agree.iter().filter_map(|what| what.between(self, other)).collect()
    }
}

impl MustAgree {
    fn between(&self, one: &Config, other: &Config) -> Option<Disagreement> {
        let ((key, one), (_, other)) = (self.said_by(one)?, self.said_by(other)?);
        if agree(&one, &other) {
            return None;
        }
        let values = [one, other].map(|value| shorten(&value.to_string()));
        Some(Disagreement { key: key.to_owned(), values, meaning: self.meaning.clone() })
    }

    /// What a configuration says, `null` for none, and under which key.
    fn said_by(&self, config: &Config) -> Option<(&str, Value)> {
        let said = |key: &String| config.get(key).filter(|value| self.null_is_none || !value.is_null());
        let direct = || self.keys.iter().find_map(|key| Some((key.as_str(), said(key)?)));
        let first = self.keys[0].as_str();
        let named = |value: Value| Some((first, value));
        match first {
            "rope_theta" => direct().or_else(|| named(rope_theta(&config.get("rope_parameters")?)?)),
            "rope_scaling" => named(scaling(config.get("rope_parameters").or_else(|| said(&self.keys[0]))?)),
            // Qwen2's has a length and a switch.
            "sliding_window" if config.get_bool("use_sliding_window") == Some(false) => named(Value::Null),
            _ => direct(),
        }
    }
}

/// The base of `rope_parameters`; where they are given for kinds of layers, an object with that of each.
fn rope_theta(parameters: &Value) -> Option<Value> {
    let object = parameters.as_object()?;
    if let Some(theta) = object.get("rope_theta") {
        return Some(theta.clone());
    }
    let by_kind: serde_json::Map<_, _> =
        object.iter().filter_map(|(kind, inner)| Some((kind.clone(), inner.get("rope_theta")?.clone()))).collect();
    (!by_kind.is_empty()).then(|| by_kind.into())
}

/// The scaling alone, with the type's name as `rope_type`; `null` for the default type, which scales nothing.
fn scaling(value: Value) -> Value {
    let Value::Object(mut object) = value else { return Value::Null };
    if let Some(kind) = object.remove("type") {
        object.entry("rope_type").or_insert(kind);
    }
    // These are compared for themselves.
    ["rope_theta", "partial_rotary_factor"].iter().for_each(|key| {
        object.remove(*key);
    });
    match object.get("rope_type").and_then(Value::as_str) {
        None if !object.values().any(Value::is_object) => Value::Null,
        Some("default") => Value::Null,
        _ => object.into(),
    }
}

/// Numbers by their value, objects by the keys that both have, everything else as it stands.
fn agree(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Object(one), Value::Object(other)) => one.iter().all(|(key, value)| other.get(key).is_none_or(|other| agree(value, other))),
        // One base for all layers, and one for each kind: two generations of one configuration.
        (Value::Number(_), Value::Object(_)) | (Value::Object(_), Value::Number(_)) => true,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The keys in which two configurations disagree.
    fn keys(one: &str, other: &str) -> Vec<String> {
        let [one, other] = [one, other].map(|text| Config::parse(text, Path::new("config.json")).unwrap());
        one.disagreements(&other).into_iter().map(|found| found.key).collect()
    }

    #[test]
    fn keys_that_say_how_weights_are_used_have_to_agree() {
        assert_eq!(
            keys(r#"{"rope_theta": 10000.0, "hidden_act": "silu"}"#, r#"{"rope_theta": 1000000, "hidden_act": "gelu"}"#),
            ["rope_theta", "hidden_act"]
        );
        assert_eq!(
            keys(r#"{"num_attention_heads": 32, "num_key_value_heads": 8}"#, r#"{"num_attention_heads": 16, "num_key_value_heads": 8}"#),
            ["num_attention_heads"]
        );
        assert_eq!(keys(r#"{"rms_norm_eps": 1e-5}"#, r#"{"rms_norm_eps": 1e-6}"#), ["rms_norm_eps"]);
        assert_eq!(keys(r#"{"sliding_window": 4096}"#, r#"{"sliding_window": null}"#), ["sliding_window"]);
        assert_eq!(keys(r#"{"rope_scaling": null}"#, r#"{"rope_scaling": {"type": "linear", "factor": 2.0}}"#), ["rope_scaling"]);
        assert_eq!(keys(r#"{"text_config": {"rope_theta": 5.0}}"#, r#"{"rope_theta": 6.0}"#), ["rope_theta"]);
    }

    #[test]
    fn two_spellings_of_one_thing_agree() {
        for (one, other) in [
            (r#"{"rope_theta": 10000.0}"#, r#"{"rope_theta": 1e4}"#),
            (r#"{"rope_theta": 10000.0, "rope_scaling": null}"#, r#"{"rope_parameters": {"rope_type": "default", "rope_theta": 10000}}"#),
            (
                r#"{"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}}"#,
                r#"{"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}}"#,
            ),
            (r#"{"n_head": 12}"#, r#"{"num_attention_heads": 12}"#),
            (r#"{"sliding_window": 4096, "use_sliding_window": false}"#, r#"{"sliding_window": null}"#),
            (r#"{"rms_norm_eps": 1e-05}"#, r#"{"rms_norm_eps": 0.00001}"#),
        ] {
            assert!(keys(one, other).is_empty(), "{one} {other}: {:?}", keys(one, other));
        }
        let v5 = r#"{"rope_parameters": {"rope_type": "default", "rope_theta": 1000000}}"#;
        assert_eq!(keys(r#"{"rope_theta": 10000.0}"#, v5), ["rope_theta"]);
    }

    #[test]
    fn a_missing_key_says_nothing_and_what_is_not_used_may_differ() {
        assert!(keys(r#"{"rope_theta": 1000000.0, "head_dim": 128}"#, "{}").is_empty());
        assert!(keys(r#"{"num_key_value_heads": null}"#, r#"{"num_key_value_heads": 8}"#).is_empty());
        assert!(
            keys(r#"{"max_position_embeddings": 4096, "eos_token_id": 2}"#, r#"{"max_position_embeddings": 32768, "eos_token_id": 7}"#)
                .is_empty()
        );
        let long = format!(r#"{{"hidden_act": "{}"}}"#, "x".repeat(100_000));
        let [a, b] = [long.as_str(), r#"{"hidden_act": "silu"}"#].map(|text| Config::parse(text, Path::new("c")).unwrap());
        assert!(a.disagreements(&b)[0].values[0].len() < 200);
    }
}
