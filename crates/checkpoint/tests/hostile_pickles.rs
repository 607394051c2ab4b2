//! Pickles and archives that mean harm (tests/hostile/pickles, made by its make.py): each is one error that names the file; nothing runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deltaic_checkpoint::{Error, WeightFile, parse_torch_file, parse_torch_pickle};

/// What the programs among the pickles try to make.
const MARKER: &str = "/tmp/deltaic-hostile-marker";
const MESSAGES: &str = include_str!("hostile_pickles.txt");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/hostile/pickles")
}

/// A stored zip archive with the pickle as `m/data.pkl` and four floats as storage 0.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let entries: [(&str, &[u8]); 2] = [("m/data.pkl", pickle), ("m/data/0", &[0; 16])];
    for (name, data) in entries {
        let [name_length, length] = [name.len() as u32, data.len() as u32].map(u32::to_le_bytes);
        let shared = [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &length[..], &length, &name_length[..2], &[0; 2]].concat();
        let at = (out.len() as u32).to_le_bytes();
        directory.extend([b"PK\x01\x02\x14\0", &shared[..], &[0; 10], &at, name.as_bytes()].concat());
        out.extend([b"PK\x03\x04", &shared[..], name.as_bytes(), data].concat());
    }
    let [start, length] = [out.len() as u32, directory.len() as u32].map(u32::to_le_bytes);
    let end = [b"PK\x05\x06\0\0\0\0\x02\0\x02\0", &length[..], &start, &[0; 2]].concat();
    [out, directory, end].concat()
}

/// Opens bytes as a file of weights, which has to fail; the error and how long it took.
#[track_caller]
fn open_error(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(format!("{name}.bin"));
    std::fs::write(&path, bytes).unwrap();
    let start = Instant::now();
    let error = WeightFile::open(&path).map(|_| ()).expect_err(name);
    assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
    let error = error.to_string();
    assert!(error.starts_with(&path.display().to_string()) && error.len() < 2000, "{name}: {error}");
    assert!(error.contains("\n  = "), "{name}: no help: {error}");
    assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{name}: {error:?}");
    error[path.display().to_string().len() + 2..].to_owned()
}

#[test]
fn every_hostile_file_is_an_error_that_names_it_and_executes_nothing() {
    let _ = std::fs::remove_file(MARKER);
    let scratch = tempfile::tempdir().unwrap();
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in folder().read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "pkl" || ending == "bin") {
            files.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), path);
        }
    }
    let mut found = String::new();
    for (name, path) in &files {
        let bytes = std::fs::read(path).unwrap();
        let bytes = if name.ends_with(".pkl") { archive(&bytes) } else { bytes };
        let error = open_error(scratch.path(), &name.replace('.', "_"), &bytes);
        assert!(parse_torch_file(&bytes).is_err(), "{name}");
        found += &format!("{name}: {}\n", error.replace('\n', " "));
    }
    assert!(!Path::new(MARKER).exists(), "a program was run");
    // The messages are reviewed as text. DELTAIC_WRITE_MESSAGES=1 writes them anew.
    if std::env::var_os("DELTAIC_WRITE_MESSAGES").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile_pickles.txt");
        std::fs::File::create(path).unwrap().write_all(found.as_bytes()).unwrap();
        return;
    }
    for (found, expected) in found.lines().zip(MESSAGES.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), MESSAGES.lines().count());
}

#[test]
fn a_pickle_of_a_plain_state_dict_in_the_same_archive_is_read() {
    // So the other tests' errors are not due to the archive.
    let pickle =
        b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu\
        K\x04tQK\x01K\x03\x85K\x01\x85\x89}tRs.";
    let tensors = parse_torch_file(&archive(pickle)).unwrap();
    assert_eq!(tensors["w"].shape, [3]);
}

#[test]
fn pickles_that_take_much_memory_or_time_end_early() {
    let of = |begin: &[u8], body: &[u8], times: usize| [begin, &body.repeat(times), b"."].concat();
    let start = Instant::now();
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("values", of(b"\x80\x02", b"N", 60_000_000), "more than 1000000 values"),
        ("objects", of(b"\x80\x02", b"}0", 30_000_000), "more than 3000000 objects"),
        ("memo", of(b"\x80\x04}", b"\x94", 60_000_000), "more than 3000000 objects"),
        ("operations", of(b"\x80\x02", b"N0", 30_000_000), "more than 8000000 operations"),
        ("a list", of(b"\x80\x02]", b"Na", 30_000_000), "more than 8000000 operations"),
        ("dictionaries", of(b"\x80\x02", b"}NNs0", 12_000_000), "more than 8000000 operations"),
        // One list of pairs, copied into a dictionary again and again.
        (
            "copies",
            [&of(b"\x80\x02ccollections\nOrderedDict\nq\x01](", b"NN\x86", 100_000)[..], b"e\x85q\x020", &b"h\x01h\x02R0".repeat(1000)]
                .concat(),
            "",
        ),
        ("too long", vec![b'}'; (64 << 20) + 1], "at most 67108864"),
    ];
    for (name, pickle, wanted) in cases {
        let error: Error = parse_torch_pickle(&pickle).expect_err(name);
        assert!(error.message().contains(wanted), "{name}: {error}");
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}
