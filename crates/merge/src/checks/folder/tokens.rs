//! Ids of tokens against the rows of the embedding.

use deltaic_checkpoint::{Config, read_vocabulary, shorten};
use serde_json::Value;

use super::{Checks, counted, side_files};

/// Keys of config.json and generation_config.json that hold ids of tokens.
const SPECIAL: [&str; 8] = [
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "unk_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
];

impl Checks<'_> {
    /// Every token of the tokenizer, and every special token of the configurations, has its row.
    pub(super) fn tokens(&mut self) {
        let embedding = self.embedding();
        let Some(rows) = embedding.map(|(_, rows)| rows).or(self.config().vocab_size()) else { return };
        let name = embedding.map_or("the embedding", |(name, _)| name);
        match read_vocabulary(self.folder) {
            Ok(None) => {}
            Ok(Some(vocabulary)) => {
                let beyond = || vocabulary.iter().filter(|(_, id)| u64::from(**id) >= rows);
                if let Some((token, id)) = beyond().min_by_key(|(_, id)| **id) {
                    let message = format!(
                        "the tokenizer: expected ids below {rows}, the rows of {}, found {} beyond, such as `{}` with id {id}",
                        shorten(name),
                        counted(beyond().count(), "token"),
                        shorten(token)
                    );
                    let help = "a text with such a token cannot be read: use the tokenizer of a model with as many rows, \
                                or give the models one size with `vocab: {on_mismatch: pad}`";
                    self.warning(message, help);
                }
            }
            Err(error) => {
                let message = error.message().replace(&format!("{}/", self.folder.display()), "");
                self.warning(message, "its ids were not checked; take the tokenizer's files from the source again");
            }
        }
        self.special(rows, name);
    }

    /// Special tokens of config.json and generation_config.json.
    fn special(&mut self, rows: u64, name: &str) {
        let mut found = Vec::new();
        let in_config = |key: &str, config: &Config| config.get(key);
        found.extend(SPECIAL.iter().filter_map(|key| Some(("config.json", *key, in_config(key, self.config())?))));
        let file = "generation_config.json";
        match side_files::read_json(&self.folder.join(file)) {
            Ok(Some(settings)) => found.extend(SPECIAL.iter().filter_map(|key| Some((file, *key, settings.get(key)?.clone())))),
            Ok(None) => {}
            Err(error) => {
                let help = "take the file from the source again: without it the model may not know where to stop";
                self.broken(format!("{file}: {}", error.message()), help);
            }
        }
        for (file, key, value) in found {
            let ids = match &value {
                Value::Array(ids) => &ids[..],
                id => std::slice::from_ref(id),
            };
            // Older Llamas have -1 for none.
            let Some(id) = ids.iter().filter_map(Value::as_u64).find(|id| *id >= rows) else { continue };
            let message = format!("{file}: {key}: expected an id below {rows}, the rows of {}, found {id}", shorten(name));
            if (file, key) == ("config.json", "pad_token_id") {
                self.broken(message, "most models will not load: their embedding wants a row for padding. Set another id, or null");
            } else {
                self.warning(message, "such a token is never met and cannot be read: set the id that the tokenizer has");
            }
        }
    }
}
