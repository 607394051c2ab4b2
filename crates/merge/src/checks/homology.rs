//! Whether the models of a merge are fine-tunes of one base, judged from samples of their weights.

use std::collections::BTreeMap;

use deltaic_checkpoint::{DType, ModelReference, Result, Window};
use deltaic_kernels::Kernels;

use super::listed;
use crate::delta::{Adder, Regime, Shares, Totals};
use crate::gather::BLOCK;
use crate::plan::{Action, Plan, Reads, SourceTensor, TensorPlan};

/// At most so many bytes are read of every model.
pub const SAMPLE_BYTES: usize = 8_000_000;

/// In so many windows.
const WINDOWS: usize = 256;

/// With an adapter: every tensor that is looked at takes the reading of the adapter's factors for it, which are not counted here.
const WINDOWS_WITH_ADAPTER: usize = 32;

/// A matrix whose cosine with the base's is below this is not a fine-tune of it. Published fine-tunes lie above 0.99, the matrices of the
/// zoo's above 0.94 and of the golden kinds' above 0.88; weights that were trained apart lie around zero (there, below 0.16): half-way is
/// far from both.
pub const UNRELATED_COSINE: f64 = 0.5;

/// Where at least this share of the matrices is unrelated the model is of another base; where fewer are, these were replaced.
pub const UNRELATED_MODEL: f64 = 0.5;

/// Matrices of fewer sampled elements are not judged: two random vectors of n elements have a cosine of about 1/sqrt(n).
const LEAST_ELEMENTS: u64 = 64;

/// How a model stands to the base, or without one to the first model, as far as was sampled.
#[derive(Debug, Clone)]
pub struct Relation {
    /// The model.
    pub model: ModelReference,
    /// What it is compared with.
    pub reference: ModelReference,
    /// Norm of the sampled deltas over that of the reference, over matrices; NaN where there is none.
    pub relative_norm: f64,
    /// Cosine of the two, over matrices; NaN where there is none.
    pub cosine: f64,
    /// What decides about the regime, over all sampled elements.
    pub shares: Shares,
    /// Matrices that were judged, with their cosines. One-dimensional tensors are not among them: norms near 1 look alike everywhere.
    pub matrices: Vec<(String, f64)>,
    /// Sampled elements that are NaN or infinite in the model, and the first tensor that has some.
    pub not_finite: (u64, Option<String>),
    /// The same of the reference.
    pub reference_not_finite: (u64, Option<String>),
    /// The number of the model among the plan's sources.
    source: usize,
}

impl Relation {
    /// The matrices that are no fine-tunes of the reference's.
    pub fn unrelated(&self) -> Vec<&(String, f64)> {
        self.matrices.iter().filter(|(_, cosine)| *cosine < UNRELATED_COSINE).collect()
    }

    /// Whether the model is of another base altogether.
    pub fn is_of_another_base(&self) -> bool {
        !self.matrices.is_empty() && self.unrelated().len() as f64 >= UNRELATED_MODEL * self.matrices.len() as f64
    }
}

/// What is sampled of one place of the output: the tensor of the base (or first model), and the others'.
struct Place<'a> {
    tensor: &'a TensorPlan,
    reference: &'a SourceTensor,
    models: Vec<&'a SourceTensor>,
}

/// Samples every merged model. The places are always the same ones for the same models.
///
/// # Errors
/// A source cannot be read.
pub fn relations(plan: &Plan) -> Result<Vec<Relation>> {
    let places: Vec<Place<'_>> = plan.tensors.iter().filter_map(|tensor| place(plan, tensor)).collect();
    let mut found: BTreeMap<(usize, usize), BTreeMap<&str, Sampled>> = BTreeMap::new();
    let mut buffers = Buffers::new();
    for (place, start, count) in windows(plan, &places) {
        buffers.read(plan, 0, place.reference, start, count)?;
        for model in &place.models {
            buffers.read(plan, 1, model, start, count)?;
            let of_model = found.entry((model.source, place.reference.source)).or_default();
            let sampled = of_model.entry(&place.tensor.name).or_insert_with(|| Sampled::new(place.tensor));
            buffers.add(sampled, count);
        }
    }
    Ok(found.into_iter().map(|((model, reference), tensors)| relation(plan, model, reference, tensors)).collect())
}

/// What was sampled of a tensor.
struct Sampled {
    adder: Adder,
    /// Elements that are NaN or infinite in the reference and in the model.
    not_finite: [u64; 2],
    is_matrix: bool,
}

impl Sampled {
    fn new(tensor: &TensorPlan) -> Self {
        let is_matrix = tensor.shape.iter().filter(|&&length| length > 1).count() >= 2;
        Self { adder: Adder::default(), not_finite: [0; 2], is_matrix }
    }

    fn totals(self) -> Totals {
        let mut totals = *self.adder.counts();
        totals.set_sums(&self.adder.blocks);
        totals
    }
}

fn relation(plan: &Plan, model: usize, reference: usize, tensors: BTreeMap<&str, Sampled>) -> Relation {
    let (mut all, mut of_matrices, mut matrices) = (Totals::default(), Totals::default(), Vec::new());
    let mut not_finite = [(0, None), (0, None)];
    for (name, sampled) in tensors {
        for ((count, first), found) in not_finite.iter_mut().zip(sampled.not_finite).filter(|(_, found)| *found > 0) {
            *count += found;
            first.get_or_insert_with(|| name.to_owned());
        }
        let is_matrix = sampled.is_matrix;
        let totals = sampled.totals();
        all.add(&totals);
        if is_matrix {
            of_matrices.add(&totals);
            let cosine = totals.cosine();
            if totals.finite() >= LEAST_ELEMENTS && !cosine.is_nan() {
                matrices.push((name.to_owned(), cosine));
            }
        }
    }
    let [reference_not_finite, not_finite] = not_finite;
    Relation {
        model: plan.sources[model].reference.clone(),
        reference: plan.sources[reference].reference.clone(),
        relative_norm: of_matrices.relative_norm(),
        cosine: of_matrices.cosine(),
        shares: all.shares(),
        matrices,
        not_finite,
        reference_not_finite,
        source: model,
    }
}

/// What may be compared of a tensor of the output.
fn place<'a>(plan: &'a Plan, tensor: &'a TensorPlan) -> Option<Place<'a>> {
    let Action::Merge { base, inputs, .. } = &tensor.action else { return None };
    let own: Vec<&SourceTensor> =
        inputs.iter().filter_map(|input| if let Reads::Own(own) = &input.reads { Some(own) } else { None }).collect();
    let listed_base = || own.iter().copied().find(|own| Some(own.source) == plan.base);
    let reference = base.as_ref().or_else(listed_base).or(own.first().copied())?;
    let layer = |own: &SourceTensor| plan.sources[own.source].architecture.layer_of(&own.name);
    // With `slices` layers of other numbers may meet: they need not be alike.
    let models: Vec<_> = own.into_iter().filter(|own| own.source != reference.source && layer(own) == layer(reference)).collect();
    (!models.is_empty() && tensor.elements() > 0).then_some(Place { tensor, reference, models })
}

/// The windows: places in the output that are spread by the golden ratio, since steps of one length would meet the same kind of tensor in
/// every layer.
fn windows<'a, 'p>(plan: &Plan, places: &'a [Place<'p>]) -> Vec<(&'a Place<'p>, u64, usize)> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    const ROOT_OF_TWO: f64 = 0.414_213_562_373_095_03;
    let adapters = plan.sources.iter().any(|source| source.adapter.is_some());
    let number = if adapters { WINDOWS_WITH_ADAPTER } else { WINDOWS };
    let size = |own: &SourceTensor| plan.sources[own.source].tensors.tensors()[&own.name].dtype.size();
    let element = places.iter().flat_map(|place| place.models.iter().copied().chain([place.reference])).map(size).max().unwrap_or(1);
    let length = SAMPLE_BYTES / (number * element);
    let mut whole = vec![false; places.len()];
    let mut windows = Vec::new();
    for i in 0..if places.is_empty() { 0 } else { number } {
        // As many tensors as there are windows: one each, in order. Else spread.
        let chosen = if places.len() <= number { i % places.len() } else { ((i as f64 * GOLDEN).fract() * places.len() as f64) as usize };
        let (place, elements) = (&places[chosen], places[chosen].tensor.elements());
        if elements <= length as u64 {
            if !std::mem::replace(&mut whole[chosen], true) {
                windows.push((place, 0, elements as usize));
            }
        } else {
            let start = ((i as f64 * ROOT_OF_TWO).fract() * (elements - length as u64) as f64) as u64;
            windows.push((place, start, length));
        }
    }
    windows
}

/// The reference's window and a model's.
struct Buffers {
    kernels: Kernels,
    windows: [Window; 2],
    blocks: [Vec<f32>; 2],
    delta: Vec<f32>,
}

impl Buffers {
    fn new() -> Self {
        let window = || Window { dtype: DType::F32, bytes: Vec::new() };
        Self { kernels: Kernels::detect(), windows: [window(), window()], blocks: Default::default(), delta: Vec::new() }
    }

    fn read(&mut self, plan: &Plan, which: usize, own: &SourceTensor, start: u64, count: usize) -> Result<()> {
        plan.sources[own.source].tensors.read(&own.name, start, count, &mut self.windows[which])
    }

    /// Adds the window at hand.
    fn add(&mut self, sampled: &mut Sampled, count: usize) {
        for offset in (0..count).step_by(BLOCK) {
            let length = BLOCK.min(count - offset);
            for ((window, block), not_finite) in self.windows.iter().zip(&mut self.blocks).zip(&mut sampled.not_finite) {
                let format = window.dtype.float_format().expect("only floating tensors are merged");
                block.resize(length, 0.0);
                self.kernels.widen(format, &window.bytes[offset * format.size()..][..length * format.size()], block);
                *not_finite += self.kernels.count_non_finite(block);
            }
            self.delta.clone_from(&self.blocks[1]);
            self.kernels.subtract(&mut self.delta, &self.blocks[0]);
            let [reference, model] = &mut self.blocks;
            sampled.adder.add(self.kernels, &mut self.delta, reference, model);
        }
        sampled.adder.end_block();
    }
}

/// What there is to say of them.
pub fn warnings(plan: &Plan, relations: &[Relation]) -> Vec<String> {
    let mut warnings: Vec<String> = relations.iter().flat_map(|relation| warnings_of(plan, relation)).collect();
    let of_references = relations.iter().filter_map(|relation| not_finite(&relation.reference, &relation.reference_not_finite));
    // A reference is that of several models, and seen with each.
    for warning in of_references {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

fn not_finite(source: &ModelReference, (count, tensor): &(u64, Option<String>)) -> Option<String> {
    let tensor = tensor.as_ref()?;
    Some(format!(
        "{source}: {count} sampled elements are NaN or infinite, the first in {tensor}; --deny-nan stops where the output has such"
    ))
}

fn warnings_of(plan: &Plan, relation: &Relation) -> Vec<String> {
    let Relation { model, reference, relative_norm, cosine, .. } = relation;
    let mut warnings = Vec::new();
    warnings.extend(not_finite(model, &relation.not_finite));
    let unrelated: Vec<String> = relation.unrelated().iter().map(|(name, cosine)| format!("{name} ({cosine:.2})")).collect();
    if relation.is_of_another_base() {
        warnings.push(format!(
            "{model} looks like a fine-tune of another base than {reference}: {} of {} sampled matrices have a cosine below {UNRELATED_COSINE} with its own, fine-tunes have over 0.9: {}; over all, the cosine is {cosine:.3} and the delta's norm {relative_norm:.2} of the base's. Such a merge seldom works: look up which base the model was trained from",
            unrelated.len(),
            relation.matrices.len(),
            listed(&unrelated),
        ));
        return warnings;
    }
    if !unrelated.is_empty() {
        warnings.push(format!(
            "{model}: {} of {} sampled matrices were replaced or trained anew, their cosine with those of {reference} is below {UNRELATED_COSINE}: {}. `exclude` keeps the base's",
            unrelated.len(),
            relation.matrices.len(),
            listed(&unrelated),
        ));
    }
    if relation.shares.unchanged == 1.0 {
        warnings.push(format!("{model}: equal to {reference} in all sampled windows: it adds nothing to the merge"));
    } else if drops(plan, relation.source) && Regime::of(&relation.shares) == Regime::ContinuedPretraining {
        warnings.push(format!(
            "{model}: its deltas are too large to be dropped: {} (the delta's norm is {relative_norm:.2} of the norm of {reference}, the cosine {cosine:.3}). The paper on DARE finds that fine-tunes lie within 0.002 to 0.005, and that dropping fails from about 0.03 on, where a model was pre-trained further. Merge it without a sparsifier, or with a density near 1",
            relation.shares.described(),
        ));
    }
    warnings
}

/// Whether the recipe drops some of the model's elements.
fn drops(plan: &Plan, source: usize) -> bool {
    let dropped = |tensor: &TensorPlan| match &tensor.action {
        Action::Copy(_) => false,
        Action::Merge { inputs, .. } => {
            inputs.iter().any(|input| !input.sparsifiers.is_empty() && matches!(&input.reads, Reads::Own(own) if own.source == source))
        }
    };
    plan.model_wide.is_some() || plan.tensors.iter().any(dropped)
}
