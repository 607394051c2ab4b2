//! Targets that a decoder draws itself.

use deltaic_checkpoint::{Error, Result};
use deltaic_kernels::{Kernels, MaskKey};

/// A target for each row of log-probabilities. The draw of row `k` of example `example` is made of the words `2k` and `2k + 1` of Philox 4x32-10
/// (`docs/mask.md`) under the key of `seed`, stream `example` and name `deltaic.targets`: a number below 1 in 53 bits, and the first token
/// at which the cumulated probabilities, summed in f64, exceed it.
pub(crate) fn draw(logs: &[Vec<f32>], seed: u64, example: u64) -> Result<Vec<u32>> {
    let mut words = vec![0; 2 * logs.len()];
    Kernels::detect().mask_words(MaskKey::new(seed, example, "deltaic.targets"), 0, &mut words);
    logs.iter().zip(words.as_chunks::<2>().0).map(|(logs, &[high, low])| token(logs, high, low)).collect()
}

fn token(logs: &[f32], high: u32, low: u32) -> Result<u32> {
    let uniform = ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 / (1u64 << 53) as f64;
    let probability = |log: &f32| f64::from(*log).exp();
    let total: f64 = logs.iter().map(probability).sum();
    if !total.is_finite() || total <= 0.0 {
        return Err(Error::new("the model's logits are not finite")
            .help("its weights hold NaN or infinite values, or values that overflow: `deltaic inspect MODEL` shows the first"));
    }
    let mut left = uniform * total;
    let found = logs.iter().position(|log| {
        left -= probability(log);
        left < 0.0
    });
    // Rounding may leave a remainder of nothing: then it is the last token that can be drawn.
    let last = || logs.iter().rposition(|log| probability(log) > 0.0).unwrap_or(0);
    Ok(found.unwrap_or_else(last) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely_and_again_the_same() {
        let probabilities = [0.5, 0.0, 0.375, 0.125];
        let logs = vec![probabilities.map(|p: f64| p.ln() as f32).to_vec(); 4000];
        let drawn = draw(&logs, 3, 1).unwrap();
        for (token, p) in probabilities.iter().enumerate() {
            let share = drawn.iter().filter(|&&drawn| drawn as usize == token).count() as f64 / 4000.0;
            // Four standard deviations.
            assert!((share - p).abs() <= 4.0 * (p * (1.0 - p) / 4000.0).sqrt(), "{token}: {share} of {p}");
        }
        assert_eq!(draw(&logs, 3, 1).unwrap(), drawn);
        assert_ne!(draw(&logs, 4, 1).unwrap(), drawn);
        assert_ne!(draw(&logs, 3, 2).unwrap(), drawn);
        assert!(draw(&[vec![f32::NAN]], 0, 0).is_err());
    }
}
