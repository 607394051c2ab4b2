//! Linear layers.

use candle_core::{Result, Tensor};

use crate::fused;
use crate::pass::Pass;
use crate::weights::{Mode, Weights};

/// `y = x W^T + b`, with `W` of shape `[out, in]`.
pub(crate) struct Linear {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
    mode: Mode,
}

impl Linear {
    /// Takes `NAME.weight` and, where the layer has one, `NAME.bias`.
    pub fn load(weights: &mut Weights<'_>, name: &str, inputs: usize, outputs: usize, bias: bool) -> deltaic_checkpoint::Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = if bias { Some(weights.take(&format!("{name}.bias"), &[outputs])?) } else { None };
        Ok(Self { name: name.to_owned(), weight, bias, mode: weights.mode() })
    }

    /// A layer on a weight that is also used elsewhere.
    pub fn tied(name: &str, weight: Tensor, mode: Mode) -> Self {
        Self { name: name.to_owned(), weight, bias: None, mode }
    }

    /// Applies the layer to `[.., in]`.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        pass.observe(&self.name, x)?;
        let (outputs, inputs) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        let flat = x.reshape(((), inputs))?;
        let few = if self.mode == Mode::Inference { fused::few_rows(&flat, &self.weight)? } else { None };
        let y = match few {
            Some(y) => y,
            None => flat.matmul(&self.weight.t()?)?,
        };
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        y.reshape(shape)
    }
}
