//! What is asserted of every reader of foreign files, whatever the bytes: no panic, a message under 2,000 characters that a terminal can show,
//! and, of what is read without an error, that it says what the reader promises and is the same when written and read again.
//!
//! Each function gives whether the bytes were read. The fuzz targets call them; so does `crates/merge/tests/hostile_corpus.rs`, with every file of `tests/hostile`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use deltaic_checkpoint::{
    AdapterConfig, Architecture, Config, DType, Error, Header, ShardIndex, ShardLayout, TensorInfo, parse_header, parse_tokenizer,
    parse_torch_file, parse_torch_pickle,
};
use deltaic_merge::recipe::{Document, Names, UnknownPolicy, parse};

/// Names of tensors and modules as they are asked for.
const NAMES: [&str; 6] = [
    "model.layers.01.mlp.up_proj.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "base_model.model.model.layers.0.mlp.down_proj",
    "lm_head.weight",
    "classifier",
    "",
];

/// A message is one that can be shown.
pub fn check_error(error: &Error) {
    let text = error.to_string();
    assert!(text.chars().count() < 2000, "a message of {} characters", text.chars().count());
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "control characters in {text:?}");
    assert!(!error.message().is_empty());
}

/// The value of a result, or None after a look at its error.
fn checked<T>(result: Result<T, Error>) -> Option<T> {
    result.inspect_err(check_error).ok()
}

/// A header of a safetensors file: as the JSON alone, or a whole file, length first. How much data follows is what the header makes of it,
/// since a random number would never fit.
pub fn safetensors_header(bytes: &[u8]) -> bool {
    let header = match bytes.split_at_checked(8) {
        Some((length, rest)) if !bytes.starts_with(b"{") => {
            let length = length.try_into().map_or(0, u64::from_le_bytes);
            let Some(header) = rest.get(..usize::try_from(length).unwrap_or(usize::MAX)) else { return false };
            header
        }
        _ => bytes,
    };
    let digits = header.split(|byte| !byte.is_ascii_digit()).filter_map(|run| std::str::from_utf8(run).ok()?.parse::<u64>().ok());
    let mut lengths: Vec<u64> = digits.collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut was_read = false;
    for data_length in [0].into_iter().chain(lengths.into_iter().rev().take(3)) {
        if let Some(read) = checked(parse_header(header, data_length)) {
            check_header(&read, data_length);
            was_read = true;
        }
    }
    was_read
}

/// Tensors lie side by side and fill the data; written by the writer, the header is read again as the same tensors.
fn check_header(header: &Header, data_length: u64) {
    let mut places: Vec<(u64, u64)> = Vec::new();
    for (name, stored) in &header.tensors {
        assert_eq!(*name, stored.info.name);
        places.push((stored.offset, check_info(&stored.info)));
    }
    places.sort_unstable();
    let end = places.iter().fold(0, |expected, (start, size)| {
        assert_eq!(*start, expected);
        start + size
    });
    assert_eq!(end, data_length);

    let tensors: Vec<(String, DType, Vec<u64>)> =
        header.tensors.iter().map(|(name, stored)| (name.clone(), stored.info.dtype, stored.info.shape.clone())).collect();
    let Some(layout) = checked(ShardLayout::new(&tensors, 0, &header.metadata)) else { return };
    for shard in layout.shards() {
        let written = parse_header(&shard.header[8..], data_length).expect("what is written is read");
        assert_eq!(written.tensors.keys().collect::<Vec<_>>(), header.tensors.keys().collect::<Vec<_>>());
        let same = |(name, stored): (&String, &deltaic_checkpoint::StoredTensor)| stored.info == header.tensors[name].info;
        assert!(written.tensors.iter().all(same));
    }
}

/// The pickle in a file of `torch.save`: every tensor lies within its storage.
pub fn torch_pickle(bytes: &[u8]) -> bool {
    let Some(tensors) = checked(parse_torch_pickle(bytes)) else { return false };
    for tensor in tensors {
        let info = &tensor.info;
        let bytes = check_info(info);
        assert_eq!(tensor.strides.len(), info.shape.len());
        let steps =
            info.shape.iter().zip(&tensor.strides).map(|(length, stride)| u128::from(length.saturating_sub(1)) * u128::from(*stride));
        let last = steps.fold(u128::from(tensor.offset), |last, step| last.checked_add(step).expect("a step that overflows"));
        let size = info.dtype.size() as u128;
        assert!(bytes == 0 || (last + 1) * size <= u128::from(tensor.storage_bytes), "{tensor:?} leaves its storage");
    }
    true
}

/// A whole file of `torch.save`, zip or legacy.
pub fn torch_file(bytes: &[u8]) -> bool {
    let Some(tensors) = checked(parse_torch_file(bytes)) else { return false };
    for (name, info) in tensors {
        assert_eq!(name, info.name);
        check_info(&info);
    }
    true
}

/// A tensor's name can be shown and its bytes can be counted; how many there are.
fn check_info(info: &TensorInfo) -> u64 {
    assert!(info.name.len() <= 1024 && !info.name.contains(char::is_control), "{:?}", info.name);
    info.elements().checked_mul(info.dtype.size() as u64).expect("a size that overflows")
}

/// `model.safetensors.index.json`.
pub fn shard_index(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(index) = checked(ShardIndex::parse(text, Path::new("folder/model.safetensors.index.json"))) else { return false };
    assert!(!index.weight_map().is_empty());
    for shard in index.shards() {
        let path = Path::new("folder").join(shard);
        assert!(!shard.is_empty() && path.parent() == Some(Path::new("folder")) && path.file_name() == Some(shard.as_ref()), "{shard:?}");
    }
    assert!(checked(index.open()).is_none(), "there are no shards");
    true
}

/// `adapter_config.json`.
pub fn adapter_config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(config) = checked(AdapterConfig::parse(text, Path::new("adapter/adapter_config.json"))) else { return false };
    for name in NAMES {
        assert!(config.rank_of(name) > 0);
        assert!(config.scaling_of(name).is_finite(), "a scale of {}", config.scaling_of(name));
        config.saves_module_of(name);
    }
    true
}

/// `config.json`: what is written is read, and is the same; what is set is there.
pub fn config_json(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let path = Path::new("model/config.json");
    let Some(mut config) = checked(Config::parse(text, path)) else { return false };
    let read_again = |config: &Config| {
        let written = config.to_json();
        let again = Config::parse(&written, path).expect("what is written is read");
        assert_eq!(again.to_json(), written);
        again
    };
    let again = read_again(&config);
    let numbers = |config: &Config| (config.layer_count(), config.vocab_size(), config.dtype(), config.tied(), config.is_quantized());
    assert_eq!(numbers(&again), numbers(&config));
    assert_eq!((again.architectures(), again.model_type()), (config.architectures(), config.model_type()));

    let architecture = Architecture::of(&config, NAMES);
    architecture.layer_count(&config);
    architecture.is_tied(&config);
    for name in NAMES {
        let kinds = (architecture.is_head(name), architecture.is_buffer(name), architecture.is_embedding(name));
        std::hint::black_box((kinds, architecture.position(name), architecture.tied_partner(name)));
        // A layer's number is written as it was read.
        assert!(architecture.layer_of(name).is_none_or(|layer| architecture.with_layer(name, layer) == name), "{name}");
    }
    if checked(config.set_layer_count(3, &[0, 1, 1])).is_some() {
        assert_eq!(read_again(&config).layer_count(), Some(3));
    }
    config.set_dtype(DType::BF16);
    config.set_tied(true);
    let again = read_again(&config);
    assert_eq!((again.dtype(), again.tied()), (Some(DType::BF16), Some(true)));
    true
}

/// `tokenizer.json`.
pub fn tokenizer(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    checked(parse_tokenizer(text, Path::new("model/tokenizer.json"))).is_some()
}

/// A recipe: written with its defaults it is read again as the same recipe.
pub fn recipe(bytes: &[u8]) -> bool {
    let Some(document) = checked(Document::from_bytes("recipe.yml", bytes.to_vec(), "")) else { return false };
    let mut was_read = false;
    for policy in [UnknownPolicy::Strict, UnknownPolicy::Ignore] {
        let Some((recipe, warnings)) = checked(parse(Arc::new(document.clone()), policy)) else { continue };
        for warning in warnings {
            assert!(warning.to_string().chars().count() < 2000);
        }
        let seed = recipe.seed_or_derived();
        let as_named = Names { model: &deltaic_checkpoint::ModelReference::clone, file: &str::to_owned };
        let yaml = recipe.to_yaml(&as_named, Some(seed));
        let written = Arc::new(Document::new("deltaic.yml", yaml.as_str(), ""));
        let (again, _) = parse(written, UnknownPolicy::Strict).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_eq!(again.to_yaml(&as_named, Some(seed)), yaml);
        assert_eq!((again.models(), again.seed_or_derived()), (recipe.models(), seed));
        let settings = |recipe: &deltaic_merge::recipe::Recipe| -> BTreeMap<String, String> {
            recipe.parameters.iter().map(|(name, setting)| (name.clone(), format!("{:?}", setting.value))).collect()
        };
        let again = settings(&again);
        assert!(settings(&recipe).iter().all(|(name, setting)| again.get(name) == Some(setting)), "{yaml}");
        was_read = true;
    }
    was_read
}
