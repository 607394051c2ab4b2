//! Studies: what dropping and merging do to models, over operations, rates, methods and seeds, cell by cell.
//!
//! ```text
//! STUDY.yml ──parse──▶ Study ──▶ Cells ──run what is missing──▶ results.jsonl ──aggregate──▶ CSV, SVG, HTML
//! ```
//!
//! A [`Study`] is what the user wrote. A cell is a subject (the base, a fine-tune, a merge in memory) on a task; its key is a hash of all
//! that decides about its result, so that results go with the study wherever it is run.

mod cells;
mod findings;
mod items;
mod measures;
mod models;
mod needed_statistics;
mod open;
mod opened_subject;
mod report;
mod results;
mod run;
mod schema;
mod schema_check;
mod subject;

pub use models::Places;
pub use report::Report;
pub use results::Seconds;
pub use run::{DryRun, Outcome, StudyProgress, Watch, dry_run, report_only, run};
pub use schema::Study;
