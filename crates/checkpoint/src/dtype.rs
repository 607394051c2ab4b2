//! Element types of stored tensors.

use deltaic_kernels::FloatFormat;

use crate::error::{Error, Result};

/// The dtype of a stored tensor, as safetensors names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

/// All dtypes with their names in safetensors and in torch, in the order in which safetensors lays tensors out
/// (`safetensors/src/tensor.rs`: by the enum's order, descending).
const NAMES: [(DType, &str, &str); 15] = [
    (DType::U64, "U64", "uint64"),
    (DType::I64, "I64", "int64"),
    (DType::F64, "F64", "float64"),
    (DType::F32, "F32", "float32"),
    (DType::U32, "U32", "uint32"),
    (DType::I32, "I32", "int32"),
    (DType::BF16, "BF16", "bfloat16"),
    (DType::F16, "F16", "float16"),
    (DType::U16, "U16", "uint16"),
    (DType::I16, "I16", "int16"),
    (DType::F8E4M3, "F8_E4M3", "float8_e4m3fn"),
    (DType::F8E5M2, "F8_E5M2", "float8_e5m2"),
    (DType::I8, "I8", "int8"),
    (DType::U8, "U8", "uint8"),
    (DType::Bool, "BOOL", "bool"),
];

impl DType {
    /// Bytes of one element: 1, 2, 4 or 8.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The name in a safetensors header, such as `F8_E4M3`.
    pub fn safetensors_name(self) -> &'static str {
        NAMES[self.layout_rank()].1
    }

    /// The name in torch and in `config.json`, such as `bfloat16`.
    pub fn torch_name(self) -> &'static str {
        NAMES[self.layout_rank()].2
    }

    /// Reads a safetensors header's dtype.
    ///
    /// # Errors
    /// One that names the dtype and lists the known ones.
    pub fn parse_safetensors(name: &str) -> Result<Self> {
        NAMES.iter().find(|entry| entry.1 == name).map(|entry| entry.0).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|entry| entry.1).collect();
            Error::new(format!("unknown dtype `{}`, expected one of {}", shorten(name), known.join(", ")))
        })
    }

    /// Reads `dtype` or `out_dtype` of a recipe: float16, bfloat16, float32 or float64, each optionally with `torch.` before it.
    ///
    /// # Errors
    /// Any other name; int64, which mergekit accepts and then refuses to merge, too.
    pub fn parse_recipe(name: &str) -> Result<Self> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "float16" => Ok(Self::F16),
            "bfloat16" => Ok(Self::BF16),
            "float32" => Ok(Self::F32),
            "float64" => Ok(Self::F64),
            _ => Err(Error::new(format!("unknown dtype `{}`, expected float16, bfloat16, float32 or float64", shorten(name)))),
        }
    }

    /// Reads torch's name of a dtype, optionally with `torch.` before it, as `config.json` has it; None where it is unknown.
    pub fn parse_torch(name: &str) -> Option<Self> {
        let name = name.strip_prefix("torch.").unwrap_or(name);
        NAMES.iter().find(|entry| entry.2 == name).map(|entry| entry.0)
    }

    /// Whether elements are floating-point numbers, which are merged; all others are copied.
    pub fn is_float(self) -> bool {
        self.float_format().is_some()
    }

    /// The format by which kernels read and write it; None for integers and bool.
    pub fn float_format(self) -> Option<FloatFormat> {
        match self {
            Self::F64 => Some(FloatFormat::F64),
            Self::F32 => Some(FloatFormat::F32),
            Self::F16 => Some(FloatFormat::F16),
            Self::BF16 => Some(FloatFormat::BF16),
            Self::F8E4M3 => Some(FloatFormat::F8E4M3),
            Self::F8E5M2 => Some(FloatFormat::F8E5M2),
            _ => None,
        }
    }

    /// Position in a shard among other dtypes, 0 first: the widest alignment comes first, as safetensors writes it.
    pub(crate) fn layout_rank(self) -> usize {
        NAMES.iter().position(|entry| entry.0 == self).unwrap_or(NAMES.len() - 1)
    }
}

/// A name from an untrusted file, cut to what fits into a message.
pub fn shorten(name: &str) -> String {
    let (shown, cut) = name.char_indices().nth(120).map_or((name, ""), |(end, _)| (&name[..end], "…"));
    let escaped: String =
        shown.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect();
    escaped + cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_is_read_back_from_its_names() {
        for (dtype, safetensors, torch) in NAMES {
            assert_eq!(DType::parse_safetensors(safetensors).unwrap(), dtype);
            assert_eq!(dtype.safetensors_name(), safetensors);
            assert_eq!(DType::parse_torch(torch), Some(dtype));
        }
    }

    #[test]
    fn dtypes_are_laid_out_widest_first() {
        let sizes: Vec<usize> = NAMES.iter().map(|entry| entry.0.size()).collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn a_recipe_may_write_torch_before_a_dtype_but_only_merge_to_floats() {
        assert_eq!(DType::parse_recipe("torch.bfloat16").unwrap(), DType::BF16);
        assert!(DType::parse_recipe("int64").unwrap_err().message().contains("int64"));
        assert!(DType::parse_safetensors("F4").unwrap_err().message().contains("`F4`"));
    }
}
