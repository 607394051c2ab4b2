//! Reader of safetensors files: <https://github.com/huggingface/safetensors#format>.
//!
//! The format is 8 bytes of header length (little endian), the header (JSON), then the tensors' bytes. All rules are
//! checked once, in [`parse_header`]; what comes after it may trust them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::dtype::{DType, shorten};
use crate::error::{Error, Result};
use crate::formats::regular_file::AGAIN;
use crate::formats::regular_file::{Bytes, RegularFile};
use crate::tensor::{MAX_DIMENSIONS, TensorInfo, TensorSource, Window};

/// The format's limit for a header.
const MAX_HEADER: u64 = 100_000_000;
/// Most tensors, or other entries, of one file; the largest models have some 200,000 over all their shards. What is made of an entry takes
/// several times its bytes.
const MAX_ENTRIES: usize = 500_000;

/// A tensor of a file: what it is and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name, dtype and shape.
    pub info: TensorInfo,
    /// Its first byte, counted from the beginning of the file ([`SafetensorsFile`]) or of the data ([`Header`]).
    pub offset: u64,
}

/// A checked header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The tensors by name; offsets count from the beginning of the data.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// The `__metadata__` strings.
    pub metadata: BTreeMap<String, String>,
}

/// An opened safetensors file. Its header has been checked; tensors are read by `pread`, so any number of threads may
/// read at once.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: RegularFile,
    tensors: BTreeMap<String, TensorInfo>,
    offsets: BTreeMap<String, u64>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Opens a file and checks its header against the format and against the file's length.
    ///
    /// # Errors
    /// The file cannot be read or breaks a rule of the format; the message names file, tensor, expected and found.
    pub fn open(path: &Path) -> Result<Self> {
        let file = RegularFile::open(path)?;
        let (header, data_start) = read_header(&file).map_err(|error| error.within(path).or_help(AGAIN))?;
        let mut tensors = BTreeMap::new();
        let mut offsets = BTreeMap::new();
        for (name, stored) in header.tensors {
            offsets.insert(name.clone(), data_start + stored.offset);
            tensors.insert(name, stored.info);
        }
        Ok(Self { path: path.to_owned(), file, tensors, offsets, metadata: header.metadata })
    }

    /// The file's path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, opened for reading, for those who copy or hash ranges of it.
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// The offset of a tensor's first byte in the file.
    pub fn offset(&self, name: &str) -> Option<u64> {
        self.offsets.get(name).copied()
    }

    /// Reads elements of a tensor from `start` on, in its own dtype, until `bytes` is full.
    ///
    /// # Errors
    /// The tensor does not exist, `bytes` holds no whole number of elements or more than there are, or reading fails.
    pub fn read_into(&self, name: &str, start: u64, bytes: &mut [u8]) -> Result<()> {
        let (Some(info), Some(offset)) = (self.tensors.get(name), self.offsets.get(name)) else {
            return Err(self.unknown(name));
        };
        let count = info.count_of(&self.path, start, bytes.len())?;
        let what = format!("{}, {count} elements from element {start} on", shorten(name));
        let read = self.file.read_at(bytes, offset + start * info.dtype.size() as u64, &what);
        read.map_err(|error| error.within(&self.path))
    }

    fn unknown(&self, name: &str) -> Error {
        Error::new(format!("{}: {}: the file has no such tensor", self.path.display(), shorten(name)))
    }
}

impl TensorSource for SafetensorsFile {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        let info = self.tensors.get(name).ok_or_else(|| self.unknown(name))?;
        window.fill(info, &self.path, start, count, |bytes| self.read_into(name, start, bytes))
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn file_paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}

/// The checked header of a file, and where its data begin.
fn read_header(file: &RegularFile) -> Result<(Header, u64)> {
    let length = read_header_length(file)?;
    let bytes = file.read_range(8, length, "the header")?;
    Ok((parse_header(&bytes, file.length() - 8 - length)?, 8 + length))
}

/// The length of the header, checked against the format's limit and the file.
fn read_header_length(file: &RegularFile) -> Result<u64> {
    let length = file.length();
    if length < 8 {
        return Err(Error::new(format!("not a safetensors file: expected at least 8 bytes, found {length}"))
            .help("the file is cut off or was never fetched: download it again"));
    }
    let mut first = [0; 8];
    file.read_at(&mut first, 0, "the header's length")?;
    if &first == b"version " {
        return Err(Error::new("expected a safetensors file, found a Git LFS pointer")
            .help("fetch the weights with `git lfs pull`, or download the file again"));
    }
    let header = u64::from_le_bytes(first);
    if header > MAX_HEADER {
        return Err(Error::new(format!("not a safetensors file: a header of {header} bytes, the format allows {MAX_HEADER}"))
            .help("the file is damaged or of another format"));
    }
    if header > length - 8 {
        return Err(Error::new(format!("the header is {header} bytes long, but the file has only {} bytes after its length", length - 8))
            .help("the file is cut off: download it again"));
    }
    Ok(header)
}

/// Reads a header and checks all rules of the format: a JSON object, names given once, known dtypes, sizes that do not
/// overflow, and data offsets that are contiguous from zero and end where the file ends (`data_length` bytes).
///
/// # Errors
/// The first rule that is broken, with the tensor's name, expected and found, but without the file's name.
pub fn parse_header(bytes: &[u8], data_length: u64) -> Result<Header> {
    let text = std::str::from_utf8(bytes).map_err(|error| Error::new(format!("the header is not UTF-8: {error}")))?;
    if !text.starts_with('{') {
        return Err(Error::new("the header is not a JSON object: it does not begin with `{`")
            .help("this is not a safetensors file, or it is damaged"));
    }
    let raw: RawHeader = serde_json::from_str(text).map_err(|error| Error::new(format!("the header is wrong: {error}")))?;
    let mut tensors: Vec<StoredTensor> = Vec::with_capacity(raw.tensors.len());
    let mut ends = BTreeMap::new();
    for (name, tensor) in raw.tensors {
        let (stored, end) = check_tensor(name, tensor)?;
        ends.insert(stored.info.name.clone(), end);
        tensors.push(stored);
    }
    // Empty tensors share their offset with the next one: they come first.
    tensors.sort_by(|a, b| (a.offset, ends[&a.info.name]).cmp(&(b.offset, ends[&b.info.name])));
    let mut expected = 0;
    let mut before: Option<&str> = None;
    for tensor in &tensors {
        if tensor.offset != expected {
            return Err(gap(before, expected, tensor));
        }
        expected = ends[&tensor.info.name];
        before = Some(&tensor.info.name);
    }
    if expected != data_length {
        let help =
            if expected > data_length { "the file is cut off: download it again" } else { "the file has bytes that belong to no tensor" };
        return Err(Error::new(format!("the tensors have {expected} bytes, but the file holds {data_length} after the header")).help(help));
    }
    let tensors = tensors.into_iter().map(|stored| (stored.info.name.clone(), stored)).collect();
    Ok(Header { tensors, metadata: raw.metadata })
}

/// The error for a tensor that does not begin where the one before it ends.
fn gap(before: Option<&str>, expected: u64, tensor: &StoredTensor) -> Error {
    let (name, found) = (shorten(&tensor.info.name), tensor.offset);
    let message = match before {
        None => format!("{name}: data offsets leave a hole: expected the first tensor at 0, found it at {found}"),
        Some(before) => {
            let what = if found < expected { "overlap" } else { "leave a hole" };
            format!("{} and {name}: data offsets {what}: the first ends at {expected}, the second begins at {found}", shorten(before))
        }
    };
    Error::new(message).help("the file is damaged, or made to mislead: get it from its source again")
}

/// Checks dtype, size and offsets of one tensor; also gives the end of its bytes.
fn check_tensor(name: String, raw: RawTensor) -> Result<(StoredTensor, u64)> {
    let dtype = DType::parse_safetensors(&raw.dtype).map_err(|error| Error::new(format!("{}: {}", shorten(&name), error.message())))?;
    let (info, size) = TensorInfo::checked(name, dtype, raw.shape.0)?;
    let (start, end) = raw.data_offsets;
    if end.checked_sub(start) != Some(size) {
        let (name, dtype, shape) = (shorten(&info.name), dtype.safetensors_name(), &info.shape);
        return Err(Error::new(format!("{name}: {dtype} {shape:?} has {size} bytes, but its data offsets are {start} .. {end}")));
    }
    Ok((StoredTensor { info, offset: start }, end))
}

/// The header as JSON says it, before any check but for names given twice.
struct RawHeader {
    tensors: BTreeMap<String, RawTensor>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a shape of at most {MAX_DIMENSIONS} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(length) = seq.next_element()? {
                    if shape.len() == MAX_DIMENSIONS {
                        return Err(de::Error::invalid_length(shape.len() + 1, &self));
                    }
                    shape.push(length);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawHeader, A::Error> {
                let mut tensors = BTreeMap::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    let named = |error: A::Error| de::Error::custom(format!("{}: {error}", shorten(&name)));
                    let again = if name == "__metadata__" {
                        metadata.replace(map.next_value::<UniqueMap>().map_err(named)?.0).is_some()
                    } else {
                        tensors.insert(name.clone(), map.next_value().map_err(named)?).is_some()
                    };
                    if tensors.len() > MAX_ENTRIES {
                        return Err(de::Error::custom(format!("more than {MAX_ENTRIES} tensors")));
                    }
                    if again {
                        return Err(de::Error::custom(format!("the name `{}` is given twice", shorten(&name))));
                    }
                }
                Ok(RawHeader { tensors, metadata: metadata.unwrap_or_default() })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A JSON object of strings in which a key given twice is an error.
pub(crate) struct UniqueMap(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = UniqueMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<UniqueMap, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if entries.contains_key(&key) {
                        return Err(de::Error::custom(format!("the name `{}` is given twice", shorten(&key))));
                    }
                    if entries.len() == MAX_ENTRIES {
                        return Err(de::Error::custom(format!("more than {MAX_ENTRIES} entries")));
                    }
                    entries.insert(key, value);
                }
                Ok(UniqueMap(entries))
            }
        }
        deserializer.deserialize_map(Strings)
    }
}
