//! Training: cross-entropy over the tokens to be learned, AdamW, a learning rate that rises and falls in straight lines.

use std::error::Error;
use std::time::Instant;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use deltaic_lm::{Decoder, DecoderBatch, Pass, TextTokenizer};

use crate::book::Line;

/// Steps in which the learning rate rises.
const WARM_UP: usize = 20;
/// A gradient whose norm over all parameters is greater is scaled down to it.
const GREATEST_NORM: f64 = 1.0;
/// Steps between two lines of progress.
const REPORT: usize = 100;

/// How long and how fast.
pub struct Schedule {
    pub steps: usize,
    /// The greatest learning rate.
    pub learning_rate: f64,
    /// Lines in a step.
    pub lines: usize,
}

/// Trains all parameters of `decoder` on the lines that `next` gives.
pub fn train(
    decoder: &Decoder,
    tokenizer: &TextTokenizer,
    schedule: &Schedule,
    mut next: impl FnMut() -> Line,
) -> Result<(), Box<dyn Error>> {
    // No decay: a fine-tune is to differ from its base by what it learned alone.
    let settings = ParamsAdamW { lr: 0.0, beta2: 0.99, weight_decay: 0.0, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(decoder.parameters().values().cloned().collect(), settings)?;
    let (start, mut sum) = (Instant::now(), 0.0);
    for step in 0..schedule.steps {
        let rise = (step + 1) as f64 / WARM_UP as f64;
        let fall = (schedule.steps - step) as f64 / schedule.steps as f64;
        optimizer.set_learning_rate(schedule.learning_rate * rise.min(1.0) * fall);
        let lines: Vec<Tokens> = (0..schedule.lines).map(|_| Tokens::of(&next(), tokenizer)).collect::<Result<_, _>>()?;
        let loss = loss(decoder, &lines)?;
        let mut gradients = loss.backward()?;
        clip(&mut gradients, decoder)?;
        optimizer.step(&gradients)?;
        sum += f64::from(loss.to_scalar::<f32>()?);
        if (step + 1) % REPORT == 0 {
            println!("  step {}: loss {:.4}, {:.0} s", step + 1, sum / REPORT as f64, start.elapsed().as_secs_f64());
            sum = 0.0;
        }
    }
    Ok(())
}

/// A line as the model sees it.
struct Tokens {
    ids: Vec<u32>,
    /// The first token that is to be learned.
    learned_from: usize,
}

impl Tokens {
    fn of(line: &Line, tokenizer: &TextTokenizer) -> deltaic_checkpoint::Result<Self> {
        let mut ids = tokenizer.encode(&line.prompt, true)?;
        let learned_from = ids.len();
        ids.extend(tokenizer.encode(&line.answer, false)?);
        ids.extend(tokenizer.special().eos.as_ref().map(|token| token.id));
        Ok(Self { ids, learned_from })
    }
}

/// The mean cross-entropy of the tokens to be learned, in nats.
fn loss(decoder: &Decoder, lines: &[Tokens]) -> Result<Tensor, Box<dyn Error>> {
    // The last token predicts nothing.
    let rows: Vec<&[u32]> = lines.iter().map(|line| &line.ids[..line.ids.len() - 1]).collect();
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let (mut slots, mut targets) = (Vec::new(), Vec::new());
    for (row, line) in lines.iter().enumerate() {
        for target in line.learned_from..line.ids.len() {
            slots.push((row * width + target - 1) as u32);
            targets.push(line.ids[target]);
        }
    }
    let (slots, targets) = (Tensor::new(slots, &Device::Cpu)?, Tensor::new(targets, &Device::Cpu)?);
    let hidden = decoder.forward(&DecoderBatch::right_padded(&rows), None, &mut Pass::new())?;
    let learned = hidden.flatten(0, 1)?.index_select(&slots, 0)?;
    Ok(candle_nn::loss::cross_entropy(&decoder.logits(&learned, &mut Pass::new())?, &targets)?)
}

fn clip(gradients: &mut GradStore, decoder: &Decoder) -> candle_core::Result<()> {
    let mut squares = 0.0;
    for parameter in decoder.parameters().values() {
        if let Some(gradient) = gradients.get(parameter) {
            squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
    }
    let scale = GREATEST_NORM / squares.sqrt();
    if scale < 1.0 {
        for parameter in decoder.parameters().values() {
            if let Some(gradient) = gradients.remove(parameter) {
                gradients.insert(parameter, (gradient * scale)?);
            }
        }
    }
    Ok(())
}
