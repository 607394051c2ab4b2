//! `tokenizer.json`, the file of the `tokenizers` crate, checked where that crate trusts it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use deltaic_checkpoint::{Result, read_text};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use tokenizers::{NormalizerWrapper, Tokenizer};

use crate::sentencepiece_charsmap::check_charsmap;
use crate::tokenizer::wrong;

/// A tokenizer.json of more bytes is not read; the largest published ones have some 40 MB.
const MAX_FILE: u64 = 128 << 20;

/// Reads a tokenizer.json.
///
/// # Errors
/// It cannot be read, is too large, or is not a consistent tokenizer.
pub(crate) fn read(path: &Path) -> Result<Tokenizer> {
    let text = read_text(path, MAX_FILE)?;
    let file: File<'_> = serde_json::from_str(&text).map_err(|error| wrong(path, format!("not a tokenizer: {error}")))?;
    file.model.check().map_err(|reason| wrong(path, reason))?;
    let tokenizer: Tokenizer = text.parse().map_err(|error| wrong(path, format!("not a tokenizer: {error}")))?;
    if let Some(normalizer) = tokenizer.get_normalizer() {
        check_normalizer(normalizer).map_err(|reason| wrong(path, reason))?;
    }
    Ok(tokenizer)
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    vocab: Option<&'a RawValue>,
    #[serde(borrow)]
    merges: Option<Vec<Merge<'a>>>,
    continuing_subword_prefix: Option<String>,
}

/// Two tokens that become one, in one of the two ways in which files write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge<'a> {
    Joined(#[serde(borrow)] Cow<'a, str>),
    Pair(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>),
}

impl Model<'_> {
    fn check(&self) -> std::result::Result<(), String> {
        let (Some(merges), Some(vocab)) = (&self.merges, self.vocab) else { return Ok(()) };
        let vocab: HashMap<Cow<'_, str>, IgnoredAny> =
            serde_json::from_str(vocab.get()).map_err(|error| format!("not a vocabulary: {error}"))?;
        let longest = vocab.keys().map(|token| token.len()).max().unwrap_or(0);
        let prefix = self.continuing_subword_prefix.as_deref().unwrap_or("");
        merges.iter().try_for_each(|merge| match merge {
            Merge::Joined(text) => {
                let (first, second) = text.split_once(' ').ok_or_else(|| format!("the merge {text:?} is not two tokens"))?;
                check_merge(first, second, prefix, longest)
            }
            Merge::Pair(first, second) => check_merge(first, second, prefix, longest),
        })
    }
}

/// Checks what the crate trusts when it joins two tokens: it copies both into a buffer as long as the longest token, and cuts the prefix off the
/// second unseen.
pub(crate) fn check_merge(first: &str, second: &str, prefix: &str, longest: usize) -> std::result::Result<(), String> {
    let Some(rest) = second.strip_prefix(prefix) else {
        return Err(format!("the merge of {first:?} and {second:?}: expected the second to begin with {prefix:?}"));
    };
    if first.len() + rest.len() > longest {
        return Err(format!("the merge of {first:?} and {second:?} is not in the vocabulary"));
    }
    Ok(())
}

/// A sentencepiece normalizer holds tables with offsets, which the crate follows unchecked.
fn check_normalizer(normalizer: &NormalizerWrapper) -> std::result::Result<(), String> {
    match normalizer {
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().try_for_each(check_normalizer),
        NormalizerWrapper::Precompiled(precompiled) => {
            let json = serde_json::to_value(precompiled).map_err(|error| error.to_string())?;
            let encoded = json.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or("");
            check_charsmap(&decode_base64(encoded).ok_or("a character map that is not base64")?)
        }
        _ => Ok(()),
    }
}

/// The bytes of base64 text (RFC 4648, section 4); None where it is not.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes().map(|byte| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let digits: Vec<u32> = digits.collect::<Option<_>>()?;
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let value = (0..4).fold(0, |value, i| value << 6 | group.get(i).copied().unwrap_or(0));
        bytes.extend_from_slice(&value.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}
