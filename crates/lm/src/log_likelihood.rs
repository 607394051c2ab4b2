//! How likely a model finds given texts.

use candle_core::Tensor;
use deltaic_checkpoint::{Error, Result};

use crate::batching::batches_by_length;
use crate::decoder::Decoder;
use crate::decoder_batch::DecoderBatch;
use crate::device::Computed;
use crate::generation::{most_likely, not_finite};
use crate::pass::Pass;

/// Logits that are computed at once.
const LOGITS: usize = 1 << 23;

/// A text some of whose tokens are to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored {
    /// The whole text.
    pub tokens: Vec<u32>,
    /// Tokens from this one on are scored, each by what stands before it; at least 1.
    pub scored_from: usize,
}

/// Log-probabilities of the scored tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenScores {
    /// Natural logarithm of each token's probability.
    pub log_probabilities: Vec<f32>,
    /// Whether each token was the most likely one.
    pub most_likely: Vec<bool>,
}

impl TokenScores {
    /// The log-likelihood of all scored tokens.
    pub fn sum(&self) -> f64 {
        self.log_probabilities.iter().map(|&value| f64::from(value)).sum()
    }

    /// Whether greedy decoding would give the scored tokens.
    pub fn greedy(&self) -> bool {
        self.most_likely.iter().all(|&likely| likely)
    }
}

impl Decoder {
    /// Scores many texts in batches of similar length: `done(index, scores)` is called once for each, as they come. Logits are computed
    /// for scored tokens only. A batch has at most `batch_tokens` tokens, padding included, but for a single longer text.
    ///
    /// # Errors
    /// A text's first token is to be scored, an id lies outside of the vocabulary, logits are not finite, or an error of `done`.
    pub fn log_likelihoods(
        &self,
        items: &[Scored],
        batch_tokens: usize,
        done: &mut dyn FnMut(usize, TokenScores) -> Result<()>,
    ) -> Result<()> {
        if let Some(item) = items.iter().find(|item| item.scored_from == 0 || item.scored_from > item.tokens.len()) {
            let (from, length) = (item.scored_from, item.tokens.len());
            return Err(Error::new(format!("a text of {length} tokens is to be scored from token {from}, expected 1 to {length}"))
                .help("begin it with the model's BOS token, or its end token where it has no BOS"));
        }
        // The last token is only scored, never read.
        let read = |item: &Scored| item.tokens.len() - 1;
        let lengths: Vec<usize> = items.iter().map(read).collect();
        for members in batches_by_length(&lengths, batch_tokens) {
            let rows: Vec<&[u32]> = members.iter().map(|&index| &items[index].tokens[..read(&items[index])]).collect();
            let batch = DecoderBatch::right_padded(&rows);
            let wanted = |row: usize, item: &Scored| (item.scored_from - 1..read(item)).map(move |slot| (row * batch.width + slot) as u32);
            let slots: Vec<u32> = members.iter().enumerate().flat_map(|(row, &index)| wanted(row, &items[index])).collect();
            let targets: Vec<u32> =
                members.iter().flat_map(|&index| items[index].tokens[items[index].scored_from..].iter().copied()).collect();
            let mut scores = self.score(&batch, &slots, &targets)?.into_iter();
            for &index in &members {
                let count = items[index].tokens.len() - items[index].scored_from;
                let (log_probabilities, most_likely) = scores.by_ref().take(count).unzip();
                done(index, TokenScores { log_probabilities, most_likely })?;
            }
        }
        Ok(())
    }

    /// For each slot of a batch the log-probability of its target, and whether it is the most likely one.
    fn score(&self, batch: &DecoderBatch, slots: &[u32], targets: &[u32]) -> Result<Vec<(f32, bool)>> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let mut pass = Pass::new();
        let hidden = self.forward(batch, None, &mut pass)?;
        let mut scores = Vec::with_capacity(slots.len());
        let at_once = (LOGITS / self.vocabulary()).max(1);
        for (slots, targets) in slots.chunks(at_once).zip(targets.chunks(at_once)) {
            let rows = self.rows_of(&hidden, slots.to_vec()).computed()?;
            let logits: Tensor = self.logits(&rows, &mut pass)?;
            for (logits, &target) in logits.to_vec2::<f32>().computed()?.iter().zip(targets) {
                scores.push(score_of(logits, target as usize)?);
            }
        }
        Ok(scores)
    }
}

/// `logit - log(sum(exp(logits)))`, its sum in f64.
fn score_of(logits: &[f32], target: usize) -> Result<(f32, bool)> {
    let best = most_likely(logits)?;
    let Some(&logit) = logits.get(target) else {
        return Err(Error::new(format!("token {target} is to be scored, the model's vocabulary has {}", logits.len())));
    };
    let top = logits[best];
    let sum: f64 = logits.iter().map(|&other| f64::from((other - top).exp())).sum();
    let score = (f64::from(logit - top) - sum.ln()) as f32;
    if score.is_nan() { Err(not_finite()) } else { Ok((score, best == target || logit == top)) }
}
