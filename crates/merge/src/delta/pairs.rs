//! Which tensors of two models are compared with each other.

use std::collections::BTreeMap;

use deltaic_checkpoint::{Alignment, Error, ModelReference, Result, SourceNames, TensorInfo, align};

use super::{MAX_KINDS, StudyOptions};
use crate::plan::Source;
use crate::recipe::whole_name;

/// A tensor that was not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCompared {
    /// Its name, as a merge of the two would call it.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A tensor of both models.
#[derive(Debug)]
pub(super) struct Pair {
    pub name: String,
    pub shape: Vec<u64>,
    pub layer: Option<usize>,
    /// Number of its kind.
    pub kind: usize,
    /// Its name in the base and in the model.
    pub own: [String; 2],
}

impl Pair {
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Two opened models and what is compared of them.
#[derive(Debug)]
pub(super) struct Pairs {
    /// Base and model.
    pub sources: [Source; 2],
    /// Before the layers, by layer, behind them.
    pub compared: Vec<Pair>,
    pub not_compared: Vec<NotCompared>,
    /// Names of the kinds, in order of appearance.
    pub kinds: Vec<String>,
    /// The layers that have compared tensors, ascending.
    pub layers: Vec<usize>,
    pub warnings: Vec<String>,
}

/// Opens both models and aligns their names as a merge does.
pub(super) fn find(base: &ModelReference, model: &ModelReference, options: &StudyOptions) -> Result<Pairs> {
    let exclude = options.exclude.iter().map(|text| {
        whole_name(text, options.exclude.len())
            .map_err(|reason| Error::new(format!("`--exclude {text}` has no valid regular expression: {reason}")))
    });
    let exclude: Vec<regex::Regex> = exclude.collect::<Result<_>>()?;
    let folders = [(options.working_directory.clone(), "the working directory")];
    let sources = [Source::open(base, &folders)?, Source::open(model, &folders)?];
    let mut warnings = warnings(&sources)?;
    let names = [true, false].map(|is_base| {
        let source = &sources[usize::from(!is_base)];
        SourceNames::of(is_base, &source.architecture, &*source.tensors)
    });
    let alignment = align(&names)?;
    let (mut compared, mut not_compared) = (Vec::new(), Vec::new());
    let unused = exclude.iter().zip(&options.exclude);
    let unused = unused.filter(|(pattern, _)| !alignment.tensors.iter().any(|tensor| pattern.is_match(&tensor.name)));
    warnings.extend(unused.map(|(_, text)| format!("`--exclude {text}` matches no tensor: it has to match whole names")));
    for tensor in &alignment.tensors {
        let excluded = exclude.iter().any(|pattern| pattern.is_match(&tensor.name));
        match if excluded { Err("excluded".to_owned()) } else { pair(&sources, &alignment, &tensor.name) } {
            Ok((own, shape)) => {
                let layer = alignment.architecture.layer_of(&tensor.name);
                compared.push(Pair { name: tensor.name.clone(), shape, layer, kind: 0, own });
            }
            Err(reason) => not_compared.push(NotCompared { name: tensor.name.clone(), reason }),
        }
    }
    if compared.is_empty() {
        return Err(Error::new(format!("{base} and {model} have no floating tensor of one name and shape that could be compared"))
            .help("`deltaic inspect MODEL` shows a model's tensors; is this its base?"));
    }
    // The tensors of a layer one after the other.
    compared.sort_by_cached_key(|pair| (alignment.architecture.position(&pair.name), pair.name.clone()));
    let kinds = number_kinds(&alignment, &mut compared);
    let mut layers: Vec<usize> = compared.iter().filter_map(|pair| pair.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    Ok(Pairs { sources, compared, not_compared, kinds, layers, warnings })
}

/// What is said of the two as wholes; quantised weights mean nothing without their scales.
fn warnings(sources: &[Source; 2]) -> Result<Vec<String>> {
    if let Some(source) = sources.iter().find(|source| source.config.is_quantized()) {
        return Err(Error::new(format!(
            "{}: config.json has a quantization_config: quantised weights cannot be compared",
            source.reference
        ))
        .help("compare the unquantised model"));
    }
    let [base, model] = sources;
    let mut warnings = Vec::new();
    if !model.architecture.same_family(&base.architecture) {
        let kind = |source: &Source| source.architecture.model_type().unwrap_or("an unnamed architecture").to_owned();
        warnings.push(format!("{} is {}, but {} is {}", model.reference, kind(model), base.reference, kind(base)));
    }
    for located in sources.iter().flat_map(|source| std::iter::once(&source.model).chain(&source.adapter)) {
        if let Some(revision) = &located.ignored_revision {
            warnings.push(format!("{}: a folder has no revisions; `@{revision}` is ignored", located.path.display()));
        }
    }
    Ok(warnings)
}

/// The tensor's names in both models and its shape, or why it is not compared.
fn pair(sources: &[Source; 2], alignment: &Alignment, name: &str) -> std::result::Result<([String; 2], Vec<u64>), String> {
    let architecture = &alignment.architecture;
    if architecture.is_buffer(name) {
        return Err("a buffer: such are never merged".to_owned());
    }
    // A head that a model does not store is lent by its embedding, as in a merge.
    let partner = architecture.tied_partner(name);
    let stored = |name: &str, i: usize| alignment.get(name).and_then(|tensor| tensor.sources[i].clone());
    let own = |i: usize| stored(name, i).or_else(|| stored(partner.as_deref()?, i));
    let [Some(base), Some(model)] = [own(0), own(1)] else {
        return Err(if own(0).is_some() { "only the base has it" } else { "only the model has it" }.to_owned());
    };
    let info = |own: &str, i: usize| -> TensorInfo { sources[i].tensors.tensors()[own].clone() };
    let (of_base, of_model) = (info(&base, 0), info(&model, 1));
    if let Some(info) = [&of_base, &of_model].into_iter().find(|info| !info.dtype.is_float()) {
        return Err(format!("not floating: {}", info.dtype.torch_name()));
    }
    if of_base.shape != of_model.shape {
        return Err(format!("shape {:?} in the base, {:?} in the model", of_base.shape, of_model.shape));
    }
    Ok(([base, model], of_base.shape))
}

/// Numbers the kinds in order of appearance; where there are too many, the smallest are one.
fn number_kinds(alignment: &Alignment, compared: &mut [Pair]) -> Vec<String> {
    let kind_of = |pair: &Pair| alignment.architecture.kind_of(&pair.name);
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    compared.iter().for_each(|pair| *sizes.entry(kind_of(pair)).or_default() += pair.elements());
    let mut by_size: Vec<(&String, u64)> = sizes.iter().map(|(kind, size)| (kind, *size)).collect();
    by_size.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let told_apart = if by_size.len() > MAX_KINDS { MAX_KINDS - 1 } else { MAX_KINDS };
    let known: std::collections::BTreeSet<&String> = by_size.iter().take(told_apart).map(|(kind, _)| *kind).collect();
    let mut kinds: Vec<String> = Vec::new();
    for pair in compared {
        let kind = kind_of(pair);
        let kind = if known.contains(&kind) { kind } else { "other kinds".to_owned() };
        pair.kind = kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            kinds.push(kind);
            kinds.len() - 1
        });
    }
    kinds
}
