//! One layer of a decoder: attention and a gated feed-forward network.

use candle_core::{D, Result, Tensor};

use crate::activation::Activation;
use crate::attention::{Scoring, attend};
use crate::decoder_settings::DecoderSettings;
use crate::kv_cache::KvCache;
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::pass::Pass;
use crate::rope::RopeTables;
use crate::weights::{Mode, Weights};

/// A layer: `x + attention(norm(x))`, then `x + mlp(norm(x))`, with what the architectures add to that.
pub(crate) struct DecoderLayer {
    attention: Attention,
    mlp: Mlp,
    attention_norm: RmsNorm,
    mlp_norm: RmsNorm,
    /// Gemma 2: norms on what attention and network add.
    norms_after: Option<(RmsNorm, RmsNorm)>,
    residual_scale: f64,
    /// How many keys a query sees; None for all.
    pub window: Option<usize>,
}

/// What all layers of a pass share.
pub(crate) struct Positioned<'a> {
    pub tables: &'a RopeTables,
    pub mask: Option<&'a Tensor>,
    /// The layer's number, and the cache where there is one.
    pub cache: Option<(usize, &'a mut KvCache)>,
}

impl DecoderLayer {
    pub fn load(weights: &mut Weights<'_>, settings: &DecoderSettings, number: usize) -> deltaic_checkpoint::Result<Self> {
        let name = format!("layers.{number}");
        let norm = |weights: &mut Weights<'_>, part: &str| {
            RmsNorm::load(weights, &format!("{name}.{part}"), settings.hidden, settings.eps, settings.norm_plus_one)
        };
        let attention_norm = norm(weights, "input_layernorm")?;
        let (mlp_norm, norms_after) = if settings.norms_after {
            let after = (norm(weights, "post_attention_layernorm")?, norm(weights, "post_feedforward_layernorm")?);
            (norm(weights, "pre_feedforward_layernorm")?, Some(after))
        } else {
            (norm(weights, "post_attention_layernorm")?, None)
        };
        Ok(Self {
            attention: Attention::load(weights, settings, &name)?,
            mlp: Mlp::load(weights, settings, &name)?,
            attention_norm,
            mlp_norm,
            norms_after,
            residual_scale: settings.residual_scale,
            window: settings.windows.get(number).copied().flatten(),
        })
    }

    pub fn forward(&self, x: &Tensor, positioned: Positioned<'_>, pass: &mut Pass<'_>) -> Result<Tensor> {
        let mut added = self.attention.forward(&self.attention_norm.forward(x)?, positioned, pass)?;
        if let Some((after, _)) = &self.norms_after {
            added = after.forward(&added)?;
        }
        let x = (x + self.scaled(added)?)?;
        let mut added = self.mlp.forward(&self.mlp_norm.forward(&x)?, pass)?;
        if let Some((_, after)) = &self.norms_after {
            added = after.forward(&added)?;
        }
        x + self.scaled(added)?
    }

    fn scaled(&self, added: Tensor) -> Result<Tensor> {
        if self.residual_scale == 1.0 { Ok(added) } else { added * self.residual_scale }
    }
}

/// Queries, keys and values: three layers, or one with all their rows.
enum Projections {
    Apart { query: Linear, key: Linear, value: Linear },
    Fused(Linear),
}

struct Attention {
    projections: Projections,
    output: Linear,
    head_norms: Option<(RmsNorm, RmsNorm)>,
    heads: usize,
    key_heads: usize,
    head_dim: usize,
    scoring: Scoring,
}

impl Attention {
    fn load(weights: &mut Weights<'_>, settings: &DecoderSettings, layer: &str) -> deltaic_checkpoint::Result<Self> {
        let (hidden, size) = (settings.hidden, settings.head_dim);
        let (rows, key_rows) = (settings.heads * size, settings.key_heads * size);
        let mut linear =
            |part: &str, inputs, outputs, bias| Linear::load(weights, &format!("{layer}.self_attn.{part}"), inputs, outputs, bias);
        let bias = settings.biases.qkv;
        let projections = if settings.fused {
            Projections::Fused(linear("qkv_proj", hidden, rows + 2 * key_rows, bias)?)
        } else {
            Projections::Apart {
                query: linear("q_proj", hidden, rows, bias)?,
                key: linear("k_proj", hidden, key_rows, bias)?,
                value: linear("v_proj", hidden, key_rows, bias)?,
            }
        };
        let output = linear("o_proj", rows, hidden, settings.biases.output)?;
        let head_norms = if settings.head_norms {
            let mut norm = |part: &str| RmsNorm::load(weights, &format!("{layer}.self_attn.{part}"), size, settings.eps, false);
            Some((norm("q_norm")?, norm("k_norm")?))
        } else {
            None
        };
        let scoring = Scoring { scale: settings.attention_scale, soft_cap: settings.attention_soft_cap, mode: weights.mode() };
        Ok(Self { projections, output, head_norms, heads: settings.heads, key_heads: settings.key_heads, head_dim: size, scoring })
    }

    fn forward(&self, x: &Tensor, positioned: Positioned<'_>, pass: &mut Pass<'_>) -> Result<Tensor> {
        let (q, k, v) = self.project(x, pass)?;
        let (q, k) = match &self.head_norms {
            Some((query, key)) => (query.forward(&q)?, key.forward(&k)?),
            None => (q, k),
        };
        let mode = self.scoring.mode;
        let (q, k) = (positioned.tables.turn(&q, mode)?, positioned.tables.turn(&k, mode)?);
        let (k, v) = match positioned.cache {
            Some((layer, cache)) => cache.append(layer, &k, &v)?,
            None => (k, v),
        };
        let mixed = attend(&q, &k, &v, positioned.mask, self.scoring)?;
        self.output.forward(&mixed, pass)
    }

    /// Queries `[B, heads, T, D]`, keys and values `[B, key heads, T, D]`.
    fn project(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<(Tensor, Tensor, Tensor)> {
        let (rows, key_rows) = (self.heads * self.head_dim, self.key_heads * self.head_dim);
        let (q, k, v) = match &self.projections {
            Projections::Apart { query, key, value } => (query.forward(x, pass)?, key.forward(x, pass)?, value.forward(x, pass)?),
            Projections::Fused(all) => {
                let all = all.forward(x, pass)?;
                let part = |start, length| all.narrow(D::Minus1, start, length);
                (part(0, rows)?, part(rows, key_rows)?, part(rows + key_rows, key_rows)?)
            }
        };
        let (batch, width, _) = x.dims3()?;
        let split = |y: Tensor, heads| y.reshape((batch, width, heads, self.head_dim))?.transpose(1, 2)?.contiguous();
        Ok((split(q, self.heads)?, split(k, self.key_heads)?, split(v, self.key_heads)?))
    }
}

/// Gate and input of the network: two layers, or one with all their rows.
enum Gates {
    Apart { gate: Linear, up: Linear },
    Fused(Linear),
}

/// `down(activation(gate(x)) * up(x))`.
struct Mlp {
    gates: Gates,
    down: Linear,
    activation: Activation,
    mode: Mode,
}

impl Mlp {
    fn load(weights: &mut Weights<'_>, settings: &DecoderSettings, layer: &str) -> deltaic_checkpoint::Result<Self> {
        let (hidden, wide, bias) = (settings.hidden, settings.intermediate, settings.biases.mlp);
        let mut linear = |part: &str, inputs, outputs| Linear::load(weights, &format!("{layer}.mlp.{part}"), inputs, outputs, bias);
        let gates = if settings.fused {
            Gates::Fused(linear("gate_up_proj", hidden, 2 * wide)?)
        } else {
            Gates::Apart { gate: linear("gate_proj", hidden, wide)?, up: linear("up_proj", hidden, wide)? }
        };
        let down = linear("down_proj", wide, hidden)?;
        Ok(Self { gates, down, activation: settings.activation, mode: weights.mode() })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let (gate, up) = match &self.gates {
            Gates::Apart { gate, up } => (gate.forward(x, pass)?, up.forward(x, pass)?),
            Gates::Fused(both) => {
                let both = both.forward(x, pass)?;
                let wide = both.dim(D::Minus1)? / 2;
                (both.narrow(D::Minus1, 0, wide)?, both.narrow(D::Minus1, wide, wide)?)
            }
        };
        self.down.forward(&self.activation.gate(&gate, &up, self.mode)?, pass)
    }
}
