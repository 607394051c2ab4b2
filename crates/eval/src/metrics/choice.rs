//! Scores of multiple choice by log-likelihood (evaluation.md 7.0 and 7.1; lm-evaluation-harness).

use deltaic_checkpoint::{Error, Result};

/// A choice and what a model thinks of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredChoice<'a> {
    /// The choice's text, without the delimiter before it.
    pub text: &'a str,
    /// The sum of its tokens' log-probabilities, in nats.
    pub log_likelihood: f64,
    /// How many tokens were scored.
    pub tokens: usize,
}

/// What a choice's log-likelihood is divided by before the choices are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalisation {
    /// 1: the harness's `acc`.
    None,
    /// The number of Unicode characters of the text: `acc_norm`.
    Characters,
    /// The number of its UTF-8 bytes: `acc_bytes`.
    Bytes,
    /// The number of scored tokens.
    Tokens,
}

impl ScoredChoice<'_> {
    /// The log-likelihood by a length. Of an empty text it is -inf (0 nats over 0: NaN), as in the harness.
    pub fn score(&self, normalisation: Normalisation) -> f64 {
        match normalisation {
            Normalisation::None => self.log_likelihood,
            Normalisation::Characters => self.log_likelihood / self.text.chars().count() as f64,
            Normalisation::Bytes => self.log_likelihood / self.text.len() as f64,
            Normalisation::Tokens => self.log_likelihood / self.tokens as f64,
        }
    }
}

/// The index of the choice with the highest score, the first of equal ones; none where no score is a number.
pub fn pick(choices: &[ScoredChoice<'_>], normalisation: Normalisation) -> Option<usize> {
    argmax(choices.iter().map(|choice| choice.score(normalisation)))
}

/// The index of the first maximum. A NaN is never it (NumPy's `argmax` takes the first NaN): what is not a number is no answer.
pub fn argmax(scores: impl IntoIterator<Item = f64>) -> Option<usize> {
    let numbers = scores.into_iter().enumerate().filter(|(_, score)| !score.is_nan());
    numbers.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(index, _)| index)
}

/// TruthfulQA's `mc2`: the sum of `exp(log_likelihood)` over the true choices by the sum over all, in 0..=1. The maximum is subtracted first,
/// so that it also has a value where every `exp` is 0. A log-likelihood of NaN or +inf, or -inf everywhere: no mass is on the truth, 0.
///
/// # Errors
/// There are not as many truths as log-likelihoods.
pub fn true_mass(log_likelihoods: &[f64], truths: &[bool]) -> Result<f64> {
    if log_likelihoods.len() != truths.len() {
        return Err(Error::new(format!("{} choices, but {} labels that say which are true", log_likelihoods.len(), truths.len())));
    }
    let largest = log_likelihoods.iter().fold(f64::NEG_INFINITY, |largest, &next| largest.max(next));
    if !largest.is_finite() || log_likelihoods.iter().any(|value| value.is_nan()) {
        return Ok(0.0);
    }
    let mass = |value: f64| libm::exp(value - largest);
    let all: f64 = log_likelihoods.iter().map(|&value| mass(value)).sum();
    let of_true: f64 = log_likelihoods.iter().zip(truths).filter(|&(_, &is_true)| is_true).map(|(&value, _)| mass(value)).sum();
    Ok(of_true / all)
}
