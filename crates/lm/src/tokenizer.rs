//! Text to token ids and back, over the `tokenizers` crate, from whatever files a model folder has.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Error, Result};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, EncodeInput, Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use crate::tokenizer_settings::{Family, SPECIAL, TokenizerSettings};
use crate::{sentencepiece, tokenizer_byte_level, tokenizer_json, wordpiece};

/// Files of sentencepiece models, in the order in which they are looked for.
const SENTENCEPIECE: [&str; 3] = ["tokenizer.model", "sentencepiece.bpe.model", "spiece.model"];

/// A special token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialToken {
    /// As it stands in text.
    pub text: String,
    /// Its row in the embedding.
    pub id: u32,
}

/// The special tokens of a tokenizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<SpecialToken>,
    /// Ends a text.
    pub eos: Option<SpecialToken>,
    /// Fills a batch up.
    pub pad: Option<SpecialToken>,
    /// Stands for what the vocabulary does not have.
    pub unk: Option<SpecialToken>,
    /// Texts by kind (`bos_token`, `eos_token`, `unk_token`, `sep_token`, `pad_token`, `cls_token`, `mask_token`), as chat templates see them.
    pub texts: BTreeMap<String, String>,
    /// Generation ends at any of these: all ids of generation_config.json's `eos_token_id`, else of config.json's, else the EOS.
    pub end_ids: Vec<u32>,
}

/// A text, or a pair of texts, as a model takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each token, to which of the texts it belongs, as the model's tokenizer numbers them (RoBERTa's has 0 only).
    pub type_ids: Vec<u32>,
}

/// The tokenizer of a model folder.
///
/// ```no_run
/// use deltaic_lm::TextTokenizer;
///
/// let tokenizer = TextTokenizer::open("smollm2-135m-instruct".as_ref())?;
/// let ids = tokenizer.encode("The capital of France is", true)?;
/// assert_eq!(tokenizer.decode(&ids, true)?, "The capital of France is");
/// # Ok::<(), deltaic_checkpoint::Error>(())
/// ```
#[derive(Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    path: PathBuf,
    special: SpecialTokens,
    adds_bos: bool,
}

impl TextTokenizer {
    /// Opens the tokenizer of a folder: tokenizer.json; else vocab.txt (WordPiece); else vocab.json with merges.txt (byte-level BPE); else a
    /// sentencepiece model (tokenizer.model, sentencepiece.bpe.model, spiece.model). Special tokens are those of tokenizer_config.json and
    /// special_tokens_map.json, else of the class that they name; ids that no file of the tokenizer names are config.json's.
    ///
    /// # Errors
    /// None of the files is there, one is damaged or too large, or it belongs to a tokenizer class that is not known here.
    pub fn open(folder: &Path) -> Result<Self> {
        let settings = TokenizerSettings::read(folder)?;
        let (path, mut tokenizer) = guarded(folder, || build(folder, &settings))??;
        guarded(&path, || register_added(&mut tokenizer, &settings, &path))??;
        // What a file asks for there is decided by who encodes.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| wrong(&path, error))?;
        let mut tokenizer = Self { tokenizer, path, special: SpecialTokens::default(), adds_bos: false };
        tokenizer.special = tokenizer.find_special(&settings);
        tokenizer.set_bos_and_eos(&settings)?;
        let begin = tokenizer.encode("", true)?.first().copied();
        tokenizer.adds_bos = begin.is_some() && begin == tokenizer.special.bos.as_ref().map(|bos| bos.id);
        Ok(tokenizer)
    }

    /// The file with the vocabulary.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Whether [`Self::encode`] with special tokens begins with the BOS.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Number of tokens, added ones included.
    pub fn vocabulary_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The ids of a text. Special tokens that stand in the text are recognised; with `add_special`, those are added that the tokenizer puts
    /// around a text (its post-processor says which, if any).
    ///
    /// # Errors
    /// The vocabulary has no token for a part of the text, and none for what is unknown.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        guarded(&self.path, || self.tokenizer.encode_fast(text, add_special))?
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| wrong(&self.path, error))
    }

    /// A text, or a pair of texts, with special tokens, of at most `max_tokens` tokens: tokens are cut from the end of the longer text.
    ///
    /// # Errors
    /// As [`Self::encode`]; or `max_tokens` has no room for the special tokens.
    pub fn encode_pair(&self, text: &str, pair: Option<&str>, max_tokens: usize) -> Result<Encoded> {
        // An empty second text is none: models were fine-tuned with transformers' tokenizers, which take it so.
        let pair = pair.filter(|pair| !pair.is_empty());
        let encoding = guarded(&self.path, || {
            let added = self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pair.is_some()));
            if max_tokens < added {
                return Err(format!("{added} special tokens do not fit into {max_tokens}").into());
            }
            let encode = |text: &str, type_id: u32| {
                let mut encoding = self.tokenizer.encode_fast(EncodeInput::from(text), false)?;
                encoding.set_type_ids(vec![type_id; encoding.len()]);
                encoding.set_sequence_id(type_id as usize);
                Ok::<Encoding, tokenizers::Error>(encoding)
            };
            let longest_first = TruncationParams {
                direction: TruncationDirection::Right,
                max_length: max_tokens - added,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            };
            let pair = pair.map(|pair| encode(pair, 1)).transpose()?;
            let (mut first, mut second) = truncate_encodings(encode(text, 0)?, pair, &longest_first)?;
            // What was cut off is kept there, and would be dressed with special tokens as well.
            first.take_overflowing();
            if let Some(second) = &mut second {
                second.take_overflowing();
            }
            self.tokenizer.post_process(first, second, true)
        })?
        .map_err(|error| wrong(&self.path, error))?;
        Ok(Encoded { ids: encoding.get_ids().to_vec(), type_ids: encoding.get_type_ids().to_vec() })
    }

    /// The text of ids, without special tokens where `skip_special` says so. Bytes that are no UTF-8 become U+FFFD; spaces before punctuation
    /// stay, as in transformers for all tokenizers of decoders.
    ///
    /// # Errors
    /// The tokenizer's decoder refuses them.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded(&self.path, || self.tokenizer.decode(ids, skip_special))?.map_err(|error| wrong(&self.path, error))
    }

    fn find_special(&self, settings: &TokenizerSettings) -> SpecialTokens {
        let find = |kind: &str| {
            let named = settings.special(kind).and_then(|token| Some((self.tokenizer.token_to_id(&token.content)?, token.content)));
            let (id, text) = named.or_else(|| settings.special_id(kind).and_then(|id| Some((id, self.tokenizer.id_to_token(id)?))))?;
            Some(SpecialToken { text, id })
        };
        let found: Vec<_> = SPECIAL.iter().map(|kind| find(kind)).collect();
        let texts = SPECIAL.iter().zip(&found).filter_map(|(kind, token)| Some(((*kind).to_owned(), token.as_ref()?.text.clone())));
        let mut special = SpecialTokens { texts: texts.collect(), end_ids: settings.end_ids(), ..SpecialTokens::default() };
        let mut found = found.into_iter();
        (special.bos, special.eos, special.unk) = (found.next().flatten(), found.next().flatten(), found.next().flatten());
        special.pad = find("pad_token");
        if special.end_ids.is_empty() {
            special.end_ids.extend(special.eos.as_ref().map(|eos| eos.id));
        }
        special
    }

    /// `add_bos_token` and `add_eos_token` of tokenizer_config.json win over the post-processor of tokenizer.json, as in transformers; a
    /// sentencepiece model has no post-processor, and Llama's and Gemma's tokenizers add a BOS unless they are told not to.
    fn set_bos_and_eos(&mut self, settings: &TokenizerSettings) -> Result<()> {
        let (bos, eos) = (settings.flag("add_bos_token"), settings.flag("add_eos_token"));
        let family = settings.family();
        let own = matches!(family, Some(Family::Bert | Family::Roberta | Family::XlmRoberta | Family::T5));
        let from_sentencepiece = self.path.extension().is_some_and(|extension| extension == "model");
        if own || (bos, eos) == (None, None) && !from_sentencepiece {
            return Ok(());
        }
        let around = match (from_sentencepiece, bos, eos) {
            (false, None, _) | (false, _, None) => self.encode("", true)?,
            _ => Vec::new(),
        };
        let contains = |token: &Option<SpecialToken>| token.as_ref().is_some_and(|token| around.contains(&token.id));
        let bos = bos.unwrap_or(from_sentencepiece || contains(&self.special.bos));
        let eos = eos.unwrap_or(contains(&self.special.eos));
        let bos = self.special.bos.as_ref().filter(|_| bos);
        let eos = self.special.eos.as_ref().filter(|_| eos);
        let processor = template(bos, eos).map_err(|error| wrong(&self.path, error))?;
        self.tokenizer.with_post_processor(Some(processor));
        Ok(())
    }
}

/// A post-processor that puts a BOS before each text, an EOS behind it, or both.
fn template(bos: Option<&SpecialToken>, eos: Option<&SpecialToken>) -> std::result::Result<TemplateProcessing, tokenizers::Error> {
    let around = |text: &str, id: u32| {
        let mut pieces: Vec<String> = bos.iter().map(|bos| format!("{}:{id}", bos.text)).collect();
        pieces.push(format!("{text}:{id}"));
        pieces.extend(eos.iter().map(|eos| format!("{}:{id}", eos.text)));
        pieces
    };
    let single = around("$A", 0);
    let pair: Vec<String> = single.iter().cloned().chain(around("$B", 1)).collect();
    let tokens: Vec<(String, u32)> = bos.into_iter().chain(eos).map(|token| (token.text.clone(), token.id)).collect();
    Ok(TemplateProcessing::builder().try_single(single)?.try_pair(pair)?.special_tokens(tokens).build()?)
}

/// The tokenizer of a folder's files, and which file it was.
fn build(folder: &Path, settings: &TokenizerSettings) -> Result<(PathBuf, Tokenizer)> {
    let there = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
    if let Some(path) = there("tokenizer.json") {
        let tokenizer = tokenizer_json::read(&path)?;
        return Ok((path, tokenizer));
    }
    if let Some(path) = there("vocab.txt") {
        let tokenizer = wordpiece::read(&path, settings)?;
        return Ok((path, tokenizer));
    }
    if let (Some(vocabulary), Some(merges)) = (there("vocab.json"), there("merges.txt")) {
        let tokenizer = tokenizer_byte_level::read(&vocabulary, &merges, settings)?;
        return Ok((vocabulary, tokenizer));
    }
    if let Some(path) = SENTENCEPIECE.iter().find_map(|name| there(name)) {
        let tokenizer = sentencepiece::read(&path, settings)?;
        return Ok((path, tokenizer));
    }
    let message = format!(
        "{}: no tokenizer: expected tokenizer.json, vocab.txt, vocab.json with merges.txt, or a sentencepiece model (tokenizer.model)",
        folder.display()
    );
    Err(Error::new(message).help("copy the tokenizer's files from the base model, or download the folder again"))
}

/// Adds the tokens that other files declare; special tokens that are in the vocabulary already become known as such.
fn register_added(tokenizer: &mut Tokenizer, settings: &TokenizerSettings, path: &Path) -> Result<()> {
    let named = SPECIAL.iter().filter_map(|kind| settings.special(kind)).map(|token| (None, token.special(true)));
    for (id, token) in settings.added().into_iter().chain(named) {
        let known = tokenizer.token_to_id(&token.content);
        let next = u32::try_from(tokenizer.get_vocab_size(true)).unwrap_or(u32::MAX);
        // A name without an id gets no row of its own: the model has none for it.
        let Some(expected) = id.or(known) else { continue };
        if known.unwrap_or(next) != expected {
            let found = known.map_or_else(|| format!("the next free row is {next}"), |known| format!("the vocabulary has it at {known}"));
            let message = format!("{}: the added token {:?} is declared with id {expected}, but {found}", path.display(), token.content);
            return Err(Error::new(message).help("the tokenizer's files do not belong together: get all of them from one model"));
        }
        let already = tokenizer.get_added_vocabulary().get_added_tokens_decoder().contains_key(&expected);
        if !already {
            add(tokenizer, token).map_err(|error| wrong(path, error))?;
        }
    }
    Ok(())
}

fn add(tokenizer: &mut Tokenizer, token: AddedToken) -> std::result::Result<usize, tokenizers::Error> {
    if token.special { tokenizer.add_special_tokens([token]) } else { tokenizer.add_tokens([token]) }
}

/// Runs code of the `tokenizers` crate. It has places that panic on files that are not as it expects (a template that names a token which it
/// does not define); what is known of these is checked before, and what is not ends as an error all the same.
fn guarded<T>(path: &Path, run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        Error::new(format!("{}: the tokenizer is not consistent: the tokenizers library gave up on it", path.display()))
            .help("get the tokenizer's files from their source again")
    })
}

/// An error of the `tokenizers` crate.
pub(crate) fn wrong(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::new(format!("{}: {error}", path.display())).help("get the tokenizer's files from their source again")
}
