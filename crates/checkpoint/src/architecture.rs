//! What is known of architectures: `architectures/*.json`, and what names tell of the rest.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use crate::agreement::MustAgree;
use crate::config::Config;

/// Where a tensor stands in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// Before the layers: embeddings.
    Before,
    /// In the layer of this number, from zero.
    Layer(usize),
    /// Behind the layers: the last norm, heads.
    After,
}

/// What is known of a checkpoint's architecture. Names may be given with or without the family's prefix.
#[derive(Debug, Clone)]
pub struct Architecture {
    family: Arc<Family>,
    prefix: String,
    model_type: Option<String>,
    class: Option<String>,
}

/// One family of architectures as the data files describe it. Names are relative to the backbone, but for heads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Family {
    name: String,
    model_types: Vec<String>,
    prefixes: Vec<String>,
    layers: Vec<LayerStack>,
    before: Vec<String>,
    embeddings: Vec<String>,
    heads: Vec<String>,
    /// A tensor, and the one that stands for it where it is not stored; `@` is the backbone's prefix.
    tied: Vec<(String, String)>,
    /// Biases with an element per token.
    #[serde(default)]
    vocabulary_biases: Vec<String>,
    decoder: bool,
    tied_by_default: bool,
    #[serde(default)]
    buffers: Vec<String>,
    /// Linear layers whose weights are stored `[in, out]`.
    #[serde(default)]
    conv1d: Vec<String>,
}

/// A stack of layers: the names' part up to and with the layer's number, and the configuration's keys of their number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerStack {
    template: String,
    count: Vec<String>,
}

/// What holds for all architectures, or is tried where the architecture is unknown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Generic {
    pub(crate) layer_count_keys: Vec<String>,
    pub(crate) per_layer_lists: Vec<String>,
    pub(crate) layer_index_lists: Vec<String>,
    pub(crate) dtype_keys: Vec<String>,
    before: Vec<String>,
    pub(crate) heads: Vec<String>,
    embeddings: Vec<String>,
    buffers: Vec<String>,
    pub(crate) must_agree: Vec<MustAgree>,
}

/// The data of `architectures/generic.json`.
pub(crate) fn generic() -> &'static Generic {
    static DATA: OnceLock<Generic> = OnceLock::new();
    DATA.get_or_init(|| serde_json::from_str(include_str!("../architectures/generic.json")).expect("generic.json is part of the program"))
}

fn families() -> &'static [Arc<Family>] {
    static DATA: OnceLock<Vec<Arc<Family>>> = OnceLock::new();
    DATA.get_or_init(|| {
        let files = [
            include_str!("../architectures/decoders.json"),
            include_str!("../architectures/encoders.json"),
            include_str!("../architectures/encoder_decoders.json"),
        ];
        let read = |file| -> Vec<Family> { serde_json::from_str(file).expect("the architectures' files are part of the program") };
        files.into_iter().flat_map(read).map(Arc::new).collect()
    })
}

impl Architecture {
    /// The architecture of a checkpoint: by `model_type`, else by `architectures`, else inferred from the names of its tensors.
    pub fn of<'a>(config: &Config, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        let (model_type, class) = (config.model_type(), config.architectures().into_iter().next());
        let family = known_family(model_type.as_deref(), class.as_deref()).unwrap_or_else(|| Arc::new(Family::inferred(config, &names)));
        let mut found = Self { family, prefix: String::new(), model_type, class };
        found.prefix = found.prefix_in(&names);
        found
    }

    /// The same architecture for other names: the prefix as they spell it.
    pub fn respelled<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        Self { prefix: self.prefix_in(&names), ..self.clone() }
    }

    /// The same architecture with a given prefix of the backbone.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), ..self.clone() }
    }

    /// The family's name in deltaic's data (`llama`, `bert`, …), or `generic`.
    pub fn name(&self) -> &str {
        &self.family.name
    }

    /// Whether nothing is known of the architecture but what names tell.
    pub fn is_generic(&self) -> bool {
        self.family.name == "generic"
    }

    /// The prefix of the backbone's tensors as this checkpoint spells it: `model.`, `bert.`, …, or nothing.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The architecture's own name: `model_type`, else the class of `architectures`.
    pub fn model_type(&self) -> Option<&str> {
        self.model_type.as_deref().or(self.class.as_deref())
    }

    /// Whether two checkpoints are of one architecture: the same `model_type`, whatever their heads (BertModel and
    /// BertForSequenceClassification are); where one has none, the same class or family.
    pub fn same_family(&self, other: &Self) -> bool {
        match (&self.model_type, &other.model_type) {
            (Some(a), Some(b)) => a == b,
            _ if self.class.is_some() && self.class == other.class => true,
            _ => self.family.name == other.family.name,
        }
    }

    /// Whether it generates text with a head that may be tied to the embedding, so that `tie_word_embeddings` is managed.
    pub fn is_decoder(&self) -> bool {
        self.family.decoder
    }

    /// Whether a configuration says that the head is the embedding: `tie_word_embeddings`, else the architecture's default.
    pub fn is_tied(&self, config: &Config) -> bool {
        config.tied().unwrap_or(self.family.tied_by_default)
    }

    /// The layer to which a tensor belongs.
    pub fn layer_of(&self, name: &str) -> Option<usize> {
        self.split_layer(name).map(|(_, layer, _)| layer)
    }

    /// The stack of layers to which a tensor belongs (its name up to the layer's number), the number, and how many layers a configuration
    /// gives that stack.
    pub fn stack_of<'n>(&self, name: &'n str, config: &Config) -> Option<(&'n str, usize, Option<u64>)> {
        let (before, layer, _) = self.split_layer(name)?;
        let stacks =
            || self.family.layers.iter().filter(|stack| stack.template.split_once("{}").is_some_and(|(head, _)| before.ends_with(head)));
        Some((before, layer, stacks().flat_map(|stack| &stack.count).find_map(|key| config.get_u64(key))))
    }

    /// A name relative to the backbone, with `{}` for the layer's number.
    pub(crate) fn template(&self, name: &str) -> String {
        match self.split_layer(name) {
            Some((before, _, after)) => format!("{}{{}}{after}", self.relative(before)),
            None => self.relative(name).to_owned(),
        }
    }

    /// The `model_type`, else the family's name.
    pub(crate) fn model_type_or_family(&self) -> &str {
        self.model_type.as_deref().unwrap_or(&self.family.name)
    }

    /// The name with another layer number; names outside the layers stay as they are.
    pub fn with_layer(&self, name: &str, layer: usize) -> String {
        match self.split_layer(name) {
            Some((before, _, after)) => format!("{before}{layer}{after}"),
            None => name.to_owned(),
        }
    }

    /// The kind of a tensor: its name without the backbone's prefix, the layer, other numbers (of experts) and `.weight`, such as
    /// `self_attn.q_proj`, `mlp.experts.down_proj`, `attention.self.query.bias`, `embed_tokens`, `norm`. Where there is more than one
    /// stack of layers (encoder and decoder), its first word stays: `decoder.self_attn.q_proj`.
    pub fn kind_of(&self, name: &str) -> String {
        let relative = self.relative(name);
        let inner = match self.split_layer(relative) {
            Some((head, _, rest)) => {
                let stack = if self.family.layers.len() > 1 { head.split('.').next().unwrap_or("") } else { "" };
                format!("{stack}{rest}")
            }
            None => relative.to_owned(),
        };
        let parts: Vec<&str> = inner.split('.').filter(|part| !part.is_empty() && parse_number(part).is_none()).collect();
        match parts.split_last() {
            Some((&"weight", rest)) if !rest.is_empty() => rest.join("."),
            _ => parts.join("."),
        }
    }

    /// Whether the layers are one stack, so that the configuration's layer count is that of its numbers.
    pub fn has_one_stack(&self) -> bool {
        self.family.layers.len() == 1
    }

    /// Where a tensor stands: in a layer, before the layers (embeddings) or behind them.
    pub fn position(&self, name: &str) -> Position {
        if let Some(layer) = self.layer_of(name) {
            return Position::Layer(layer);
        }
        let before = |name: &str| self.family.before.iter().any(|start| is_within(name, start));
        // Names of unknown architectures are searched for the word in any component.
        let embeds = |name: &str| name.split('.').any(|part| generic().before.iter().any(|word| part.starts_with(word.as_str())));
        let found = if self.is_generic() { embeds(name) } else { before(self.relative(name)) || before(name) };
        if found { Position::Before } else { Position::After }
    }

    /// Whether a tensor is a buffer that is copied, never merged: rotary frequencies, position numbers, masks.
    pub fn is_buffer(&self, name: &str) -> bool {
        generic().buffers.iter().chain(&self.family.buffers).any(|end| ends_with(name, end))
    }

    /// Whether a tensor belongs to a head, outside the backbone: its name never has the backbone's prefix.
    pub fn is_head(&self, name: &str) -> bool {
        let stripped = self.family.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
        !stripped && self.family.heads.iter().any(|head| is_within(name, head))
    }

    /// Whether a linear layer's weight is stored `[in, out]` (transformers' Conv1D in GPT-2); None where the architecture is unknown.
    pub fn is_conv1d(&self, name: &str) -> Option<bool> {
        let listed = || self.family.conv1d.iter().any(|end| ends_with(name, end));
        if self.is_generic() { None } else { Some(listed()) }
    }

    /// Whether a tensor is an input embedding with a row per token.
    pub fn is_embedding(&self, name: &str) -> bool {
        let relative = self.relative(name);
        self.family.embeddings.iter().any(|embedding| embedding == relative)
    }

    /// Whether the rows of a tensor are the vocabulary's: an input embedding, a head that may be tied to one, or a bias beside it.
    pub fn has_vocabulary_rows(&self, name: &str) -> bool {
        let relative = self.relative(name);
        let is = |own: &String| own == name || own == relative;
        let of_embedding = |partner: &str| self.is_embedding(&self.spell(partner));
        self.is_embedding(name)
            || self.family.vocabulary_biases.iter().any(is)
            || self.family.tied.iter().any(|(own, partner)| is(own) && of_embedding(partner))
    }

    /// The name of the tensor that stands for `name` where it is tied and not stored: `model.embed_tokens.weight` for
    /// `lm_head.weight`, with the prefix as this checkpoint spells it. The embedding itself has none.
    pub fn tied_partner(&self, name: &str) -> Option<String> {
        let tied = |own: &str| own == name || own == self.relative(name);
        let (_, partner) = self.family.tied.iter().find(|(own, _)| tied(own))?;
        Some(self.spell(partner))
    }

    /// The tensors that stand for others where these are not stored, with the others: `(lm_head.weight, model.embed_tokens.weight)`.
    pub fn tied_pairs(&self) -> Vec<(String, String)> {
        self.family.tied.iter().map(|(own, partner)| (self.spell(own), self.spell(partner))).collect()
    }

    /// The configuration's number of layers.
    pub fn layer_count(&self, config: &Config) -> Option<u64> {
        let own = self.family.layers.first().and_then(|stack| stack.count.iter().find_map(|key| config.get_u64(key)));
        own.or_else(|| config.layer_count())
    }

    fn spell(&self, name: &str) -> String {
        match name.strip_prefix('@') {
            Some(rest) => format!("{}{rest}", self.prefix),
            None => name.to_owned(),
        }
    }

    /// The prefix that these names have.
    fn prefix_in(&self, names: &[&str]) -> String {
        let has = |prefix: &&String| names.iter().any(|name| name.starts_with(prefix.as_str()));
        self.family.prefixes.iter().find(has).cloned().unwrap_or_default()
    }

    /// A name without the backbone's prefix, whichever of the family's it has.
    fn relative<'n>(&self, name: &'n str) -> &'n str {
        self.family.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix.as_str())).unwrap_or(name)
    }

    /// A name's part before the layer number, the number, and the part from the next dot on.
    fn split_layer<'n>(&self, name: &'n str) -> Option<(&'n str, usize, &'n str)> {
        for relative in [self.relative(name), name] {
            for stack in &self.family.layers {
                let Some((head, _)) = stack.template.split_once("{}") else { continue };
                let Some(rest) = relative.strip_prefix(head) else { continue };
                let Some((number, _)) = rest.split_once('.') else { continue };
                if let Some(layer) = parse_number(number) {
                    let cut = name.len() - rest.len();
                    return Some((&name[..cut], layer, &name[cut + number.len()..]));
                }
            }
        }
        None
    }
}

impl Family {
    /// A family inferred from names: its layers are what stands before the first number in most names.
    fn inferred(config: &Config, names: &[&str]) -> Self {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for name in names {
            let mut head = String::new();
            for part in name.split('.') {
                if parse_number(part).is_some() && !head.is_empty() {
                    *counts.entry(head).or_default() += 1;
                    break;
                }
                head += part;
                head.push('.');
            }
        }
        let most = counts.values().copied().max().unwrap_or(0);
        let keys: Vec<String> = generic().layer_count_keys.iter().filter(|key| config.get_u64(key).is_some()).cloned().collect();
        let stacks = counts.into_iter().filter(|(_, count)| *count == most);
        let layers = stacks.map(|(head, _)| LayerStack { template: format!("{head}{{}}."), count: keys.clone() }).collect();
        let embedding = |name: &&&str| generic().embeddings.iter().any(|end| ends_with(name, end));
        let embeddings: Vec<String> = names.iter().filter(embedding).map(|name| (*name).to_owned()).collect();
        let tied = embeddings.first().map(|embedding| ("lm_head.weight".to_owned(), embedding.clone()));
        Self {
            name: "generic".to_owned(),
            model_types: Vec::new(),
            prefixes: Vec::new(),
            layers,
            before: Vec::new(),
            embeddings,
            heads: generic().heads.clone(),
            tied: tied.into_iter().collect(),
            vocabulary_biases: vec!["lm_head.bias".to_owned()],
            decoder: names.contains(&"lm_head.weight") || config.architectures().iter().any(|class| class.ends_with("ForCausalLM")),
            // `PretrainedConfig`'s default.
            tied_by_default: true,
            buffers: Vec::new(),
            conv1d: Vec::new(),
        }
    }
}

/// The family of a `model_type`, or, where there is none, the one whose type the class name begins with.
fn known_family(model_type: Option<&str>, class: Option<&str>) -> Option<Arc<Family>> {
    if let Some(model_type) = model_type {
        return families().iter().find(|family| family.model_types.iter().any(|known| known == model_type)).cloned();
    }
    let class = class?.to_ascii_lowercase();
    let types = families().iter().flat_map(|family| family.model_types.iter().map(move |known| (known.replace(['-', '_'], ""), family)));
    let fitting = types.filter(|(known, _)| {
        class
            .strip_prefix(known.as_str())
            .is_some_and(|rest| rest.starts_with("for") || rest.starts_with("model") || rest.starts_with("lmhead"))
    });
    fitting.max_by_key(|(known, _)| known.len()).map(|(_, family)| family.clone())
}

/// A layer number: digits only.
fn parse_number(text: &str) -> Option<usize> {
    // `01` is none: written again it would be another name.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Whether a name is `start` or something below it.
fn is_within(name: &str, start: &str) -> bool {
    name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a name's last components are `end`.
fn ends_with(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn architecture(model_type: &str, names: &[&str]) -> Architecture {
        let config =
            Config::parse(&format!(r#"{{"model_type": "{model_type}", "num_hidden_layers": 4}}"#), Path::new("config.json")).unwrap();
        Architecture::of(&config, names.iter().copied())
    }

    #[test]
    fn every_model_type_is_known_once() {
        let mut all: Vec<&String> = families().iter().flat_map(|family| &family.model_types).collect();
        let number = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), number);
        for wanted in [
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "phi",
            "phi3",
            "gemma",
            "gemma2",
            "gemma3",
            "stablelm",
            "granite",
            "smollm3",
            "olmo2",
            "cohere",
            "gpt2",
            "gpt_neox",
            "falcon",
            "starcoder2",
            "internlm2",
            "bert",
            "roberta",
            "xlm-roberta",
            "distilbert",
            "mixtral",
            "qwen2_moe",
            "qwen3_moe",
            "t5",
        ] {
            assert!(known_family(Some(wanted), None).is_some(), "{wanted}");
        }
    }

    #[test]
    fn layers_are_found_and_renumbered_with_and_without_prefix() {
        for (kind, name, layer, renumbered) in [
            ("llama", "model.layers.3.mlp.up_proj.weight", 3, "model.layers.12.mlp.up_proj.weight"),
            ("llama", "layers.3.mlp.up_proj.weight", 3, "layers.12.mlp.up_proj.weight"),
            ("mixtral", "model.layers.7.block_sparse_moe.experts.2.w1.weight", 7, "model.layers.12.block_sparse_moe.experts.2.w1.weight"),
            ("bert", "bert.encoder.layer.0.output.dense.bias", 0, "bert.encoder.layer.12.output.dense.bias"),
            ("gpt2", "h.10.attn.c_attn.weight", 10, "h.12.attn.c_attn.weight"),
            ("distilbert", "distilbert.transformer.layer.5.ffn.lin1.weight", 5, "distilbert.transformer.layer.12.ffn.lin1.weight"),
            ("t5", "encoder.block.2.layer.0.SelfAttention.q.weight", 2, "encoder.block.12.layer.0.SelfAttention.q.weight"),
            ("gemma3", "language_model.model.layers.1.mlp.up_proj.weight", 1, "language_model.model.layers.12.mlp.up_proj.weight"),
        ] {
            let architecture = architecture(kind, &[name]);
            assert_eq!(architecture.layer_of(name), Some(layer), "{kind} {name}");
            assert_eq!(architecture.with_layer(name, 12), renumbered);
        }
        let gemma3 = architecture("gemma3", &["language_model.model.norm.weight"]);
        assert_eq!(gemma3.layer_of("vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight"), None);
    }

    #[test]
    fn the_kind_of_a_tensor_is_its_name_without_prefix_layer_and_numbers() {
        for (family, name, kind) in [
            ("llama", "model.layers.31.self_attn.q_proj.weight", "self_attn.q_proj"),
            ("llama", "layers.31.self_attn.q_proj.bias", "self_attn.q_proj.bias"),
            ("llama", "model.embed_tokens.weight", "embed_tokens"),
            ("llama", "lm_head.weight", "lm_head"),
            ("mixtral", "model.layers.7.block_sparse_moe.experts.2.w1.weight", "block_sparse_moe.experts.w1"),
            ("bert", "bert.encoder.layer.0.attention.self.query.weight", "attention.self.query"),
            ("bert", "embeddings.LayerNorm.bias", "embeddings.LayerNorm.bias"),
            ("t5", "decoder.block.2.layer.1.EncDecAttention.q.weight", "decoder.layer.EncDecAttention.q"),
            ("t5", "encoder.block.2.layer.0.SelfAttention.q.weight", "encoder.layer.SelfAttention.q"),
            ("martian", "net.stage.4.b.weight", "b"),
            ("martian", "weight", "weight"),
        ] {
            assert_eq!(architecture(family, &[name]).kind_of(name), kind, "{family} {name}");
        }
    }

    #[test]
    fn positions_ties_and_buffers_are_the_familys() {
        let llama = architecture("llama", &["model.norm.weight", "lm_head.weight"]);
        assert_eq!(llama.prefix(), "model.");
        assert_eq!(llama.position("model.embed_tokens.weight"), Position::Before);
        assert_eq!((llama.position("model.norm.weight"), llama.position("lm_head.weight")), (Position::After, Position::After));
        assert_eq!(llama.tied_partner("lm_head.weight").as_deref(), Some("model.embed_tokens.weight"));
        assert_eq!(llama.tied_partner("model.embed_tokens.weight"), None);
        assert!(llama.is_head("lm_head.weight") && !llama.is_head("model.norm.weight") && llama.is_embedding("model.embed_tokens.weight"));
        assert!(
            llama.is_buffer("model.layers.0.self_attn.rotary_emb.inv_freq") && !llama.is_buffer("model.layers.0.self_attn.q_proj.bias")
        );
        let gpt2 = architecture("gpt2", &["h.0.attn.bias"]);
        assert!(gpt2.is_buffer("transformer.h.0.attn.bias") && !gpt2.is_buffer("h.0.attn.c_attn.bias"));
        assert_eq!(gpt2.tied_partner("lm_head.weight").as_deref(), Some("wte.weight"));
        assert!(architecture("bert", &[]).is_buffer("embeddings.position_ids"));
    }

    #[test]
    fn an_unknown_architecture_is_inferred_from_names() {
        let names = ["net.embedding.weight", "net.stage.0.a.1.w", "net.stage.1.a.0.w", "net.stage.1.b", "net.aux.0.w", "net.final.weight"];
        let unknown = architecture("martian", &names);
        assert!(unknown.is_generic());
        assert_eq!(unknown.layer_of("net.stage.1.a.0.w"), Some(1));
        assert_eq!(unknown.with_layer("net.stage.1.a.0.w", 5), "net.stage.5.a.0.w");
        assert_eq!(unknown.position("net.embedding.weight"), Position::Before);
        assert_eq!((unknown.position("net.aux.0.w"), unknown.position("net.final.weight")), (Position::After, Position::After));
    }

    #[test]
    fn one_model_type_is_one_architecture_whatever_its_head() {
        let of = |text: &str| Architecture::of(&Config::parse(text, Path::new("config.json")).unwrap(), []);
        let bare = of(r#"{"architectures": ["BertModel"], "model_type": "bert"}"#);
        assert!(bare.same_family(&of(r#"{"architectures": ["BertForSequenceClassification"], "model_type": "bert"}"#)));
        assert!(bare.same_family(&of(r#"{"architectures": ["BertForSequenceClassification"]}"#)));
        assert!(!bare.same_family(&of(r#"{"architectures": ["RobertaModel"], "model_type": "roberta"}"#)));
        assert_eq!(of(r#"{"architectures": ["LlamaForCausalLM"]}"#).name(), "llama");
        assert_eq!(of(r#"{"architectures": ["GPT2LMHeadModel"]}"#).name(), "gpt2");
    }
}
