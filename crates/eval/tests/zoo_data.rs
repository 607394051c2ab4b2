//! The data sets that lie beside the repository, whole: skipped where they are not there (`DELTAIC_ZOO_DATA`, else `../shared/zoo/data`).

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use deltaic_checkpoint::Result;
use deltaic_eval::task::built_in;
use deltaic_eval::{Evaluation, Executed, Executor, Prompt, Request, RunOptions};

struct Nothing;

impl Executor for Nothing {
    fn execute(&self, programs: &[String], _: &AtomicBool, _: &(dyn Fn(usize) + Sync)) -> Result<Vec<Executed>> {
        Ok(vec![Executed::TimedOut; programs.len()])
    }
}

fn zoo_data() -> Option<PathBuf> {
    let given = std::env::var_os("DELTAIC_ZOO_DATA").map(PathBuf::from);
    let path = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/zoo/data"));
    if !path.is_dir() {
        eprintln!("skipped: {} is not there", path.display());
    }
    path.is_dir().then_some(path)
}

#[test]
fn the_published_sizes_are_read() {
    let Some(data) = zoo_data() else { return };
    let cancel = AtomicBool::new(false);
    let options = RunOptions { executor: Some(&Nothing), ..RunOptions::new(&cancel) };
    for (task, below, items) in [
        ("glue/sst2", "glue", 872),
        ("glue/mrpc", "glue", 408),
        ("glue/stsb", "glue", 1500),
        ("glue/cola", "glue", 1043),
        ("glue/cola", "glue/CoLA", 1043),
        ("glue/cola", "glue/CoLA/dev.tsv", 1043),
        ("gsm8k", "", 1319),
        ("gsm8k_fewshot", "", 1319),
        ("humaneval", "", 164),
        ("humaneval_harness", "", 164),
        ("mbpp", "", 500),
        ("mbpp_harness", "", 500),
        ("answer_nll", "gsm8k_test.jsonl", 1319),
        ("answer_nll", "code_alpaca_2k.json", 2017),
    ] {
        let task = built_in(task).unwrap().unwrap();
        let mut evaluation = Evaluation::read(&task, Some(&data.join(below)), &options).unwrap();
        assert_eq!(evaluation.items(), items, "{}", task.task);
        let (requests, ranges) = evaluation.requests(Some("<|im_end|>".to_owned())).unwrap();
        assert_eq!((requests.len(), ranges.len()), (items, items), "{}", task.task);
    }
}

#[test]
fn the_last_items_of_code_alpaca_have_instruction_input_and_answer() {
    let Some(data) = zoo_data() else { return };
    let cancel = AtomicBool::new(false);
    let options = RunOptions { items: Some(1817..2017), ..RunOptions::new(&cancel) };
    let task = built_in("answer_nll").unwrap().unwrap();
    let mut evaluation = Evaluation::read(&task, Some(&data.join("code_alpaca_2k.json")), &options).unwrap();
    let (requests, _) = evaluation.requests(Some("<|im_end|>".to_owned())).unwrap();
    assert_eq!(requests.len(), 200);
    let ends = |request: &Request| {
        matches!(request, Request::LogLikelihood { prompt: Prompt::Chat(messages), continuation, .. }
            if messages.len() == 1 && messages[0].role == "user" && continuation.ends_with("<|im_end|>"))
    };
    assert!(requests.iter().all(ends));
}
