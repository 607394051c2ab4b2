//! `slerp`: spherical interpolation between two models, each tensor as one vector.

use deltaic_checkpoint::Result;
use deltaic_kernels::Kernels;

use super::{Base, Block, Default, Definition, Kind, Method, Paper, Parameter, Prepared, Preset, Scope, Setup, TensorMerge};
use crate::gather::Operands;
use crate::gather::{Gathered, Tally, Wanted};
use crate::sparsifiers::Given;

pub(super) struct Slerp;

/// Above this cosine the vectors are as good as parallel and are interpolated linearly (mergekit's threshold).
const NEARLY_PARALLEL: f64 = 0.9995;
/// A norm below this counts as 1 (mergekit's guard for zero vectors).
const NO_NORM: f64 = 1e-8;

static DEFINITIONS: &[Definition] = &[Definition {
    name: "slerp",
    preset: Some(Preset::Mergekit),
    summary: "spherical interpolation from the base (t = 0) to the other model (t = 1)",
    formula: "theta = angle(W0, W1);  out = sin((1-t) theta)/sin(theta) W0 + sin(t theta)/sin(theta) W1
|cos(theta)| > 0.9995: out = (1-t) W0 + t W1",
    paper: Some(Paper { title: "Animating rotation with quaternion curves (SIGGRAPH 1985)", arxiv: "" }),
    base: Base::OneOfTheInputs,
    models: (2, Some(2)),
    parameters: &[Parameter {
        name: "t",
        kind: Kind::Number,
        scope: Scope::Shared,
        default: Default::Required,
        no_effect: false,
        summary: "0: the base, 1: the other model",
    }],
    statistics: None,
    example: "\
merge_method: slerp
base_model: ./fine-tune-a
models:
  - model: ./fine-tune-a
  - model: ./fine-tune-b
parameters: {t: [0.3, 0.7]}
",
}];

impl Method for Slerp {
    fn definitions(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn prepare(&self, setup: &Setup) -> Result<Prepared> {
        let t = setup.shared.number("t");
        // A tensor that only one of the two has is that one's, as mergekit has it.
        if setup.inputs.len() == 1 {
            return Ok(Prepared::Copy(0));
        }
        let (base, other) = if setup.inputs[0].is_base { (0, 1) } else { (1, 0) };
        if t == 0.0 || setup.inputs[other].given == Given::ZeroDelta {
            return Ok(Prepared::Copy(base));
        }
        if t == 1.0 && setup.inputs[other].given == Given::AsIs {
            return Ok(Prepared::Copy(other));
        }
        let merge = Interpolation { t, factors: None };
        Ok(Prepared::Merge { inputs: vec![(base, None), (other, None)], merge: Box::new(merge) })
    }
}

#[derive(Clone)]
struct Interpolation {
    t: f64,
    /// What the two vectors are multiplied by, once their angle is known.
    factors: Option<(f32, f32)>,
}

impl TensorMerge for Interpolation {
    fn operands(&self) -> Operands {
        Operands::Weights
    }

    fn wants(&self) -> Option<Wanted> {
        self.factors.is_none().then_some(Wanted::Sums(3))
    }

    fn gather(&self, kernels: Kernels, block: &Block<'_>, mut tally: Tally<'_>) {
        let [a, b] = block.inputs else { unreachable!("slerp has two inputs") };
        let [aa, bb, ab] = tally.sums() else { unreachable!("three sums were asked for") };
        kernels.sum_products(a, a, aa);
        kernels.sum_products(b, b, bb);
        kernels.sum_products(a, b, ab);
    }

    fn take(&mut self, gathered: Gathered) {
        let sums = gathered.sums();
        let norm = |square: f64| if square.sqrt() <= NO_NORM { 1.0 } else { square.sqrt() };
        let cosine = (sums[2] / (norm(sums[0]) * norm(sums[1]))).clamp(-1.0, 1.0);
        let (a, b) = if cosine.abs() > NEARLY_PARALLEL {
            (1.0 - self.t, self.t)
        } else {
            let theta = libm::acos(cosine);
            (libm::sin((1.0 - self.t) * theta) / libm::sin(theta), libm::sin(self.t * theta) / libm::sin(theta))
        };
        self.factors = Some((a as f32, b as f32));
    }

    fn map(&self, kernels: Kernels, block: &Block<'_>, _row: usize, out: &mut [f32]) {
        let (a, b) = self.factors.expect("the angle was gathered before");
        kernels.combine(out, a, block.inputs[0], b, block.inputs[1]);
    }

    fn fresh(&self) -> Box<dyn TensorMerge> {
        Box::new(Self { factors: None, ..self.clone() })
    }
}
