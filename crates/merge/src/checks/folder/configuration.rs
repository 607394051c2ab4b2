//! config.json against what is stored: tied heads, dtype, code.

use std::collections::BTreeMap;

use deltaic_checkpoint::{DType, TensorSource, shorten};
use serde_json::Value;

use super::{Checks, side_files};

impl Checks<'_> {
    /// Whether the head is stored where config.json says that it is no embedding, and fits where it says that it is.
    pub(super) fn tied(&mut self) {
        let (architecture, config, tensors) = (&self.model.architecture, self.config(), self.model.tensors());
        if !architecture.is_decoder() || architecture.is_generic() {
            return;
        }
        let mut pairs = architecture.tied_pairs();
        pairs.retain(|(head, _)| architecture.is_head(head));
        let stored: Vec<_> = pairs.iter().filter_map(|(head, embedding)| Some((tensors.get(head)?, embedding))).collect();
        let Some((head, embedding)) = pairs.first() else { return };
        if self.embedding().is_none() && (stored.is_empty() || !architecture.is_tied(config)) {
            let message = format!("{embedding}: expected the input embedding, found none");
            return self.broken(message, "it would be made up at random when the model is loaded");
        }
        if architecture.is_tied(config) {
            for (info, embedding) in stored {
                let Some(embedding) = tensors.get(embedding).filter(|embedding| embedding.shape != info.shape) else { continue };
                let message = format!(
                    "config.json: tie_word_embeddings says that {} is {}, found shapes {:?} and {:?}",
                    shorten(&info.name),
                    shorten(&embedding.name),
                    info.shape,
                    embedding.shape
                );
                self.broken(message, "set tie_word_embeddings to false, or remove the head");
            }
            return;
        }
        let generates = |class: &String| ["ForCausalLM", "LMHeadModel", "ForConditionalGeneration"].iter().any(|end| class.ends_with(end));
        if stored.is_empty() && config.architectures().iter().any(generates) {
            let help =
                "the head would be made up at random when the model is loaded: set tie_word_embeddings to true where it is the embedding";
            if config.tied().is_some() {
                self.broken(format!("config.json: tie_word_embeddings is false: expected a stored {head}, found none"), help);
            } else {
                self.warning(format!("config.json: without tie_word_embeddings a stored {head} is expected, found none"), help);
            }
        }
    }

    /// The dtype that config.json states is that of most elements.
    pub(super) fn dtype(&mut self) {
        let Some(said) = self.config().dtype().filter(|_| !self.config().is_quantized()) else { return };
        let mut elements: BTreeMap<DType, u64> = BTreeMap::new();
        for info in self.tensors().filter(|info| info.dtype.is_float()) {
            *elements.entry(info.dtype).or_default() += info.elements();
        }
        let Some((&most, _)) = elements.iter().max_by_key(|(_, count)| **count) else { return };
        if elements.get(&said) != elements.get(&most) {
            let message = format!("config.json: expected the dtype of most elements, {}, found {}", most.torch_name(), said.torch_name());
            self.warning(message, "programs that load by config.json would convert: set the dtype there");
        }
    }

    /// Code that config.json or tokenizer_config.json names lies beside them.
    pub(super) fn code(&mut self) {
        for file in ["config.json", "tokenizer_config.json"] {
            let named = match file {
                "config.json" => self.config().get("auto_map"),
                _ => match side_files::read_json(&self.folder.join(file)) {
                    Ok(settings) => settings.and_then(|settings| settings.get("auto_map").cloned()),
                    Err(error) => {
                        let help = "the tokenizer will not load: take the file from the source again";
                        self.broken(format!("{file}: {}", error.message()), help);
                        None
                    }
                },
            };
            let mut classes = Vec::new();
            for value in named.as_ref().and_then(Value::as_object).into_iter().flat_map(|map| map.values()) {
                match value {
                    Value::Array(list) => classes.extend(list.iter().filter_map(Value::as_str)),
                    other => classes.extend(other.as_str()),
                }
            }
            let mut modules: Vec<&str> = classes.iter().filter_map(|class| Some(class.split_once('.')?.0)).collect();
            modules.sort_unstable();
            modules.dedup();
            // `organisation/model--module.Class` lies on the Hub. A name with a separator is no module of this folder.
            for module in modules.into_iter().filter(|module| !module.contains("--") && !module.contains('/')) {
                let name = format!("{}.py", shorten(module));
                if !self.folder.join(format!("{module}.py")).is_file() {
                    let message = format!("{file}: auto_map: expected {name} in the folder, found none");
                    self.warning(message, "the model's own code is missing: copy it from the source, if it is needed");
                }
            }
        }
    }
}
