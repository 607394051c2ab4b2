//! Decides for each place of the output what is done: copied from whom, or merged from what.

use deltaic_checkpoint::{DType, Error, Result, TensorInfo, Window};

use super::masks::{self, Drawn, Streams};
use super::parameters::{self, Places};
use super::slots::{SliceOf, SliceSource, Slot, Slots};
use super::statistics::StatisticsFile;
use super::{Action, InputPlan, Reads, Source, SourceTensor, SparsifierPlan, TensorPlan};
use crate::gather::Operands;
use crate::methods::{Base, Input, Method, ModelWide, Prepared, Setup, Statistics, implementation};
use crate::recipe::Recipe;
use crate::sparsifiers::{self, Given, Sparsifier};

/// All tensors, and what was found on the way.
pub(super) struct Planned {
    pub tensors: Vec<TensorPlan>,
    pub masks: Vec<Drawn>,
    pub model_wide: Option<Box<dyn ModelWide>>,
}

/// Plans every tensor.
pub(super) fn plan(
    recipe: &Recipe,
    sources: &[Source],
    statistics: &[StatisticsFile],
    slots: &Slots<'_>,
    seed: u64,
    warnings: &mut Vec<String>,
) -> Result<Planned> {
    let method = implementation(recipe.method);
    let streams = Streams::of(recipe);
    let mut planner =
        Planner { recipe, sources, statistics, slots, seed, streams, method, masks: Vec::new(), setups: Vec::new(), warnings };
    let mut tensors = Vec::new();
    let mut matched = vec![false; recipe.exclude.len()];
    for slot in &slots.slots {
        match recipe.exclude.iter().position(|pattern| pattern.value.is_match(&slot.name)) {
            Some(pattern) => {
                matched[pattern] = true;
                tensors.extend(planner.excluded(slot));
            }
            None => tensors.push(planner.tensor(slot)?),
        }
    }
    for (pattern, _) in recipe.exclude.iter().zip(&matched).filter(|(_, matched)| !**matched) {
        planner.warnings.push(recipe.document.render(
            pattern.span,
            "this pattern of `exclude` matches no tensor",
            "it has to match whole names",
        ));
    }
    if tensors.is_empty() {
        return Err(Error::new(format!("{}: the output would have no tensors", recipe.document.name)).help("see `exclude`"));
    }
    planner.warn_of_doubles(&tensors);
    planner.refuse_quantized(&tensors)?;
    let model_wide = method.model_wide(&planner.setups).map_err(|error| planner.of_method(error, "the model"))?;
    Ok(Planned { tensors, masks: planner.masks, model_wide })
}

struct Planner<'a> {
    recipe: &'a Recipe,
    sources: &'a [Source],
    statistics: &'a [StatisticsFile],
    slots: &'a Slots<'a>,
    seed: u64,
    streams: Streams,
    method: &'static dyn Method,
    masks: Vec<Drawn>,
    setups: Vec<Setup>,
    warnings: &'a mut Vec<String>,
}

/// What one source of a slice has for one place.
struct Offer<'a> {
    of: &'a SliceSource<'a>,
    tensor: SourceTensor,
    info: &'a TensorInfo,
    /// The canonical name in the source's numbering of layers: filters see it.
    canonical: &'a str,
    /// The name by which its mask is drawn.
    mask_name: String,
    /// Its statistics, with their shape.
    statistics: Option<(SourceTensor, Vec<u64>)>,
}

impl<'a> Planner<'a> {
    /// What a source stores for a place; a head that it does not store is lent by its embedding.
    fn offer(&self, slot: &'a Slot, i: usize) -> Option<Offer<'a>> {
        let (of, canonical) = (&self.slots.slices[slot.slice].sources[i], slot.canonical[i].as_str());
        let source = &self.sources[of.source];
        let embedding = self.slots.architecture.tied_partner(canonical);
        let (name, lent) = self.slots.stored_name(of.source, canonical)?;
        // One matrix under two names gets one mask, the embedding's.
        let mask_name = match embedding {
            Some(embedding) if lent || self.slots.architecture.is_tied(&source.config) => embedding,
            _ => canonical.to_owned(),
        };
        let info = source.tensors.tensors().get(name)?;
        let statistics = self.statistics_of(of.source, name);
        Some(Offer { of, tensor: SourceTensor { source: of.source, name: name.to_owned() }, info, canonical, mask_name, statistics })
    }

    /// What is known of a source's tensor beside its elements.
    fn statistics_of(&self, source: usize, name: &str) -> Option<(SourceTensor, Vec<u64>)> {
        let number = self.statistics.iter().position(|file| file.source == source)?;
        let file = &self.statistics[number];
        let name = file.name_of(&self.sources[source], name)?;
        let shape = file.tensors.tensors().get(name)?.shape.clone();
        Some((SourceTensor { source: self.sources.len() + number, name: name.to_owned() }, shape))
    }

    /// An excluded place: the base's tensor where it stores one, else nothing; of a model that was taken out of a recipe its own.
    fn excluded(&self, slot: &'a Slot) -> Option<TensorPlan> {
        let sources = &self.slots.slices[slot.slice].sources;
        let from = sources.iter().position(|source| source.is_base != self.recipe.place.is_some())?;
        self.slots.own_name(sources[from].source, &slot.canonical[from])?;
        let offer = self.offer(slot, from)?;
        let native = offer.info.dtype.is_float().then_some(offer.info.dtype);
        Some(self.copy(slot, &offer, native))
    }

    /// A copy. `native` is the dtype where the recipe names none; without one the recipe has no say (buffers, integers).
    fn copy(&self, slot: &Slot, from: &Offer<'_>, native: Option<DType>) -> TensorPlan {
        TensorPlan {
            name: slot.name.clone(),
            dtype: native.map_or(from.info.dtype, |native| self.out_dtype(native)),
            shape: from.info.shape.clone(),
            action: Action::Copy(from.tensor.clone()),
            stored_bytes: from.info.dtype.size(),
            window_bytes: from.info.dtype.size().max(size_of::<f32>()),
        }
    }

    fn out_dtype(&self, native: DType) -> DType {
        self.recipe.out_dtype.or(self.recipe.dtype).unwrap_or(native)
    }

    fn tensor(&mut self, slot: &'a Slot) -> Result<TensorPlan> {
        let slice = &self.slots.slices[slot.slice];
        let offers: Vec<Option<Offer<'a>>> = (0..slice.sources.len()).map(|i| self.offer(slot, i)).collect();
        let present: Vec<&Offer<'a>> = offers.iter().flatten().collect();
        let base = present.iter().copied().find(|offer| offer.of.is_base);
        let first = base.or(present.first().copied()).expect("a place is made from what some source stores");
        if self.slots.architecture.is_buffer(&slot.name) || present.iter().all(|offer| !offer.info.dtype.is_float()) {
            self.warn_of_differences(slot, first, &present)?;
            return Ok(self.copy(slot, first, None));
        }
        self.check_kinds(slot, first, &present)?;
        let is_input = |source: &SliceSource<'_>| self.is_input(slice, source);
        let inputs: Vec<&Offer<'a>> = present.iter().copied().filter(|offer| is_input(offer.of)).collect();
        let is_head = self.slots.architecture.tied_partner(&slot.name).is_some();
        if !is_head && offers.iter().zip(&slice.sources).any(|(offer, source)| offer.is_none() && is_input(source)) {
            return Err(self.missing(slot, &offers));
        }
        if inputs.is_empty() {
            return Ok(self.copy(slot, first, Some(first.info.dtype)));
        }
        self.merge(slot, base, first, &inputs)
    }

    /// Asks the method what is to be done, and puts the sparsifiers before it.
    fn merge(&mut self, slot: &'a Slot, base: Option<&Offer<'a>>, first: &Offer<'a>, inputs: &[&Offer<'a>]) -> Result<TensorPlan> {
        if self.recipe.method.base == Base::Required && base.is_none() {
            return Err(self.no_base(slot));
        }
        let setup = self.setup(slot, first, inputs)?;
        self.check_statistics(slot, &setup, inputs)?;
        let prepared = self.method.prepare(&setup).map_err(|error| self.of_method(error, &slot.name))?;
        let native = Some(first.info.dtype);
        let (used, merge) = match prepared {
            Prepared::CopyBase => return Ok(self.copy(slot, base.ok_or_else(|| self.no_base(slot))?, native)),
            Prepared::Copy(i) => return Ok(self.copy(slot, inputs[i], native)),
            Prepared::Merge { inputs, merge } => (inputs, merge),
        };
        let mut plans = Vec::new();
        for (i, own) in used {
            let mut sparsifiers = Vec::new();
            if setup.inputs[i].given == Given::Sparsified {
                sparsifiers.extend(self.sparsifier(&setup, inputs[i]));
            }
            if let Some(sparsifier) = own {
                self.draw(&*sparsifier, inputs[i], true);
                sparsifiers.push(SparsifierPlan { of: Operands::Deltas, sparsifier });
            }
            let is_base = inputs[i].of.is_base || setup.inputs[i].given == Given::ZeroDelta;
            let reads = if is_base && base.is_some() { Reads::Base } else { Reads::Own(inputs[i].tensor.clone()) };
            let statistics = inputs[i].statistics.clone().filter(|_| merge.reads_statistics());
            let statistics = statistics.map(|(tensor, shape)| (tensor, shape.iter().product()));
            plans.push(InputPlan { reads, sparsifiers, statistics });
        }
        let of_deltas =
            |input: &InputPlan| input.reads == Reads::Base || input.sparsifiers.iter().any(|stage| stage.of == Operands::Deltas);
        let needs_base = merge.operands() == Operands::Deltas || plans.iter().any(of_deltas);
        let base = match base {
            _ if !needs_base => None,
            Some(base) => Some(base),
            None => return Err(self.no_base(slot)),
        };
        let size = |tensor: &SourceTensor| self.sources[tensor.source].tensors.tensors()[&tensor.name].dtype.size();
        let base = base.map(|base| base.tensor.clone());
        let read = || plans.iter().filter_map(InputPlan::own).chain(&base).map(size);
        let (stored_bytes, window_bytes): (usize, usize) = (read().sum(), read().map(|size| size.max(size_of::<f32>())).sum());
        let of_statistics = plans.iter().filter(|input| input.statistics.is_some()).count() * size_of::<f32>();
        let (stored_bytes, window_bytes) = (stored_bytes + of_statistics, window_bytes + of_statistics);
        let action = Action::Merge { base, inputs: plans, merge, row: setup.row };
        self.setups.push(setup);
        let dtype = self.out_dtype(first.info.dtype);
        Ok(TensorPlan { name: slot.name.clone(), dtype, shape: first.info.shape.clone(), action, stored_bytes, window_bytes })
    }

    /// The recipe's sparsifier before one input.
    fn sparsifier(&mut self, setup: &Setup, input: &Offer<'a>) -> Option<SparsifierPlan> {
        let entry = input.of.entry?;
        let sparsify = self.recipe.sparsify_of(entry)?;
        let mask = masks::of(self.recipe, &self.streams, entry, self.seed).sparsifier;
        let sparsifier = sparsifiers::prepare(sparsify, setup.elements, mask.key(&input.mask_name));
        self.draw(&*sparsifier, input, false);
        Some(SparsifierPlan { of: sparsify.of, sparsifier })
    }

    /// Notes that a mask is drawn, where it is.
    fn draw(&mut self, sparsifier: &dyn Sparsifier, input: &Offer<'a>, by_method: bool) {
        if let (true, Some(entry)) = (sparsifier.is_random(), input.of.entry) {
            let masks = masks::of(self.recipe, &self.streams, entry, self.seed);
            let id = if by_method { masks.method } else { masks.sparsifier };
            let drawn = Drawn { id, source: input.of.source, by_method };
            if !self.masks.contains(&drawn) {
                self.masks.push(drawn);
            }
        }
    }

    /// Whether the method counts a source of the slice among its inputs.
    fn is_input(&self, slice: &SliceOf<'_>, source: &SliceSource<'_>) -> bool {
        match self.recipe.method.base {
            Base::Input | Base::OneOfTheInputs => true,
            Base::Required => !source.is_base,
            // A base that is the only model is a model (`passthrough` of the base).
            Base::Reference => !source.is_base || slice.sources.len() == 1,
        }
    }

    /// Everything that the method has to know.
    fn setup(&self, slot: &Slot, first: &Offer<'a>, inputs: &[&Offer<'a>]) -> Result<Setup> {
        let slice = self.slots.slices[slot.slice].parameters;
        let of_tensor = Places { recipe: self.recipe, own: None, slice, tensor: &slot.name, t: slot.t, whose: "the merge" };
        let shared = parameters::resolve(&of_tensor, true, false)?;
        let inputs = inputs.iter().map(|input| {
            let (entry, is_base) = (input.of.entry, input.of.is_base);
            let whose = self.sources[input.of.source].reference.to_string();
            let places = Places { own: entry.map(|entry| &entry.parameters), tensor: input.canonical, whose: &whose, ..of_tensor };
            // A base that is a model like any other has a model's parameters.
            let values = parameters::resolve(&places, false, is_base && self.recipe.method.base != Base::Reference)?;
            let sparsify = entry.filter(|_| !is_base).and_then(|entry| self.recipe.sparsify_of(entry));
            let mask = entry.map_or(masks::MaskId { seed: self.seed, stream: 0 }, |entry| {
                masks::of(self.recipe, &self.streams, entry, self.seed).method
            });
            let statistics = input.statistics.as_ref().map(|(_, shape)| shape.clone());
            let given = sparsify.map_or(Given::AsIs, sparsifiers::given);
            Ok(Input { is_base, values, given, mask: mask.key(&input.mask_name), statistics })
        });
        let elements = first.info.elements();
        let row = first.info.shape.last().copied().unwrap_or(1).max(1);
        let (axes, fisher) = (first.info.shape.len(), self.recipe.fisher);
        Ok(Setup { elements, axes, row, fisher, shared, inputs: inputs.collect::<Result<_>>()? })
    }

    /// Fisher weights are there for every element; Gram matrices for the weights of linear layers, of which the method knows.
    fn check_statistics(&self, slot: &Slot, setup: &Setup, inputs: &[&Offer<'a>]) -> Result<()> {
        if self.recipe.method.statistics != Some(Statistics::Fisher) {
            return Ok(());
        }
        for (input, of_setup) in inputs.iter().zip(&setup.inputs) {
            let file = self.statistics.iter().find(|file| file.source == input.of.source);
            let file = file.map_or_else(String::new, |file| file.identity.path.display().to_string());
            match &of_setup.statistics {
                Some(shape) if *shape == input.info.shape => {}
                Some(shape) => {
                    return Err(Error::new(format!("{file}: {} has shape {shape:?}, expected {:?}", input.tensor.name, input.info.shape))
                        .help("these are the statistics of another model: make them again with `deltaic fisher`"));
                }
                None => {
                    return Err(Error::new(format!("{file}: has no Fisher weights of {}", input.tensor.name))
                        .help(format!("make them again with `deltaic fisher`; or {}", self.exclude(&slot.name))));
                }
            }
        }
        Ok(())
    }

    /// All have to be floating, and of one shape.
    fn check_kinds(&self, slot: &Slot, first: &Offer<'_>, present: &[&Offer<'_>]) -> Result<()> {
        let name = |offer: &Offer<'_>| self.sources[offer.of.source].reference.to_string();
        for offer in present {
            if !offer.info.dtype.is_float() || !first.info.dtype.is_float() {
                let (one, other) = (offer.info.dtype.safetensors_name(), first.info.dtype.safetensors_name());
                return Err(Error::new(format!("{}: {} stores {one}, {} stores {other}", slot.name, name(offer), name(first)))
                    .help("only floating tensors are merged; `exclude` this one to take it from the base"));
            }
            if offer.info.shape == first.info.shape {
                continue;
            }
            let message =
                format!("{}: {} has shape {:?}, {} has {:?}", slot.name, name(offer), offer.info.shape, name(first), first.info.shape);
            let help = "these are not fine-tunes of the same base; `deltaic inspect MODEL` shows a model's tensors";
            return Err(Error::new(message).help(help));
        }
        Ok(())
    }

    /// A tensor that some inputs do not have.
    fn missing(&self, slot: &Slot, offers: &[Option<Offer<'_>>]) -> Error {
        let sources = &self.slots.slices[slot.slice].sources;
        let names = |there: bool| {
            let these = offers.iter().zip(sources).filter(|(offer, _)| offer.is_some() == there);
            these.map(|(_, source)| self.sources[source.source].reference.to_string()).collect::<Vec<_>>().join(", ")
        };
        Error::new(format!("{}: {} has it, {} lacks it", slot.name, names(true), names(false))).help(self.exclude(&slot.name))
    }

    /// A tensor whose deltas are asked for and that the base does not have.
    fn no_base(&self, slot: &Slot) -> Error {
        let slice = &self.slots.slices[slot.slice];
        let base = slice.sources.iter().find(|source| source.is_base);
        match base.map(|base| &self.sources[base.source].reference) {
            Some(base) => Error::new(format!("{}: the fine-tunes have it, the base {base} lacks it, so there is no delta", slot.name))
                .help(self.exclude(&slot.name)),
            None => Error::new(format!("{}: deltas are asked for, and the base is not among the sources of its slice", slot.name))
                .help("list the base among the sources of every slice, with its layer_range"),
        }
    }

    fn exclude(&self, name: &str) -> String {
        format!("leave it out, or keep the base's, with `exclude: ['{}']`", regex::escape(name))
    }

    /// A method's error with the tensor that it is about.
    fn of_method(&self, error: Error, tensor: &str) -> Error {
        let message = format!("{tensor}: {}", error.message());
        error.with_message(self.recipe.document.render(self.recipe.method_span, &message, ""))
    }

    /// Copied tensors that are not the same in all models deserve a word. Those of more than a mebibyte are not read for it.
    fn warn_of_differences(&mut self, slot: &Slot, first: &Offer<'_>, present: &[&Offer<'_>]) -> Result<()> {
        const READ_AT_MOST: u64 = 1 << 20;
        let content = |offer: &Offer<'_>| -> Result<Option<Vec<u8>>> {
            if offer.info.elements() * offer.info.dtype.size() as u64 > READ_AT_MOST {
                return Ok(None);
            }
            let mut window = Window { dtype: offer.info.dtype, bytes: Vec::new() };
            self.sources[offer.tensor.source].tensors.read(&offer.tensor.name, 0, offer.info.elements() as usize, &mut window)?;
            Ok(Some(window.bytes))
        };
        let expected = content(first)?;
        for offer in present {
            if offer.info.shape != first.info.shape || offer.info.dtype != first.info.dtype || content(offer)? != expected {
                let (one, other) = (&self.sources[offer.of.source].reference, &self.sources[first.of.source].reference);
                let warning = format!("{}: {one} differs from {other}, whose is copied: such tensors are never merged", slot.name);
                self.warnings.push(warning);
            }
        }
        Ok(())
    }

    /// F64 sources lose digits in the arithmetic.
    fn warn_of_doubles(&mut self, tensors: &[TensorPlan]) {
        let merged = tensors.iter().filter_map(|tensor| match &tensor.action {
            Action::Merge { base, inputs, .. } => Some(base.iter().chain(inputs.iter().filter_map(InputPlan::own))),
            Action::Copy(_) => None,
        });
        let is_double = |tensor: &&SourceTensor| self.sources[tensor.source].tensors.tensors()[&tensor.name].dtype == DType::F64;
        let count = merged.flatten().filter(is_double).count();
        if count > 0 {
            self.warnings.push(format!("{count} tensors of the sources are float64: they are rounded to float32 for the arithmetic"));
        }
    }

    /// Quantised weights mean nothing without their scales, so that merging them would be nonsense.
    fn refuse_quantized(&self, tensors: &[TensorPlan]) -> Result<()> {
        if tensors.iter().all(TensorPlan::is_copy) {
            return Ok(());
        }
        match self.sources.iter().find(|source| source.config.is_quantized()) {
            None => Ok(()),
            Some(source) => {
                Err(Error::new(format!("{}: config.json has a quantization_config: quantised weights cannot be merged", source.reference))
                    .help("merge the unquantised model, and quantise the result"))
            }
        }
    }
}

impl InputPlan {
    /// The tensor that it reads itself.
    fn own(&self) -> Option<&SourceTensor> {
        match &self.reads {
            Reads::Own(tensor) => Some(tensor),
            Reads::Base => None,
        }
    }
}
