//! `vocab.txt`: the WordPiece tokenizers of BERT and its relatives, from before there was a tokenizer.json.

use std::path::Path;

use deltaic_checkpoint::{Error, Result, read_text};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::tokenizer::wrong;
use crate::tokenizer_settings::{Family, TokenizerSettings};

/// A vocabulary of more bytes is not one.
const MAX_FILE: u64 = 32 << 20;

/// Reads a vocabulary, one token per line, whose number is the id. `do_lower_case` (true where nothing is said), `tokenize_chinese_chars` (true)
/// and `strip_accents` (as `do_lower_case`) are those of tokenizer_config.json.
///
/// # Errors
/// It cannot be read, belongs to another class of tokenizers, or lacks `[UNK]`, `[CLS]` or `[SEP]` (or what they are called).
pub(crate) fn read(path: &Path, settings: &TokenizerSettings) -> Result<Tokenizer> {
    if settings.family().is_some_and(|family| family != Family::Bert) {
        let message = format!("{}: a WordPiece vocabulary, but the other files say {}", path.display(), settings.class());
        return Err(Error::new(message).help("get all of the tokenizer's files from one model"));
    }
    let text = read_text(path, MAX_FILE)?;
    // BERT's tokens hold spaces of other kinds; only line ends separate.
    let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let count = lines.clone().count() - usize::from(text.ends_with('\n') || text.is_empty());
    let vocabulary: Vec<(String, u32)> = lines.take(count).map(str::to_owned).zip(0..).collect();

    let special = |kind: &str, default: &str| {
        let token = settings.special(kind).unwrap_or_else(|| AddedToken::from(default, true)).content;
        match vocabulary.iter().find(|(text, _)| *text == token) {
            Some((_, id)) => Ok((token, *id)),
            None => Err(wrong(path, format!("{kind} is {token:?}, which the vocabulary does not have"))),
        }
    };
    let (unk, cls, sep) = (special("unk_token", "[UNK]")?, special("cls_token", "[CLS]")?, special("sep_token", "[SEP]")?);
    assemble(vocabulary, unk.0, cls, sep, settings).map_err(|error| wrong(path, error))
}

type Token = (String, u32);

fn assemble(
    vocabulary: Vec<Token>,
    unk: String,
    cls: Token,
    sep: Token,
    settings: &TokenizerSettings,
) -> std::result::Result<Tokenizer, tokenizers::Error> {
    let model = WordPiece::builder().vocab(vocabulary.into_iter().collect::<Vocab>()).unk_token(unk).build()?;
    let mut tokenizer = Tokenizer::new(model);
    let chinese = settings.flag("tokenize_chinese_chars").unwrap_or(true);
    let lower_case = settings.flag("do_lower_case").unwrap_or(true);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, chinese, settings.flag("strip_accents"), lower_case)))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::new("##".to_owned(), true)));
    let pieces = |texts: &[(&str, u32)]| texts.iter().map(|(text, id)| format!("{text}:{id}")).collect::<Vec<_>>();
    let single = [(cls.0.as_str(), 0), ("$A", 0), (sep.0.as_str(), 0)];
    let pair = [single.as_slice(), &[("$B", 1), (sep.0.as_str(), 1)]].concat();
    let mut template = TemplateProcessing::builder();
    let template = template.try_single(pieces(&single))?.try_pair(pieces(&pair))?.special_tokens(vec![cls.clone(), sep.clone()]);
    tokenizer.with_post_processor(Some(template.build()?));
    Ok(tokenizer)
}
