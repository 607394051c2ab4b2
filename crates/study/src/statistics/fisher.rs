//! The diagonal of a model's Fisher information: squares of gradients.
//!
//! `batch: example` is the definition: the mean over examples of the expected square of the gradient of `log p`, the expectation over the
//! model's own distribution for a classification head. `batch: sum` is what the authors' program computes (MergeLM's `fisher_merging`,
//! <https://github.com/yule-BUAA/MergeLM>): the square of a batch's summed gradient, cross terms included.

use candle_core::{D, Device, Tensor, Var};
use deltaic_checkpoint::{Error, Result};
use deltaic_lm::{Computed, Decoder, DecoderBatch, Encoder, Mode, Pass};
use deltaic_merge::recipe::{FisherBatch, FisherSettings, Targets};

use super::examples::{Batch, Example, Width};
use super::gradients::{GradientSums, add_squares, log_softmax};
use super::model::{Network, StatisticsModel};
use super::run::Work;
use super::sampling::draw;
use super::slots::{PassSlots, SlotSpec};

/// The making of a model's Fisher information.
pub(crate) struct Fisher<'a> {
    network: Network,
    examples: &'a [Example],
    settings: &'a FisherSettings,
    specs: Vec<SlotSpec>,
    parameters: Vec<Var>,
}

impl<'a> Fisher<'a> {
    /// Loads the model, and sees whether examples and model go together.
    pub fn new(model: &StatisticsModel, examples: &'a [Example], settings: &'a FisherSettings) -> Result<Self> {
        let network = model.load(Mode::Differentiable)?;
        match &network {
            Network::Encoder(encoder) if encoder.labels()? == 1 => {
                if let Some(example) = examples.iter().position(|example| example.label.is_none()) {
                    return Err(Error::new(format!("{}: example {example} has no label, which a regression's gradient needs", model.name))
                        .help("the file of inputs needs `labels`, or the task's labels have to be scores"));
                }
            }
            Network::Encoder(_) => {}
            Network::Decoder(_) => {
                let is_too_short = |example: &Example| !(1..example.tokens().len()).contains(&example.scored_from);
                if let Some(example) = examples.iter().position(is_too_short) {
                    let (from, length) = (examples[example].scored_from, examples[example].tokens().len());
                    return Err(Error::new(format!(
                        "{}: example {example}: targets from token {from} on, of {length} tokens: expected at least one target with a token before it",
                        model.name
                    )));
                }
            }
        }
        let named = network.parameters().iter().filter_map(|(name, variable)| Some((model.own_name(name)?, variable)));
        let (specs, parameters) = named
            .map(|(name, variable)| {
                let shape = variable.dims().iter().map(|&length| length as u64).collect();
                (SlotSpec { names: vec![name.clone()], shape }, variable.clone())
            })
            .unzip();
        Ok(Self { network, examples, settings, specs, parameters })
    }

    fn batch(&self) -> usize {
        match self.settings.batch {
            FisherBatch::Example => 1,
            FisherBatch::Sum { size } => size.max(1),
        }
    }

    fn add(&self, slots: &mut PassSlots, weight: f64, loss: &Tensor) -> Result<()> {
        add_squares(&self.parameters, slots, weight, &loss.backward().computed()?)
    }

    /// One example of a head.
    fn classification(&self, encoder: &Encoder, logits: &Tensor, label: Option<f32>, slots: &mut PassSlots) -> Result<()> {
        let logits = logits.squeeze(0).computed()?;
        match encoder.labels()? {
            1 => self.add(slots, 1.0, &squared_error(&logits, &[label.unwrap_or_default()]).computed()?),
            2 => {
                // With two classes d log p_0 = p_1 d(z_0 - z_1) and d log p_1 = -p_0 d(z_0 - z_1): the expectation needs one backward pass.
                let z = logits.to_vec1::<f32>().computed()?;
                let odds = f64::from(z[0] - z[1]).exp();
                let weight = 1.0 / ((1.0 + odds) * (1.0 + 1.0 / odds));
                let difference = logits.get(0).and_then(|first| first - logits.get(1)?).computed()?;
                self.add(slots, weight, &difference)
            }
            _ => {
                let logs = log_softmax(&logits).computed()?;
                let values = logs.to_vec1::<f32>().computed()?;
                for (class, &value) in values.iter().enumerate() {
                    self.add(slots, f64::from(value).exp(), &logs.get(class).computed()?)?;
                }
                Ok(())
            }
        }
    }

    /// The log-likelihood of a sequence's targets, with its graph.
    fn log_likelihood(&self, decoder: &Decoder, number: usize) -> Result<Tensor> {
        let example = &self.examples[number];
        let tokens = example.tokens();
        let read = tokens.len() - 1;
        let (first, count) = (example.scored_from - 1, tokens.len() - example.scored_from);
        let mut pass = Pass::new();
        let hidden = decoder.forward(&DecoderBatch::right_padded(&[&tokens[..read]]), None, &mut pass)?;
        let hidden = hidden.narrow(1, first, count).and_then(|hidden| hidden.squeeze(0)?.contiguous()).computed()?;
        let logs = log_softmax(&decoder.logits(&hidden, &mut pass)?).computed()?;
        let targets = match self.settings.targets {
            Targets::Empirical => tokens[example.scored_from..].to_vec(),
            Targets::Sampled { seed } => draw(&logs.to_vec2::<f32>().computed()?, seed, number as u64)?,
        };
        if let Some(target) = targets.iter().find(|&&target| target as usize >= decoder.vocabulary()) {
            return Err(Error::new(format!("example {number}: token {target}, the model's vocabulary has {}", decoder.vocabulary()))
                .help("tokenizer and weights are not of one model"));
        }
        Tensor::from_vec(targets, (count, 1), logs.device()).and_then(|targets| logs.gather(&targets, D::Minus1)?.sum_all()).computed()
    }
}

impl Work for Fisher<'_> {
    fn specs(&self) -> &[SlotSpec] {
        &self.specs
    }

    fn steps(&self) -> usize {
        self.examples.len().div_ceil(self.batch())
    }

    fn examples_after(&self, step: usize) -> usize {
        ((step + 1) * self.batch()).min(self.examples.len())
    }

    fn step(&mut self, step: usize, slots: &mut PassSlots) -> Result<()> {
        let range = step * self.batch()..self.examples_after(step);
        let examples = &self.examples[range.clone()];
        match (&self.network, self.settings.batch) {
            (Network::Encoder(encoder), batch) => {
                let inputs = Batch::new(examples, Width::Longest, encoder.pad_id()).encoder()?;
                let logits = encoder.classify(&inputs, &mut Pass::new())?;
                match batch {
                    FisherBatch::Example => self.classification(encoder, &logits, examples[0].label, slots)?,
                    FisherBatch::Sum { .. } => self.add(slots, 1.0, &summed(&logits, examples).computed()?)?,
                }
            }
            (Network::Decoder(decoder), FisherBatch::Example) => {
                self.add(slots, 1.0, &self.log_likelihood(decoder, range.start)?)?;
            }
            (Network::Decoder(decoder), FisherBatch::Sum { .. }) => {
                // A sum's gradient is the sum of gradients: one sequence's activations are in memory at a time.
                let mut sums = GradientSums::default();
                for number in range {
                    sums.add(&self.parameters, &self.log_likelihood(decoder, number)?.backward().computed()?)?;
                }
                sums.add_squares(slots)?;
            }
        }
        // The authors' counter grows by the configured size, also for a short batch.
        let counted = self.batch() as u64;
        slots.slots.iter_mut().for_each(|slot| slot.count += counted);
        Ok(())
    }
}

/// The mean over a batch of `(y^ - y)^2`; `predictions` is `[B]`.
fn squared_error(predictions: &Tensor, labels: &[f32]) -> candle_core::Result<Tensor> {
    let labels = Tensor::new(labels, &Device::Cpu)?.to_device(predictions.device())?;
    (predictions - labels)?.sqr()?.mean_all()
}

/// The authors' loss of a batch: `sum sqrt(p) log p` over examples and classes, its `sqrt(p)` without a gradient; of a regression the mean
/// squared error.
fn summed(logits: &Tensor, examples: &[Example]) -> candle_core::Result<Tensor> {
    if logits.dim(D::Minus1)? == 1 {
        let labels: Vec<f32> = examples.iter().map(|example| example.label.unwrap_or_default()).collect();
        return squared_error(&logits.squeeze(1)?, &labels);
    }
    let logs = log_softmax(logits)?;
    let roots = (logs.detach() * 0.5)?.exp()?;
    (roots * logs)?.sum_all()
}
