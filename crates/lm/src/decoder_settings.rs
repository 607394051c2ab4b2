//! What config.json says of a decoder of the Llama family.

use deltaic_checkpoint::{Config, Error, Result};

use crate::activation::Activation;
use crate::rope::Rope;
use crate::settings::Keys;

/// Which of a layer's linear layers have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Biases {
    /// On queries, keys and values.
    pub qkv: bool,
    /// On the attention's output.
    pub output: bool,
    pub mlp: bool,
}

/// Sizes, constants and variants of a decoder.
#[derive(Debug, Clone)]
pub(crate) struct DecoderSettings {
    pub vocab: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub key_heads: usize,
    pub head_dim: usize,
    pub max_positions: usize,
    pub eps: f64,
    pub activation: Activation,
    pub biases: Biases,
    pub rope: Rope,
    /// For each layer: how many keys a query sees, its own included; None for all.
    pub windows: Vec<Option<usize>>,
    /// `qkv_proj` and `gate_up_proj` in one (Phi-3).
    pub fused: bool,
    /// Norms on queries and keys of each head (Qwen 3).
    pub head_norms: bool,
    /// Norms multiply by `1 + weight` (Gemma).
    pub norm_plus_one: bool,
    /// Norms after attention and feed-forward network, too (Gemma 2).
    pub norms_after: bool,
    /// Factor on products of queries and keys.
    pub attention_scale: f64,
    pub attention_soft_cap: Option<f64>,
    pub logit_soft_cap: Option<f64>,
    /// Factor on embeddings (Gemma, Granite).
    pub embedding_scale: f64,
    /// Factor on what a layer adds (Granite).
    pub residual_scale: f64,
    /// Divisor of logits (Granite).
    pub logit_divisor: f64,
}

/// The values of `model_type` that are decoders.
pub(crate) const DECODER_TYPES: &[&str] = &["llama", "mistral", "qwen2", "qwen3", "phi3", "granite", "gemma", "gemma2"];

impl DecoderSettings {
    /// Reads them.
    ///
    /// # Errors
    /// The architecture is not one of these, or a key has a value that cannot be: the message names it.
    pub fn read(config: &Config) -> Result<Self> {
        let keys = Keys(config);
        let model = model_type(keys)?;
        let (gemma, gemma2) = (model.starts_with("gemma"), model == "gemma2");
        if keys.flag("use_bidirectional_attention", false)? {
            return Err(keys.unknown("use_bidirectional_attention", "true", &["false"]));
        }
        let hidden = keys.size(&["hidden_size"])?;
        let heads = keys.size(&["num_attention_heads"])?;
        let key_heads = keys.optional_size(&["num_key_value_heads"])?.unwrap_or(default_key_heads(&model, heads));
        if !heads.is_multiple_of(key_heads) {
            let path = config.path().display();
            return Err(Error::new(format!("{path}: `num_attention_heads: {heads}` is no multiple of `num_key_value_heads: {key_heads}`")));
        }
        let head_dim = head_dim(keys, &model, hidden, heads)?;
        let layers = keys.size(&["num_hidden_layers"])?;
        let max_positions = keys.size(&["max_position_embeddings"])?;
        let activation_keys: &[&str] = if gemma { &["hidden_activation", "hidden_act"] } else { &["hidden_act"] };
        let usual = if gemma { Activation::GeluTanh } else { Activation::Silu };
        let mut activation = Activation::read(keys, activation_keys, usual)?;
        if gemma && activation == Activation::Gelu {
            // The first releases said `gelu` and meant the approximation.
            activation = Activation::GeluTanh;
        }
        let gemma2_cap = |key: &str, default: f64| if gemma2 { cap(keys, key, default) } else { Ok(None) };
        let granite = |key: &str| if model == "granite" { Ok(keys.number(key)?.unwrap_or(1.0)) } else { Ok(1.0) };
        let scalar = if gemma2 { keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0) } else { head_dim as f64 };
        Ok(Self {
            vocab: keys.size(&["vocab_size"])?,
            hidden,
            intermediate: keys.size(&["intermediate_size"])?,
            layers,
            heads,
            key_heads,
            head_dim,
            max_positions,
            eps: keys.positive("rms_norm_eps")?.unwrap_or(if model == "phi3" { 1e-5 } else { 1e-6 }),
            activation,
            biases: biases(keys, &model)?,
            rope: Rope::read(keys, head_dim, max_positions)?,
            windows: windows(keys, &model, layers)?,
            fused: model == "phi3",
            head_norms: model == "qwen3",
            norm_plus_one: gemma,
            norms_after: gemma2,
            attention_scale: if model == "granite" { granite("attention_multiplier")? } else { scalar.powf(-0.5) },
            attention_soft_cap: gemma2_cap("attn_logit_softcapping", 50.0)?,
            logit_soft_cap: gemma2_cap("final_logit_softcapping", 30.0)?,
            embedding_scale: if gemma { (hidden as f64).sqrt() } else { granite("embedding_multiplier")? },
            residual_scale: granite("residual_multiplier")?,
            logit_divisor: granite("logits_scaling")?,
        })
    }
}

fn model_type(keys: Keys<'_>) -> Result<String> {
    let Some((key, model)) = keys.text(&["model_type"])? else {
        return Err(Error::new(format!("{}: expected `model_type`, found no such key", keys.0.path().display())));
    };
    if DECODER_TYPES.contains(&model.as_str()) { Ok(model) } else { Err(keys.unknown(&key, &model, DECODER_TYPES)) }
}

/// What transformers takes where config.json does not say `num_key_value_heads`.
fn default_key_heads(model: &str, heads: usize) -> usize {
    match model {
        "mistral" => 8,
        "gemma" => 16,
        "gemma2" => 4,
        "qwen2" | "qwen3" => 32,
        _ => heads,
    }
}

fn head_dim(keys: Keys<'_>, model: &str, hidden: usize, heads: usize) -> Result<usize> {
    let usual = match model {
        "qwen3" => Some(128),
        "gemma" | "gemma2" => Some(256),
        _ => None,
    };
    if let Some(size) = keys.optional_size(&["head_dim"])?.or(usual) {
        return Ok(size);
    }
    if !hidden.is_multiple_of(heads) {
        let path = keys.0.path().display();
        return Err(Error::new(format!("{path}: `hidden_size: {hidden}` is no multiple of `num_attention_heads: {heads}`")));
    }
    Ok(hidden / heads)
}

fn biases(keys: Keys<'_>, model: &str) -> Result<Biases> {
    match model {
        "qwen2" => Ok(Biases { qkv: true, output: false, mlp: false }),
        "phi3" | "mistral" => Ok(Biases::default()),
        _ => {
            let attention = keys.flag("attention_bias", false)?;
            let mlp = matches!(model, "llama" | "granite") && keys.flag("mlp_bias", false)?;
            Ok(Biases { qkv: attention, output: attention, mlp })
        }
    }
}

/// A soft cap: null is none, missing is the architecture's default.
fn cap(keys: Keys<'_>, key: &str, default: f64) -> Result<Option<f64>> {
    match keys.0.get(key) {
        None => Ok(Some(default)),
        Some(_) => keys.positive(key),
    }
}

/// The window of each layer.
fn windows(keys: Keys<'_>, model: &str, layers: usize) -> Result<Vec<Option<usize>>> {
    if !matches!(model, "mistral" | "qwen2" | "qwen3" | "phi3" | "gemma2") {
        return Ok(vec![None; layers.min(1 << 16)]);
    }
    let said = keys.optional_size(&["sliding_window"])?;
    let missing = keys.0.get("sliding_window").is_none();
    // Where the key is missing, not null, these have the window of their first release.
    let window = said.or((missing && model != "phi3").then_some(4096));
    let qwen = model.starts_with("qwen");
    let used = if qwen && !keys.flag("use_sliding_window", false)? { None } else { window };
    let types = if matches!(model, "mistral" | "phi3") { None } else { keys.texts("layer_types")? };
    let full_below = keys.count_or("max_window_layers", 28)?;
    let mut windows = Vec::new();
    for layer in 0..layers {
        let slides = match &types {
            Some(types) => match types.get(layer).map(String::as_str) {
                Some("sliding_attention") => true,
                Some("full_attention") => false,
                Some(other) => return Err(keys.unknown("layer_types", other, &["full_attention", "sliding_attention"])),
                None => {
                    let path = keys.0.path().display();
                    return Err(Error::new(format!("{path}: `layer_types` has {} entries, expected {layers}", types.len())));
                }
            },
            None if qwen => layer >= full_below,
            None if model == "gemma2" => layer.is_multiple_of(2),
            None => true,
        };
        windows.push(used.filter(|_| slides));
        if layer > 1 << 16 {
            // Weights of so many layers do not exist: loading says which is missing.
            break;
        }
    }
    Ok(windows)
}
