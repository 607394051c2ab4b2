//! Reader of what `torch.save` writes of a state dict: zip archives (torch 1.6 and later) and the legacy format before.
//!
//! A pickle says which tensors there are; it is read by a machine that executes nothing ([`pickle`]). The weights are read by `pread`, like
//! those of safetensors. Opening reads the pickle and the archive's directory only.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::dtype::shorten;
use crate::error::{Error, Result};
use crate::formats::regular_file::AGAIN;
use crate::formats::regular_file::{Bytes, RegularFile};
use crate::tensor::{TensorInfo, TensorSource, Window};

mod globals;
mod legacy;
mod pickle;
mod rebuild;
mod state_dict;
mod view;
mod zip;

pub use state_dict::{TorchTensor, parse_torch_pickle};
use view::View;
use zip::Entry;

/// Tensors that repeat elements (`expand`) may have more bytes than their file; not more than this, or the file, whichever is more.
const MAX_EXPANDED: u64 = 16 << 20;

/// An opened file of `torch.save`. Its structure has been checked; tensors are read by `pread`, so any number of threads may read at once.
/// Tensors that share a storage each have all their elements.
#[derive(Debug)]
pub struct TorchFile {
    path: PathBuf,
    file: RegularFile,
    structure: Structure,
    metadata: BTreeMap<String, String>,
}

/// What a file holds, and where.
#[derive(Debug)]
struct Structure {
    format: &'static str,
    tensors: BTreeMap<String, TensorInfo>,
    views: BTreeMap<String, View>,
    big_endian: bool,
}

impl TorchFile {
    /// Opens a file and checks its structure; executes nothing.
    ///
    /// # Errors
    /// The file cannot be read, breaks a rule of the format, or holds something else than tensors; the message names the file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = RegularFile::open(path)?;
        let structure = read_structure(&file).map_err(|error| error.within(path).or_help(AGAIN))?;
        Ok(Self { path: path.to_owned(), file, structure, metadata: BTreeMap::new() })
    }

    /// The format's name: `PyTorch (zip)` or `PyTorch (legacy)`.
    pub fn format(&self) -> &'static str {
        self.structure.format
    }

    /// The file's path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, opened for reading.
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// Reads elements of a tensor from `start` on, in row-major order and little endian, in its own dtype, until `bytes` is full.
    ///
    /// # Errors
    /// The tensor does not exist, `bytes` holds no whole number of elements or more than there are, or reading fails.
    pub fn read_into(&self, name: &str, start: u64, bytes: &mut [u8]) -> Result<()> {
        let (Some(info), Some(view)) = (self.structure.tensors.get(name), self.structure.views.get(name)) else {
            return Err(self.unknown(name));
        };
        let count = info.count_of(&self.path, start, bytes.len())?;
        let what = format!("{}, {count} elements from element {start} on", shorten(name));
        let read = view.read(start, bytes, &mut |offset, bytes| self.file.read_at(bytes, offset, &what));
        read.map_err(|error| error.within(&self.path))?;
        if self.structure.big_endian {
            bytes.chunks_exact_mut(info.dtype.size()).for_each(<[u8]>::reverse);
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> Error {
        Error::new(format!("{}: {}: the file has no such tensor", self.path.display(), shorten(name)))
    }
}

impl TensorSource for TorchFile {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.structure.tensors
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        let info = self.structure.tensors.get(name).ok_or_else(|| self.unknown(name))?;
        window.fill(info, &self.path, start, count, |bytes| self.read_into(name, start, bytes))
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn file_paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}

/// Reads a whole file of `torch.save` in memory and checks its structure; the tensors by name.
///
/// # Errors
/// As [`TorchFile::open`], without the file's name.
pub fn parse_torch_file(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>> {
    Ok(read_structure(&bytes)?.tensors)
}

/// Reads what a file holds, by its first bytes.
fn read_structure(file: &dyn Bytes) -> Result<Structure> {
    let start = file.read_range(0, file.length().min(512), "the first bytes")?;
    let begins = |magic: &[u8]| start.starts_with(magic);
    let other = |what: &str, help: &str| Err(Error::new(format!("expected a file of torch.save, found {what}")).help(help));
    match &start[..] {
        _ if begins(b"PK\x03\x04") || begins(b"PK\x05\x06") => {
            let (tensors, storages, big_endian) = read_archive(file)?;
            Structure::new("PyTorch (zip)", tensors, &storages, big_endian, file.length())
        }
        _ if begins(b"\x80") => {
            let (tensors, storages) = legacy::read(file)?;
            Structure::new("PyTorch (legacy)", tensors, &storages, false, file.length())
        }
        [] => other("an empty file", "the file was never fetched: download it again"),
        _ if begins(b"version ") => other("a Git LFS pointer", "fetch the weights with `git lfs pull`, or download the file again"),
        _ if begins(b"GGUF") => other("a GGUF file", "fetch or convert the weights as safetensors"),
        _ if start.get(257..262) == Some(b"ustar") => {
            other("a tar archive of torch 0.1", "load it in torch and save it again: this format is not read")
        }
        _ if start.get(8) == Some(&b'{') => other("a safetensors file", "give the file its ending: .safetensors"),
        _ => other("neither a zip archive nor a pickle", "the file is damaged or of another format: get it from its source again"),
    }
}

/// The tensors of a zip archive, its storages by key, and whether they are big endian.
fn read_archive(file: &dyn Bytes) -> Result<(Vec<TorchTensor>, BTreeMap<String, Entry>, bool)> {
    let entries = zip::entries(file)?;
    let mut pickles = entries.iter().filter_map(|(name, entry)| Some((name.strip_suffix("data.pkl")?, *entry)));
    let (Some((prefix, pickle)), None) = (pickles.next(), pickles.next()) else {
        return Err(Error::new("the zip archive does not hold one `data.pkl`, so it is not of torch.save"));
    };
    if entries.keys().any(|name| name.strip_prefix(prefix).is_some_and(|rest| rest == "constants.pkl" || rest.starts_with("code/"))) {
        return Err(Error::new("expected the weights alone, found a TorchScript archive, which is a program")
            .help("save the weights alone: `torch.save(model.state_dict(), FILE)`, or as safetensors"));
    }
    if pickle.length > pickle::MAX_PICKLE {
        return Err(Error::new(format!("{prefix}data.pkl has {} bytes; at most {} are read", pickle.length, pickle::MAX_PICKLE)));
    }
    let bytes = file.read_range(pickle.offset, pickle.length, "data.pkl")?;
    let tensors = parse_torch_pickle(&bytes)?;
    let big_endian = match entries.get(&format!("{prefix}byteorder")) {
        None => false,
        Some(entry) => match &file.read_range(entry.offset, entry.length.min(16), "the byte order")?[..] {
            b"little" => false,
            b"big" => true,
            _ => return Err(Error::new(format!("{prefix}byteorder: expected `little` or `big`"))),
        },
    };
    let data = format!("{prefix}data/");
    let storages = entries.iter().filter_map(|(name, entry)| Some((name.strip_prefix(&data)?.to_owned(), *entry))).collect();
    Ok((tensors, storages, big_endian))
}

impl Structure {
    /// Finds each tensor's storage.
    fn new(
        format: &'static str,
        listed: Vec<TorchTensor>,
        storages: &BTreeMap<String, Entry>,
        big_endian: bool,
        file_length: u64,
    ) -> Result<Self> {
        let (mut tensors, mut views) = (BTreeMap::new(), BTreeMap::new());
        for tensor in listed {
            let view = place(&tensor, storages, file_length)?;
            let name = tensor.info.name.clone();
            views.insert(name.clone(), view);
            if tensors.insert(name.clone(), tensor.info).is_some() {
                return Err(Error::new(format!("{}: the name is given twice", shorten(&name)))
                    .help("the file is damaged, or made to mislead: get it from its source again"));
            }
        }
        Ok(Self { format, tensors, views, big_endian })
    }
}

/// Where a tensor's elements lie in the file.
fn place(tensor: &TorchTensor, storages: &BTreeMap<String, Entry>, file_length: u64) -> Result<View> {
    let (name, key) = (shorten(&tensor.info.name), shorten(&tensor.storage));
    let size = tensor.info.dtype.size();
    let elements = tensor.info.elements();
    let Some(storage) = storages.get(&tensor.storage) else {
        return Err(Error::new(format!("{name}: its storage {key} is not in the file")).help("the file is not complete: download it again"));
    };
    if storage.length != tensor.storage_bytes {
        return Err(Error::new(format!(
            "{name}: its storage {key} is said to have {} bytes, but takes {} in the file",
            tensor.storage_bytes, storage.length
        ))
        .help("the file is damaged, or made to mislead: get it from its source again"));
    }
    let most = file_length.max(MAX_EXPANDED);
    if elements * size as u64 > most {
        return Err(Error::new(format!(
            "{name}: shape {} repeats few stored elements to {} bytes; at most {most} are read",
            shorten(&format!("{:?}", tensor.info.shape)),
            elements * size as u64
        ))
        .help("save the tensor as it is: `tensor.contiguous()`"));
    }
    Ok(View::new(storage.offset + tensor.offset * size as u64, size, &tensor.info.shape, &tensor.strides))
}
