//! Where each tensor of an output goes: shards, headers and index as transformers and safetensors write them. Nothing is written here.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::dtype::DType;
use crate::error::{Error, Result};

/// A file of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// `model.safetensors`, or `model-00001-of-00003.safetensors`.
    pub file_name: String,
    /// The bytes before the tensors: the header's length (8 bytes, little endian) and the header, padded with spaces to a multiple of 8.
    pub header: Vec<u8>,
    /// The file's length with its header.
    pub length: u64,
    /// The names of its tensors, in the order of their offsets.
    pub tensors: Vec<String>,
}

/// Where a tensor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorPlace {
    /// The number of its shard, from zero.
    pub shard: usize,
    /// The offset of its first byte in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The layout of a whole output, known before the first byte is written.
#[derive(Debug, Clone)]
pub struct ShardLayout {
    shards: Vec<Shard>,
    places: BTreeMap<String, TensorPlace>,
    total_size: u64,
}

/// A tensor while it is laid out.
struct Entry<'a> {
    name: &'a str,
    dtype: DType,
    shape: &'a [u64],
    bytes: u64,
}

impl ShardLayout {
    /// Lays out tensors (name, dtype, shape), given in the order in which shards are to be filled.
    ///
    /// Shards are made as huggingface_hub's `split_torch_state_dict_into_shards` makes them: in order, a new one where the next tensor
    /// would exceed `max_shard_bytes` (0: one shard); a tensor that alone exceeds it has a shard of its own. Within a shard tensors lie
    /// as safetensors sorts them: the dtype of the widest alignment first, then by name. `metadata` is added to `format: pt`.
    ///
    /// # Errors
    /// A name is given twice or is `__metadata__`, sizes overflow, or a header is over the format's 100 MB.
    pub fn new(tensors: &[(String, DType, Vec<u64>)], max_shard_bytes: u64, metadata: &BTreeMap<String, String>) -> Result<Self> {
        let mut entries = Vec::with_capacity(tensors.len());
        let mut total_size = 0u64;
        for (name, dtype, shape) in tensors {
            let bytes = shape.iter().try_fold(dtype.size() as u64, |bytes, &length| bytes.checked_mul(length));
            let total = bytes.and_then(|bytes| total_size.checked_add(bytes));
            let (Some(bytes), Some(total)) = (bytes, total) else {
                return Err(Error::new(format!("{name}: {} {shape:?} has too many bytes to be written", dtype.safetensors_name())));
            };
            total_size = total;
            entries.push(Entry { name, dtype: *dtype, shape, bytes });
        }
        let groups = split(entries, max_shard_bytes);
        let number = groups.len();
        let mut places = BTreeMap::new();
        let mut shards = Vec::with_capacity(number);
        for (index, mut group) in groups.into_iter().enumerate() {
            group.sort_by(|a, b| (a.dtype.layout_rank(), a.name).cmp(&(b.dtype.layout_rank(), b.name)));
            let header = header(&group, metadata)?;
            let mut offset = header.len() as u64;
            for entry in &group {
                let place = TensorPlace { shard: index, offset, bytes: entry.bytes };
                if places.insert(entry.name.to_owned(), place).is_some() || entry.name == "__metadata__" {
                    return Err(Error::new(format!("{}: the output would hold this name twice", entry.name)));
                }
                offset += entry.bytes;
            }
            let file_name =
                if number == 1 { "model.safetensors".to_owned() } else { format!("model-{:05}-of-{number:05}.safetensors", index + 1) };
            shards.push(Shard { file_name, header, length: offset, tensors: group.iter().map(|entry| entry.name.to_owned()).collect() });
        }
        Ok(Self { shards, places, total_size })
    }

    /// The files.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Where a tensor goes.
    pub fn place(&self, name: &str) -> Option<TensorPlace> {
        self.places.get(name).copied()
    }

    /// Bytes of all tensors, without headers.
    pub fn total_size(&self) -> u64 {
        self.total_size
    }

    /// Bytes of all files, with headers.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.length).sum()
    }

    /// The text of `model.safetensors.index.json`; None where there is one shard, which has no index.
    pub fn index_json(&self) -> Option<String> {
        if self.shards.len() == 1 {
            return None;
        }
        let file = |place: &TensorPlace| Value::from(self.shards[place.shard].file_name.as_str());
        let weight_map: serde_json::Map<String, Value> = self.places.iter().map(|(name, place)| (name.clone(), file(place))).collect();
        let index = serde_json::json!({"metadata": {"total_size": self.total_size}, "weight_map": weight_map});
        Some(format!("{index:#}\n"))
    }
}

/// Divides tensors into shards.
fn split(entries: Vec<Entry<'_>>, limit: u64) -> Vec<Vec<Entry<'_>>> {
    let mut shards = Vec::new();
    let mut current = Vec::new();
    let mut size = 0u64;
    for entry in entries {
        if limit > 0 && entry.bytes > limit {
            shards.push(vec![entry]);
            continue;
        }
        if limit > 0 && size + entry.bytes > limit {
            shards.push(std::mem::take(&mut current));
            size = 0;
        }
        size += entry.bytes;
        current.push(entry);
    }
    if !current.is_empty() || shards.is_empty() {
        shards.push(current);
    }
    shards
}

/// The header of a shard with its length before it.
fn header(entries: &[Entry<'_>], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut all = BTreeMap::from([("format", "pt")]);
    all.extend(metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let strings: Vec<String> = all.iter().map(|(key, value)| format!("{}:{}", Value::from(*key), Value::from(*value))).collect();
    let mut json = format!("{{\"__metadata__\":{{{}}}", strings.join(","));
    let mut offset = 0;
    for entry in entries {
        let shape: Vec<String> = entry.shape.iter().map(u64::to_string).collect();
        let (name, dtype, end) = (Value::from(entry.name), entry.dtype.safetensors_name(), offset + entry.bytes);
        json += &format!(",{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{offset},{end}]}}", shape.join(","));
        offset = end;
    }
    json.push('}');
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    if json.len() > 100_000_000 {
        return Err(Error::new(format!("a shard's header has {} bytes, the format allows 100,000,000", json.len()))
            .help("choose smaller shards with --out-shard-size"));
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    Ok(bytes)
}

/// Reads a size in bytes: a number, which may have a fraction or an exponent (`5e9`), and a unit: K, M, G, B or T (1000 to the power
/// 1, 2, 3, 3 and 4; mergekit writes `5B` for billions), with `B` behind (`5GB`, `500MB`), or `i` for powers of 1024 (`2GiB`). Case is
/// ignored, white space allowed.
///
/// # Errors
/// Anything else, a negative number, or one over 2^63.
pub fn parse_size(text: &str) -> Result<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let unit_start = lower.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |last| last + 1);
    let (number, unit) = lower.split_at(unit_start);
    let factor = match unit.trim() {
        "" | "bytes" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" | "b" => 1e9,
        "t" | "tb" => 1e12,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1_048_576.0,
        "gi" | "gib" => 1_073_741_824.0,
        "ti" | "tib" => 1_099_511_627_776.0,
        _ => f64::NAN,
    };
    let plain = number.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | '+'));
    let size = number.parse::<f64>().unwrap_or(f64::NAN) * factor;
    if !plain || !(0.0..9.3e18).contains(&size) {
        return Err(Error::new(format!("`{text}`: expected a size such as 5GB, 500MB, 2GiB or 5e9")));
    }
    Ok(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::safetensors::{SafetensorsFile, parse_header};
    use crate::tensor::TensorSource;

    fn tensor(name: &str, dtype: DType, shape: &[u64]) -> (String, DType, Vec<u64>) {
        (name.to_owned(), dtype, shape.to_owned())
    }

    #[test]
    fn what_is_laid_out_is_read_back_by_the_reader() {
        let tensors = [
            tensor("b", DType::BF16, &[2, 3]),
            tensor("a \"quoted\" ü", DType::U8, &[3]),
            tensor("c", DType::F32, &[]),
            tensor("d", DType::I64, &[1, 2]),
            tensor("empty", DType::F32, &[0, 4]),
            tensor("a", DType::BF16, &[4]),
        ];
        let layout = ShardLayout::new(&tensors, 0, &BTreeMap::from([("about".to_owned(), "x".to_owned())])).unwrap();
        let [shard] = layout.shards() else { panic!("one shard") };
        assert_eq!((shard.file_name.as_str(), shard.header.len() % 8, layout.index_json()), ("model.safetensors", 0, None));
        assert_eq!(shard.tensors, ["d", "c", "empty", "a", "b", "a \"quoted\" ü"]);
        let header = parse_header(&shard.header[8..], layout.total_size()).unwrap();
        assert_eq!(
            header.metadata,
            BTreeMap::from([("about", "x"), ("format", "pt")].map(|(key, value)| (key.to_owned(), value.to_owned())))
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(&shard.file_name);
        let mut bytes = shard.header.clone();
        bytes.resize(shard.length as usize, 7);
        std::fs::write(&path, bytes).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        for (name, dtype, shape) in &tensors {
            let info = &file.tensors()[name];
            assert_eq!((info.dtype, &info.shape, file.offset(name)), (*dtype, shape, layout.place(name).map(|place| place.offset)));
        }
    }

    #[test]
    fn shards_are_filled_in_order_as_huggingface_hub_does() {
        // The example of `split_torch_state_dict_into_shards`: limit 10, sizes 6, 6, 2, 6, 2, 2.
        let tensors: Vec<_> =
            [6, 6, 2, 6, 2, 2, 12].iter().enumerate().map(|(i, &size)| tensor(&format!("t{i}"), DType::U8, &[size])).collect();
        let layout = ShardLayout::new(&tensors, 10, &BTreeMap::new()).unwrap();
        let names: Vec<String> = layout.shards().iter().map(|shard| shard.tensors.join(" ")).collect();
        assert_eq!(names, ["t0", "t1 t2", "t6", "t3 t4 t5"]);
        assert_eq!(layout.shards()[3].file_name, "model-00004-of-00004.safetensors");
        let index: Value = serde_json::from_str(&layout.index_json().unwrap()).unwrap();
        assert_eq!(index["metadata"]["total_size"], 36);
        assert_eq!(index["weight_map"]["t2"], "model-00002-of-00004.safetensors");
    }

    #[test]
    fn names_given_twice_and_sizes_that_overflow_are_errors() {
        let twice = [tensor("x", DType::F32, &[1]), tensor("x", DType::F32, &[1])];
        assert!(ShardLayout::new(&twice, 0, &BTreeMap::new()).is_err());
        assert!(ShardLayout::new(&[tensor("__metadata__", DType::F32, &[1])], 0, &BTreeMap::new()).is_err());
        let huge = [tensor("x", DType::F32, &[u64::MAX, 2])];
        assert!(ShardLayout::new(&huge, 0, &BTreeMap::new()).unwrap_err().message().contains('x'));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("500MB", 500_000_000),
            ("2GiB", 2 << 30),
            ("5e9", 5_000_000_000),
            ("5B", 5_000_000_000),
            ("1.5 mb", 1_500_000),
            ("0", 0),
            ("123", 123),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "GB", "-1", "5XB", "1e30", "nan", "inf", "5 5GB", "0x10"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
