//! Every method and sparsifier against an f64 twin, over tensors that cross windows, blocks and rows, in f32 and in bf16 with its ties.

mod checkpoints;
mod twin;

use std::collections::BTreeMap;

use checkpoints::{LLAMA, Model, Models, SHAPES, family};
use twin::{
    consensus, delta, drop_smallest, keep_largest, keeps, model_stock, paper_ties, plus, scaled, select, slerp, weighted_sum, with_l1_of,
};

/// One tensor of base and models, and the formula's answer.
struct Given<'a> {
    name: &'a str,
    row: usize,
    base: &'a [f32],
    models: Vec<&'a [f32]>,
}

impl Given<'_> {
    fn deltas(&self) -> Vec<Vec<f64>> {
        self.models.iter().map(|model| delta(model, self.base)).collect()
    }

    fn weights(&self) -> Vec<Vec<f64>> {
        self.models.iter().map(|model| model.iter().map(|x| f64::from(*x)).collect()).collect()
    }

    fn keeps(&self, seed: u64, stream: u64, rate: f64) -> Vec<bool> {
        keeps(seed, stream, self.name, rate, self.base.len())
    }

    /// The models' deltas after DARE with the recipe's seed 5.
    fn dropped(&self, rates: &[f64], rescale: impl Fn(&[f64], Vec<f64>, f64) -> Vec<f64>) -> Vec<Vec<f64>> {
        let deltas = self.deltas().into_iter().zip(rates).enumerate();
        deltas.map(|(stream, (delta, rate))| rescale(&delta, select(&delta, &self.keeps(5, stream as u64, *rate)), *rate)).collect()
    }
}

fn inverse(_before: &[f64], kept: Vec<f64>, rate: f64) -> Vec<f64> {
    scaled(&kept, 1.0 / (1.0 - rate))
}

fn l1(before: &[f64], kept: Vec<f64>, rate: f64) -> Vec<f64> {
    if rate == 0.0 { kept } else { with_l1_of(before, &kept) }
}

/// A recipe over ./base, ./a, ./b and ./c, and what it makes of each tensor.
struct Case {
    name: &'static str,
    recipe: &'static str,
    twin: fn(&Given<'_>) -> Vec<f64>,
}

const CASES: &[Case] = &[
    Case {
        name: "average",
        recipe: "{merge_method: average, models: [{model: ./a}, {model: ./b, parameters: {weight: 2}}, {model: ./c}]}",
        twin: |given| weighted_sum(&given.weights(), &[1.0, 2.0, 1.0], 4.0),
    },
    Case {
        name: "linear",
        recipe: "{merge_method: linear, models: [{model: ./a, parameters: {weight: 0.3}}, {model: ./b, parameters: {weight: 0.9}}]}",
        twin: |given| weighted_sum(&given.weights()[..2], &[0.3, 0.9], 1.2),
    },
    Case {
        name: "linear, not normalised",
        recipe: "{merge_method: linear, models: [{model: ./a, parameters: {weight: 0.3}}, {model: ./b, parameters: {weight: 0.9}}], parameters: {normalize: false}}",
        twin: |given| weighted_sum(&given.weights()[..2], &[0.3, 0.9], 1.0),
    },
    Case {
        name: "task_arithmetic",
        recipe: "{merge_method: task_arithmetic, base_model: ./base, models: [{model: ./a, parameters: {weight: 0.6}}, {model: ./b, parameters: {weight: -0.4}}, {model: ./c, parameters: {weight: 1}}], parameters: {lambda: 0.7}}",
        twin: |given| plus(given.base, scaled(&weighted_sum(&given.deltas(), &[0.6, -0.4, 1.0], 1.0), 0.7)),
    },
    Case {
        name: "task_arithmetic, normalised",
        recipe: "{merge_method: task_arithmetic, base_model: ./base, models: [{model: ./a, parameters: {weight: 0.6}}, {model: ./b, parameters: {weight: 0.9}}], parameters: {normalize: true}}",
        twin: |given| plus(given.base, weighted_sum(&given.deltas()[..2], &[0.6, 0.9], 1.5)),
    },
    Case {
        name: "ties",
        recipe: "{merge_method: ties, base_model: ./base, models: [{model: ./a, parameters: {weight: 0.5, density: 0.3}}, {model: ./b, parameters: {weight: 0.5, density: 0.5}}, {model: ./c, parameters: {weight: 1, density: 0.8}}], parameters: {lambda: 0.9}}",
        twin: |given| {
            let deltas: Vec<_> = given.deltas().iter().zip([0.3, 0.5, 0.8]).map(|(delta, density)| keep_largest(delta, density)).collect();
            plus(given.base, scaled(&consensus(&deltas, &[0.5, 0.5, 1.0], true), 0.9))
        },
    },
    Case {
        name: "ties, rescaled, not normalised",
        recipe: "{merge_method: ties, base_model: ./base, models: [{model: ./a, parameters: {weight: 0.5, density: 0.3}}, {model: ./b, parameters: {weight: 0.75, density: 0.00001}}], parameters: {normalize: false, rescale: true}}",
        twin: |given| {
            let trimmed = given.deltas().into_iter().zip([0.3, 0.00001]);
            let deltas: Vec<_> = trimmed.map(|(delta, density)| with_l1_of(&delta, &keep_largest(&delta, density))).collect();
            plus(given.base, consensus(&deltas, &[0.5, 0.75], false))
        },
    },
    Case {
        name: "dare_linear",
        recipe: "{merge_method: dare_linear, base_model: ./base, models: [{model: ./a, parameters: {weight: 0.6, density: 0.3}}, {model: ./b, parameters: {weight: 0.5, density: 0.75}}, {model: ./c, parameters: {weight: 0.2, density: 1}}], seed: 5}",
        twin: |given| plus(given.base, weighted_sum(&given.dropped(&[0.7, 0.25, 0.0], l1), &[0.6, 0.5, 0.2], 1.0)),
    },
    Case {
        name: "dare_ties",
        recipe: "{merge_method: dare_ties, base_model: ./base, models: [{model: ./a, parameters: {weight: 0.5, density: 0.3}}, {model: ./b, parameters: {weight: 1, density: 0.75}}], parameters: {rescale: false}, seed: 5}",
        twin: |given| plus(given.base, consensus(&given.dropped(&[0.7, 0.25], |_, kept, _| kept), &[0.5, 1.0], false)),
    },
    Case {
        name: "dare_ties, rescaled and normalised",
        recipe: "{merge_method: dare_ties, base_model: ./base, models: [{model: ./a, parameters: {weight: 0.5, density: 0.3}}, {model: ./b, parameters: {weight: 1, density: 0.75}}], parameters: {normalize: true}, seed: 5}",
        twin: |given| plus(given.base, consensus(&given.dropped(&[0.7, 0.25], l1), &[0.5, 1.0], true)),
    },
    Case {
        name: "slerp",
        recipe: "{merge_method: slerp, base_model: ./b, models: [{model: ./a}, {model: ./b}], parameters: {t: 0.3}}",
        twin: |given| slerp(&given.weights()[1], &given.weights()[0], 0.3),
    },
    Case {
        name: "passthrough, scaled",
        recipe: "{merge_method: passthrough, models: [{model: ./a, parameters: {scale: -0.7}}]}",
        twin: |given| scaled(&given.weights()[0], -0.7),
    },
    Case {
        name: "model_stock",
        recipe: "{merge_method: model_stock, base_model: ./base, models: [{model: ./a}, {model: ./b}, {model: ./c}]}",
        twin: |given| plus(given.base, model_stock(&given.deltas().iter().map(Vec::as_slice).collect::<Vec<_>>())),
    },
    Case {
        name: "model_stock by rows",
        recipe: "{merge_method: model_stock, base_model: ./base, models: [{model: ./a}, {model: ./b}], parameters: {filter_wise: true}}",
        twin: |given| {
            let deltas = given.deltas();
            let rows = (0..given.base.len() / given.row).map(|row| row * given.row..(row + 1) * given.row);
            plus(given.base, rows.flat_map(|row| model_stock(&[&deltas[0][row.clone()], &deltas[1][row]])))
        },
    },
    Case {
        name: "dare before average",
        recipe: "{merge_method: average, base_model: ./base, models: [{model: ./a}, {model: ./b}, {model: ./c}], sparsify: {kind: dare, drop_rate: 0.9}, seed: 5}",
        twin: |given| plus(given.base, weighted_sum(&given.dropped(&[0.9; 3], inverse), &[1.0; 3], 3.0)),
    },
    Case {
        name: "dare with l1 for one model, nothing for the other",
        recipe: "{merge_method: task_arithmetic, base_model: ./base, models: [{model: ./a, parameters: {weight: 1}, sparsify: {kind: dare, density: 0.25, rescale: l1}}, {model: ./b, parameters: {weight: 0.5}}], seed: 5}",
        twin: |given| plus(given.base, weighted_sum(&given.dropped(&[0.75, 0.0], l1), &[1.0, 0.5], 1.0)),
    },
    Case {
        name: "dare before ties",
        recipe: "{merge_method: ties, base_model: ./base, models: [{model: ./a, parameters: {weight: 1, density: 0.2}}, {model: ./b, parameters: {weight: 0.5, density: 0.3}}], sparsify: {kind: dare, drop_rate: 0.5, rescale: none}, seed: 5}",
        twin: |given| {
            let dropped = given.dropped(&[0.5; 2], |_, kept, _| kept).into_iter().zip([0.2, 0.3]);
            let deltas: Vec<_> = dropped.map(|(delta, density)| keep_largest(&delta, density)).collect();
            plus(given.base, consensus(&deltas, &[1.0, 0.5], true))
        },
    },
    Case {
        name: "dare of weights",
        recipe: "{merge_method: average, base_model: ./base, models: [{model: ./a}, {model: ./b}], sparsify: {kind: dare, drop_rate: 0.25, of: weights}, seed: 5}",
        twin: |given| {
            let weights = given.weights();
            let kept = |i: usize| scaled(&select(&weights[i], &given.keeps(5, i as u64, 0.25)), 1.0 / 0.75);
            weighted_sum(&[kept(0), kept(1)], &[1.0, 1.0], 2.0)
        },
    },
    Case {
        name: "magnitude",
        recipe: "{merge_method: average, base_model: ./base, models: [{model: ./a}, {model: ./b}], sparsify: {kind: magnitude, drop_rate: 0.8}}",
        twin: |given| {
            let kept: Vec<_> = given.deltas()[..2].iter().map(|delta| scaled(&drop_smallest(delta, 0.8), 1.0 / (1.0 - 0.8))).collect();
            plus(given.base, weighted_sum(&kept, &[1.0, 1.0], 2.0))
        },
    },
    Case {
        name: "magnitude with l1 before rows of model_stock",
        recipe: "{merge_method: model_stock, base_model: ./base, models: [{model: ./a}, {model: ./b}], parameters: {filter_wise: true}, sparsify: {kind: magnitude, drop_rate: 0.5, rescale: l1}}",
        twin: |given| {
            let deltas: Vec<_> = given.deltas()[..2].iter().map(|delta| with_l1_of(delta, &drop_smallest(delta, 0.5))).collect();
            let rows = (0..given.base.len() / given.row).map(|row| row * given.row..(row + 1) * given.row);
            plus(given.base, rows.flat_map(|row| model_stock(&[&deltas[0][row.clone()], &deltas[1][row]])))
        },
    },
];

fn expected(family: &[Model; 4], twin: impl Fn(&Given<'_>) -> Vec<f64>) -> BTreeMap<String, Vec<f64>> {
    let tensor = |(name, base): (&String, &checkpoints::Tensor)| {
        let models: Vec<Vec<f32>> = family[1..].iter().map(|model| model[name].values()).collect();
        let row = base.shape.last().copied().unwrap();
        let given = Given { name, row, base: &base.values(), models: models.iter().map(Vec::as_slice).collect() };
        (name.clone(), twin(&given))
    };
    family[0].iter().filter(|(_, tensor)| !tensor.bytes.is_empty()).map(tensor).collect()
}

/// Each element within rounding of the twin's; those that the twin does not know are few.
fn compare(case: &str, merged: &Model, expected: &BTreeMap<String, Vec<f64>>) {
    let (mut unknown, mut elements) = (0, 0);
    for (name, expected) in expected {
        let values = merged[name].values();
        assert_eq!(values.len(), expected.len(), "{case}: {name}");
        for (i, (got, expected)) in values.into_iter().zip(expected).enumerate() {
            elements += 1;
            unknown += usize::from(expected.is_nan());
            // The single element of a tensor under a trim may carry all of its l1 norm: errors are relative to sizes up to 100.
            let error = (f64::from(got) - expected).abs();
            assert!(expected.is_nan() || error <= 4e-7 + 2e-6 * expected.abs(), "{case}: {name}[{i}]: {got}, expected {expected}");
        }
    }
    assert!(unknown * 1000 <= elements, "{case}: {unknown} of {elements} cancel to within rounding");
}

fn against_the_twins(dtype: &str) {
    let family = family(&SHAPES, dtype);
    let [base, a, b, c] = &family;
    let models = Models::new(LLAMA, &[("base", base), ("a", a), ("b", b), ("c", c)]);
    for case in CASES {
        let merged = models.merge(&case.recipe.replacen('{', "{out_dtype: float32, ", 1)).tensors;
        assert!(merged.len() == SHAPES.len(), "{}", case.name);
        compare(case.name, &merged, &expected(&family, case.twin));
    }
    for (name, mask_rate) in [("paper's ties, 0.8", 0.8), ("paper's ties, 0.35", 0.35), ("paper's ties, nothing trimmed", 0.0)] {
        let recipe = format!(
            "{{preset: paper, merge_method: ties, base_model: ./base, models: [{{model: ./a}}, {{model: ./b, parameters: {{weight: 0.5}}}}, {{model: ./c}}], parameters: {{mask_rate: {mask_rate}, lambda: 0.6}}, out_dtype: float32}}"
        );
        let tensors: Vec<_> = base.keys().filter(|name| !base[*name].bytes.is_empty()).collect();
        let deltas: Vec<Vec<Vec<f64>>> = tensors
            .iter()
            .map(|name| family[1..].iter().map(|model| delta(&model[*name].values(), &base[*name].values())).collect())
            .collect();
        let merged = paper_ties(&deltas, &[1.0, 0.5, 1.0], mask_rate);
        let expected =
            tensors.iter().zip(merged).map(|(name, merged)| ((*name).clone(), plus(&base[*name].values(), scaled(&merged, 0.6))));
        compare(name, &models.merge(&recipe).tensors, &expected.collect());
    }
}

#[test]
fn every_method_gives_what_its_f64_twin_gives_on_f32_models() {
    against_the_twins("F32");
}

#[test]
fn every_method_gives_what_its_f64_twin_gives_on_bf16_models_with_their_ties() {
    against_the_twins("BF16");
}
