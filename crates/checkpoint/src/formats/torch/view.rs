//! Reading any run of a strided tensor's elements in row-major order.

use crate::error::Result;

/// A gap is read over rather than skipped where a run of so many bytes holds it.
const SPAN: u64 = 64 << 10;
/// ... and at least one in so many of its elements is wanted.
const SPARSEST: u64 = 16;

/// Where a tensor's elements lie in its file. Adjacent dimensions that are walked with one stride are one; lengths of 1 are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Offset of the first element in the file, in bytes.
    first: u64,
    /// Bytes of one element.
    size: u64,
    /// Length and stride of each dimension, in elements.
    dimensions: Vec<(u64, u64)>,
}

/// A box of a tensor's elements: for each dimension its length, its stride in the storage and its stride in the window.
struct Block {
    /// Its first element, in elements from the tensor's first in the storage.
    source: u64,
    /// Its first element in the window.
    target: u64,
    dimensions: Vec<Dimension>,
}

#[derive(Clone, Copy)]
struct Dimension {
    length: u64,
    source: u64,
    target: u64,
}

impl View {
    /// A view that begins at byte `first` of a file, with elements of `size` bytes.
    pub(super) fn new(first: u64, size: usize, shape: &[u64], strides: &[u64]) -> Self {
        let mut dimensions: Vec<(u64, u64)> = Vec::new();
        for (&length, &stride) in shape.iter().zip(strides).filter(|(length, _)| **length != 1) {
            match dimensions.last_mut() {
                Some(last) if length != 0 && last.1 == stride.saturating_mul(length) => *last = (last.0 * length, stride),
                _ => dimensions.push((length, stride)),
            }
        }
        Self { first, size: size as u64, dimensions }
    }

    /// Reads the elements from `start` on until `bytes` is full; `read` gives bytes of the file from an offset on. It is asked for runs: at
    /// most 64 KiB with gaps in them, which at least one element in 16 fills.
    pub(super) fn read(&self, start: u64, bytes: &mut [u8], read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>) -> Result<()> {
        let count = bytes.len() as u64 / self.size;
        if count == 0 {
            return Ok(());
        }
        if let [] | [(_, 1)] = self.dimensions[..] {
            return read(self.first + start * self.size, bytes);
        }
        let mut reading = Reading { view: self, bytes, scratch: Vec::new(), read };
        let mut blocks = Vec::new();
        self.blocks(0, 0, start, start + count, 0, &mut blocks);
        blocks.iter().try_for_each(|block| reading.block(block))
    }

    /// Cuts elements `start .. end` of the dimensions from `dimension` on into blocks: at most two for each dimension and one between. Such a
    /// dimension begins at `source` in the storage, and element `start` goes to place `target` of the window.
    fn blocks(&self, dimension: usize, source: u64, start: u64, end: u64, target: u64, blocks: &mut Vec<Block>) {
        let Some(&(_, stride)) = self.dimensions.get(dimension) else {
            blocks.push(Block { source, target, dimensions: Vec::new() });
            return;
        };
        let inner: u64 = self.dimensions[dimension + 1..].iter().map(|inner| inner.0).product();
        let (mut at, mut target) = (start, target);
        while at < end {
            let (index, within) = (at / inner, at % inner);
            let here = source + index * stride;
            let whole = (end - at) / inner;
            let taken = if within == 0 && whole > 0 {
                blocks.push(self.block(dimension, whole, here, target));
                whole * inner
            } else {
                let taken = (inner - within).min(end - at);
                self.blocks(dimension + 1, here, within, within + taken, target, blocks);
                taken
            };
            at += taken;
            target += taken;
        }
    }

    /// `length` indices of a dimension, with all of those behind it.
    fn block(&self, dimension: usize, length: u64, source: u64, target: u64) -> Block {
        let mut dimensions: Vec<Dimension> = Vec::new();
        let mut in_window = 1;
        for (number, &(whole, source)) in self.dimensions.iter().enumerate().skip(dimension).rev() {
            let length = if number == dimension { length } else { whole };
            dimensions.push(Dimension { length, source, target: in_window });
            in_window *= length;
        }
        dimensions.reverse();
        Block { source, target, dimensions }
    }
}

/// One call of [`View::read`].
struct Reading<'a> {
    view: &'a View,
    bytes: &'a mut [u8],
    scratch: Vec<u8>,
    read: &'a mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
}

impl Reading<'_> {
    /// Reads a block at once where it lies densely, else its halves along the dimension that spreads it most. A half has at most half as many
    /// indices there, so that this ends after as many steps as the block's number of elements has bits.
    fn block(&mut self, block: &Block) -> Result<()> {
        let spread = |dimension: &Dimension| (dimension.length - 1) * dimension.source;
        let span = 1 + block.dimensions.iter().map(spread).sum::<u64>();
        let distinct: u64 = block.dimensions.iter().filter(|dimension| dimension.source > 0).map(|dimension| dimension.length).product();
        let widest = block.dimensions.iter().enumerate().max_by_key(|(_, dimension)| spread(dimension)).map(|(number, _)| number);
        let dense = distinct == span || span <= distinct.saturating_mul(SPARSEST);
        match widest {
            Some(widest) if !dense || span * self.view.size > SPAN => self.halves(block, widest, span),
            _ => self.gather(block, span),
        }
    }

    fn halves(&mut self, block: &Block, widest: usize, span: u64) -> Result<()> {
        let Dimension { length, source, target } = block.dimensions[widest];
        if source == 0 || span == 1 {
            return self.gather(block, span);
        }
        let first = length / 2;
        for (begin, length) in [(0, first), (first, length - first)] {
            let mut dimensions = block.dimensions.clone();
            dimensions[widest].length = length;
            self.block(&Block { source: block.source + begin * source, target: block.target + begin * target, dimensions })?;
        }
        Ok(())
    }

    /// Reads a block's span and puts its elements into their places.
    fn gather(&mut self, block: &Block, span: u64) -> Result<()> {
        let size = self.view.size as usize;
        let offset = self.view.first + block.source * self.view.size;
        let elements: u64 = block.dimensions.iter().map(|dimension| dimension.length).product();
        let same_order = block.dimensions.iter().all(|dimension| dimension.length == 1 || dimension.source == dimension.target);
        if same_order && span == elements {
            let target = block.target as usize * size;
            return (self.read)(offset, &mut self.bytes[target..target + span as usize * size]);
        }
        self.scratch.resize(span as usize * size, 0);
        (self.read)(offset, &mut self.scratch)?;
        let mut index = vec![0; block.dimensions.len()];
        let (mut source, mut target) = (0, block.target);
        loop {
            let (from, to) = (source as usize * size, target as usize * size);
            self.bytes[to..to + size].copy_from_slice(&self.scratch[from..from + size]);
            // The next index, the last dimension first.
            let next = index.iter_mut().zip(&block.dimensions).rev().find_map(|(index, dimension)| {
                if *index + 1 < dimension.length {
                    *index += 1;
                    return Some((source + dimension.source, target + dimension.target));
                }
                source -= *index * dimension.source;
                target -= *index * dimension.target;
                *index = 0;
                None
            });
            match next {
                Some(next) => (source, target) = next,
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_run_of_any_view_is_read_in_row_major_order(
            dimensions in prop::collection::vec((1u64..7, 0u64..40), 0..5),
            far in 0u64..2,
            a in any::<prop::sample::Index>(),
            b in any::<prop::sample::Index>(),
        ) {
            let (shape, mut strides): (Vec<u64>, Vec<u64>) = dimensions.into_iter().unzip();
            if let Some(stride) = strides.first_mut() {
                *stride += far * 100_000;
            }
            let elements: u64 = shape.iter().product();
            let last: u64 = shape.iter().zip(&strides).map(|(length, stride)| (length - 1) * stride).sum();
            let storage: Vec<u8> = (0..3 + (last + 1) * 2).map(|byte| (byte * 7 + byte / 251) as u8).collect();
            let whole: Vec<u8> = (0..elements)
                .flat_map(|element| {
                    let (mut rest, mut at) = (element, 0);
                    for (length, stride) in shape.iter().zip(&strides).rev() {
                        at += rest % length * stride;
                        rest /= length;
                    }
                    let at = 3 + at as usize * 2;
                    [storage[at], storage[at + 1]]
                })
                .collect();
            let (mut start, mut end) = (a.index(elements as usize + 1), b.index(elements as usize + 1));
            if start > end {
                (start, end) = (end, start);
            }
            let mut bytes = vec![0; (end - start) * 2];
            let mut asked = 0;
            View::new(3, 2, &shape, &strides)
                .read(start as u64, &mut bytes, &mut |offset, bytes| {
                    asked += bytes.len();
                    bytes.copy_from_slice(&storage[offset as usize..][..bytes.len()]);
                    Ok(())
                })
                .unwrap();
            prop_assert_eq!(&bytes, &whole[start * 2..end * 2]);
            prop_assert!(asked <= 16 * bytes.len(), "{} bytes read for {}", asked, bytes.len());
        }
    }
}
