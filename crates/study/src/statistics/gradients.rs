//! Gradients of a model, added to sums of squares.

use candle_core::backprop::GradStore;
use candle_core::{D, Storage, Tensor, Var, WithDType};
use deltaic_checkpoint::Result;
use deltaic_lm::Computed;

use super::slots::PassSlots;

/// Adds `weight * gradient^2` of every parameter to its slot. A parameter without a gradient adds nothing.
pub(crate) fn add_squares(parameters: &[Var], slots: &mut PassSlots, weight: f64, gradients: &GradStore) -> Result<()> {
    for (number, parameter) in parameters.iter().enumerate() {
        if let (Some(gradient), Some(slot)) = (gradients.get(parameter.as_tensor()), slots.get_mut(number)) {
            with_values(gradient, |values| slot.add_squares(weight, values))?;
        }
    }
    Ok(())
}

/// Hands over a tensor's elements in row-major order, where it can without a copy.
pub(crate) fn with_values<T: WithDType>(tensor: &Tensor, take: impl FnOnce(&[T])) -> Result<()> {
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            take(&storage.as_slice::<T>().computed()?[start..end]);
            return Ok(());
        }
    }
    take(&tensor.flatten_all().and_then(|flat| flat.to_vec1::<T>()).computed()?);
    Ok(())
}

/// Sums of gradients over several backward passes.
#[derive(Default)]
pub(crate) struct GradientSums(Vec<Option<Tensor>>);

impl GradientSums {
    /// Adds the gradients of one pass.
    pub fn add(&mut self, parameters: &[Var], gradients: &GradStore) -> Result<()> {
        self.0.resize(parameters.len(), None);
        for (sum, parameter) in self.0.iter_mut().zip(parameters) {
            let Some(gradient) = gradients.get(parameter.as_tensor()) else { continue };
            *sum = Some(match sum.take() {
                Some(before) => (before + gradient).computed()?,
                None => gradient.clone(),
            });
        }
        Ok(())
    }

    /// Adds the squares of the sums to the slots.
    pub fn add_squares(&self, slots: &mut PassSlots) -> Result<()> {
        for (number, sum) in self.0.iter().enumerate() {
            if let (Some(sum), Some(slot)) = (sum, slots.get_mut(number)) {
                with_values(sum, |values| slot.add_squares(1.0, values))?;
            }
        }
        Ok(())
    }
}

/// `log softmax` over the last axis, with a gradient.
pub(crate) fn log_softmax(logits: &Tensor) -> candle_core::Result<Tensor> {
    candle_nn::ops::log_softmax(logits, D::Minus1)
}
