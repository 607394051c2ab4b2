//! Safetensors files that lie, are cut, or are something else.

use std::os::unix::fs::symlink;

use crate::fixture::*;
use crate::{Row, row};

const MERGE: &str = "merge r.yml out";
/// A tensor of the fixture as its header has it.
const NORM: &str = r#""model.norm.weight":{"dtype":"BF16","shape":[32],"data_offsets":[45312,45376]}"#;

pub fn rows() -> Vec<Row> {
    let mut rows = files();
    rows.extend(headers());
    rows.extend(tensors());
    rows
}

/// The file as a whole.
fn files() -> Vec<Row> {
    let file = "a/model.safetensors";
    vec![
        row("weights: empty", MERGE, &[file, "found 0"], |f| write(f, WEIGHTS, "")),
        row("weights: seven bytes", MERGE, &[file, "found 7"], |f| cut(f, WEIGHTS, 7)),
        row("weights: cut in the header", MERGE, &[file, "cut off"], |f| cut(f, WEIGHTS, 1000)),
        row("weights: cut in the data", MERGE, &[file, "45376 bytes"], |f| cut(f, WEIGHTS, 30_000)),
        row("weights: one byte missing", MERGE, &[file, "cut off"], |f| cut(f, WEIGHTS, 47_487)),
        row("weights: bytes that belong to no tensor", MERGE, &[file, "no tensor"], |f| cut(f, WEIGHTS, 50_000)),
        row("weights: a Git LFS pointer", MERGE, &[file, "Git LFS"], |f| {
            write(f, WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 47488\n");
        }),
        row("weights: an HTML page", MERGE, &[file], |f| write(f, WEIGHTS, "<!doctype html><title>404</title>".repeat(99))),
        row("weights: a pickle under the name", MERGE, &[file], |f| write(f, WEIGHTS, b"PK\x03\x04\x00\x00\x08\x08".repeat(99))),
        row("weights: a folder", MERGE, &[file, "not a file"], |f| folder_instead(f, WEIGHTS)),
        row("weights: a pipe nobody writes to", MERGE, &[file, "not a file"], |f| pipe_instead(f, WEIGHTS)),
        row("weights: a link to itself", MERGE, &[file, "back to itself"], |f| link_instead(f, WEIGHTS, "model.safetensors")),
        row("weights: a link to nothing", MERGE, &[file, "points to gone.safetensors, which is not there"], |f| {
            link_instead(f, WEIGHTS, "gone.safetensors")
        }),
        row("weights: a link to /dev/zero", MERGE, &[file, "not a file"], |f| link_instead(f, WEIGHTS, "/dev/zero")),
        row("weights: none", MERGE, &["a: ", "no weights"], |f| remove(f, WEIGHTS)),
        row("weights: only GGUF", MERGE, &["model.gguf"], |f| std::fs::rename(f.join(WEIGHTS), f.join("a/model.gguf")).unwrap()),
        row("weights: two files, no index", MERGE, &["a.safetensors", "index.json"], |f| {
            std::fs::copy(f.join(WEIGHTS), f.join("a/a.safetensors")).unwrap();
            std::fs::rename(f.join(WEIGHTS), f.join("a/b.safetensors")).unwrap();
        }),
        row("model: a folder that links to itself", MERGE, &["./a"], |f| {
            std::fs::remove_dir_all(f.join("a")).unwrap();
            symlink("a", f.join("a")).unwrap();
        }),
        row("model: a file", MERGE, &["./a", "a file, not a folder"], |f| {
            std::fs::remove_dir_all(f.join("a")).unwrap();
            write(f, "a", "x");
        }),
        row("model: not there", MERGE, &["./a", "not there"], |f| std::fs::remove_dir_all(f.join("a")).unwrap()),
        row("model: an adapter alone", MERGE, &["adapter_config.json", "base+adapter"], |f| patch(f, "r.yml", "./a", "./adapter")),
        row("inspect: weights cut in the data", "inspect a/model.safetensors", &["a/model.safetensors"], |f| cut(f, WEIGHTS, 30_000)),
        row("inspect: a folder without a model", "inspect a", &["a"], |f| {
            std::fs::remove_dir_all(f.join("a")).unwrap();
            std::fs::create_dir(f.join("a")).unwrap();
        }),
    ]
}

/// The header.
fn headers() -> Vec<Row> {
    let file = "a/model.safetensors";
    let header = |name: &'static str, says: &[&'static str], header: &'static str, data: usize| {
        row(name, MERGE, &[&[file], says].concat(), move |f| write_header(f, WEIGHTS, header, data))
    };
    vec![
        row("header: 2^63 bytes long", MERGE, &[file, "the format allows"], |f| {
            let mut bytes = std::fs::read(f.join(WEIGHTS)).unwrap();
            bytes[7] = 0x80;
            write(f, WEIGHTS, bytes);
        }),
        row("header: 99 MB announced", MERGE, &[file, "99000000"], |f| {
            let mut bytes = std::fs::read(f.join(WEIGHTS)).unwrap();
            bytes[..8].copy_from_slice(&99_000_000u64.to_le_bytes());
            write(f, WEIGHTS, bytes);
        }),
        row("header: 99 MB of open brackets", MERGE, &[file], |f| {
            write_header(f, WEIGHTS, &format!("{{\"a\":{}", "[".repeat(99_000_000)), 0);
        }),
        row("header: 90 MB of one name", MERGE, &[file], |f| {
            write_header(f, WEIGHTS, &format!("{{\"{}\":1}}", "x".repeat(90_000_000)), 0);
        }),
        row("header: 1,700,000 tensors without an element", MERGE, &[file, "500000 tensors"], |f| {
            let mut header = String::from("{");
            for i in 0..1_700_000 {
                header += &format!("{}\"t{i}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", if i == 0 { "" } else { "," });
            }
            write_header(f, WEIGHTS, &(header + "}"), 0);
        }),
        row("header: 6,000,000 entries of metadata", MERGE, &[file, "500000 entries"], |f| {
            let entries: String = (0..6_000_000).map(|i| format!(",\"{i:x}\":\"\"")).collect();
            write_header(f, WEIGHTS, &format!("{{\"__metadata__\":{{\"format\":\"pt\"{entries}}}}}"), 0);
        }),
        row("header: no length", MERGE, &[file], |f| {
            let mut bytes = std::fs::read(f.join(WEIGHTS)).unwrap();
            bytes[..8].fill(0);
            write(f, WEIGHTS, bytes);
        }),
        header("header: not JSON", &["{"], "model.norm.weight: BF16", 64),
        header("header: a list", &["object"], "[]", 0),
        header("header: a shape of shapes", &["header"], r#"{"a":{"dtype":"U8","shape":[[[[[[[[[[[[[[[[[["#, 0),
        header("header: two objects", &["header"], "{}{}", 0),
        header("header: metadata twice", &["given twice"], r#"{"__metadata__":{},"__metadata__":{}}"#, 0),
        header("header: metadata of numbers", &["header"], r#"{"__metadata__":{"format":1}}"#, 0),
        header(
            "header: a name with a terminal's escapes",
            &["\\u{1b}"],
            "{\"\\u001b[2Jok\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
            1,
        ),
        row("header: not UTF-8", MERGE, &[file, "UTF-8"], |f| {
            let mut bytes = std::fs::read(f.join(WEIGHTS)).unwrap();
            bytes[20] = 0xff;
            write(f, WEIGHTS, bytes);
        }),
        row("header: names given twice", MERGE, &[file, "given twice"], |f| {
            patch_header(f, WEIGHTS, "model.norm.weight", "model.layers.1.input_layernorm.weight");
        }),
    ]
}

/// One tensor of it.
fn tensors() -> Vec<Row> {
    let norm = |name: &'static str, says: &[&'static str], to: &'static str| {
        row(name, MERGE, &[&["a/model.safetensors", "model.norm.weight"], says].concat(), move |f| {
            patch_header(f, WEIGHTS, NORM, &format!("\"model.norm.weight\":{{{to}}}"));
        })
    };
    vec![
        norm("tensor: overlaps another", &["overlap"], r#""dtype":"BF16","shape":[32],"data_offsets":[45300,45364]"#),
        norm("tensor: leaves a hole", &["hole"], r#""dtype":"BF16","shape":[32],"data_offsets":[45320,45384]"#),
        norm("tensor: ends before it begins", &["45376 .. 45312"], r#""dtype":"BF16","shape":[32],"data_offsets":[45376,45312]"#),
        norm("tensor: a shape that is not its bytes", &["66 bytes"], r#""dtype":"BF16","shape":[33],"data_offsets":[45312,45376]"#),
        norm(
            "tensor: a shape over 2^64 bytes",
            &["2^64"],
            r#""dtype":"BF16","shape":[4294967296,4294967296],"data_offsets":[45312,45376]"#,
        ),
        norm("tensor: a dtype nobody knows", &["F24"], r#""dtype":"F24","shape":[32],"data_offsets":[45312,45376]"#),
        row("tensor: a negative length", MERGE, &["a/model.safetensors"], |f| {
            patch_header(f, WEIGHTS, "\"shape\":[32]", "\"shape\":[-32]")
        }),
        row("tensor: 65 dimensions", MERGE, &["a/model.safetensors", "64 dimensions"], |f| {
            patch_header(f, WEIGHTS, "\"shape\":[32]", &format!("\"shape\":[32{}]", ",1".repeat(64)));
        }),
        row("tensor: other shape than the base's", MERGE, &["model.norm.weight", "./a", "./base", "[2, 16]", "[32]"], |f| {
            patch_header(f, WEIGHTS, NORM, r#""model.norm.weight":{"dtype":"BF16","shape":[2,16],"data_offsets":[45312,45376]}"#);
        }),
        row("tensor: missing", MERGE, &["model.norm.other", "./a", "exclude"], |f| {
            patch_header(f, WEIGHTS, "model.norm.weight", "model.norm.other");
        }),
        row("tensor: integers where the base has floats", MERGE, &["model.norm.weight", "./a"], |f| {
            patch_header(f, WEIGHTS, NORM, r#""model.norm.weight":{"dtype":"I16","shape":[32],"data_offsets":[45312,45376]}"#);
        }),
        row("tensor: NaN, with --deny-nan", "merge --deny-nan r.yml out", &["lm_head.weight", "NaN"], |f| {
            let mut bytes = std::fs::read(f.join(WEIGHTS)).unwrap();
            let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[data..data + 2].copy_from_slice(&[0xc0, 0x7f]);
            write(f, WEIGHTS, bytes);
        }),
        row("tensor: infinity in the base, with --deny-nan", "merge --deny-nan r.yml out", &["lm_head.weight", "infinite"], |f| {
            let mut bytes = std::fs::read(f.join("base/model.safetensors")).unwrap();
            let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[data..data + 2].copy_from_slice(&[0x80, 0x7f]);
            write(f, "base/model.safetensors", bytes);
        }),
    ]
}
