//! Tokens and items per second of a model: `cargo run --release -p deltaic-lm --example speed -- MODEL [ROUNDS]`.
//!
//! A decoder reads a prompt of 512 tokens and writes 64 after one of 32; an encoder classifies 256 inputs of 8 to 64 tokens.
//! `speed.py` beside this file does the same with transformers.

use std::path::Path;
use std::time::Instant;

use deltaic_checkpoint::{Checkpoint, Error, Result};
use deltaic_lm::{Decoder, DecoderBatch, Encoder, EncoderInput, GenerationRequest, Mode, Pass, default_device};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or_else(|| Error::new("expected a model folder"))?;
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let checkpoint = Checkpoint::open(Path::new(&model))?;
    if checkpoint.architecture.is_decoder() { decoder(&checkpoint, rounds) } else { encoder(&checkpoint, rounds) }
}

/// The best of some rounds, in units per second.
fn best(rounds: usize, units: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut seconds = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        run()?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok(units as f64 / seconds)
}

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|index| ((index * 7919 + seed * 104_729) % 20_000 + 100) as u32).collect()
}

fn decoder(checkpoint: &Checkpoint, rounds: usize) -> Result<()> {
    let decoder = Decoder::load(checkpoint, &checkpoint.config, Mode::Inference, &default_device()?)?;
    let prompt = tokens(512, 1);
    let prefill =
        best(rounds, prompt.len(), || decoder.forward(&DecoderBatch::left_padded(&[&prompt]), None, &mut Pass::new()).map(|_| ()))?;
    let request = |rows: usize| -> Vec<GenerationRequest> {
        let row = |row| GenerationRequest { prompt: tokens(32, row), max_new_tokens: 65, temperature: 0.0, top_p: 1.0, seed: 0 };
        (0..rows).map(row).collect()
    };
    println!("prefill of 512 tokens: {prefill:.1} tokens/s");
    for rows in [1, 8] {
        let decode = best(rounds, rows * 64, || decoder.generate(&request(rows), &[], &mut |_, _| false).map(|_| ()))?;
        println!("decode, {rows} at once (with a prompt of 32): {decode:.1} tokens/s");
    }
    Ok(())
}

fn encoder(checkpoint: &Checkpoint, rounds: usize) -> Result<()> {
    let encoder = Encoder::load(checkpoint, &checkpoint.config, Mode::Inference, &default_device()?)?;
    let inputs: Vec<EncoderInput> =
        (0..256).map(|index| EncoderInput { ids: tokens(8 + index * 37 % 57, index), type_ids: Vec::new() }).collect();
    let items = best(rounds, inputs.len(), || encoder.classify_all(&inputs, 2048, &mut |_, _| Ok(())))?;
    println!("classification: {items:.1} items/s");
    Ok(())
}
