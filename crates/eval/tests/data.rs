//! Data in the layouts in which it is published, and data that is malformed.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use deltaic_eval::task::built_in;
use deltaic_eval::{Evaluation, Prompt, Request, RunOptions};
use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

fn place(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes = match name.ends_with(".gz") {
        true => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            packed.finish().unwrap()
        }
        false => text.as_bytes().to_vec(),
    };
    fs::write(path, bytes).unwrap();
}

fn requests(task: &str, data: &Path) -> deltaic_checkpoint::Result<Vec<Request>> {
    let task = built_in(task)?.expect("a built-in task");
    let cancel = AtomicBool::new(false);
    let runs = Refuses;
    let options = RunOptions { shots: task.shots.as_ref().map(|_| 0), executor: Some(&runs), ..RunOptions::new(&cancel) };
    let mut evaluation = Evaluation::read(&task, Some(data), &options)?;
    Ok(evaluation.requests(Some("</s>".to_owned()))?.0)
}

struct Refuses;

impl deltaic_eval::Executor for Refuses {
    fn execute(&self, _: &[String], _: &AtomicBool, _: &(dyn Fn(usize) + Sync)) -> deltaic_checkpoint::Result<Vec<deltaic_eval::Executed>> {
        Err(deltaic_checkpoint::Error::new("nothing is run here"))
    }
}

/// What is asked, in one line each.
fn asked(task: &str, name: &str, text: &str) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    place(&folder, name, text);
    let shown = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Chat(messages) => messages.iter().map(|message| format!("<{}>{}", message.role, message.content)).collect(),
    };
    let found = requests(task, folder.path()).unwrap_or_else(|error| panic!("{task} {name}: {error}"));
    let line = |request: &Request| match request {
        Request::Classify { text, pair, .. } => pair.as_ref().map_or_else(|| text.clone(), |pair| format!("{text}|{pair}")),
        Request::LogLikelihood { prompt, continuation, .. } => format!("{}|{continuation}", shown(prompt)),
        Request::Generate { prompt, .. } => shown(prompt),
        Request::Rolling { text } => text.clone(),
    };
    found.iter().map(line).collect()
}

#[test]
fn glue_is_read_in_its_official_layout() {
    let mnli = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label";
    for (task, name, text, expected) in [
        // No header; the sentence is the last column. A double quote is an ordinary character.
        ("glue/cola", "CoLA/dev.tsv", "gj04\t1\t\tThe \"sailors rode.\ngj04\t0\t*\tThe more.\n", vec!["The \"sailors rode.", "The more."]),
        (
            "glue/sst2",
            "SST-2/dev.tsv",
            "sentence\tlabel\nit 's a \"charming journey . \t1\r\nbleak\t0",
            vec!["it 's a \"charming journey . ", "bleak"],
        ),
        (
            "glue/mrpc",
            "glue/MRPC/dev.tsv",
            "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tHe said \"a.\t\"b.\n",
            vec!["He said \"a.|\"b."],
        ),
        (
            "glue/stsb",
            "STS-B/dev.tsv",
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n0\tg\tf\t2012\t1\tnone\tnone\tA man.\tA woman.\t3.250\n",
            vec!["A man.|A woman."],
        ),
        // Malformed lines of QQP are passed over.
        (
            "glue/qqp",
            "QQP/dev.tsv",
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWhy?\tWhy not?\t0\n4\t5\t6\tbroken\n",
            vec!["Why?|Why not?"],
        ),
        (
            "glue/mnli",
            "MNLI/dev_matched.tsv",
            &format!(
                "{mnli}\n0\t1\t2\tfiction\tb\tb\tp\tp\tIt rains.\tIt is wet.\tneutral\tentailment\tentailment\tneutral\tentailment\tentailment\n"
            ),
            vec!["It rains.|It is wet."],
        ),
        ("glue/qnli", "QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tHe did.\tentailment\n", vec!["Who?|He did."]),
        ("glue/rte", "RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n", vec!["A.|B."]),
    ] {
        assert_eq!(asked(task, name, text), expected, "{task}");
    }
}

#[test]
fn the_hubs_rows_are_the_same_items_as_the_official_ones() {
    let official = r#"{"id": "M1", "question": {"stem": "Why?", "choices": [{"text": "so", "label": "1"}, {"text": "not", "label": "2"}]}, "answerKey": "2"}"#;
    let hub = r#"{"id": "M1", "question": "Why?", "choices": {"text": ["so", "not"], "label": ["1", "2"]}, "answerKey": "2"}"#;
    let arc = asked("arc_challenge", "ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Test.jsonl", official);
    assert_eq!(arc, ["Question: Why?\nAnswer:| so", "Question: Why?\nAnswer:| not"]);
    assert_eq!(arc, asked("arc_challenge", "test.jsonl", hub));

    // The official CSV has no header, and quotes fields.
    let csv = asked("mmlu", "mmlu/test/high_school_physics_test.csv", "\"A \"\"heavy\"\", old ball\nfalls. \",1,2,3,4,C\n");
    let hub =
        r#"{"question": "A \"heavy\", old ball\nfalls. ", "subject": "high_school_physics", "choices": ["1", "2", "3", "4"], "answer": 2}"#;
    assert_eq!(csv, asked("mmlu", "test.jsonl", hub));
    assert_eq!(
        csv[2],
        "The following are multiple choice questions (with answers) about high school physics.\n\nA \"heavy\", old ball\nfalls.\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:| C"
    );

    let official = r#"[{"question": "Is it?", "mc0_targets": {}, "mc1_targets": {"Yes.": 1, "No.": 0}, "mc2_targets": {"Yes.": 1, "No.": 0, "Never.": 0}}]"#;
    let hub = r#"{"question": "Is it?", "mc1_targets": {"choices": ["Yes.", "No."], "labels": [1, 0]}, "mc2_targets": {"choices": ["Yes.", "No.", "Never."], "labels": [1, 0, 0]}}"#;
    for task in ["truthfulqa_mc1", "truthfulqa_mc2"] {
        assert_eq!(asked(task, "mc_task.json", official), asked(task, "validation.jsonl", hub));
    }
    assert_eq!(
        asked(
            "winogrande",
            "dev.jsonl.gz",
            r#"{"qID": "1", "sentence": "Ann met Eve as _ was late. ", "option1": "Ann", "option2": "Eve", "answer": "2"}"#
        ),
        ["Ann met Eve as Ann| was late.", "Ann met Eve as Eve| was late."]
    );
}

#[test]
fn the_papers_prompts_are_as_the_authors_have_them() {
    let gsm8k = asked("gsm8k", "gsm8k_test.jsonl", r##"{"question": "1 + 1?", "answer": "2\n#### 2"}"##);
    assert_eq!(
        gsm8k,
        [
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n1 + 1?\n\n### Response: Let's think step by step."
        ]
    );
    let math = asked(
        "math",
        "test/algebra/1.json",
        "{\n \"problem\": \"1 + 1?\",\n \"level\": \"Level 1\",\n \"solution\": \"$\\\\boxed{2}$\"\n}",
    );
    assert_eq!(math, gsm8k);
    let humaneval = r#"{"task_id": "HumanEval/0", "prompt": "def f(x):\n    \"\"\"x\n        y\"\"\"\n", "entry_point": "f", "canonical_solution": "    return x\n", "test": "def check(f):\n    pass\n"}"#;
    assert_eq!(
        asked("humaneval", "HumanEval.jsonl.gz", humaneval),
        [
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\n### Instruction:\nCreate a Python script for this problem:\ndef f(x):\n\t\"\"\"x\n\t\ty\"\"\"\n\n\n### Response:"
        ]
    );
    assert_eq!(asked("humaneval_harness", "HumanEval.jsonl", humaneval), ["def f(x):\n    \"\"\"x\n        y\"\"\"\n"]);
    let mbpp = |id: usize| {
        format!(
            r#"{{"task_id": {id}, "text": "Add    two.", "code": "x", "test_list": ["assert a", "assert b", "assert c"], "test_setup_code": "", "challenge_test_list": []}}"#
        )
    };
    let head = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\n### Instruction:\nCreate a Python script for this problem:\n\nAdd\ttwo.\nTest examples:\n";
    // Tasks 1 to 10 and 511 onwards are not of the test set; 493 has no asserts.
    let all: Vec<String> = [3, 11, 493, 510, 511].map(mbpp).to_vec();
    assert_eq!(
        asked("mbpp", "mbpp.jsonl", &all.join("\n")),
        [
            format!("{head}assert a\nassert b\nassert c\n\n### Response:"),
            format!("{head}calculate_polygons(startx, starty, endx, endy, radius)\n\n### Response:"),
            format!("{head}assert a\nassert b\nassert c\n\n### Response:"),
        ]
    );
    assert_eq!(
        asked("alpaca_eval", "alpaca_eval.json", r#"[{"instruction": "Say hi.", "output": "Hi", "generator": "davinci", "dataset": "d"}]"#),
        [
            "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: Say hi. ASSISTANT:"
        ]
    );
}

#[test]
fn answers_are_asked_of_gsm8ks_and_of_alpacas_fields() {
    assert_eq!(asked("answer_nll", "test.jsonl", r#"{"question": "Q", "answer": "A"}"#), ["<user>Q|A</s>"]);
    let alpaca = r#"[{"instruction": "I", "input": "", "output": "O"}, {"instruction": "I", "input": "N", "output": "O"}]"#;
    assert_eq!(asked("answer_nll", "test.json", alpaca), ["<user>I|O</s>", "<user>I\n\nN|O</s>"]);
}

#[test]
fn wikitexts_pages_are_detokenised() {
    let raw = "\n = Title = \n\n He said \" no \" , 5 @,@ 000 times . \n = = Part = = \n the end \n = Other = \n x \n";
    assert_eq!(
        asked("wikitext", "wiki.test.raw", raw),
        ["= Title =\n\nHe said \"no\", 5,000 times.\n== Part ==\nthe end\n", "= Other =\nx\n"].map(|page| format!(" {page}"))
    );
}

#[test]
fn malformed_data_is_an_error_that_names_file_line_and_what_was_found() {
    let sst2 = "sentence\tlabel\ngood\t1\n";
    let mut wrong = Vec::new();
    for (task, name, text, expected) in [
        ("glue/sst2", "other.txt", "x", "looked for dev.tsv"),
        ("glue/sst2", "SST-2/dev.tsv", "", "dev.tsv: the file is empty"),
        ("glue/sst2", "SST-2/dev.tsv", "sentence\tlabel\n", "there are no items"),
        ("glue/sst2", "SST-2/dev.tsv", "index\tquestion\n1\t2\n", "dev.tsv:1: expected a column `sentence`, found index, question"),
        ("glue/sst2", "SST-2/dev.tsv", &format!("{sst2}bad\n"), "dev.tsv:3: expected 2 columns, found 1"),
        ("glue/sst2", "SST-2/dev.tsv", &format!("{sst2}a\tb\tc\n"), "dev.tsv:3: expected 2 columns, found 3"),
        ("glue/cola", "CoLA/dev.tsv", "a\tb\n", "dev.tsv:1: expected a column number 3, found 2 columns"),
        ("gsm8k", "test.jsonl", "{\"question\": \"q\"}\nnothing\n", "test.jsonl:2: column"),
        ("gsm8k", "test.jsonl", "[1, 2]", "item 0 of the array: expected an object, found 1"),
        ("gsm8k", "test.jsonl", "{\"quest\": \"q\"}", "test.jsonl:1: the template"),
        ("gsm8k", "test.jsonl", "[{\"question\": \"q\"},", "test.jsonl:1: column"),
        ("gsm8k", "test.jsonl", &"[".repeat(100_000), "recursion"),
        ("arc_easy", "test.jsonl", r#"{"question": "Why?"}"#, "test.jsonl:1: the expression"),
        (
            "arc_easy",
            "test.jsonl",
            r#"{"question": "Why?", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"}"#,
            "at least two choices, found 1",
        ),
        (
            "arc_easy",
            "test.jsonl",
            r#"{"question": "Why?", "choices": {"text": "abc", "label": ["A"]}, "answerKey": "A"}"#,
            "expected a list, found string",
        ),
        ("winogrande", "dev.jsonl", r#"{"sentence": "no mark", "option1": "a", "option2": "b", "answer": "1"}"#, "does not stand in"),
        ("mmlu", "test/anatomy_test.csv", "q,1,2,3,4,A\nq,1,2\n", "anatomy_test.csv:2: expected 6 columns, found 3"),
        ("mmlu", "test/anatomy_test.csv", "q,1,2,3,4,E\n", "E does not stand in"),
        ("mmlu", "all/test-00000-of-00001.parquet", "PAR1 this is none PAR1", "reading the parquet file"),
        ("mmlu", "all/test-00000-of-00001.parquet", "", "reading the parquet file"),
    ] {
        let folder = TempDir::new().unwrap();
        place(&folder, name, text);
        let message = requests(task, folder.path()).expect_err(name).to_string();
        if !message.contains(expected) {
            wrong.push(format!("{task} {name}: expected {expected}, found {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn text_that_is_not_utf8_or_not_gzip_is_an_error_with_its_place() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("test.jsonl"), b"{\"question\": \"a\"}\n{\"question\": \"\xff\"}\n").unwrap();
    let message = requests("gsm8k", folder.path()).unwrap_err().to_string();
    assert!(message.contains("test.jsonl:2: byte 15 of the line, 0xff, is not UTF-8"), "{message}");
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("test.jsonl.gz"), "not gzip").unwrap();
    assert!(requests("gsm8k", folder.path()).unwrap_err().to_string().contains("test.jsonl.gz: unpacking"));
}

#[test]
fn a_place_that_is_not_there_is_an_error() {
    let message = requests("gsm8k", Path::new("/no/such/folder")).unwrap_err().to_string();
    assert!(message.contains("/no/such/folder: neither a folder nor a file is there"), "{message}");
}
