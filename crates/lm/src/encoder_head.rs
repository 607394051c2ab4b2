//! What stands on an encoder's body: the pooler, and the heads of sequence classification and regression.

use candle_core::{Result, Tensor};
use deltaic_checkpoint::Config;

use crate::encoder::{EncoderOutput, no_head};
use crate::encoder_settings::{EncoderFamily, EncoderSettings};
use crate::linear::Linear;
use crate::pass::Pass;
use crate::weights::Weights;

/// The pooler and the classifier of a model, as far as it has them.
pub(crate) struct Head {
    /// The model's folder, for messages.
    place: String,
    family: EncoderFamily,
    pooler: Option<Linear>,
    /// RoBERTa's `classifier.dense`, DistilBERT's `pre_classifier`.
    dense: Option<Linear>,
    classifier: Option<Linear>,
    labels: usize,
}

impl Head {
    pub fn load(weights: &mut Weights<'_>, settings: &EncoderSettings, config: &Config) -> deltaic_checkpoint::Result<Self> {
        let (hidden, family) = (settings.hidden, settings.family);
        let pooler =
            if weights.contains("pooler.dense.weight") { Some(Linear::load(weights, "pooler.dense", hidden, hidden, true)?) } else { None };
        let name = classifier_name(family);
        let place = config.path().parent().unwrap_or(config.path()).display().to_string();
        let mut head = Self { place, family, pooler, dense: None, classifier: None, labels: 0 };
        // Another head's tensor of the same name (one score per choice) has the same form: rows are labels.
        let Some(&[labels, _]) = weights.shape(&format!("{name}.weight")) else { return Ok(head) };
        head.labels = labels as usize;
        head.classifier = Some(Linear::load(weights, name, hidden, head.labels, true)?);
        let dense = match family {
            EncoderFamily::Bert => return Ok(head),
            EncoderFamily::Roberta => "classifier.dense",
            EncoderFamily::DistilBert => "pre_classifier",
        };
        head.dense = Some(Linear::load(weights, dense, hidden, hidden, true)?);
        Ok(head)
    }

    /// The model's folder, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub fn labels(&self) -> deltaic_checkpoint::Result<usize> {
        if self.classifier.is_none() {
            return Err(no_head(&self.place, &format!("{}.weight", classifier_name(self.family))));
        }
        // BERT's classifier reads the pooler's output.
        if self.family == EncoderFamily::Bert && self.pooler.is_none() {
            return Err(no_head(&self.place, "pooler.dense.weight"));
        }
        Ok(self.labels)
    }

    /// `tanh(dense(first token))`.
    pub fn pool(&self, hidden: &Tensor, pass: &mut Pass<'_>) -> Result<Option<Tensor>> {
        match &self.pooler {
            Some(pooler) => Ok(Some(pooler.forward(&first_token(hidden)?, pass)?.tanh()?)),
            None => Ok(None),
        }
    }

    /// Logits `[B, labels]`.
    pub fn forward(&self, output: &EncoderOutput, pass: &mut Pass<'_>) -> Result<Tensor> {
        let first = || first_token(&output.last_hidden_state);
        let features = match (self.family, &self.dense, &output.pooler_output) {
            (EncoderFamily::Bert, _, Some(pooled)) => pooled.clone(),
            (EncoderFamily::Roberta, Some(dense), _) => dense.forward(&first()?, pass)?.tanh()?,
            (EncoderFamily::DistilBert, Some(dense), _) => dense.forward(&first()?, pass)?.relu()?,
            _ => candle_core::bail!("the head has no features"),
        };
        match &self.classifier {
            Some(classifier) => classifier.forward(&features, pass),
            None => candle_core::bail!("the model has no head"),
        }
    }
}

fn classifier_name(family: EncoderFamily) -> &'static str {
    match family {
        EncoderFamily::Roberta => "classifier.out_proj",
        _ => "classifier",
    }
}

fn first_token(hidden: &Tensor) -> Result<Tensor> {
    hidden.narrow(1, 0, 1)?.squeeze(1)?.contiguous()
}
