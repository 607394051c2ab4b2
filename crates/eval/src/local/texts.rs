//! How requests become tokens of one model.

use std::path::Path;

use deltaic_checkpoint::{Error, Result};
use deltaic_lm::{ChatTemplate, EncoderInput, Scored, TextTokenizer};

use super::sequences::Sequences;
use crate::backend::{Message, Prompt, Request};

/// A model's tokenizer and chat template: what makes tokens of requests.
#[derive(Debug)]
pub struct RequestTokenizer {
    /// The model's name, for messages.
    pub(super) name: String,
    pub(super) tokenizer: TextTokenizer,
    pub(super) chat_template: Option<ChatTemplate>,
    /// Whether prompts begin with the BOS token; None as the tokenizer has it.
    pub(super) add_bos: Option<bool>,
}

impl RequestTokenizer {
    /// Opens tokenizer and chat template of a model's folder. `name` is the model's, for messages; `add_bos` as in
    /// [`LocalOptions`](super::LocalOptions).
    ///
    /// # Errors
    /// There is no tokenizer, or a file is damaged.
    pub fn open(folder: &Path, name: impl Into<String>, add_bos: Option<bool>) -> Result<Self> {
        let (tokenizer, chat_template) = (TextTokenizer::open(folder)?, ChatTemplate::open(folder)?);
        Ok(Self { name: name.into(), tokenizer, chat_template, add_bos })
    }

    /// The token that ends the model's turn, as text, where it is known.
    pub fn eos_token(&self) -> Option<String> {
        self.tokenizer.special().eos.as_ref().map(|eos| eos.text.clone())
    }

    /// The tokens of a [`Request::Classify`], at most `max_tokens` of them.
    ///
    /// # Errors
    /// The text cannot be encoded, or it is another request.
    pub fn classified(&self, request: &Request, max_tokens: usize) -> Result<EncoderInput> {
        let Request::Classify { text, pair, max_tokens: own } = request else { return Err(self.unfit("classified")) };
        let encoded = self.tokenizer.encode_pair(text, pair.as_deref(), max_tokens.min(*own))?;
        Ok(EncoderInput { ids: encoded.ids, type_ids: encoded.type_ids })
    }

    /// The sequences of a [`Request::LogLikelihood`] or [`Request::Rolling`], for a model of `window` tokens; none where nothing is left
    /// to score.
    ///
    /// # Errors
    /// The text cannot be encoded, it needs a chat template that the model lacks, or it is another request.
    pub fn scored(&self, request: &Request, window: usize) -> Result<Vec<Scored>> {
        match request {
            Request::Rolling { text } => self.sequences(window).rolling(text),
            Request::LogLikelihood { prompt, continuation, tokenisation } => {
                let (prompt, from_template) = self.text_of(prompt)?;
                Ok(self.sequences(window).continuation(&prompt, from_template, continuation, *tokenisation)?.into_iter().collect())
            }
            _ => Err(self.unfit("scored")),
        }
    }

    /// A text as a prompt: with the BOS where the model's texts begin with it.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn document(&self, text: &str) -> Result<Vec<u32>> {
        self.sequences(0).prompt(text, false)
    }

    /// How texts become sequences, for a model of `window` tokens.
    pub(super) fn sequences(&self, window: usize) -> Sequences<'_> {
        Sequences { model: &self.name, tokenizer: &self.tokenizer, add_bos: self.add_bos, window }
    }

    /// A prompt as text, and whether the chat template wrote it.
    pub(super) fn text_of(&self, prompt: &Prompt) -> Result<(String, bool)> {
        match prompt {
            Prompt::Text(text) => Ok((text.clone(), false)),
            Prompt::Chat(messages) => Ok((self.chat(messages)?, true)),
        }
    }

    /// Whether prompt and continuation have more tokens than a window holds (the last token is only predicted).
    pub(super) fn is_longer(&self, prompt: &Prompt, continuation: &str, window: usize) -> Result<bool> {
        let (prompt, _) = self.text_of(prompt)?;
        Ok(self.tokenizer.encode(&format!("{prompt}{continuation}"), false)?.len() > window + 1)
    }

    fn chat(&self, messages: &[Message]) -> Result<String> {
        let Some(template) = &self.chat_template else {
            return Err(Error::new(format!("{}: the model has no chat template, which this task's prompt asks for", self.name)).help(
                "copy chat_template.jinja or tokenizer_config.json from the model that it was trained from, or use a task whose prompts are text",
            ));
        };
        template.render(messages, true)
    }

    fn unfit(&self, what: &str) -> Error {
        Error::new(format!("{}: a request of another kind cannot be {what}", self.name))
    }
}
