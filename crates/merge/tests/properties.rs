//! What merging keeps whatever the numbers are: identities bit for bit, symmetry, linearity, masks and their names, copies, counts.

mod checkpoints;
mod twin;

use checkpoints::{LLAMA, Model, Models, Random, SHAPES, Tensor, family};
use twin::keeps;

const SMALL: [(&str, &[usize]); 3] =
    [("model.embed_tokens.weight", &[37, 29]), ("model.layers.0.mlp.up_proj.weight", &[67, 1031]), ("model.norm.weight", &[29])];

fn models(config: &str, of: &[Model; 4]) -> Models {
    let [base, a, b, c] = of;
    Models::new(config, &[("base", base), ("a", a), ("b", b), ("c", c)])
}

/// One tensor alone as a model.
fn alone(name: &str, tensor: Tensor) -> Model {
    Model::from([(name.to_owned(), tensor)])
}

#[track_caller]
fn assert_close(one: &Model, other: &Model, what: &str) {
    assert!(one.keys().eq(other.keys()), "{what}");
    for (name, tensor) in one {
        for (i, (x, y)) in tensor.values().into_iter().zip(other[name].values()).enumerate() {
            assert!((x - y).abs() <= 4e-7 + 2e-6 * x.abs(), "{what}: {name}[{i}]: {x} and {y}");
        }
    }
}

#[test]
fn the_order_of_the_models_changes_results_only_within_rounding() {
    let models = models(LLAMA, &family(&SMALL, "F32"));
    for (method, own, shared) in [
        ("average", "", ""),
        ("linear", "parameters: {weight: W}", ""),
        ("task_arithmetic", "parameters: {weight: W}", "parameters: {lambda: 0.7}"),
        ("ties", "parameters: {weight: W, density: 0.4}", ""),
        ("dare_linear", "parameters: {weight: W, density: 0.4}, seed: S", ""),
        ("dare_ties", "parameters: {weight: W, density: 0.4}, seed: S", ""),
        ("model_stock", "", ""),
        ("model_stock", "seed: S", "sparsify: {kind: dare, drop_rate: 0.5}"),
        ("ties", "parameters: {weight: W}, seed: S", "sparsify: {kind: dare, drop_rate: 0.5}"),
        ("ties", "", "preset: paper"),
        ("ties", "seed: S", "preset: paper\nsparsify: {kind: dare, drop_rate: 0.5}"),
        ("average", "seed: S", "sparsify: {kind: dare, drop_rate: 0.9}"),
    ] {
        let merged = |order: [usize; 3]| {
            let list: Vec<_> = order
                .iter()
                .map(|i| {
                    let own = own.replace('W', ["0.5", "0.25", "1"][*i]).replace('S', ["11", "12", "13"][*i]);
                    format!("{{model: ./{}, {own}}}", ["a", "b", "c"][*i])
                })
                .collect();
            // To linear a base is one more input, with a weight of its own.
            let base_model = if method == "linear" { "" } else { "base_model: ./base\n" };
            models.merge(&format!("merge_method: {method}\n{base_model}models: [{}]\n{shared}\n", list.join(", "))).tensors
        };
        let first = merged([0, 1, 2]);
        for order in [[2, 1, 0], [1, 2, 0]] {
            assert_close(&first, &merged(order), &format!("{method} {shared} in the order {order:?}"));
        }
    }
}

#[test]
fn task_arithmetic_is_linear_in_lambda() {
    let of = family(&SMALL, "F32");
    let models = models(LLAMA, &of);
    let update = |lambda: f64| {
        let recipe = format!(
            "{{merge_method: task_arithmetic, base_model: ./base, models: [{{model: ./a, parameters: {{weight: 0.6}}}}, {{model: ./b, parameters: {{weight: -0.3}}}}], parameters: {{lambda: {lambda}}}}}"
        );
        let merged = models.merge(&recipe).tensors;
        merged.iter().flat_map(|(name, tensor)| twin::delta(&tensor.values(), &of[0][name].values())).collect::<Vec<f64>>()
    };
    let one = update(1.0);
    for lambda in [-1.0, 0.0, 0.3, 2.5] {
        for (scaled, one) in update(lambda).iter().zip(&one) {
            assert!((scaled - lambda * one).abs() < 1e-6, "lambda {lambda}: {scaled}, expected {}", lambda * one);
        }
    }
}

/// Bit patterns that arithmetic would change: NaNs with payloads, quiet and signalling, infinities, both zeros, subnormals.
const HARD_BITS: [u32; 10] =
    [0x7fc1_2345, 0xffc5_4321, 0x7f81_2345, 0xff80_0001, 0x7f80_0000, 0xff80_0000, 0x8000_0000, 0x0000_0000, 0x0000_0001, 0x8000_0003];

/// A base and two fine-tunes with these among their elements, at different places.
fn hard_models() -> [Model; 3] {
    let mut random = Random(3);
    [0, 1, 2].map(|shift| {
        let value = |i: usize| match (i + shift) % 3 {
            0 => f32::from_bits(HARD_BITS[i % HARD_BITS.len()]),
            _ => random.uniform(),
        };
        alone("model.norm.weight", Tensor::f32(&[997], &(0..997).map(value).collect::<Vec<f32>>()))
    })
}

#[test]
fn identities_are_copies_bit_for_bit() {
    let [base, a, b] = &hard_models();
    let models = Models::new(LLAMA, &[("base", base), ("a", a), ("b", b)]);
    let mut different = Vec::new();
    for (expected, recipe) in [
        (a, "merge_method: average\nmodels: [{model: ./a}]"),
        (a, "merge_method: average\nmodels: [{model: ./a, parameters: {weight: 0.3}}, {model: ./b, parameters: {weight: 0}}]"),
        (a, "merge_method: average\nmodels: [{model: ./a}]\nsparsify: {kind: dare, drop_rate: 0}"),
        (a, "merge_method: average\nmodels: [{model: ./a}]\nsparsify: {kind: magnitude, density: 1}"),
        (a, "merge_method: average\nmodels: [{model: ./a}]\nsparsify: {kind: dare, drop_rate: 0, of: weights}"),
        (a, "merge_method: linear\nmodels: [{model: ./a, parameters: {weight: 3}}]"),
        (
            a,
            "merge_method: linear\nmodels: [{model: ./a, parameters: {weight: 1}}, {model: ./b, parameters: {weight: 0}}]\nparameters: {normalize: false}",
        ),
        (a, "merge_method: task_arithmetic\nmodels: [{model: ./a, parameters: {weight: 1}}]"),
        (a, "merge_method: task_arithmetic\nmodels: [{model: ./a, parameters: {weight: 0.4}}]\nparameters: {normalize: true}"),
        (a, "merge_method: task_arithmetic\nmodels: [{model: ./a, parameters: {weight: 1}}, {model: ./b, parameters: {weight: 0}}]"),
        (a, "merge_method: task_arithmetic\nmodels: [{model: ./a, parameters: {weight: 1}}]\nsparsify: {kind: dare, drop_rate: 0}"),
        (a, "merge_method: ties\nmodels: [{model: ./a, parameters: {weight: 0.4}}]"),
        (a, "merge_method: dare_linear\nmodels: [{model: ./a, parameters: {weight: 1, density: 1}}]"),
        (a, "merge_method: dare_ties\nmodels: [{model: ./a, parameters: {weight: 1, density: 1}}]"),
        (a, "merge_method: passthrough\nmodels: [{model: ./a}]"),
        (a, "merge_method: passthrough\nmodels: [{model: ./a, parameters: {scale: 1}}]"),
        (a, "preset: paper\nmerge_method: task_arithmetic\nmodels: [{model: ./a}]"),
        (base, "merge_method: task_arithmetic\nmodels: [{model: ./a, parameters: {weight: 1}}]\nparameters: {lambda: 0}"),
        (base, "merge_method: ties\nmodels: [{model: ./a, parameters: {weight: 1, density: 0.5}}]\nparameters: {lambda: 0}"),
        (base, "merge_method: task_arithmetic\nmodels: [{model: ./a, parameters: {weight: 0}}]"),
        (base, "merge_method: dare_ties\nmodels: [{model: ./base}]"),
        (base, "merge_method: slerp\nmodels: [{model: ./base}, {model: ./a}]\nparameters: {t: 0}"),
        (a, "merge_method: slerp\nmodels: [{model: ./base}, {model: ./a}]\nparameters: {t: 1}"),
        (base, "merge_method: average\nmodels: [{model: ./a}]\nsparsify: {kind: dare, drop_rate: 1}"),
        (base, "merge_method: average\nmodels: [{model: ./a}]\nsparsify: {kind: magnitude, drop_rate: 1}"),
        (
            base,
            "merge_method: task_arithmetic\nmodels: [{model: ./a, parameters: {weight: 1}}, {model: ./b, parameters: {weight: 1}}]\nsparsify: {kind: dare, drop_rate: 1}",
        ),
        (
            base,
            "merge_method: ties\nmodels: [{model: ./a, parameters: {weight: 1}}, {model: ./b, parameters: {weight: 1}}]\nsparsify: {kind: dare, drop_rate: 1}",
        ),
        (base, "merge_method: passthrough\nmodels: [{model: ./a}]\nsparsify: {kind: dare, drop_rate: 1}"),
    ] {
        // To linear a base is one more input, with a weight of its own.
        let base_model = if recipe.contains(": linear") { "" } else { "base_model: ./base\n" };
        if &models.merge(&format!("{base_model}{recipe}\n")).tensors != expected {
            different.push(recipe);
        }
    }
    assert!(different.is_empty(), "no copies: {different:#?}");
}

#[test]
fn where_all_deltas_are_dropped_the_result_is_the_base() {
    let base: Vec<f32> = [-0.0, 0.0, 1.5, -2.0, f32::MIN_POSITIVE].into_iter().cycle().take(333).collect();
    let mut random = Random(8);
    let [a, b] =
        [0, 1].map(|_| alone("model.norm.weight", Tensor::f32(&[333], &base.iter().map(|x| x + random.uniform()).collect::<Vec<_>>())));
    let base = alone("model.norm.weight", Tensor::f32(&[333], &base));
    let models = Models::new(LLAMA, &[("base", &base), ("a", &a), ("b", &b)]);
    let mut different = Vec::new();
    // Where the methods drop by themselves, and in the paper's ties, no tensor is a copy: base + 0 loses the sign of a zero.
    for (with_signs_of_zeros, recipe) in [
        (
            true,
            "merge_method: average\nmodels: [{model: ./a}, {model: ./b, parameters: {weight: 0.3}}]\nsparsify: {kind: dare, drop_rate: 1}",
        ),
        (
            true,
            "merge_method: linear\nmodels: [{model: ./base}, {model: ./a}, {model: ./b}]\nparameters: {weight: 0.3}\nsparsify: {kind: dare, drop_rate: 1}",
        ),
        (true, "merge_method: slerp\nmodels: [{model: ./base}, {model: ./a}]\nparameters: {t: 0.3}\nsparsify: {kind: dare, drop_rate: 1}"),
        (true, "merge_method: model_stock\nmodels: [{model: ./a}, {model: ./b}]\nsparsify: {kind: dare, drop_rate: 1}"),
        (false, "preset: paper\nmerge_method: ties\nmodels: [{model: ./a}, {model: ./b}]\nsparsify: {kind: dare, drop_rate: 1}"),
        (false, "merge_method: dare_linear\nmodels: [{model: ./a, parameters: {weight: 1, density: 0}}]"),
        (false, "merge_method: dare_ties\nmodels: [{model: ./a, parameters: {weight: 1, density: 0}}]"),
        (false, "merge_method: ties\nmodels: [{model: ./a, parameters: {weight: 1, density: 0}}]"),
    ] {
        let merged = models.merge(&format!("base_model: ./base\n{recipe}\n")).tensors;
        let pairs = || merged["model.norm.weight"].values().into_iter().zip(base["model.norm.weight"].values());
        let bits = pairs().filter(|(got, expected)| got.to_bits() != expected.to_bits()).count();
        let values = pairs().filter(|(got, expected)| got != expected).count();
        if values > 0 || with_signs_of_zeros && bits > 0 {
            different.push(format!("{values} of 333 elements in value, {bits} in bits: {recipe}"));
        }
    }
    assert!(different.is_empty(), "elements differ from the base's: {different:#?}");
}

#[test]
fn masks_drop_the_share_that_they_are_told_within_binomial_bounds() {
    let of = family(&SHAPES, "F32");
    let models = models(LLAMA, &of);
    let mut largest = 0.0_f64;
    for rate in [0.1, 0.5, 0.9, 0.99] {
        let recipe = format!(
            "{{merge_method: average, base_model: ./base, models: [{{model: ./a}}], sparsify: {{kind: dare, drop_rate: {rate}}}, seed: 1}}"
        );
        for (name, tensor) in &models.merge(&recipe).tensors {
            let (base, model) = (of[0][name].values(), of[1][name].values());
            let changed: Vec<usize> = (0..base.len()).filter(|i| base[*i] != model[*i]).collect();
            let values = tensor.values();
            let dropped = changed.iter().filter(|i| values[**i] == base[**i]).count() as f64;
            let n = changed.len() as f64;
            // A handful of elements says nothing.
            if n * (1.0 - rate) > 5.0 && n * rate > 5.0 {
                largest = largest.max(((dropped - n * rate) / (n * rate * (1.0 - rate)).sqrt()).abs());
            }
        }
    }
    assert!(largest < 4.5, "largest |z| {largest}");
}

/// What of a tensor is kept, seen from the result: the elements that are not the base's.
fn kept(merged: &Tensor, base: &Tensor) -> Vec<bool> {
    merged.values().iter().zip(base.values()).map(|(got, base)| *got != base).collect()
}

fn ones_apart(shape: &[usize]) -> (Tensor, Tensor) {
    let count = shape.iter().product();
    (Tensor::f32(shape, &vec![0.5; count]), Tensor::f32(shape, &vec![1.5; count]))
}

#[test]
fn a_bare_bert_base_is_aligned_and_the_mask_goes_by_the_fine_tunes_names() {
    let config = |architecture: &str| format!(r#"{{"architectures": ["{architecture}"], "model_type": "bert", "num_hidden_layers": 1}}"#);
    let names = ["embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.weight", "pooler.dense.bias"];
    let (base_tensor, changed) = ones_apart(&[23, 31]);
    let base: Model = names.iter().map(|name| ((*name).to_owned(), base_tensor.clone())).collect();
    let mut fine_tune: Model = names.iter().map(|name| (format!("bert.{name}"), changed.clone())).collect();
    fine_tune.insert("classifier.weight".to_owned(), Tensor::f32(&[2], &[1.0, 2.0]));
    let models = Models::new(&config("BertModel"), &[("base", &base)]);
    models.add("a", &config("BertForSequenceClassification"), &fine_tune);
    let recipe = "{merge_method: task_arithmetic, base_model: ./base, models: [{model: ./a, parameters: {weight: 1}}], sparsify: {kind: dare, drop_rate: 0.5}, seed: 9, exclude: ['classifier.*']}";
    let merged = models.merge(recipe).tensors;
    assert_eq!(merged.len(), names.len(), "{:?}", merged.keys());
    for name in names {
        let name = format!("bert.{name}");
        assert!(kept(&merged[&name], &base_tensor) == keeps(9, 0, &name, 0.5, 23 * 31), "{name}");
    }
}

#[test]
fn under_slices_a_mask_goes_by_the_sources_layer() {
    let (base_tensor, changed) = ones_apart(&[641]);
    let layer = |number: usize| format!("model.layers.{number}.mlp.up_proj.weight");
    let of = |tensor: &Tensor| -> Model { (0..2).map(|number| (layer(number), tensor.clone())).collect() };
    let models = Models::new(LLAMA, &[("base", &of(&base_tensor)), ("a", &of(&changed))]);
    let slice = |layer: usize| {
        format!(
            "{{sources: [{{model: ./base, layer_range: [{layer}, {end}]}}, {{model: ./a, layer_range: [{layer}, {end}], parameters: {{weight: 1}}}}]}}",
            end = layer + 1
        )
    };
    let recipe = format!(
        "merge_method: task_arithmetic\nbase_model: ./base\nslices: [{}, {}, {}]\nsparsify: {{kind: dare, drop_rate: 0.5}}\nseed: 9\n",
        slice(1),
        slice(0),
        slice(1)
    );
    let merged = models.merge(&recipe).tensors;
    for (out, source) in [(0, 1), (1, 0), (2, 1)] {
        assert!(kept(&merged[&layer(out)], &base_tensor) == keeps(9, 0, &layer(source), 0.5, 641), "layer {out}");
    }
}

#[test]
fn a_tied_head_gets_the_embeddings_mask_and_a_head_of_its_own_another() {
    let (base_tensor, changed) = ones_apart(&[43, 17]);
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
    let with = |tensor: &Tensor, head_too: bool| {
        let names = [embedding].into_iter().chain(head_too.then_some(head));
        names.map(|name| (name.to_owned(), tensor.clone())).collect::<Model>()
    };
    let recipe = "{merge_method: task_arithmetic, base_model: ./base, models: [{model: ./a, parameters: {weight: 1}}], sparsify: {kind: dare, drop_rate: 0.5}, seed: 9}";
    for (tied, base_has_it, by) in [(true, false, embedding), (true, true, embedding), (false, true, head)] {
        let config = LLAMA.replace('}', &format!(", \"tie_word_embeddings\": {tied}}}"));
        let models = Models::new(&config, &[("base", &with(&base_tensor, base_has_it)), ("a", &with(&changed, true))]);
        let merged = models.merge(recipe).tensors;
        assert!(kept(&merged[embedding], &base_tensor) == keeps(9, 0, embedding, 0.5, 43 * 17));
        assert!(kept(&merged[head], &base_tensor) == keeps(9, 0, by, 0.5, 43 * 17), "tied {tied}, the base has a head: {base_has_it}");
    }
}

#[test]
fn a_models_mask_is_that_of_its_seed_or_of_the_recipes_seed_and_its_place() {
    let (base_tensor, changed) = ones_apart(&[2, 1031]);
    let name = "model.layers.1.mlp.up_proj.weight";
    let (base, model) = (alone(name, base_tensor.clone()), alone(name, changed));
    let models = Models::new(LLAMA, &[("base", &base), ("a", &model), ("z", &base)]);
    for (list, seed, stream) in [
        ("{model: ./a, parameters: {weight: 1}}, {model: ./z, parameters: {weight: 1}}", 5, 0),
        ("{model: ./z, parameters: {weight: 1}}, {model: ./a, parameters: {weight: 1}}", 5, 1),
        ("{model: ./base}, {model: ./z, parameters: {weight: 1}}, {model: ./a, parameters: {weight: 1}}", 5, 1),
        ("{model: ./z, parameters: {weight: 1}}, {model: ./a, seed: 77, parameters: {weight: 1}}", 77, u64::MAX),
    ] {
        let recipe = format!(
            "{{merge_method: task_arithmetic, base_model: ./base, models: [{list}], sparsify: {{kind: dare, drop_rate: 0.5}}, seed: 5}}"
        );
        assert!(kept(&models.merge(&recipe).tensors[name], &base_tensor) == keeps(seed, stream, name, 0.5, 2 * 1031), "{list}");
    }
}

#[test]
fn integers_and_rotary_buffers_are_the_bases_and_differences_are_warned_of() {
    let of = |shift: i64| {
        let weights = Tensor::f32(&[3], &[1.0, 2.0, 3.0 + shift as f32]);
        let inverse = Tensor::f32(&[2], &[1.0, 0.1 + shift as f32]);
        Model::from([
            ("model.position_ids".to_owned(), Tensor::i64(&[0, 1, i64::MAX - shift])),
            ("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), inverse),
            ("model.norm.weight".to_owned(), weights),
        ])
    };
    let models = Models::new(LLAMA, &[("base", &of(0)), ("a", &of(1)), ("b", &of(2))]);
    for (recipe, from) in [
        (
            "{merge_method: task_arithmetic, base_model: ./base, models: [{model: ./a, parameters: {weight: 1}}], sparsify: {kind: dare, drop_rate: 0.5}, out_dtype: bfloat16}",
            0,
        ),
        ("{merge_method: average, models: [{model: ./b}, {model: ./a}]}", 2),
    ] {
        let merged = models.merge(recipe);
        for name in ["model.position_ids", "model.layers.0.self_attn.rotary_emb.inv_freq"] {
            assert!(merged.tensors[name] == of(from)[name], "{recipe}: {name}");
            assert!(merged.warnings.iter().any(|warning| warning.contains(name)), "{recipe}: {:?}", merged.warnings);
        }
    }
}

#[test]
fn nan_and_infinity_pass_through_and_are_counted_by_tensor() {
    let count = (1 << 20) + 77;
    let hard = [(0, f32::NAN), (5, f32::INFINITY), (65_536, f32::NEG_INFINITY), (count - 1, f32::NAN)];
    let (base, mut a) = (vec![1.0_f32; count], vec![2.0_f32; count]);
    hard.iter().for_each(|(i, value)| a[*i] = *value);
    let of = |values: &[f32]| {
        Model::from([
            ("model.embed_tokens.weight".to_owned(), Tensor::f32(&[count], values)),
            ("model.norm.weight".to_owned(), Tensor::f32(&[2], &[1.0, 2.0])),
        ])
    };
    let models = Models::new(LLAMA, &[("base", &of(&base)), ("a", &of(&a)), ("b", &of(&base))]);
    for recipe in [
        "{merge_method: average, models: [{model: ./a}, {model: ./b}]}",
        "{merge_method: task_arithmetic, base_model: ./base, models: [{model: ./a, parameters: {weight: 1}}, {model: ./b, parameters: {weight: 1}}]}",
        "{merge_method: passthrough, models: [{model: ./a}]}",
        "{merge_method: passthrough, models: [{model: ./a}], out_dtype: bfloat16}",
        "{merge_method: passthrough, models: [{model: ./a, parameters: {scale: 2}}], out_dtype: float16}",
    ] {
        let merged = models.merge(recipe);
        assert_eq!(merged.non_finite, [("model.embed_tokens.weight".to_owned(), 4)], "{recipe}");
        if !recipe.contains("float16") {
            let values = merged.tensors["model.embed_tokens.weight"].values();
            for (i, value) in hard {
                assert!(values[i] == value || value.is_nan() && values[i].is_nan(), "{recipe}: element {i} is {}", values[i]);
            }
        }
    }
    // What is dropped is gone, whatever it was.
    let all_dropped =
        "{merge_method: average, base_model: ./base, models: [{model: ./a}, {model: ./b}], sparsify: {kind: dare, drop_rate: 1}}";
    assert_eq!(models.merge(all_dropped).non_finite, []);
}
