//! Texts that a model writes.

use std::sync::atomic::Ordering;

use deltaic_checkpoint::{Error, Result};
use deltaic_lm::{Generated, GenerationRequest, StopReason, batches_by_length};

use super::LocalModel;
use crate::backend::{Answer, Finish, Request};
use crate::extract::first_stop;

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
                prompt.extend(
                    self.texts.tokenizer.special().bos.as_ref().or(self.texts.tokenizer.special().eos.as_ref()).map(|token| token.id),
                );
            }
            let whole = prompt.len();
            let max_new_tokens = fit(&mut prompt, *max_new_tokens, sequences.window);
            self.truncated.fetch_add(usize::from(prompt.len() < whole), Ordering::Relaxed);
            let request = GenerationRequest { prompt, max_new_tokens, temperature: *temperature, top_p: *top_p, seed: *seed };
            texts.push(Asked { index, request, stop });
        }
        let expected = |request: &GenerationRequest| request.prompt.len() + request.max_new_tokens.min(EXPECTED);
        let lengths: Vec<usize> = texts.iter().map(|text| expected(&text.request)).collect();
        for batch in batches_by_length(&lengths, self.options.batch_tokens) {
            let requests: Vec<GenerationRequest> = batch.iter().map(|&text| texts[text].request.clone()).collect();
            let mut failed = None;
            let cancelled = || self.cancel.load(Ordering::Relaxed);
            let mut stops = |row: usize, tokens: &[u32]| match self.has_stopped(tokens, texts[batch[row]].stop) {
                Ok(stopped) => stopped || cancelled(),
                Err(error) => failed.insert(Err(error)).is_err(),
            };
            let written = decoder.generate(&requests, &self.texts.tokenizer.special().end_ids, &mut stops)?;
            failed.unwrap_or(Ok(()))?;
            if cancelled() {
                return Err(Error::new("cancelled"));
            }
            for (&text, written) in batch.iter().zip(written) {
                done(texts[text].index, self.text_answer(&written, texts[text].stop)?)?;
            }
        }
        Ok(())
    }

    /// Whether the last token completed a stop string.
    fn has_stopped(&self, tokens: &[u32], stop: &[String]) -> Result<bool> {
        // Each token has at least a byte, so this many hold a stop string that ends with the last one. Special tokens may be stop strings.
        let Some(longest) = stop.iter().map(String::len).max() else { return Ok(false) };
        let tail = &tokens[tokens.len().saturating_sub(longest + MARGIN)..];
        let text = self.texts.tokenizer.decode(tail, false)?;
        Ok(first_stop(&text, stop).is_some())
    }

    fn text_answer(&self, written: &Generated, stop: &[String]) -> Result<Answer> {
        let decode = |tokens: &[u32], skip_special| self.texts.tokenizer.decode(tokens, skip_special);
        let (text, stopped) = before_stop(&written.tokens, stop, &decode)?;
        let finish = match written.reason {
            StopReason::Length if !stopped => Finish::Length,
            _ => Finish::Stop,
        };
        Ok(Answer::Text { text, tokens: written.tokens.len(), finish })
    }
}

/// The text of tokens, without special ones, before the first stop string, which may be or hold a special token; and whether there is one.
/// `decode(tokens, skip_special)` is the tokenizer's.
fn before_stop(tokens: &[u32], stop: &[String], decode: &dyn Fn(&[u32], bool) -> Result<String>) -> Result<(String, bool)> {
    let whole = decode(tokens, false)?;
    let Some(cut) = first_stop(&whole, stop) else {
        // A stop string over both sides of a special token, which is not seen, ends the text all the same.
        let mut text = decode(tokens, true)?;
        let hidden = first_stop(&text, stop);
        text.truncate(hidden.unwrap_or(text.len()));
        return Ok((text, hidden.is_some()));
    };
    // The tokens that end before the stop string begins. It ends with the last token, so few are tried.
    for count in (0..=tokens.len()).rev() {
        let before = decode(&tokens[..count], false)?;
        let Some(rest) = whole[..cut].strip_prefix(before.as_str()) else { continue };
        let mut text = decode(&tokens[..count], true)?;
        // The stop string may begin within a token. Of a special one nothing is seen.
        if !rest.is_empty() && decode(&tokens[..count + 1], true)?.len() > text.len() {
            text += rest;
        }
        return Ok((text, true));
    }
    Ok((String::new(), true))
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
    fn a_text_ends_before_a_stop_string_which_may_be_a_special_token_or_begin_within_one() {
        // Tokens by number: bytes of a character each, and special ones.
        let pieces: [(&[u8], bool); 8] = [
            (b"Par", false),
            (b"is.", false),
            (b"<end>", true),
            (b"\n", false),
            (b"\xc3", false),
            (b"\xa9", false),
            (b"<pad>", true),
            (b" Q: x", false),
        ];
        let decode = |tokens: &[u32], skip_special: bool| {
            let shown = tokens.iter().map(|&token| pieces[token as usize]).filter(|(_, special)| !(skip_special && *special));
            let bytes: Vec<u8> = shown.flat_map(|(bytes, _)| bytes.iter().copied()).collect();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        for (tokens, stop, text, stopped) in [
            (&[0, 1, 2][..], &["<end>"][..], "Paris.", true),
            (&[0, 1, 2, 0], &["<end>", ""], "Paris.", true),
            (&[0, 1, 2, 0], &[], "Paris.Par", false),
            (&[0, 1, 2, 0], &["nd>"], "Paris.", true),
            (&[6, 0, 1, 3, 3], &["\n\n", "is."], "Par", true),
            (&[4, 5, 0, 1, 7], &["Q:"], "éParis. ", true),
            (&[0, 1, 4, 5, 3], &["é"], "Paris.", true),
            (&[0, 1, 3, 6, 3], &["\n\n"], "Paris.", true),
            (&[2, 0], &["<end>"], "", true),
            (&[], &["x"], "", false),
        ] {
            let stop: Vec<String> = stop.iter().map(|&stop| stop.to_owned()).collect();
            assert_eq!(before_stop(tokens, &stop, &decode).unwrap(), (text.to_owned(), stopped), "{tokens:?} {stop:?}");
        }
    }
}
