//! Writes a synthetic Llama checkpoint and fine-tunes of it, for measurements: random weights with the shapes of real models.
//!
//! ```text
//! cargo run --release -p deltaic --example synthetic -- OUT --parameters 1.1B --models 2 [--dtype bf16|f32] [--seed N]
//! ```
//!
//! makes `OUT/base`, `OUT/fine-tune-1`, `OUT/fine-tune-2`. A fine-tune is the base plus deltas of standard deviation 0.001, peaked at
//! zero and with heavy tails, rounded to the dtype, so that in bf16 a good part of its elements equals the base's, as in real
//! fine-tunes. Every element is a function of seed, tensor and index: the same bytes everywhere, streamed through small buffers.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str =
    "usage: synthetic OUT --parameters tiny|0.5B|1.1B|3B [--models N, default 2] [--dtype bf16|f32, default bf16] [--seed N, default 0]";

/// The sizes of a Llama model; its embeddings are not tied.
struct Shape {
    name: &'static str,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
}

/// `1.1B` has TinyLlama's sizes, `3B` those of OpenLLaMA-3B (3.4 billion parameters).
#[rustfmt::skip]
const SHAPES: [Shape; 4] = [
    Shape { name: "tiny", hidden: 64, intermediate: 176, layers: 2, heads: 4, kv_heads: 2, vocabulary: 256 },
    Shape { name: "0.5B", hidden: 1280, intermediate: 3456, layers: 24, heads: 20, kv_heads: 4, vocabulary: 32000 },
    Shape { name: "1.1B", hidden: 2048, intermediate: 5632, layers: 22, heads: 32, kv_heads: 4, vocabulary: 32000 },
    Shape { name: "3B", hidden: 3200, intermediate: 8640, layers: 26, heads: 32, kv_heads: 32, vocabulary: 32000 },
];

impl Shape {
    /// Names and shapes (`[out, in]`) of all tensors, sorted by name.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let key_value = self.hidden / self.heads * self.kv_heads;
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, self.hidden]),
            ("model.norm.weight".to_owned(), vec![self.hidden]),
            ("lm_head.weight".to_owned(), vec![self.vocabulary, self.hidden]),
        ];
        for layer in 0..self.layers {
            for (part, shape) in [
                ("self_attn.q_proj", vec![self.hidden, self.hidden]),
                ("self_attn.k_proj", vec![key_value, self.hidden]),
                ("self_attn.v_proj", vec![key_value, self.hidden]),
                ("self_attn.o_proj", vec![self.hidden, self.hidden]),
                ("mlp.gate_proj", vec![self.intermediate, self.hidden]),
                ("mlp.up_proj", vec![self.intermediate, self.hidden]),
                ("mlp.down_proj", vec![self.hidden, self.intermediate]),
                ("input_layernorm", vec![self.hidden]),
                ("post_attention_layernorm", vec![self.hidden]),
            ] {
                tensors.push((format!("model.layers.{layer}.{part}.weight"), shape));
            }
        }
        tensors.sort();
        tensors
    }

    fn config(&self, dtype: Dtype) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": self.hidden,
            "intermediate_size": self.intermediate, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "vocab_size": self.vocabulary, "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": false,
            "torch_dtype": dtype.config_name(),
        })
    }
}

#[derive(Clone, Copy)]
enum Dtype {
    Bf16,
    F32,
}

impl Dtype {
    fn size(self) -> usize {
        match self {
            Dtype::Bf16 => 2,
            Dtype::F32 => 4,
        }
    }

    /// As safetensors spells it.
    fn stored_name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "BF16",
            Dtype::F32 => "F32",
        }
    }

    /// As config.json spells it.
    fn config_name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "bfloat16",
            Dtype::F32 => "float32",
        }
    }

    /// The value as it is stored, as f32 (to nearest even).
    fn round(self, value: f32) -> f32 {
        match self {
            Dtype::Bf16 => f32::from_bits((value.to_bits() + 0x7fff + ((value.to_bits() >> 16) & 1)) & 0xffff_0000),
            Dtype::F32 => value,
        }
    }

    /// Appends a value that [`Dtype::round`] has rounded.
    fn push(self, value: f32, bytes: &mut Vec<u8>) {
        let all = value.to_bits().to_le_bytes();
        bytes.extend_from_slice(&all[4 - self.size()..]);
    }
}

/// SplitMix64's output function (Steele, Lea and Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Element `index` of stream `stream`: nearly normal with standard deviation 1, the centred sum of four 16-bit uniform numbers.
fn normal(stream: u64, index: u64) -> f32 {
    let bits = mix(stream.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    (sum as f32 - 131_070.0) * (1.0 / 37_837.2) // a uniform 16-bit number has the variance (2^32 - 1) / 12
}

/// One model of the family: 0 is the base.
struct Model {
    number: u64,
    seed: u64,
    dtype: Dtype,
}

impl Model {
    /// A stream of its own for each purpose and tensor.
    fn stream(&self, purpose: u64, tensor: usize) -> u64 {
        mix(mix(mix(self.seed).wrapping_add(purpose)).wrapping_add(tensor as u64))
    }

    /// Streams all elements of a tensor to `out`.
    fn write_tensor(&self, tensor: usize, shape: &[usize], out: &mut impl Write) -> Result<()> {
        let (centre, deviation) = if shape.len() == 1 { (1.0, 0.05) } else { (0.0, 0.02) };
        let base = self.stream(0, tensor);
        let (first, second) = (self.stream(2 * self.number, tensor), self.stream(2 * self.number + 1, tensor));
        let elements = shape.iter().product::<usize>() as u64;
        let mut bytes = Vec::with_capacity(1 << 16);
        for index in 0..elements {
            let mut value = self.dtype.round(centre + deviation * normal(base, index));
            if self.number > 0 {
                value = self.dtype.round(value + 0.001 * normal(first, index) * normal(second, index));
            }
            self.dtype.push(value, &mut bytes);
            if bytes.len() >= 1 << 16 {
                out.write_all(&bytes)?;
                bytes.clear();
            }
        }
        Ok(out.write_all(&bytes)?)
    }

    fn write(&self, folder: &Path, shape: &Shape) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("config.json"), serde_json::to_string_pretty(&shape.config(self.dtype))? + "\n")?;
        let tensors = shape.tensors();
        let mut out = BufWriter::new(File::create(folder.join("model.safetensors"))?);
        out.write_all(&header(&tensors, self.dtype)?)?;
        for (tensor, (_, shape)) in tensors.iter().enumerate() {
            self.write_tensor(tensor, shape, &mut out)?;
        }
        Ok(out.flush()?)
    }
}

/// The length and the header of a safetensors file, padded to 8 bytes.
fn header(tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Result<Vec<u8>> {
    let mut entries = Map::from_iter([("__metadata__".to_owned(), json!({"format": "pt"}))]);
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + shape.iter().product::<usize>() * dtype.size();
        entries.insert(name.clone(), json!({"dtype": dtype.stored_name(), "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut text = serde_json::to_vec(&entries)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

fn main() -> Result<()> {
    let (mut out, mut shape, mut models, mut dtype, mut seed) = (None, None, 2, Dtype::Bf16, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if !argument.starts_with("--") {
            out = Some(PathBuf::from(argument));
            continue;
        }
        let value = arguments.next().ok_or(USAGE)?;
        match argument.as_str() {
            "--parameters" => shape = SHAPES.iter().find(|shape| shape.name.eq_ignore_ascii_case(&value)),
            "--models" => models = value.parse::<u64>()?,
            "--dtype" if value == "bf16" => dtype = Dtype::Bf16,
            "--dtype" if value == "f32" => dtype = Dtype::F32,
            "--seed" => seed = value.parse::<u64>()?,
            _ => return Err(USAGE.into()),
        }
    }
    let (out, shape) = (out.ok_or(USAGE)?, shape.ok_or(USAGE)?);
    for number in 0..=models {
        let folder = out.join(if number == 0 { "base".to_owned() } else { format!("fine-tune-{number}") });
        Model { number, seed, dtype }.write(&folder, shape)?;
        println!("{}", folder.display());
    }
    Ok(())
}
