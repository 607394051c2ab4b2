//! Which of the paper's regimes deltas are in: the thresholds, in one place.
//!
//! Yu et al. 2024 (DARE, arXiv 2311.03099) find that what supervised fine-tuning changes lies within about 0.002, in some models 0.005,
//! and that 90% and more of it can be dropped; where a model was pre-trained further its deltas reach 0.03, and dropping even 10%
//! breaks it. These are ranges in plots of the bulk of all deltas, so 99% of the deltas decide here, not the single greatest.

/// Magnitudes of deltas that the paper on DARE speaks of; the share of deltas within each is given.
pub const LIMITS: [f32; 4] = [0.0002, 0.002, 0.005, 0.02];

/// So large a share of the deltas has to lie within a limit for the model to count as within it.
pub const BULK: f64 = 0.99;

/// What decides about the regime.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// Share of the elements that are equal in both models; NaN where there are none.
    pub unchanged: f64,
    /// Shares within each of [`LIMITS`].
    pub within: [f64; 4],
}

/// Where deltas stand, by the paper's findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// There is no element to compare, or none whose delta is finite.
    NothingCompared,
    /// Nothing changed.
    Unchanged,
    /// 99% lie within 0.005: supervised fine-tuning.
    FineTuning,
    /// 99% lie within 0.02, but not within 0.005.
    Between,
    /// More than 1% are beyond 0.02: continued pre-training, or another base.
    ContinuedPretraining,
}

impl Regime {
    /// The regime of these shares.
    pub fn of(shares: &Shares) -> Self {
        let [_, _, of_fine_tuning, of_pretraining] = shares.within;
        match shares.unchanged {
            unchanged if unchanged.is_nan() => Self::NothingCompared,
            1.0 => Self::Unchanged,
            _ if of_fine_tuning >= BULK => Self::FineTuning,
            _ if of_pretraining >= BULK => Self::Between,
            _ => Self::ContinuedPretraining,
        }
    }

    /// A word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NothingCompared => "nothing_compared",
            Self::Unchanged => "unchanged",
            Self::FineTuning => "fine_tuning",
            Self::Between => "between",
            Self::ContinuedPretraining => "continued_pretraining",
        }
    }

    /// What it means, in a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::NothingCompared => "nothing was compared: the tensors of both have no elements, or none that are finite in both",
            Self::Unchanged => "the models are equal wherever they were compared: there is no delta to merge",
            Self::FineTuning => {
                "these are deltas of supervised fine-tuning (99% within 0.005): the paper on DARE drops 90% and more of such without loss"
            }
            Self::Between => {
                "these deltas are larger than the paper's fine-tunes (within 0.002 to 0.005) and smaller than continued pre-training (0.03): try low drop rates first"
            }
            Self::ContinuedPretraining => {
                "these deltas are as large as those of continued pre-training (the paper: 0.03), where DARE fails; or the base is another one"
            }
        }
    }
}

impl Shares {
    /// `91.20% within 0.002, 99.10% within 0.005, 99.99% within 0.02`.
    pub fn described(&self) -> String {
        let parts: Vec<String> =
            LIMITS.iter().zip(self.within).skip(1).map(|(limit, share)| format!("{:.2}% within {limit}", 100.0 * share)).collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regime(unchanged: f64, within: [f64; 4]) -> Regime {
        Regime::of(&Shares { unchanged, within })
    }

    #[test]
    fn the_bulk_of_the_deltas_decides_about_the_regime() {
        assert_eq!(regime(0.3, [0.4, 0.97, 0.995, 1.0]), Regime::FineTuning);
        assert_eq!(regime(0.0, [0.1, 0.5, 0.98, 1.0]), Regime::Between);
        // Normal deltas with a standard deviation of 0.009: 99.9% lie within 0.03, the paper's figure for continued pre-training.
        assert_eq!(regime(0.0, [0.018, 0.176, 0.421, 0.974]), Regime::ContinuedPretraining);
        assert_eq!(regime(1.0, [1.0; 4]), Regime::Unchanged);
        assert_eq!(regime(f64::NAN, [f64::NAN; 4]), Regime::NothingCompared);
    }
}
