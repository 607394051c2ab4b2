//! What is said before a merge.

mod checkpoints;

use checkpoints::{LLAMA, Model, Models, Random, Tensor};
use deltaic_merge::checks::before;

const MATRIX: usize = 64;

/// A model of two layers with a matrix and a norm each; `seed` gives the weights, a delta of size `change` comes on top.
fn model(seed: u64, change: f32) -> Model {
    let (mut weights, mut deltas) = (Random(seed), Random(99));
    let mut values = |count: usize, size: f32, around: f32| -> Vec<f32> {
        (0..count).map(|_| around + size * weights.uniform() + if change == 0.0 { 0.0 } else { change * deltas.uniform() }).collect()
    };
    let mut model = Model::new();
    for layer in 0..2 {
        model
            .insert(format!("model.layers.{layer}.mlp.up_proj.weight"), Tensor::f32(&[MATRIX, MATRIX], &values(MATRIX * MATRIX, 0.1, 0.0)));
        model.insert(format!("model.layers.{layer}.input_layernorm.weight"), Tensor::f32(&[MATRIX], &values(MATRIX, 0.01, 1.0)));
    }
    model
}

const DROPS: &str = "base_model: base\nmodels: [{model: a}]\nmerge_method: task_arithmetic\nparameters: {weight: 0.5}\nsparsify: {kind: dare, drop_rate: 0.5}\nseed: 1\n";
const KEEPS: &str = "base_model: base\nmodels: [{model: a}]\nmerge_method: task_arithmetic\nparameters: {weight: 0.5}\n";

fn said(base: &Model, a: &Model, recipe: &str) -> Vec<String> {
    before(&Models::new(LLAMA, &[("base", base), ("a", a)]).plan(recipe).unwrap()).unwrap()
}

#[test]
fn nothing_is_said_of_a_fine_tune() {
    assert_eq!(said(&model(1, 0.0), &model(1, 0.001), DROPS), Vec::<String>::new());
}

#[test]
fn a_fine_tune_of_another_base_is_told_although_its_norms_look_alike() {
    let said = said(&model(1, 0.0), &model(2, 0.0), KEEPS);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("a looks like a fine-tune of another base than base: 2 of 2 sampled matrices"), "{said:?}");
    assert!(said[0].contains("model.layers.0.mlp.up_proj.weight (") && said[0].len() < 2000, "{said:?}");
}

#[test]
fn without_a_base_models_are_compared_with_the_first() {
    let models = Models::new(LLAMA, &[("a", &model(1, 0.001)), ("b", &model(1, 0.0)), ("c", &model(2, 0.0))]);
    let said =
        before(&models.plan("models: [{model: a}, {model: b}, {model: c}]\nmerge_method: linear\nparameters: {weight: 1.0}\n").unwrap())
            .unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("c looks like a fine-tune of another base than a"), "{said:?}");
}

#[test]
fn a_replaced_matrix_is_named() {
    let (base, mut a) = (model(1, 0.0), model(1, 0.001));
    let names: Vec<String> = (2..6).map(|layer| format!("model.layers.1.extra_{layer}.weight")).collect();
    let (mut base, of_another) = (base, model(3, 0.0)["model.layers.0.mlp.up_proj.weight"].clone());
    for name in &names {
        base.insert(name.clone(), base["model.layers.0.mlp.up_proj.weight"].clone());
        a.insert(name.clone(), a["model.layers.0.mlp.up_proj.weight"].clone());
    }
    a.insert("model.layers.1.mlp.up_proj.weight".to_owned(), of_another);
    let said = said(&base, &a, KEEPS);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("1 of 6 sampled matrices were replaced") && said[0].contains("model.layers.1.mlp.up_proj.weight"), "{said:?}");
}

#[test]
fn deltas_beyond_the_papers_are_told_only_where_some_are_dropped() {
    let (base, a) = (model(1, 0.0), model(1, 0.03));
    let dropped = said(&base, &a, DROPS);
    assert!(dropped.len() == 1 && dropped[0].contains("too large to be dropped") && dropped[0].contains("within 0.002"), "{dropped:?}");
    assert_eq!(said(&base, &a, KEEPS), Vec::<String>::new());
}

#[test]
fn an_equal_model_adds_nothing_and_numbers_that_are_not_finite_are_seen() {
    let base = model(1, 0.0);
    let equal = said(&base, &base, KEEPS);
    assert!(equal.len() == 1 && equal[0].contains("adds nothing"), "{equal:?}");
    let mut broken = model(1, 0.001);
    let mut values = broken["model.layers.0.mlp.up_proj.weight"].values();
    values[5] = f32::NAN;
    broken.insert("model.layers.0.mlp.up_proj.weight".to_owned(), Tensor::f32(&[MATRIX, MATRIX], &values));
    let of_base = said(&broken, &base, KEEPS);
    assert!(of_base.len() == 1 && of_base[0].starts_with("base: 1 sampled elements"), "{of_base:?}");
    let said = said(&base, &broken, KEEPS);
    assert!(
        said.len() == 1 && said[0].starts_with("a: 1 sampled elements are NaN or infinite, the first in model.layers.0.mlp.up_proj.weight"),
        "{said:?}"
    );
}

#[test]
fn configurations_that_disagree_are_named_with_both_values() {
    let with = |more: &str| LLAMA.replace('}', &format!(", {more}}}"));
    let models = Models::new(&with(r#""rope_theta": 10000.0"#), &[("base", &model(1, 0.0))]);
    models.add("a", &with(r#""rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}"#), &model(1, 0.001));
    let said = before(&models.plan(KEEPS).unwrap()).unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("a: rope_theta is 1000000.0, that of base is 10000.0:"), "{said:?}");
}

#[test]
fn head_counts_that_do_not_fit_the_matrices_are_told() {
    let config = LLAMA.replace('}', r#", "num_attention_heads": 8, "num_key_value_heads": 2}"#);
    let mut base = model(1, 0.0);
    base.insert("model.layers.0.self_attn.q_proj.weight".to_owned(), Tensor::f32(&[8, 2], &[0.5; 16]));
    base.insert("model.layers.0.self_attn.k_proj.weight".to_owned(), Tensor::f32(&[4, 2], &[0.5; 8]));
    let models = Models::new(&config, &[("base", &base)]);
    let said = before(&models.plan("models: [{model: base}]\nmerge_method: passthrough\n").unwrap()).unwrap();
    assert!(said.len() == 1 && said[0].contains("8 attention heads and 2 of keys"), "{said:?}");
}

#[test]
fn a_layer_that_the_configuration_has_and_the_tensors_lack_is_an_error() {
    let config = LLAMA.replace("layers\": 2", "layers\": 3");
    let (base, a) = (model(1, 0.0), model(1, 0.001));
    let error = before(&Models::new(&config, &[("base", &base), ("a", &a)]).plan(KEEPS).unwrap()).unwrap_err();
    assert!(error.message().contains("says 3 layers, the tensors have 2; layer 2 is the first that is missing"), "{error}");
    let config = LLAMA.replace("layers\": 2", "layers\": 1");
    let said = before(&Models::new(&config, &[("base", &base), ("a", &a)]).plan(KEEPS).unwrap()).unwrap();
    assert!(said.len() == 1 && said[0].contains("the tensors have layer 1, too"), "{said:?}");
}
