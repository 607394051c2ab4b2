//! Inputs of encoders, and how they become batches.

use deltaic_checkpoint::{Error, Result};

use crate::encoder_settings::{EncoderFamily, EncoderSettings};

/// One tokenised text or pair, with its special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderInput {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Segment of each token; empty where all are 0.
    pub type_ids: Vec<u32>,
}

/// Rows of the same width.
#[derive(Debug, Clone)]
pub struct EncoderBatch {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) ids: Vec<u32>,
    pub(crate) types: Vec<u32>,
    pub(crate) attended: Vec<bool>,
}

impl EncoderBatch {
    /// A batch with padding on the right.
    pub fn padded(inputs: &[&EncoderInput], pad_id: u32) -> Self {
        let width = inputs.iter().map(|input| input.ids.len()).max().unwrap_or(0);
        let mut batch = Self { rows: inputs.len(), width, ids: Vec::new(), types: Vec::new(), attended: Vec::new() };
        for input in inputs {
            let padding = width - input.ids.len();
            let types = (0..input.ids.len()).map(|token| input.type_ids.get(token).copied().unwrap_or(0));
            batch.types.extend(types.chain(std::iter::repeat_n(0, padding)));
            batch.ids.extend(input.ids.iter().copied().chain(std::iter::repeat_n(pad_id, padding)));
            batch.attended.extend(input.ids.iter().map(|_| true).chain(std::iter::repeat_n(false, padding)));
        }
        batch
    }

    /// A batch of `rows` times `width` tokens as they are; `attended` is false at padding, `types` may be empty.
    ///
    /// # Errors
    /// The lengths are not `rows * width`.
    pub fn new(rows: usize, width: usize, ids: Vec<u32>, types: Vec<u32>, attended: Vec<bool>) -> Result<Self> {
        let types = if types.is_empty() { vec![0; ids.len()] } else { types };
        if rows.checked_mul(width).is_none_or(|count| [ids.len(), types.len(), attended.len()] != [count; 3]) {
            let found = (ids.len(), types.len(), attended.len());
            return Err(Error::new(format!("a batch of {rows} rows of {width} tokens: found {found:?} ids, types and mask")));
        }
        Ok(Self { rows, width, ids, types, attended })
    }

    /// Position of every token.
    pub(crate) fn positions(&self, settings: &EncoderSettings) -> Vec<u32> {
        if settings.family != EncoderFamily::Roberta {
            return (0..self.rows).flat_map(|_| 0..self.width as u32).collect();
        }
        // Counts what is not padding, from behind the padding's own position on (fairseq's `make_positions`).
        let mut positions = Vec::with_capacity(self.ids.len());
        for row in self.ids.chunks(self.width.max(1)) {
            let mut seen = 0;
            for &id in row {
                let counts = u32::from(id != settings.pad_id);
                seen += counts;
                positions.push(settings.pad_id + seen * counts);
            }
        }
        positions
    }

    /// Checks what would fail within the model.
    pub(crate) fn check(&self, settings: &EncoderSettings, place: &str) -> Result<()> {
        if self.rows == 0 || self.width == 0 {
            return Err(Error::new(format!("{place}: a batch without tokens")));
        }
        if self.width > settings.max_tokens() {
            return Err(Error::new(format!("{place}: a text of {} tokens, the model has {} positions", self.width, settings.max_tokens()))
                .help("cut the texts to that many tokens"));
        }
        let outside = |ids: &[u32], size: usize| ids.iter().copied().find(|&id| id as usize >= size);
        if let Some(id) = outside(&self.ids, settings.vocab) {
            return Err(Error::new(format!("{place}: token {id}, the model's vocabulary has {}", settings.vocab))
                .help("tokenizer and weights are not of one model"));
        }
        match outside(&self.types, settings.type_vocab.max(1)) {
            Some(kind) if settings.type_vocab > 0 => {
                Err(Error::new(format!("{place}: token type {kind}, the model has {}", settings.type_vocab)))
            }
            _ => Ok(()),
        }
    }
}
