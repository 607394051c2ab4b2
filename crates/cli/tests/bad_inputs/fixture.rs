//! A folder of good models and recipes, and what spoils them.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::Command;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use crate::checkpoints::{copy_folder, workspace};

/// What is good: the recipe that most rows run.
pub const RECIPE: &str = "merge_method: task_arithmetic
base_model: ./base
models:
  - model: ./a
    parameters: {weight: 0.5}
  - model: ./b
    parameters: {weight: 0.5}
";
/// `model.safetensors` of the model that is spoiled.
pub const WEIGHTS: &str = "a/model.safetensors";
/// The index of the sharded model.
pub const INDEX: &str = "sharded/model.safetensors.index.json";
/// The weights of the pickled model.
pub const PICKLED: &str = "pickled/pytorch_model.bin";
/// The first shard of the sharded model.
pub const SHARD: &str = "sharded/model-00001-of-00002.safetensors";

/// Models `base`, `a`, `b`, `sharded` (as `a`, in two shards), `pickled` (as `a`, written by torch) and `adapter` (rank 2, for `base`), with recipes `r.yml` (base, a, b),
/// `sharded.yml`, `pickled.yml`, `adapter.yml`, `slices.yml` and `vocabulary.yml`.
pub fn fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (model, name) in [("base", "base"), ("fine-tune-a", "a"), ("fine-tune-b", "b")] {
        copy_folder(&workspace().join("tests/models").join(model), &path.join(name));
    }
    shard(path);
    copy_folder(&path.join("a"), &path.join("pickled"));
    remove(path, "pickled/model.safetensors");
    std::fs::copy(workspace().join("tests/hostile/torch_file/valid-quickstart-a.bin"), path.join(PICKLED)).unwrap();
    adapter(path);
    write(path, "r.yml", RECIPE);
    write(path, "sharded.yml", RECIPE.replace("./a", "./sharded"));
    write(path, "pickled.yml", RECIPE.replace("./a", "./pickled"));
    write(path, "adapter.yml", RECIPE.replace("./a", "./base+./adapter"));
    write(path, "vocabulary.yml", format!("{RECIPE}tokenizer_source: base\n"));
    let source = |model| format!("{{model: ./{model}, layer_range: [0, 2]}}");
    let slices = format!("[{{sources: [{}, {}]}}]", source("base"), source("a"));
    write(path, "slices.yml", format!("merge_method: slerp\nbase_model: ./base\nslices: {slices}\nparameters: {{t: 0.5}}\n"));
    folder
}

/// `sharded`: what `a` has, in two shards with an index.
fn shard(folder: &Path) {
    copy_folder(&folder.join("a"), &folder.join("sharded"));
    let bytes = std::fs::read(folder.join("sharded/model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (number, part) in [(1, first), (2, second)] {
        let name = format!("model-0000{number}-of-00002.safetensors");
        map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), name.clone().into())));
        let part = part.iter().map(|(tensor, view)| (tensor.clone(), view));
        write(folder, &format!("sharded/{name}"), safetensors::serialize(part, None).unwrap());
    }
    std::fs::remove_file(folder.join("sharded/model.safetensors")).unwrap();
    write(folder, INDEX, serde_json::json!({"metadata": {"total_size": 45376}, "weight_map": map}).to_string());
}

/// `adapter`: a LoRA on the query projection of the first layer.
fn adapter(folder: &Path) {
    std::fs::create_dir(folder.join("adapter")).unwrap();
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}"#;
    write(folder, "adapter/adapter_config.json", config);
    let factor: Vec<u8> = (0..64).flat_map(|i: u16| (f32::from(i) / 256.0).to_le_bytes()).collect();
    let module = "base_model.model.model.layers.0.self_attn.q_proj";
    let view = |shape: [usize; 2]| TensorView::new(Dtype::F32, shape.to_vec(), &factor).unwrap();
    let tensors = [(format!("{module}.lora_A.weight"), view([2, 32])), (format!("{module}.lora_B.weight"), view([32, 2]))];
    write(folder, "adapter/adapter_model.safetensors", safetensors::serialize(tensors, None).unwrap());
}

/// Every file below a folder with the hash of what it holds, every link with where it leads, every other thing with what it is.
pub fn tree(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let what = if kind.is_symlink() {
                format!("link to {}", path.read_link().unwrap().display())
            } else if kind.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if kind.is_fifo() {
                "pipe".to_owned()
            } else {
                Sha256::digest(std::fs::read(&path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
            };
            found.insert(path.display().to_string(), what);
        }
    }
    found
}

pub fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

pub fn remove(folder: &Path, name: &str) {
    std::fs::remove_file(folder.join(name)).unwrap();
}

/// Puts `to` where `from` stands in a text file, which has it.
pub fn patch(folder: &Path, name: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    write(folder, name, text.replacen(from, to, 1));
}

/// Leaves the first `length` bytes of a file.
pub fn cut(folder: &Path, name: &str, length: u64) {
    std::fs::File::options().write(true).open(folder.join(name)).unwrap().set_len(length).unwrap();
}

/// Puts `to` where `from` stands in a safetensors file's header, which has it, and leaves the data.
pub fn patch_header(folder: &Path, name: &str, from: &str, to: &str) {
    let bytes = std::fs::read(folder.join(name)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    assert!(header.contains(from), "{name} has no {from} in its header");
    let header = header.replacen(from, to, 1);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&bytes[8 + length..]);
    write(folder, name, file);
}

/// A header of its own before `data` zeros.
pub fn write_header(folder: &Path, name: &str, header: &str, data: usize) {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data, 0);
    write(folder, name, file);
}

/// A folder in a file's place.
pub fn folder_instead(folder: &Path, name: &str) {
    remove(folder, name);
    std::fs::create_dir(folder.join(name)).unwrap();
}

/// A named pipe, which nobody writes to, in a file's place.
pub fn pipe_instead(folder: &Path, name: &str) {
    remove(folder, name);
    assert!(Command::new("mkfifo").arg(folder.join(name)).status().unwrap().success());
}

/// A link in a file's place.
pub fn link_instead(folder: &Path, name: &str, to: impl AsRef<Path>) {
    remove(folder, name);
    symlink(to, folder.join(name)).unwrap();
}
