//! Scaled dot-product attention, for any number of query heads per key head.

use candle_core::{D, Result, Tensor};

use crate::fused;
use crate::weights::Mode;

/// Added to a score that must not count. Finite, so that a row in which nothing counts (padding) gives a mean and not NaN, which would
/// spread through the products with zero weights.
pub(crate) const MASKED: f32 = f32::MIN;

/// How scores are formed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scoring {
    /// Factor on the products of queries and keys.
    pub scale: f64,
    /// `cap * tanh(score / cap)` before the mask (Gemma 2).
    pub soft_cap: Option<f64>,
    pub mode: Mode,
}

/// `softmax(q k^T * scale + mask) v`.
///
/// `q` is `[B, heads, T, D]`, `k` and `v` `[B, key heads, K, D]`, `mask` `[B or 1, 1, T, K]` and added; the result is `[B, T, heads * D]`.
pub(crate) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, scoring: Scoring) -> Result<Tensor> {
    let (batch, heads, queries, size) = q.dims4()?;
    let (_, key_heads, keys, _) = k.dims4()?;
    let group = heads / key_heads;
    // The query heads that share a key head are rows of one product: keys and values are never repeated.
    let q = q.reshape((batch, key_heads, group * queries, size))?;
    let mut scores = q.matmul(&k.t()?)?;
    let fused = scoring.mode == Mode::Inference;
    if scoring.soft_cap.is_some() || !fused {
        scores = (scores * scoring.scale)?;
    }
    if let Some(cap) = scoring.soft_cap {
        scores = ((scores / cap)?.tanh()? * cap)?;
    }
    let weights = if fused {
        fused::softmax(&scores, if scoring.soft_cap.is_some() { 1.0 } else { scoring.scale }, mask)?
    } else {
        if let Some(mask) = mask {
            scores = scores.reshape((batch, heads, queries, keys))?.broadcast_add(mask)?;
        }
        softmax(&scores)?.reshape((batch, key_heads, group * queries, keys))?
    };
    let mixed = weights.matmul(v)?;
    mixed.reshape((batch, heads, queries, size))?.transpose(1, 2)?.reshape((batch, queries, heads * size))
}

/// Softmax over the last axis, with a gradient.
fn softmax(x: &Tensor) -> Result<Tensor> {
    // The largest element only shifts: no gradient flows through it.
    let exponents = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exponents.broadcast_div(&exponents.sum_keepdim(D::Minus1)?)
}
