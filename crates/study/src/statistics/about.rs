//! What a file of statistics says of itself.

use std::collections::BTreeMap;
use std::path::Path;

use deltaic_checkpoint::{Error, Result, SafetensorsFile, TensorSource};
use deltaic_merge::recipe::{FisherBatch, FisherSettings, GramSettings, Padding, Targets};

use super::examples::Examples;
use super::model::StatisticsModel;

const KIND: &str = "deltaic.statistics";

/// Which statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatisticsKind {
    /// Squared gradients, for Fisher merging: a tensor for each parameter, of its shape.
    Fisher,
    /// Gram matrices of linear layers' inputs, for RegMean: `NAME.weight` `[in, in]`.
    Gram,
}

impl StatisticsKind {
    /// As it is written: `fisher` or `gram`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fisher => "fisher",
            Self::Gram => "gram",
        }
    }
}

/// Which statistics are to be made, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StatisticsSettings {
    /// The Fisher information.
    Fisher(FisherSettings),
    /// Gram matrices.
    Gram(GramSettings),
}

impl StatisticsSettings {
    /// Which statistics.
    pub fn kind(&self) -> StatisticsKind {
        match self {
            Self::Fisher(_) => StatisticsKind::Fisher,
            Self::Gram(_) => StatisticsKind::Gram,
        }
    }
}

/// What a file of statistics says of itself, as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Which statistics.
    pub kind: StatisticsKind,
    /// How many examples they were made from.
    pub examples: Option<usize>,
    /// All `deltaic.*` metadata by key without `deltaic.`: `examples`, `batch`, `targets`, `padding`, `model`, `head`, `data`.
    pub all: BTreeMap<String, String>,
}

impl About {
    /// What the metadata of a file (`place`, for messages) say; None where they say nothing of statistics, as in files of other programs.
    ///
    /// # Errors
    /// They name a kind that there is none of.
    pub fn of(metadata: &BTreeMap<String, String>, place: &Path) -> Result<Option<Self>> {
        let Some(name) = metadata.get(KIND) else { return Ok(None) };
        let kind = [StatisticsKind::Fisher, StatisticsKind::Gram].into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| {
            Error::new(format!("{}: {KIND}: expected fisher or gram, found {}", place.display(), deltaic_checkpoint::shorten(name)))
                .help("it was written by another version of deltaic, or is no file of statistics")
        })?;
        let own = metadata.iter().filter_map(|(key, value)| Some((key.strip_prefix("deltaic.")?.to_owned(), value.clone())));
        let all: BTreeMap<String, String> = own.collect();
        Ok(Some(Self { kind, examples: all.get("examples").and_then(|examples| examples.parse().ok()), all }))
    }
}

/// Opens a file of statistics; what it says of itself is None where another program wrote it.
///
/// # Errors
/// It is no safetensors file, or names a kind of statistics that there is none of.
pub fn open_statistics(path: &Path) -> Result<(SafetensorsFile, Option<About>)> {
    let file = SafetensorsFile::open(path)?;
    let about = About::of(file.metadata(), path)?;
    Ok((file, about))
}

/// What a file will say of itself. It decides every byte of it, so it also tells the partial work of one run from another's.
pub(crate) fn metadata(model: &StatisticsModel, examples: &Examples, settings: &StatisticsSettings) -> BTreeMap<String, String> {
    let mut all = vec![
        ("examples", examples.list.len().to_string()),
        ("model", model.id.clone()),
        ("data", examples.digest().to_owned()),
        ("statistics", settings.kind().name().to_owned()),
    ];
    all.extend(model.head.clone().map(|head| ("head", head)));
    match settings {
        StatisticsSettings::Fisher(fisher) => {
            all.push((
                "batch",
                match fisher.batch {
                    FisherBatch::Example => "example".to_owned(),
                    FisherBatch::Sum { size } => format!("sum:{size}"),
                },
            ));
            if model.is_decoder() {
                all.push((
                    "targets",
                    match fisher.targets {
                        Targets::Empirical => "empirical".to_owned(),
                        Targets::Sampled { seed } => format!("sampled:{seed}"),
                    },
                ));
            }
        }
        StatisticsSettings::Gram(GramSettings { padding: Padding::Exclude, .. }) => all.push(("padding", "exclude".to_owned())),
        StatisticsSettings::Gram(GramSettings { padding: Padding::Include, batch_size }) => {
            all.push(("padding", "include".to_owned()));
            all.extend(batch_size.map(|size| ("batch", size.to_string())));
        }
    }
    all.into_iter().map(|(key, value)| (format!("deltaic.{key}"), value)).collect()
}
