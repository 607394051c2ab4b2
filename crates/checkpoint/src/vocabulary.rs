//! Vocabularies of tokenizers, for the check whether two models have the same.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};
use crate::formats::regular_file::{AGAIN, is_there, read_text};

/// A vocabulary file of more bytes is not read.
const MAX_FILE: u64 = 128 << 20;
/// Most tokens; the largest vocabularies have some 300,000.
const MAX_TOKENS: usize = 2_000_000;

/// Reads the vocabulary of a folder's tokenizer, token to row: `tokenizer.json` (with added tokens), else `vocab.json` (with
/// `added_tokens.json`), else `vocab.txt`. None where the folder has none of these.
///
/// # Errors
/// A file is there, but cannot be read or is not what its name says.
pub fn read_vocabulary(folder: &Path) -> Result<Option<BTreeMap<String, u32>>> {
    let path = folder.join("tokenizer.json");
    if is_there(&path) {
        return parse_tokenizer(&read_text(&path, MAX_FILE)?, &path).map(Some);
    }
    let path = folder.join("vocab.json");
    if is_there(&path) {
        let mut vocabulary = parse::<RawVocabulary>(&path)?.0;
        let added = folder.join("added_tokens.json");
        if is_there(&added) {
            vocabulary.extend(parse::<RawVocabulary>(&added)?.0);
        }
        return Ok(Some(vocabulary));
    }
    let path = folder.join("vocab.txt");
    if is_there(&path) {
        let text = read_text(&path, MAX_FILE)?;
        let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        // The file ends with a newline, behind which there is no token.
        let count = lines.clone().count() - usize::from(text.ends_with('\n') || text.is_empty());
        if count > MAX_TOKENS {
            return Err(Error::new(format!("{}: more than {MAX_TOKENS} tokens", path.display())).help(AGAIN));
        }
        return Ok(Some(lines.take(count).zip(0..).map(|(token, row)| (token.to_owned(), row)).collect()));
    }
    Ok(None)
}

/// Reads the vocabulary of a `tokenizer.json`, token to row, with added tokens; `path` is for messages.
///
/// # Errors
/// The text is not a tokenizer with a vocabulary.
pub fn parse_tokenizer(text: &str, path: &Path) -> Result<BTreeMap<String, u32>> {
    let tokenizer: RawTokenizer = parse_text(text, path)?;
    let mut vocabulary = tokenizer.model.vocab.0;
    vocabulary.extend(tokenizer.added_tokens.unwrap_or_default().into_iter().map(|token| (token.content, token.id)));
    Ok(vocabulary)
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    parse_text(&read_text(path, MAX_FILE)?, path)
}

fn parse_text<T: for<'de> Deserialize<'de>>(text: &str, path: &Path) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::new(format!("{}: not a readable vocabulary: {error}", path.display())).help(AGAIN))
}

#[derive(Deserialize)]
struct RawTokenizer {
    model: RawModel,
    added_tokens: Option<Vec<AddedToken>>,
}

#[derive(Deserialize)]
struct RawModel {
    vocab: RawVocabulary,
}

#[derive(Deserialize)]
struct AddedToken {
    content: String,
    id: u32,
}

fn bounded<E: de::Error>(tokens: &BTreeMap<String, u32>) -> std::result::Result<(), E> {
    if tokens.len() > MAX_TOKENS { Err(E::custom(format!("more than {MAX_TOKENS} tokens"))) } else { Ok(()) }
}

/// `{token: row}` as BPE, WordPiece and WordLevel have it, or `[[token, score], …]` as Unigram has.
struct RawVocabulary(BTreeMap<String, u32>);

impl<'de> Deserialize<'de> for RawVocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = RawVocabulary;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary: an object of rows, or a list of tokens with scores")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawVocabulary, A::Error> {
                let mut tokens = BTreeMap::new();
                while let Some((token, row)) = map.next_entry()? {
                    tokens.insert(token, row);
                    bounded(&tokens)?;
                }
                Ok(RawVocabulary(tokens))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<RawVocabulary, A::Error> {
                let mut tokens = BTreeMap::new();
                let mut row = 0;
                while let Some((token, _)) = seq.next_element::<(String, IgnoredAny)>()? {
                    tokens.insert(token, row);
                    row += 1;
                    bounded(&tokens)?;
                }
                Ok(RawVocabulary(tokens))
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(files: &[(&str, &str)]) -> Result<Option<BTreeMap<String, u32>>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        read_vocabulary(folder.path())
    }

    #[test]
    fn all_kinds_of_files_give_the_same_vocabulary() {
        let wanted: BTreeMap<String, u32> = [("a", 0), ("b", 1), ("c", 2)].map(|(token, row)| (token.to_owned(), row)).into();
        for files in [
            &[(
                "tokenizer.json",
                r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens": [{"id": 2, "content": "c"}]}"#,
            )][..],
            &[("tokenizer.json", r#"{"model": {"vocab": [["a", -1.5], ["b", 0], ["c", 2.0]]}, "added_tokens": []}"#)],
            &[("vocab.json", r#"{"a": 0, "b": 1}"#), ("added_tokens.json", r#"{"c": 2}"#)],
            &[("vocab.txt", "a\nb\nc\n")],
            &[("vocab.txt", "a\r\nb\r\nc")],
        ] {
            assert_eq!(vocabulary(files).unwrap().as_ref(), Some(&wanted), "{files:?}");
        }
        assert_eq!(vocabulary(&[("merges.txt", "")]).unwrap(), None);
    }

    #[test]
    fn broken_vocabularies_are_errors_with_the_files_name() {
        for text in ["", "{}", r#"{"model": {"vocab": 3}}"#, r#"{"model": {"vocab": {"a": -1}}}"#] {
            assert!(vocabulary(&[("tokenizer.json", text)]).unwrap_err().message().contains("tokenizer.json"), "{text}");
        }
    }
}
