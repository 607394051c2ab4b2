//! Layer norm and RMS norm.

use candle_core::{D, Result, Tensor};

use crate::fused;
use crate::weights::{Mode, Weights};

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last axis (Ba et al. 2016).
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    mode: Mode,
}

impl LayerNorm {
    pub fn load(weights: &mut Weights<'_>, name: &str, size: usize, eps: f64) -> deltaic_checkpoint::Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[size])?;
        let bias = weights.take(&format!("{name}.bias"), &[size])?;
        Ok(Self { weight, bias, eps, mode: weights.mode() })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.mode == Mode::Inference {
            return fused::layer_norm(x, &self.weight, &self.bias, self.eps);
        }
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        centred.broadcast_div(&deviation)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight` over the last axis (Zhang and Sennrich 2019).
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
    /// Gemma multiplies by `1 + weight`.
    plus_one: bool,
    mode: Mode,
}

impl RmsNorm {
    pub fn load(weights: &mut Weights<'_>, name: &str, size: usize, eps: f64, plus_one: bool) -> deltaic_checkpoint::Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[size])?;
        Ok(Self { weight, eps, plus_one, mode: weights.mode() })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weight = if self.plus_one { (&self.weight + 1.0)? } else { self.weight.clone() };
        if self.mode == Mode::Inference {
            return fused::rms_norm(x, &weight, self.eps);
        }
        let root = (x.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(&weight)
    }
}
