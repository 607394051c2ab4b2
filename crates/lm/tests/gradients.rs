//! Gradients against finite differences, parameter by parameter.

mod tiny;

use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor, Var};
use deltaic_lm::{Decoder, DecoderBatch, Encoder, EncoderBatch, EncoderInput, Mode, Pass};
use serde_json::json;
use tiny::Random;

/// Mean cross-entropy.
fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Tensor {
    let labels = Tensor::from_slice(labels, (labels.len(), 1), &Device::Cpu).unwrap();
    candle_nn::ops::log_softmax(logits, D::Minus1).unwrap().gather(&labels, 1).unwrap().mean_all().unwrap().neg().unwrap()
}

/// Compares `<gradient, direction>` with `(loss(w + h d) - loss(w - h d)) / 2h`, for each parameter along its gradient (finds what is
/// wrong in size) and along a random direction (finds what is missing). Steps and tolerance are those of f32.
fn check(parameters: &BTreeMap<String, Var>, loss: &dyn Fn() -> Tensor) {
    const STEP: f64 = 4e-3;
    let gradients = loss().backward().unwrap();
    let value = || f64::from(loss().to_scalar::<f32>().unwrap());
    let of = |variable: &Var| gradients.get(variable.as_tensor()).cloned().unwrap_or_else(|| variable.zeros_like().unwrap());
    let length = |tensor: &Tensor| f64::from(tensor.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap());
    let largest = parameters.values().map(|variable| length(&of(variable))).fold(0.0, f64::max);
    let mut random = Random(11);
    for (name, variable) in parameters {
        let gradient = of(variable);
        let noise: Vec<f32> = (0..variable.elem_count()).map(|_| random.next()).collect();
        let noise = Tensor::from_vec(noise, variable.shape(), &Device::Cpu).unwrap();
        for direction in [gradient.clone(), noise] {
            let size = length(&direction);
            if size == 0.0 {
                continue;
            }
            let direction = (direction / size).unwrap();
            let start = variable.as_tensor().copy().unwrap();
            let moved = |by: f64| {
                variable.set(&(&start + (&direction * by).unwrap()).unwrap()).unwrap();
                value()
            };
            let numeric = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            variable.set(&start).unwrap();
            let analytic = f64::from((&gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
            let allowed = 0.01 * analytic.abs() + 2e-3 * largest;
            assert!((numeric - analytic).abs() <= allowed, "{name}: {analytic} by backward, {numeric} by differences");
        }
    }
}

#[test]
fn an_encoders_gradients_are_those_of_finite_differences() {
    let model = tiny::bert(3);
    let encoder = Encoder::load(&model.checkpoint, &model.checkpoint.config, Mode::Differentiable, &Device::Cpu).unwrap();
    let inputs = [
        EncoderInput { ids: vec![1, 5, 9, 2, 7, 3, 2], type_ids: vec![0, 0, 0, 0, 1, 1, 1] },
        EncoderInput { ids: vec![1, 30, 31, 2], type_ids: Vec::new() },
    ];
    let batch = EncoderBatch::padded(&inputs.iter().collect::<Vec<_>>(), encoder.pad_id());
    assert_eq!(encoder.parameters().len(), model.checkpoint.config.layer_count().unwrap() as usize * 16 + 9);
    check(encoder.parameters(), &|| cross_entropy(&encoder.classify(&batch, &mut Pass::new()).unwrap(), &[2, 0]));
}

#[test]
fn a_decoders_gradients_are_those_of_finite_differences_and_a_tied_embedding_sums_both_uses() {
    for tied in [false, true] {
        let model = tiny::llama(&json!({ "tie_word_embeddings": tied }));
        let decoder = Decoder::load(&model.checkpoint, &model.checkpoint.config, Mode::Differentiable, &Device::Cpu).unwrap();
        assert_eq!(decoder.parameters().contains_key("lm_head.weight"), !tied);
        let batch = DecoderBatch::left_padded(&[&[1, 5, 9, 2, 7, 3], &[1, 30, 31]]);
        check(decoder.parameters(), &|| {
            let mut pass = Pass::new();
            let hidden = decoder.forward(&batch, None, &mut pass).unwrap();
            let logits = decoder.logits(&hidden, &mut pass).unwrap().flatten(0, 1).unwrap();
            let attended = Tensor::new(&[0_u32, 1, 2, 3, 4, 9, 10], &Device::Cpu).unwrap();
            cross_entropy(&logits.index_select(&attended, 0).unwrap(), &[5, 9, 2, 7, 3, 30, 31])
        });
    }
}
