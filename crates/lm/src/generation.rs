//! Writing texts: greedy or sampled, many rows at once.

use candle_core::Tensor;
use deltaic_checkpoint::{Error, Result};
use deltaic_kernels::{Kernels, MaskKey};

use crate::decoder::Decoder;
use crate::decoder_batch::DecoderBatch;
use crate::device::Computed;
use crate::kv_cache::KvCache;
use crate::pass::Pass;

/// A text to be continued.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationRequest {
    /// The prompt's tokens; at least one.
    pub prompt: Vec<u32>,
    /// Most tokens to write.
    pub max_new_tokens: usize,
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f32,
    /// Draws come from the most likely tokens whose probabilities reach this sum; 1 is all.
    pub top_p: f32,
    /// Of the draws: the same seed and prompt give the same text, whatever else is in the batch, but for rounding. (Scalings that depend on
    /// length, LongRoPE's and dynamic ones, go by the batch's longest text, as in transformers: beside one that passes the limit, shorter texts
    /// of the batch are computed with its frequencies, too.)
    pub seed: u64,
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model wrote one of the end tokens.
    EndToken,
    /// The caller said so.
    Caller,
    /// `max_new_tokens` are written.
    Length,
}

/// A continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The tokens behind the prompt, without the end token.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub reason: StopReason,
}

impl Decoder {
    /// Continues all prompts in one batch. A row ends at one of `end_tokens`, where `stop(row, tokens)`, asked after every token, is true
    /// (stop strings need a tokenizer, which the caller has), or when it is long enough.
    ///
    /// # Errors
    /// A prompt is empty or has ids outside of the vocabulary, or logits are not finite.
    pub fn generate(
        &self,
        requests: &[GenerationRequest],
        end_tokens: &[u32],
        stop: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> Result<Vec<Generated>> {
        if requests.iter().any(|request| request.prompt.is_empty()) {
            return Err(Error::new("a text is to be continued, but its prompt has no tokens")
                .help("begin it with the model's BOS token, or its end token where it has no BOS"));
        }
        let mut run = Run::new(self, requests);
        while !run.active.is_empty() {
            let logits = run.advance()?.to_vec2::<f32>().computed()?;
            run.take(&logits, end_tokens, stop)?;
        }
        Ok(run.done)
    }
}

/// A batch while it is written.
struct Run<'a> {
    decoder: &'a Decoder,
    requests: &'a [GenerationRequest],
    /// Requests that are still being written, in the order of the cache's rows.
    active: Vec<usize>,
    done: Vec<Generated>,
    cache: KvCache,
}

impl<'a> Run<'a> {
    fn new(decoder: &'a Decoder, requests: &'a [GenerationRequest]) -> Self {
        let active = (0..requests.len()).filter(|&index| requests[index].max_new_tokens > 0).collect();
        let done = requests.iter().map(|_| Generated { tokens: Vec::new(), reason: StopReason::Length }).collect();
        Self { decoder, requests, active, done, cache: KvCache::new() }
    }

    /// The logits `[active, V]` of the next tokens.
    fn advance(&mut self) -> Result<Tensor> {
        let length = |&index: &usize| self.requests[index].prompt.len() + self.done[index].tokens.len();
        let longest = self.active.iter().map(length).max().unwrap_or(0);
        // Keys made with LongRoPE's frequencies for short texts do not fit those for long ones.
        let switches = self.decoder.settings.rope.switches_at().is_some_and(|limit| longest == limit + 1);
        let batch = if self.cache.is_empty() || switches {
            self.cache = KvCache::new();
            let texts: Vec<Vec<u32>> = self.active.iter().map(|&index| self.text(index)).collect();
            DecoderBatch::left_padded(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>())
        } else {
            DecoderBatch::step(self.active.iter().filter_map(|&index| self.done[index].tokens.last().copied()).collect())
        };
        let mut pass = Pass::new();
        let hidden = self.decoder.forward(&batch, Some(&mut self.cache), &mut pass)?;
        self.decoder.last_logits(&hidden, &mut pass)
    }

    /// Prompt and continuation so far.
    fn text(&self, index: usize) -> Vec<u32> {
        self.requests[index].prompt.iter().chain(&self.done[index].tokens).copied().collect()
    }

    /// Chooses the next token of every active row, and lets go of those that end.
    fn take(&mut self, logits: &[Vec<f32>], end_tokens: &[u32], stop: &mut dyn FnMut(usize, &[u32]) -> bool) -> Result<()> {
        let mut kept = Vec::new();
        for (row, (&index, logits)) in self.active.iter().zip(logits).enumerate() {
            let (request, done) = (&self.requests[index], &mut self.done[index]);
            let token = choose(logits, request, done.tokens.len() as u64)?;
            if end_tokens.contains(&token) {
                done.reason = StopReason::EndToken;
                continue;
            }
            done.tokens.push(token);
            if stop(index, &done.tokens) {
                done.reason = StopReason::Caller;
            } else if done.tokens.len() < request.max_new_tokens {
                kept.push(row);
            }
        }
        if kept.len() < self.active.len() {
            self.cache.keep_rows(&kept, &self.decoder.device).computed()?;
            self.active = kept.into_iter().map(|row| self.active[row]).collect();
        }
        Ok(())
    }
}

/// The next token: the most likely one, or a draw.
fn choose(logits: &[f32], request: &GenerationRequest, step: u64) -> Result<u32> {
    let best = most_likely(logits)?;
    if request.temperature <= 0.0 {
        return Ok(best as u32);
    }
    let (top, temperature) = (logits[best], f64::from(request.temperature));
    let mut candidates: Vec<(f64, u32)> =
        logits.iter().zip(0..).map(|(&logit, id)| ((f64::from(logit - top) / temperature).exp(), id)).collect();
    let mut total: f64 = candidates.iter().map(|candidate| candidate.0).sum();
    if request.top_p < 1.0 {
        candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let limit = total * f64::from(request.top_p.max(0.0));
        let mut reached = 0.0;
        let kept = candidates.iter().take_while(|candidate| {
            let wanted = reached < limit;
            reached += candidate.0;
            wanted
        });
        let kept = kept.count().max(1);
        candidates.truncate(kept);
        total = candidates.iter().map(|candidate| candidate.0).sum();
    }
    let mut left = uniform(request.seed, step) * total;
    for &(weight, id) in &candidates {
        left -= weight;
        if left < 0.0 {
            return Ok(id);
        }
    }
    Ok(best as u32)
}

/// The first of the largest logits.
pub(crate) fn most_likely(logits: &[f32]) -> Result<usize> {
    let mut best = 0;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = index;
        }
        if logit.is_nan() {
            return Err(not_finite());
        }
    }
    if logits.get(best).is_some_and(|logit| logit.is_finite()) { Ok(best) } else { Err(not_finite()) }
}

pub(crate) fn not_finite() -> Error {
    Error::new("the model's logits are not finite")
        .help("its weights hold NaN or infinite values, or values that overflow: `deltaic inspect MODEL` shows the first")
}

/// The draw of a step, in 0 .. 1: two words of Philox 4x32-10 with the seed as its key, so that no state is kept between steps.
fn uniform(seed: u64, step: u64) -> f64 {
    let mut words = [0; 2];
    Kernels::detect().mask_words(MaskKey([seed as u32, (seed >> 32) as u32]), 2 * step, &mut words);
    let bits = (u64::from(words[0]) << 32 | u64::from(words[1])) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
