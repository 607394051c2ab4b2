//! The tiny models of `expected.py`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use deltaic_checkpoint::Checkpoint;
use deltaic_eval::LocalSource;
use deltaic_study::statistics::StatisticsModel;
use serde_json::Value;

/// What the script recorded.
pub fn expected() -> Value {
    serde_json::from_str(include_str!("expected.json")).unwrap()
}

/// A model of the recorded configuration with the weights of the script's formula, and the tokenizer of `tokenizer`.
pub fn model(expected: &Value, name: &str, tokenizer: &Path) -> StatisticsModel {
    let folder = tempfile::tempdir().unwrap();
    let recorded = &expected["models"][name];
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_value(recorded["tensors"].clone()).unwrap();
    let tensors: HashMap<String, Tensor> = shapes
        .into_iter()
        .enumerate()
        .map(|(number, (name, shape))| {
            let centre = if shape.len() == 1 && name.ends_with("weight") { 1.0 } else { 0.0 };
            let value = |k: usize| (centre + 0.4 * (1.0 + 0.37 * k as f64 + 17.0 * number as f64).sin()) as f32;
            let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        })
        .collect();
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), recorded["config"].to_string()).unwrap();
    // Its files stay open; the folder may go.
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let (config, name) = (checkpoint.config.clone(), name.to_owned());
    let source = LocalSource { id: name.clone(), name, tensors: Box::new(checkpoint), config, tokenizer: tokenizer.to_owned() };
    StatisticsModel::new(source, None).unwrap()
}
