//! Decoders of the Llama family, in one implementation driven by config.json.

use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor, Var};
use deltaic_checkpoint::{Config, Error, Result, TensorSource};

use crate::decoder_batch::DecoderBatch;
use crate::decoder_layer::{DecoderLayer, Positioned};
use crate::decoder_masks::Masks;
use crate::decoder_settings::DecoderSettings;
use crate::kv_cache::KvCache;
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::pass::Pass;
use crate::weights::{Mode, Weights};

/// A decoder: Llama 1 to 3, Mistral, Qwen 2 to 3, Phi-3, SmolLM, Granite, Gemma 1 and 2.
pub struct Decoder {
    pub(crate) settings: DecoderSettings,
    embedding: Tensor,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    head: Linear,
    parameters: BTreeMap<String, Var>,
    /// The model's folder, for messages.
    place: String,
    pub(crate) device: Device,
}

impl Decoder {
    /// Loads a decoder. Its head is the embedding where config.json says so, else `lm_head.weight`.
    ///
    /// # Errors
    /// The architecture or a variant of it is not known, config.json and weights do not fit, or a tensor is missing or cannot be read.
    pub fn load(source: &dyn TensorSource, config: &Config, mode: Mode, device: &Device) -> Result<Self> {
        let settings = DecoderSettings::read(config)?;
        let mut weights = Weights::open(source, config, mode, device)?;
        let embedding = weights.take("embed_tokens.weight", &[settings.vocab, settings.hidden])?;
        let mut layers = Vec::new();
        for number in 0..settings.layers {
            layers.push(DecoderLayer::load(&mut weights, &settings, number)?);
        }
        let norm = RmsNorm::load(&mut weights, "norm", settings.hidden, settings.eps, settings.norm_plus_one)?;
        let head = if weights.architecture().is_tied(config) {
            Linear::tied("lm_head", embedding.clone(), mode)
        } else {
            Linear::load(&mut weights, "lm_head", settings.hidden, settings.vocab, false)?
        };
        let parameters = weights.finish()?;
        let place = config.path().parent().unwrap_or(config.path()).display().to_string();
        Ok(Self { settings, embedding, layers, norm, head, parameters, place, device: device.clone() })
    }

    /// The parameters by canonical name; empty in inference. A head that is the embedding is not there apart: gradients of both uses are
    /// summed under the embedding's name.
    pub fn parameters(&self) -> &BTreeMap<String, Var> {
        &self.parameters
    }

    /// Number of different token ids.
    pub fn vocabulary(&self) -> usize {
        self.settings.vocab
    }

    /// The longest text that the model is made for, in tokens (`max_position_embeddings`). Longer ones are computed all the same.
    pub fn context_length(&self) -> usize {
        self.settings.max_positions
    }

    /// Runs the layers: the last hidden state `[B,T,H]`, after the final norm. With a cache the batch continues what the cache holds, and
    /// is added to it. Positions count the tokens of a row that are no padding.
    ///
    /// # Errors
    /// An id lies outside of the vocabulary, the batch has no tokens, or other rows than the cache.
    pub fn forward(&self, batch: &DecoderBatch, cache: Option<&mut KvCache>, pass: &mut Pass<'_>) -> Result<Tensor> {
        self.check(batch, cache.as_deref())?;
        pass.begin();
        let result = self.run(batch, cache, pass);
        pass.end(result)
    }

    /// The logits `[.., V]` of hidden states `[.., H]`.
    ///
    /// # Errors
    /// The computation fails, or an observer ends it.
    pub fn logits(&self, hidden: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let result = self.project(hidden, pass);
        pass.end(result)
    }

    fn check(&self, batch: &DecoderBatch, cache: Option<&KvCache>) -> Result<()> {
        let place = &self.place;
        if batch.rows == 0 || batch.width == 0 {
            return Err(Error::new(format!("{place}: a batch without tokens")));
        }
        if let Some(cache) = cache
            && !cache.is_empty()
            && cache.attended.len() != batch.rows
        {
            return Err(Error::new(format!("{place}: a batch of {} rows continues one of {}", batch.rows, cache.attended.len())));
        }
        match batch.ids.iter().find(|&&id| id as usize >= self.settings.vocab) {
            Some(id) => Err(Error::new(format!("{place}: token {id}, the model's vocabulary has {}", self.settings.vocab))
                .help("tokenizer and weights are not of one model")),
            None => Ok(()),
        }
    }

    fn run(&self, batch: &DecoderBatch, mut cache: Option<&mut KvCache>, pass: &mut Pass<'_>) -> candle_core::Result<Tensor> {
        let (rows, width) = (batch.rows, batch.width);
        let tables = self.settings.rope.tables(&positions(batch, cache.as_deref()), rows, width, &self.device)?;
        let attended = attended(batch, cache.as_deref_mut());
        let mut masks = Masks::new(&attended, width, &self.device);
        let ids = Tensor::from_slice(&batch.ids, rows * width, &self.device)?;
        let mut x = self.embedding.index_select(&ids, 0)?.reshape((rows, width, self.settings.hidden))?;
        if self.settings.embedding_scale != 1.0 {
            x = (x * self.settings.embedding_scale)?;
        }
        for (number, layer) in self.layers.iter().enumerate() {
            pass.keep_hidden(&x);
            let mask = masks.of(layer.window)?;
            let cache = cache.as_deref_mut().map(|cache| (number, cache));
            x = layer.forward(&x, Positioned { tables: &tables, mask: mask.as_ref(), cache }, pass)?;
        }
        let last = self.norm.forward(&x)?;
        pass.keep_hidden(&last);
        Ok(last)
    }

    fn project(&self, hidden: &Tensor, pass: &mut Pass<'_>) -> candle_core::Result<Tensor> {
        let mut logits = self.head.forward(hidden, pass)?;
        if self.settings.logit_divisor != 1.0 {
            logits = (logits / self.settings.logit_divisor)?;
        }
        if let Some(cap) = self.settings.logit_soft_cap {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        Ok(logits)
    }

    /// The logits of the last slot of each row, `[B, V]`.
    pub(crate) fn last_logits(&self, hidden: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let last = hidden.narrow(1, hidden.dims()[1] - 1, 1).and_then(|last| last.squeeze(1)?.contiguous());
        let result = last.and_then(|last| self.project(&last, pass));
        pass.end(result)
    }

    /// The hidden states `[N, H]` at these slots of a batch, counted row by row.
    pub(crate) fn rows_of(&self, hidden: &Tensor, slots: Vec<u32>) -> candle_core::Result<Tensor> {
        let count = slots.len();
        hidden.reshape(((), hidden.dim(D::Minus1)?))?.index_select(&Tensor::from_vec(slots, count, &self.device)?, 0)
    }
}

/// The position of every token: how many tokens that are no padding stand before it.
fn positions(batch: &DecoderBatch, cache: Option<&KvCache>) -> Vec<u32> {
    let mut positions = Vec::with_capacity(batch.ids.len());
    for (row, attended) in batch.attended.chunks(batch.width).enumerate() {
        let mut seen = cache.map_or(0, |cache| cache.tokens(row));
        for &attended in attended {
            seen += u32::from(attended);
            positions.push(seen.saturating_sub(1));
        }
    }
    positions
}

/// For each row, which slots hold tokens, those of the cache first; the cache learns of the new ones.
fn attended(batch: &DecoderBatch, cache: Option<&mut KvCache>) -> Vec<Vec<bool>> {
    let new = batch.attended.chunks(batch.width).map(<[bool]>::to_vec);
    let Some(cache) = cache else { return new.collect() };
    if cache.is_empty() {
        cache.attended = new.collect();
    } else {
        for (row, new) in cache.attended.iter_mut().zip(new) {
            row.extend(new);
        }
    }
    cache.attended.clone()
}
