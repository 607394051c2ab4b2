//! What is made of a generated text before it is compared or run: the rules of evaluation.md, step by step.
//!
//! The rules come from Python programs, and their peculiarities are kept, since published scores have them. A text is worked on as Python's
//! `str` is, by code points; white space is that of `str.strip()`. No rule fails on any text: what a rule cannot make sense of is no answer. All take
//! time linear in the text.

pub mod code;
pub mod gsm8k;
pub mod math;
mod pattern;
pub mod python;
mod stop;

pub use pattern::{ExactMatch, INVALID, Pattern, Take};
pub use stop::first_stop;

/// What WizardMath and MetaMath write before their answer; the space belongs to it.
pub const THE_ANSWER_IS: &str = "The answer is: ";
