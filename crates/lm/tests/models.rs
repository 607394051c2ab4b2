//! What models report, refuse, and give in batches.

mod tiny;

use std::path::Path;

use candle_core::{Device, Tensor};
use deltaic_checkpoint::{Checkpoint, Config, Result};
use deltaic_lm::{
    Decoder, DecoderBatch, Encoder, EncoderBatch, EncoderInput, GenerationRequest, HeadFrom, Mode, Observer, Pass, Scored, StopReason,
};
use serde_json::{Value, json};

#[derive(Default)]
struct Seen(Vec<(String, Vec<usize>)>);

impl Observer for Seen {
    fn linear_input(&mut self, name: &str, input: &Tensor) -> Result<()> {
        self.0.push((name.to_owned(), input.dims().to_vec()));
        Ok(())
    }
}

fn encoder(model: &tiny::Tiny) -> Encoder {
    Encoder::load(&model.checkpoint, &model.checkpoint.config, Mode::Inference, &Device::Cpu).unwrap()
}

fn decoder(model: &tiny::Tiny) -> Decoder {
    Decoder::load(&model.checkpoint, &model.checkpoint.config, Mode::Inference, &Device::Cpu).unwrap()
}

fn input(ids: &[u32]) -> EncoderInput {
    EncoderInput { ids: ids.to_vec(), type_ids: Vec::new() }
}

/// Names (without the prefix) and input shapes of all matrices of a model but its embeddings: the linear layers.
fn linear_layers(checkpoint: &Checkpoint, prefix: &str, leading: &dyn Fn(&str) -> Vec<usize>) -> Vec<(String, Vec<usize>)> {
    use deltaic_checkpoint::TensorSource;
    let matrices = checkpoint.tensors().values().filter(|info| info.shape.len() == 2 && !info.name.contains("embed"));
    let layer = |name: &str| name.strip_prefix(prefix).unwrap_or(name).strip_suffix(".weight").unwrap().to_owned();
    let mut layers: Vec<_> = matrices
        .map(|info| {
            let name = layer(&info.name);
            let shape = leading(&name).into_iter().chain([info.shape[1] as usize]).collect();
            (name, shape)
        })
        .collect();
    layers.sort();
    layers
}

#[test]
fn an_observer_sees_every_linear_layer_of_an_encoder_once() {
    let model = tiny::bert(3);
    let encoder = encoder(&model);
    let (a, b) = (input(&[1, 5, 9, 2]), input(&[1, 2]));
    let mut seen = Seen::default();
    encoder.classify(&EncoderBatch::padded(&[&a, &b], 0), &mut Pass::new().observed_by(&mut seen)).unwrap();
    let of_first_token = |name: &str| if name.starts_with("encoder") { vec![2, 4] } else { vec![2] };
    seen.0.sort();
    assert_eq!(seen.0, linear_layers(&model.checkpoint, "bert.", &of_first_token));
}

#[test]
fn an_observer_sees_every_linear_layer_of_a_decoder_once_and_its_error_ends_the_pass() {
    let model = tiny::llama(&json!({}));
    let decoder = decoder(&model);
    let batch = DecoderBatch::left_padded(&[&[1, 5, 9], &[1, 2]]);
    let mut seen = Seen::default();
    let mut pass = Pass::new().observed_by(&mut seen);
    let hidden = decoder.forward(&batch, None, &mut pass).unwrap();
    decoder.logits(&hidden, &mut pass).unwrap();
    seen.0.sort();
    assert_eq!(seen.0, linear_layers(&model.checkpoint, "model.", &|_| vec![2, 3]));

    struct Refuses;
    impl Observer for Refuses {
        fn linear_input(&mut self, name: &str, _: &Tensor) -> Result<()> {
            Err(deltaic_checkpoint::Error::new(format!("enough at {name}")))
        }
    }
    let error = decoder.forward(&batch, None, &mut Pass::new().observed_by(&mut Refuses)).unwrap_err();
    assert_eq!(error.message(), "enough at layers.0.self_attn.q_proj");
}

#[test]
fn classifying_in_batches_by_length_gives_each_input_what_it_gets_alone() {
    let model = tiny::bert(2);
    let encoder = encoder(&model);
    let inputs: Vec<EncoderInput> = [&[1, 5, 9, 2][..], &[1, 2], &[3], &[1, 5, 6, 7, 8, 9, 2], &[4, 4]].map(input).to_vec();
    let mut answers = vec![None; inputs.len()];
    let mut done = |index: usize, logits: Vec<f32>| {
        assert!(answers[index].replace(logits).is_none(), "answered twice");
        Ok(())
    };
    encoder.classify_all(&inputs, 9, &mut done).unwrap();
    for (input, together) in inputs.iter().zip(answers) {
        let alone = encoder.classify(&EncoderBatch::padded(&[input], 0), &mut Pass::new()).unwrap().to_vec2::<f32>().unwrap();
        for (a, b) in alone[0].iter().zip(together.unwrap()) {
            assert!((a - b).abs() < 1e-5, "{a} alone, {b} in a batch");
        }
    }
}

fn greedy(prompt: &[u32], max_new_tokens: usize) -> GenerationRequest {
    GenerationRequest { prompt: prompt.to_vec(), max_new_tokens, temperature: 0.0, top_p: 1.0, seed: 0 }
}

#[test]
fn a_batch_of_prompts_of_different_lengths_is_continued_as_each_alone() {
    for changes in [json!({}), json!({"model_type": "mistral", "sliding_window": 3})] {
        let model = tiny::llama(&changes);
        let decoder = decoder(&model);
        let requests = [greedy(&[1, 5, 9, 2, 8, 8], 12), greedy(&[7], 3), greedy(&[3, 4], 9), greedy(&[6], 0)];
        let mut never = |_, _: &[u32]| false;
        let together = decoder.generate(&requests, &[], &mut never).unwrap();
        for (request, together) in requests.iter().zip(together) {
            let alone = decoder.generate(std::slice::from_ref(request), &[], &mut never).unwrap().remove(0);
            assert_eq!(alone, together);
            assert_eq!((alone.tokens.len(), alone.reason), (request.max_new_tokens, StopReason::Length));
        }
    }
}

#[test]
fn generation_ends_at_an_end_token_and_where_the_caller_says() {
    let model = tiny::llama(&json!({}));
    let decoder = decoder(&model);
    let written = decoder.generate(&[greedy(&[1, 5], 8)], &[], &mut |_, _| false).unwrap().remove(0).tokens;
    let end = written[3];
    let first = written.iter().position(|&token| token == end).unwrap();
    let ended = decoder.generate(&[greedy(&[1, 5], 8)], &[end], &mut |_, _| false).unwrap().remove(0);
    assert_eq!((ended.tokens.as_slice(), ended.reason), (&written[..first], StopReason::EndToken));
    let stopped = decoder.generate(&[greedy(&[1, 5], 8)], &[], &mut |_, tokens| tokens.len() == 2).unwrap().remove(0);
    assert_eq!((stopped.tokens.as_slice(), stopped.reason), (&written[..2], StopReason::Caller));
}

#[test]
fn sampling_follows_the_models_distribution_and_its_seed() {
    let model = tiny::llama(&json!({}));
    let decoder = decoder(&model);
    let prompt = [1, 5, 9];
    let hidden = decoder.forward(&DecoderBatch::left_padded(&[&prompt]), None, &mut Pass::new()).unwrap();
    let logits = decoder.logits(&hidden, &mut Pass::new()).unwrap().to_vec3::<f32>().unwrap()[0][2].clone();
    let weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit / 0.7).exp()).collect();
    let total: f64 = weights.iter().sum();
    let ask = |seed, top_p| GenerationRequest { prompt: prompt.to_vec(), max_new_tokens: 1, temperature: 0.7, top_p, seed };
    let draw = |top_p| {
        let requests: Vec<_> = (0..4000).map(|seed| ask(seed, top_p)).collect();
        let drawn = decoder.generate(&requests, &[], &mut |_, _| false).unwrap();
        drawn.into_iter().map(|generated| generated.tokens[0] as usize).collect::<Vec<_>>()
    };
    let drawn = draw(1.0);
    assert_eq!(drawn, draw(1.0));
    for (token, weight) in weights.iter().enumerate() {
        let expected = weight / total;
        let share = drawn.iter().filter(|&&other| other == token).count() as f64 / drawn.len() as f64;
        // Five standard errors of a share of 4,000 draws.
        let allowed = 5.0 * (expected * (1.0 - expected) / 4000.0).sqrt() + 1e-9;
        assert!((share - expected).abs() <= allowed, "token {token}: {share}, expected {expected}");
    }
    // The nucleus: the most likely tokens up to and with the one that reaches top_p.
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let mut reached = 0.0;
    let nucleus: Vec<usize> = order
        .into_iter()
        .take_while(|&token| {
            let inside = reached < 0.5;
            reached += weights[token] / total;
            inside
        })
        .collect();
    let drawn = draw(0.5);
    assert!(drawn.iter().all(|token| nucleus.contains(token)));
    assert!(nucleus.iter().all(|token| drawn.contains(token)));
}

#[test]
fn log_likelihoods_are_those_of_all_logits_whatever_the_batches() {
    let model = tiny::llama(&json!({}));
    let decoder = decoder(&model);
    let items = [(vec![1, 5, 9, 2, 8], 3), (vec![7, 3], 1), (vec![2, 2, 2, 4, 30, 31, 5], 1), (vec![9, 8], 2)];
    let items = items.map(|(tokens, scored_from)| Scored { tokens, scored_from });
    for batch_tokens in [1, 8, 1000] {
        let mut answers = vec![None; items.len()];
        let mut done = |index: usize, scores| {
            answers[index] = Some(scores);
            Ok(())
        };
        decoder.log_likelihoods(&items, batch_tokens, &mut done).unwrap();
        for (item, scores) in items.iter().zip(answers) {
            let scores: deltaic_lm::TokenScores = scores.unwrap();
            let hidden = decoder.forward(&DecoderBatch::left_padded(&[&item.tokens]), None, &mut Pass::new()).unwrap();
            let logits = decoder.logits(&hidden, &mut Pass::new()).unwrap();
            let table = candle_nn::ops::log_softmax(&logits, 2).unwrap().to_vec3::<f32>().unwrap().remove(0);
            assert_eq!(scores.log_probabilities.len(), item.tokens.len() - item.scored_from);
            for (offset, &score) in scores.log_probabilities.iter().enumerate() {
                let token = item.scored_from + offset;
                let line = &table[token - 1];
                let expected = line[item.tokens[token] as usize];
                assert!((score - expected).abs() < 1e-5, "{score}, expected {expected}");
                assert_eq!(scores.most_likely[offset], line.iter().all(|&other| other <= expected));
            }
        }
    }
}

#[test]
fn a_body_without_a_head_names_the_missing_tensor_and_takes_another_models_head() {
    let (body, fine_tuned) = (tiny::bert(0), tiny::bert(3));
    let alone = encoder(&body);
    let error = alone.labels().unwrap_err();
    assert!(error.message().contains("classifier.weight") && error.to_string().contains("--head-from"), "{error}");
    let open = |model: &tiny::Tiny| Box::new(Checkpoint::open(&model.checkpoint.folder).unwrap());
    let (config, head_config) = (&body.checkpoint.config, &fine_tuned.checkpoint.config);
    let joined = HeadFrom::new(open(&body), config, open(&fine_tuned), head_config).unwrap();
    let encoder = Encoder::load(&joined, config, Mode::Inference, &Device::Cpu).unwrap();
    assert_eq!(encoder.labels().unwrap(), 3);
    let error = HeadFrom::new(open(&body), config, open(&body), config).unwrap_err();
    assert!(error.message().contains("head"), "{error}");
}

#[test]
fn what_is_not_known_is_an_error_that_names_key_and_value() {
    let refused = |changes: Value, expected: &[&str]| {
        let model = tiny::llama(&json!({}));
        let mut config = serde_json::from_str::<Value>(&std::fs::read_to_string(model.checkpoint.config.path()).unwrap()).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        let config = Config::parse(&config.to_string(), Path::new("model/config.json")).unwrap();
        let error = Decoder::load(&model.checkpoint, &config, Mode::Inference, &Device::Cpu).map(|_| ()).unwrap_err();
        for part in expected {
            assert!(error.message().contains(part), "{part}: {error}");
        }
    };
    refused(json!({"model_type": "mamba"}), &["config.json", "model_type: mamba"]);
    refused(json!({"rope_scaling": {"rope_type": "fancy", "factor": 2.0}}), &["rope_scaling.rope_type: fancy"]);
    refused(json!({"rope_scaling": {"rope_type": "linear"}}), &["rope_scaling.factor: null"]);
    refused(json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}), &["rope_parameters"]);
    refused(json!({"hidden_act": "tanhshrink"}), &["hidden_act: tanhshrink"]);
    refused(json!({"num_attention_heads": 0}), &["num_attention_heads: 0"]);
    refused(json!({"num_key_value_heads": 3}), &["num_key_value_heads: 3"]);
    refused(json!({"vocab_size": 41}), &["embed_tokens.weight", "[41, 16]", "[40, 16]"]);
    refused(json!({"num_hidden_layers": 3}), &["layers.2.", "no such tensor"]);
    refused(json!({"num_hidden_layers": 1}), &["layers.1.", "a llama model has no such tensor"]);
    refused(json!({"attention_bias": true}), &["q_proj.bias"]);
    refused(json!({"model_type": "qwen3", "head_dim": 4}), &["q_norm.weight"]);
    refused(json!({"quantization_config": {"quant_method": "awq"}}), &["quantization_config"]);
}

#[test]
fn ids_and_lengths_that_the_model_does_not_have_are_errors() {
    let model = tiny::llama(&json!({}));
    let decoder = decoder(&model);
    let error = decoder.forward(&DecoderBatch::left_padded(&[&[40]]), None, &mut Pass::new()).unwrap_err();
    assert!(error.message().contains("token 40"), "{error}");
    assert!(decoder.generate(&[greedy(&[], 3)], &[], &mut |_, _| false).is_err());
    let scored_from_nothing = Scored { tokens: vec![1, 2], scored_from: 0 };
    assert!(decoder.log_likelihoods(&[scored_from_nothing], 10, &mut |_, _| Ok(())).is_err());
    let model = tiny::bert(2);
    let encoder = encoder(&model);
    for (input, expected) in
        [(input(&[40]), "token 40"), (EncoderInput { ids: vec![1], type_ids: vec![2] }, "token type 2"), (input(&[1; 17]), "17 tokens")]
    {
        let error = encoder.classify(&EncoderBatch::padded(&[&input], 0), &mut Pass::new()).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
}
