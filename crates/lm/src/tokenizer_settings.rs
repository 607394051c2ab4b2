//! What the JSON files beside a tokenizer say of it: its class, its special tokens, tokens added later, end ids.

use std::path::Path;

use deltaic_checkpoint::{Error, Result, read_text};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

/// A settings file of more bytes is not one; the largest hold a chat template and some thousand reserved tokens.
const MAX_SETTINGS: u64 = 16 << 20;

/// The kinds of special tokens, as tokenizer_config.json names them.
pub(crate) const SPECIAL: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Tokenizer classes that behave alike where a folder has no tokenizer.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// WordPiece with `[CLS]` and `[SEP]`.
    Bert,
    /// Byte-level BPE with `<s>` and `</s>` around texts.
    Roberta,
    /// Byte-level BPE as GPT-2's.
    Gpt2,
    /// Byte-level BPE with Qwen's splitting of words and NFC.
    Qwen2,
    /// A sentencepiece model whose first ids were moved, as fairseq has them.
    XlmRoberta,
    /// A sentencepiece model with an end token and sentinels.
    T5,
    /// A sentencepiece model, perhaps with a BOS before texts: Llama, Mistral.
    Llama,
    /// As Llama, without the space before texts.
    Gemma,
}

impl Family {
    /// The family of a tokenizer class, or of a model type.
    fn of(name: &str) -> Option<Self> {
        let name = name.strip_suffix("Fast").unwrap_or(name);
        Some(match name.strip_suffix("Tokenizer").unwrap_or(name) {
            "Bert" | "DistilBert" | "Electra" | "bert" | "distilbert" | "electra" => Self::Bert,
            "Roberta" | "Bart" | "Longformer" | "roberta" | "bart" | "longformer" => Self::Roberta,
            "GPT2" | "gpt2" => Self::Gpt2,
            "Qwen2" | "qwen2" | "qwen3" => Self::Qwen2,
            "XLMRoberta" | "xlm-roberta" => Self::XlmRoberta,
            "T5" | "t5" | "mt5" => Self::T5,
            "Llama" | "CodeLlama" | "llama" | "mistral" | "phi3" => Self::Llama,
            "Gemma" | "gemma" | "gemma2" => Self::Gemma,
            _ => return None,
        })
    }

    /// The special tokens of the class where no file names them, in the order of [`SPECIAL`].
    fn special(self) -> [Option<&'static str>; 7] {
        match self {
            Self::Bert => [None, None, Some("[UNK]"), Some("[SEP]"), Some("[PAD]"), Some("[CLS]"), Some("[MASK]")],
            Self::Roberta | Self::XlmRoberta => ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"].map(Some),
            Self::Gpt2 => [Some("<|endoftext|>"), Some("<|endoftext|>"), Some("<|endoftext|>"), None, None, None, None],
            Self::Qwen2 => [None, Some("<|endoftext|>"), Some("<|endoftext|>"), None, Some("<|endoftext|>"), None, None],
            Self::T5 => [None, Some("</s>"), Some("<unk>"), None, Some("<pad>"), None, None],
            Self::Llama => [Some("<s>"), Some("</s>"), Some("<unk>"), None, None, None, None],
            Self::Gemma => [Some("<bos>"), Some("<eos>"), Some("<unk>"), None, Some("<pad>"), None, Some("<mask>")],
        }
    }
}

/// tokenizer_config.json, special_tokens_map.json, added_tokens.json, config.json and generation_config.json of a folder, as far as they
/// concern the tokenizer. Each may be missing.
#[derive(Debug)]
pub(crate) struct TokenizerSettings {
    tokenizer: Map<String, Value>,
    special: Map<String, Value>,
    added: Map<String, Value>,
    model: Map<String, Value>,
    generation: Map<String, Value>,
}

impl TokenizerSettings {
    /// Reads the files of a folder.
    ///
    /// # Errors
    /// One is there and is not a JSON object.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| read_object(&folder.join(name)).map(Option::unwrap_or_default);
        Ok(Self {
            tokenizer: read("tokenizer_config.json")?,
            special: read("special_tokens_map.json")?,
            added: read("added_tokens.json")?,
            model: read("config.json")?,
            generation: read("generation_config.json")?,
        })
    }

    /// A value of tokenizer_config.json that is true or false.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.tokenizer.get(key)?.as_bool()
    }

    /// The class that the files name, for messages.
    pub(crate) fn class(&self) -> &str {
        let named = self.tokenizer.get("tokenizer_class").or_else(|| self.model.get("model_type"));
        named.and_then(Value::as_str).unwrap_or("a tokenizer of no named class")
    }

    /// The family of tokenizer_class, else of the model's type.
    pub(crate) fn family(&self) -> Option<Family> {
        let of = |map: &Map<String, Value>, key: &str| map.get(key).and_then(Value::as_str).and_then(Family::of);
        of(&self.tokenizer, "tokenizer_class").or_else(|| of(&self.model, "model_type"))
    }

    /// The special token of a kind of [`SPECIAL`]: as tokenizer_config.json, else special_tokens_map.json, else the class has it.
    pub(crate) fn special(&self, kind: &str) -> Option<AddedToken> {
        let named = [&self.tokenizer, &self.special].into_iter().find_map(|map| map.get(kind).and_then(added_token));
        named.or_else(|| {
            let position = SPECIAL.iter().position(|name| *name == kind)?;
            Some(AddedToken::from(self.family()?.special()[position]?, true))
        })
    }

    /// The id that config.json or generation_config.json has for a kind of [`SPECIAL`].
    pub(crate) fn special_id(&self, kind: &str) -> Option<u32> {
        let key = format!("{kind}_id");
        [&self.generation, &self.model].into_iter().find_map(|map| ids(map.get(&key)?).first().copied())
    }

    /// Where generation ends: every id of generation_config.json's eos_token_id, else of config.json's.
    pub(crate) fn end_ids(&self) -> Vec<u32> {
        let of = |map: &Map<String, Value>| map.get("eos_token_id").map(ids).filter(|ids| !ids.is_empty());
        of(&self.generation).or_else(|| of(&self.model)).unwrap_or_default()
    }

    /// Tokens added to the vocabulary, by id, where their ids are declared; then further special tokens.
    pub(crate) fn added(&self) -> Vec<(Option<u32>, AddedToken)> {
        let mut declared: Vec<(u32, AddedToken)> = Vec::new();
        if let Some(Value::Object(tokens)) = self.tokenizer.get("added_tokens_decoder") {
            declared.extend(tokens.iter().filter_map(|(id, token)| Some((id.parse().ok()?, added_token(token)?))));
        }
        for (token, id) in &self.added {
            let known = declared.iter().any(|(_, other)| other.content == *token);
            if let (false, Some(id)) = (known, id.as_u64().and_then(|id| u32::try_from(id).ok())) {
                declared.push((id, AddedToken::from(token.clone(), false)));
            }
        }
        declared.sort_by_key(|(id, _)| *id);
        let more = ["additional_special_tokens", "extra_special_tokens"].into_iter();
        let more = more.flat_map(|key| [self.tokenizer.get(key), self.special.get(key)]).flatten().filter_map(Value::as_array).flatten();
        declared.into_iter().map(|(id, token)| (Some(id), token)).chain(more.filter_map(added_token).map(|token| (None, token))).collect()
    }
}

/// Reads a JSON object; None where there is no such file.
pub(crate) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.exists() {
        return Ok(None);
    }
    serde_json::from_str(&read_text(path, MAX_SETTINGS)?).map(Some).map_err(|error| {
        Error::new(format!("{}: expected a JSON object: {error}", path.display())).help("get the file from its source again")
    })
}

/// A token as the files write it: its text, or an object with the text and how it is matched. A text alone is a special token.
fn added_token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) if !text.is_empty() => Some(AddedToken::from(text.clone(), true)),
        Value::Object(token) => {
            let flag = |key: &str| token.get(key).and_then(Value::as_bool);
            let text = token.get("content")?.as_str().filter(|text| !text.is_empty())?;
            let special = flag("special").unwrap_or(true);
            let made = AddedToken::from(text, special).lstrip(flag("lstrip").unwrap_or(false)).rstrip(flag("rstrip").unwrap_or(false));
            Some(made.single_word(flag("single_word").unwrap_or(false)).normalized(flag("normalized").unwrap_or(!special)))
        }
        _ => None,
    }
}

/// An id, or a list of ids.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}
