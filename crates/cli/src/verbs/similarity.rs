//! `deltaic similarity`.

use std::path::PathBuf;

use deltaic_checkpoint::{Error, ModelReference, Result, read_text};
use deltaic_eval::LocalSource;
use deltaic_study::similarity::{Similarity, encoded, similarity};
use deltaic_study::statistics::StatisticsModel;

use crate::arguments;
use crate::messages::print;
use crate::tables::table;

/// Greatest file of texts, in bytes.
const MAX_BYTES: u64 = 1 << 28;

pub fn run(arguments: &arguments::Similarity) -> Result<()> {
    let text = read_text(&arguments.text, MAX_BYTES)?;
    let texts: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if texts.is_empty() {
        return Err(Error::new(format!("{}: there is no text in it", arguments.text.display())).help("a text stands on a line of its own"));
    }
    let open = |model: &str| {
        let folders = [(PathBuf::from("."), "the working directory")];
        StatisticsModel::new(LocalSource::open(&ModelReference::parse(model)?, &folders)?, None)
    };
    let (first, second) = (open(&arguments.first)?, open(&arguments.second)?);
    let cancel = crate::signals::cancel_flag()?;
    let found = similarity(&first, &second, &encoded(&first, &texts)?, &cancel)?;
    print(&if arguments.json { format!("{:#}\n", serde_json::json!(found)) } else { as_text(&found) });
    Ok(())
}

fn as_text(found: &Similarity) -> String {
    let header = ["state", "mean", "10%", "20%", "30%", "40%", "50%", "60%", "70%", "80%", "90%"];
    let rows = found.states.iter().enumerate().map(|(state, found)| {
        let numbers = std::iter::once(found.mean).chain(found.deciles).map(|cosine| format!("{cosine:.4}"));
        std::iter::once(state.to_string()).chain(numbers).collect()
    });
    let numbers: Vec<usize> = (0..header.len()).collect();
    format!("cosine of hidden states at {} tokens\n{}", found.tokens, table(&header, &numbers, rows))
}
