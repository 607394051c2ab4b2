//! What can be typed after `deltaic study`.

use std::path::PathBuf;

use clap::Args;

/// Study what dropping and merging do to models
#[derive(Debug, Args)]
#[command(after_help = "docs/studies.md is the language of studies; studies/ has some. Finished cells in OUT are not run again.")]
pub struct Study {
    /// The study's file
    pub study: PathBuf,
    /// The folder with its results, made where it is not there
    pub out: PathBuf,
    /// The folder from which the study's models are looked for [default: the folder of the study's file]
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// The folder from which its data is looked for [default: the folder of the study's file]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print the cells and the hours that are left, and run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write the report of the cells that are done, and run nothing
    #[arg(long, conflicts_with = "dry_run")]
    pub report: bool,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}
