//! `vocab`: models whose vocabularies differ in size, against models that were padded or cut by hand before, in f64 and as plainly as it
//! can be written.

mod checkpoints;

use checkpoints::{Model, Models, Random, Tensor};
use deltaic_merge::plan::Spelling;

const HIDDEN: usize = 48;
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn config(rows: usize, more: &str) -> String {
    format!(r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2, "vocab_size": {rows}{more}}}"#)
}

/// A Llama with so many rows; all models of one `random` differ a little from each other.
fn llama(rows: usize, head: bool, dtype: &str, seed: u64) -> Model {
    let tensor = |shape: &[usize]| {
        let (mut base, mut delta) = (Random(3), Random(seed));
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| base.uniform() + 0.05 * delta.uniform()).collect();
        if dtype == "BF16" { Tensor::bf16(shape, &values) } else { Tensor::f32(shape, &values) }
    };
    let mut model = Model::new();
    model.insert(EMBEDDING.to_owned(), tensor(&[rows, HIDDEN]));
    if head {
        model.insert(HEAD.to_owned(), tensor(&[rows, HIDDEN]));
    }
    model.insert("model.layers.0.mlp.up_proj.weight".to_owned(), tensor(&[3, HIDDEN]));
    model.insert("model.layers.1.mlp.up_proj.weight".to_owned(), tensor(&[3, HIDDEN]));
    model.insert("model.norm.weight".to_owned(), tensor(&[HIDDEN]));
    model
}

/// The twin: the tensor with so many rows, new ones the mean of the old (or zero), or cut.
fn resized(tensor: &Tensor, rows: usize, zero: bool) -> Tensor {
    let (old, width) = (tensor.shape[0], tensor.shape[1..].iter().product::<usize>());
    let values = tensor.values();
    let mean = |column: usize| {
        let sum: f64 = (0..old).map(|row| f64::from(values[row * width + column])).sum();
        if zero { 0.0 } else { (sum / old as f64) as f32 }
    };
    let row: Vec<f32> = (0..width).map(mean).collect();
    // To nearest even: a mean of bf16 values may well lie in the middle of two.
    let even = |value: &f32| f32::from_bits((value.to_bits() + 0x7fff + ((value.to_bits() >> 16) & 1)) & 0xffff_0000);
    let row = match tensor.dtype.as_str() {
        "BF16" => Tensor::bf16(&[width], &row.iter().map(even).collect::<Vec<_>>()),
        _ => Tensor::f32(&[width], &row),
    };
    let mut bytes = tensor.bytes.clone();
    for _ in old..rows {
        bytes.extend(&row.bytes);
    }
    bytes.truncate(rows * row.bytes.len());
    Tensor { dtype: tensor.dtype.clone(), shape: [&[rows], &tensor.shape[1..]].concat(), bytes }
}

fn fitted(model: &Model, rows: usize, zero: bool) -> Model {
    let fit = |(name, tensor): (&String, &Tensor)| {
        let of_vocabulary = [EMBEDDING, HEAD].contains(&name.as_str());
        (name.clone(), if of_vocabulary { resized(tensor, rows, zero) } else { tensor.clone() })
    };
    model.iter().map(fit).collect()
}

const METHODS: [&str; 6] = [
    "{merge_method: task_arithmetic, base_model: ./base, models: [{model: ./a, parameters: {weight: 0.6}}, {model: ./b, parameters: {weight: 0.7}}], sparsify: {kind: dare, drop_rate: 0.4}, seed: 5",
    "{merge_method: ties, base_model: ./base, models: [{model: ./a, parameters: {weight: 0.6, density: 0.5}}, {model: ./b, parameters: {weight: 0.7, density: 0.3}}]",
    "{merge_method: linear, models: [{model: ./base, parameters: {weight: 1}}, {model: ./a, parameters: {weight: 0.6}}, {model: ./b, parameters: {weight: 0.7}}]",
    "{merge_method: slerp, base_model: ./base, models: [{model: ./b}], parameters: {t: 0.3}",
    "{merge_method: model_stock, base_model: ./base, models: [{model: ./a}, {model: ./b}], parameters: {filter_wise: true}",
    "{preset: paper, merge_method: ties, base_model: ./base, models: [{model: ./a}, {model: ./b}]",
];

#[test]
fn a_merge_with_vocab_is_the_merge_of_models_that_were_fitted_by_hand_before() {
    // Rows of base, a and b, head or not: one row more for a [PAD], a larger base, all different, tied and untied together.
    // 3,000 rows are more than one window.
    let both = &["F32", "BF16"];
    for (rows, heads, dtypes) in [
        ([3000, 3001, 3000], [true, false, true], &both[..1]),
        ([3003, 3001, 3001], [false; 3], &both[1..]),
        ([7, 9, 8], [false; 3], both),
        ([7, 9, 8], [false, true, false], both),
    ] {
        for dtype in dtypes {
            let models: Vec<(&str, Model)> =
                ["base", "a", "b"].iter().zip(0..).map(|(name, i)| (*name, llama(rows[i], heads[i], dtype, i as u64))).collect();
            let given = Models::new(&config(rows[0], ""), &models.iter().map(|(name, model)| (*name, model)).collect::<Vec<_>>());
            for (vocab, size, zero) in [
                ("{on_mismatch: pad}", *rows.iter().max().unwrap(), false),
                ("{on_mismatch: pad, fill: zero}", *rows.iter().max().unwrap(), true),
                ("{on_mismatch: truncate}", *rows.iter().min().unwrap(), false),
            ] {
                let by_hand: Vec<(&str, Model)> = models.iter().map(|(name, model)| (*name, fitted(model, size, zero))).collect();
                let by_hand = Models::new(&config(size, ""), &by_hand.iter().map(|(name, model)| (*name, model)).collect::<Vec<_>>());
                // All three models take part in most methods; slerp leaves `a` out, so that sizes may be equal there.
                for method in METHODS.iter().filter(|method| !method.contains("slerp") || rows[1] <= rows[0].max(rows[2])) {
                    let case = format!("{rows:?} {dtype} {vocab} {method}");
                    let (found, expected) = (given.merge(&format!("{method}, vocab: {vocab}}}")), by_hand.merge(&format!("{method}}}")));
                    assert_eq!(found.tensors.keys().collect::<Vec<_>>(), expected.tensors.keys().collect::<Vec<_>>(), "{case}");
                    for (name, tensor) in &expected.tensors {
                        assert!(found.tensors[name] == *tensor, "{case}: {name}");
                    }
                    let read = |models: &Models| std::fs::read_to_string(models.path().join("out/config.json")).unwrap();
                    assert_eq!(read(&given), read(&by_hand), "{case}");
                }
            }
        }
    }
}

#[test]
fn the_plan_says_which_models_get_rows_and_the_recipe_keeps_its_key() {
    let (base, a) = (llama(5, true, "F32", 0), llama(6, true, "F32", 1));
    let models = Models::new(&config(5, r#", "tie_word_embeddings": false"#), &[("base", &base), ("a", &a)]);
    let recipe = |vocab: &str| format!("{{merge_method: average, models: [{{model: ./base}}, {{model: ./a}}]{vocab}}}");
    let plan = models.plan(&recipe(", vocab: {on_mismatch: pad}")).unwrap();
    assert_eq!(
        plan.warnings,
        [HEAD, EMBEDDING].map(|name| format!(
            "{name}: 6 rows by `vocab`, where ./base has 5: each row that is made is the mean of that model's own rows"
        ))
    );
    assert!(plan.resolved_recipe(Spelling::AsNamed).contains("\nvocab: {on_mismatch: pad, fill: mean}\n"));
    let all = models.plan(&recipe("")).err().unwrap();
    assert_eq!(all.message(), "lm_head.weight: the vocabularies differ in size, in rows: ./base has 5, ./a has 6");
    assert!(all.to_string().contains("`vocab: {on_mismatch: pad}`") && all.to_string().contains("truncate"));
    // The last row's token is gone, and the tokenizer that is copied still has it.
    std::fs::write(models.path().join("base/vocab.txt"), "a\nb\nc\n").unwrap();
    assert_eq!(models.plan(&recipe(", vocab: {on_mismatch: truncate}")).unwrap().warnings.len(), 2);
    std::fs::write(models.path().join("base/config.json"), config(6, "")).unwrap();
    let larger = Models::new(&config(6, ""), &[("base", &a), ("a", &base)]);
    std::fs::write(larger.path().join("base/vocab.txt"), "a\nb\nc\nd\ne\nf\n").unwrap();
    let warnings = larger.plan(&recipe(", vocab: {on_mismatch: truncate}")).unwrap().warnings;
    assert_eq!(warnings[2], "model.embed_tokens.weight: the tokenizer of ./base, which is copied, has 1 token beyond its 5 rows");
}

#[test]
fn equal_vocabularies_are_left_alone_and_other_columns_stay_an_error() {
    let models = Models::new(&config(5, ""), &[("base", &llama(5, true, "F32", 0)), ("a", &llama(5, true, "F32", 1))]);
    let recipe = |vocab: &str| format!("{{merge_method: average, models: [{{model: ./base}}, {{model: ./a}}]{vocab}}}");
    let as_it_is = models.merge(&recipe(""));
    let padded = models.merge(&recipe(", vocab: {on_mismatch: pad}"));
    assert!(as_it_is.tensors == padded.tensors && padded.warnings.is_empty());
    let mut other = llama(6, true, "F32", 1);
    other.insert(EMBEDDING.to_owned(), Tensor::f32(&[6, 2], &[0.5; 12]));
    models.add("other", &config(6, ""), &other);
    let error =
        models.plan("{merge_method: average, models: [{model: ./base}, {model: ./other}], vocab: {on_mismatch: pad}}").err().unwrap();
    assert!(error.message().contains("has shape [6, 48]") || error.message().contains("has shape [6, 2]"), "{error}");
}

#[test]
fn copied_rows_keep_their_bits() {
    let mut base = llama(5, true, "BF16", 0);
    // A NaN with a payload, which arithmetic would not keep.
    base.get_mut(EMBEDDING).unwrap().bytes[..2].copy_from_slice(&[0xab, 0x7f]);
    let models = Models::new(&config(5, ""), &[("base", &base), ("a", &llama(6, true, "BF16", 1))]);
    let merged = models.merge(
        "{merge_method: task_arithmetic, base_model: ./base, models: [{model: ./a, parameters: {weight: 0}}], vocab: {on_mismatch: pad}}",
    );
    for name in [EMBEDDING, HEAD] {
        let (found, stored) = (&merged.tensors[name], &base[name]);
        assert_eq!(found.shape, [6, HIDDEN]);
        assert!(found.bytes[..stored.bytes.len()] == stored.bytes[..], "{name}");
        assert_eq!(found.values()[5 * HIDDEN + 1], resized(stored, 6, false).values()[5 * HIDDEN + 1]);
    }
}

#[test]
fn with_slices_the_embedding_and_the_head_of_different_models_get_one_size() {
    let (a, b) = (llama(5, true, "F32", 0), llama(6, true, "F32", 1));
    let models = Models::new(&config(5, ""), &[("a", &a), ("b", &b)]);
    let recipe = |vocab: &str| {
        format!(
            "{{merge_method: passthrough, slices: [{{sources: [{{model: ./a, layer_range: [0, 1]}}]}}, {{sources: [{{model: ./b, layer_range: [1, 2]}}]}}]{vocab}}}"
        )
    };
    let error = models.plan(&recipe("")).err().unwrap();
    assert!(error.message().contains("the vocabularies differ in size"), "{error}");
    let merged = models.merge(&recipe(", vocab: {on_mismatch: pad}"));
    assert!(merged.tensors[EMBEDDING] == resized(&a[EMBEDDING], 6, false) && merged.tensors[HEAD] == b[HEAD]);
    let merged = models.merge(&recipe(", vocab: {on_mismatch: truncate}"));
    assert!(merged.tensors[EMBEDDING] == a[EMBEDDING] && merged.tensors[HEAD] == resized(&b[HEAD], 5, false));
    // Layers alone may come from a model of another vocabulary.
    let inner = "{merge_method: passthrough, slices: [{sources: [{model: ./a, layer_range: [0, 1]}]}, {sources: [{model: ./b, layer_range: [0, 1]}]}, {sources: [{model: ./a, layer_range: [1, 2]}]}]}";
    assert!(models.merge(inner).tensors[EMBEDDING] == a[EMBEDDING]);
}

#[test]
fn excluded_tensors_of_the_base_follow_the_vocabulary() {
    let (base, a) = (llama(5, true, "F32", 0), llama(6, true, "F32", 1));
    let models = Models::new(&config(5, ""), &[("base", &base), ("a", &a)]);
    let recipe = |more: &str| {
        format!("{{merge_method: task_arithmetic, base_model: ./base, models: [{{model: ./a, parameters: {{weight: 1}}}}], {more}}}")
    };
    let merged = models.merge(&recipe("exclude: [lm_head.weight], vocab: {on_mismatch: pad}"));
    assert!(merged.tensors[HEAD] == resized(&base[HEAD], 6, false));
    assert_eq!(merged.tensors[EMBEDDING].shape, [6, HIDDEN]);
    // Where all of them are the base's there is nothing to fit.
    let merged = models.merge(&recipe("exclude: [lm_head.weight, model.embed_tokens.weight]"));
    assert!(merged.tensors[HEAD] == base[HEAD]);
}

#[test]
fn rows_that_are_made_for_a_model_with_an_adapter_are_means_of_its_sums() {
    let (base, a) = (llama(5, false, "F32", 0), llama(6, false, "F32", 1));
    let models = Models::new(&config(5, r#", "tie_word_embeddings": true"#), &[("base", &base), ("a", &a)]);
    let name = |part: &str| format!("base_model.model.model.embed_tokens.lora_embedding_{part}");
    let first: Vec<f32> = (0..5).map(|row| row as f32 - 1.0).collect();
    let second: Vec<f32> = (0..HIDDEN).map(|column| 0.125 * column as f32).collect();
    let adapter = Model::from([(name("A"), Tensor::f32(&[1, 5], &first)), (name("B"), Tensor::f32(&[HIDDEN, 1], &second))]);
    let settings =
        r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["embed_tokens"], "base_model_name_or_path": "base"}"#;
    models.add("adapter", "{}", &adapter);
    let folder = models.path().join("adapter");
    std::fs::write(folder.join("adapter_config.json"), settings).unwrap();
    std::fs::rename(folder.join("model.safetensors"), folder.join("adapter_model.safetensors")).unwrap();
    let merged = models.merge(
        "{merge_method: linear, models: [{model: ./base+./adapter, parameters: {weight: 1}}, {model: ./a, parameters: {weight: 1}}], vocab: {on_mismatch: pad}}",
    );
    let mut values = base[EMBEDDING].values();
    values.iter_mut().enumerate().for_each(|(i, value)| *value += 2.0 * first[i / HIDDEN] * second[i % HIDDEN]);
    let padded = resized(&Tensor::f32(&[5, HIDDEN], &values), 6, false).values();
    let (found, other) = (merged.tensors[EMBEDDING].values(), a[EMBEDDING].values());
    for i in 0..6 * HIDDEN {
        let expected = (f64::from(padded[i]) + f64::from(other[i])) / 2.0;
        assert!((f64::from(found[i]) - expected).abs() < 1e-6, "{i}: {} {expected}", found[i]);
    }
}

#[test]
fn biases_of_a_language_models_head_follow_the_vocabulary() {
    let bert = |rows: usize, seed: f32| {
        Model::from([
            ("bert.embeddings.word_embeddings.weight".to_owned(), Tensor::f32(&[rows, 2], &vec![seed; rows * 2])),
            ("cls.predictions.bias".to_owned(), Tensor::f32(&[rows], &(0..rows).map(|row| seed + row as f32).collect::<Vec<_>>())),
        ])
    };
    let config = r#"{"architectures": ["BertForMaskedLM"], "model_type": "bert", "num_hidden_layers": 0, "vocab_size": 3}"#;
    let models = Models::new(config, &[("a", &bert(3, 1.0)), ("b", &bert(4, 3.0))]);
    let merged = models.merge("{merge_method: average, models: [{model: ./a}, {model: ./b}], vocab: {on_mismatch: pad}}");
    // (1 2 3 and their mean 2) and (3 4 5 6).
    assert_eq!(merged.tensors["cls.predictions.bias"].values(), [2.0, 3.0, 4.0, 4.0]);
    assert_eq!(merged.tensors["bert.embeddings.word_embeddings.weight"].values(), [2.0; 8]);
}
