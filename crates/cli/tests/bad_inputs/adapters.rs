//! PEFT adapters.

use crate::fixture::*;
use crate::{Row, row};

const MERGE: &str = "merge adapter.yml out";
const CONFIG: &str = "adapter/adapter_config.json";
const FACTORS: &str = "adapter/adapter_model.safetensors";
const LORA_A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const LORA_B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

pub fn rows() -> Vec<Row> {
    let mut rows = configurations();
    rows.extend(factors());
    rows
}

fn configurations() -> Vec<Row> {
    let set = |name: &'static str, says: &[&'static str], from: &'static str, to: &'static str| {
        row(name, MERGE, &[&["adapter"], says].concat(), move |f| patch(f, CONFIG, from, to))
    };
    let kind = "\"peft_type\": \"LORA\"";
    vec![
        set("adapter: another PEFT method", &["IA3", "merge_and_unload"], "LORA", "IA3"),
        set("adapter: no peft_type", &["none"], "peft_type", "type"),
        set("adapter: a peft_type of 5,000 letters", &["LoRA"], "LORA", Box::leak("X".repeat(5000).into_boxed_str())),
        set("adapter: DoRA", &["use_dora"], kind, "\"peft_type\": \"LORA\", \"use_dora\": true"),
        set("adapter: a key that may change what it adds", &["rotate"], kind, "\"peft_type\": \"LORA\", \"rotate\": 3"),
        set("adapter: begun with PiSSA", &["pissa"], kind, "\"peft_type\": \"LORA\", \"init_lora_weights\": \"pissa\""),
        set("adapter: rank 0", &["`r`", "found 0"], "\"r\": 2", "\"r\": 0"),
        set("adapter: rank -2", &["`r`", "found -2"], "\"r\": 2", "\"r\": -2"),
        set("adapter: rank that is text", &["`r`"], "\"r\": 2", "\"r\": \"2\""),
        set("adapter: another rank than its factors", &["rank"], "\"r\": 2", "\"r\": 3"),
        set("adapter: rank 2^63", &["rank"], "\"r\": 2", "\"r\": 9223372036854775808"),
        set("adapter: alpha NaN", &["adapter_config.json"], "\"lora_alpha\": 4", "\"lora_alpha\": NaN"),
        set("adapter: alpha 1e999", &["adapter_config.json"], "\"lora_alpha\": 4", "\"lora_alpha\": 1e999"),
        set("adapter: alpha beyond f32", &["lora_alpha", "1e"], "\"lora_alpha\": 4", "\"lora_alpha\": 1e300"),
        set("adapter: alpha that is text", &["lora_alpha"], "\"lora_alpha\": 4", "\"lora_alpha\": \"4\""),
        set("adapter: a pattern that is no expression", &["rank_pattern"], kind, "\"peft_type\": \"LORA\", \"rank_pattern\": {\"(\": 2}"),
        set(
            "adapter: a pattern that explodes",
            &["rank_pattern"],
            kind,
            "\"peft_type\": \"LORA\", \"rank_pattern\": {\"((a{1000}){1000}){1000}\": 2}",
        ),
        set("adapter: a pattern with rank 0", &["rank_pattern"], kind, "\"peft_type\": \"LORA\", \"rank_pattern\": {\"q_proj\": 0}"),
        row("adapter: 50,000 patterns", MERGE, &["rank_pattern"], |f| {
            let patterns: String = (0..50_000).map(|i| format!(",\"\\\\w{{5}}x{i}\":2")).collect();
            write(f, CONFIG, format!("{{\"peft_type\":\"LORA\",\"rank_pattern\":{{\"x\":2{patterns}}}}}"));
        }),
        row("adapter: config is a list", MERGE, &["adapter_config.json"], |f| write(f, CONFIG, "[]")),
        row("adapter: config is empty", MERGE, &["adapter_config.json"], |f| write(f, CONFIG, "")),
        row("adapter: config nested 100,000 deep", MERGE, &["adapter_config.json"], |f| write(f, CONFIG, "[".repeat(100_000))),
        row("adapter: no config", MERGE, &["./adapter", "adapter_config.json"], |f| remove(f, CONFIG)),
        row("adapter: config is a pipe", MERGE, &["adapter"], |f| pipe_instead(f, CONFIG)),
        row("adapter: a whole model in its place", MERGE, &["/b: ", "adapter_config.json"], |f| {
            patch(f, "adapter.yml", "+./adapter", "+./b")
        }),
    ]
}

fn factors() -> Vec<Row> {
    let header = |name: &'static str, says: &[&'static str], from: &'static str, to: &'static str| {
        row(name, MERGE, &[&["adapter"], says].concat(), move |f| patch_header(f, FACTORS, from, to))
    };
    vec![
        row("adapter: no factors", MERGE, &["adapter_model.safetensors"], |f| remove(f, FACTORS)),
        row("adapter: factors cut", MERGE, &["adapter_model.safetensors", "cut off"], |f| cut(f, FACTORS, 500)),
        row("adapter: factors are a pickle", MERGE, &["adapter_model"], |f| {
            std::fs::rename(f.join(FACTORS), f.join("adapter/adapter_model.bin")).unwrap();
        }),
        header("adapter: A without B", &["lora_A", "q_proj"], LORA_B, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"),
        header("adapter: B without A", &["lora_B", "q_proj"], LORA_A, "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"),
        header("adapter: A of another width than the base", &["q_proj", "[4, 16]"], "\"shape\":[2,32]", "\"shape\":[4,16]"),
        header("adapter: A of three dimensions", &["q_proj"], "\"shape\":[2,32]", "\"shape\":[2,32,1]"),
        header("adapter: factors of integers", &["q_proj", "I32"], "\"dtype\":\"F32\"", "\"dtype\":\"I32\""),
        header("adapter: a tensor that is no factor", &["lora_C"], "lora_B", "lora_C"),
        row("adapter: a module that the base does not have", MERGE, &["adapter", "layers.7"], |f| {
            patch_header(f, FACTORS, LORA_A, &LORA_A.replace("layers.0", "layers.7"));
            patch_header(f, FACTORS, LORA_B, &LORA_B.replace("layers.0", "layers.7"));
        }),
        row("adapter: on a base with another width", MERGE, &["adapter"], |f| {
            patch_header(f, "base/model.safetensors", "[32,32],\"data_offsets\":[23680,25728]", "[64,16],\"data_offsets\":[23680,25728]");
        }),
        row("inspect: an adapter with A alone", "inspect base+adapter", &["adapter", "q_proj"], |f| {
            patch_header(f, FACTORS, LORA_B, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight");
        }),
    ]
}
