//! Activation functions by the names that config.json has for them.

use candle_core::{Result, Tensor};

use crate::fused;
use crate::settings::Keys;
use crate::weights::Mode;

/// An element-wise function between two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x * Phi(x)`.
    Gelu,
    /// GELU's approximation by tanh.
    GeluTanh,
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
    Tanh,
}

impl Activation {
    /// The activation under the first of `keys` that is there.
    pub fn read(config: Keys<'_>, keys: &[&str], default: Self) -> deltaic_checkpoint::Result<Self> {
        let Some((key, name)) = config.text(keys)? else { return Ok(default) };
        match name.as_str() {
            "gelu" | "gelu_python" => Ok(Self::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Ok(Self::GeluTanh),
            "relu" => Ok(Self::Relu),
            "silu" | "swish" => Ok(Self::Silu),
            "tanh" => Ok(Self::Tanh),
            _ => Err(config.unknown(&key, &name, &["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "tanh"])),
        }
    }

    /// As `mode` needs it.
    pub fn forward(self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Inference { fused::activate(x, self) } else { self.apply(x) }
    }

    /// `activation(gate) * up`, as `mode` needs it.
    pub fn gate(self, gate: &Tensor, up: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Inference { fused::gated(gate, up, self) } else { self.apply(gate)? * up }
    }

    /// By candle's operations, which have gradients.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
            Self::Tanh => x.tanh(),
        }
    }
}
