//! Reader of safetensors files: <https://github.com/huggingface/safetensors#format>.
//!
//! The format is 8 bytes of header length (little endian), the header (JSON), then the tensors' bytes. All rules are
//! checked once, in [`parse_header`]; what comes after it may trust them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::dtype::{DType, shorten};
use crate::error::{Context, Error, Result};
use crate::formats::index::AGAIN;
use crate::tensor::{TensorInfo, TensorSource, Window};

/// The format's limit for a header.
const MAX_HEADER: u64 = 100_000_000;
/// Most tensors, or other entries, of one file; the largest models have some 200,000 over all their shards. What is made of an entry takes
/// several times its bytes.
const MAX_ENTRIES: usize = 500_000;
/// More dimensions than torch allows are not a tensor.
const MAX_DIMENSIONS: usize = 64;

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
    file: File,
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
        let length = std::fs::metadata(path).context("opening", path)?;
        if !length.is_file() {
            return Err(Error::new(format!("{}: not a file", path.display())).help(AGAIN));
        }
        let length = length.len();
        let file = File::open(path).context("opening", path)?;
        let header_length = read_header_length(&file, path, length)?;
        let mut bytes = vec![0; header_length as usize];
        file.read_exact_at(&mut bytes, 8).context("reading the header", path)?;
        let data_start = 8 + header_length;
        let header = parse_header(&bytes, length - data_start).map_err(|error| error.within(path).or_help(AGAIN))?;
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
        &self.file
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
        let place = || format!("{}: {}", self.path.display(), shorten(name));
        let (Some(info), Some(offset)) = (self.tensors.get(name), self.offsets.get(name)) else {
            return Err(Error::new(format!("{}: the file has no such tensor", place())));
        };
        let size = info.dtype.size() as u64;
        let count = bytes.len() as u64 / size;
        let end = start.checked_add(count);
        if count * size != bytes.len() as u64 || end.is_none_or(|end| end > info.elements()) {
            return Err(Error::new(format!(
                "{}: {} bytes from element {start} on are not within its {} elements",
                place(),
                bytes.len(),
                info.elements()
            )));
        }
        let read = self.file.read_exact_at(bytes, offset + start * size);
        read.map_err(|error| Error::new(format!("{}: reading {count} elements from element {start} on: {error}", place())))
    }
}

impl TensorSource for SafetensorsFile {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        let Some(info) = self.tensors.get(name) else {
            return Err(Error::new(format!("{}: {}: the file has no such tensor", self.path.display(), shorten(name))));
        };
        fill(window, info, &self.path, start, count, |bytes| self.read_into(name, start, bytes))
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

/// Checks that `start .. start + count` lies within the tensor, sizes the window for it, and lets `read` fill it.
pub(crate) fn fill(
    window: &mut Window,
    info: &TensorInfo,
    path: &Path,
    start: u64,
    count: usize,
    read: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<()> {
    check_range(info, path, start, count)?;
    window.dtype = info.dtype;
    window.bytes.resize(count * info.dtype.size(), 0);
    read(&mut window.bytes)
}

/// An error unless elements `start .. start + count` are within the tensor.
pub(crate) fn check_range(info: &TensorInfo, path: &Path, start: u64, count: usize) -> Result<()> {
    if start.checked_add(count as u64).is_some_and(|end| end <= info.elements()) {
        return Ok(());
    }
    let (name, elements) = (shorten(&info.name), info.elements());
    Err(Error::new(format!("{}: {name}: elements {start} + {count} were asked for, it has {elements}", path.display())))
}

/// The length of the header, checked against the format's limit and the file.
fn read_header_length(file: &File, path: &Path, length: u64) -> Result<u64> {
    let place = path.display();
    if length < 8 {
        return Err(Error::new(format!("{place}: not a safetensors file: expected at least 8 bytes, found {length}"))
            .help("the file is cut off or was never fetched: download it again"));
    }
    let mut first = [0; 8];
    file.read_exact_at(&mut first, 0).context("reading the header's length", path)?;
    if &first == b"version " {
        return Err(Error::new(format!("{place}: expected a safetensors file, found a Git LFS pointer"))
            .help("fetch the weights with `git lfs pull`, or download the file again"));
    }
    let header = u64::from_le_bytes(first);
    if header > MAX_HEADER {
        return Err(Error::new(format!("{place}: not a safetensors file: a header of {header} bytes, the format allows {MAX_HEADER}"))
            .help("the file is damaged or of another format"));
    }
    if header > length - 8 {
        return Err(Error::new(format!(
            "{place}: the header is {header} bytes long, but the file has only {} bytes after its length",
            length - 8
        ))
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
    for tensor in &tensors {
        if tensor.offset != expected {
            let (name, what) = (shorten(&tensor.info.name), if tensor.offset < expected { "overlap" } else { "leave a hole" });
            let found = tensor.offset;
            return Err(Error::new(format!("{name}: data offsets {what}: expected the tensor at {expected}, found it at {found}"))
                .help("the file is damaged, or made to mislead: get it from its source again"));
        }
        expected = ends[&tensor.info.name];
    }
    if expected != data_length {
        let help =
            if expected > data_length { "the file is cut off: download it again" } else { "the file has bytes that belong to no tensor" };
        return Err(Error::new(format!("the tensors have {expected} bytes, but the file holds {data_length} after the header")).help(help));
    }
    let tensors = tensors.into_iter().map(|stored| (stored.info.name.clone(), stored)).collect();
    Ok(Header { tensors, metadata: raw.metadata })
}

/// Checks dtype, size and offsets of one tensor; also gives the end of its bytes.
fn check_tensor(name: String, raw: RawTensor) -> Result<(StoredTensor, u64)> {
    // Names go into messages and tables: a file must not be able to forge or flood these.
    const LONGEST_NAME: usize = 1024;
    if name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(Error::new(format!("{}: no name of a tensor: over {LONGEST_NAME} bytes, or with control characters", shorten(&name)))
            .help("the file is damaged, or made to mislead: get it from its source again"));
    }
    let dtype = DType::parse_safetensors(&raw.dtype).map_err(|error| Error::new(format!("{}: {}", shorten(&name), error.message())))?;
    let shape = raw.shape.0;
    // Counted without zeros first, so that no partial product overflows later, whatever the order of dimensions.
    let product = shape.iter().filter(|&&length| length != 0).try_fold(dtype.size() as u64, |bytes, &length| bytes.checked_mul(length));
    let Some(product) = product else {
        return Err(Error::new(format!("{}: the shape {shape:?} has more than 2^64 bytes", shorten(&name))));
    };
    let size = if shape.contains(&0) { 0 } else { product };
    let (start, end) = raw.data_offsets;
    if end.checked_sub(start) != Some(size) {
        let (name, dtype) = (shorten(&name), dtype.safetensors_name());
        return Err(Error::new(format!("{name}: {dtype} {shape:?} has {size} bytes, but its data offsets are {start} .. {end}")));
    }
    Ok((StoredTensor { info: TensorInfo { name, dtype, shape }, offset: start }, end))
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
                    let again = if name == "__metadata__" {
                        metadata.replace(map.next_value::<UniqueMap>()?.0).is_some()
                    } else {
                        tensors.insert(name.clone(), map.next_value()?).is_some()
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
