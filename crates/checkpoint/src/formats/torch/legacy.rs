//! The format of torch before 1.6 (`_use_new_zipfile_serialization=False`): five pickles behind each other (a magic number, the protocol's
//! version, facts of the machine, the state dict, the storages' keys), then for each key the number of elements and the elements.
//!
//! Numbers and elements are little endian on every machine: `THPStorage_writeFileRaw` swaps them on a big-endian one, and torch reads them so
//! whatever `little_endian` among the facts says.

use std::collections::BTreeMap;

use crate::dtype::shorten;
use crate::error::{Error, Result};
use crate::formats::regular_file::Bytes;

use super::pickle::{MAX_PICKLE, Object, Pickle, Stop, Value};
use super::state_dict::{TorchTensor, tensors};
use super::zip::Entry;

/// 0x1950a86a20f9469cfc6c, little endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The one version that there is.
const VERSION: i64 = 1001;
/// What is read first; most files' pickles are shorter.
const FIRST_READ: u64 = 256 << 10;

/// What the pickles say.
struct Head {
    tensors: Vec<TorchTensor>,
    /// Keys of the storages in the file's order, with their elements' size and number.
    storages: Vec<(String, u64, u64)>,
    length: u64,
}

/// The tensors of a legacy file, and where its storages are.
///
/// # Errors
/// The pickles are not those of such a file, or the storages are not where they should be; the message does not name the file.
pub(super) fn read(file: &dyn Bytes) -> Result<(Vec<TorchTensor>, BTreeMap<String, Entry>)> {
    let longest = file.length().min(MAX_PICKLE);
    let mut length = longest.min(FIRST_READ);
    let head = loop {
        match read_head(&file.read_range(0, length, "the pickles")?) {
            Ok(head) => break head,
            // How long the pickles are is known only at their end.
            Err(Stop::Ended) if length < longest => length = longest.min(length * 8),
            Err(stop) => return Err(stop.into_error()),
        }
    };
    let mut storages = BTreeMap::new();
    let mut position = head.length;
    for (key, size, count) in head.storages {
        let mut said = [0; 8];
        said.copy_from_slice(&file.read_range(position, 8, &format!("the length of storage {}", shorten(&key)))?);
        let said = u64::from_le_bytes(said);
        if said != count {
            return Err(Error::new(format!("storage {}: expected {count} elements, found {said} at byte {position}", shorten(&key)))
                .help("the file is damaged: download it again"));
        }
        let (offset, bytes) = (position + 8, count.checked_mul(size));
        let end = bytes.and_then(|bytes| offset.checked_add(bytes)).filter(|end| *end <= file.length());
        let Some(end) = end else {
            return Err(Error::new(format!(
                "storage {}: {count} elements of {size} bytes from byte {offset} on, but the file has only {} bytes",
                shorten(&key),
                file.length()
            ))
            .help("the file is cut off: download it again"));
        };
        storages.insert(key, Entry { offset, length: end - offset });
        position = end;
    }
    if position != file.length() {
        return Err(Error::new(format!("the storages end at byte {position}, but the file has {} bytes", file.length()))
            .help("the file has bytes that belong to no tensor: get it from its source again"));
    }
    Ok((head.tensors, storages))
}

fn read_head(bytes: &[u8]) -> std::result::Result<Head, Stop> {
    let mut position = 0;
    let mut next = || -> std::result::Result<Pickle<'_>, Stop> {
        let pickle = Pickle::read(&bytes[position..])?;
        position += pickle.length;
        Ok(pickle)
    };
    if !matches!(next()?.value, Value::Long(magic) if magic == MAGIC) {
        return Err(Error::new("a pickle, but not one of torch.save: it does not begin with torch's magic number")
            .help("save the weights with torch.save or as safetensors")
            .into());
    }
    match next()?.value {
        Value::Int(VERSION) => {}
        other => return Err(Error::new(format!("expected version {VERSION} of torch's format, found {other:?}")).into()),
    }
    next()?;
    let state = next()?;
    let keys = next()?;
    let tensors = tensors(&state)?;
    let storages = in_order(&state, &keys)?;
    Ok(Head { tensors, storages, length: position as u64 })
}

/// The storages in the order of the list of keys.
fn in_order(state: &Pickle<'_>, keys: &Pickle<'_>) -> Result<Vec<(String, u64, u64)>> {
    let mut known: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for object in &state.objects {
        let Object::Storage(storage) = object else { continue };
        let Some(size) = storage.elements.size() else { continue };
        // The first use of a key says how its elements are stored, as in torch.
        known.entry(storage.key).or_insert((size, storage.count));
    }
    let Some(Object::List(list)) = keys.object(keys.value) else {
        return Err(Error::new("the list of storages is no list"));
    };
    let mut storages = Vec::with_capacity(list.len());
    for &key in list {
        let Value::Text(key) = key else { return Err(Error::new("the list of storages holds something that is no text")) };
        // Taken out, so that a key cannot stand twice.
        let Some((size, count)) = known.remove(key) else {
            return Err(Error::new(format!("storage {} is listed, but used by no tensor, or listed twice", shorten(key))));
        };
        storages.push((key.to_owned(), size, count));
    }
    Ok(storages)
}
