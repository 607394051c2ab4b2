//! `deltaic inspect`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{AdaptedModel, Checkpoint, Config, ModelReference, Result, TensorSource, WeightFile, locate};

use crate::messages::print;
use crate::{arguments, tables};

/// What is shown of one model.
struct Model {
    name: String,
    place: PathBuf,
    /// The format of its weights; of an adapter and its base, both.
    format: String,
    architecture: Option<String>,
    layers: Option<u64>,
    config: Option<Config>,
    tensors: Box<dyn TensorSource>,
}

pub fn run(arguments: &arguments::Inspect) -> Result<()> {
    let models: Vec<Model> = arguments.models.iter().map(|name| open(name)).collect::<Result<_>>()?;
    let text = if arguments.json {
        format!("{:#}\n", serde_json::Value::from_iter(models.iter().map(|model| as_json(model, arguments.summary))))
    } else {
        models.iter().map(|model| as_text(model, arguments.summary)).collect::<Vec<_>>().join("\n")
    };
    print(&text);
    Ok(())
}

fn open(name: &str) -> Result<Model> {
    let path = Path::new(name);
    if path.is_file() {
        let tensors = Box::new(WeightFile::open(path)?);
        let format = tensors.format().to_owned();
        return Ok(Model {
            name: name.to_owned(),
            place: path.to_owned(),
            format,
            architecture: None,
            layers: None,
            config: None,
            tensors,
        });
    }
    let folders = [(PathBuf::from("."), "the working directory")];
    let reference = ModelReference::parse(name)?;
    let located = locate(&reference.path, reference.revision.as_deref(), &folders)?;
    let checkpoint = Checkpoint::open(&located.path)?;
    let architecture = checkpoint.config.architectures().first().cloned().or_else(|| checkpoint.config.model_type());
    let layers = checkpoint.architecture.layer_count(&checkpoint.config);
    let config = Some(checkpoint.config.clone());
    let mut format = checkpoint.files().first().map_or("", WeightFile::format).to_owned();
    let tensors: Box<dyn TensorSource> = match &reference.lora {
        None => Box::new(checkpoint),
        Some((lora, revision)) => {
            let adapted = AdaptedModel::new(checkpoint, &locate(lora, revision.as_deref(), &folders)?.path)?;
            format += &format!(", adapter {}", adapted.file().format());
            Box::new(adapted)
        }
    };
    Ok(Model { name: name.to_owned(), place: located.path, format, architecture, layers, config, tensors })
}

impl Model {
    fn parameters(&self) -> u64 {
        self.tensors.tensors().values().map(|tensor| tensor.elements()).sum()
    }

    fn bytes(&self) -> u64 {
        self.tensors.tensors().values().map(|tensor| tensor.elements() * tensor.dtype.size() as u64).sum()
    }

    /// Tensors and parameters by dtype.
    fn dtypes(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let mut dtypes = BTreeMap::new();
        for tensor in self.tensors.tensors().values() {
            let (tensors, parameters) = dtypes.entry(tensor.dtype.torch_name()).or_insert((0, 0));
            *tensors += 1;
            *parameters += tensor.elements();
        }
        dtypes
    }

    fn vocabulary(&self) -> Option<u64> {
        self.config.as_ref().and_then(Config::vocab_size)
    }
}

fn as_text(model: &Model, summary: bool) -> String {
    let mut text = format!("{}\n  lies at         {}\n", model.name, model.place.display());
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!("  {name:15} {value}\n");
        }
    };
    line("format", Some(model.format.clone()));
    line("architecture", model.architecture.clone());
    line("layers", model.layers.map(|layers| layers.to_string()));
    line("vocabulary", model.vocabulary().map(|size| size.to_string()));
    line("parameters", Some(format!("{} ({})", tables::parameters(model.parameters()), model.parameters())));
    line("bytes", Some(format!("{} ({})", tables::bytes(model.bytes()), model.bytes())));
    for (dtype, (tensors, parameters)) in model.dtypes() {
        line(dtype, Some(format!("{tensors} tensors, {} parameters", tables::parameters(parameters))));
    }
    if !summary {
        text += "\n";
        text += &tables::table(
            &["tensor", "dtype", "shape", "parameters", "bytes"],
            &[3, 4],
            model.tensors.tensors().values().map(|tensor| {
                let bytes = tensor.elements() * tensor.dtype.size() as u64;
                let dtype = tensor.dtype.torch_name().to_owned();
                vec![tensor.name.clone(), dtype, tables::shape(&tensor.shape), tensor.elements().to_string(), tables::bytes(bytes)]
            }),
        );
    }
    text
}

fn as_json(model: &Model, summary: bool) -> serde_json::Value {
    let tensors: Vec<_> = model
        .tensors
        .tensors()
        .values()
        .map(|tensor| serde_json::json!({"name": tensor.name, "dtype": tensor.dtype.torch_name(), "shape": tensor.shape}))
        .collect();
    let dtypes: serde_json::Map<_, _> = model
        .dtypes()
        .into_iter()
        .map(|(dtype, (tensors, parameters))| (dtype.to_owned(), serde_json::json!({"tensors": tensors, "parameters": parameters})))
        .collect();
    let mut value = serde_json::json!({
        "model": model.name,
        "path": model.place,
        "format": model.format,
        "architecture": model.architecture,
        "layers": model.layers,
        "vocabulary": model.vocabulary(),
        "parameters": model.parameters(),
        "bytes": model.bytes(),
        "dtypes": dtypes,
    });
    if !summary {
        value["tensors"] = tensors.into();
    }
    value
}
