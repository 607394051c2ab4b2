//! Files that are damaged or made to mislead end in one error that says which file and tensor; nothing panics.

use std::path::Path;

use deltaic_checkpoint::{Checkpoint, DType, SafetensorsFile, ShardIndex, TensorSource, WeightFiles, Window, find_weights, parse_header};
use proptest::prelude::*;

/// A safetensors file: the header with its length, and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 1);
    bytes
}

fn open_error(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let error = SafetensorsFile::open(&path).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    error
}

#[test]
fn a_header_that_breaks_a_rule_is_an_error_that_names_the_tensor() {
    let one = |tensor: &str| format!("{{\"w\":{tensor}}}");
    let cases = [
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 4, "cut off"),
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 12, "belong to no tensor"),
        (one(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#), 8, "w: F32 [3] has 12 bytes"),
        (one(r#"{"dtype":"F4","shape":[2],"data_offsets":[0,1]}"#), 1, "w: unknown dtype `F4`"),
        (one(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}"#), 0, "more than 2^64"),
        (one(r#"{"dtype":"F32","shape":[0,18446744073709551615,2],"data_offsets":[0,0]}"#), 0, "more than 2^64"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[8,4]}"#), 8, "data offsets are 8 .. 4"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#), 8, "leave a hole"),
        (one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#), 4, "w: invalid value"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"dtype":"F32"}"#), 4, "w: duplicate field"),
        (one(r#"{"dtype":"F32","data_offsets":[0,4]}"#), 4, "w: missing field `shape`"),
        (one(&format!(r#"{{"dtype":"U8","shape":[{}1],"data_offsets":[0,1]}}"#, "1,".repeat(64))), 1, "64 dimensions"),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#.into(),
            2,
            "`a` is given twice",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#.into(),
            3,
            "a and b: data offsets overlap: the first ends at 2, the second begins at 1",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#.into(),
            2,
            "overlap",
        ),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, "__metadata__: invalid type"),
        (r#"{"__metadata__":{"a":"1","a":"2"}}"#.into(), 0, "given twice"),
        (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0, "`__metadata__` is given twice"),
        (" {}".into(), 0, "does not begin with"),
        ("[]".into(), 0, "not a JSON object"),
        ("{} x".into(), 0, "trailing"),
        ("{".into(), 0, "EOF"),
        (String::new(), 0, "not a JSON object"),
        (format!("{{\"a\":{}", "[".repeat(100_000)), 0, "the header is wrong"),
    ];
    for (header, data, wanted) in cases {
        let error = open_error(&file(&header, data));
        assert!(error.contains(wanted), "{header:.200}: {error}");
    }
}

#[test]
fn a_file_that_is_no_safetensors_file_says_why() {
    for (bytes, wanted) in [
        (&b""[..], "found 0"),
        (b"1234567", "at least 8 bytes"),
        (&200_000_000u64.to_le_bytes(), "the format allows 100000000"),
        (&u64::MAX.to_le_bytes(), "the format allows"),
        (&100u64.to_le_bytes(), "cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"\x02\0\0\0\0\0\0\0\xff\xfe", "not UTF-8"),
    ] {
        let error = open_error(bytes);
        assert!(error.contains(wanted), "{error}");
    }
    let error = SafetensorsFile::open(Path::new("/nonexistent/x.safetensors")).unwrap_err();
    assert!(error.message().contains("/nonexistent/x.safetensors"));
    assert!(SafetensorsFile::open(Path::new("/tmp")).unwrap_err().message().contains("not a file"));
}

#[test]
fn empty_tensors_and_any_window_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let header = r#"{"e":{"dtype":"F32","shape":[0,3],"data_offsets":[2,2]},
        "a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U16","shape":[],"data_offsets":[2,4]}}  "#;
    let mut bytes = file(header, 0);
    bytes.extend([1, 2, 3, 4]);
    std::fs::write(&path, bytes).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    let mut window = Window { dtype: DType::F32, bytes: vec![9; 100] };
    for (name, start, count, wanted) in
        [("a", 0, 2, &[1u8, 2][..]), ("a", 1, 1, &[2]), ("a", 2, 0, &[]), ("b", 0, 1, &[3, 4]), ("e", 0, 0, &[])]
    {
        file.read(name, start, count, &mut window).unwrap();
        assert_eq!(window.bytes, wanted);
    }
    for (name, start, count) in [("a", 0, 3), ("a", 2, 1), ("a", u64::MAX, 1), ("e", 0, 1), ("c", 0, 0)] {
        assert!(file.read(name, start, count, &mut window).unwrap_err().message().contains("x.safetensors: "), "{name}");
    }
    assert!(file.read_into("b", 0, &mut [0; 1]).is_err());
}

/// A folder of files; `{}` is config.json.
fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn tensor(name: &str) -> Vec<u8> {
    file(&format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#), 1)
}

#[test]
fn an_index_that_lies_or_leaves_its_folder_is_an_error() {
    const INDEX: &str = "model.safetensors.index.json";
    for (index, wanted) in [
        (r#"{"weight_map": {"a": "../x.safetensors"}}"#, "`../x.safetensors`"),
        (r#"{"weight_map": {"a": "/etc/passwd"}}"#, "`/etc/passwd`"),
        (r#"{"weight_map": {"a": "sub/x.safetensors"}}"#, "within the folder"),
        (r#"{"weight_map": {"a": "..\\x"}}"#, "within the folder"),
        (r#"{"weight_map": {"a": ".."}}"#, "within the folder"),
        (r#"{"weight_map": {"a": ""}}"#, "within the folder"),
        (r#"{"weight_map": {"a": "1.safetensors", "b": "3.safetensors"}}"#, "`3.safetensors` (1 tensors) is not in the folder"),
        (
            r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}}"#,
            "c: the index says it is in `2.safetensors`",
        ),
        (r#"{"weight_map": {"a": "1.safetensors", "c": "2.safetensors"}}"#, "b: found in `2.safetensors`, but the index does not name it"),
        (r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}"#, "the index says it is in"),
        (r#"{"weight_map": {"a": "1.safetensors", "x": "4.safetensors"}}"#, "two shards"),
        (r#"{"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}}"#, "given twice"),
        (r#"{"weight_map": {}}"#, "no tensors"),
        (r#"{"weight_map": {"a": 1}}"#, "not an index"),
        ("{}", "weight_map"),
        ("", "not an index"),
    ] {
        let files = [(INDEX, index.into()), ("1.safetensors", tensor("a")), ("2.safetensors", tensor("b")), ("4.safetensors", tensor("a"))];
        let folder = folder(&files);
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(error.message().contains(wanted) && error.message().contains(INDEX), "{index}: {error}");
    }
}

#[test]
fn shards_are_one_model() {
    let index = r#"{"metadata": {"total_size": 2}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
    let folder = folder(&[("model.safetensors.index.json", index.into()), ("1.safetensors", tensor("a")), ("2.safetensors", tensor("b"))]);
    let model = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(model.tensors().keys().collect::<Vec<_>>(), ["a", "b"]);
    let mut window = Window { dtype: DType::F32, bytes: Vec::new() };
    model.read("b", 0, 1, &mut window).unwrap();
    assert_eq!((window.dtype, window.bytes.as_slice()), (DType::U8, &[1u8][..]));
    assert!(model.file_of("b").unwrap().path().ends_with("2.safetensors"));
    assert_eq!(ShardIndex::read(&folder.path().join("model.safetensors.index.json")).unwrap().shards().len(), 2);
}

#[test]
fn a_folder_without_readable_weights_says_what_was_looked_for() {
    for (files, wanted) in [
        (&["model.gguf"][..], "model.gguf"),
        (&["training_args.bin"], "training_args.bin"),
        (&[], "no weights at all"),
        (&["a.safetensors", "b.safetensors"], "a.safetensors, b.safetensors"),
        (&["adapter_config.json", "adapter_model.safetensors"], "PEFT adapter"),
    ] {
        let files: Vec<(&str, Vec<u8>)> = files.iter().map(|name| (*name, Vec::new())).collect();
        let folder = folder(&files);
        let error = find_weights(folder.path()).unwrap_err();
        assert!(error.message().contains(wanted), "{error}");
    }
    let only = folder(&[("weights.safetensors", tensor("a"))]);
    assert_eq!(Checkpoint::open(only.path()).unwrap().tensors().len(), 1);
    std::fs::remove_file(only.path().join("config.json")).unwrap();
    assert!(Checkpoint::open(only.path()).unwrap_err().message().contains("config.json"));
    assert!(Checkpoint::open(Path::new("/nonexistent")).unwrap_err().message().contains("found nothing"));
}

#[test]
fn safetensors_come_before_pickles_and_one_file_before_shards() {
    let files = ["x.safetensors", "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"];
    let folder = folder(&files.map(|name| (name, Vec::new())));
    for name in ["model.safetensors", "model.safetensors.index.json", "x.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"]
    {
        let path = folder.path().join(name);
        let found = if name.ends_with("json") { WeightFiles::Sharded(path.clone()) } else { WeightFiles::Single(path.clone()) };
        assert_eq!(find_weights(folder.path()).unwrap(), found);
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_config_that_is_no_regular_file_is_an_error_without_waiting_for_it() {
    let folder = folder(&[("model.safetensors", tensor("a"))]);
    let config = folder.path().join("config.json");
    let error = |wanted: &str| {
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(error.message().contains("config.json: not a file: found ") && error.message().contains(wanted), "{error}");
        std::fs::remove_file(&config).or_else(|_| std::fs::remove_dir(&config)).unwrap();
    };
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    error("a folder");
    std::os::unix::fs::symlink("/dev/zero", &config).unwrap();
    error("a device");
    assert!(std::process::Command::new("mkfifo").arg(&config).status().unwrap().success());
    error("a named pipe");
}

#[test]
fn a_file_that_became_shorter_is_an_error_that_says_so() {
    let folder = folder(&[("model.safetensors", tensor("a"))]);
    let model = Checkpoint::open(folder.path()).unwrap();
    let path = folder.path().join("model.safetensors");
    let length = path.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
    let error = model.read_into("a", 0, &mut [0]).unwrap_err().to_string();
    for wanted in ["model.safetensors: reading a,", "became shorter", &format!("had {length} bytes"), "start again"] {
        assert!(error.contains(wanted), "{error}");
    }
}

proptest! {
    #[test]
    fn no_header_makes_the_reader_panic(
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        data in 20u64..24,
    ) {
        let header = br#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},
            "b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}} "#;
        let mut bytes = header.to_vec();
        for (place, byte) in mutations {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(bytes.len() - cut.index(8));
        if let Ok(header) = parse_header(&bytes, data) {
            let total: u64 = header.tensors.values().map(|stored| stored.info.elements() * stored.info.dtype.size() as u64).sum();
            prop_assert_eq!(total, data);
        }
    }
}
