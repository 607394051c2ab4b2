//! Inputs of decoders: rows of tokens of one width, padded on either side.

use deltaic_checkpoint::{Error, Result};

/// Rows of tokens of one width.
#[derive(Debug, Clone)]
pub struct DecoderBatch {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) ids: Vec<u32>,
    pub(crate) attended: Vec<bool>,
}

impl DecoderBatch {
    /// Rows with padding on the left, so that all of them end at the same place: for generation.
    pub fn left_padded(rows: &[&[u32]]) -> Self {
        Self::padded(rows, true)
    }

    /// Rows with padding on the right: for scoring.
    pub fn right_padded(rows: &[&[u32]]) -> Self {
        Self::padded(rows, false)
    }

    /// A batch as it is: `rows * width` ids, `attended` false at padding.
    ///
    /// # Errors
    /// The lengths are not `rows * width`.
    pub fn new(rows: usize, width: usize, ids: Vec<u32>, attended: Vec<bool>) -> Result<Self> {
        if rows.checked_mul(width).is_none_or(|count| [ids.len(), attended.len()] != [count; 2]) {
            let found = (ids.len(), attended.len());
            return Err(Error::new(format!("a batch of {rows} rows of {width} tokens: found {found:?} ids and mask")));
        }
        Ok(Self { rows, width, ids, attended })
    }

    /// One more token for each row.
    pub(crate) fn step(tokens: Vec<u32>) -> Self {
        Self { rows: tokens.len(), width: 1, attended: vec![true; tokens.len()], ids: tokens }
    }

    fn padded(rows: &[&[u32]], left: bool) -> Self {
        let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut batch = Self { rows: rows.len(), width, ids: Vec::new(), attended: Vec::new() };
        for row in rows {
            let padding = width - row.len();
            let (before, after) = if left { (padding, 0) } else { (0, padding) };
            // What stands at padding is never seen: any id of the vocabulary will do.
            batch.ids.extend(std::iter::repeat_n(0, before).chain(row.iter().copied()).chain(std::iter::repeat_n(0, after)));
            let none = |count| std::iter::repeat_n(false, count);
            batch.attended.extend(none(before).chain(row.iter().map(|_| true)).chain(none(after)));
        }
        batch
    }
}
