//! `passthrough`: one model's tensor, as it is or scaled; with `slices`, the stacking of layers.

use deltaic_checkpoint::Result;
use deltaic_kernels::Kernels;

use super::{Base, Block, Default, Definition, Kind, Method, Parameter, Prepared, Preset, Scope, Setup, TensorMerge};
use crate::gather::Operands;
use crate::sparsifiers::Given;

pub(super) struct Passthrough;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "passthrough",
    preset: Some(Preset::Mergekit),
    summary: "one model's tensors as they are, or scaled; stacks layers with `slices`",
    formula: "out = scale * W        no scale: W, bit for bit",
    paper: None,
    base: Base::Reference,
    models: (1, Some(1)),
    parameters: &[Parameter {
        name: "scale",
        kind: Kind::Number,
        scope: Scope::PerModel,
        default: Default::Absent,
        no_effect: false,
        summary: "factor of the tensor",
    }],
    statistics: None,
    example: "\
merge_method: passthrough
slices:
  - sources: [{model: ./fine-tune-a, layer_range: [0, 2]}]
  - sources: [{model: ./fine-tune-b, layer_range: [1, 2]}]
",
}];

impl Method for Passthrough {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        let input = &setup.inputs[0];
        let scale = input.values.optional("scale").unwrap_or(1.0);
        if scale == 1.0 && input.given == Given::AsIs {
            return Ok(Prepared::Copy(0));
        }
        if scale == 1.0 && input.equals_base() {
            return Ok(Prepared::CopyBase);
        }
        Ok(Prepared::Merge { inputs: vec![(0, None)], merge: Box::new(Scaled { scale: scale as f32 }) })
    }
}

#[derive(Clone)]
struct Scaled {
    scale: f32,
}

impl TensorMerge for Scaled {
    fn operands(&self) -> Operands {
        Operands::Weights
    }

    fn map(&self, kernels: Kernels, block: &Block<'_>, _row: usize, out: &mut [f32]) {
        out.copy_from_slice(block.inputs[0]);
        if self.scale != 1.0 {
            kernels.scale(out, self.scale);
        }
    }

    fn fresh(&self) -> Box<dyn TensorMerge> {
        Box::new(self.clone())
    }
}
