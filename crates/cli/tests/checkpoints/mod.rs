//! What the tests of the binary share: running it, and reading what it wrote with the crate `safetensors`, which shares no code with deltaic.

#![allow(dead_code, reason = "no test binary uses all of it")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::{Dtype, SafeTensors};

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The real binary, without colours and without a Hub cache that the machine may have.
pub fn deltaic() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltaic"));
    command.env("NO_COLOR", "1").env("HF_HUB_CACHE", "/nowhere").env_remove("CLICOLOR_FORCE");
    command
}

/// Runs a command to its end; its stdout. A failure is the test's.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that has to end with 1 and one error; its message.
#[track_caller]
pub fn fail(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{command:?}\n{message}");
    assert_eq!(message.matches("error: ").count(), 1, "{command:?}\n{message}");
    assert!(output.stdout.is_empty(), "{command:?} printed a result");
    message
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Says something that shows whether or not the test passes (what `println!` prints of a passing test does not).
pub fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

pub fn skipped(name: &str, reason: &str) {
    say(&format!("skipped: {name}: {reason}"));
}

/// The folder or program that an environment variable names; without it the test is skipped by name.
pub fn named_by(variable: &str, test: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if found.is_none() {
        skipped(test, &format!("{variable} is not set"));
    }
    found
}

/// Runs one of tests/python's programs; its stdout, or `None` where it ends with 77: a package is missing.
#[track_caller]
pub fn python(interpreter: &Path, script: &str, arguments: &[&std::ffi::OsStr]) -> Option<String> {
    let script = workspace().join("tests/python").join(script);
    let output = Command::new(interpreter).arg(&script).args(arguments).env("HF_HUB_OFFLINE", "1").output().unwrap();
    if output.status.code() == Some(77) {
        skipped(&script.file_name().unwrap().to_string_lossy(), stderr(&output).trim());
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{} {arguments:?}\n{text}{}", script.display(), stderr(&output));
    Some(text)
}

/// A tensor as read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// The elements as f64, exactly.
    pub fn values(&self) -> Vec<f64> {
        fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            bytes.as_chunks::<N>().0.iter().map(|element| value(*element)).collect()
        }
        match self.dtype {
            Dtype::F64 => each(&self.bytes, f64::from_le_bytes),
            Dtype::F32 => each(&self.bytes, |b| f32::from_le_bytes(b).into()),
            Dtype::F16 => each(&self.bytes, |b| half(u16::from_le_bytes(b))),
            Dtype::BF16 => each(&self.bytes, |[low, high]| f32::from_le_bytes([0, 0, low, high]).into()),
            Dtype::I64 => each(&self.bytes, |b| i64::from_le_bytes(b) as f64),
            Dtype::I32 => each(&self.bytes, |b| i32::from_le_bytes(b).into()),
            Dtype::I8 => each(&self.bytes, |b| i8::from_le_bytes(b).into()),
            Dtype::U8 | Dtype::BOOL => each(&self.bytes, |[b]| b.into()),
            other => panic!("no test has tensors of {other:?}"),
        }
    }
}

/// An IEEE half by its definition: sign, 5 bits of exponent, 10 of fraction.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// All tensors of one safetensors file.
pub fn read_file(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        (name, Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() })
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// The safetensors files of a folder, in order.
pub fn shards(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut shards: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    shards.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    shards.sort();
    shards
}

/// All tensors of a model folder.
pub fn read(folder: &Path) -> BTreeMap<String, Tensor> {
    shards(folder).iter().flat_map(|shard| read_file(shard)).collect()
}

/// The JSON header of a safetensors file, as text.
pub fn header(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    String::from_utf8(bytes[8..8 + length].to_vec()).unwrap()
}

/// A JSON file.
pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Copies a folder of files.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Names and bytes of all files of a folder.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    folder.read_dir().unwrap().map(file).collect()
}

/// A folder with the random models of tests/models: `base`, `fine-tune-a`, `fine-tune-b`.
pub fn small_models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for model in ["base", "fine-tune-a", "fine-tune-b"] {
        copy_folder(&workspace().join("tests/models").join(model), &folder.path().join(model));
    }
    folder
}

/// Writes `text` as a file of `folder`; its path.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
