//! Every built-in task's file, and what a user's file can get wrong.

use std::fs;

use deltaic_eval::task::{Direction, built_in, find, names};
use deltaic_eval::{Data, Task};
use tempfile::TempDir;

#[test]
fn every_built_in_task_can_be_read_and_goes_by_its_files_name() {
    let all: Vec<&str> = names().collect();
    assert_eq!(all.len(), 27);
    for name in all {
        let task = built_in(name).unwrap().unwrap();
        assert_eq!(task.task, name);
        let lower = ["perplexity", "wikitext", "answer_nll"].contains(&name);
        assert_eq!(task.direction == Direction::Lower, lower, "{name}");
        assert_eq!(task.headline.0.is_empty(), name == "alpaca_eval", "{name}");
    }
}

#[test]
fn the_headlines_are_those_of_the_protocols() {
    for (name, headline) in [
        ("glue/cola", "matthews"),
        ("glue/mrpc", "accuracy f1"),
        ("glue/stsb", "pearson spearman"),
        ("glue/qqp", "accuracy f1"),
        ("glue/mnli", "accuracy"),
        ("gsm8k", "accuracy"),
        ("math", "accuracy"),
        ("gsm8k_fewshot", "flexible_extract"),
        ("humaneval", "pass@1"),
        ("mbpp_harness", "pass@1"),
        ("arc_challenge", "acc_norm"),
        ("hellaswag", "acc_norm"),
        ("mmlu", "acc"),
        ("winogrande", "acc"),
        ("truthfulqa_mc1", "acc"),
        ("truthfulqa_mc2", "mass"),
        ("perplexity", "word_perplexity"),
        ("answer_nll", "nll"),
    ] {
        assert_eq!(find(name).unwrap().headline.0.join(" "), headline, "{name}");
    }
}

const GOOD: &str = "\
task: mine
description: a task of one's own
headline: accuracy
data:
  files: [mine.jsonl]
generation:
  prompt: \"{{ question }}\"
  max_new_tokens: 16
  answer: \"{{ answer }}\"
  scores:
    - {metric: accuracy, regex: '[0-9]+'}
";

/// What is said of the good task with one text replaced.
fn said(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    Task::parse("mine.yml", &GOOD.replace(from, to)).unwrap_err().to_string()
}

#[test]
fn a_users_file_is_a_task() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("mine.yml");
    fs::write(&path, GOOD).unwrap();
    assert_eq!(find(path.to_str().unwrap()).unwrap().task, "mine");
}

#[test]
fn an_unknown_key_is_an_error_with_line_and_suggestion() {
    let message = said("max_new_tokens", "max_new_token");
    assert!(message.starts_with("mine.yml:8: unknown field `max_new_token`"), "{message}");
    assert!(message.contains("did you mean `max_new_tokens`?"), "{message}");
    assert!(said("headline:", "headlin:").contains("did you mean `headline`?"));
}

#[test]
fn mistakes_in_a_task_file_are_errors_that_say_where() {
    for (from, to, expected) in [
        ("{{ question }}", "{{ question", "mine.yml:7"),
        ("[0-9]+", "[0-9", "mine.yml: the pattern"),
        ("headline: accuracy", "headline: f1", "the headline `f1` is no metric of this task"),
        ("max_new_tokens: 16", "max_new_tokens: 0", "expected 1 to 1048576 new tokens, found 0"),
        ("max_new_tokens: 16", "max_new_tokens: many", "mine.yml:8"),
        ("  answer: \"{{ answer }}\"\n", "", "there is no answer to compare with"),
        ("regex: '[0-9]+'", "regex: '[0-9]+', protocol: gsm8k", "expected a protocol or a regex, found both"),
        ("regex: '[0-9]+'", "protocol: gsm9k", "unknown variant `gsm9k`"),
        ("[mine.jsonl]", "[]", "data.files is empty"),
        ("generation:", "perplexity: {text: a}\ngeneration:", "expected one kind of task, found several"),
        ("task: mine", "task: [mine", "mine.yml:"),
        ("description: a task of one's own\n", "", "missing field `description`"),
        ("files: [mine.jsonl]", "files: [mine.jsonl]\n  keep: question ==", "mine.yml:6"),
    ] {
        let message = said(from, to);
        assert!(message.contains(expected), "{from} -> {to}: {message}");
    }
}

#[test]
fn a_name_that_is_nearly_a_tasks_is_suggested() {
    assert!(find("mrcp").unwrap_err().to_string().contains("did you mean `glue/mrpc`?"));
    assert!(find("arc").unwrap_err().to_string().contains("did you mean `arc_easy` or `arc_challenge`?"));
    assert!(find("truthfulqa").unwrap_err().to_string().contains("did you mean `truthfulqa_mc1` or `truthfulqa_mc2`?"));
    assert!(find("glue").unwrap_err().to_string().contains("did you mean `glue/cola` or"));
    assert!(find("nothing-like-it").unwrap_err().to_string().contains("glue/cola"));
    assert!(find("not-there.yml").unwrap_err().to_string().contains("not-there.yml"));
}

#[test]
fn a_file_that_is_too_deep_or_grows_by_anchors_ends_in_an_error() {
    let deep = format!("task: {}", "[".repeat(100_000));
    assert!(Task::parse("deep.yml", &deep).is_err());
    let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in ('b'..='k').zip('a'..) {
        laughs += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(", "));
    }
    assert!(Task::parse("laughs.yml", &laughs).is_err());
}

#[test]
fn a_field_that_an_item_lacks_is_an_error_with_its_line() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("mine.jsonl"), "{\"question\": \"1\", \"answer\": \"1\"}\n\n{\"quest\": \"2\", \"answer\": \"2\"}\n")
        .unwrap();
    let task = Task::parse("mine.yml", GOOD).unwrap();
    let data = Data::read(&task, folder.path()).unwrap();
    assert_eq!(data.items.len(), 2);
    assert!(data.items[1].place.ends_with("mine.jsonl:3"));
    let cancel = std::sync::atomic::AtomicBool::new(false);
    let options = deltaic_eval::RunOptions::new(&cancel);
    let mut evaluation = deltaic_eval::Evaluation::read(&task, Some(folder.path()), &options).unwrap();
    let message = evaluation.requests(None).unwrap_err().to_string();
    let expected = "there is no field `question`; there are `answer`, `file_stem`, `quest`";
    assert!(message.contains("mine.jsonl:3") && message.contains(expected), "{message}");
    let keep = Task::parse("mine.yml", &GOOD.replace("[mine.jsonl]", "[mine.jsonl]\n  keep: number > 1")).unwrap();
    let message = Data::read(&keep, folder.path()).unwrap_err().to_string();
    assert!(message.contains("there is no field `number`; there are `answer`, `file_stem`, `question`"), "{message}");
}

#[test]
fn a_text_that_a_filter_makes_is_bounded_and_else_as_the_pattern_says() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("mine.jsonl"), "{\"question\": \"a1b22\", \"answer\": \"1\"}\n").unwrap();
    let define = |expression: &str| {
        let task =
            Task::parse("mine.yml", &GOOD.replace("[mine.jsonl]", &format!("[mine.jsonl]\n  define:\n    made: {expression}"))).unwrap();
        Data::read(&task, folder.path()).map(|data| data.items[0].fields.get_attr("made").unwrap().to_string())
    };
    assert_eq!(define(r#"question | regex_replace("([a-z])([0-9]+)", "$2-$1;")"#).unwrap(), "1-a;22-b;");
    assert_eq!(define(r#"question | regex_replace("", ".")"#).unwrap(), ".a.1.b.2.2.");
    let message = define(r#"("x" * 1000000) | regex_replace("x", "y" * 1000000)"#).unwrap_err().to_string();
    assert!(message.contains("the text grows beyond"), "{message}");
}

const PERPLEXITY: &str = "\
task: mine
description: documents of one's own
headline: nll
data:
  files: [mine.txt]
perplexity:
  text: \"{{ text }}\"
";

#[test]
fn the_direction_is_the_headlines_and_another_one_is_an_error() {
    assert_eq!(Task::parse("mine.yml", GOOD).unwrap().direction, Direction::Higher);
    assert_eq!(Task::parse("mine.yml", PERPLEXITY).unwrap().direction, Direction::Lower);
    let given = |text: &str, direction: &str| Task::parse("mine.yml", &text.replace("data:", &format!("direction: {direction}\ndata:")));
    assert_eq!(given(PERPLEXITY, "lower").unwrap().direction, Direction::Lower);
    let message = given(PERPLEXITY, "higher").unwrap_err().to_string();
    assert!(message.contains("of `nll`, which is in the headline, the lower value is the better one"), "{message}");
    // A metric that the task's own file names may be an error as well as a score.
    assert_eq!(given(GOOD, "lower").unwrap().direction, Direction::Lower);
}

#[test]
fn f1_and_matthews_are_of_two_labels() {
    let text = |labels: &str, metric: &str| {
        format!(
            "task: mine\ndescription: d\nheadline: {metric}\ndata:\n  files: [a.tsv]\nclassification:\n  text: \"{{{{ a }}}}\"\n  label: \"{{{{ b }}}}\"\n  \
             labels: {labels}\n  metrics: [{metric}]\n"
        )
    };
    for metric in ["f1", "matthews"] {
        assert!(Task::parse("mine.yml", &text("[[a], [b]]", metric)).is_ok());
        let message = Task::parse("mine.yml", &text("[[a], [b], [c]]", metric)).unwrap_err().to_string();
        assert!(message.contains(&format!("{metric} is a metric of two labels, found 3")), "{message}");
    }
    assert!(Task::parse("mine.yml", &text("[[a], [b], [c]]", "accuracy")).is_ok());
}
