//! Which keys a query sees.

use candle_core::{Device, Result, Tensor};

use crate::attention::MASKED;

/// Masks of one forward pass, one for each kind of layer, made when first asked for.
pub(crate) struct Masks<'a> {
    /// For each row, which slots hold tokens: those of the cache, then the pass's own.
    attended: &'a [Vec<bool>],
    /// Number of queries: the last slots.
    queries: usize,
    made: Vec<(Option<usize>, Option<Tensor>)>,
    device: &'a Device,
}

impl<'a> Masks<'a> {
    pub fn new(attended: &'a [Vec<bool>], queries: usize, device: &'a Device) -> Self {
        Self { attended, queries, made: Vec::new(), device }
    }

    /// The mask `[1 or B, 1, T, K]` for layers with this window; None where every query sees every key. The query in slot q sees
    /// the keys in slots k with `q - window < k <= q` that are no padding.
    pub fn of(&mut self, window: Option<usize>) -> Result<Option<Tensor>> {
        let keys = self.attended.first().map_or(0, Vec::len);
        let window = window.filter(|&window| window < keys);
        if let Some((_, mask)) = self.made.iter().find(|(made, _)| *made == window) {
            return Ok(mask.clone());
        }
        let mask = self.make(window, keys)?;
        self.made.push((window, mask.clone()));
        Ok(mask)
    }

    fn make(&self, window: Option<usize>, keys: usize) -> Result<Option<Tensor>> {
        let padded = self.attended.iter().any(|row| row.contains(&false));
        if !padded && window.is_none() && self.queries == 1 {
            return Ok(None);
        }
        let rows = if padded { self.attended } else { &self.attended[..1] };
        let mut values = vec![MASKED; rows.len() * self.queries * keys];
        for (line, values) in values.chunks_mut(keys).enumerate() {
            let row = &rows[line / self.queries];
            let slot = keys - self.queries + line % self.queries;
            let first = window.map_or(0, |window| (slot + 1).saturating_sub(window));
            for (value, &attended) in values[first..=slot].iter_mut().zip(&row[first..=slot]) {
                if attended {
                    *value = 0.0;
                }
            }
        }
        Ok(Some(Tensor::from_vec(values, (rows.len(), 1, self.queries, keys), self.device)?))
    }
}
