//! LoRA adapters on small bases: sums against an f64 twin, windows against the whole, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use deltaic_checkpoint::{AdaptedModel, Checkpoint, DType, Error, ShardLayout, TensorSource, Window};

/// A tensor to be written: name, dtype (F32 or BF16), shape; values follow from name and index.
type Tensor<'a> = (&'a str, DType, &'a [u64]);

/// Numbers between -1 and 1 that a bf16 holds exactly, other ones for each name.
fn value(name: &str, index: u64) -> f32 {
    let seed = name.bytes().fold(index + 1, |hash, byte| {
        hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(byte) + 1_442_695_040_888_963_407)
    });
    ((seed >> 33) % 255) as f32 / 128.0 - 1.0
}

fn write(path: &Path, tensors: &[Tensor<'_>]) {
    let listed: Vec<_> = tensors.iter().map(|(name, dtype, shape)| ((*name).to_owned(), *dtype, shape.to_vec())).collect();
    let layout = ShardLayout::new(&listed, 0, &BTreeMap::new()).unwrap();
    let mut bytes = layout.shards()[0].header.clone();
    for name in &layout.shards()[0].tensors {
        let (_, dtype, shape) = tensors.iter().find(|tensor| tensor.0 == name).unwrap();
        for index in 0..shape.iter().product() {
            let value = value(name, index);
            match dtype {
                DType::F32 => bytes.extend(value.to_le_bytes()),
                DType::F64 => bytes.extend(f64::from(value).to_le_bytes()),
                DType::BF16 => bytes.extend(&value.to_le_bytes()[2..]),
                _ => bytes.push(index as u8),
            }
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// A base folder and an adapter folder.
struct Case(tempfile::TempDir);

impl Case {
    fn new(config: &str, base: &[Tensor<'_>], adapter_config: &str, adapter: &[Tensor<'_>]) -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        for name in ["base", "adapter"] {
            std::fs::create_dir(case.0.path().join(name)).unwrap();
        }
        std::fs::write(case.0.path().join("base/config.json"), config).unwrap();
        write(&case.0.path().join("base/model.safetensors"), base);
        std::fs::write(case.0.path().join("adapter/adapter_config.json"), adapter_config).unwrap();
        write(&case.0.path().join("adapter/adapter_model.safetensors"), adapter);
        case
    }

    fn open(&self) -> Result<AdaptedModel, Error> {
        AdaptedModel::new(Checkpoint::open(&self.0.path().join("base")).unwrap(), &self.0.path().join("adapter"))
    }
}

const LLAMA: &str = r#"{"model_type": "llama", "num_hidden_layers": 1}"#;
const TIED: &str = r#"{"model_type": "llama", "tie_word_embeddings": true}"#;
const PLAIN: &str = r#"{"peft_type": "LORA", "r": 3, "lora_alpha": 4}"#;
const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const EMBED: &str = "model.embed_tokens.weight";
const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

fn read(model: &dyn TensorSource, name: &str, start: u64, count: usize) -> (DType, Vec<u8>) {
    let mut window = Window { dtype: DType::U8, bytes: vec![77; 13] };
    model.read(name, start, count, &mut window).unwrap();
    (window.dtype, window.bytes)
}

fn floats(model: &dyn TensorSource, name: &str) -> Vec<f32> {
    let count = model.tensors()[name].elements() as usize;
    let (dtype, bytes) = read(model, name, 0, count);
    assert_eq!((dtype, bytes.len()), (DType::F32, count * 4));
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// `W + scaling * B A` in f64, row by row; transposed where asked.
fn twin(stored: &str, [a, b]: [&str; 2], [rows, columns, rank]: [u64; 3], scaling: f64, transposed: bool) -> Vec<f64> {
    let mut out = Vec::new();
    for i in 0..rows {
        for j in 0..columns {
            let (row, column, width) = if transposed { (j, i, rows) } else { (i, j, columns) };
            let sum: f64 = (0..rank).map(|k| f64::from(value(b, row * rank + k)) * f64::from(value(a, k * width + column))).sum();
            out.push(f64::from(value(stored, i * columns + j)) + scaling * sum);
        }
    }
    out
}

fn assert_close(got: &[f32], wanted: &[f64]) {
    assert_eq!(got.len(), wanted.len());
    for (index, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        // Three products and four sums of numbers below 8 in f32.
        assert!((f64::from(*got) - wanted).abs() <= 16.0 * f64::from(f32::EPSILON), "{index}: {got} {wanted}");
    }
}

#[test]
fn a_linear_layers_sum_is_that_of_an_f64_twin_for_every_dtype_of_the_base() {
    for dtype in [DType::F32, DType::BF16, DType::F64] {
        let case = Case::new(
            LLAMA,
            &[(Q, dtype, &[5, 1500]), (EMBED, dtype, &[4, 2])],
            PLAIN,
            &[(A, DType::BF16, &[3, 1500]), (B, DType::F32, &[5, 3])],
        );
        let model = case.open().unwrap();
        assert_eq!(model.tensors()[Q].dtype, dtype);
        assert!(model.is_adapted(Q) && !model.is_adapted(EMBED));
        assert_close(&floats(&model, Q), &twin(Q, [A, B], [5, 1500, 3], 4.0 / 3.0, false));
        assert_eq!(read(&model, EMBED, 0, 8).0, dtype);
    }
}

#[test]
fn windows_equal_the_whole_wherever_they_begin() {
    let case = Case::new(LLAMA, &[(Q, DType::BF16, &[7, 1100])], PLAIN, &[(A, DType::F32, &[3, 1100]), (B, DType::F32, &[7, 3])]);
    let model = case.open().unwrap();
    let whole = read(&model, Q, 0, 7700).1;
    for (start, count) in [(0, 1), (0, 1100), (1099, 2), (1, 7699), (550, 3333), (7699, 1), (7700, 0), (2200, 1100), (1023, 1025)] {
        assert_eq!(read(&model, Q, start, count).1, whole[start as usize * 4..][..count * 4], "{start} {count}");
    }
    let mut window = Window { dtype: DType::F32, bytes: Vec::new() };
    assert!(model.read(Q, 7700, 1, &mut window).unwrap_err().message().contains(Q));
    assert!(model.read("nothing", 0, 1, &mut window).is_err());
}

#[test]
fn threads_that_read_the_same_tensor_get_the_same_bytes() {
    let case = Case::new(LLAMA, &[(Q, DType::BF16, &[7, 1100])], PLAIN, &[(A, DType::F32, &[3, 1100]), (B, DType::F32, &[7, 3])]);
    let model = case.open().unwrap();
    let whole = read(&model, Q, 0, 7700).1;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(read(&model, Q, 0, 7700).1, whole));
        }
    });
}

#[test]
fn an_embeddings_product_is_transposed() {
    let (a, b) = ("base_model.model.model.embed_tokens.lora_embedding_A", "base_model.model.model.embed_tokens.lora_embedding_B");
    let case = Case::new(LLAMA, &[(EMBED, DType::F32, &[11, 4])], PLAIN, &[(a, DType::F32, &[3, 11]), (b, DType::F32, &[4, 3])]);
    assert_close(&floats(&case.open().unwrap(), EMBED), &twin(EMBED, [a, b], [11, 4, 3], 4.0 / 3.0, true));
}

#[test]
fn a_conv1d_of_gpt2_is_transposed_whatever_the_configuration_says() {
    let (name, a, b) = (
        "h.0.attn.c_attn.weight",
        "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight",
        "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight",
    );
    for fan_in_fan_out in [false, true] {
        let adapter_config = format!(r#"{{"peft_type": "LORA", "r": 3, "lora_alpha": 3, "fan_in_fan_out": {fan_in_fan_out}}}"#);
        // The base is bare (`h.0`), the adapter was trained under the head (`transformer.h.0`).
        let case = Case::new(
            r#"{"model_type": "gpt2"}"#,
            &[(name, DType::F32, &[6, 4])],
            &adapter_config,
            &[(a, DType::F32, &[3, 6]), (b, DType::F32, &[4, 3])],
        );
        assert_close(&floats(&case.open().unwrap(), name), &twin(name, [a, b], [6, 4, 3], 1.0, true));
    }
}

#[test]
fn names_with_an_adapters_name_and_a_bias_of_b_are_known() {
    let (a, b) = (&A.replace("lora_A", "base_layer.lora_A.default"), &B.replace("lora_B", "base_layer.lora_B.default"));
    let (bias, base_bias) = (&b.replace("weight", "bias"), &Q.replace("weight", "bias"));
    let config = r#"{"peft_type": "LORA", "r": 3, "lora_alpha": 6, "lora_bias": true}"#;
    let base = [(Q, DType::F32, &[5, 4][..]), (base_bias, DType::F32, &[5])];
    let case = Case::new(LLAMA, &base, config, &[(a, DType::F32, &[3, 4]), (b, DType::F32, &[5, 3]), (bias, DType::F32, &[5])]);
    let model = case.open().unwrap();
    assert_close(&floats(&model, Q), &twin(Q, [a, b], [5, 4, 3], 2.0, false));
    let wanted: Vec<f64> = (0..5).map(|i| f64::from(value(base_bias, i)) + 2.0 * f64::from(value(bias, i))).collect();
    assert_close(&floats(&model, base_bias), &wanted);
    assert_eq!(read(&model, base_bias, 3, 2).1, read(&model, base_bias, 0, 5).1[12..]);
}

#[test]
fn a_saved_module_replaces_the_bases_tensor_and_a_head_may_be_new() {
    let config = r#"{"peft_type": "LORA", "r": 3, "modules_to_save": ["lm_head", "score"]}"#;
    let adapter = [
        ("base_model.model.lm_head.weight", DType::BF16, &[4, 2][..]),
        ("base_model.model.score.modules_to_save.default.weight", DType::F32, &[2, 2]),
    ];
    let case = Case::new(LLAMA, &[("lm_head.weight", DType::F32, &[4, 2]), (EMBED, DType::F32, &[4, 2])], config, &adapter);
    let model = case.open().unwrap();
    assert_eq!(model.tensors()["lm_head.weight"].dtype, DType::BF16);
    let (dtype, bytes) = read(&model, "lm_head.weight", 1, 1);
    assert_eq!((dtype, bytes.as_slice()), (DType::BF16, &value(adapter[0].0, 1).to_le_bytes()[2..]));
    assert_eq!(model.tensors()["score.weight"].shape, [2, 2]);
    assert!(!model.is_adapted("lm_head.weight"));
}

#[test]
fn what_is_tied_becomes_two_tensors_where_only_one_was_changed() {
    let base = [(EMBED, DType::F32, &[4, 2][..])];
    let original: Vec<f32> = (0..8).map(|index| value(EMBED, index)).collect();
    let (a, b) = ("base_model.model.lm_head.lora_A.weight", "base_model.model.lm_head.lora_B.weight");
    let model = Case::new(TIED, &base, PLAIN, &[(a, DType::F32, &[3, 2]), (b, DType::F32, &[4, 3])]).open().unwrap();
    assert_close(&floats(&model, "lm_head.weight"), &twin(EMBED, [a, b], [4, 2, 3], 4.0 / 3.0, false));
    assert_eq!(floats(&model, EMBED), original);

    let (a, b) = ("base_model.model.model.embed_tokens.lora_embedding_A", "base_model.model.model.embed_tokens.lora_embedding_B");
    let adapter = [(a, DType::F32, &[3, 4][..]), (b, DType::F32, &[2, 3])];
    let model = Case::new(TIED, &base, PLAIN, &adapter).open().unwrap();
    assert_eq!(floats(&model, "lm_head.weight"), original);
    assert_ne!(floats(&model, EMBED), original);
    let tying = r#"{"peft_type": "LORA", "r": 3, "ensure_weight_tying": true}"#;
    assert_eq!(Case::new(TIED, &base, tying, &adapter).open().unwrap().tensors().len(), 1);

    let saved = [("base_model.model.model.embed_tokens.weight", DType::F32, &[4, 2][..])];
    let model = Case::new(TIED, &base, r#"{"peft_type": "LORA", "modules_to_save": ["embed_tokens"]}"#, &saved).open().unwrap();
    assert_eq!(floats(&model, "lm_head.weight"), original);
    // Embeddings that PEFT saved along with the adapter are no module of their own: the tie holds.
    assert_eq!(Case::new(TIED, &base, PLAIN, &saved).open().unwrap().tensors().len(), 1);
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_with_the_tensors_name() {
    let base = [(Q, DType::F32, &[5, 4][..]), ("model.layers.0.conv.weight", DType::F32, &[2, 2, 3]), (EMBED, DType::I8, &[4, 4])];
    let (a, b): (Tensor<'_>, Tensor<'_>) = ((A, DType::F32, &[3, 4]), (B, DType::F32, &[5, 3]));
    let other = "base_model.model.model.layers.9.self_attn.q_proj";
    let (other_a, other_b) = (&format!("{other}.lora_A.weight"), &format!("{other}.lora_B.weight"));
    let (conv_a, conv_b) = ("base_model.model.model.layers.0.conv.lora_A.weight", "base_model.model.model.layers.0.conv.lora_B.weight");
    let (int_a, int_b) = ("base_model.model.model.embed_tokens.lora_A.weight", "base_model.model.model.embed_tokens.lora_B.weight");
    let cases: [(&[Tensor<'_>], &str); 12] = [
        (&[a], "no factor B"),
        (&[b], "no factor A"),
        (&[(A, DType::F32, &[3, 5]), b], "expected shape [3, 4]"),
        (&[a, (B, DType::F32, &[5, 2])], "expected shape [5, 3]"),
        (&[(A, DType::F32, &[2, 4]), (B, DType::F32, &[5, 2])], "rank 3"),
        (&[a, b, (other_a, DType::F32, &[3, 4]), (other_b, DType::F32, &[5, 3])], "layers.9.self_attn.q_proj"),
        (&[(conv_a, DType::F32, &[3, 2, 3]), (conv_b, DType::F32, &[2, 3, 1])], "convolution"),
        (&[(int_a, DType::F32, &[3, 4]), (int_b, DType::F32, &[4, 3])], "expected floats, found I8"),
        (&[a, b, ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", DType::F32, &[5])], "DoRA"),
        (&[a, b, ("base_model.model.model.layers.0.self_attn.q_proj.lora_X.weight", DType::F32, &[5])], "lora_X"),
        (&[a, b, ("base_model.model.surplus.weight", DType::F32, &[5])], "surplus.weight"),
        (&[a, b, ("base_model.model.model.embed_tokens.weight", DType::F32, &[6, 4])], "expected the base's shape [4, 4]"),
    ];
    for (adapter, wanted) in cases {
        let error = Case::new(LLAMA, &base, PLAIN, adapter).open().unwrap_err();
        assert!(error.message().contains(wanted) && error.message().contains("adapter_model.safetensors"), "{wanted}: {error}");
    }
    let two = [a, b, (&A.replace("lora_A", "lora_A.second"), DType::F32, &[3, 4][..])];
    assert!(Case::new(LLAMA, &base, PLAIN, &two).open().unwrap_err().message().contains("two adapters"));
}

#[test]
fn a_module_that_should_be_saved_is_in_the_file_or_in_no_model() {
    let base = [(Q, DType::F32, &[5, 4][..]), ("score.weight", DType::F32, &[2, 4])];
    let (a, b): (Tensor<'_>, Tensor<'_>) = ((A, DType::F32, &[3, 4]), (B, DType::F32, &[5, 3]));
    let head = ("base_model.model.score.weight", DType::F32, &[2, 4][..]);
    let saving = |modules: &str| format!(r#"{{"peft_type": "LORA", "r": 3, "modules_to_save": {modules}}}"#);
    for (base, adapter, modules, missing) in [
        (&base[..], &[a, b, head][..], r#"["classifier", "score"]"#, None),
        (&base[..1], &[a, b, head], r#"["classifier", "score"]"#, None),
        (&base, &[a, b], r#"["classifier", "score"]"#, Some("`score`")),
        (&base[..1], &[a, b], r#"["classifier", "score"]"#, Some("`classifier`")),
        (&base, &[a, b, head], r#"["q_proj", "score"]"#, Some("`q_proj`")),
    ] {
        match (Case::new(LLAMA, base, &saving(modules), adapter).open(), missing) {
            (Ok(_), None) => {}
            (Err(error), Some(missing)) => {
                assert!(error.message().contains(missing) && error.message().contains("adapter_model.safetensors"), "{error}");
            }
            (result, _) => panic!("{modules}: {:?}", result.map(|_| ())),
        }
    }
}

#[test]
fn an_adapters_weights_are_looked_for_in_both_formats() {
    let case = Case::new(LLAMA, &[(Q, DType::F32, &[5, 4])], PLAIN, &[(A, DType::F32, &[3, 4])]);
    let file = case.0.path().join("adapter/adapter_model.safetensors");
    std::fs::rename(&file, file.with_extension("bin")).unwrap();
    let error = case.open().unwrap_err();
    assert!(error.message().contains("adapter_model.bin: expected a file of torch.save, found a safetensors file"), "{error}");
    std::fs::remove_file(file.with_extension("bin")).unwrap();
    assert!(case.open().unwrap_err().message().contains("looked for adapter_model.safetensors and adapter_model.bin"));
}
