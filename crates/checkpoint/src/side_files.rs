//! The files beside the weights that a merged model takes over from one of its sources.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::folder::entry_names;
use crate::formats::regular_file::is_there;

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
    /// Lists the side files of a folder: whatever has the name of one, be it a link whose target is not there, or a pipe. That it can be
    /// read is seen when it is opened ([`open_regular`](crate::open_regular)).
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn of(folder: &Path) -> Result<Self> {
        let mut found = Self::default();
        for name in entry_names(folder)? {
            found.add(&name);
        }
        let templates = folder.join("additional_chat_templates");
        if is_there(&templates) {
            let names = entry_names(&templates)?.into_iter().filter(|name| has_ending(name, ".jinja"));
            found.chat_templates.extend(names.map(|name| Path::new("additional_chat_templates").join(name)));
        }
        let pooling = Path::new("1_Pooling/config.json");
        if !found.sentence_transformers.is_empty() && is_there(&folder.join(pooling)) {
            found.sentence_transformers.push(pooling.to_owned());
        }
        Ok(found)
    }

    /// Adds a name to the list that it belongs to, if to any.
    fn add(&mut self, name: &OsStr) {
        let path = PathBuf::from(name);
        match name.to_str().unwrap_or_default() {
            "generation_config.json" => self.generation_config = Some(path),
            name if TOKENIZER.contains(&name) => self.tokenizer.push(path),
            name if CHAT_TEMPLATES.contains(&name) => self.chat_templates.push(path),
            name if PROCESSORS.contains(&name) => self.processors.push(path),
            name if SENTENCE_TRANSFORMERS.contains(&name) => self.sentence_transformers.push(path),
            _ if has_ending(name, ".tiktoken") => self.tokenizer.push(path),
            _ if has_ending(name, ".py") => self.code.push(path),
            _ => {}
        }
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

/// Whether a name ends so; it need not be UTF-8.
fn has_ending(name: &OsStr, ending: &str) -> bool {
    name.as_encoded_bytes().ends_with(ending.as_bytes())
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

    #[test]
    fn what_has_a_side_files_name_is_listed_even_where_it_cannot_be_read() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let code = OsStr::from_bytes(b"modeling_\xff.py");
        std::fs::write(folder.path().join(code), "x").unwrap();
        std::os::unix::fs::symlink("gone", folder.path().join("tokenizer.json")).unwrap();
        let found = SideFiles::of(folder.path()).unwrap();
        assert_eq!((found.tokenizer_and_templates(), found.others()), (vec![Path::new("tokenizer.json")], vec![Path::new(code)]));
        let error = crate::open_regular(&folder.path().join("tokenizer.json")).unwrap_err();
        assert!(error.message().ends_with("tokenizer.json: a link that points to gone, which is not there"), "{error}");
        std::os::unix::fs::symlink("gone", folder.path().join("additional_chat_templates")).unwrap();
        assert!(SideFiles::of(folder.path()).unwrap_err().message().contains("additional_chat_templates"));
    }
}
