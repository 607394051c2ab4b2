//! The files beside the weights that a merged model takes over from one of its sources.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::folder::file_names;

/// What a model folder has beside weights and `config.json`, as paths relative to it, sorted. All are copied as they are.
///
/// Left behind: weights, indices, `config.json` (it is rewritten), README.md (the merge has its own card), adapters, and licences: the
/// output is a work of several sources, so no single one's licence file speaks for it (the card links to the sources).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SideFiles {
    /// The tokenizer's files.
    pub tokenizer: Vec<PathBuf>,
    /// Chat templates: `chat_template.jinja`, `chat_template.json` and the folder `additional_chat_templates`.
    pub chat_templates: Vec<PathBuf>,
    /// `generation_config.json`, where it is there.
    pub generation_config: Option<PathBuf>,
    /// Processors of images, sound and video.
    pub processors: Vec<PathBuf>,
    /// Python files of models with code of their own (`auto_map` in config.json names them): without these such a model cannot be
    /// loaded. They are copied, never run.
    pub code: Vec<PathBuf>,
    /// What sentence-transformers needs to load a sentence encoder: `modules.json` and the files that it speaks of, without weights.
    pub sentence_transformers: Vec<PathBuf>,
}

const TOKENIZER: [&str; 16] = [
    "added_tokens.json",
    "bpe.codes",
    "dict.txt",
    "merges.txt",
    "sentencepiece.bpe.model",
    "source.spm",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "target.spm",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];
const CHAT_TEMPLATES: [&str; 2] = ["chat_template.jinja", "chat_template.json"];
const PROCESSORS: [&str; 4] =
    ["image_processor_config.json", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"];
const SENTENCE_TRANSFORMERS: [&str; 3] = ["config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"];

impl SideFiles {
    /// Lists the side files of a folder.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn of(folder: &Path) -> Result<Self> {
        let mut found = Self::default();
        for name in file_names(folder)? {
            let path = PathBuf::from(&name);
            match name.as_str() {
                "generation_config.json" => found.generation_config = Some(path),
                name if TOKENIZER.contains(&name) || name.ends_with(".tiktoken") => found.tokenizer.push(path),
                name if CHAT_TEMPLATES.contains(&name) => found.chat_templates.push(path),
                name if PROCESSORS.contains(&name) => found.processors.push(path),
                name if SENTENCE_TRANSFORMERS.contains(&name) => found.sentence_transformers.push(path),
                name if name.ends_with(".py") => found.code.push(path),
                _ => {}
            }
        }
        let templates = folder.join("additional_chat_templates");
        if templates.is_dir() {
            let names = file_names(&templates)?.into_iter().filter(|name| name.ends_with(".jinja"));
            found.chat_templates.extend(names.map(|name| Path::new("additional_chat_templates").join(name)));
        }
        let pooling = Path::new("1_Pooling/config.json");
        if !found.sentence_transformers.is_empty() && folder.join(pooling).is_file() {
            found.sentence_transformers.push(pooling.to_owned());
        }
        Ok(found)
    }

    /// Tokenizer and chat templates: what comes from the model whose tokenizer the output has.
    pub fn tokenizer_and_templates(&self) -> Vec<&Path> {
        self.tokenizer.iter().chain(&self.chat_templates).map(PathBuf::as_path).collect()
    }

    /// All others: what comes from the model whose configuration the output has.
    pub fn others(&self) -> Vec<&Path> {
        let lists = self.generation_config.iter().chain(&self.processors).chain(&self.code).chain(&self.sentence_transformers);
        lists.map(PathBuf::as_path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_files_are_listed_by_what_they_are_and_weights_are_left() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
        for name in [
            "tokenizer.json",
            "vocab.txt",
            "config.json",
            "model.safetensors",
            "README.md",
            "modeling_x.py",
            "generation_config.json",
            "chat_template.jinja",
            "additional_chat_templates/tool.jinja",
            "additional_chat_templates/x.exe",
            "preprocessor_config.json",
            "LICENSE",
        ] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let found = SideFiles::of(folder.path()).unwrap();
        assert_eq!(found.tokenizer_and_templates().len(), 4);
        assert_eq!(
            found.others(),
            [Path::new("generation_config.json"), Path::new("preprocessor_config.json"), Path::new("modeling_x.py")]
        );
        assert!(SideFiles::of(Path::new("/nonexistent")).is_err());
    }
}
