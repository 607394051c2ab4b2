//! Texts that a model writes.

use deltaic_checkpoint::Result;
use deltaic_lm::{Generated, GenerationRequest, StopReason, batches_by_length};

use super::LocalModel;
use crate::backend::{Answer, Finish, Request};

/// Tokens that are decoded beside those that a stop string can cover: a character may be cut at their beginning.
const MARGIN: usize = 16;

/// Tokens that a text is taken to have when batches are made: limits are far higher than what most texts come to.
const EXPECTED: usize = 256;

/// A text to be written.
struct Asked<'a> {
    /// Its place among the requests.
    index: usize,
    request: GenerationRequest,
    stop: &'a [String],
}

impl LocalModel {
    pub(super) fn generate(&self, asked: &[(usize, &Request)], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        if asked.is_empty() {
            return Ok(());
        }
        let decoder = self.decoder("write texts")?;
        let sequences = self.sequences(decoder);
        let mut texts = Vec::new();
        for &(index, request) in asked {
            let Request::Generate { prompt, max_new_tokens, stop, temperature, top_p, seed } = request else {
                unreachable!("only these were given")
            };
            let (text, from_template) = self.texts.text_of(prompt)?;
            let mut prompt = sequences.prompt(&text, from_template)?;
            if prompt.is_empty() {
                prompt.extend(self.texts.tokenizer.special().bos.as_ref().or(self.texts.tokenizer.special().eos.as_ref()).map(|token| token.id));
            }
            let max_new_tokens = fit(&mut prompt, *max_new_tokens, sequences.window);
            let request = GenerationRequest { prompt, max_new_tokens, temperature: *temperature, top_p: *top_p, seed: *seed };
            texts.push(Asked { index, request, stop });
        }
        let expected = |request: &GenerationRequest| request.prompt.len() + request.max_new_tokens.min(EXPECTED);
        let lengths: Vec<usize> = texts.iter().map(|text| expected(&text.request)).collect();
        for batch in batches_by_length(&lengths, self.options.batch_tokens) {
            let requests: Vec<GenerationRequest> = batch.iter().map(|&text| texts[text].request.clone()).collect();
            let mut failed = None;
            let mut stops = |row: usize, tokens: &[u32]| match self.has_stopped(tokens, texts[batch[row]].stop) {
                Ok(stopped) => stopped,
                Err(error) => failed.insert(Err(error)).is_err(),
            };
            let written = decoder.generate(&requests, &self.texts.tokenizer.special().end_ids, &mut stops)?;
            failed.unwrap_or(Ok(()))?;
            for (&text, written) in batch.iter().zip(written) {
                done(texts[text].index, self.text_answer(&written, texts[text].stop)?)?;
            }
        }
        Ok(())
    }

    /// Whether the last token completed a stop string.
    fn has_stopped(&self, tokens: &[u32], stop: &[String]) -> Result<bool> {
        // Each token but special ones has at least a byte, so this many hold a stop string that ends with the last one.
        let Some(longest) = stop.iter().map(String::len).max() else { return Ok(false) };
        let tail = &tokens[tokens.len().saturating_sub(longest + MARGIN)..];
        let text = self.texts.tokenizer.decode(tail, true)?;
        Ok(first_stop(&text, stop).is_some())
    }

    fn text_answer(&self, written: &Generated, stop: &[String]) -> Result<Answer> {
        let mut text = self.texts.tokenizer.decode(&written.tokens, true)?;
        let cut = first_stop(&text, stop);
        if let Some(cut) = cut {
            text.truncate(cut);
        }
        let finish = match written.reason {
            StopReason::Length if cut.is_none() => Finish::Length,
            _ => Finish::Stop,
        };
        Ok(Answer::Text { text, tokens: written.tokens.len(), finish })
    }
}

/// Where the first stop string begins.
fn first_stop(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str())).min()
}

/// Makes prompt and continuation fit the model's window: a text ends where the window is full; a prompt that fills it alone loses tokens from
/// the left, as in lm-evaluation-harness, until there is room for what is asked, or for half of the window.
fn fit(prompt: &mut Vec<u32>, max_new_tokens: usize, window: usize) -> usize {
    if prompt.len() >= window {
        let room = max_new_tokens.min(window / 2).max(1);
        let kept = window.saturating_sub(room).max(1);
        prompt.drain(..prompt.len() - kept.min(prompt.len()));
    }
    max_new_tokens.min(window.saturating_sub(prompt.len()).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_and_continuations_fit_the_window() {
        let fitted = |length: u32, new, window| {
            let mut prompt: Vec<u32> = (0..length).collect();
            let new = fit(&mut prompt, new, window);
            (prompt.first().copied(), prompt.len(), new)
        };
        assert_eq!(fitted(10, 20, 100), (Some(0), 10, 20));
        assert_eq!(fitted(90, 20, 100), (Some(0), 90, 10));
        assert_eq!(fitted(120, 20, 100), (Some(40), 80, 20));
        assert_eq!(fitted(120, 90, 100), (Some(70), 50, 50));
        assert_eq!(fitted(1, 5, 1), (Some(0), 1, 1));
    }

    #[test]
    fn a_text_ends_before_the_stop_string_that_comes_first() {
        let stop = ["Instruction:".to_owned(), "Instruction".to_owned(), String::new(), "\n\n".to_owned()];
        assert_eq!(first_stop("a\n\nInstruction: b", &stop), Some(1));
        assert_eq!(first_stop("Instruction", &stop), Some(0));
        assert_eq!(first_stop("nothing", &stop), None);
    }
}
