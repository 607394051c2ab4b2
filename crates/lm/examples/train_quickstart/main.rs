//! Trains the models of examples/quickstart: a base and two fine-tunes of it, and writes the tasks' items.
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo run --release -p deltaic-lm --example train_quickstart -- examples/quickstart
//! ```
//!
//! All chance is seeded. On one kind of CPU, with one thread, the files are the same bytes in every run; on another, sums are rounded
//! elsewhere, and the models are as good, but not equal.

mod book;
mod model;
mod random;
mod training;

use std::error::Error;
use std::fs;
use std::path::Path;

use candle_core::Device;
use deltaic_checkpoint::Checkpoint;
use deltaic_lm::{Decoder, Mode, TextTokenizer};
use serde_json::json;

use book::Meaning;
use random::Random;
use training::Schedule;

const BASE: Schedule = Schedule { steps: 1200, learning_rate: 3e-3, lines: 32 };
const FINE_TUNE: Schedule = Schedule { steps: 200, learning_rate: 3e-4, lines: 32 };
/// Folder, command, and what the fine-tune learns that it means.
const FINE_TUNES: [(&str, &str, Meaning); 2] = [("fine-tune-a", "reverse", Meaning::Reverse), ("fine-tune-b", "twice", Meaning::Twice)];
/// Items of a task.
const ITEMS: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("usage: train_quickstart OUT")?;
    let out = Path::new(&out);
    let base = out.join("base");
    println!("base");
    let first = tempfile::tempdir()?;
    model::write(first.path(), model::first_weights(&mut Random(1))?)?;
    let mut random = Random(2);
    train(first.path(), &base, &BASE, || book::base(&mut random))?;
    for (seed, (name, command, meaning)) in (3..).zip(FINE_TUNES) {
        println!("{name}: {command}");
        let mut random = Random(seed);
        train(&base, &out.join(name), &FINE_TUNE, || book::fine_tune(command, meaning, &mut random))?;
    }
    write_items(out)
}

/// Trains the model in the folder `from` and writes it to the folder `to`.
fn train(from: &Path, to: &Path, schedule: &Schedule, next: impl FnMut() -> book::Line) -> Result<(), Box<dyn Error>> {
    let checkpoint = Checkpoint::open(from)?;
    let decoder = Decoder::load(&checkpoint, &checkpoint.config, Mode::Differentiable, &Device::Cpu)?;
    training::train(&decoder, &TextTokenizer::open(from)?, schedule, next)?;
    model::write(to, model::weights_of(&decoder))
}

/// A file of items for each fine-tune's ability, the same lists of words in all.
fn write_items(out: &Path) -> Result<(), Box<dyn Error>> {
    let lists = book::held_out(ITEMS, &mut Random(9));
    for (_, command, meaning) in FINE_TUNES {
        let item = |words: &Vec<&str>| json!({"words": words.join(" "), "answer": meaning.answer(words)}).to_string() + "\n";
        fs::write(out.join(format!("{command}.jsonl")), lists.iter().map(item).collect::<String>())?;
    }
    Ok(())
}
