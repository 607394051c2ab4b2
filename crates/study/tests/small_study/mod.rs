//! A study on tiny models in a temporary folder: a base, two fine-tunes with heads, the data of two tasks.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use deltaic_checkpoint::Result;
use deltaic_study::study::{Places, Report, Study, StudyProgress, Watch, run};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Items of each task.
pub const ITEMS: usize = 40;

const WORDS: [&str; 12] = ["the", "film", "is", "good", "bad", "very", "not", "a", "story", "of", "old", "men"];

/// The folder with everything: `models/…`, `data/…`.
pub struct Small(TempDir);

impl Small {
    pub fn new() -> Self {
        let small = Self(tempfile::tempdir().unwrap());
        let models = small.0.path().join("models");
        write_model(&models.join("base"), 0, 0);
        write_model(&models.join("film"), 1, 2);
        write_model(&models.join("pair"), 2, 1);
        write_data(&small.0.path().join("data"));
        small
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn places(&self) -> Places {
        Places { study: self.path().to_owned(), models: self.path().join("models"), data: self.path().join("data") }
    }

    /// Runs a study into a folder of this one; stopped after so many cells. Returns how many were run.
    pub fn run(&self, study: &Study, out: &str, stop_after: usize) -> (Result<Report>, usize) {
        let (cancel, run_cells) = (AtomicBool::new(false), AtomicUsize::new(0));
        let cell = |_: StudyProgress| {
            if run_cells.fetch_add(1, Ordering::Relaxed) + 1 == stop_after {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        let watch = Watch { cancel: &cancel, begin: &|_| {}, cell: &cell, items: &|_| {} };
        let report = run(study, &self.places(), &self.path().join(out), watch);
        (report, run_cells.into_inner())
    }

    /// The lines of `results.jsonl` of a run, by key.
    pub fn results(&self, out: &str) -> HashMap<String, Value> {
        let text = fs::read_to_string(self.path().join(out).join("results.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| (line["key"].as_str().unwrap().to_owned(), line)).collect()
    }
}

/// A study of both models, with `rest` behind what is the same in all.
pub fn study(rest: &str) -> Study {
    Study::parse("study.yml", &text(rest)).unwrap_or_else(|error| panic!("{error}"))
}

pub fn text(rest: &str) -> String {
    format!(
        "study: small\ndescription: Does it run?\nbase: base\nmodels:\n  - {{name: film, model: film, task: film}}\n  - {{name: pair, model: pair, task: pair}}\n\
         tasks:\n  - {{name: film, task: glue/sst2}}\n  - {{name: pair, task: glue/stsb}}\nexclude: ['.*classifier.*']\n{rest}"
    )
}

/// A BERT of one layer; the fine-tunes (`seed` above 0) are near the base, and have heads of so many outputs.
fn write_model(folder: &Path, seed: u64, outputs: usize) {
    fs::create_dir_all(folder).unwrap();
    let (hidden, wide, vocab) = (8, 12, WORDS.len() + 5);
    let config = json!({
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": hidden, "intermediate_size": wide,
        "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": vocab, "max_position_embeddings": 32, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
    });
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("bert.embeddings.word_embeddings.weight".to_owned(), vec![vocab, hidden]),
        ("bert.embeddings.position_embeddings.weight".to_owned(), vec![32, hidden]),
        ("bert.embeddings.token_type_embeddings.weight".to_owned(), vec![2, hidden]),
    ];
    let mut layer = |name: &str, weight: Vec<usize>, bias: usize| {
        shapes.push((format!("{name}.weight"), weight));
        shapes.push((format!("{name}.bias"), vec![bias]));
    };
    layer("bert.embeddings.LayerNorm", vec![hidden], hidden);
    for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
        layer(&format!("bert.encoder.layer.0.{part}"), vec![hidden, hidden], hidden);
    }
    layer("bert.encoder.layer.0.attention.output.LayerNorm", vec![hidden], hidden);
    layer("bert.encoder.layer.0.intermediate.dense", vec![wide, hidden], wide);
    layer("bert.encoder.layer.0.output.dense", vec![hidden, wide], hidden);
    layer("bert.encoder.layer.0.output.LayerNorm", vec![hidden], hidden);
    layer("bert.pooler.dense", vec![hidden, hidden], hidden);
    if outputs > 0 {
        layer("classifier", vec![outputs, hidden], outputs);
    }
    let (mut base, mut delta) = (Random(7), Random(seed));
    let tensors: HashMap<String, Tensor> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let centre = if shape.len() == 1 && name.ends_with("weight") { 1.0 } else { 0.0 };
            let change = if seed == 0 { 0.0 } else { 0.3 };
            let value = |_| centre + 0.8 * base.next() + change * delta.next();
            let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        })
        .collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().chain(WORDS).collect::<Vec<_>>().join("\n");
    fs::write(folder.join("vocab.txt"), vocabulary + "\n").unwrap();
    fs::write(folder.join("tokenizer_config.json"), r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": true}"#).unwrap();
}

fn write_data(folder: &Path) {
    let mut random = Random(3);
    let mut sentence = || -> String {
        let count = 2 + (random.next().abs() * 4.0) as usize;
        let words: Vec<&str> = (0..count).map(|_| WORDS[(random.next().abs() * 11.99) as usize]).collect();
        words.join(" ")
    };
    for split in ["dev", "train"] {
        let (mut film, mut pair) = ("sentence\tlabel\n".to_owned(), "index\tsentence1\tsentence2\tscore\n".to_owned());
        for item in 0..ITEMS {
            let _ = writeln!(film, "{}\t{}", sentence(), item % 2);
            let _ = writeln!(pair, "{item}\t{}\t{}\t{:.1}", sentence(), sentence(), (item * 7 % 11) as f64 / 2.0);
        }
        for (name, text) in [("SST-2", film), ("STS-B", pair)] {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join(format!("{split}.tsv")), text).unwrap();
        }
    }
}

/// SplitMix64, as numbers in -1 .. 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as i64 as f32 / i64::MAX as f32
    }
}
