//! Chat templates of published models, against what transformers' apply_chat_template made of the same conversations
//! (`tests/python/chat_templates.py` recorded `chat_templates/expected.json`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deltaic_lm::ChatTemplate;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat_templates")
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, &BTreeMap::new()).unwrap()
}

#[test]
fn published_templates_give_the_texts_of_transformers() {
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(folder().join("expected.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["template"].as_str().unwrap();
        let source = fs::read_to_string(folder().join(format!("{name}.jinja"))).unwrap();
        let special: BTreeMap<String, String> = serde_json::from_value(case["special"].clone()).unwrap();
        let messages = case["messages"].as_array().unwrap();
        let found = ChatTemplate::new(&source, &special).unwrap().render(messages, case["add_generation_prompt"] == true);
        match (&found, case["text"].as_str(), case["error"].as_str()) {
            (Ok(found), Some(expected), _) if found == expected => {}
            (Err(error), None, Some(expected)) if error.message().contains(expected) => {}
            _ => wrong.push(format!("{name} {}\n  expected {:?}{:?}\n  found    {found:?}", case["messages"], case["text"], case["error"])),
        }
    }
    assert!(cases.len() > 200);
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn templates_are_found_in_all_three_files_and_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let rendered = || ChatTemplate::open(folder.path()).unwrap().map(|template| template.render(&[json!({})], false).unwrap());
    assert_eq!(rendered(), None);
    write("tokenizer_config.json", r#"{"bos_token": {"content": "<s>"}, "chat_template": "a{{ bos_token }}"}"#);
    assert_eq!(rendered().as_deref(), Some("a<s>"));
    let named = r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    write("tokenizer_config.json", named);
    assert_eq!(rendered().as_deref(), Some("d"));
    write("chat_template.json", r#"{"chat_template": "j"}"#);
    assert_eq!(rendered().as_deref(), Some("j"));
    write("chat_template.jinja", "file\n");
    assert_eq!(rendered().as_deref(), Some("file"));
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    write("chat_template.json", r#"{"chat_template": [{"name": "rag", "template": "t"}]}"#);
    let error = ChatTemplate::open(folder.path()).unwrap_err();
    assert!(error.message().contains("expected one called `default`, found rag"), "{error}");
}

#[test]
fn the_date_is_today_in_the_format_that_the_template_asks_for() {
    let template = template("{{ strftime_now('%Y|%d %b %Y|%%') }}");
    assert!(template.uses_date());
    let text = template.render(&[json!({})], false).unwrap();
    let parts: Vec<&str> = text.split('|').collect();
    assert!(parts[0].parse::<u32>().unwrap() >= 2024 && parts[1].ends_with(parts[0]) && parts[1].len() == 11 && parts[2] == "%", "{text}");
}

#[test]
fn an_error_says_what_the_template_says() {
    let template = template("line\n{{ raise_exception('roles must alternate') }}");
    let error = template.render(&[json!({})], false).unwrap_err();
    assert!(error.message().contains("roles must alternate") && error.message().contains(":2"), "{error}");
    assert!(ChatTemplate::new("{% if %}", &BTreeMap::new()).unwrap_err().message().contains("not a readable chat template"));
}

#[test]
fn hostile_templates_end_with_an_error() {
    let hostile = [
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(90000) %}{% for j in range(90000) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(50000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('true') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ strftime_now('%Q%') }}",
        "{{ messages[0].missing.attribute }}",
        "{{ 'a'.replace('', 'b' * 100000) * 1000 }}",
    ];
    for source in hostile {
        let result = ChatTemplate::new(source, &BTreeMap::new()).and_then(|template| template.render(&[json!({"role": "user"})], true));
        assert!(result.is_err(), "{source}: {:?}", result.map(|text| text.len()));
    }
    let long = "x".repeat(2 << 20);
    assert!(ChatTemplate::new(&long, &BTreeMap::new()).unwrap_err().message().contains("expected at most"));
}
