//! Recipes.

use crate::fixture::*;
use crate::{Row, row};

const MERGE: &str = "merge r.yml out";

pub fn rows() -> Vec<Row> {
    let mut rows = files();
    rows.extend(yaml());
    rows.extend(values());
    rows.extend(models());
    rows
}

/// A recipe in place of the good one.
fn recipe(name: &'static str, says: &[&'static str], text: impl AsRef<[u8]> + 'static) -> Row {
    row(name, MERGE, &[&["r.yml"], says].concat(), move |f| write(f, "r.yml", &text))
}

/// The good recipe with one thing changed.
fn changed(name: &'static str, says: &[&'static str], from: &'static str, to: &'static str) -> Row {
    row(name, MERGE, says, move |f| patch(f, "r.yml", from, to))
}

fn files() -> Vec<Row> {
    vec![
        row("recipe: not there", MERGE, &["r.yml", "opening"], |f| remove(f, "r.yml")),
        row("recipe: a folder", MERGE, &["r.yml"], |f| folder_instead(f, "r.yml")),
        row("recipe: a link to itself", MERGE, &["r.yml"], |f| link_instead(f, "r.yml", "r.yml")),
        row("recipe: /dev/zero", MERGE, &["r.yml", "1000000 bytes"], |f| link_instead(f, "r.yml", "/dev/zero")),
        row("recipe: a model's weights", "merge base/model.safetensors out", &["base/model.safetensors:"], |_| ()).good(MERGE),
        row("recipe: a model's config", "merge base/config.json out", &["base/config.json"], |_| ()).good(MERGE),
        row("recipe: a model's folder", "merge base out", &["base"], |_| ()).good(MERGE),
        row("recipe: nothing on stdin", "merge - out", &["stdin", "empty"], |_| ()).good(MERGE),
        recipe("recipe: empty", &["empty"], ""),
        recipe("recipe: only a comment", &["empty"], "# merge_method: ties\n"),
        recipe("recipe: not UTF-8", &["r.yml:2", "UTF-8"], b"# a\nmerge_method: \xff\n"),
        recipe("recipe: UTF-16", &["UTF-8"], b"\xff\xfem\x00e\x00r\x00"),
        recipe("recipe: binary", &["r.yml:1"], (0..128).collect::<Vec<u8>>()),
        recipe("recipe: 1.1 MB", &["1000000 bytes"], vec![b'#'; 1_100_000]),
    ]
}

/// What YAML allows and what it does not.
fn yaml() -> Vec<Row> {
    let laughs = |levels: u8| -> String {
        let mut text = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..levels {
            let (name, before) = (char::from(b'a' + level), char::from(b'a' + level - 1));
            text += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(", "));
        }
        text
    };
    vec![
        recipe("yaml: a list", &["mapping"], "- merge_method: linear\n"),
        recipe("yaml: a word", &["mapping"], "linear\n"),
        recipe("yaml: tabs", &["r.yml:4", "tabs"], "merge_method: linear\nbase_model: ./base\nmodels:\n\t- model: ./a\n"),
        recipe("yaml: not closed", &["r.yml:"], "models: [{model: ./a\n"),
        recipe("yaml: a quote that is not closed", &["r.yml:"], "merge_method: \"linear\nmodels: []\n"),
        recipe("yaml: a key twice", &["r.yml:2", "twice"], "merge_method: ties\nmerge_method: linear\n"),
        recipe("yaml: a key that is a list", &["r.yml:1"], "? [a, b]\n: c\n"),
        recipe("yaml: an alias of nothing", &["r.yml:1"], "merge_method: *x\n"),
        recipe("yaml: an anchor within itself", &["r.yml:1"], "a: &a [*a]\n"),
        recipe("yaml: a merge key of itself", &["r.yml:1"], "a: &a {<<: *a}\n"),
        recipe("yaml: a merge key of text", &["r.yml:1", "<<"], "<<: text\n"),
        recipe("yaml: a thousand million laughs", &["r.yml:"], laughs(10)),
        recipe("yaml: laughs in a merge key", &["r.yml:"], format!("{}<<: *g\n", laughs(7))),
        recipe("yaml: lists 100,000 deep", &["r.yml:1", "recursion limit"], format!("a: {}\n", "[".repeat(100_000))),
        recipe("yaml: mappings 100,000 deep", &["r.yml:1", "deep"], format!("a: {}\n", "{a: ".repeat(100_000))),
        recipe("yaml: indented 1,000 deep", &["r.yml:", "deep"], (0..1000).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>()),
        recipe("yaml: dashes 100,000 deep", &["r.yml:", "deep"], "- ".repeat(100_000)),
        recipe("yaml: keys of keys 100,000 deep", &["r.yml:", "deep"], "? ".repeat(100_000)),
        recipe("yaml: a Python object", &["r.yml:1", "tag"], "merge_method: !!python/object/apply:os.system [\"touch owned\"]\n"),
        recipe("yaml: two documents", &["r.yml:", "not yet"], format!("{RECIPE}---\n{RECIPE}")),
        recipe("yaml: a line of 900 kB", &["r.yml:1"], format!("{}: 1\n", "k".repeat(900_000))),
        recipe("yaml: a terminal's escapes", &["\\u{1b}"], "merge_method: \"\\e[2Jok\"\nmodels: []\n"),
        recipe("yaml: 50,000 unknown keys, --strict", &["r.yml:"], {
            let keys: String = (0..50_000).map(|i| format!("unknown_{i}: 1\n")).collect();
            format!("{keys}{RECIPE}")
        })
        .run("merge --strict r.yml out"),
    ]
}

fn values() -> Vec<Row> {
    let top = |name: &'static str, says: &[&'static str], line: &'static str| recipe(name, says, format!("{RECIPE}{line}\n"));
    let weight =
        |name: &'static str, says: &[&'static str], to: &'static str| changed(name, &[&["r.yml:5"], says].concat(), "weight: 0.5", to);
    vec![
        weight("weight: NaN", &["weight", "nan"], "weight: .nan"),
        weight("weight: infinite", &["weight", "inf"], "weight: .inf"),
        weight("weight: minus infinity", &["weight", "inf"], "weight: -.inf"),
        weight("weight: 1e999", &["weight", "1e999"], "weight: 1e999"),
        weight("weight: a word", &["weight", "half"], "weight: half"),
        weight("weight: a mapping", &["weight"], "weight: {a: 1}"),
        weight("weight: NaN in a gradient", &["weight", "nan"], "weight: [0.5, .nan]"),
        weight("weight: lists 70 deep", &["r.yml:5"], Box::leak(format!("weight: {}1{}", "[".repeat(70), "]".repeat(70)).into_boxed_str())),
        weight("weight: misspelt", &["did you mean `weight`"], "wieght: 0.5"),
        changed("weight: not given", &["r.yml:4", "weight"], "    parameters: {weight: 0.5}\n", ""),
        changed("weight: overflows f32", &["weight"], "weight: 0.5", "weight: 1e300"),
        changed(
            "density: 2",
            &["r.yml:", "density"],
            RECIPE,
            "merge_method: ties\nbase_model: ./base\nmodels: [{model: ./a, parameters: {weight: 1, density: 2}}]\n",
        ),
        changed(
            "density: -0.1",
            &["r.yml:", "density"],
            RECIPE,
            "merge_method: ties\nbase_model: ./base\nmodels: [{model: ./a, parameters: {weight: 1, density: -0.1}}]\n",
        ),
        changed("method: unknown", &["r.yml:1", "unknown method"], "task_arithmetic", "task_arithmetik_2"),
        changed("method: 5,000 letters", &["r.yml:1", "unknown method"], "task_arithmetic", Box::leak("x".repeat(5000).into_boxed_str())),
        changed("method: a list", &["r.yml:1", "merge_method"], "task_arithmetic", "[ties, linear]"),
        changed("method: none", &["r.yml", "merge_method"], "merge_method: task_arithmetic\n", ""),
        changed("method: not built yet", &["r.yml:1", "not yet"], "task_arithmetic", "della"),
        changed("method: slerp of three models", &["r.yml", "slerp"], "task_arithmetic", "slerp"),
        top("preset: unknown", &["r.yml:8", "preset"], "preset: papr"),
        top("seed: -1", &["r.yml:8", "seed"], "seed: -1"),
        top("seed: 2^64", &["r.yml:8", "seed"], "seed: 18446744073709551616"),
        top("seed: a word", &["r.yml:8", "seed"], "seed: random"),
        top("sparsify: drop rate 2", &["r.yml:8", "drop_rate"], "sparsify: {kind: dare, drop_rate: 2}"),
        top("sparsify: drop rate NaN", &["r.yml:8", "drop_rate"], "sparsify: {kind: dare, drop_rate: .nan}"),
        top("sparsify: no rate", &["r.yml:8", "drop_rate"], "sparsify: {kind: dare}"),
        top("sparsify: unknown kind", &["r.yml:8", "known: dare"], "sparsify: {kind: dear, drop_rate: 0.5}"),
        top("sparsify: a list", &["r.yml:8", "sparsify"], "sparsify: [dare, 0.5]"),
        top("exclude: no expression", &["r.yml:8", "exclude"], "exclude: ['(']"),
        top("exclude: an expression that explodes", &["r.yml:8", "exclude"], "exclude: ['((a{1000}){1000}){1000}']"),
        top(
            "exclude: an expression 10,000 deep",
            &["r.yml:8", "exclude"],
            Box::leak(format!("exclude: ['{}{}']", "(".repeat(10_000), ")".repeat(10_000)).into_boxed_str()),
        ),
        top(
            "exclude: 20,000 expressions",
            &["r.yml:8", "exclude"],
            Box::leak(format!("exclude: [{}]", vec!["'\\w{5}'"; 20_000].join(", ")).into_boxed_str()),
        ),
        top("exclude: look-around", &["r.yml:8", "exclude"], "exclude: ['(?!lm_head).*']"),
        top("out_dtype: unknown", &["r.yml:8", "out_dtype"], "out_dtype: float7"),
        top("dtype: an integer type", &["r.yml:8", "dtype"], "dtype: int8"),
        top("tokenizer_source: not one of the models", &["tokenizer_source"], "tokenizer_source: ./sharded"),
    ]
}

fn models() -> Vec<Row> {
    let slices = |name: &'static str, says: &[&'static str], from: &'static str, to: &'static str| {
        row(name, "merge slices.yml out", says, move |f| patch(f, "slices.yml", from, to))
    };
    vec![
        changed("models: none", &["r.yml"], RECIPE, "merge_method: linear\nmodels: []\n"),
        changed("models: not given", &["r.yml", "models"], RECIPE, "merge_method: linear\n"),
        changed("models: a mapping", &["r.yml:3", "list"], RECIPE, "merge_method: linear\n\nmodels: {model: ./a}\n"),
        changed("models: names alone", &["r.yml:2", "mapping"], RECIPE, "merge_method: linear\nmodels: [./a, ./b]\n"),
        changed("models: no base", &["r.yml", "base_model"], "base_model: ./base\n", ""),
        changed("models: beside slices", &["slices"], "models:", "slices: []\nmodels:"),
        changed("models: one missing", &["./nowhere", "not there"], "./a", "./nowhere"),
        changed("models: the base missing", &["./nowhere", "not there"], "./base", "./nowhere"),
        changed("models: a Hub name that is not here", &["org/name", "hf download"], "./a", "org/name"),
        changed("models: two @", &["r.yml:4", "@"], "./a", "a@b@c"),
        changed("models: two +", &["r.yml:4", "+"], "./a", "a+b+c"),
        changed("models: an empty name", &["r.yml:4"], "./a", "''"),
        changed("models: a name of 5,000 letters", &["x/x"], "./a", Box::leak("x/".repeat(2500).into_boxed_str())),
        changed("models: a name with a terminal's escapes", &["\\u{1b}"], "./a", "\"./\\e[2Ja\""),
        changed("models: a name with a zero byte", &["not there"], "./a", "\"./a\\0\""),
        changed("models: one under two names", &["the same model"], "- model: ./b", "- model: ./x/../a")
            .with(|f| std::fs::create_dir(f.join("x")).unwrap()),
        changed("models: the home of nobody", &["not there"], "./a", "/nowhere/at/all"),
        slices("slices: beyond the last layer", &["layer", "2"], "./a, layer_range: [0, 2]", "./a, layer_range: [1, 3]"),
        slices(
            "slices: far beyond",
            &["layer"],
            "[0, 2]}, {model: ./a, layer_range: [0, 2]",
            "[0, 4000000000]}, {model: ./a, layer_range: [0, 4000000000]",
        ),
        row("slices: layers numbered 00 and 01", "merge slices.yml out", &["./base", "layer 0"], |f| {
            for model in ["base", "a"] {
                let weights = format!("{model}/model.safetensors");
                let header = String::from_utf8_lossy(&std::fs::read(f.join(&weights)).unwrap()).into_owned();
                (0..header.matches(".layers.").count()).for_each(|_| patch_header(f, &weights, ".layers.", ".Layers.0"));
                (0..header.matches(".layers.").count()).for_each(|_| patch_header(f, &weights, ".Layers.", ".layers."));
            }
        }),
        slices("slices: backwards", &["slices.yml:3", "no layer"], "[0, 2]", "[2, 0]"),
        slices("slices: empty", &["slices.yml:3", "no layer"], "[0, 2]", "[1, 1]"),
        slices("slices: negative", &["slices.yml:3", "whole numbers"], "[0, 2]", "[-1, 1]"),
        slices("slices: three numbers", &["slices.yml:3", "whole numbers"], "[0, 2]", "[0, 1, 2]"),
        slices("slices: of different lengths", &["slices.yml:3", "as many layers"], "[0, 2]", "[0, 1]"),
        slices(
            "slices: none",
            &["slices.yml:3"],
            "[{sources: [{model: ./base, layer_range: [0, 2]}, {model: ./a, layer_range: [0, 2]}]}]",
            "[]",
        ),
        slices("slices: no range", &["slices.yml:3", "layer_range"], "layer_range: [0, 2]", "name: x"),
        slices("slices: one of two missing for slerp", &["slerp"], ", {model: ./a, layer_range: [0, 2]}", ""),
    ]
}
