//! Examples from a file of token ids.

use std::path::Path;

use deltaic_checkpoint::{DType, Error, Result, SafetensorsFile, TensorSource};

use super::examples::{Example, Examples, Wanted};

/// Reads `input_ids` and, where they are there, `attention_mask`, `token_type_ids` (all `[N, T]`) and `labels` (`[N]`).
pub(crate) fn read(path: &Path, wanted: Wanted) -> Result<Examples> {
    let file = SafetensorsFile::open(path)?;
    let Some(&[rows, width]) = file.tensors().get("input_ids").map(|info| &info.shape[..]) else {
        let found = file.tensors().get("input_ids").map_or("none".to_owned(), |info| format!("shape {:?}", info.shape));
        return Err(wrong(path, "input_ids", &format!("expected token ids of shape [N, T], found {found}"))
            .help("a file of inputs has input_ids, and may have attention_mask and token_type_ids [N, T] and labels [N]"));
    };
    let (rows, width) = (rows as usize, width as usize);
    let ids = whole_numbers(&file, path, "input_ids", &[rows, width])?.unwrap_or_default();
    let mask = whole_numbers(&file, path, "attention_mask", &[rows, width])?;
    let types = whole_numbers(&file, path, "token_type_ids", &[rows, width])?;
    let labels = numbers(&file, path, "labels", &[rows])?;
    if let Some(other) = mask.iter().flatten().find(|&&other| other > 1) {
        return Err(wrong(path, "attention_mask", &format!("expected 0 and 1, found {other}")));
    }
    let attended = |at: usize| mask.as_ref().is_none_or(|mask| mask[at] == 1);
    wanted.take(&path.display().to_string(), rows, |row| {
        let range = row * width..(row + 1) * width;
        Ok(Some(Example {
            ids: ids[range.clone()].to_vec(),
            type_ids: types.as_ref().map(|types| types[range.clone()].to_vec()).unwrap_or_default(),
            attended: range.map(attended).collect(),
            label: labels.as_ref().map(|labels| labels[row] as f32),
            scored_from: 1,
        }))
    })
}

fn wrong(path: &Path, name: &str, what: &str) -> Error {
    Error::new(format!("{}: {name}: {what}", path.display()))
}

fn whole_numbers(file: &SafetensorsFile, path: &Path, name: &str, shape: &[usize]) -> Result<Option<Vec<u32>>> {
    let Some(numbers) = numbers(file, path, name, shape)? else { return Ok(None) };
    let whole = |number: f64| {
        let is_one = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        if is_one { Ok(number as u32) } else { Err(wrong(path, name, &format!("expected whole numbers from 0 on, found {number}"))) }
    };
    numbers.into_iter().map(whole).collect::<Result<_>>().map(Some)
}

/// The elements of a tensor; None where the file does not have it.
fn numbers(file: &SafetensorsFile, path: &Path, name: &str, shape: &[usize]) -> Result<Option<Vec<f64>>> {
    let Some(info) = file.tensors().get(name) else { return Ok(None) };
    if !info.shape.iter().copied().eq(shape.iter().map(|&length| length as u64)) {
        return Err(wrong(path, name, &format!("expected shape {shape:?}, found {:?}", info.shape)));
    }
    // The header was checked against the file's length, so the memory is no more than the file's.
    let mut bytes = vec![0; info.elements() as usize * info.dtype.size()];
    file.read_into(name, 0, &mut bytes)?;
    let eights = || bytes.as_chunks::<8>().0.iter().copied();
    let fours = || bytes.as_chunks::<4>().0.iter().copied();
    Ok(Some(match info.dtype {
        DType::I64 => eights().map(|bytes| i64::from_le_bytes(bytes) as f64).collect(),
        DType::F64 => eights().map(f64::from_le_bytes).collect(),
        DType::I32 => fours().map(|bytes| f64::from(i32::from_le_bytes(bytes))).collect(),
        DType::U32 => fours().map(|bytes| f64::from(u32::from_le_bytes(bytes))).collect(),
        DType::F32 => fours().map(|bytes| f64::from(f32::from_le_bytes(bytes))).collect(),
        DType::U8 | DType::Bool => bytes.iter().map(|&byte| f64::from(byte)).collect(),
        other => {
            return Err(wrong(path, name, &format!("expected I64, I32, U32, F32, F64, U8 or BOOL, found {}", other.safetensors_name())));
        }
    }))
}
