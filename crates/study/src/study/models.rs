//! A study's models, found and known by their content.

use std::path::PathBuf;

use deltaic_checkpoint::{Error, ModelReference, OpenedModel, Result};
use deltaic_eval::LocalSource;

use super::schema::Study;

/// Where a study's files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder of the study's own file, from which paths of task files start.
    pub study: PathBuf,
    /// The folder from which models' paths start.
    pub models: PathBuf,
    /// The folder from which data's paths start.
    pub data: PathBuf,
}

impl Places {
    fn model_folders(&self) -> [(PathBuf, &'static str); 1] {
        [(self.models.clone(), "the folder of models")]
    }
}

/// A study's models, as they were found.
#[derive(Debug)]
pub struct Models {
    base: Known,
    models: Vec<Known>,
}

/// A model that was found.
#[derive(Debug)]
struct Known {
    reference: String,
    id: String,
    parameters: u64,
}

impl Models {
    /// Finds the models and looks at their files.
    ///
    /// # Errors
    /// One is not there or cannot be read.
    pub fn find(study: &Study, places: &Places) -> Result<Self> {
        let find = |reference: &str| {
            let opened = OpenedModel::open(&ModelReference::parse(reference)?, &places.model_folders())?;
            let parameters = opened.tensors.tensors().values().map(|tensor| tensor.elements()).sum();
            Ok(Known { reference: reference.to_owned(), id: opened.id(), parameters })
        };
        let advise = |error: Error| error.and_help("--models DIR is the folder from which the study's models are looked for");
        let base = find(&study.base).map_err(advise)?;
        let models = study.models.iter().map(|model| find(&model.model)).collect::<Result<_>>().map_err(advise)?;
        Ok(Self { base, models })
    }

    /// Opens the base (None) or a model, to be run.
    ///
    /// # Errors
    /// A file of it breaks its format's rules.
    pub fn open(&self, model: Option<usize>, places: &Places) -> Result<LocalSource> {
        LocalSource::open(&ModelReference::parse(&self.known(model).reference)?, &places.model_folders())
    }

    fn known(&self, model: Option<usize>) -> &Known {
        model.map_or(&self.base, |model| &self.models[model])
    }

    /// The reference of the base (None) or a model, relative to the folder of models.
    pub fn reference(&self, model: Option<usize>) -> String {
        self.known(model).reference.clone()
    }

    /// The id of its content.
    pub fn id(&self, model: Option<usize>) -> String {
        self.known(model).id.clone()
    }

    /// How many parameters the base has.
    pub fn parameters(&self) -> u64 {
        self.base.parameters
    }
}
