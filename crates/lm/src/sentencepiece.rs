//! Sentencepiece models (`tokenizer.model`) as tokenizers of the `tokenizers` crate: Llama's and Mistral's BPE with byte fallback, and the
//! unigram models of XLM-R and T5. What is made of a file is what transformers' conversion makes of it (`convert_slow_tokenizer.py`).

use std::collections::HashMap;
use std::path::Path;

use deltaic_checkpoint::{Error, Result, read_bytes};
use prost::Message;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::utils::Sequence as Normalizers;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Prepend};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::sentencepiece_charsmap::check_charsmap;
use crate::sentencepiece_proto::{Model, ModelType, Piece, PieceType};
use crate::tokenizer::wrong;
use crate::tokenizer_settings::{Family, TokenizerSettings};

/// A model of more bytes is not read; that of Gemma's 256,000 tokens has 4 MB.
const MAX_FILE: u64 = 16 << 20;
/// Longest token in bytes: every way to cut a token in two is looked at.
const MAX_PIECE: usize = 512;
/// What stands for a space in tokens.
const SPACE: &str = "\u{2581}";
/// T5's sentinels behind the vocabulary, where nothing else is said.
const EXTRA_IDS: usize = 100;

type Outcome<T> = std::result::Result<T, tokenizers::Error>;

/// Reads a model and makes of it a tokenizer as the class of the folder's other files wants it.
///
/// # Errors
/// It cannot be read, is not a sentencepiece model of one of the kinds BPE and unigram, or belongs to a class of tokenizers that is not known.
pub(crate) fn read(path: &Path, settings: &TokenizerSettings) -> Result<Tokenizer> {
    let model = Model::decode(read_bytes(path, MAX_FILE)?.as_slice())
        .map_err(|error| wrong(path, format!("not a sentencepiece model: {error}")))?;
    if model.pieces.is_empty() {
        return Err(wrong(path, "not a sentencepiece model: it has no tokens"));
    }
    if let Some(piece) = model.pieces.iter().find(|piece| piece.piece().len() > MAX_PIECE) {
        return Err(wrong(path, format!("a token has {} bytes, expected at most {MAX_PIECE}", piece.piece().len())));
    }
    check_charsmap_of(&model).map_err(|reason| wrong(path, reason))?;
    let kind = model.trainer().model_type();
    match (kind, settings.family()) {
        (ModelType::Unigram, Some(Family::XlmRoberta)) => xlm_roberta(&model).map_err(|error| wrong(path, error)),
        (ModelType::Unigram, Some(Family::T5)) => t5(&model).map_err(|error| wrong(path, error)),
        (ModelType::Unigram | ModelType::Bpe, None | Some(Family::Llama | Family::Gemma)) => {
            llama(&model, settings).map_err(|error| wrong(path, error))
        }
        _ => {
            let kind = format!("{kind:?}").to_lowercase();
            let message = format!("{}: a sentencepiece model of kind {kind} for {}, which is not known", path.display(), settings.class());
            let help = "LlamaTokenizer, GemmaTokenizer, XLMRobertaTokenizer and T5Tokenizer are known; others need a tokenizer.json, which transformers' save_pretrained writes";
            Err(Error::new(message).help(help))
        }
    }
}

fn check_charsmap_of(model: &Model) -> std::result::Result<(), String> {
    match model.normalizer().precompiled_charsmap() {
        [] => Ok(()),
        map => check_charsmap(map),
    }
}

/// Llama's way: the whole text is one word, with a token for the space before it where the model wants one.
fn llama(model: &Model, settings: &TokenizerSettings) -> Outcome<Tokenizer> {
    let mut tokenizer = match model.trainer().model_type() {
        ModelType::Bpe => Tokenizer::new(bpe(model)?),
        _ => {
            let unk = usize::try_from(model.trainer().unk_id()).ok();
            Tokenizer::new(Unigram::from(scores(&model.pieces), unk, model.trainer().byte_fallback())?)
        }
    };
    let prefix = model.normalizer().add_dummy_prefix() && settings.flag("add_prefix_space").unwrap_or(true);
    let prefix = prefix && settings.family() != Some(Family::Gemma);
    // `legacy: false` in tokenizer_config.json: no space after special tokens inside a text.
    let legacy = settings.flag("legacy").unwrap_or(true);
    let mut steps = normalizers(model)?;
    if prefix && !legacy {
        tokenizer.with_pre_tokenizer(Some(Metaspace::new('\u{2581}', PrependScheme::First, false)));
    } else {
        if prefix {
            steps.push(Prepend::new(SPACE.to_owned()).into());
        }
        steps.push(Replace::new(" ", SPACE)?.into());
    }
    if !steps.is_empty() {
        tokenizer.with_normalizer(Some(Normalizers::new(steps)))?;
    }
    let mut decoders = vec![Replace::new(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    add_special(&mut tokenizer, &model.pieces, settings.family())?;
    Ok(tokenizer)
}

/// XLM-R's way: ids as fairseq has them (`<s>`, `<pad>`, `</s>`, `<unk>`, the model's tokens from the third on, `<mask>`).
fn xlm_roberta(model: &Model) -> Outcome<Tokenizer> {
    let mut vocabulary: Vec<(String, f64)> = ["<s>", "<pad>", "</s>", "<unk>"].map(|token| (token.to_owned(), 0.0)).to_vec();
    vocabulary.extend(scores(model.pieces.get(3..).unwrap_or_default()));
    vocabulary.push(("<mask>".to_owned(), 0.0));
    let mut tokenizer = words(Unigram::from(vocabulary, Some(3), false)?, model)?;
    let template = TemplateProcessing::builder()
        .try_single("<s> $A </s>")?
        .try_pair("<s> $A </s> </s> $B </s>")?
        .special_tokens(vec![("<s>", 0), ("</s>", 2)])
        .build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

/// T5's way: an end token behind each text, and sentinels behind the vocabulary.
fn t5(model: &Model) -> Outcome<Tokenizer> {
    let mut vocabulary = scores(&model.pieces);
    vocabulary.extend((0..EXTRA_IDS).rev().map(|i| (format!("<extra_id_{i}>"), 0.0)));
    let end = vocabulary.iter().position(|(token, _)| token == "</s>").ok_or("the vocabulary has no </s>")?;
    let unk = usize::try_from(model.trainer().unk_id()).ok();
    let mut tokenizer = words(Unigram::from(vocabulary, unk, false)?, model)?;
    add_special(&mut tokenizer, &model.pieces, Some(Family::T5))?;
    tokenizer.add_special_tokens((0..EXTRA_IDS).map(|i| AddedToken::from(format!("<extra_id_{i}>"), true)))?;
    let end = vec![("</s>", u32::try_from(end)?)];
    let template = TemplateProcessing::builder().try_single("$A </s>")?.try_pair("$A </s> $B </s>")?.special_tokens(end).build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

/// A unigram model over words, each with the token for a space before it.
fn words(unigram: Unigram, model: &Model) -> Outcome<Tokenizer> {
    let mut tokenizer = Tokenizer::new(unigram);
    let map = model.normalizer().precompiled_charsmap();
    if !map.is_empty() {
        tokenizer.with_normalizer(Some(Precompiled::from(map)?))?;
    }
    let metaspace = Metaspace::new('\u{2581}', PrependScheme::Always, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![WhitespaceSplit.into(), metaspace.clone().into()])));
    tokenizer.with_decoder(Some(metaspace));
    Ok(tokenizer)
}

/// The model's own normalisation: its table of characters, and runs of spaces made one.
fn normalizers(model: &Model) -> Outcome<Vec<NormalizerWrapper>> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    let normalizer = model.normalizer();
    if !normalizer.precompiled_charsmap().is_empty() {
        steps.push(Precompiled::from(normalizer.precompiled_charsmap())?.into());
    }
    if normalizer.remove_extra_whitespaces() {
        steps.push(Replace::new(ReplacePattern::Regex("^ +| +$".to_owned()), "")?.into());
        steps.push(Replace::new(ReplacePattern::Regex(" {2,}".to_owned()), " ")?.into());
    }
    Ok(steps)
}

fn bpe(model: &Model) -> Outcome<BPE> {
    let vocabulary: Vocab = model.pieces.iter().map(|piece| piece.piece().to_owned()).zip(0..).collect();
    if vocabulary.len() != model.pieces.len() {
        return Err("a token stands in the model twice".into());
    }
    let unk = model.pieces.iter().find(|piece| piece.kind() == PieceType::Unknown).map(|piece| piece.piece().to_owned());
    let builder = BPE::builder().vocab_and_merges(vocabulary, merges(&model.pieces)).fuse_unk(true);
    let builder = builder.byte_fallback(model.trainer().byte_fallback());
    match unk {
        Some(unk) => builder.unk_token(unk).build(),
        None => builder.build(),
    }
}

/// The merges that a sentencepiece BPE does, best first. It has none in its file: it joins whatever two neighbours give the token with the best
/// score, the left ones first. Control tokens, bytes and the unknown take no part. (User-defined tokens are looked for before; those of spaces, which
/// only stand in the text once spaces are replaced, are found here, as in transformers.)
fn merges(pieces: &[Piece]) -> Merges {
    let ordinary = |piece: &&Piece| matches!(piece.kind(), PieceType::Normal | PieceType::UserDefined);
    let by_text: HashMap<&str, ()> = pieces.iter().filter(ordinary).map(|piece| (piece.piece(), ())).collect();
    let mut merges: Vec<(f32, usize, &str, &str)> = Vec::new();
    for (id, piece) in pieces.iter().enumerate().filter(|(_, piece)| ordinary(piece)) {
        let text = piece.piece();
        let cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        let cuts = cuts.filter(|(left, right)| by_text.contains_key(left) && by_text.contains_key(right));
        merges.extend(cuts.map(|(left, right)| (piece.score(), id, left, right)));
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.len().cmp(&b.2.len())));
    merges.into_iter().map(|(_, _, left, right)| (left.to_owned(), right.to_owned())).collect()
}

fn scores(pieces: &[Piece]) -> Vec<(String, f64)> {
    pieces.iter().map(|piece| (piece.piece().to_owned(), f64::from(piece.score()))).collect()
}

/// Control tokens are special, user-defined ones are not; both are recognised inside texts.
fn add_special(tokenizer: &mut Tokenizer, pieces: &[Piece], family: Option<Family>) -> Outcome<()> {
    for piece in pieces {
        // Gemma's marks of turns are user-defined, and special all the same.
        let turn = family == Some(Family::Gemma) && matches!(piece.piece(), "<start_of_turn>" | "<end_of_turn>");
        match piece.kind() {
            PieceType::Control => tokenizer.add_special_tokens([AddedToken::from(piece.piece(), true)])?,
            PieceType::UserDefined if turn => tokenizer.add_special_tokens([AddedToken::from(piece.piece(), true)])?,
            PieceType::UserDefined => tokenizer.add_tokens([AddedToken::from(piece.piece(), false).normalized(false)])?,
            _ => 0,
        };
    }
    Ok(())
}
