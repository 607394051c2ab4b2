//! A source whose vocabulary has another number of rows than it stores: cut, or filled up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use deltaic_kernels::Kernels;

use crate::dtype::{DType, shorten};
use crate::error::{Error, Result};
use crate::tensor::{TensorInfo, TensorSource, Window};

/// Elements of a window while means are taken.
const WINDOW: u64 = 1 << 17;
/// Rows of more elements are no token's.
const MAX_WIDTH: u64 = 1 << 20;

/// What stands in rows that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFill {
    /// The mean of the rows that the tensor stores (the DARE authors' way): every column's sum in f64, row after row, divided by their
    /// number, rounded to f32 and then to the dtype in which the other rows are read.
    Mean,
    /// Zeros.
    Zero,
}

/// A source some of whose tensors have another number of rows. Stored rows are read bit for bit as they are. The mean is computed when the
/// first made row is read: once for each tensor, window by window.
#[derive(Debug)]
pub struct ResizedSource {
    inner: Box<dyn TensorSource>,
    folder: PathBuf,
    tensors: BTreeMap<String, TensorInfo>,
    made: BTreeMap<String, Made>,
    fill: RowFill,
}

/// A tensor with rows that are made.
#[derive(Debug)]
struct Made {
    /// Number of elements that are stored.
    stored: u64,
    /// Number of elements of a row.
    width: u64,
    /// One made row, in the dtype in which `inner` reads the tensor.
    row: OnceLock<Result<Vec<u8>>>,
}

impl ResizedSource {
    /// Gives the tensors that `rows` names so many rows (the first axis); `folder` is for messages.
    ///
    /// # Errors
    /// A tensor is not there, is no float tensor with rows, has rows of more than 2^20 elements, or none of which a mean could be taken.
    pub fn new(inner: Box<dyn TensorSource>, folder: &Path, rows: &BTreeMap<String, u64>, fill: RowFill) -> Result<Self> {
        let mut tensors = inner.tensors().clone();
        let mut made = BTreeMap::new();
        for (name, &wanted) in rows {
            let wrong = |found: String| {
                let tensor = shorten(name);
                Err(Error::new(format!("{}: {tensor}: expected a tensor with a row for each token, found {found}", folder.display())))
            };
            let Some(info) = tensors.get_mut(name) else { return wrong("none".to_owned()) };
            let width = info.shape.iter().skip(1).try_fold(1u64, |width, &length| width.checked_mul(length)).unwrap_or(u64::MAX);
            let stored = match info.shape.first() {
                Some(&stored) if info.dtype.is_float() && width <= MAX_WIDTH => stored,
                _ => return wrong(format!("{} of shape {:?}", info.dtype.safetensors_name(), info.shape)),
            };
            if wanted > stored {
                if stored == 0 && fill == RowFill::Mean {
                    return wrong("one without rows, of which there is no mean".to_owned());
                }
                made.insert(name.clone(), Made { stored: info.elements(), width, row: OnceLock::new() });
            }
            // So that the number of elements and of bytes never overflows.
            if wanted.checked_mul(width.max(1)).is_none_or(|elements| elements > u64::MAX / 8) {
                return wrong(format!("{wanted} rows of {width} to be made"));
            }
            info.shape[0] = wanted;
        }
        Ok(Self { inner, folder: folder.to_owned(), tensors, made, fill })
    }

    /// Bytes that are read once more for the means.
    pub fn mean_bytes(&self) -> u64 {
        let bytes = |(name, made): (&String, &Made)| made.stored * self.tensors[name].dtype.size() as u64;
        if self.fill == RowFill::Mean { self.made.iter().map(bytes).sum() } else { 0 }
    }

    /// One made row of a tensor, in `dtype`.
    fn row(&self, name: &str, made: &Made, dtype: DType) -> Result<Vec<u8>> {
        let Some(format) = dtype.float_format() else {
            let found = dtype.safetensors_name();
            return Err(Error::new(format!("{}: {}: expected floats, found {found}", self.folder.display(), shorten(name))));
        };
        let width = made.width as usize;
        let values = match self.fill {
            RowFill::Mean => self.mean(name, made)?,
            RowFill::Zero => vec![0.0; width],
        };
        let mut row = vec![0; width * dtype.size()];
        Kernels::detect().narrow(format, &values, &mut row);
        Ok(row)
    }

    fn mean(&self, name: &str, made: &Made) -> Result<Vec<f32>> {
        let width = made.width as usize;
        let mut sums = vec![0f64; width];
        let mut window = Window { dtype: DType::F32, bytes: Vec::new() };
        let mut values = Vec::new();
        let step = (WINDOW / made.width.max(1)).max(1) * made.width;
        let mut start = 0;
        while start < made.stored {
            let count = step.min(made.stored - start) as usize;
            self.inner.read(name, start, count, &mut window)?;
            let format = window.dtype.float_format().expect("`row` has seen the dtype");
            values.resize(count, 0.0);
            Kernels::detect().widen(format, &window.bytes, &mut values);
            for row in values.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            start += count as u64;
        }
        let rows = made.stored.checked_div(made.width).unwrap_or(1) as f64;
        Ok(sums.into_iter().map(|sum| (sum / rows) as f32).collect())
    }
}

impl TensorSource for ResizedSource {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str, start: u64, count: usize, window: &mut Window) -> Result<()> {
        if let Some(info) = self.tensors.get(name) {
            info.check_range(&self.folder, start, count as u64)?;
        }
        let Some(made) = self.made.get(name) else { return self.inner.read(name, start, count, window) };
        // Also where nothing stored is asked for: the inner source says in which dtype the tensor is read.
        let stored = made.stored.saturating_sub(start).min(count as u64) as usize;
        self.inner.read(name, start.min(made.stored), stored, window)?;
        if stored == count {
            return Ok(());
        }
        let row = made.row.get_or_init(|| self.row(name, made, window.dtype)).as_ref().map_err(Error::clone)?;
        let size = window.dtype.size();
        let column = ((start + stored as u64 - made.stored) % made.width) as usize;
        let mut rest = (count - stored) * size;
        let mut piece = &row[column * size..];
        while rest > 0 {
            let taken = piece.len().min(rest);
            window.bytes.extend_from_slice(&piece[..taken]);
            rest -= taken;
            piece = row;
        }
        Ok(())
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        self.inner.metadata()
    }

    fn file_paths(&self) -> Vec<PathBuf> {
        self.inner.file_paths()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::safetensors::SafetensorsFile;

    const NAN: u16 = 0x7fab;

    /// A bf16 tensor `e` of 3 x 2 elements with a NaN whose payload has to stay, and an F32 vector `b` of 3.
    fn source(folder: &Path) -> Box<dyn TensorSource> {
        let path = folder.join("x.safetensors");
        let header = concat!(
            r#"{"b":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"e":{"dtype":"BF16","shape":[3,2],"data_offsets":[12,24]},"#,
            r#""i":{"dtype":"I8","shape":[2,1],"data_offsets":[24,26]},"n":{"dtype":"F32","shape":[0,2],"data_offsets":[26,26]}}"#
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([1f32, 2.0, 4.5].iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend([0x3f80, NAN, 0x4000, 0x3f80, 0x4040, 0x3f80].iter().flat_map(|value: &u16| value.to_le_bytes()));
        bytes.extend([1, 2]);
        std::fs::write(&path, bytes).unwrap();
        Box::new(SafetensorsFile::open(&path).unwrap())
    }

    fn resized(folder: &Path, name: &str, rows: u64, fill: RowFill) -> Result<ResizedSource> {
        ResizedSource::new(source(folder), folder, &BTreeMap::from([(name.to_owned(), rows)]), fill)
    }

    #[test]
    fn every_window_of_a_padded_tensor_is_the_stored_bits_and_then_the_mean() {
        let folder = tempfile::tempdir().unwrap();
        let padded = resized(folder.path(), "e", 5, RowFill::Mean).unwrap();
        // The mean of 1, 2, 3 is 2; a column with a NaN has none.
        let expected = [0x3f80, NAN, 0x4000, 0x3f80, 0x4040, 0x3f80, 0x4000, 0x7fc0, 0x4000, 0x7fc0];
        assert_eq!(padded.tensors()["e"].shape, [5, 2]);
        let mut window = Window { dtype: DType::F64, bytes: vec![9; 3] };
        for start in 0..=10 {
            for count in 0..=10 - start {
                padded.read("e", start as u64, count, &mut window).unwrap();
                let found: Vec<u16> = window.bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect();
                assert_eq!((window.dtype, &found[..]), (DType::BF16, &expected[start..start + count]), "{start} {count}");
            }
        }
        assert!(padded.read("e", 4, 7, &mut window).unwrap_err().message().contains("e: elements 4 + 7"));
        assert_eq!(padded.mean_bytes(), 12);
    }

    #[test]
    fn a_vector_gets_its_mean_or_zeros_and_is_cut_to_its_first_elements() {
        let folder = tempfile::tempdir().unwrap();
        for (rows, fill, expected) in
            [(4, RowFill::Mean, &[1.0, 2.0, 4.5, 2.5][..]), (5, RowFill::Zero, &[1.0, 2.0, 4.5, 0.0, 0.0]), (2, RowFill::Mean, &[1.0, 2.0])]
        {
            let source = resized(folder.path(), "b", rows, fill).unwrap();
            let mut window = Window { dtype: DType::F32, bytes: Vec::new() };
            source.read("b", 0, rows as usize, &mut window).unwrap();
            let found: Vec<f32> = window.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            assert_eq!(found, expected);
            assert!(source.read("b", 0, rows as usize + 1, &mut window).is_err());
        }
    }

    #[test]
    fn what_has_no_rows_of_floats_is_not_resized() {
        let folder = tempfile::tempdir().unwrap();
        for (name, rows) in [("i", 3), ("n", 1), ("missing", 3), ("b", u64::MAX)] {
            let error = resized(folder.path(), name, rows, RowFill::Mean).unwrap_err();
            assert!(error.message().contains(name), "{error}");
        }
        assert!(resized(folder.path(), "n", 1, RowFill::Zero).is_ok());
    }
}
