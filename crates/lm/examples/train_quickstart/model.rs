//! The model's sizes, its first weights, its tokenizer, and its folder.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use deltaic_lm::Decoder;
use serde_json::{Value, json};

use crate::book;
use crate::random::Random;

const HIDDEN: usize = 96;
const INTERMEDIATE: usize = 256;
const LAYERS: usize = 3;
const HEADS: usize = 4;
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];
const LONGEST: usize = 64;
/// Standard deviation of the first matrices.
const DEVIATION: f64 = 0.08;

/// Tokens in the order of their ids.
fn vocabulary() -> Vec<&'static str> {
    SPECIAL.into_iter().chain(book::vocabulary()).collect()
}

/// Names and shapes (`[out, in]`) of all tensors.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let vocabulary = vocabulary().len();
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        ("lm_head.weight".to_owned(), vec![vocabulary, HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let attention = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|part| (format!("self_attn.{part}"), vec![HIDDEN, HIDDEN]));
        let wide = ["gate_proj", "up_proj"].map(|part| (format!("mlp.{part}"), vec![INTERMEDIATE, HIDDEN]));
        let narrow = [("mlp.down_proj".to_owned(), vec![HIDDEN, INTERMEDIATE])];
        let norms = ["input_layernorm", "post_attention_layernorm"].map(|part| (part.to_owned(), vec![HIDDEN]));
        let parts = attention.into_iter().chain(wide).chain(narrow).chain(norms);
        tensors.extend(parts.map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape)));
    }
    tensors
}

/// The weights before any training: norms 1, matrices drawn evenly around 0.
pub fn first_weights(random: &mut Random) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let width = (DEVIATION * 3_f64.sqrt()) as f32;
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let values: Vec<f32> = if shape.len() == 1 { vec![1.0; count] } else { (0..count).map(|_| width * random.unit()).collect() };
        Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?))
    };
    tensors().into_iter().map(tensor).collect()
}

/// The weights of a model in training, by the names that they are stored under.
pub fn weights_of(decoder: &Decoder) -> BTreeMap<String, Tensor> {
    let stored = |name: &str| if name == "lm_head.weight" { name.to_owned() } else { format!("model.{name}") };
    decoder.parameters().iter().map(|(name, variable)| (stored(name), variable.as_tensor().clone())).collect()
}

/// Writes a model's folder; weights in bfloat16.
pub fn write(folder: &Path, weights: BTreeMap<String, Tensor>) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    for (name, content) in [
        ("config.json", config()),
        ("generation_config.json", json!({"_from_model_config": true, "bos_token_id": 1, "eos_token_id": 2})),
        ("tokenizer.json", tokenizer()),
        ("tokenizer_config.json", tokenizer_config()),
    ] {
        fs::write(folder.join(name), format!("{content:#}\n"))?;
    }
    let rounded = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(DType::BF16)?));
    let tensors: BTreeMap<String, Tensor> = weights.into_iter().map(rounded).collect::<candle_core::Result<_>>()?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    Ok(safetensors::serialize_to_file(tensors, Some(metadata), &folder.join("model.safetensors"))?)
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "head_dim": HIDDEN / HEADS, "hidden_act": "silu", "hidden_size": HIDDEN, "initializer_range": DEVIATION,
        "intermediate_size": INTERMEDIATE, "max_position_embeddings": LONGEST, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "num_key_value_heads": HEADS, "rms_norm_eps": 1e-05,
        "rope_theta": 100.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
        "vocab_size": vocabulary().len(),
    })
}

/// Every word is a token.
fn tokenizer() -> Value {
    let tokens: serde_json::Map<String, Value> =
        vocabulary().into_iter().zip(0..).map(|(token, id)| (token.to_owned(), json!(id))).collect();
    let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let text = |text: &str, type_id: u8| json!({"Sequence": {"id": text, "type_id": type_id}});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": SPECIAL.iter().enumerate().map(special_token).collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [begin, text("A", 0)], "pair": [begin, text("A", 0), text("B", 1)],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": tokens, "unk_token": "<unk>"},
    })
}

fn special_token((id, token): (usize, &&str)) -> Value {
    json!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true
    })
}

fn tokenizer_config() -> Value {
    json!({
        "bos_token": "<s>", "clean_up_tokenization_spaces": false, "eos_token": "</s>", "model_max_length": LONGEST,
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>",
    })
}
