//! Small checkpoints for tests of the library: written by hand, merged, and read back, without deltaic's own reader or writer.

#![allow(dead_code, reason = "no test binary uses all of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaic_merge::recipe::{Document, UnknownPolicy, parse};
use deltaic_merge::{MergeOptions, Plan, PlanOptions, merge};

/// A Llama of two layers, as far as merging looks at it.
pub const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2}"#;

/// A tensor as stored; `dtype` as safetensors spells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dtype: String,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        Self { dtype: "F32".to_owned(), shape: shape.to_vec(), bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }

    /// Rounded to nearest (values that lie in the middle do not occur here, or do not matter).
    pub fn bf16(shape: &[usize], values: &[f32]) -> Self {
        let bits = values.iter().map(|value| ((value.to_bits() + 0x8000) >> 16) as u16);
        Self { dtype: "BF16".to_owned(), shape: shape.to_vec(), bytes: bits.flat_map(u16::to_le_bytes).collect() }
    }

    pub fn i64(values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: "I64".to_owned(), shape: vec![values.len()], bytes }
    }

    /// The elements of an F32 or BF16 tensor.
    pub fn values(&self) -> Vec<f32> {
        match self.dtype.as_str() {
            "F32" => self.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            "BF16" => self.bytes.as_chunks::<2>().0.iter().map(|[low, high]| f32::from_le_bytes([0, 0, *low, *high])).collect(),
            other => panic!("the values of a tensor of {other}"),
        }
    }
}

pub type Model = BTreeMap<String, Tensor>;

/// What a merge gave.
pub struct Merged {
    pub tensors: Model,
    pub non_finite: Vec<(String, u64)>,
    pub warnings: Vec<String>,
    /// What was said of the result.
    pub remarks: Vec<String>,
}

/// A folder of models.
pub struct Models(tempfile::TempDir);

impl Models {
    /// Models with their names, all with the same config.json.
    pub fn new(config: &str, models: &[(&str, &Model)]) -> Self {
        let all = Self(tempfile::tempdir().unwrap());
        models.iter().for_each(|(name, model)| all.add(name, config, model));
        all
    }

    pub fn add(&self, name: &str, config: &str, model: &Model) {
        let folder = self.0.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), config).unwrap();
        write(&folder.join("model.safetensors"), model);
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Plans a recipe whose paths start from the folder.
    pub fn plan(&self, recipe: &str) -> deltaic_checkpoint::Result<Plan> {
        let document = Arc::new(Document::new("recipe", recipe, self.0.path()));
        Plan::new(parse(document, UnknownPolicy::Strict)?.0, PlanOptions::default())
    }

    /// Merges by a recipe whose paths start from the folder.
    #[track_caller]
    pub fn merge(&self, recipe: &str) -> Merged {
        let plan = self.plan(recipe).unwrap_or_else(|error| panic!("{error}\n{recipe}"));
        let out = self.0.path().join("out");
        let options = MergeOptions { force: true, threads: 3, ..MergeOptions::default() };
        let merged = merge(&plan, &out, &options, &AtomicBool::new(false), &|_| {}).unwrap_or_else(|error| panic!("{error}\n{recipe}"));
        Merged {
            tensors: read(&out.join("model.safetensors")),
            non_finite: merged.non_finite,
            warnings: plan.warnings,
            remarks: merged.warnings,
        }
    }
}

/// Writes a safetensors file.
pub fn write(path: &Path, model: &Model) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, tensor) in model {
        let start = data.len();
        data.extend(&tensor.bytes);
        let entry = serde_json::json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let mut text = serde_json::to_string(&header).unwrap();
    text += &" ".repeat(text.len().next_multiple_of(8) - text.len());
    let bytes = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &data].concat();
    std::fs::write(path, bytes).unwrap();
}

/// Reads a safetensors file.
pub fn read(path: &Path) -> Model {
    let bytes = std::fs::read(path).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes[8..end]).unwrap();
    header.remove("__metadata__");
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
    let tensor = |(name, entry): (String, serde_json::Value)| {
        let place = end + number(&entry["data_offsets"][0])..end + number(&entry["data_offsets"][1]);
        let shape = entry["shape"].as_array().unwrap().iter().map(number).collect();
        (name, Tensor { dtype: entry["dtype"].as_str().unwrap().to_owned(), shape, bytes: bytes[place].to_vec() })
    };
    header.into_iter().map(tensor).collect()
}

/// Numbers that follow from a seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Between -1 and 1.
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }
}

/// Shapes whose sizes are odd and cross windows (2^20 elements), reduction blocks (65,536), rows and blocks of the kernels.
pub const SHAPES: [(&str, &[usize]); 7] = [
    ("lm_head.weight", &[5, 13]),
    ("model.embed_tokens.weight", &[37, 29]),
    ("model.layers.0.mlp.down_proj.weight", &[70_001]),
    ("model.layers.0.mlp.up_proj.weight", &[3, 400_001]),
    ("model.layers.1.input_layernorm.weight", &[1]),
    ("model.layers.1.mlp.gate_proj.weight", &[0, 4]),
    ("model.norm.weight", &[29]),
];

/// A base and three fine-tunes whose deltas are peaked at zero with heavy tails. In BF16 many deltas are zero or equal in magnitude.
pub fn family(shapes: &[(&str, &[usize])], dtype: &str) -> [Model; 4] {
    let mut random = Random(7);
    let mut models: [Model; 4] = Default::default();
    for (name, shape) in shapes {
        let count = shape.iter().product();
        let base: Vec<f32> = (0..count).map(|_| 0.2 * random.uniform()).collect();
        for (number, model) in models.iter_mut().enumerate() {
            let values: Vec<f32> = match number {
                0 => base.clone(),
                _ => base.iter().map(|value| value + 0.05 * random.uniform().powi(3)).collect(),
            };
            let tensor = if dtype == "BF16" { Tensor::bf16(shape, &values) } else { Tensor::f32(shape, &values) };
            model.insert((*name).to_owned(), tensor);
        }
    }
    models
}
