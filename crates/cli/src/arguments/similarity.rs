//! What can be typed after `deltaic similarity`.

use std::path::PathBuf;

use clap::Args;

/// Compare the hidden states of two models on the same texts
#[derive(Debug, Args)]
#[command(after_help = "State 0 is the embeddings, the others are the layers' outputs. The texts become tokens of the first model.")]
pub struct Similarity {
    /// A model: a folder, or a Hub name in the local cache; an adapter as base+adapter
    pub first: String,
    /// The model that it is compared with
    pub second: String,
    /// A file of texts, one a line
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}
