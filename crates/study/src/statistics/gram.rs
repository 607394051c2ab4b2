//! Gram matrices `X^T X` of linear layers' inputs, as means over rows (Jin et al. 2023, RegMean; MergeLM's `regmean_merging`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use candle_core::{D, DType, Device, Tensor, TensorId};
use deltaic_checkpoint::Result;
use deltaic_lm::{Computed, EncoderOutput, Mode, Observer, Pass};
use deltaic_merge::recipe::{GramSettings, Padding};

use super::examples::{Batch, Example, Width};
use super::gradients::with_values;
use super::model::{Network, StatisticsModel};
use super::run::Work;
use super::slots::{PassSlots, SlotSpec};

/// Examples that are run together where nothing depends on it: enough rows for a product of matrices to be worth it.
const TOGETHER: usize = 16;

/// The making of a model's Gram matrices.
pub(crate) struct Gram<'a> {
    network: Network,
    examples: &'a [Example],
    batches: Vec<Range<usize>>,
    settings: &'a GramSettings,
    specs: Vec<SlotSpec>,
    /// For each linear layer, by canonical name, the number of its spec.
    layers: BTreeMap<String, usize>,
    /// A decoder's head, which reads the last hidden states.
    head: Option<String>,
}

impl<'a> Gram<'a> {
    /// Loads the model, and finds its linear layers by running it on the first token.
    pub fn new(model: &StatisticsModel, examples: &'a [Example], settings: &'a GramSettings) -> Result<Self> {
        let network = model.load(Mode::Inference)?;
        let (found, head) = layers_of(&network, examples)?;
        let (mut specs, mut layers): (Vec<SlotSpec>, _) = (Vec::new(), BTreeMap::new());
        let mut by_input: BTreeMap<usize, usize> = BTreeMap::new();
        for Layer { name, inputs, input } in found {
            // A head that is the embedding has no weight of its own.
            let Some(own) = model.own_name(&format!("{name}.weight")) else { continue };
            let number = *by_input.entry(input).or_insert_with(|| {
                specs.push(SlotSpec { names: Vec::new(), shape: vec![inputs as u64; 2] });
                specs.len() - 1
            });
            specs[number].names.push(own.clone());
            layers.insert(name, number);
        }
        let batches = batches(examples, settings);
        Ok(Self { network, examples, batches, settings, specs, layers, head })
    }

    fn width(&self) -> Width {
        match self.settings {
            GramSettings { padding: Padding::Include, batch_size: None } => Width::Own,
            _ => Width::Longest,
        }
    }
}

/// The examples of each batch. With padding it is said by the settings; without, a batch is nothing but a way to compute.
fn batches(examples: &[Example], settings: &GramSettings) -> Vec<Range<usize>> {
    let all = 0..examples.len();
    let size = match settings {
        GramSettings { padding: Padding::Exclude, .. } => TOGETHER,
        GramSettings { padding: Padding::Include, batch_size: Some(size) } => (*size).max(1),
        // Those of one width, which none of them is padded for.
        GramSettings { padding: Padding::Include, batch_size: None } => {
            let same = examples.chunk_by(|a, b| a.ids.len() == b.ids.len());
            let mut start = 0;
            let mut batches = Vec::new();
            for chunk in same.flat_map(|same| same.chunks(TOGETHER)) {
                batches.push(start..start + chunk.len());
                start += chunk.len();
            }
            return batches;
        }
    };
    all.step_by(size).map(|start| start..(start + size).min(examples.len())).collect()
}

impl Work for Gram<'_> {
    fn specs(&self) -> &[SlotSpec] {
        &self.specs
    }

    fn steps(&self) -> usize {
        self.batches.len()
    }

    fn examples_after(&self, step: usize) -> usize {
        self.batches[step].end
    }

    fn step(&mut self, step: usize, slots: &mut PassSlots) -> Result<()> {
        let batch = Batch::new(&self.examples[self.batches[step].clone()], self.width(), self.network.pad_id());
        let rows = match self.settings.padding {
            Padding::Include => None,
            Padding::Exclude => Some((0..).zip(&batch.attended).filter(|(_, attended)| **attended).map(|(row, _)| row).collect()),
        };
        let mut collector = Collector { layers: &self.layers, slots, rows, done: BTreeSet::new() };
        run(&self.network, &batch, self.head.as_deref(), &mut collector)
    }
}

/// Runs a batch; a decoder's head is reported without its logits, which nobody needs.
fn run(network: &Network, batch: &Batch, head: Option<&str>, observer: &mut dyn Observer) -> Result<()> {
    match network {
        Network::Encoder(encoder) => {
            let inputs = batch.encoder()?;
            let mut pass = Pass::new().observed_by(observer);
            match encoder.labels() {
                Ok(_) => encoder.classify(&inputs, &mut pass).map(drop),
                Err(_) => encoder.forward(&inputs, &mut pass).map(|_: EncoderOutput| ()),
            }
        }
        Network::Decoder(decoder) => {
            let hidden = decoder.forward(&batch.decoder()?, None, &mut Pass::new().observed_by(observer))?;
            head.map_or(Ok(()), |head| observer.linear_input(head, &hidden))
        }
    }
}

/// Adds what linear layers read to the slots.
struct Collector<'a> {
    layers: &'a BTreeMap<String, usize>,
    slots: &'a mut PassSlots,
    /// The rows that count, where not all do.
    rows: Option<Vec<u32>>,
    /// The specs whose inputs have been added.
    done: BTreeSet<usize>,
}

impl Observer for Collector<'_> {
    fn linear_input(&mut self, name: &str, input: &Tensor) -> Result<()> {
        let Some(&spec) = self.layers.get(name) else { return Ok(()) };
        let Some(slot) = self.slots.get_mut(spec).filter(|_| self.done.insert(spec)) else { return Ok(()) };
        // A pooler or a head reads one row of each sequence, which is never padding.
        let by_token = input.rank() == 3;
        let (gram, count) = gram(input, self.rows.as_deref().filter(|_| by_token)).computed()?;
        with_values(&gram, |values| slot.add(values, count as u64))
    }
}

/// `X^T X` `[in, in]` in f64 over the given rows of `[.., in]`, and how many rows these are. In f64 products of f32 are exact, and sums of any
/// number of rows are good to far more digits than are stored.
fn gram(input: &Tensor, rows: Option<&[u32]>) -> candle_core::Result<(Tensor, usize)> {
    let x = input.reshape(((), input.dim(D::Minus1)?))?;
    let x = match rows {
        Some(rows) => x.index_select(&Tensor::new(rows, x.device())?, 0)?,
        None => x,
    };
    // Not every device has f64.
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok((x.t()?.matmul(&x)?, x.dim(0)?))
}

/// A linear layer.
struct Layer {
    /// Its weight's canonical name without `.weight`.
    name: String,
    inputs: usize,
    /// A number that layers with the same input have in common.
    input: usize,
}

/// The linear layers of a model in the order in which they are used, and the name of a decoder's head.
fn layers_of(network: &Network, examples: &[Example]) -> Result<(Vec<Layer>, Option<String>)> {
    #[derive(Default)]
    struct Finder {
        layers: Vec<Layer>,
        /// Kept, so that no later tensor can be taken for one of these.
        seen: Vec<(TensorId, Tensor)>,
    }
    impl Observer for Finder {
        fn linear_input(&mut self, name: &str, input: &Tensor) -> Result<()> {
            let known = self.seen.iter().position(|(id, _)| *id == input.id());
            let number = known.unwrap_or(self.seen.len());
            if known.is_none() {
                self.seen.push((input.id(), input.clone()));
            }
            self.layers.push(Layer { name: name.to_owned(), inputs: input.dim(D::Minus1).computed()?, input: number });
            Ok(())
        }
    }
    let mut finder = Finder::default();
    let token = examples.iter().flat_map(Example::tokens).next().unwrap_or_default();
    let batch = Batch::new(&[Example::new(vec![token], Vec::new(), None, 0)], Width::Own, network.pad_id());
    run(network, &batch, None, &mut finder)?;
    let Network::Decoder(decoder) = network else { return Ok((finder.layers, None)) };
    let before = finder.layers.len();
    let hidden = decoder.forward(&batch.decoder()?, None, &mut Pass::new())?;
    decoder.logits(&hidden, &mut Pass::new().observed_by(&mut finder))?;
    let head = finder.layers.get(before).map(|layer| layer.name.clone());
    Ok((finder.layers, head))
}
