//! `deltaic apply-delta`: a model that was published as differences from its base, with a row more for a [PAD] token.

mod checkpoints;

use std::path::Path;

use checkpoints::{deltaic, json, read, succeed};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const COLUMNS: usize = 6;

/// Writes a tiny Llama whose embedding has so many rows.
fn write(folder: &Path, rows: usize, value: impl Fn(usize) -> f32) -> Vec<f32> {
    std::fs::create_dir(folder).unwrap();
    let config = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1, "vocab_size": {rows}, "hidden_size": {COLUMNS}, "tie_word_embeddings": true, "torch_dtype": "float32"}}"#
    );
    std::fs::write(folder.join("config.json"), config).unwrap();
    let values: Vec<f32> = (0..rows * COLUMNS).map(&value).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let norm: Vec<u8> = (0..COLUMNS).flat_map(|k| value(k).to_le_bytes()).collect();
    let tensors = [
        ("model.embed_tokens.weight", TensorView::new(Dtype::F32, vec![rows, COLUMNS], &bytes).unwrap()),
        ("model.norm.weight", TensorView::new(Dtype::F32, vec![COLUMNS], &norm).unwrap()),
    ];
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    values
}

#[test]
fn base_and_differences_are_summed_and_a_missing_row_of_the_base_is_the_mean_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let base = write(&folder.path().join("base"), 4, |k| 0.25 * k as f32 - 1.5);
    let delta = write(&folder.path().join("delta"), 5, |k| 0.001 * (k * k % 7) as f32);
    let out = folder.path().join("out");
    let said = succeed(deltaic().current_dir(&folder).args(["apply-delta", "base", "delta", "out"]));
    assert!(said.starts_with("out "), "{said}");
    let restored = &read(&out)["model.embed_tokens.weight"];
    assert_eq!(restored.shape, [5, COLUMNS]);
    let found: Vec<f32> = restored.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    for (k, found) in found.iter().enumerate() {
        let of_base = match k / COLUMNS {
            4 => (0..4).map(|row| f64::from(base[row * COLUMNS + k % COLUMNS])).sum::<f64>() / 4.0,
            _ => f64::from(base[k]),
        };
        let expected = of_base + f64::from(delta[k]);
        assert!((f64::from(*found) - expected).abs() < 1e-6, "element {k}: {found}, by hand {expected}");
    }
    assert_eq!(json(&out.join("config.json"))["vocab_size"], 5);
}
