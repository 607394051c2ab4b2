//! What Hugging Face transformers computes with tiny random models, met by the rules of `golden/forward/README.md`.
//!
//! The cases lie outside of the repository: `$DELTAIC_GOLDEN`, else `../shared/golden` beside the workspace. Where they are not, the tests
//! say so and pass.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{D, Device, IndexOp, Tensor};
use deltaic_checkpoint::Checkpoint;
use deltaic_lm::{Decoder, DecoderBatch, Encoder, EncoderBatch, GenerationRequest, Mode, Pass, canonical_name};
use serde_json::Value;

type Named = HashMap<String, Tensor>;

/// One case's folder.
struct Case {
    name: String,
    folder: PathBuf,
    about: Value,
    tensors: Named,
    checkpoint: Checkpoint,
}

fn cases(test: &str) -> Vec<Case> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let golden = std::env::var_os("DELTAIC_GOLDEN").map_or(beside, PathBuf::from).join("forward");
    let Ok(entries) = golden.read_dir() else {
        eprintln!("SKIPPED {test}: {} is not there", golden.display());
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("case.json").exists()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "{} has no cases", golden.display());
    folders.into_iter().map(Case::open).collect()
}

impl Case {
    fn open(folder: PathBuf) -> Self {
        let about = serde_json::from_str(&std::fs::read_to_string(folder.join("case.json")).unwrap()).unwrap();
        let tensors = candle_core::safetensors::load(folder.join("case.safetensors"), &Device::Cpu).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        Self { name: folder.file_name().unwrap().to_string_lossy().into_owned(), folder, about, tensors, checkpoint }
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let ids = self.tensors[name].flatten_all().unwrap().to_vec1::<i64>().unwrap();
        ids.into_iter().map(|id| u32::try_from(id).unwrap()).collect()
    }

    fn shape(&self) -> (usize, usize) {
        self.tensors["input_ids"].dims2().unwrap()
    }

    fn attended(&self) -> Vec<bool> {
        self.ids("attention_mask").into_iter().map(|one| one == 1).collect()
    }

    /// The largest difference from the expected tensor, divided by its largest value, both over attended positions.
    fn error(&self, name: &str, got: &Tensor) -> f64 {
        let want = &self.tensors[name];
        assert_eq!(got.dims(), want.dims(), "{}: {name}", self.name);
        let (rows, width) = self.shape();
        let by_token = want.rank() == 3 && want.dims()[..2] == [rows, width];
        let inner = want.elem_count() / if by_token { rows * width } else { 1 };
        let attended = if by_token { self.attended() } else { vec![true] };
        let (got, want) = (flat(got), flat(want));
        let (mut worst, mut largest) = (0.0_f64, 0.0_f64);
        for (position, &attended) in attended.iter().enumerate() {
            for element in position * inner..(position + 1) * inner {
                if attended {
                    let difference = f64::from((got[element] - want[element]).abs());
                    worst = if difference.is_nan() { f64::INFINITY } else { worst.max(difference) };
                    largest = largest.max(f64::from(want[element].abs()));
                }
            }
        }
        worst / largest
    }

    /// What a model computed, by the names of the expected tensors.
    fn compute(&self, mode: Mode) -> Named {
        let (rows, width) = self.shape();
        let (source, config) = (&self.checkpoint, &self.checkpoint.config);
        let mut pass = Pass::new().keeping_hidden_states();
        let mut computed = Named::new();
        if self.checkpoint.architecture.is_decoder() {
            let decoder = Decoder::load(source, config, mode, &Device::Cpu).unwrap();
            let batch = DecoderBatch::new(rows, width, self.ids("input_ids"), self.attended()).unwrap();
            let hidden = decoder.forward(&batch, None, &mut pass).unwrap();
            computed.insert("logits".to_owned(), decoder.logits(&hidden, &mut pass).unwrap());
            computed.insert("last_hidden_state".to_owned(), hidden);
        } else {
            let encoder = Encoder::load(source, config, mode, &Device::Cpu).unwrap();
            let types = if self.tensors.contains_key("token_type_ids") { self.ids("token_type_ids") } else { Vec::new() };
            let batch = EncoderBatch::new(rows, width, self.ids("input_ids"), types, self.attended()).unwrap();
            if self.tensors.contains_key("logits") {
                computed.insert("logits".to_owned(), encoder.classify(&batch, &mut pass).unwrap());
            }
            let output = encoder.forward(&batch, &mut pass).unwrap();
            computed.insert("last_hidden_state".to_owned(), output.last_hidden_state);
            if let Some(pooled) = output.pooler_output {
                computed.insert("pooler_output".to_owned(), pooled);
            }
        }
        for (number, state) in pass.hidden_states().iter().enumerate() {
            computed.insert(format!("hidden_states.{number}"), state.clone());
        }
        computed
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

#[test]
fn every_golden_forward_pass_is_met_in_both_modes() {
    let mut wrong = Vec::new();
    for case in cases("every_golden_forward_pass_is_met_in_both_modes") {
        let tolerance = case.about["tolerance"].as_f64().unwrap();
        let expected: BTreeMap<&String, &Tensor> = case
            .tensors
            .iter()
            .filter(|(name, _)| name.starts_with("hidden") || ["logits", "last_hidden_state", "pooler_output"].contains(&name.as_str()))
            .collect();
        let mut line = format!("{:<22}", case.name);
        for mode in [Mode::Inference, Mode::Differentiable] {
            let computed = case.compute(mode);
            let mut worst = (0.0, "");
            for name in expected.keys() {
                let error = computed.get(*name).map_or(f64::INFINITY, |got| case.error(name, got));
                if error > worst.0 {
                    worst = (error, name);
                }
                if error > tolerance {
                    wrong.push(format!("{} {mode:?} {name}: {error:.1e}", case.name));
                }
            }
            let compared = case.about["compare"].as_str().unwrap();
            let error = computed.get(compared).map_or(f64::INFINITY, |got| case.error(compared, got));
            line += &format!("  {mode:?}: {compared} {error:.1e}, worst {} {:.1e}", worst.1, worst.0);
        }
        println!("{line}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_golden_greedy_continuation_is_met_with_and_without_a_cache() {
    let mut wrong = Vec::new();
    for case in cases("every_golden_greedy_continuation_is_met_with_and_without_a_cache") {
        if !case.tensors.contains_key("greedy_ids") {
            continue;
        }
        let decoder = Decoder::load(&case.checkpoint, &case.checkpoint.config, Mode::Inference, &Device::Cpu).unwrap();
        let (prompt, expected) = (case.ids("prompt_ids"), case.ids("greedy_ids"));
        let request = GenerationRequest { prompt: prompt.clone(), max_new_tokens: expected.len(), temperature: 0.0, top_p: 1.0, seed: 0 };
        let got = decoder.generate(&[request], &[], &mut |_, _| false).unwrap().remove(0).tokens;
        if got != expected {
            wrong.push(format!("{}: with a cache {got:?}, expected {expected:?}", case.name));
        }
        let expected = if case.tensors.contains_key("greedy_ids_no_cache") { case.ids("greedy_ids_no_cache") } else { expected };
        let mut text = prompt.clone();
        for _ in 0..expected.len() {
            let mut pass = Pass::new();
            let hidden = decoder.forward(&DecoderBatch::left_padded(&[&text]), None, &mut pass).unwrap();
            let logits = decoder.logits(&hidden, &mut pass).unwrap().i((0, text.len() - 1)).unwrap();
            text.push(logits.argmax(D::Minus1).unwrap().to_scalar::<u32>().unwrap());
        }
        if text[prompt.len()..] != expected {
            wrong.push(format!("{}: without a cache {:?}, expected {expected:?}", case.name, &text[prompt.len()..]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_golden_gradient_is_met() {
    let mut wrong = Vec::new();
    for case in cases("every_golden_gradient_is_met") {
        let file = case.folder.join("grads.safetensors");
        if !file.exists() {
            continue;
        }
        let expected = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let (loss, got) = gradients(&case);
        let want = flat(&case.tensors["loss"])[0];
        assert!((loss - want).abs() <= 1e-4 * want.abs(), "{}: loss {loss}, expected {want}", case.name);
        assert_eq!(expected.len(), got.len(), "{}: parameters", case.name);
        let largest = expected.values().flat_map(flat).fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let mut worst = (0.0_f32, "");
        for (name, want) in &expected {
            let got = flat(&got[&canonical_name(name, case.checkpoint.architecture.prefix())]);
            let want = flat(want);
            let own = want.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let difference = got.iter().zip(&want).fold(0.0_f32, |worst, (got, want)| worst.max((got - want).abs()));
            let error = difference / own.max(1e-3 * largest);
            if error.is_nan() || error > 1e-3 {
                wrong.push(format!("{} {name}: {error:.1e}", case.name));
            }
            if error > worst.0 {
                worst = (error, name);
            }
        }
        println!("{:<22}  gradients: worst {} {:.1e}", case.name, worst.1, worst.0);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The loss of a case's labels as its case.json says, and its gradient by canonical name (zero where nothing flows).
fn gradients(case: &Case) -> (f32, Named) {
    let (rows, width) = case.shape();
    let (source, config) = (&case.checkpoint, &case.checkpoint.config);
    let labels = case.tensors["labels"].flatten_all().unwrap().to_vec1::<i64>().unwrap();
    let mut pass = Pass::new();
    let attended = case.attended();
    let (logits, targets, parameters) = if case.checkpoint.architecture.is_decoder() {
        let decoder = Decoder::load(source, config, Mode::Differentiable, &Device::Cpu).unwrap();
        let batch = DecoderBatch::new(rows, width, case.ids("input_ids"), attended.clone()).unwrap();
        let hidden = decoder.forward(&batch, None, &mut pass).unwrap();
        let logits = decoder.logits(&hidden, &mut pass).unwrap().flatten(0, 1).unwrap();
        let scored: Vec<u32> = (0..rows * width - 1)
            .filter(|slot| slot % width != width - 1 && attended[*slot] && attended[slot + 1])
            .map(|slot| slot as u32)
            .collect();
        let targets: Vec<u32> = scored.iter().map(|&slot| labels[slot as usize + 1] as u32).collect();
        let logits = logits.index_select(&Tensor::new(scored, &Device::Cpu).unwrap(), 0).unwrap();
        (logits, targets, decoder.parameters().clone())
    } else {
        let encoder = Encoder::load(source, config, Mode::Differentiable, &Device::Cpu).unwrap();
        let batch = EncoderBatch::new(rows, width, case.ids("input_ids"), case.ids("token_type_ids"), attended).unwrap();
        let logits = encoder.classify(&batch, &mut pass).unwrap();
        (logits, labels.iter().map(|&label| label as u32).collect(), encoder.parameters().clone())
    };
    let count = targets.len();
    let targets = Tensor::from_vec(targets, (count, 1), &Device::Cpu).unwrap();
    let loss = candle_nn::ops::log_softmax(&logits, D::Minus1).unwrap().gather(&targets, 1).unwrap().mean_all().unwrap().neg().unwrap();
    let found = loss.backward().unwrap();
    let by_name = parameters.iter().map(|(name, variable)| {
        let gradient = found.get(variable.as_tensor()).cloned().unwrap_or_else(|| variable.zeros_like().unwrap());
        (name.clone(), gradient)
    });
    (loss.to_scalar().unwrap(), by_name.collect())
}
