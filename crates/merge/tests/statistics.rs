//! Fisher merging and RegMean: published vectors (semantics.md §7, from the authors' functions in f32), properties, and what does not fit.

mod checkpoints;

use checkpoints::{LLAMA, Model, Models, Random, Tensor, write};

const LAYER: &str = "model.layers.0.mlp.up_proj.weight";
const BIAS: &str = "model.layers.0.mlp.up_proj.bias";

/// Rows of a matrix.
type Matrix = Vec<Vec<f64>>;

/// The six inputs of model 1; model 2 has half of them and 0.1 more, model 3 has them with reversed columns.
fn inputs(model: usize) -> Matrix {
    let first = [
        [1.0, 0.0, 0.5, -1.0],
        [0.2, -0.4, 1.0, 0.3],
        [-1.0, 0.5, 0.25, 0.75],
        [0.1, 0.9, -0.6, 0.4],
        [0.3, -0.2, 0.7, -0.5],
        [-0.8, 0.6, -0.1, 0.2],
    ];
    let change = |row: &[f64; 4]| match model {
        0 => row.to_vec(),
        1 => row.iter().map(|x| 0.5 * x + 0.1).collect(),
        _ => row.iter().rev().copied().collect(),
    };
    first.iter().map(change).collect()
}

/// The base, then the three models: bias (2 elements) and weight (2x4).
const BIASES: [[f64; 2]; 4] = [[0.0, 0.1], [0.2, 0.09], [-0.1, 0.15], [0.055, -0.3]];
const BASE: [f64; 8] = [0.5, -1.0, 0.25, 2.0, -0.75, 0.125, 1.5, -0.5];
const DELTAS: [[f64; 8]; 3] = [
    [0.10, -0.30, 0.02, -0.50, 0.40, -0.05, 0.03, -0.12],
    [-0.15, 0.21, 0.26, 0.31, 0.06, 0.52, -0.01, -0.17],
    [0.04, -0.07, -0.35, 0.11, 0.61, -0.02, -0.23, 0.45],
];

fn weight(model: usize) -> Vec<f64> {
    BASE.iter().zip(DELTAS[model]).map(|(base, delta)| base + delta).collect()
}

fn model(bias: &[f64], weight: &[f64]) -> Model {
    let narrow = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<_>>();
    Model::from([(BIAS.to_owned(), Tensor::f32(&[2], &narrow(bias))), (LAYER.to_owned(), Tensor::f32(&[2, 4], &narrow(weight)))])
}

/// The authors' Fisher weights of a linear layer whose outputs are the logits: per batch of three the square of the gradient of
/// `sum sqrt(p) log p`, p held fixed, summed and divided by the number of examples. By hand: d/dz_k sum_c s_c log p_c = s_k - p_k sum(s).
fn fisher(model: usize) -> (Vec<f64>, Vec<f64>) {
    let (weight, bias) = (weight(model), BIASES[model + 1]);
    let (mut of_bias, mut of_weight) = (vec![0.0; 2], vec![0.0; 8]);
    for batch in inputs(model).chunks(3) {
        let (mut bias_gradient, mut weight_gradient) = (vec![0.0; 2], vec![0.0; 8]);
        for x in batch {
            let logits: Vec<f64> = (0..2).map(|o| bias[o] + (0..4).map(|i| weight[o * 4 + i] * x[i]).sum::<f64>()).collect();
            let sum: f64 = logits.iter().map(|z| z.exp()).sum();
            let p: Vec<f64> = logits.iter().map(|z| z.exp() / sum).collect();
            let roots: f64 = p.iter().map(|p| p.sqrt()).sum();
            for o in 0..2 {
                let gradient = p[o].sqrt() - p[o] * roots;
                bias_gradient[o] += gradient;
                (0..4).for_each(|i| weight_gradient[o * 4 + i] += gradient * x[i]);
            }
        }
        of_bias.iter_mut().zip(&bias_gradient).for_each(|(sum, g)| *sum += g * g / 6.0);
        of_weight.iter_mut().zip(&weight_gradient).for_each(|(sum, g)| *sum += g * g / 6.0);
    }
    (of_bias, of_weight)
}

/// The Gram matrix of a model's inputs, averaged over rows.
fn gram(inputs: &Matrix) -> Vec<f64> {
    let width = inputs[0].len();
    let entry = |k: usize| inputs.iter().map(|x| x[k / width] * x[k % width]).sum::<f64>() / inputs.len() as f64;
    (0..width * width).map(entry).collect()
}

/// The three models of the vectors with their Fisher weights and Gram matrices beside.
fn published() -> Models {
    let all = Models::new(LLAMA, &[("base", &model(&BIASES[0], &BASE))]);
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        all.add(name, LLAMA, &model(&BIASES[number + 1], &weight(number)));
        let (bias, weight) = fisher(number);
        write(&all.path().join(format!("fisher-{name}.safetensors")), &model(&bias, &weight));
        let gram: Vec<f32> = gram(&inputs(number)).iter().map(|x| *x as f32).collect();
        write(&all.path().join(format!("gram-{name}.safetensors")), &Model::from([(LAYER.to_owned(), Tensor::f32(&[4, 4], &gram))]));
    }
    all
}

fn recipe(method: &str, more: &str, weights: [f64; 3]) -> String {
    let file = if method == "fisher" { "fisher" } else { "gram" };
    let entry = |(name, weight): (&str, f64)| {
        let weight = if method == "fisher" { format!(", parameters: {{weight: {weight}}}") } else { String::new() };
        format!("{{model: ./{name}, statistics: {file}-{name}.safetensors{weight}}}")
    };
    let models: Vec<String> = ["a", "b", "c"].into_iter().zip(weights).map(entry).collect();
    format!("{{preset: paper, merge_method: {method}, base_model: ./base, {more}models: [{}]}}", models.join(", "))
}

#[track_caller]
fn close(found: &Model, expected: &[f64; 10]) {
    let found: Vec<f32> = found[BIAS].values().into_iter().chain(found[LAYER].values()).collect();
    for (k, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "element {k}: {found}, published {expected}");
    }
}

#[test]
fn fisher_merging_gives_the_published_vectors() {
    let models = published();
    let plain = [0.1137, 0.0859087, 0.545678, -1.13745, 0.225411, 1.90476, -0.267337, 0.128984, 1.47972, -0.273449];
    let normalised = [0.0768453, 0.104952, 0.530499, -1.13661, 0.27359, 1.8445, -0.342142, 0.170885, 1.49802, -0.374291];
    for (normalize, expected) in [(false, plain), (true, normalised)] {
        let text = recipe("fisher", &format!("fisher: {{normalize: {normalize}, batch_size: 3}}, "), [0.5, 0.3, 0.2]);
        close(&models.merge(&text).tensors, &expected);
    }
}

#[test]
fn regmean_gives_the_published_vectors() {
    let models = published();
    let whole = [0.0516667, -0.02, 0.724756, -1.07544, 0.219709, 2.07702, -0.232166, 0.135615, 1.41869, -0.256767];
    let reduced = [0.0516667, -0.02, 0.664139, -1.08025, 0.215709, 2.0162, -0.259965, 0.14133, 1.42298, -0.285181];
    for (reduce, expected) in [(1.0, whole), (0.9, reduced)] {
        let text = recipe("regmean", &format!("parameters: {{reduce_non_diagonal: {reduce}}}, "), [1.0; 3]);
        close(&models.merge(&text).tensors, &expected);
    }
}

/// A layer of 150 x 70 and an embedding, in three models, with statistics of both kinds.
fn larger() -> (Models, Vec<Model>, Vec<Model>) {
    let mut random = Random(3);
    let shapes: [(&str, &[usize]); 2] = [(LAYER, &[150, 70]), ("model.embed_tokens.weight", &[40, 70])];
    let family = checkpoints::family(&shapes, "F32");
    let all = Models::new(LLAMA, &[("base", &family[0])]);
    let (mut fishers, mut grams) = (Vec::new(), Vec::new());
    for (name, model) in ["a", "b", "c"].into_iter().zip(&family[1..]) {
        all.add(name, LLAMA, model);
        let mut squares = |count: usize| (0..count).map(|_| 1e-4 * random.uniform().powi(2)).collect::<Vec<f32>>();
        let fisher: Model = shapes.iter().map(|(n, s)| ((*n).to_owned(), Tensor::f32(s, &squares(s.iter().product())))).collect();
        let rows: Matrix = (0..300).map(|_| (0..70).map(|_| f64::from(random.uniform())).collect()).collect();
        let gram: Vec<f32> = gram(&rows).iter().map(|x| *x as f32).collect();
        let gram = Model::from([(LAYER.to_owned(), Tensor::f32(&[70, 70], &gram))]);
        write(&all.path().join(format!("fisher-{name}.safetensors")), &fisher);
        write(&all.path().join(format!("gram-{name}.safetensors")), &gram);
        fishers.push(fisher);
        grams.push(gram);
    }
    (all, fishers, grams)
}

#[test]
fn a_fisher_merge_lies_between_the_models_and_equal_statistics_give_their_mean() {
    let (models, ..) = larger();
    let merged = models.merge(&recipe("fisher", "", [1.0; 3])).tensors;
    let all: Vec<Model> =
        ["a", "b", "c"].iter().map(|name| checkpoints::read(&models.path().join(name).join("model.safetensors"))).collect();
    for (name, tensor) in &merged {
        for (k, value) in tensor.values().iter().enumerate() {
            let of: Vec<f32> = all.iter().map(|model| model[name].values()[k]).collect();
            let (least, most) = of.iter().fold((f32::MAX, f32::MIN), |(least, most), x| (least.min(*x), most.max(*x)));
            assert!(least - 1e-7 <= *value && *value <= most + 1e-7, "{name} {k}: {value} of {of:?}");
        }
    }
    for name in ["b", "c"] {
        std::fs::copy(models.path().join("fisher-a.safetensors"), models.path().join(format!("fisher-{name}.safetensors"))).unwrap();
    }
    let equal = models.merge(&recipe("fisher", "", [1.0; 3])).tensors;
    let mean = models.merge("{merge_method: average, models: [{model: ./a}, {model: ./b}, {model: ./c}]}").tensors;
    for (name, tensor) in &equal {
        for (one, other) in tensor.values().iter().zip(mean[name].values()) {
            assert!((one - other).abs() < 1e-6, "{name}: {one} {other}");
        }
    }
}

#[test]
fn a_regmean_layer_solves_the_normal_equations_and_everything_else_is_the_mean() {
    let (models, _, grams) = larger();
    let merged = models.merge(&recipe("regmean", "parameters: {reduce_non_diagonal: 0.9}, ", [1.0; 3])).tensors;
    let mean = models.merge("{merge_method: average, models: [{model: ./a}, {model: ./b}, {model: ./c}]}").tensors;
    assert_eq!(merged["model.embed_tokens.weight"], mean["model.embed_tokens.weight"]);
    let all: Vec<Vec<f32>> =
        ["a", "b", "c"].iter().map(|name| checkpoints::read(&models.path().join(name).join("model.safetensors"))[LAYER].values()).collect();
    let out = merged[LAYER].values();
    // sum_i G_i (w - w_i) = 0 for every row w, relative to the size of its terms.
    for row in 0..150 {
        for i in 0..70 {
            let (mut sum, mut size) = (0.0, 0.0);
            for (gram, weights) in grams.iter().zip(&all) {
                let gram = gram[LAYER].values();
                for j in 0..70 {
                    let factor = f64::from(gram[i * 70 + j]) * if i == j { 1.0 } else { 0.9 };
                    sum += factor * (f64::from(out[row * 70 + j]) - f64::from(weights[row * 70 + j]));
                    size += (factor * f64::from(weights[row * 70 + j])).abs();
                }
            }
            assert!(sum.abs() < 1e-6 * size, "row {row}, column {i}: {sum} of {size}");
        }
    }
}

#[test]
fn layers_whose_inputs_were_always_zero_are_solved_with_a_word_about_it() {
    let (models, ..) = larger();
    for name in ["a", "b", "c"] {
        let mut gram = vec![0.0; 70 * 70];
        (0..30).for_each(|i| gram[i * 71] = 0.5);
        let gram = Model::from([(LAYER.to_owned(), Tensor::f32(&[70, 70], &gram))]);
        write(&models.path().join(format!("gram-{name}.safetensors")), &gram);
    }
    let merged = models.merge(&recipe("regmean", "", [1.0; 3]));
    assert!(merged.tensors[LAYER].values().iter().all(|x| x.is_finite()));
    assert!(merged.remarks.iter().any(|remark| remark.contains(LAYER) && remark.contains("not positive definite")), "{:?}", merged.remarks);
}

#[test]
fn statistics_that_do_not_fit_are_errors_that_name_file_and_tensor() {
    let (models, fishers, _) = larger();
    let error = |text: &str| models.plan(text).map(|_| ()).unwrap_err().to_string();
    let path = models.path().join("fisher-b.safetensors");
    let mut without = fishers[1].clone();
    without.remove(LAYER);
    write(&path, &without);
    let message = error(&recipe("fisher", "", [1.0; 3]));
    assert!(message.contains("fisher-b.safetensors") && message.contains(LAYER) && message.contains("deltaic fisher"), "{message}");
    without.insert(LAYER.to_owned(), Tensor::f32(&[70], &[0.0; 70]));
    write(&path, &without);
    let message = error(&recipe("fisher", "", [1.0; 3]));
    assert!(message.contains("[70]") && message.contains("[150, 70]"), "{message}");
    std::fs::remove_file(&path).unwrap();
    assert!(error(&recipe("fisher", "", [1.0; 3])).contains("fisher-b.safetensors"));
    let message = error(&recipe("fisher", "", [1.0, -1.0, 1.0]));
    assert!(message.contains("fisher-b"), "{message}");
    write(&models.path().join("gram-c.safetensors"), &Model::new());
    let message = error(&recipe("regmean", "", [1.0; 3]));
    assert!(message.contains("2 of 3 models have a Gram matrix"), "{message}");
    let message = error("{merge_method: regmean, models: [{model: ./a}, {model: ./b, statistics: gram-b.safetensors}]}");
    assert!(message.contains("regmean needs to know the data of this model") && message.contains("deltaic gram"), "{message}");
    let message = error("{merge_method: fisher, models: [{model: ./a}], data: {inputs: ids.safetensors}}");
    assert!(message.contains("not made yet"), "{message}");
}
