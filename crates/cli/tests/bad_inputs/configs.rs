//! config.json and the other files beside the weights.

use std::os::unix::fs::symlink;

use crate::fixture::*;
use crate::{Row, row};

const MERGE: &str = "merge r.yml out";

pub fn rows() -> Vec<Row> {
    let mut rows = configurations();
    rows.extend(tokenizers());
    rows
}

fn configurations() -> Vec<Row> {
    let config = "a/config.json";
    let text = |name: &'static str, says: &[&'static str], text: &'static str| {
        row(name, MERGE, &[&["a"], says].concat(), move |f| write(f, "a/config.json", text))
    };
    let layers = |name: &'static str, says: &[&'static str], to: &'static str| {
        row(name, "merge slices.yml out", &[&["./base: config.json"], says].concat(), move |f| {
            patch(f, "base/config.json", "\"num_hidden_layers\": 2", to);
        })
    };
    vec![
        row("config: missing", MERGE, &["./a", "config.json"], |f| remove(f, "a/config.json")),
        text("config: empty", &["not a readable configuration"], ""),
        text("config: a list", &["not a readable configuration"], "[]"),
        text("config: null", &["not a readable configuration"], "null"),
        text("config: a Python dict", &["not a readable configuration"], "{'model_type': 'llama'}"),
        text("config: NaN", &["not a readable configuration"], r#"{"rms_norm_eps": NaN}"#),
        text("config: cut", &["not a readable configuration"], r#"{"model_type": "lla"#),
        text("config: without model_type and architectures", &["./a", "./base"], "{}"),
        text("config: a model_type that is a number", &["./a", "./base"], r#"{"model_type": 3, "architectures": []}"#),
        row("config: not UTF-8", MERGE, &[config, "UTF-8"], |f| write(f, "a/config.json", b"{\"a\": \"\xff\"}")),
        row("config: UTF-16", MERGE, &[config, "UTF-8"], |f| write(f, "a/config.json", b"\xff\xfe{\x00}\x00")),
        row("config: nested 100,000 deep and not closed", MERGE, &[config], |f| write(f, "a/config.json", "{\"a\":".repeat(100_000))),
        row("config: a string of 5 MB", MERGE, &[config], |f| write(f, "a/config.json", format!("\"{}\"", "x".repeat(5_000_000)))),
        row("config: 100 MB", MERGE, &[config, "at most"], |f| cut(f, "a/config.json", 100_000_000)),
        row("config: 4 MB of keys, and then not closed", MERGE, &[config], |f| {
            let keys: String = (0..330_000).map(|i| format!("\"{i:x}\":0,")).collect();
            write(f, "a/config.json", format!("{{{keys}"));
        }),
        row("config: a pipe", MERGE, &["./a"], |f| pipe_instead(f, "a/config.json")),
        row("config: a folder", MERGE, &["./a"], |f| folder_instead(f, "a/config.json")),
        row("config: a link to itself", MERGE, &["./a"], |f| link_instead(f, "a/config.json", "config.json")),
        row("config: a link to /dev/zero", MERGE, &["./a"], |f| link_instead(f, "a/config.json", "/dev/zero")),
        row("config: of another architecture", MERGE, &["./a is bert", "./base is llama"], |f| {
            patch(f, "a/config.json", "\"model_type\": \"llama\"", "\"model_type\": \"bert\"");
        }),
        layers("config: no layer count", &["looked for num_hidden_layers"], "\"other\": 2"),
        layers("config: a negative layer count", &["num_hidden_layers: -2"], "\"num_hidden_layers\": -2"),
        layers("config: a layer count that is a string", &["num_hidden_layers: \"two\""], "\"num_hidden_layers\": \"two\""),
        row("config: more layers than there are", "merge slices.yml out", &["says 99 layers", "layer 2"], |f| {
            for model in ["base", "a"] {
                patch(f, &format!("{model}/config.json"), "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 99");
                patch(f, "slices.yml", "[0, 2]", "[0, 99]");
            }
        }),
        row("config: 4,000,000,000 layers", "merge slices.yml out", &["4000000000"], |f| {
            for model in ["base", "a"] {
                patch(f, &format!("{model}/config.json"), "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4000000000");
                patch(f, "slices.yml", "[0, 2]", "[0, 4000000000]");
            }
        }),
        row("config: the base's is missing", MERGE, &["./base", "config.json"], |f| remove(f, "base/config.json")),
        row("dare: config of the model is a list", "dare base a out --drop-rate 0.5", &[config], |f| write(f, "a/config.json", "[]")),
    ]
}

fn tokenizers() -> Vec<Row> {
    const VOCABULARY: &str = "merge vocabulary.yml out";
    let text =
        |name: &'static str, text: &'static str| row(name, VOCABULARY, &["a/tokenizer.json"], move |f| write(f, "a/tokenizer.json", text));
    vec![
        row("tokenizer: 7,000,000 tokens", VOCABULARY, &["a/tokenizer.json", "2000000 tokens"], |f| {
            let tokens: String = (0..7_000_000).map(|i| format!(",\"{i:x}\":{i}")).collect();
            write(f, "a/tokenizer.json", format!("{{\"model\":{{\"vocab\":{{\"<s>\":0{tokens}}}}}}}"));
        }),
        text("tokenizer: empty", ""),
        text("tokenizer: without a model", "{}"),
        text("tokenizer: a negative row", r#"{"model": {"vocab": {"a": -1}}}"#),
        text("tokenizer: a vocabulary that is a string", r#"{"model": {"vocab": "abc"}}"#),
        row("tokenizer: another vocabulary than the base's", VOCABULARY, &["./a", "./base"], |f| {
            write(f, "a/tokenizer.json", r#"{"model": {"vocab": {"quite": 0, "other": 1}}}"#);
        }),
        row("tokenizer: a pipe", VOCABULARY, &["a/tokenizer.json", "not a file"], |f| pipe_instead(f, "a/tokenizer.json")),
        row("tokenizer: nested 100,000 deep", VOCABULARY, &["a/tokenizer.json"], |f| {
            write(f, "a/tokenizer.json", format!("{{\"model\": {}", "{\"vocab\": ".repeat(100_000)));
        }),
        row(
            "side files: a link to a file of this machine",
            MERGE,
            &["base/tokenizer_config.json", "a link out of the model's folder"],
            |f| {
                link_instead(f, "base/tokenizer_config.json", "/etc/passwd");
            },
        ),
        row("side files: a link to a neighbour's file", MERGE, &["base/secret.py", "a link out of the model's folder"], |f| {
            write(f, "secret", "mine");
            symlink("../secret", f.join("base/secret.py")).unwrap();
        }),
        row("side files: a link to nothing", MERGE, &["base/tokenizer.json", "points to gone, which is not there"], |f| {
            link_instead(f, "base/tokenizer.json", "gone");
        }),
        row("side files: a pipe", MERGE, &["base/generation_config.json", "named pipe"], |f| {
            pipe_instead(f, "base/generation_config.json")
        }),
        row("side files: a folder", MERGE, &["base/chat_template.jinja", "found a folder"], |f| {
            std::fs::create_dir(f.join("base/chat_template.jinja")).unwrap();
        }),
        row("side files: a template that links to the root", MERGE, &["additional_chat_templates"], |f| {
            std::fs::create_dir(f.join("base/additional_chat_templates")).unwrap();
            symlink("/etc/passwd", f.join("base/additional_chat_templates/x.jinja")).unwrap();
        }),
    ]
}
