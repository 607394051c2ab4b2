//! The model whose statistics are made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::Var;
use deltaic_checkpoint::{Architecture, Config, Result, TensorSource};
use deltaic_eval::{LocalSource, RequestTokenizer};
use deltaic_lm::{Decoder, Encoder, HeadFrom, Mode, canonical_name, default_device};

/// A model whose statistics are made: tensors from anywhere, one that was sparsified in memory included.
#[derive(Debug)]
pub struct StatisticsModel {
    /// How it is called in messages.
    pub(crate) name: String,
    /// What its weights are known by.
    pub(crate) id: String,
    /// What its head is known by, where that is another model's.
    pub(crate) head: Option<String>,
    pub(crate) source: Box<dyn TensorSource>,
    config: Config,
    architecture: Architecture,
    tokenizer: PathBuf,
    /// The tensors' own names by canonical ones.
    own_names: BTreeMap<String, String>,
}

/// A model that can be run.
pub(crate) enum Network {
    Encoder(Encoder),
    Decoder(Decoder),
}

impl Network {
    /// The parameters by canonical name; empty in inference.
    pub fn parameters(&self) -> &BTreeMap<String, Var> {
        match self {
            Self::Encoder(encoder) => encoder.parameters(),
            Self::Decoder(decoder) => decoder.parameters(),
        }
    }

    /// The id that fills short rows of a batch.
    pub fn pad_id(&self) -> u32 {
        match self {
            Self::Encoder(encoder) => encoder.pad_id(),
            Self::Decoder(_) => 0,
        }
    }
}

impl StatisticsModel {
    /// A model, with `head_from` an encoder's body with the pooler, if it lacks one, and the head of another model.
    ///
    /// # Errors
    /// The two are not of one architecture, or the other has no head.
    pub fn new(model: LocalSource, head_from: Option<LocalSource>) -> Result<Self> {
        let LocalSource { name, id, tensors, config, tokenizer } = model;
        let head = head_from.as_ref().map(|head| head.id.clone());
        let source: Box<dyn TensorSource> = match head_from {
            None => tensors,
            Some(head) => Box::new(HeadFrom::new(tensors, &config, head.tensors, &head.config)?),
        };
        let architecture = Architecture::of(&config, source.tensors().keys().map(String::as_str));
        let own_names = source.tensors().keys().map(|own| (canonical_name(own, architecture.prefix()), own.clone())).collect();
        Ok(Self { name, id, head, source, config, architecture, tokenizer, own_names })
    }

    /// Whether it is a causal language model.
    pub fn is_decoder(&self) -> bool {
        self.architecture.is_decoder()
    }

    /// What makes tokens of texts for it.
    ///
    /// # Errors
    /// It has no tokenizer.
    pub fn tokenizer(&self) -> Result<RequestTokenizer> {
        RequestTokenizer::open(&self.tokenizer, self.name.as_str(), None)
    }

    /// The longest sequence of an encoder, or the context of a decoder, in tokens.
    pub(crate) fn longest(&self) -> Result<usize> {
        if !self.is_decoder() {
            return Encoder::max_tokens_of(&self.config);
        }
        Ok(self.config.get_u64("max_position_embeddings").map_or(usize::MAX, |longest| longest as usize))
    }

    /// Loads it to be run.
    pub(crate) fn load(&self, mode: Mode) -> Result<Network> {
        let device = default_device()?;
        Ok(if self.is_decoder() {
            Network::Decoder(Decoder::load(self.source.as_ref(), &self.config, mode, &device)?)
        } else {
            Network::Encoder(Encoder::load(self.source.as_ref(), &self.config, mode, &device)?)
        })
    }

    /// A tensor's own name; None where the model has no such tensor (a head that is the embedding).
    pub(crate) fn own_name(&self, canonical: &str) -> Option<&String> {
        self.own_names.get(canonical)
    }

    /// The tensors that hold parameters: floats, but no buffers such as rotary frequencies.
    pub(crate) fn float_tensors(&self) -> impl Iterator<Item = (&String, &[u64])> {
        let infos = self.source.tensors().iter();
        infos.filter(|(name, info)| info.dtype.is_float() && !self.architecture.is_buffer(name)).map(|(name, info)| (name, &info.shape[..]))
    }
}
