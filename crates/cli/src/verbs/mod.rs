//! One file for each verb.

pub mod completions;
pub mod dare;
pub mod delta;
#[cfg(feature = "eval")]
pub mod eval;
pub mod inspect;
pub mod merge;
pub mod methods;
pub mod plan;
#[cfg(feature = "eval")]
pub mod statistics;
pub mod verify;
