//! F1 and Matthews' correlation of predicted labels (evaluation.md 1.1; the definitions of Hugging Face's `glue` metric).

/// How often a binary label was predicted and right. Label 1 is positive, any other negative; no prediction counts as the wrong label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Positive, and predicted so.
    pub true_positives: u64,
    /// Negative, predicted as positive.
    pub false_positives: u64,
    /// Positive, predicted as negative.
    pub false_negatives: u64,
    /// Negative, and predicted so.
    pub true_negatives: u64,
}

impl Confusion {
    /// Counts pairs of gold and predicted label.
    pub fn of(pairs: impl IntoIterator<Item = (usize, Option<usize>)>) -> Self {
        let mut counts = Self::default();
        for (gold, predicted) in pairs {
            let positive = gold == 1;
            let said = predicted.map_or(!positive, |label| label == 1);
            match (positive, said) {
                (true, true) => counts.true_positives += 1,
                (false, true) => counts.false_positives += 1,
                (true, false) => counts.false_negatives += 1,
                (false, false) => counts.true_negatives += 1,
            }
        }
        counts
    }

    /// `2 TP / (2 TP + FP + FN)`, in 0..=1; 0 where the denominator is 0.
    pub fn f1(self) -> f64 {
        let twice = 2 * self.true_positives;
        let below = twice + self.false_positives + self.false_negatives;
        if below == 0 { 0.0 } else { twice as f64 / below as f64 }
    }

    /// `(TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN))`, in -1..=1; 0 where the denominator is 0.
    pub fn matthews(self) -> f64 {
        let [tp, fp, fn_, tn] =
            [self.true_positives, self.false_positives, self.false_negatives, self.true_negatives].map(|count| count as f64);
        // Two square roots: the product of four counts has more digits than an f64.
        let below = ((tp + fp) * (tp + fn_)).sqrt() * ((tn + fp) * (tn + fn_)).sqrt();
        if below == 0.0 { 0.0 } else { ((tp * tn - fp * fn_) / below).clamp(-1.0, 1.0) }
    }
}
