//! Models that run in this process, on candle, in f32.

mod generate;
mod sequences;
mod texts;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use deltaic_checkpoint::{Architecture, Config, Error, FileIdentity, ModelReference, OpenedModel, Result, TensorSource, joined_id};
use deltaic_lm::{ChatTemplate, Decoder, Encoder, EncoderInput, HeadFrom, Mode, Scored, default_device};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::backend::{Answer, Backend, Request, Tokenisation};
use crate::task::Task;
use sequences::Sequences;
pub use texts::RequestTokenizer;

/// How a model in this process is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalOptions {
    /// Whether prompts begin with the BOS token; None as the model's tokenizer has it.
    pub add_bos: Option<bool>,
    /// Most tokens of a batch, padding and (up to 256 of a text) tokens still to be written included; a longer text is a batch of its own.
    pub batch_tokens: usize,
    /// The longest sequence in tokens, where it is to be shorter than the model's own.
    pub max_length: Option<usize>,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { add_bos: None, batch_tokens: 4096, max_length: None }
    }
}

/// A model as it is to be run: tensors from anywhere, a merge that was never written included.
#[derive(Debug)]
pub struct LocalSource {
    /// How it is called in tables and results.
    pub name: String,
    /// What its weights are known by: the same for the same weights.
    pub id: String,
    /// Its tensors.
    pub tensors: Box<dyn TensorSource>,
    /// Its config.json.
    pub config: Config,
    /// Where its tokenizer and chat template lie.
    pub tokenizer: PathBuf,
}

impl LocalSource {
    /// Finds and opens a model (a path, a name on the Hub, either with an adapter); `folders` as in [`OpenedModel::open`].
    ///
    /// # Errors
    /// It is not there, or a file of it breaks its format's rules.
    pub fn open(reference: &ModelReference, folders: &[(PathBuf, &str)]) -> Result<Self> {
        let opened = OpenedModel::open(reference, folders)?;
        // An adapter's folder may bring a tokenizer of its own, with tokens that were added for it.
        let own = opened.adapter.as_ref().map(|adapter| &adapter.path).filter(|path| has_tokenizer(path));
        let tokenizer = own.unwrap_or(&opened.model.path).clone();
        let name = opened.labelled_reference().to_string();
        Ok(Self { name, id: joined_id(&opened.files), tensors: opened.tensors, config: opened.config, tokenizer })
    }
}

impl LocalSource {
    /// Whether the model is of the kind that a task asks, as far as its headers say.
    ///
    /// # Errors
    /// It is an encoder and the task needs a decoder, or the other way round.
    pub fn check(&self, task: &Task) -> Result<()> {
        let is_decoder = Architecture::of(&self.config, self.tensors.tensors().keys().map(String::as_str)).is_decoder();
        match (task.classification.is_some(), is_decoder) {
            (true, true) => Err(no_head(&self.name)),
            (false, false) => Err(no_decoder(&self.name, &format!("do the task {}", task.task))),
            _ => Ok(()),
        }
    }
}

fn no_head(model: &str) -> Error {
    Error::new(format!("{model}: a decoder has no classification head"))
        .help("this task needs an encoder with a head (BERT, RoBERTa, …); decoders are evaluated by generation and by log-likelihood")
}

fn no_decoder(model: &str, what: &str) -> Error {
    Error::new(format!("{model}: an encoder cannot {what}"))
        .help("this task needs a decoder (a causal language model); encoders are evaluated by glue tasks")
}

/// Whether a folder has a whole tokenizer.
fn has_tokenizer(folder: &Path) -> bool {
    ["tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model"].iter().any(|name| folder.join(name).exists())
}

/// A model that runs in this process.
///
/// Encoders answer [`Request::Classify`]; decoders answer all others. Weights and arithmetic are f32.
pub struct LocalModel {
    name: String,
    identity: Value,
    labels: Option<Vec<String>>,
    texts: RequestTokenizer,
    network: Network,
    options: LocalOptions,
    cancel: Arc<AtomicBool>,
    truncated: AtomicUsize,
}

enum Network {
    Encoder(Encoder),
    Decoder(Decoder),
}

impl LocalModel {
    /// Loads a model; with `head_from` an encoder gets its pooler, if it lacks one, and its head from another model.
    ///
    /// # Errors
    /// The architecture is not known, tensors are missing, or there is no tokenizer.
    pub fn load(source: LocalSource, head_from: Option<LocalSource>, options: LocalOptions) -> Result<Self> {
        let LocalSource { name, id, tensors, config, tokenizer: folder } = source;
        let mut identity = json!({"kind": "local", "model": id, "config": digest(&config.to_json()), "dtype": "float32"});
        let mut labels = labels_of(&config);
        let texts = RequestTokenizer::open(&folder, name.as_str(), options.add_bos)?;
        let (tokenizer, chat_template) = (&texts.tokenizer, &texts.chat_template);
        let tensors: Box<dyn TensorSource> = match head_from {
            None => tensors,
            Some(head) => {
                identity["head"] = json!(head.id);
                labels = labels_of(&head.config);
                Box::new(HeadFrom::new(tensors, &config, head.tensors, &head.config)?)
            }
        };
        let device = default_device()?;
        let is_decoder = Architecture::of(&config, tensors.tensors().keys().map(String::as_str)).is_decoder();
        let network = match is_decoder {
            true => Network::Decoder(Decoder::load(tensors.as_ref(), &config, Mode::Inference, &device)?),
            false => Network::Encoder(Encoder::load(tensors.as_ref(), &config, Mode::Inference, &device)?),
        };
        if let Some(length) = options.max_length {
            let own = match &network {
                Network::Encoder(encoder) => encoder.max_tokens(),
                Network::Decoder(decoder) => decoder.context_length(),
            };
            if !(1..=own).contains(&length) {
                let message = format!("{name}: sequences of {length} tokens are asked for, the model's have up to {own}");
                return Err(Error::new(message).help(format!("--max-length from 1 to {own}")));
            }
            identity["max_length"] = json!(length);
        }
        identity["tokenizer"] = json!(FileIdentity::of(tokenizer.path())?.sample);
        if let Network::Decoder(_) = network {
            identity["add_bos"] = json!(options.add_bos.unwrap_or(tokenizer.adds_bos()));
            identity["end_tokens"] = json!(tokenizer.special().end_ids);
            identity["chat_template"] = json!(chat_template.as_ref().map(|template| digest(template.source())));
            if chat_template.as_ref().is_some_and(ChatTemplate::uses_date) {
                identity["date"] = json!(chat_template.as_ref().map(ChatTemplate::date));
            }
        }
        let (cancel, truncated) = (Arc::default(), AtomicUsize::new(0));
        Ok(Self { name, identity, labels, texts, network, options, cancel, truncated })
    }

    /// The same model under another name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self.texts.name.clone_from(&self.name);
        self
    }

    /// The same model, which stops writing a text with an error once `cancel` is true.
    pub fn cancelled_by(mut self, cancel: Arc<AtomicBool>) -> Self {
        self.cancel = cancel;
        self
    }

    fn decoder(&self, what: &str) -> Result<&Decoder> {
        match &self.network {
            Network::Decoder(decoder) => Ok(decoder),
            Network::Encoder(_) => Err(no_decoder(&self.name, what)),
        }
    }

    /// How requests become tokens.
    fn sequences(&self, decoder: &Decoder) -> Sequences<'_> {
        self.texts.sequences(self.window(decoder.context_length()))
    }

    /// The longest sequence, where the model allows `own` tokens.
    fn window(&self, own: usize) -> usize {
        self.options.max_length.map_or(own, |length| length.min(own))
    }

    fn classify(&self, asked: &[(usize, &Request)], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        if asked.is_empty() {
            return Ok(());
        }
        let Network::Encoder(encoder) = &self.network else {
            return Err(no_head(&self.name));
        };
        encoder.labels()?;
        let inputs: Vec<EncoderInput> =
            asked.iter().map(|(_, request)| self.texts.classified(request, self.window(encoder.max_tokens()))).collect::<Result<_>>()?;
        encoder.classify_all(&inputs, self.options.batch_tokens, &mut |index, logits| done(asked[index].0, Answer::Logits { logits }))
    }

    fn score(&self, asked: &[(usize, &Request)], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        if asked.is_empty() {
            return Ok(());
        }
        let decoder = self.decoder("say how likely a text is")?;
        // A rolling text is several sequences; what has nothing to score is answered at once.
        let (mut items, mut owners): (Vec<Scored>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut open = vec![Open { left: 0, sum: 0.0, tokens: 0, greedy: true }; asked.len()];
        for (position, (_, request)) in asked.iter().enumerate() {
            let window = self.window(decoder.context_length());
            let scored = self.texts.scored(request, window)?;
            if let (Request::LogLikelihood { prompt, continuation, tokenisation: Tokenisation::Joint }, [cut]) =
                (request, scored.as_slice())
                && cut.tokens.len() > window
                && self.texts.is_longer(prompt, continuation, window)?
            {
                self.truncated.fetch_add(1, Ordering::Relaxed);
            }
            open[position].left = scored.len();
            owners.extend(scored.iter().map(|_| position));
            items.extend(scored);
        }
        for (position, open) in open.iter().enumerate().filter(|(_, open)| open.left == 0) {
            done(asked[position].0, open.answer())?;
        }
        decoder.log_likelihoods(&items, self.options.batch_tokens, &mut |index, scores| {
            let open = &mut open[owners[index]];
            open.sum += scores.sum();
            open.tokens += scores.log_probabilities.len();
            open.greedy &= scores.greedy();
            open.left -= 1;
            if open.left == 0 { done(asked[owners[index]].0, open.answer()) } else { Ok(()) }
        })
    }
}

/// A score that is being summed.
#[derive(Debug, Clone)]
struct Open {
    /// Sequences that are still to come.
    left: usize,
    sum: f64,
    tokens: usize,
    greedy: bool,
}

impl Open {
    fn answer(&self) -> Answer {
        Answer::LogLikelihood { sum: self.sum, tokens: self.tokens, greedy: self.greedy }
    }
}

impl Backend for LocalModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> Value {
        self.identity.clone()
    }

    fn labels(&self) -> Option<Vec<String>> {
        self.labels.clone()
    }

    fn eos_token(&self) -> Option<String> {
        self.texts.eos_token()
    }

    fn truncated(&self) -> usize {
        self.truncated.load(Ordering::Relaxed)
    }

    fn answer(&self, requests: &[Request], done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        let of_kind = |wanted: fn(&Request) -> bool| -> Vec<(usize, &Request)> {
            requests.iter().enumerate().filter(|(_, request)| wanted(request)).collect()
        };
        self.classify(&of_kind(|request| matches!(request, Request::Classify { .. })), done)?;
        self.score(&of_kind(|request| matches!(request, Request::LogLikelihood { .. } | Request::Rolling { .. })), done)?;
        self.generate(&of_kind(|request| matches!(request, Request::Generate { .. })), done)
    }
}

/// The names of the head's outputs, where config.json has them for each.
fn labels_of(config: &Config) -> Option<Vec<String>> {
    let names = config.get("id2label")?;
    let names = names.as_object()?;
    (0..names.len()).map(|id| names.get(&id.to_string())?.as_str().map(str::to_owned)).collect()
}

/// SHA-256 of a text, in hexadecimal digits.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
