//! Text files, bounded, with or without gzip.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use deltaic_checkpoint::{Context, Error, Result};
use flate2::read::MultiGzDecoder;

/// Greatest text of a data file, unpacked. GLUE's largest file has 80 MB.
const MAX_BYTES: u64 = 2 << 30;

/// The text of a file, without a byte order mark.
pub fn read(path: &Path) -> Result<String> {
    let file = File::open(path).context("opening", path)?;
    if !file.metadata().context("reading its length", path)?.is_file() {
        return Err(Error::new(format!("{}: expected a file", path.display())));
    }
    let packed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let mut bytes = Vec::new();
    let reader = BufReader::new(file);
    match packed {
        true => MultiGzDecoder::new(reader).take(MAX_BYTES + 1).read_to_end(&mut bytes).context("unpacking", path)?,
        false => reader.take(MAX_BYTES + 1).read_to_end(&mut bytes).context("reading", path)?,
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::new(format!("{}: more than {MAX_BYTES} bytes of text", path.display())).help("split the file"));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| not_utf8(path, error.as_bytes(), error.utf8_error().valid_up_to()))?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

fn not_utf8(path: &Path, bytes: &[u8], good: usize) -> Error {
    let line_start = bytes[..good].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let line = bytes[..good].iter().filter(|&&byte| byte == b'\n').count() + 1;
    let byte = bytes.get(good).copied().unwrap_or_default();
    Error::new(format!("{}:{line}: byte {} of the line, {byte:#04x}, is not UTF-8", path.display(), good - line_start + 1))
        .help("data files are UTF-8 text; a packed file's name ends in .gz")
}
