//! The tensor names of PEFT's LoRA files.

use crate::dtype::shorten;
use crate::error::{Error, Result};

/// What one name of the adapter's file is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The factor A of a module, `[r, in]`.
    A { module: String, embedding: bool },
    /// The factor B, `[out, r]`.
    B { module: String, embedding: bool },
    /// The bias of B, `[out]`.
    Bias { module: String },
    /// A tensor that takes the place of the base's: of `modules_to_save`, a trained bias, a saved embedding.
    Whole { tensor: String },
}

impl Role {
    /// Reads a name: `base_model.model.MODULE.lora_A[.ADAPTER].weight`, `MODULE.lora_embedding_A[.ADAPTER]`, `MODULE.lora_B.bias`, or else
    /// the name of a tensor of the base. What PEFT's wrappers put into names (`base_layer`, `modules_to_save`) is taken out.
    ///
    /// # Errors
    /// A part of DoRA, or of something that deltaic does not know.
    pub(crate) fn of(name: &str) -> Result<Self> {
        let rest = name.strip_prefix("base_model.model.").unwrap_or(name);
        if rest.contains(".lora_magnitude_vector") {
            return Err(Error::new(format!("{}: a DoRA adapter is not applied on the fly: only plain LoRA is", shorten(name)))
                .help("merge it into its base with PEFT's `merge_and_unload`, and give the result"));
        }
        let module = |text: &str| text.strip_suffix(".base_layer").unwrap_or(text).replace(".base_layer.", ".");
        let Some((target, part)) = rest.rsplit_once(".lora_") else {
            return Ok(Self::Whole { tensor: whole_name(rest) });
        };
        let parts: Vec<&str> = part.split('.').collect();
        match parts[..] {
            ["A", "weight"] | ["A", _, "weight"] => Ok(Self::A { module: module(target), embedding: false }),
            ["B", "weight"] | ["B", _, "weight"] => Ok(Self::B { module: module(target), embedding: false }),
            ["B", "bias"] | ["B", _, "bias"] => Ok(Self::Bias { module: module(target) }),
            ["embedding_A"] | ["embedding_A", _] => Ok(Self::A { module: module(target), embedding: true }),
            ["embedding_B"] | ["embedding_B", _] => Ok(Self::B { module: module(target), embedding: true }),
            _ => Err(Error::new(format!("{}: expected a LoRA factor, found something that deltaic does not know", shorten(name)))
                .help("merge the adapter into its base with PEFT's `merge_and_unload`, and give the result")),
        }
    }
}

/// The name of a tensor that is stored whole, without what PEFT's wrappers put into it.
fn whole_name(name: &str) -> String {
    let name = name.replace(".base_layer.", ".");
    match name.split_once(".modules_to_save.") {
        Some((module, rest)) => {
            // `MODULE.modules_to_save.ADAPTER.weight`
            let rest = rest.split_once('.').map_or(rest, |(_, rest)| rest);
            format!("{module}.{rest}")
        }
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_old_and_new_files_are_read() {
        let module = || "layers.0.q".to_owned();
        for (name, role) in [
            ("base_model.model.layers.0.q.lora_A.weight", Role::A { module: module(), embedding: false }),
            ("layers.0.q.lora_B.default.weight", Role::B { module: module(), embedding: false }),
            ("base_model.model.layers.0.q.base_layer.lora_B.bias", Role::Bias { module: module() }),
            ("base_model.model.layers.0.q.lora_embedding_A", Role::A { module: module(), embedding: true }),
            ("base_model.model.layers.0.q.lora_embedding_B.default", Role::B { module: module(), embedding: true }),
            ("base_model.model.layers.0.q.base_layer.bias", Role::Whole { tensor: "layers.0.q.bias".into() }),
            ("base_model.model.score.modules_to_save.default.weight", Role::Whole { tensor: "score.weight".into() }),
            ("base_model.model.score.modules_to_save.weight", Role::Whole { tensor: "score.weight".into() }),
        ] {
            assert_eq!(Role::of(name).unwrap(), role, "{name}");
        }
        assert!(Role::of("x.lora_E").unwrap_err().message().contains("x.lora_E"));
    }
}
