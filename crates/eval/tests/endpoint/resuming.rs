//! Runs that end in the middle and go on from the file of answers.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use deltaic_checkpoint::Error;
use deltaic_eval::{AnswerFile, Backend, Cached, Endpoint, EndpointOptions, Request};

use super::server::{Reply, Server, text_after};
use super::{answers, generate, likelihood, patient, text};

fn requests(count: usize) -> Vec<Request> {
    (0..count).map(|at| generate(format!("question {at}"))).collect()
}

fn cached(options: EndpointOptions, path: &Path) -> Cached<Endpoint> {
    Cached::new(Endpoint::new(options).unwrap(), AnswerFile::open(path).unwrap())
}

/// The whole run, with no call repeated.
fn assert_resumed(server: &Server, path: &Path, count: usize) {
    let kept = AnswerFile::open(path).unwrap().len();
    let asked = server.asked().len();
    let backend = cached(patient(server), path);
    for (at, answer) in answers(&backend, &requests(count)).unwrap().iter().enumerate() {
        assert_eq!(text(answer), text_after(&format!("question {at}")));
    }
    assert_eq!((backend.reused(), backend.asked(), server.asked().len() - asked), (kept, count - kept, count - kept));
}

#[test]
fn a_second_run_asks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.jsonl");
    let server = Server::start(|_| Reply::Answer);
    let mut all = requests(20);
    all.extend([likelihood("The cat", " sat"), likelihood("The cat", " sat down")]);
    let first = answers(&cached(patient(&server), &path), &all).unwrap();
    let backend = cached(patient(&server), &path);
    assert_eq!(answers(&backend, &all).unwrap(), first);
    assert_eq!((backend.reused(), backend.asked(), server.asked().len()), (22, 0, 22));
}

#[test]
fn equal_requests_are_asked_once_and_another_model_is_asked_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.jsonl");
    let server = Server::start(|_| Reply::Answer);
    let backend = cached(patient(&server), &path);
    let three = [requests(5), requests(5), requests(5)].concat();
    let answers_of_three = answers(&backend, &three).unwrap();
    assert_eq!(answers_of_three[..5], answers_of_three[10..]);
    assert_eq!((backend.asked(), backend.reused(), server.asked().len()), (5, 10, 5));
    drop(backend);
    let mut other = patient(&server);
    other.model = "other".to_owned();
    answers(&cached(other, &path), &requests(5)).unwrap();
    assert_eq!(server.asked().len(), 10);
}

#[test]
fn a_run_that_was_dropped_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.jsonl");
    let server = Server::start(|_| Reply::Answer);
    let backend = cached(patient(&server), &path);
    let mut count = 0;
    let mut stopping = |_: usize, _: deltaic_eval::Answer| {
        count += 1;
        if count == 25 { Err(Error::new("enough")) } else { Ok(()) }
    };
    assert_eq!(backend.answer(&requests(60), &mut stopping).unwrap_err().message(), "enough");
    drop(backend);
    assert_eq!(AnswerFile::open(&path).unwrap().len(), 25);
    // Calls that were under way may still arrive.
    let mut asked = usize::MAX;
    while std::mem::replace(&mut asked, server.asked().len()) != server.asked().len() {
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    assert_resumed(&server, &path, 60);
}

/// The process that `a_run_that_was_killed_goes_on_where_it_was` kills.
#[test]
#[ignore = "is run by another test"]
fn child_that_is_killed() {
    let (Ok(url), Some(path), Ok(concurrency)) =
        (std::env::var("DELTAIC_TEST_URL"), std::env::var_os("DELTAIC_TEST_ANSWERS"), std::env::var("DELTAIC_TEST_CONCURRENCY"))
    else {
        return;
    };
    let mut options = EndpointOptions::new(url, "model");
    options.concurrency = concurrency.parse().unwrap();
    let _ = answers(&cached(options, Path::new(&path)), &requests(60));
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was() {
    for concurrency in [1, 8] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        // The first run gets 30 answers; from then on the server hangs, until the first run is dead.
        let (send, hangs) = mpsc::channel();
        let send = std::sync::Mutex::new(send);
        let dead = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let server = Server::start({
            let dead = dead.clone();
            move |seen| {
                if seen.all_before < 30 || dead.load(std::sync::atomic::Ordering::SeqCst) {
                    return Reply::Answer;
                }
                let _ = send.lock().unwrap().send(());
                Reply::Hang
            }
        });
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "resuming::child_that_is_killed", "--ignored"])
            .env("DELTAIC_TEST_URL", server.url())
            .env("DELTAIC_TEST_ANSWERS", &path)
            .env("DELTAIC_TEST_CONCURRENCY", concurrency.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // All threads hang: every one of the 30 answers was handed over before the calls that hang were sent.
        for _ in 0..concurrency {
            hangs.recv().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        dead.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(AnswerFile::open(&path).unwrap().len(), 30);
        // As if the process had ended in the middle of a line.
        let line = fs::read(&path).unwrap().split(|&byte| byte == b'\n').nth(3).unwrap().to_vec();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&line[..line.len() / 2]).unwrap();
        assert_resumed(&server, &path, 60);
        let answered = server.answered();
        assert!(answered.len() == 60 && answered.values().all(|&times| times == 1), "{answered:?}");
    }
}
