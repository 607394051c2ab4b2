//! Which shapes config.json promises: `architectures/shapes.json`, sums and products of its keys.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::architecture::Architecture;
use crate::config::Config;

/// Shapes of some architectures. Names are as in the families: relative to the backbone, `{}` for the layer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    model_types: Vec<String>,
    /// What a key is where config.json does not have it.
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    shapes: BTreeMap<String, Vec<String>>,
}

fn groups() -> &'static [Group] {
    static DATA: OnceLock<Vec<Group>> = OnceLock::new();
    DATA.get_or_init(|| serde_json::from_str(include_str!("../architectures/shapes.json")).expect("shapes.json is part of the program"))
}

/// What config.json promises of a tensor's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedShape {
    /// The tensor's name relative to the backbone, with `{}` for the layer's number.
    pub template: &'static str,
    /// For each axis the formula in config.json's keys, and its value; None where config.json lacks a key.
    pub axes: Vec<(&'static str, Option<u64>)>,
}

impl ExpectedShape {
    /// Whether a shape is the expected one, as far as that is known.
    pub fn fits(&self, shape: &[u64]) -> bool {
        shape.len() == self.axes.len() && shape.iter().zip(&self.axes).all(|(found, (_, expected))| expected.is_none_or(|e| e == *found))
    }
}

/// `[vocab_size = 48, hidden_size = 24]`.
impl fmt::Display for ExpectedShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axis = |(formula, value): &(&str, Option<u64>)| match value {
            Some(value) => format!("{formula} = {value}"),
            None => (*formula).to_owned(),
        };
        write!(f, "[{}]", self.axes.iter().map(axis).collect::<Vec<_>>().join(", "))
    }
}

impl Architecture {
    /// The shape that config.json promises of a tensor; None where nothing is known of it.
    pub fn expected_shape(&self, config: &Config, name: &str) -> Option<ExpectedShape> {
        let template = self.template(name);
        let model_type = self.model_type_or_family();
        let fitting = groups().iter().filter(|group| group.model_types.iter().any(|known| known == model_type));
        let (group, (template, formulas)) =
            fitting.filter_map(|group| Some((group, group.shapes.get_key_value(template.as_str())?))).next()?;
        let axes = formulas.iter().map(|formula| (formula.as_str(), group.value(config, formula, true))).collect();
        Some(ExpectedShape { template, axes })
    }
}

impl Group {
    /// A sum of products of keys and numbers, each perhaps divided by one. None where config.json lacks a key or the value is none.
    fn value(&self, config: &Config, formula: &str, with_defaults: bool) -> Option<u64> {
        let factor = |text: &str| -> Option<u64> {
            let default = || self.defaults.get(text).filter(|_| with_defaults);
            text.parse().ok().or_else(|| config.get_u64(text)).or_else(|| self.value(config, default()?, false))
        };
        let product = |text: &str| text.split('*').try_fold(1u64, |product, text| product.checked_mul(factor(text)?));
        let term = |text: &str| match text.split_once('/') {
            Some((dividend, divisor)) => product(dividend)?.checked_div(factor(divisor)?),
            None => product(text),
        };
        formula.split('+').try_fold(0u64, |sum, text| sum.checked_add(term(text)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn expected(config: &str, name: &str) -> Option<ExpectedShape> {
        let config = Config::parse(config, Path::new("config.json")).unwrap();
        Architecture::of(&config, [name]).expected_shape(&config, name)
    }

    #[test]
    fn every_group_is_of_known_architectures_and_gives_no_template_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for group in groups() {
            for model_type in &group.model_types {
                let config = Config::parse(&format!(r#"{{"model_type": "{model_type}"}}"#), Path::new("config.json")).unwrap();
                assert!(!Architecture::of(&config, []).is_generic(), "{model_type}");
                for template in group.shapes.keys() {
                    assert!(seen.insert((model_type, template)), "{model_type} {template}");
                }
            }
        }
    }

    #[test]
    fn shapes_follow_from_the_configuration() {
        let llama =
            r#"{"model_type": "llama", "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 40}"#;
        let shown = |config: &str, name: &str| expected(config, name).map(|shape| shape.to_string());
        let k = "model.layers.3.self_attn.k_proj.weight";
        assert_eq!(shown(llama, k).as_deref(), Some("[num_key_value_heads*head_dim = 12, hidden_size = 24]"));
        let shape = expected(llama, k).unwrap();
        assert_eq!(shape.template, "layers.{}.self_attn.k_proj.weight");
        assert!(shape.fits(&[12, 24]) && !shape.fits(&[24, 12]) && !shape.fits(&[12]));
        // A key that is missing leaves its axis open; the number of key heads is then that of the heads.
        assert_eq!(shown(llama, "lm_head.weight").as_deref(), Some("[vocab_size, hidden_size = 24]"));
        let old = r#"{"model_type": "llama", "hidden_size": 24, "num_attention_heads": 4}"#;
        assert!(expected(old, k).unwrap().fits(&[24, 24]));
        let wide = r#"{"model_type": "qwen3", "hidden_size": 24, "num_attention_heads": 4, "head_dim": 8}"#;
        assert!(expected(wide, "model.layers.0.self_attn.o_proj.weight").unwrap().fits(&[24, 32]));
        let phi3 = r#"{"model_type": "phi3", "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}"#;
        assert!(expected(phi3, "model.layers.0.self_attn.qkv_proj.weight").unwrap().fits(&[48, 24]));
        let bert = r#"{"model_type": "bert", "hidden_size": 24, "num_attention_heads": 5}"#;
        assert!(!expected(bert, "bert.encoder.layer.0.attention.self.query.weight").unwrap().fits(&[24, 24]));
        assert_eq!(shown(r#"{"model_type": "martian"}"#, "lm_head.weight"), None);
        assert_eq!(shown(llama, "model.layers.0.mlp.experts.0.up_proj.weight"), None);
        assert_eq!(
            shown(r#"{"model_type": "llama", "hidden_size": 0, "num_attention_heads": 0}"#, k).as_deref(),
            Some("[num_key_value_heads*head_dim, hidden_size = 0]")
        );
    }
}
