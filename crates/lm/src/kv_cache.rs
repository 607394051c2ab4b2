//! Keys and values of the tokens that a decoder has seen.

use candle_core::{Device, Result, Tensor};

/// A cache of keys and values for one batch, from its prompt on.
#[derive(Default)]
pub struct KvCache {
    layers: Vec<Slots>,
    /// For each row, which of its slots hold tokens and not padding.
    pub(crate) attended: Vec<Vec<bool>>,
}

/// Room for keys and values of one layer, `[B, key heads, capacity, D]`, of which `used` are filled.
struct Slots {
    keys: Tensor,
    values: Tensor,
    used: usize,
}

impl KvCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of slots per row, padding included.
    pub fn len(&self) -> usize {
        self.attended.first().map_or(0, Vec::len)
    }

    /// Whether nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens of a row, without padding: the position of its next one.
    pub(crate) fn tokens(&self, row: usize) -> u32 {
        self.attended.get(row).map_or(0, |slots| slots.iter().filter(|&&attended| attended).count() as u32)
    }

    /// Adds keys and values `[B, key heads, T, D]` to a layer and gives all that it then has.
    pub(crate) fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (batch, heads, count, size) = keys.dims4()?;
        if layer == self.layers.len() {
            let room = |used: usize| Tensor::zeros((batch, heads, used, size), keys.dtype(), keys.device());
            // A little more than the prompt, then twice as much whenever it is full.
            let capacity = count + count / 4 + 32;
            self.layers.push(Slots { keys: room(capacity)?, values: room(capacity)?, used: 0 });
        }
        let slots = &mut self.layers[layer];
        if slots.used + count > slots.keys.dim(2)? {
            let more = (slots.used + count) * 2 - slots.keys.dim(2)?;
            slots.keys = grown(&slots.keys, more)?;
            slots.values = grown(&slots.values, more)?;
        }
        slots.keys.slice_set(&keys.contiguous()?, 2, slots.used)?;
        slots.values.slice_set(&values.contiguous()?, 2, slots.used)?;
        slots.used += count;
        Ok((slots.keys.narrow(2, 0, slots.used)?, slots.values.narrow(2, 0, slots.used)?))
    }

    /// Keeps these rows, in this order.
    pub(crate) fn keep_rows(&mut self, rows: &[usize], device: &Device) -> Result<()> {
        let ids = Tensor::from_vec(rows.iter().map(|&row| row as u32).collect::<Vec<_>>(), rows.len(), device)?;
        for slots in &mut self.layers {
            slots.keys = slots.keys.index_select(&ids, 0)?;
            slots.values = slots.values.index_select(&ids, 0)?;
        }
        self.attended = rows.iter().map(|&row| self.attended[row].clone()).collect();
        Ok(())
    }
}

fn grown(room: &Tensor, more: usize) -> Result<Tensor> {
    let (batch, heads, _, size) = room.dims4()?;
    Tensor::cat(&[room, &Tensor::zeros((batch, heads, more, size), room.dtype(), room.device())?], 2)
}
