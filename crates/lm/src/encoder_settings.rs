//! What config.json says of an encoder.

use deltaic_checkpoint::{Config, Error, Result};

use crate::activation::Activation;
use crate::settings::Keys;

/// Families of encoders by the names of their tensors and the form of their heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EncoderFamily {
    Bert,
    /// With XLM-R and CamemBERT.
    Roberta,
    DistilBert,
}

/// Sizes and constants of an encoder.
#[derive(Debug, Clone)]
pub(crate) struct EncoderSettings {
    pub family: EncoderFamily,
    pub vocab: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub eps: f64,
    pub activation: Activation,
    /// Rows of the position embedding.
    pub position_rows: usize,
    /// Kinds of segments; 0 where the family has none.
    pub type_vocab: usize,
    pub pad_id: u32,
}

impl EncoderSettings {
    /// Reads them.
    ///
    /// # Errors
    /// The architecture is not one of these, or a key has a value that cannot be: the message names it.
    pub fn read(config: &Config) -> Result<Self> {
        let keys = Keys(config);
        let family = family(keys)?;
        if keys.flag("is_decoder", false)? {
            return Err(keys.unknown("is_decoder", "true", &["false"]));
        }
        if let Some((key, kind)) = keys.text(&["position_embedding_type"])?
            && kind != "absolute"
        {
            return Err(keys.unknown(&key, &kind, &["absolute"]));
        }
        let distil = family == EncoderFamily::DistilBert;
        let hidden = keys.size(if distil { &["dim", "hidden_size"] } else { &["hidden_size"] })?;
        let heads = keys.size(if distil { &["n_heads", "num_attention_heads"] } else { &["num_attention_heads"] })?;
        if !hidden.is_multiple_of(heads) {
            return Err(Error::new(format!(
                "{}: `hidden_size: {hidden}` is no multiple of `num_attention_heads: {heads}`",
                config.path().display()
            )));
        }
        Ok(Self {
            family,
            vocab: keys.size(&["vocab_size"])?,
            hidden,
            intermediate: keys.size(if distil { &["hidden_dim"] } else { &["intermediate_size"] })?,
            layers: keys.size(if distil { &["n_layers", "num_hidden_layers"] } else { &["num_hidden_layers"] })?,
            heads,
            eps: if distil { 1e-12 } else { keys.positive("layer_norm_eps")?.unwrap_or(1e-12) },
            activation: Activation::read(keys, if distil { &["activation"] } else { &["hidden_act"] }, Activation::Gelu)?,
            position_rows: keys.size(&["max_position_embeddings"])?,
            type_vocab: if distil { 0 } else { keys.count_or("type_vocab_size", 2)? },
            pad_id: keys.count_or("pad_token_id", if family == EncoderFamily::Roberta { 1 } else { 0 })? as u32,
        })
    }

    /// The longest sequence that has position embeddings, in tokens.
    pub fn max_tokens(&self) -> usize {
        match self.family {
            // Positions begin behind the padding's.
            EncoderFamily::Roberta => self.position_rows.saturating_sub(self.pad_id as usize + 1),
            _ => self.position_rows,
        }
    }
}

fn family(keys: Keys<'_>) -> Result<EncoderFamily> {
    let Some((key, model_type)) = keys.text(&["model_type"])? else {
        return Err(Error::new(format!("{}: expected `model_type`, found no such key", keys.0.path().display())));
    };
    match model_type.as_str() {
        "bert" => Ok(EncoderFamily::Bert),
        "roberta" | "xlm-roberta" | "camembert" => Ok(EncoderFamily::Roberta),
        "distilbert" => Ok(EncoderFamily::DistilBert),
        _ => Err(keys.unknown(&key, &model_type, ENCODER_TYPES)),
    }
}

/// The values of `model_type` that are encoders.
pub(crate) const ENCODER_TYPES: &[&str] = &["bert", "roberta", "xlm-roberta", "camembert", "distilbert"];
