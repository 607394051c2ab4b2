//! Merges models that were fine-tuned from one base.
//!
//! ```text
//! recipe.yml ──parse──▶ Recipe ──resolve against headers──▶ Plan ──run──▶ shards + side files ──▶ rename
//! ```
//!
//! A [`Recipe`](recipe::Recipe) is what the user wrote; a [`Plan`] is what will be done; [`merge`] does it. Nothing below the command line prints.

pub mod checks;
pub mod delta;
mod engine;
mod gather;
mod in_memory;
pub mod methods;
pub mod output;
mod paper;
pub mod plan;
pub mod recipe;
pub mod sparsifiers;
pub mod verify;
mod workers;

pub use engine::Progress;
pub use in_memory::MergedInMemory;
pub use output::{MergeOptions, Merged, merge};
pub use plan::{Plan, PlanOptions, SHARD_BYTES};
