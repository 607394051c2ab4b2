//! Batches of sequences of similar length.

/// Puts sequences into batches with little padding: longest first, so that a batch that is too large for the memory fails at once. A batch
/// of n sequences takes n times its longest, which is at most `batch_tokens` (a single longer sequence is a batch of its own).
/// Every index is in one batch.
pub fn batches_by_length(lengths: &[usize], batch_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for index in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1).saturating_mul(lengths[batch[0]].max(1)) <= batch_tokens => batch.push(index),
            _ => batches.push(vec![index]),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_is_in_one_batch_and_none_is_wider_than_asked_but_single_ones() {
        let lengths = [3, 50, 4, 4, 9, 1, 0, 12];
        let batches = batches_by_length(&lengths, 16);
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let longest = batch.iter().map(|&index| lengths[index]).max().unwrap();
            assert!(batch.len() == 1 || batch.len() * longest <= 16, "{batch:?}");
        }
        assert_eq!(batches[0], [1]);
    }
}
