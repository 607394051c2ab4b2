//! One worker: reads windows of the sources, walks over them block by block, gathers or writes.

use deltaic_checkpoint::{DType, Result, TensorSource, Window};
use deltaic_kernels::{FloatFormat, Kernels};

use super::Counts;
use super::tally::Part;
use crate::gather::{BLOCK, Operands, Tally, Wanted};
use crate::methods::{Block, ModelWide, Reach, TensorMerge};
use crate::plan::{Action, InputPlan, Reads, SourceTensor, TensorPlan};
use crate::sparsifiers::Sparsifier;

/// A run of elements of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// Its first element.
    pub start: u64,
    /// Number of elements.
    pub count: usize,
}

/// A tensor's sparsifiers and merge with what they have gathered so far.
pub(super) struct Stages {
    /// For each input of the plan its sparsifiers, in the plan's order.
    pub chains: Vec<Vec<Box<dyn Sparsifier>>>,
    /// The merge; a copy has none.
    pub merge: Option<Box<dyn TensorMerge>>,
}

/// A worker's buffers; their sizes follow from the plan, not from the model.
pub(super) struct Worker<'a> {
    sources: &'a [&'a dyn TensorSource],
    kernels: Kernels,
    base: Operand,
    inputs: Vec<Operand>,
    statistics: Vec<Operand>,
    out: Vec<f32>,
    bytes: Vec<u8>,
    base_bytes: Vec<u8>,
    /// What the window at hand gathers; one part for each target.
    pub parts: Vec<Part>,
    /// Bytes read so far.
    pub bytes_read: u64,
}

/// A source's window and the block of it that is at hand.
struct Operand {
    window: Window,
    block: Vec<f32>,
}

impl Operand {
    fn new() -> Self {
        Self { window: Window { dtype: DType::F32, bytes: Vec::new() }, block: Vec::new() }
    }

    /// Widens the window's elements `offset .. offset + count` into the block.
    fn widen(&mut self, kernels: Kernels, offset: usize, count: usize) {
        let format = self.window.dtype.float_format().expect("only floating tensors are merged");
        self.block.resize(count, 0.0);
        kernels.widen(format, &self.window.bytes[offset * format.size()..][..count * format.size()], &mut self.block);
    }
}

impl<'a> Worker<'a> {
    pub fn new(sources: &'a [&'a dyn TensorSource], kernels: Kernels) -> Self {
        let (base, inputs, statistics, parts) = (Operand::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            sources,
            kernels,
            base,
            inputs,
            statistics,
            out: Vec::new(),
            bytes: Vec::new(),
            base_bytes: Vec::new(),
            parts,
            bytes_read: 0,
        }
    }

    fn read(&mut self, tensor: &SourceTensor, range: Range, input: Option<usize>) -> Result<()> {
        let operand = match input {
            None => &mut self.base,
            Some(input) => &mut self.inputs[input],
        };
        self.sources[tensor.source].read(&tensor.name, range.start, range.count, &mut operand.window)?;
        self.bytes_read += operand.window.bytes.len() as u64;
        Ok(())
    }

    /// Reads the base, where it is needed, and the windows of those inputs that `wanted` names.
    fn read_inputs(&mut self, plan: &TensorPlan, range: Range, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let Action::Merge { base, inputs, .. } = &plan.action else { unreachable!("copies have no inputs") };
        self.inputs.resize_with(self.inputs.len().max(inputs.len()), Operand::new);
        if let Some(base) = base {
            self.read(base, range, None)?;
        }
        for (i, input) in inputs.iter().enumerate().filter(|(i, _)| wanted(*i)) {
            if let Reads::Own(tensor) = &input.reads {
                self.read(tensor, range, Some(i))?;
            }
        }
        Ok(())
    }

    /// Reads the inputs' statistics: the same run of elements, or all of them.
    fn read_statistics(&mut self, plan: &TensorPlan, range: Range, whole: bool) -> Result<()> {
        let Action::Merge { inputs, .. } = &plan.action else { unreachable!("copies have no statistics") };
        self.statistics.resize_with(inputs.len(), Operand::new);
        for (input, operand) in inputs.iter().zip(&mut self.statistics) {
            let (tensor, elements) = input.statistics.as_ref().expect("the plan has found the statistics that are read");
            let (start, count) = if whole { (0, *elements as usize) } else { (range.start, range.count) };
            self.sources[tensor.source].read(&tensor.name, start, count, &mut operand.window)?;
            self.bytes_read += operand.window.bytes.len() as u64;
            if whole {
                operand.widen(self.kernels, 0, count);
            }
        }
        Ok(())
    }

    /// Puts a block of the statistics in place, where only a run of elements was read.
    fn load_statistics(&mut self, at: At) {
        self.statistics.iter_mut().for_each(|operand| operand.widen(self.kernels, at.offset, at.count));
    }

    /// Puts the base's block in place.
    fn load_base(&mut self, plan: &TensorPlan, offset: usize, count: usize) {
        let Action::Merge { base, .. } = &plan.action else { unreachable!("copies have no inputs") };
        if base.is_some() {
            self.base.widen(self.kernels, offset, count);
        }
    }

    /// Puts input `i` in place as `operands`, with the first `ready` of its sparsifiers applied.
    fn load(&mut self, i: usize, input: &InputPlan, chain: &[Box<dyn Sparsifier>], at: At, operands: Operands) {
        let (kernels, operand, base) = (self.kernels, &mut self.inputs[i], &self.base.block);
        let mut is = Operands::Weights;
        match (&input.reads, operands) {
            (Reads::Base, Operands::Deltas) => {
                operand.block.clear();
                operand.block.resize(at.count, 0.0);
                is = Operands::Deltas;
            }
            (Reads::Base, Operands::Weights) => operand.block.clone_from(base),
            (Reads::Own(_), _) => operand.widen(kernels, at.offset, at.count),
        }
        for (sparsifier, of) in chain.iter().zip(&input.sparsifiers) {
            turn(kernels, &mut operand.block, base, &mut is, of.of);
            sparsifier.apply(kernels, at.element, &mut operand.block);
        }
        turn(kernels, &mut operand.block, base, &mut is, operands);
    }

    /// Puts all inputs in place.
    fn load_all(&mut self, plan: &TensorPlan, stages: &Stages, at: At, operands: Operands) {
        let Action::Merge { inputs, .. } = &plan.action else { unreachable!("copies have no inputs") };
        self.load_base(plan, at.offset, at.count);
        for (i, input) in inputs.iter().enumerate() {
            self.load(i, input, &stages.chains[i], at, operands);
        }
    }

    /// Hands the loaded block over.
    fn with_block<T>(&mut self, plan: &TensorPlan, then: impl FnOnce(&Block<'_>, &mut Vec<f32>, &mut Vec<Part>) -> T) -> T {
        let Action::Merge { base, inputs, .. } = &plan.action else { unreachable!("copies have no inputs") };
        let operands: Vec<&[f32]> = self.inputs[..inputs.len()].iter().map(|operand| &operand.block[..]).collect();
        let statistics: Vec<&[f32]> = self.statistics.iter().map(|operand| &operand.block[..]).collect();
        let block = Block { base: base.is_some().then_some(&self.base.block[..]), inputs: &operands, statistics: &statistics };
        then(&block, &mut self.out, &mut self.parts)
    }

    /// Gathers, for each target (an input and the first of its sparsifiers that is not ready), over one window.
    pub fn gather_for_sparsifiers(&mut self, plan: &TensorPlan, stages: &Stages, targets: &[(usize, usize)], range: Range) -> Result<()> {
        let Action::Merge { inputs, .. } = &plan.action else { unreachable!("copies have no sparsifiers") };
        self.read_inputs(plan, range, |i| targets.iter().any(|(input, _)| *input == i))?;
        self.begin(targets.iter().map(|&(i, j)| stages.chains[i][j].wants()), range);
        for at in blocks(range, BLOCK) {
            self.load_base(plan, at.offset, at.count);
            for (part, &(i, j)) in targets.iter().enumerate() {
                self.load(i, &inputs[i], &stages.chains[i][..j], at, inputs[i].sparsifiers[j].of);
                let tally = self.parts[part].tally(at.offset);
                stages.chains[i][j].gather(self.kernels, at.element, &mut self.inputs[i].block, tally);
                self.parts[part].end_of_block(at.offset + at.count, range.count);
            }
        }
        Ok(())
    }

    /// Gathers for the tensor's merge, over one window.
    pub fn gather_for_merge(&mut self, plan: &TensorPlan, stages: &Stages, range: Range) -> Result<()> {
        let merge = stages.merge.as_ref().expect("only merges gather");
        self.gather_blocks(plan, stages, range, merge.operands(), merge.wants(), |kernels, block, tally| {
            merge.gather(kernels, block, tally)
        })
    }

    /// Gathers for the whole model, over one window of one tensor.
    pub fn gather_for_model(&mut self, plan: &TensorPlan, stages: &Stages, model: &dyn ModelWide, range: Range) -> Result<()> {
        if model.of_statistics() {
            return self.gather_statistics(plan, model, range);
        }
        self.gather_blocks(plan, stages, range, Operands::Deltas, model.wants(), |kernels, block, tally| {
            model.gather(kernels, block, tally)
        })
    }

    /// Gathers for the whole model, over one window of the statistics alone.
    fn gather_statistics(&mut self, plan: &TensorPlan, model: &dyn ModelWide, range: Range) -> Result<()> {
        self.read_statistics(plan, range, false)?;
        self.begin(std::iter::once(model.wants()), range);
        for at in blocks(range, BLOCK) {
            self.load_statistics(at);
            let statistics: Vec<&[f32]> = self.statistics.iter().map(|operand| &operand.block[..]).collect();
            let block = Block { base: None, inputs: &[], statistics: &statistics };
            model.gather(self.kernels, &block, self.parts[0].tally(at.offset));
            self.parts[0].end_of_block(at.offset + at.count, range.count);
        }
        Ok(())
    }

    fn gather_blocks(
        &mut self,
        plan: &TensorPlan,
        stages: &Stages,
        range: Range,
        operands: Operands,
        wanted: Option<Wanted>,
        gather: impl Fn(Kernels, &Block<'_>, Tally<'_>),
    ) -> Result<()> {
        self.read_inputs(plan, range, |_| true)?;
        self.begin(std::iter::once(wanted), range);
        let kernels = self.kernels;
        for at in blocks(range, BLOCK) {
            self.load_all(plan, stages, at, operands);
            self.with_block(plan, |block, _, parts| gather(kernels, block, parts[0].tally(at.offset)));
            self.parts[0].end_of_block(at.offset + at.count, range.count);
        }
        Ok(())
    }

    fn begin(&mut self, wanted: impl Iterator<Item = Option<Wanted>>, range: Range) {
        for (i, wanted) in wanted.enumerate() {
            if self.parts.len() == i {
                self.parts.push(Part::new());
            }
            self.parts[i].begin(wanted.expect("a pass gathers only what is asked for"), range.count);
        }
    }

    /// Computes one window of the output. Returns its bytes and what was counted over them.
    pub fn map(&mut self, plan: &TensorPlan, stages: &Stages, range: Range, count_swallowed: bool) -> Result<(&[u8], Counts)> {
        match (&plan.action, &stages.merge) {
            (Action::Copy(tensor), _) => self.copy(plan, tensor, range),
            (Action::Merge { base, row, inputs, .. }, Some(merge)) => {
                self.read_inputs(plan, range, |_| true)?;
                let (reach, reads_statistics) = (merge.reach(), merge.reads_statistics());
                self.statistics.clear();
                if reads_statistics {
                    self.read_statistics(plan, range, reach == Reach::Tensor)?;
                }
                let kernels = self.kernels;
                let format = plan.dtype.float_format().expect("only floating tensors are merged");
                let unit = match reach {
                    Reach::Elements => BLOCK,
                    Reach::Rows => rows_unit(*row, inputs).min(range.count),
                    Reach::Tensor => range.count,
                };
                self.bytes.resize(range.count * format.size(), 0);
                let mut counts = Counts::default();
                let every = if count_swallowed && base.is_some() { sampled_every(plan.elements()) } else { u64::MAX };
                for at in blocks(range, unit) {
                    self.load_all(plan, stages, at, merge.operands());
                    if reads_statistics && reach != Reach::Tensor {
                        self.load_statistics(at);
                    }
                    self.out.resize(at.count, 0.0);
                    self.with_block(plan, |block, out, _| merge.map(kernels, block, *row as usize, out));
                    let place = at.offset * format.size()..(at.offset + at.count) * format.size();
                    counts.non_finite += kernels.narrow(format, &self.out, &mut self.bytes[place.clone()]);
                    if every != u64::MAX && (at.element / unit as u64).is_multiple_of(every) {
                        self.count_swallowed(format, place, &mut counts);
                    }
                }
                Ok((&self.bytes, counts))
            }
            (Action::Merge { .. }, None) => unreachable!("a merge has its arithmetic"),
        }
    }

    /// Counts the elements of the block at hand that the merge moved away from the base, and those of them that are rounded to the base.
    fn count_swallowed(&mut self, format: FloatFormat, place: std::ops::Range<usize>, counts: &mut Counts) {
        self.base_bytes.resize(place.len(), 0);
        self.kernels.narrow(format, &self.base.block, &mut self.base_bytes);
        let rounded = self.bytes[place].chunks_exact(format.size()).zip(self.base_bytes.chunks_exact(format.size()));
        for ((out, base), (written, unmoved)) in self.out.iter().zip(&self.base.block).zip(rounded) {
            let moved = out.to_bits() != base.to_bits();
            counts.moved += u64::from(moved);
            counts.swallowed += u64::from(moved && written == unmoved);
        }
    }

    /// Copies a window: bit for bit where the dtype stays, else rounded once.
    fn copy(&mut self, plan: &TensorPlan, tensor: &SourceTensor, range: Range) -> Result<(&[u8], Counts)> {
        self.read(tensor, range, None)?;
        let mut counts = Counts::default();
        let (Some(from), Some(to)) = (self.base.window.dtype.float_format(), plan.dtype.float_format()) else {
            return Ok((&self.base.window.bytes, counts));
        };
        let same = from == to;
        self.bytes.resize(if same { 0 } else { range.count * to.size() }, 0);
        for at in blocks(range, BLOCK) {
            self.base.widen(self.kernels, at.offset, at.count);
            counts.non_finite += if same {
                self.kernels.count_non_finite(&self.base.block)
            } else {
                self.kernels.narrow(to, &self.base.block, &mut self.bytes[at.offset * to.size()..][..at.count * to.size()])
            };
        }
        Ok((if same { &self.base.window.bytes } else { &self.bytes }, counts))
    }
}

/// Of a tensor of so many elements every how many-th block is looked at for swallowed deltas: a part of a large one is enough to know the
/// share (4,096 elements are seen at least), and costs under a hundredth of the merge.
fn sampled_every(elements: u64) -> u64 {
    match elements {
        0..=0x1_0000 => 1,
        0x1_0001..=0x10_0000 => 16,
        _ => 64,
    }
}

/// Turns a block of weights into deltas, or the other way.
fn turn(kernels: Kernels, block: &mut [f32], base: &[f32], is: &mut Operands, into: Operands) {
    match (*is, into) {
        (Operands::Weights, Operands::Deltas) => kernels.subtract(block, base),
        (Operands::Deltas, Operands::Weights) => kernels.add(block, base),
        _ => {}
    }
    *is = into;
}

/// Where a block lies: in its tensor, and in the window at hand.
#[derive(Clone, Copy)]
struct At {
    element: u64,
    offset: usize,
    count: usize,
}

fn blocks(range: Range, unit: usize) -> impl Iterator<Item = At> {
    (0..range.count).step_by(unit).map(move |offset| At {
        element: range.start + offset as u64,
        offset,
        count: unit.min(range.count - offset),
    })
}

/// Number of elements of a block of whole rows. Sparsifiers are promised that a block starts at a multiple of [`BLOCK`].
pub(super) fn rows_unit(row: u64, inputs: &[InputPlan]) -> usize {
    if inputs.iter().all(|input| input.sparsifiers.is_empty()) {
        return row as usize * BLOCK.div_ceil(row as usize);
    }
    let (mut a, mut b) = (row, BLOCK as u64);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    (row / a * BLOCK as u64) as usize
}
