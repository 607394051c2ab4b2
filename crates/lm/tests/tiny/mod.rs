//! Small random models for tests, written as model folders.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use deltaic_checkpoint::Checkpoint;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A model folder that lasts as long as this value.
pub struct Tiny {
    pub checkpoint: Checkpoint,
    _folder: TempDir,
}

/// A BERT with two layers, a pooler and a head of `labels` outputs (none where 0).
pub fn bert(labels: usize) -> Tiny {
    let (hidden, wide) = (16, 24);
    let config = json!({
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": hidden, "intermediate_size": wide,
        "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40, "max_position_embeddings": 16, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
    });
    let mut shapes = vec![
        ("bert.embeddings.word_embeddings.weight".to_owned(), vec![40, hidden]),
        ("bert.embeddings.position_embeddings.weight".to_owned(), vec![16, hidden]),
        ("bert.embeddings.token_type_embeddings.weight".to_owned(), vec![2, hidden]),
    ];
    norm(&mut shapes, "bert.embeddings.LayerNorm", hidden);
    for layer in 0..2 {
        let layer = format!("bert.encoder.layer.{layer}");
        for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            linear(&mut shapes, &format!("{layer}.{part}"), hidden, hidden);
        }
        linear(&mut shapes, &format!("{layer}.intermediate.dense"), hidden, wide);
        linear(&mut shapes, &format!("{layer}.output.dense"), wide, hidden);
        norm(&mut shapes, &format!("{layer}.attention.output.LayerNorm"), hidden);
        norm(&mut shapes, &format!("{layer}.output.LayerNorm"), hidden);
    }
    linear(&mut shapes, "bert.pooler.dense", hidden, hidden);
    if labels > 0 {
        linear(&mut shapes, "classifier", hidden, labels);
    }
    write(&config, &shapes)
}

/// A Llama with two layers and grouped queries; `changes` are put into its config.json.
pub fn llama(changes: &Value) -> Tiny {
    let (hidden, wide, vocab) = (16, 24, 40);
    let mut config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": wide,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": vocab, "max_position_embeddings": 64,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]), ("model.norm.weight".to_owned(), vec![hidden])];
    if config["tie_word_embeddings"] == false {
        shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
    }
    for layer in 0..2 {
        for (part, outputs, inputs) in [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", hidden / 2, hidden),
            ("self_attn.v_proj", hidden / 2, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", wide, hidden),
            ("mlp.up_proj", wide, hidden),
            ("mlp.down_proj", hidden, wide),
        ] {
            shapes.push((format!("model.layers.{layer}.{part}.weight"), vec![outputs, inputs]));
        }
        for part in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push((format!("model.layers.{layer}.{part}.weight"), vec![hidden]));
        }
    }
    write(&config, &shapes)
}

fn linear(shapes: &mut Vec<(String, Vec<usize>)>, name: &str, inputs: usize, outputs: usize) {
    shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
    shapes.push((format!("{name}.bias"), vec![outputs]));
}

fn norm(shapes: &mut Vec<(String, Vec<usize>)>, name: &str, size: usize) {
    shapes.push((format!("{name}.weight"), vec![size]));
    shapes.push((format!("{name}.bias"), vec![size]));
}

fn write(config: &Value, shapes: &[(String, Vec<usize>)]) -> Tiny {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(7);
    let tensors: HashMap<String, Tensor> = shapes
        .iter()
        .map(|(name, shape)| {
            let centre = if shape.len() == 1 && name.ends_with("weight") { 1.0 } else { 0.0 };
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| centre + 0.4 * random.next()).collect();
            (name.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap())
        })
        .collect();
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    Tiny { checkpoint: Checkpoint::open(folder.path()).unwrap(), _folder: folder }
}

/// SplitMix64, as numbers in -1 .. 1.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as i64 as f32 / i64::MAX as f32
    }
}
