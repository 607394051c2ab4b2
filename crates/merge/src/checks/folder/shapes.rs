//! Shapes against config.json, and whether all layers are there.

use std::collections::{BTreeMap, BTreeSet};

use deltaic_checkpoint::{ExpectedShape, TensorInfo, shorten};

use super::{Checks, FURTHER, counted};

/// What is known of the tensors of one name over all layers.
struct Alike<'a> {
    /// The first whose shape is not the expected one.
    wrong: Option<(&'a TensorInfo, ExpectedShape)>,
    /// How many others are wrong too.
    further: usize,
    /// In which layers the tensor is there, by the stack of layers.
    layers: BTreeMap<&'a str, BTreeSet<usize>>,
}

impl Checks<'_> {
    /// Shapes against config.json, one finding for all layers together; and that what is in one layer is in all.
    pub(super) fn shapes(&mut self) {
        if self.config().is_quantized() {
            // Packed weights have shapes of their own.
            return;
        }
        let mut all: BTreeMap<&str, Alike<'_>> = BTreeMap::new();
        for info in self.tensors() {
            let Some(expected) = self.model.architecture.expected_shape(self.config(), &info.name) else { continue };
            let alike = all.entry(expected.template).or_insert_with(|| Alike { wrong: None, further: 0, layers: BTreeMap::new() });
            if let Some((stack, layer, _)) = self.model.architecture.stack_of(&info.name, self.config()) {
                alike.layers.entry(stack).or_default().insert(layer);
            }
            match (expected.fits(&info.shape), &alike.wrong) {
                (true, _) => {}
                (false, Some(_)) => alike.further += 1,
                (false, None) => alike.wrong = Some((info, expected)),
            }
        }
        for Alike { wrong, further, .. } in all.values() {
            let Some((info, expected)) = wrong else { continue };
            let file = self.file_of(&info.name);
            let more = if *further > 0 { format!("{FURTHER}{}", counted(*further, "further layer")) } else { String::new() };
            let message = format!("{file}: {}: expected {expected} by config.json, found {:?}{more}", shorten(&info.name), info.shape);
            self.broken(message, "the model will not load: config.json is of another model, or the tensor is");
        }
        self.gaps(&all);
        self.unknown_vocabulary();
    }

    /// Tensors that some layers lack. Layers of mixtures of experts differ from others, but for their attention.
    fn gaps(&mut self, all: &BTreeMap<&str, Alike<'_>>) {
        let mut numbers: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for info in self.tensors() {
            if let Some((stack, layer, _)) = self.model.architecture.stack_of(&info.name, self.config()) {
                numbers.entry(stack).or_default().insert(layer);
            }
        }
        let has_experts = self.tensors().any(|info| info.name.contains("expert"));
        for (template, alike) in all {
            if has_experts && !template.to_ascii_lowercase().contains("att") {
                continue;
            }
            for (stack, layers) in &alike.layers {
                let lacking: Vec<usize> = numbers[stack].difference(layers).copied().collect();
                let Some(first) = lacking.first() else { continue };
                let rest = template.split_once("{}").map_or("", |(_, rest)| rest);
                let name = shorten(&format!("{stack}{first}{rest}"));
                let message = format!("{name}: expected it in every layer, missing in {} of {}", lacking.len(), numbers[stack].len());
                self.broken(message, "it would be made up at random when the model is loaded: the merge lost it, or a source lacks it");
            }
        }
    }

    /// Of an unknown architecture only this is known: there is a row for each token that config.json counts.
    fn unknown_vocabulary(&mut self) {
        if !self.model.architecture.is_generic() || self.config().is_quantized() {
            return;
        }
        if let (Some((name, rows)), Some(said)) = (self.embedding(), self.config().vocab_size())
            && rows < said
        {
            let file = self.file_of(name);
            let message =
                format!("{file}: {}: expected a row for each token, vocab_size = {said} by config.json, found {rows}", shorten(name));
            self.warning(message, "config.json is of another model, or the embedding was cut");
        }
    }

    /// That layers are numbered without a hole, and are as many as config.json says.
    pub(super) fn layers(&mut self) {
        let architecture = &self.model.architecture;
        let mut stacks: BTreeMap<&str, (BTreeSet<usize>, Option<u64>)> = BTreeMap::new();
        for info in self.tensors() {
            if let Some((stack, layer, count)) = architecture.stack_of(&info.name, self.config()) {
                stacks.entry(stack).or_insert((BTreeSet::new(), count)).0.insert(layer);
            }
        }
        // What names tell of an unknown architecture with several stacks is too little: each may have a count of its own.
        if architecture.is_generic() && stacks.len() != 1 {
            return;
        }
        // DeepSeek's predictors of further tokens lie behind the layers.
        let behind = self.config().get_u64("num_nextn_predict_layers").unwrap_or(0);
        for (stack, (layers, count)) in stacks {
            let last = layers.last().copied().unwrap_or(0);
            let stack = shorten(stack);
            let end = count.map_or(last.saturating_add(1), |count| count.min(1 << 20) as usize);
            let missing: Vec<usize> = (0..end).filter(|layer| !layers.contains(layer)).take(9).collect();
            if !missing.is_empty() && (count.is_some() || !architecture.is_generic()) {
                let listed: Vec<String> = missing.iter().take(8).map(usize::to_string).collect();
                let more = if missing.len() > 8 { " and more" } else { "" };
                let message = format!(
                    "config.json: expected {} in `{stack}`, found {} without number {}{more}",
                    counted(end, "layer"),
                    layers.len(),
                    listed.join(", ")
                );
                let help = "layers that are not there would be made up at random: config.json is of another model, or layers were lost";
                if architecture.is_generic() { self.warning(message, help) } else { self.broken(message, help) }
            }
            let beyond = count.map_or(0, |count| layers.iter().filter(|layer| **layer as u64 >= count.saturating_add(behind)).count());
            if beyond > 0 {
                let message =
                    format!("config.json: expected {} in `{stack}`, found {beyond} more, up to number {last}", counted(end, "layer"));
                self.warning(message, "layers beyond that number are not loaded: set the number of layers");
            }
        }
    }
}
