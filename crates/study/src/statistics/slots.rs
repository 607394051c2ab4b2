//! Sums that are gathered over examples.

use std::ops::Range;

use deltaic_checkpoint::{Error, Result, shorten};
use rayon::prelude::*;

/// Elements of a block that is passed over where all of it is zero: most rows of an embedding are no example's.
const BLOCK: usize = 1024;

/// What is gathered under one or several names: tensors that are always equal (layers with one input) are gathered once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotSpec {
    /// The model's own names of the tensors.
    pub names: Vec<String>,
    pub shape: Vec<u64>,
}

impl SlotSpec {
    pub fn elements(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }
}

/// A sum. It is f64: in f32 a sum over thousands of squares would lose the small ones, and a run that goes on from a file must go on from the
/// very same sum.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub values: Vec<f64>,
    /// By what the sum is divided in the end.
    pub count: u64,
}

impl Slot {
    /// Adds `weight * x^2`.
    pub fn add_squares(&mut self, weight: f64, x: &[f32]) {
        self.values.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).with_min_len(16).for_each(|(sums, x)| {
            if x.iter().any(|&x| x != 0.0) {
                sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += weight * f64::from(x) * f64::from(x));
            }
        });
    }

    /// Adds a sum of `count` rows.
    pub fn add(&mut self, x: &[f64], count: u64) {
        self.values.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).with_min_len(16).for_each(|(sums, x)| {
            sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += x);
        });
        self.count += count;
    }

    /// The mean, as little-endian f32.
    ///
    /// # Errors
    /// An element is NaN or infinite; `name` is named.
    pub fn mean(&self, name: &str) -> Result<Vec<u8>> {
        let count = self.count.max(1) as f64;
        let mut bytes = vec![0; self.values.len() * 4];
        let finite = self.values.par_iter().zip(bytes.as_chunks_mut::<4>().0).with_min_len(BLOCK).map(|(sum, bytes)| {
            let mean = (sum / count) as f32;
            *bytes = mean.to_le_bytes();
            mean.is_finite()
        });
        if finite.reduce(|| true, |a, b| a & b) {
            return Ok(bytes);
        }
        Err(Error::new(format!("{}: the statistics are not finite", shorten(name)))
            .help("the model's weights hold NaN or infinite values, or values that overflow: `deltaic inspect MODEL` shows the first")
            .permanent())
    }
}

/// The slots of one pass over the examples.
#[derive(Debug)]
pub(crate) struct PassSlots {
    first: usize,
    pub slots: Vec<Slot>,
}

impl PassSlots {
    /// Zeros for those of `specs` that are gathered in a pass.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn zeros(specs: &[SlotSpec], range: Range<usize>) -> Result<Self> {
        let zeros = |spec: &SlotSpec| {
            let mut values = Vec::new();
            values.try_reserve_exact(spec.elements()).map_err(|_| {
                let (name, elements) = (spec.names.first().map(|name| shorten(name)).unwrap_or_default(), spec.elements());
                Error::new(format!("{name}: no memory for {elements} sums of 8 bytes"))
            })?;
            values.resize(spec.elements(), 0.0);
            Ok(Slot { values, count: 0 })
        };
        Ok(Self { first: range.start, slots: specs[range].iter().map(zeros).collect::<Result<_>>()? })
    }

    /// The slot of a spec, by its number; None where it is another pass's.
    pub fn get_mut(&mut self, spec: usize) -> Option<&mut Slot> {
        self.slots.get_mut(spec.checked_sub(self.first)?)
    }
}

/// The passes over the examples in which all specs are gathered: as many at a time as `memory` bytes have room for, at least one.
pub(crate) fn passes(specs: &[SlotSpec], memory: u64) -> Vec<Range<usize>> {
    let mut passes: Vec<Range<usize>> = Vec::new();
    let mut used = 0u64;
    for (number, spec) in specs.iter().enumerate() {
        let bytes = spec.elements() as u64 * 8;
        match passes.last_mut() {
            Some(pass) if used.saturating_add(bytes) <= memory => {
                pass.end = number + 1;
                used += bytes;
            }
            _ => {
                passes.push(number..number + 1);
                used = bytes;
            }
        }
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shape: &[u64]) -> SlotSpec {
        SlotSpec { names: vec!["x".to_owned()], shape: shape.to_vec() }
    }

    #[test]
    fn passes_hold_what_the_memory_has_room_for_and_every_slot_once() {
        let specs = [spec(&[10, 10]), spec(&[10, 10]), spec(&[40, 40]), spec(&[10, 10])];
        let at_once = passes(&specs, u64::MAX);
        assert!(at_once.len() == 1 && at_once[0] == (0..4), "{at_once:?}");
        assert_eq!(passes(&specs, 1600), [0..2, 2..3, 3..4]);
        assert_eq!(passes(&specs, 0), [0..1, 1..2, 2..3, 3..4]);
        assert!(passes(&[], 0).is_empty());
    }

    #[test]
    fn squares_are_summed_with_weights_over_blocks_of_zeros() {
        let mut slot = PassSlots::zeros(&[spec(&[3, 1000])], 0..1).unwrap().slots.remove(0);
        let x: Vec<f32> = (0..3000).map(|k| if (1024..2048).contains(&k) { 0.0 } else { k as f32 / 7.0 }).collect();
        slot.add_squares(0.25, &x);
        slot.add_squares(2.0, &x);
        slot.count = 4;
        let bytes = slot.mean("x").unwrap();
        for (bytes, &x) in bytes.as_chunks::<4>().0.iter().zip(&x) {
            let expected = 2.25 * f64::from(x).powi(2) / 4.0;
            assert!((f64::from(f32::from_le_bytes(*bytes)) - expected).abs() <= expected * 1e-7);
        }
        slot.values[1] = f64::NAN;
        assert!(slot.mean("the name").unwrap_err().message().contains("the name"));
    }
}
