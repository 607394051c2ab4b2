//! One file for each verb.

pub mod apply_delta;
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
pub mod similarity;
#[cfg(feature = "eval")]
pub mod statistics;
#[cfg(feature = "eval")]
pub mod study;
pub mod verify;
