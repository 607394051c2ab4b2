//! How a question about likelihood becomes a sequence of tokens, some of which are scored.

use deltaic_checkpoint::{Error, Result};
use deltaic_lm::{Scored, TextTokenizer};

use crate::backend::Tokenisation;

/// What decides how texts of one model become tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequences<'a> {
    /// The model's name, for messages.
    pub model: &'a str,
    pub tokenizer: &'a TextTokenizer,
    /// Whether texts begin with the BOS; None as the tokenizer has it.
    pub add_bos: Option<bool>,
    /// The model's length in tokens.
    pub window: usize,
}

impl Sequences<'_> {
    /// A prompt and what is scored after it; None where no token is left to score.
    ///
    /// # Errors
    /// A text cannot be encoded, the continuation is longer than the window, or there is no token to begin with.
    pub fn continuation(
        &self,
        prompt: &str,
        from_template: bool,
        continuation: &str,
        tokenisation: Tokenisation,
    ) -> Result<Option<Scored>> {
        match tokenisation {
            Tokenisation::Joint => self.joint(prompt, from_template, continuation),
            Tokenisation::Apart { max_tokens } => {
                let mut tokens = self.prompt(prompt, from_template)?;
                if tokens.is_empty() {
                    tokens.push(self.prefix()?);
                }
                let scored_from = tokens.len();
                tokens.extend(self.tokenizer.encode(continuation, false)?);
                tokens.truncate(max_tokens.min(self.window));
                Ok((scored_from < tokens.len()).then_some(Scored { tokens, scored_from }))
            }
        }
    }

    /// As lm-evaluation-harness's `loglikelihood`.
    fn joint(&self, prompt: &str, from_template: bool, continuation: &str) -> Result<Option<Scored>> {
        let (mut tokens, count) = if prompt.is_empty() {
            let mut tokens = self.tokenizer.encode(continuation, false)?;
            let prefix = self.prefix()?;
            // A continuation that begins with the prefix itself is not given it twice.
            if tokens.first() != Some(&prefix) {
                tokens.insert(0, prefix);
            }
            let count = tokens.len() - 1;
            (tokens, count)
        } else {
            // Tokens hold the space before a word, so white space at the prompt's end belongs to what follows.
            let context = prompt.trim_end();
            let whole = self.with_special(&format!("{prompt}{continuation}"), from_template)?;
            let context = self.with_special(context, from_template)?.len();
            let count = whole.len().saturating_sub(context);
            (whole, count)
        };
        if count > self.window {
            let message =
                format!("{}: a continuation of {count} tokens is to be scored, the model has a window of {}", self.model, self.window);
            return Err(Error::new(message).help("shorten the texts, or evaluate a model with a longer window"));
        }
        // The last token is only predicted, so one more than the window fits.
        let beyond = tokens.len().saturating_sub(self.window + 1);
        tokens.drain(..beyond);
        if count > 0 && count == tokens.len() {
            tokens.insert(0, self.prefix()?);
        }
        Ok((count > 0).then(|| Scored { scored_from: tokens.len() - count, tokens }))
    }

    /// A whole text in windows, each token predicted once (evaluation.md 7.2).
    ///
    /// # Errors
    /// The text cannot be encoded, or there is no token to begin with.
    pub fn rolling(&self, text: &str) -> Result<Vec<Scored>> {
        let tokens = self.tokenizer.encode(text, false)?;
        let mut all = vec![self.prefix()?];
        all.extend(tokens);
        Ok(windows(&all, self.window))
    }

    /// The tokens of a prompt that is to be continued.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn prompt(&self, text: &str, from_template: bool) -> Result<Vec<u32>> {
        let tokens = self.tokenizer.encode(text, false)?;
        let bos = self.tokenizer.special().bos.as_ref().map(|bos| bos.id);
        // A template writes the BOS itself, if there is to be one.
        let wanted = !from_template && self.add_bos.unwrap_or(self.tokenizer.adds_bos());
        match bos {
            Some(bos) if wanted && tokens.first() != Some(&bos) => Ok([vec![bos], tokens].concat()),
            _ => Ok(tokens),
        }
    }

    /// As the harness encodes a text: with the tokenizer's special tokens, unless the text begins with the prefix token already.
    fn with_special(&self, text: &str, from_template: bool) -> Result<Vec<u32>> {
        let begun = self.prefix_text().is_some_and(|prefix| text.starts_with(&prefix));
        match self.add_bos {
            _ if begun || from_template => self.tokenizer.encode(text, false),
            None => self.tokenizer.encode(text, true),
            Some(_) => self.prompt(text, false),
        }
    }

    fn prefix_text(&self) -> Option<String> {
        let special = self.tokenizer.special();
        special.bos.as_ref().or(special.eos.as_ref()).map(|token| token.text.clone())
    }

    /// What a text without context is predicted from: the BOS, or the EOS of models without one.
    fn prefix(&self) -> Result<u32> {
        let special = self.tokenizer.special();
        special.bos.as_ref().or(special.eos.as_ref()).map(|token| token.id).ok_or_else(|| {
            Error::new(format!("{}: a text without context is to be scored, but the tokenizer has neither a BOS nor an EOS", self.model))
                .help("name one in tokenizer_config.json: `bos_token` or `eos_token`")
        })
    }
}

/// Windows over a text that begins with its prefix token: each predicts up to `length` tokens from the `length` before its last one.
fn windows(all: &[u32], length: usize) -> Vec<Scored> {
    let count = all.len() - 1;
    let length = length.max(1);
    (0..count)
        .step_by(length)
        .map(|predicted| {
            let end = (predicted + length).min(count);
            // In `all`, token k of the text stands at k + 1: the window's input ends one before its last target.
            let start = end.saturating_sub(length);
            Scored { tokens: all[start..=end].to_vec(), scored_from: predicted + 1 - start }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_windows_predict_every_token_once() {
        // Worked by hand after evaluation.md 7.2: prefix 9, seven tokens, windows of three.
        let all = [9, 1, 2, 3, 4, 5, 6, 7];
        let found: Vec<(Vec<u32>, usize)> = windows(&all, 3).into_iter().map(|scored| (scored.tokens, scored.scored_from)).collect();
        assert_eq!(found, [(vec![9, 1, 2, 3], 1), (vec![3, 4, 5, 6], 1), (vec![4, 5, 6, 7], 3)]);
        assert_eq!(windows(&all, 100), [Scored { tokens: all.to_vec(), scored_from: 1 }]);
        assert_eq!(windows(&[9], 3), []);
        assert_eq!(windows(&[9, 1, 2, 3], 3).len(), 1);
    }
}
