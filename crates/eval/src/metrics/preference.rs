//! Preferences between two answers.

use serde::{Deserialize, Serialize};

/// Which of two answers a judge prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// The model's.
    Win,
    /// Neither.
    Draw,
    /// The reference's.
    Loss,
}

impl Preference {
    /// The item's value, of which the win rate is the mean: 1, 0.5 or 0.
    pub fn value(self) -> f64 {
        match self {
            Self::Win => 1.0,
            Self::Draw => 0.5,
            Self::Loss => 0.0,
        }
    }
}
