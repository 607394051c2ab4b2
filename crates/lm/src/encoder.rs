//! Encoders: BERT, RoBERTa, XLM-R and DistilBERT, with heads of sequence classification and regression.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use deltaic_checkpoint::{Config, Error, Result, TensorSource};

use crate::activation::Activation;
use crate::attention::{MASKED, Scoring, attend};
use crate::device::Computed;
use crate::encoder_batch::EncoderBatch;
use crate::encoder_head::Head;
use crate::encoder_settings::{EncoderFamily, EncoderSettings};
use crate::linear::Linear;
use crate::norm::LayerNorm;
use crate::pass::Pass;
use crate::weights::{Mode, Weights};

/// An encoder, driven by its config.json.
pub struct Encoder {
    settings: EncoderSettings,
    embeddings: Embeddings,
    layers: Vec<Layer>,
    head: Head,
    parameters: BTreeMap<String, Var>,
    mode: Mode,
    device: Device,
}

/// What a forward pass gives.
#[derive(Debug, Clone)]
pub struct EncoderOutput {
    /// The last layer's output, `[B,T,H]`; at padding it means nothing.
    pub last_hidden_state: Tensor,
    /// `tanh(dense(first token))`, `[B,H]`, of models that have a pooler.
    pub pooler_output: Option<Tensor>,
}

impl Encoder {
    /// Loads an encoder, with its pooler and classification head where `source` has them.
    ///
    /// # Errors
    /// The architecture is not known, config.json and weights do not fit, or a tensor is missing or cannot be read.
    pub fn load(source: &dyn TensorSource, config: &Config, mode: Mode, device: &Device) -> Result<Self> {
        let settings = EncoderSettings::read(config)?;
        let mut weights = Weights::open(source, config, mode, device)?;
        let embeddings = Embeddings::load(&mut weights, &settings)?;
        let mut layers = Vec::new();
        for number in 0..settings.layers {
            layers.push(Layer::load(&mut weights, &settings, number)?);
        }
        let head = Head::load(&mut weights, &settings, config)?;
        let parameters = weights.finish()?;
        Ok(Self { settings, embeddings, layers, head, parameters, mode, device: device.clone() })
    }

    /// The number of outputs of the head: one is a regression.
    ///
    /// # Errors
    /// There is no head: the message names the tensor that is missing.
    pub fn labels(&self) -> Result<usize> {
        self.head.labels()
    }

    /// The parameters by canonical name; empty in inference.
    pub fn parameters(&self) -> &BTreeMap<String, Var> {
        &self.parameters
    }

    /// The longest sequence, in tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.settings.max_tokens()
    }

    /// As [`Self::max_tokens`], of a model that is not loaded.
    ///
    /// # Errors
    /// The architecture is not known, or config.json is not as it should be.
    pub fn max_tokens_of(config: &Config) -> Result<usize> {
        Ok(EncoderSettings::read(config)?.max_tokens())
    }

    /// The id that fills short rows of a batch.
    pub fn pad_id(&self) -> u32 {
        self.settings.pad_id
    }

    /// Number of different token ids.
    pub fn vocabulary(&self) -> usize {
        self.settings.vocab
    }

    /// Runs the body.
    ///
    /// # Errors
    /// An id lies outside of the vocabulary or of the token types, or a row is longer than [`Encoder::max_tokens`].
    pub fn forward(&self, batch: &EncoderBatch, pass: &mut Pass<'_>) -> Result<EncoderOutput> {
        batch.check(&self.settings, self.head.place())?;
        pass.begin();
        let result = self.run(batch, pass);
        pass.end(result)
    }

    /// Runs body and head: logits `[B, labels]`, or scores `[B, 1]` of a regression.
    ///
    /// # Errors
    /// As [`Encoder::forward`], and where there is no head.
    pub fn classify(&self, batch: &EncoderBatch, pass: &mut Pass<'_>) -> Result<Tensor> {
        self.head.labels()?;
        let output = self.forward(batch, pass)?;
        let result = self.head.forward(&output, pass);
        pass.end(result)
    }

    /// Answers many inputs in batches of similar length: `done(index, logits)` is called once for each input, as they come.
    /// A batch has at most `batch_tokens` tokens, padding included, but for a single longer input.
    ///
    /// # Errors
    /// As [`Encoder::classify`], or an error of `done`.
    pub fn classify_all(
        &self,
        inputs: &[crate::EncoderInput],
        batch_tokens: usize,
        done: &mut dyn FnMut(usize, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let lengths: Vec<usize> = inputs.iter().map(|input| input.ids.len()).collect();
        for members in crate::batches_by_length(&lengths, batch_tokens) {
            let rows: Vec<&crate::EncoderInput> = members.iter().map(|&index| &inputs[index]).collect();
            let batch = EncoderBatch::padded(&rows, self.settings.pad_id);
            let logits = self.classify(&batch, &mut Pass::new())?.to_vec2::<f32>().computed()?;
            for (&index, row) in members.iter().zip(logits) {
                done(index, row)?;
            }
        }
        Ok(())
    }

    fn run(&self, batch: &EncoderBatch, pass: &mut Pass<'_>) -> candle_core::Result<EncoderOutput> {
        let mut x = self.embeddings.forward(batch, &self.settings, &self.device)?;
        let mask = padding_mask(batch, &self.device)?;
        pass.keep_hidden(&x);
        for layer in &self.layers {
            x = layer.forward(&x, mask.as_ref(), self.settings.heads, self.mode, pass)?;
            pass.keep_hidden(&x);
        }
        let pooler_output = self.head.pool(&x, pass)?;
        Ok(EncoderOutput { last_hidden_state: x, pooler_output })
    }
}

/// `[B,1,1,T]`, added to scores; None where nothing is padding.
fn padding_mask(batch: &EncoderBatch, device: &Device) -> candle_core::Result<Option<Tensor>> {
    if batch.attended.iter().all(|&attended| attended) {
        return Ok(None);
    }
    let values: Vec<f32> = batch.attended.iter().map(|&attended| if attended { 0.0 } else { MASKED }).collect();
    Ok(Some(Tensor::from_vec(values, (batch.rows, 1, 1, batch.width), device)?))
}

/// Words, positions, types, and the norm over their sum.
struct Embeddings {
    words: Tensor,
    positions: Tensor,
    types: Option<Tensor>,
    norm: LayerNorm,
}

impl Embeddings {
    fn load(weights: &mut Weights<'_>, settings: &EncoderSettings) -> Result<Self> {
        let hidden = settings.hidden;
        let types = match settings.type_vocab {
            0 => None,
            kinds => Some(weights.take("embeddings.token_type_embeddings.weight", &[kinds, hidden])?),
        };
        Ok(Self {
            words: weights.take("embeddings.word_embeddings.weight", &[settings.vocab, hidden])?,
            positions: weights.take("embeddings.position_embeddings.weight", &[settings.position_rows, hidden])?,
            types,
            norm: LayerNorm::load(weights, "embeddings.LayerNorm", hidden, settings.eps)?,
        })
    }

    fn forward(&self, batch: &EncoderBatch, settings: &EncoderSettings, device: &Device) -> candle_core::Result<Tensor> {
        let looked_up = |table: &Tensor, ids: Vec<u32>| {
            let ids = Tensor::from_vec(ids, batch.rows * batch.width, device)?;
            table.index_select(&ids, 0)?.reshape((batch.rows, batch.width, settings.hidden))
        };
        let mut sum = looked_up(&self.words, batch.ids.clone())?;
        if let Some(types) = &self.types {
            sum = (sum + looked_up(types, batch.types.clone())?)?;
        }
        sum = (sum + looked_up(&self.positions, batch.positions(settings))?)?;
        self.norm.forward(&sum)
    }
}

/// Self-attention and a feed-forward network, each with a norm over the sum with its input.
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
    activation: Activation,
}

/// The names of a layer's parts: query, key, value, output, norm, up, down, norm.
const BERT_NAMES: [&str; 8] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];
const DISTILBERT_NAMES: [&str; 8] = [
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
];

impl Layer {
    fn load(weights: &mut Weights<'_>, settings: &EncoderSettings, number: usize) -> Result<Self> {
        let (stack, names) = match settings.family {
            EncoderFamily::DistilBert => ("transformer", DISTILBERT_NAMES),
            _ => ("encoder", BERT_NAMES),
        };
        let [query, key, value, output, norm, up, down, last_norm] = names.map(|name| format!("{stack}.layer.{number}.{name}"));
        let (hidden, wide, eps) = (settings.hidden, settings.intermediate, settings.eps);
        Ok(Self {
            query: Linear::load(weights, &query, hidden, hidden, true)?,
            key: Linear::load(weights, &key, hidden, hidden, true)?,
            value: Linear::load(weights, &value, hidden, hidden, true)?,
            attention_output: Linear::load(weights, &output, hidden, hidden, true)?,
            attention_norm: LayerNorm::load(weights, &norm, hidden, eps)?,
            up: Linear::load(weights, &up, hidden, wide, true)?,
            down: Linear::load(weights, &down, wide, hidden, true)?,
            output_norm: LayerNorm::load(weights, &last_norm, hidden, eps)?,
            activation: settings.activation,
        })
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>, heads: usize, mode: Mode, pass: &mut Pass<'_>) -> candle_core::Result<Tensor> {
        let (batch, width, hidden) = x.dims3()?;
        let heads_of = |linear: &Linear, pass: &mut Pass<'_>| {
            linear.forward(x, pass)?.reshape((batch, width, heads, hidden / heads))?.transpose(1, 2)?.contiguous()
        };
        let (q, k, v) = (heads_of(&self.query, pass)?, heads_of(&self.key, pass)?, heads_of(&self.value, pass)?);
        let scale = 1.0 / ((hidden / heads) as f64).sqrt();
        let mixed = attend(&q, &k, &v, mask, Scoring { scale, soft_cap: None, mode })?;
        let x = self.attention_norm.forward(&(self.attention_output.forward(&mixed, pass)? + x)?)?;
        let wide = self.activation.forward(&self.up.forward(&x, pass)?, mode)?;
        self.output_norm.forward(&(self.down.forward(&wide, pass)? + x)?)
    }
}

/// The error of a model without the tensor of a head.
pub(crate) fn no_head(place: &str, tensor: &str) -> Error {
    Error::new(format!("{place}: {tensor}: the model has no such tensor"))
        .help("it is a body without a classification head: `--head-from MODEL` takes the head of another model")
}
