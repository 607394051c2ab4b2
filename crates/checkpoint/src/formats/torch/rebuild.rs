//! What the known names make of their arguments: `torch._utils._rebuild_*` and the persistent ids of storages, as data.

use crate::dtype::shorten;
use crate::error::{Error, Result};
use crate::tensor::MAX_DIMENSIONS;

use super::globals::{ElementType, Global};
use super::pickle::{Object, Storage, Tensor, Value, object};

/// The result of a call.
pub(super) enum Made<'a> {
    /// One of its arguments.
    Same(Value<'a>),
    /// A new object.
    New(Object<'a>),
}

/// What `global(*arguments)` makes.
///
/// # Errors
/// The name is not one that is called, or the arguments are not those that torch writes.
pub(super) fn make<'a>(objects: &[Object<'a>], global: Global, arguments: &[Value<'a>]) -> Result<Made<'a>> {
    match (global, arguments) {
        (Global::OrderedDict, []) => Ok(Made::New(Object::Dict(Vec::new()))),
        (Global::OrderedDict, &[pairs]) => Ok(Made::New(Object::Dict(listed_pairs(objects, pairs)?))),
        (Global::Size, &[lengths]) if matches!(object(objects, lengths), Some(Object::Tuple(_))) => Ok(Made::Same(lengths)),
        (Global::RebuildTensor { version }, arguments) => Ok(Made::New(Object::Tensor(Box::new(tensor(objects, version, arguments)?)))),
        // The rest says whether it is trained, and attributes of its own.
        (Global::RebuildParameter, &[data, _, _, ..]) => match object(objects, data) {
            Some(Object::Tensor(_)) => Ok(Made::Same(data)),
            _ => Err(Error::new("a parameter whose data are no tensor")),
        },
        (
            Global::RebuildFromType,
            &[
                Value::Global(made_by @ (Global::RebuildTensor { .. } | Global::RebuildParameter)),
                Value::Global(Global::TensorClass),
                of,
                _,
            ],
        ) => match object(objects, of) {
            Some(Object::Tuple(arguments)) => make(objects, made_by, arguments),
            _ => Err(Error::new("a tensor without a tuple of arguments")),
        },
        _ => Err(Error::new("the pickle calls a name that is known, but not with what torch gives it")),
    }
}

/// `OrderedDict([(key, value), ...])`, as Python 2 pickles it.
fn listed_pairs<'a>(objects: &[Object<'a>], list: Value<'a>) -> Result<Vec<(Value<'a>, Value<'a>)>> {
    let wrong = || Error::new("a dictionary made of something that is no list of pairs");
    let Some(Object::List(pairs)) = object(objects, list) else { return Err(wrong()) };
    pairs
        .iter()
        .map(|&pair| match object(objects, pair) {
            Some(Object::Tuple(pair) | Object::List(pair)) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err(wrong()),
        })
        .collect()
}

/// `_rebuild_tensor(storage, offset, size, stride)`; version 2 adds requires_grad, hooks and perhaps metadata, version 3 the dtype before
/// the metadata.
fn tensor<'a>(objects: &[Object<'a>], version: u8, arguments: &[Value<'a>]) -> Result<Tensor<'a>> {
    let (count, metadata) = match version {
        1 => (4, None),
        2 => (6, arguments.get(6)),
        _ => (7, arguments.get(7)),
    };
    let (Some(&[storage, offset, size, stride]), true) = (arguments.first_chunk(), (count..=count + 1).contains(&arguments.len())) else {
        return Err(Error::new(format!("a tensor of {} arguments, expected {count}", arguments.len())));
    };
    let Some(Object::Storage(storage)) = object(objects, storage) else {
        return Err(Error::new("a tensor whose storage is none"));
    };
    let storage = **storage;
    let elements = match (version, arguments.get(6)) {
        (1 | 2, _) => storage.elements,
        (_, Some(&Value::Global(Global::Elements(elements)))) if elements != ElementType::Untyped => elements,
        _ => return Err(Error::new("a tensor whose dtype is none")),
    };
    // Metadata say that the elements are to be read conjugated or negated.
    let marked = match metadata.map(|&metadata| (metadata, object(objects, metadata))) {
        None | Some((Value::None, _)) => false,
        Some((_, Some(Object::Dict(entries)))) => entries.iter().any(|(_, value)| !matches!(value, Value::Bool(false))),
        _ => true,
    };
    let (shape, strides) = (lengths(objects, size, "length")?, lengths(objects, stride, "stride")?);
    if shape.len() != strides.len() {
        return Err(Error::new(format!("a tensor of {} dimensions with {} strides", shape.len(), strides.len())));
    }
    Ok(Tensor { storage, elements, offset: number(offset, "offset")?, shape, strides, marked })
}

/// A tuple or list of numbers that are not negative.
fn lengths<'a>(objects: &[Object<'a>], value: Value<'a>, what: &str) -> Result<Vec<u64>> {
    match object(objects, value) {
        Some(Object::Tuple(values) | Object::List(values)) if values.len() > MAX_DIMENSIONS => {
            Err(Error::new(format!("a tensor of {} dimensions, expected at most {MAX_DIMENSIONS}", values.len())))
        }
        Some(Object::Tuple(values) | Object::List(values)) => values.iter().map(|&value| number(value, what)).collect(),
        _ => Err(Error::new(format!("the {what}s of a tensor are no tuple"))),
    }
}

fn number(value: Value<'_>, what: &str) -> Result<u64> {
    match value {
        Value::Int(number) if number >= 0 => Ok(number as u64),
        Value::Int(number) => Err(Error::new(format!("a negative {what}: {number}")).help("torch writes none: do not trust this file")),
        _ => Err(Error::new(format!("a {what} that is no number of at most 63 bits"))),
    }
}

/// The storage that a persistent id describes: `('storage', type, key, location, count)`, in the legacy format also
/// `(view's key, offset, count)` or None.
///
/// # Errors
/// It is something else.
pub(super) fn storage<'a>(objects: &[Object<'a>], id: Value<'a>) -> Result<Storage<'a>> {
    let Some(Object::Tuple(parts)) = object(objects, id) else {
        return Err(Error::new("a persistent id that is no tuple"));
    };
    match parts[..] {
        [Value::Text("storage"), Value::Global(Global::Elements(elements)), Value::Text(key), _, count, ref rest @ ..]
            if rest.len() <= 1 =>
        {
            let view = match rest.first().map(|&view| (view, object(objects, view))) {
                None | Some((Value::None, _)) => None,
                Some((_, Some(Object::Tuple(parts)))) if parts.len() == 3 => {
                    Some((number(parts[1], "offset")?, number(parts[2], "count")?))
                }
                _ => return Err(Error::new(format!("the storage {}: a view that is none", shorten(key)))),
            };
            Ok(Storage { elements, key, count: number(count, "count")?, view })
        }
        [Value::Text("module"), ..] => Err(Error::new("the file holds a whole module of a program, not the weights alone")
            .help("load it in torch and save its weights: `torch.save(model.state_dict(), FILE)`")),
        _ => Err(Error::new("a persistent id that is no storage")),
    }
}
