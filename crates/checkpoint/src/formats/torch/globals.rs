//! The names of Python objects that files of tensors use. A pickle that asks for any other one is refused.

use crate::dtype::{DType, shorten};
use crate::error::{Error, Result};

/// What a known name stands for. Nothing is called: the reader knows what each would make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch.Size`.
    Size,
    /// `torch._utils._rebuild_tensor` (version 1), `_v2` or `_v3`.
    RebuildTensor { version: u8 },
    /// `torch._utils._rebuild_parameter` and `_with_state`: the parameter's data come first.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`: a tensor with attributes of its own.
    RebuildFromType,
    /// `torch.Tensor` and its plain kinds, as the type of such a tensor.
    TensorClass,
    /// `torch.FloatStorage` and so on, or a dtype such as `torch.float32`.
    Elements(ElementType),
}

/// The type of a storage's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    /// One that is read.
    Known(DType),
    /// Bytes whose type the tensor says.
    Untyped,
    /// One that is not read: its name.
    Unread(&'static str),
}

impl ElementType {
    /// Bytes of one element, where that is known.
    pub(super) fn size(self) -> Option<u64> {
        match self {
            Self::Known(dtype) => Some(dtype.size() as u64),
            Self::Untyped => Some(1),
            Self::Unread(_) => None,
        }
    }
}

/// `torch.*Storage` with the dtype of their elements.
const STORAGES: [(&str, ElementType); 18] = [
    ("DoubleStorage", ElementType::Known(DType::F64)),
    ("FloatStorage", ElementType::Known(DType::F32)),
    ("HalfStorage", ElementType::Known(DType::F16)),
    ("BFloat16Storage", ElementType::Known(DType::BF16)),
    ("LongStorage", ElementType::Known(DType::I64)),
    ("IntStorage", ElementType::Known(DType::I32)),
    ("ShortStorage", ElementType::Known(DType::I16)),
    ("CharStorage", ElementType::Known(DType::I8)),
    ("ByteStorage", ElementType::Known(DType::U8)),
    ("BoolStorage", ElementType::Known(DType::Bool)),
    ("UntypedStorage", ElementType::Untyped),
    ("ComplexFloatStorage", ElementType::Unread("complex64")),
    ("ComplexDoubleStorage", ElementType::Unread("complex128")),
    ("QInt8Storage", ElementType::Unread("qint8")),
    ("QUInt8Storage", ElementType::Unread("quint8")),
    ("QInt32Storage", ElementType::Unread("qint32")),
    ("QUInt4x2Storage", ElementType::Unread("quint4x2")),
    ("QUInt2x4Storage", ElementType::Unread("quint2x4")),
];

/// Dtypes of torch that are not read.
const UNREAD_DTYPES: [&str; 10] = [
    "complex32",
    "complex64",
    "complex128",
    "qint8",
    "quint8",
    "qint32",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn_x2",
];

/// Names for which there is more to say than that they are not known: what the file then holds.
const EXPLAINED: [(&str, &str, &str); 13] = [
    ("torch._utils", "_rebuild_sparse_tensor", "a sparse tensor, which is not read"),
    ("torch._utils", "_rebuild_sparse_csr_tensor", "a sparse tensor, which is not read"),
    ("torch._utils", "_rebuild_nested_tensor", "a nested tensor, which is not read"),
    ("torch._utils", "_rebuild_qtensor", "a quantized tensor, which is not read"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage", "a tensor without data (of the device `meta`)"),
    ("torch._utils", "_rebuild_wrapper_subclass", "a tensor of another class, which is not read"),
    ("torch.storage", "_load_from_bytes", "a pickle within the pickle, which is not read"),
    ("numpy.core.multiarray", "_reconstruct", "a NumPy array; only torch's tensors are read"),
    ("numpy._core.multiarray", "_reconstruct", "a NumPy array; only torch's tensors are read"),
    ("numpy.core.numeric", "_frombuffer", "a NumPy array; only torch's tensors are read"),
    ("numpy._core.numeric", "_frombuffer", "a NumPy array; only torch's tensors are read"),
    ("numpy.core.multiarray", "scalar", "a NumPy number; only torch's tensors are read"),
    ("numpy._core.multiarray", "scalar", "a NumPy number; only torch's tensors are read"),
];

/// What `module.name` stands for.
///
/// # Errors
/// It is none of the names that files of tensors need; the message gives both, and what such a file is where that is known.
pub(super) fn look_up(module: &str, name: &str) -> Result<Global> {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch", "Size") => Some(Global::Size),
        ("torch._utils", "_rebuild_tensor") => Some(Global::RebuildTensor { version: 1 }),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor { version: 2 }),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensor { version: 3 }),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Some(Global::RebuildParameter),
        ("torch._tensor", "_rebuild_from_type_v2") => Some(Global::RebuildFromType),
        ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => Some(Global::TensorClass),
        ("torch" | "torch.storage" | "torch.cuda", _) => elements(name).map(Global::Elements),
        _ => None,
    };
    known.ok_or_else(|| refuse(module, name))
}

fn elements(name: &str) -> Option<ElementType> {
    let storage = STORAGES.iter().find(|entry| entry.0 == name).map(|entry| entry.1);
    let unread = || UNREAD_DTYPES.iter().find(|entry| **entry == name).map(|name| ElementType::Unread(name));
    storage.or_else(|| DType::parse_torch(name).map(ElementType::Known)).or_else(unread)
}

/// The error for a name that is not known.
pub(super) fn refuse(module: &str, name: &str) -> Error {
    let explained = EXPLAINED.iter().find(|entry| (entry.0, entry.1) == (module, name)).map(|entry| entry.2);
    let what = explained.map_or(", which no file of tensors needs".to_owned(), |what| format!(": {what}"));
    Error::new(format!("the pickle asks for `{}.{}`{what}", shorten(module), shorten(name))).help(match explained {
        Some(_) => "deltaic reads dense tensors: convert the weights with the program that wrote them",
        None => {
            "deltaic reads tensors and runs nothing. Where you trust the file, load it in torch and save the weights alone: \
             `torch.save(model.state_dict(), FILE)`, or as safetensors"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numpys_arrays_and_numbers_are_named_under_the_old_and_the_new_modules() {
        for (module, name) in [("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer")] {
            for package in ["numpy.core", "numpy._core"] {
                let error = look_up(&format!("{package}.{module}"), name).unwrap_err();
                assert!(error.message().contains("a NumPy ") && error.to_string().contains("dense tensors"), "{error}");
            }
        }
    }
}
