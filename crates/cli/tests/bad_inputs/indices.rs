//! Indices of shards that lie, and shards that are not there.

use crate::fixture::*;
use crate::{Row, row};

const MERGE: &str = "merge sharded.yml out";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

pub fn rows() -> Vec<Row> {
    let index = "model.safetensors.index.json";
    // The first tensor of the map is said to lie elsewhere.
    let leads = |name: &'static str, to: &'static str, said: &'static str| {
        row(name, MERGE, &[index, "do not trust", said], move |f| patch(f, INDEX, &format!("\"{FIRST}\""), to))
    };
    let text = |name: &'static str, says: &[&'static str], text: &'static str| {
        row(name, MERGE, &[&[index], says].concat(), move |f| write(f, INDEX, text))
    };
    vec![
        leads("index: a shard in the folder above", "\"../base/model.safetensors\"", "../base"),
        leads("index: a shard by an absolute path", "\"/etc/passwd\"", "/etc/passwd"),
        leads("index: a shard in a folder below", "\"sub/model.safetensors\"", "sub/"),
        leads("index: a shard with a backslash", "\"..\\\\model.safetensors\"", "within the folder"),
        leads("index: a shard named ..", "\"..\"", "`..`"),
        leads("index: a shard without a name", "\"\"", "``"),
        leads("index: a shard with a zero byte", "\"a\\u0000b\"", "within the folder"),
        row("index: a shard is missing", MERGE, &[index, SECOND, "download"], |f| remove(f, &format!("sharded/{SECOND}"))),
        row("index: a shard is cut", MERGE, &[FIRST, "cut off"], |f| cut(f, SHARD, 9_000)),
        row("index: a shard is a pipe", MERGE, &[FIRST, "not a file"], |f| pipe_instead(f, SHARD)),
        row("index: a shard is a folder", MERGE, &[FIRST, "not a file"], |f| folder_instead(f, SHARD)),
        row("index: a tensor in the wrong shard", MERGE, &[index, FIRST, SECOND], |f| patch(f, INDEX, FIRST, SECOND)),
        row("index: a tensor that is in no shard", MERGE, &[index, "ghost", "does not have it"], |f| {
            patch(f, INDEX, "\"weight_map\":{", &format!("\"weight_map\":{{\"ghost\":\"{FIRST}\","));
        }),
        row("index: a tensor it does not name", MERGE, &[index, "lm_head", "does not name it"], |f| {
            patch(f, INDEX, "\"lm_head.weight\"", "\"other.weight\"");
        }),
        row("index: two shards with one tensor", MERGE, &[index, "two shards"], |f| {
            std::fs::copy(f.join(SHARD), f.join(format!("sharded/{SECOND}"))).unwrap();
        }),
        row("index: a name given twice", MERGE, &[index, "given twice"], |f| {
            patch(f, INDEX, "\"weight_map\":{", &format!("\"weight_map\":{{\"lm_head.weight\":\"{FIRST}\","));
        }),
        text("index: empty", &["not an index"], ""),
        text("index: a list", &["not an index"], "[]"),
        text("index: without a map", &["weight_map"], "{}"),
        text("index: an empty map", &["no tensors"], r#"{"weight_map": {}}"#),
        text("index: numbers for shards", &["not an index"], r#"{"weight_map": {"lm_head.weight": 1}}"#),
        text("index: a map that is a list", &["not an index"], r#"{"weight_map": ["lm_head.weight"]}"#),
        row("index: nested 100,000 deep", MERGE, &[index], |f| write(f, INDEX, "[".repeat(100_000))),
        row("index: a string of 5 MB for a map", MERGE, &[index], |f| {
            write(f, INDEX, format!("{{\"weight_map\":\"{}\"}}", "x".repeat(5_000_000)))
        }),
        row("index: 5,000,000 names", MERGE, &[index, "500000 entries"], |f| {
            let names: String = (0..5_000_000).map(|i| format!(",\"{i:x}\":\"s\"")).collect();
            write(f, INDEX, format!("{{\"weight_map\":{{\"first\":\"s\"{names}}}}}"));
        }),
        row("index: 200 MB", MERGE, &[index, "at most"], |f| cut(f, INDEX, 200_000_000)),
        row("index: a folder", MERGE, &[index, "not a file"], |f| folder_instead(f, INDEX)),
        row("index: a pipe", MERGE, &[index, "not a file"], |f| pipe_instead(f, INDEX)),
        row("index: a link to itself", MERGE, &["sharded"], move |f| link_instead(f, INDEX, index)),
    ]
}
