//! The tensors of a state dict: a dictionary of tensors by name.

use crate::dtype::{DType, shorten};
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;

use super::globals::ElementType;
use super::pickle::{MAX_PICKLE, Object, Pickle, Stop, Tensor, Value};

/// A tensor of a file of `torch.save`: a view of a storage. All its elements lie within the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchTensor {
    /// Name, dtype and shape.
    pub info: TensorInfo,
    /// The storage's key. Several tensors may share one.
    pub storage: String,
    /// Bytes of the whole storage.
    pub storage_bytes: u64,
    /// The first element, in elements from the storage's beginning.
    pub offset: u64,
    /// For each dimension, how many elements of the storage its next index is away.
    pub strides: Vec<u64>,
}

/// Reads the pickle of a state dict (`data.pkl`) and checks it; executes nothing. The file's length is not known here, so that the
/// storages' sizes are what the pickle says.
///
/// # Errors
/// It is no pickle, asks for a name that no file of tensors needs, or is no dictionary of dense tensors; the message gives the place, but
/// not the file.
pub fn parse_torch_pickle(bytes: &[u8]) -> Result<Vec<TorchTensor>> {
    if bytes.len() as u64 > MAX_PICKLE {
        return Err(Error::new(format!("a pickle of {} bytes; at most {MAX_PICKLE} are read", bytes.len())));
    }
    let pickle = Pickle::read(bytes).map_err(Stop::into_error)?;
    if pickle.length != bytes.len() {
        return Err(Error::new(format!("{} bytes follow the end of the pickle", bytes.len() - pickle.length)));
    }
    tensors(&pickle)
}

/// The tensors of a state dict, in its order. Plain values (numbers, texts, None) are passed over: they are no weights.
pub(super) fn tensors(pickle: &Pickle<'_>) -> Result<Vec<TorchTensor>> {
    const SAVE: &str = "save the weights alone: `torch.save(model.state_dict(), FILE)`, or as safetensors";
    let entries = match pickle.object(pickle.value) {
        Some(Object::Dict(entries)) => entries,
        other => return Err(Error::new(format!("expected a state dict (tensors by name), found {}", kind(other))).help(SAVE)),
    };
    let mut tensors = Vec::new();
    for &(key, value) in entries {
        let Value::Text(name) = key else {
            return Err(Error::new("expected a state dict (tensors by name), found a key that is no text").help(SAVE));
        };
        let Value::Object(_) = value else { continue };
        let (what, help) = match pickle.object(value) {
            Some(Object::Tensor(tensor)) => {
                tensors.push(check(name, tensor)?);
                continue;
            }
            Some(Object::Dict(_)) if ["state_dict", "model", "module", "model_state_dict"].contains(&name) => (
                "a dictionary: the file is a trainer's checkpoint with the weights under this key",
                format!("save the weights alone: `torch.save(torch.load(FILE)['{name}'], 'pytorch_model.bin')`"),
            ),
            other => (kind(other), SAVE.to_owned()),
        };
        return Err(Error::new(format!("{}: expected a tensor, found {what}", shorten(name))).help(help));
    }
    if tensors.is_empty() {
        return Err(Error::new(format!("no tensors: the dictionary has {} entries, none of which is one", entries.len())).help(SAVE));
    }
    Ok(tensors)
}

fn kind(object: Option<&Object<'_>>) -> &'static str {
    match object {
        None => "a plain value",
        Some(Object::Tuple(_) | Object::List(_)) => "a list",
        Some(Object::Dict(_)) => "a dictionary",
        Some(Object::Storage(_)) => "a storage without a tensor",
        Some(Object::Tensor(_)) => "a tensor",
    }
}

/// Checks dtype, shape and bounds of one tensor.
fn check(name: &str, tensor: &Tensor<'_>) -> Result<TorchTensor> {
    let shown = shorten(name);
    let dtype = dtype(tensor).map_err(|error| {
        let message = format!("{shown}: {}", error.message());
        error.with_message(message)
    })?;
    let (info, bytes) = TensorInfo::checked(name.to_owned(), dtype, tensor.shape.clone())?;
    let storage = tensor.storage;
    let size = dtype.size() as u64;
    let unit = storage.elements.size().unwrap_or(size);
    let too_large = || Error::new(format!("{shown}: its storage has more than 2^64 bytes"));
    let storage_bytes = storage.count.checked_mul(unit).ok_or_else(too_large)?;
    // A view of torch before 0.4 narrows the storage.
    let (first, count) = storage.view.unwrap_or((0, storage.count));
    let view_end = first.checked_add(count).and_then(|end| end.checked_mul(unit));
    if view_end.is_none_or(|end| end > storage_bytes) {
        return Err(out_of_bounds(&info, format!("a view of {count} elements from {first} on"), &format!("{} elements", storage.count)));
    }
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.strides)
        .try_fold(tensor.offset, |last, (&length, &stride)| last.checked_add(length.saturating_sub(1).checked_mul(stride)?));
    let available = count * unit / size;
    if bytes > 0 && last.is_none_or(|last| last >= available) {
        let strides = shorten(&format!("{:?}", tensor.strides));
        return Err(out_of_bounds(&info, format!("offset {} and strides {strides}", tensor.offset), &format!("{available} elements")));
    }
    let offset = if bytes > 0 { first * unit / size + tensor.offset } else { 0 };
    Ok(TorchTensor { info, storage: storage.key.to_owned(), storage_bytes, offset, strides: tensor.strides.clone() })
}

fn dtype(tensor: &Tensor<'_>) -> Result<DType> {
    let convert = |error: Error| error.help("convert it to one of float, integer or bool in torch, and save it again");
    if tensor.marked {
        return Err(convert(Error::new("a tensor that is marked as conjugated or negated is not read")));
    }
    match tensor.elements {
        ElementType::Known(dtype) => match tensor.storage.elements {
            ElementType::Unread(name) => Err(convert(Error::new(format!("a storage of dtype {name} is not read")))),
            _ => Ok(dtype),
        },
        ElementType::Unread(name) => Err(convert(Error::new(format!("the dtype {name} is not read")))),
        ElementType::Untyped => Ok(DType::U8),
    }
}

fn out_of_bounds(info: &TensorInfo, view: String, storage: &str) -> Error {
    let (name, shape) = (shorten(&info.name), shorten(&format!("{:?}", info.shape)));
    Error::new(format!("{name}: shape {shape} with {view} reaches beyond its storage of {storage}"))
        .help("the file is damaged, or made to mislead: get it from its source again")
}
