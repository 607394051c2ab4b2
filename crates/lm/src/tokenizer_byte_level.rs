//! `vocab.json` with `merges.txt`: the byte-level BPE of GPT-2, RoBERTa and Qwen, where there is no tokenizer.json.

use std::collections::HashMap;
use std::path::Path;

use deltaic_checkpoint::{Error, Result, read_text};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::tokenizer::wrong;
use crate::tokenizer_json::check_merge;
use crate::tokenizer_settings::{Family, TokenizerSettings};

/// A file of more bytes is not one.
const MAX_FILE: u64 = 64 << 20;

/// How Qwen2's tokenizer splits words.
const QWEN2_WORDS: &str =
    concat!(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|", r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+");

/// Reads a vocabulary and its merges.
///
/// # Errors
/// A file cannot be read or is not what its name says; the folder's other files name no class of tokenizers that has such files and is known.
pub(crate) fn read(vocabulary: &Path, merges: &Path, settings: &TokenizerSettings) -> Result<Tokenizer> {
    let Some(family @ (Family::Gpt2 | Family::Roberta | Family::Qwen2)) = settings.family() else {
        let message = format!("{}: how {} splits words is not known", vocabulary.display(), settings.class());
        let help = "GPT2Tokenizer, RobertaTokenizer and Qwen2Tokenizer are; others need a tokenizer.json, which transformers' save_pretrained writes";
        return Err(Error::new(message).help(help));
    };
    let tokens: HashMap<String, u32> =
        serde_json::from_str(&read_text(vocabulary, MAX_FILE)?).map_err(|error| wrong(vocabulary, format!("not a vocabulary: {error}")))?;
    let longest = tokens.keys().map(String::len).max().unwrap_or(0);
    let pairs = parse_merges(&read_text(merges, MAX_FILE)?, longest).map_err(|reason| wrong(merges, reason))?;
    assemble(tokens, pairs, family, settings).map_err(|error| wrong(vocabulary, error))
}

/// The merges, one per line in order of rank; a first line with the version is passed over.
fn parse_merges(text: &str, longest: usize) -> std::result::Result<Merges, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    lines
        .map(|(number, line)| {
            let pair = line.split_once(' ').filter(|(_, second)| !second.contains(' '));
            let (first, second) = pair.ok_or_else(|| format!("line {}: expected two tokens, found {line:?}", number + 1))?;
            check_merge(first, second, "", longest)?;
            Ok((first.to_owned(), second.to_owned()))
        })
        .collect()
}

fn assemble(
    tokens: HashMap<String, u32>,
    merges: Merges,
    family: Family,
    settings: &TokenizerSettings,
) -> std::result::Result<Tokenizer, tokenizers::Error> {
    let special = |kind: &str, default: &str| {
        let token = settings.special(kind).unwrap_or_else(|| AddedToken::from(default, true)).content;
        let id = *tokens.get(&token).ok_or_else(|| format!("{kind} is {token:?}, which the vocabulary does not have"))?;
        Ok::<_, tokenizers::Error>((token, id))
    };
    let add_prefix_space = settings.flag("add_prefix_space").unwrap_or(false);
    let roberta = match family {
        Family::Roberta => {
            let processor = RobertaProcessing::new(special("sep_token", "</s>")?, special("cls_token", "<s>")?);
            Some(processor.trim_offsets(settings.flag("trim_offsets").unwrap_or(true)).add_prefix_space(add_prefix_space))
        }
        _ => None,
    };
    let vocabulary: Vocab = tokens.into_iter().collect();
    let mut tokenizer = Tokenizer::new(BPE::builder().vocab_and_merges(vocabulary, merges).build()?);
    if family == Family::Qwen2 {
        let words = Split::new(SplitPattern::Regex(QWEN2_WORDS.to_owned()), SplitDelimiterBehavior::Isolated, false)?;
        let bytes = ByteLevel::new(add_prefix_space, true, false);
        tokenizer.with_normalizer(Some(NFC))?;
        tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()])));
    } else {
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)));
    }
    tokenizer.with_decoder(Some(ByteLevel::default()));
    match roberta {
        Some(processor) => tokenizer.with_post_processor(Some(processor)),
        None => tokenizer.with_post_processor(Some(ByteLevel::default().trim_offsets(false))),
    };
    Ok(tokenizer)
}
