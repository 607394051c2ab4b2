//! What is looked at while a model runs: inputs of linear layers, hidden states.

use candle_core::Tensor;
use deltaic_checkpoint::{Error, Result};

use crate::device::Computed;

/// Sees the inputs of linear layers, for statistics such as RegMean's Gram matrices.
pub trait Observer {
    /// A linear layer is about to be applied to `input`, `[.., in]`, padding included. `name` is its weight's canonical name without
    /// `.weight`: `layers.0.self_attn.q_proj`, `classifier`. Layers that share their input report it once each.
    ///
    /// # Errors
    /// An error ends the forward pass and is handed to its caller.
    fn linear_input(&mut self, name: &str, input: &Tensor) -> Result<()>;
}

/// One forward pass: who looks on, and what is kept of it.
#[derive(Default)]
pub struct Pass<'a> {
    observer: Option<&'a mut dyn Observer>,
    hidden_states: Option<Vec<Tensor>>,
    failure: Option<Error>,
}

impl<'a> Pass<'a> {
    /// A pass that nobody looks at.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports the input of every linear layer to `observer`.
    pub fn observed_by(mut self, observer: &'a mut dyn Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Keeps the hidden states.
    pub fn keeping_hidden_states(mut self) -> Self {
        self.hidden_states = Some(Vec::new());
        self
    }

    /// The hidden states `[B,T,H]` of the last forward call, where they are kept: the embeddings, then the output of every layer; the
    /// last one has gone through the model's final norm (transformers' `output_hidden_states`).
    pub fn hidden_states(&self) -> &[Tensor] {
        self.hidden_states.as_deref().unwrap_or_default()
    }

    pub(crate) fn begin(&mut self) {
        if let Some(kept) = &mut self.hidden_states {
            kept.clear();
        }
    }

    pub(crate) fn keep_hidden(&mut self, state: &Tensor) {
        if let Some(kept) = &mut self.hidden_states {
            kept.push(state.clone());
        }
    }

    /// Inside of a model errors are candle's: an observer's own is kept here until the pass ends.
    pub(crate) fn observe(&mut self, name: &str, input: &Tensor) -> candle_core::Result<()> {
        let Some(observer) = &mut self.observer else { return Ok(()) };
        observer.linear_input(name, input).map_err(|error| {
            self.failure = Some(error);
            candle_core::Error::Msg("stopped by the observer".to_owned())
        })
    }

    /// The result of a pass as its caller sees it.
    pub(crate) fn end<T>(&mut self, result: candle_core::Result<T>) -> Result<T> {
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => result.computed(),
        }
    }
}
