//! Operations of inference in one pass over memory each. None of them has a gradient.
//!
//! On the CPU they are kernels of this crate, split over rayon's threads; on other devices candle's own operations.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use deltaic_kernels::Kernels;
use rayon::prelude::*;

use crate::activation::Activation;
use crate::fast_math::{Gate, LayerNormRow, RmsNormRow, SoftmaxRow, WeightedRows};

/// Elements that one thread takes at least.
const GRAIN: usize = 1 << 14;

/// `softmax(scores * scale + mask)` over the last axis. `scores` is `[B, key heads, group * T, K]`, `mask` `[1 or B, 1, T, K]`.
pub(crate) fn softmax(scores: &Tensor, scale: f64, mask: Option<&Tensor>) -> Result<Tensor> {
    let scores = scores.contiguous()?;
    if !scores.device().is_cpu() {
        let scores = (scores * scale)?;
        let Some(mask) = mask else { return candle_nn::ops::softmax_last_dim(&scores) };
        let (batch, key_heads, lines, keys) = scores.dims4()?;
        let queries = mask.dim(2)?;
        let masked = scores.reshape((batch, key_heads * lines / queries, queries, keys))?.broadcast_add(mask)?;
        return candle_nn::ops::softmax_last_dim(&masked)?.reshape((batch, key_heads, lines, keys));
    }
    let op = Softmax { scale: scale as f32 };
    match mask {
        Some(mask) => scores.apply_op2_no_bwd(&mask.contiguous()?, &op),
        None => scores.apply_op1_no_bwd(&op),
    }
}

/// Layer norm over the last axis.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.contiguous()?;
    if !x.device().is_cpu() {
        return candle_nn::ops::layer_norm(&x, weight, bias, eps as f32);
    }
    x.apply_op3_no_bwd(weight, bias, &LayerNorm { eps: eps as f32 })
}

/// RMS norm over the last axis.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.contiguous()?;
    if !x.device().is_cpu() {
        return candle_nn::ops::rms_norm(&x, weight, eps as f32);
    }
    x.apply_op2_no_bwd(weight, &RmsNorm { eps: eps as f32 })
}

/// `activation(x)`.
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let x = x.contiguous()?;
    if x.device().is_cpu() { x.apply_op1_no_bwd(&Gated { activation }) } else { activation.apply(&x) }
}

/// `activation(gate) * up`.
pub(crate) fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    let (gate, up) = (gate.contiguous()?, up.contiguous()?);
    if gate.device().is_cpu() { gate.apply_op2_no_bwd(&up, &Gated { activation }) } else { activation.apply(&gate)? * up }
}

/// `x W^T` for few rows of `x`, `[N, in]`: reads `W`, `[out, in]`, once. None where a matrix product is the better way.
pub(crate) fn few_rows(x: &Tensor, weight: &Tensor) -> Result<Option<Tensor>> {
    const FEW: usize = 4;
    if x.dim(0)? > FEW || !x.device().is_cpu() || !weight.is_contiguous() {
        return Ok(None);
    }
    x.contiguous()?.apply_op2_no_bwd(weight, &FewRows).map(Some)
}

/// The elements of a contiguous f32 tensor.
fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("expected contiguous f32 elements"),
    }
}

/// Makes a tensor like `x`, row by row of its last axis: `make(row number, its elements, the row to be filled)`.
fn by_rows(x: &[f32], layout: &Layout, make: impl Fn(usize, &[f32], &mut [f32]) + Sync) -> Result<(CpuStorage, Shape)> {
    let size = layout.dims().last().copied().unwrap_or(1).max(1);
    let mut out = vec![0.0; x.len()];
    let rows = (GRAIN / size).max(1);
    let work = |(part, (x, out)): (usize, (&[f32], &mut [f32]))| {
        for (row, (x, out)) in x.chunks(size).zip(out.chunks_mut(size)).enumerate() {
            make(part * rows + row, x, out);
        }
    };
    if x.len() <= GRAIN {
        work((0, (x, &mut out)));
    } else {
        x.par_chunks(rows * size).zip(out.par_chunks_mut(rows * size)).enumerate().for_each(work);
    }
    Ok((CpuStorage::F32(out), layout.shape().clone()))
}

struct Softmax {
    scale: f32,
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let kernels = Kernels::detect();
        by_rows(elements(storage, layout)?, layout, |_, scores, out| kernels.run(SoftmaxRow { scores, scale: self.scale, mask: None, out }))
    }
}

impl CustomOp2 for Softmax {
    fn name(&self) -> &'static str {
        "masked-softmax"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout, mask: &CpuStorage, mask_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (kernels, mask) = (Kernels::detect(), elements(mask, mask_layout)?);
        let (&[masks, 1, queries, keys], &[_, key_heads, lines, _]) = (mask_layout.dims(), layout.dims()) else {
            candle_core::bail!("a mask {:?} for scores {:?}", mask_layout.dims(), layout.dims())
        };
        if layout.dims()[3] != keys || (masks != 1 && masks != layout.dims()[0]) || !lines.is_multiple_of(queries) {
            candle_core::bail!("a mask {:?} for scores {:?}", mask_layout.dims(), layout.dims())
        }
        let per_batch = key_heads * lines;
        by_rows(elements(scores, layout)?, layout, |row, scores, out| {
            let line = if masks == 1 { row % queries } else { row / per_batch * queries + row % queries };
            let mask = Some(&mask[line * keys..][..keys]);
            kernels.run(SoftmaxRow { scores, scale: self.scale, mask, out });
        })
    }
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (weight, bias) = (elements(weight, weight_layout)?, elements(bias, bias_layout)?);
        let (kernels, eps) = (Kernels::detect(), self.eps);
        by_rows(elements(x, layout)?, layout, |_, x, out| kernels.run(LayerNormRow { x, weight, bias, eps, out }))
    }
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout, weight: &CpuStorage, weight_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (weight, kernels, eps) = (elements(weight, weight_layout)?, Kernels::detect(), self.eps);
        by_rows(elements(x, layout)?, layout, |_, x, out| kernels.run(RmsNormRow { x, weight, eps, out }))
    }
}

struct Gated {
    activation: Activation,
}

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (kernels, activation) = (Kernels::detect(), self.activation);
        by_rows(elements(x, layout)?, layout, |_, gate, out| kernels.run(Gate { gate, up: None, activation, out }))
    }
}

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated-activation"
    }

    fn cpu_fwd(&self, gate: &CpuStorage, layout: &Layout, up: &CpuStorage, up_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (kernels, activation, up) = (Kernels::detect(), self.activation, elements(up, up_layout)?);
        let size = layout.dims().last().copied().unwrap_or(1);
        by_rows(elements(gate, layout)?, layout, |row, gate, out| {
            kernels.run(Gate { gate, up: Some(&up[row * size..][..size]), activation, out });
        })
    }
}

struct FewRows;

impl CustomOp2 for FewRows {
    fn name(&self) -> &'static str {
        "few-rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout, weight: &CpuStorage, weight_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (elements(x, layout)?, elements(weight, weight_layout)?);
        let (&[rows, inputs], &[outputs, columns]) = (layout.dims(), weight_layout.dims()) else {
            candle_core::bail!("expected matrices, found {:?} and {:?}", layout.dims(), weight_layout.dims())
        };
        if inputs != columns || inputs == 0 {
            candle_core::bail!("a product of {:?} and {:?}", layout.dims(), weight_layout.dims())
        }
        let kernels = Kernels::detect();
        // Output by output, as the weight is stored; turned round at the end.
        let mut by_output = vec![0.0; rows * outputs];
        let part = (GRAIN / inputs).max(1);
        let work = |(weight, out): (&[f32], &mut [f32])| kernels.run(WeightedRows { x, weight, inputs, out });
        weight.par_chunks(part * inputs).zip(by_output.par_chunks_mut(part * rows)).for_each(work);
        let out = if rows == 1 {
            by_output
        } else {
            (0..rows * outputs).map(|index| by_output[index % outputs * rows + index / outputs]).collect()
        };
        Ok((CpuStorage::F32(out), Shape::from_dims(&[rows, outputs])))
    }
}
