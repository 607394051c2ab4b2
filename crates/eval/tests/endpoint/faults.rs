//! Servers that fail: nothing is lost, nothing is asked twice.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deltaic_checkpoint::Error;
use deltaic_eval::{ApiKey, Backend, Endpoint, EndpointOptions, Message, Prompt, Request};

use super::server::{Reply, Server, text_after};
use super::{answers, generate, likelihood, patient, text};

fn prompts(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("question {at}")).collect()
}

fn requests(count: usize) -> Vec<Request> {
    prompts(count).into_iter().map(generate).collect()
}

fn assert_each_answered_once(server: &Server, count: usize) {
    let answered = server.answered();
    assert_eq!(answered.len(), count);
    for (prompt, times) in answered {
        assert_eq!(times, 1, "{prompt} was answered {times} times");
    }
}

#[test]
fn every_kind_of_passing_failure_is_sat_out() {
    let server = Server::start(|seen| match (seen.before, seen.prompt.len() + seen.prompt.bytes().map(usize::from).sum::<usize>()) {
        (0, sum) => match sum % 11 {
            0 => Reply::Status(429, "Retry-After: 0\r\n", r#"{"error": {"message": "slow down"}}"#.to_owned()),
            1 => Reply::Status(429, "", String::new()),
            2 => Reply::Status(500, "", "oops".to_owned()),
            3 => Reply::Status(502, "", "<html>bad gateway</html>".to_owned()),
            4 => Reply::Status(503, "Retry-After: 99999999\r\n", String::new()),
            5 => Reply::Status(504, "Retry-After: soon\r\n", String::new()),
            6 => Reply::Cut,
            7 => Reply::Close,
            8 => Reply::Hang,
            _ => Reply::Answer,
        },
        // Some fail twice, in different ways.
        (1, sum) if sum % 3 == 0 => Reply::Status(500, "", String::new()),
        (2, sum) if sum % 6 == 0 => Reply::Cut,
        _ => Reply::Answer,
    });
    let mut options = patient(&server);
    options.timeout = Duration::from_millis(1500);
    let answers = answers(&Endpoint::new(options).unwrap(), &requests(66)).unwrap();
    for (prompt, answer) in prompts(66).iter().zip(&answers) {
        assert_eq!(text(answer), text_after(prompt));
    }
    assert_each_answered_once(&server, 66);
}

#[test]
fn malformed_answers_are_asked_for_again() {
    let server = Server::start(|seen| match seen.before {
        0 => Reply::Body("{\"choices\": [".to_owned()),
        1 => Reply::Body("[]".to_owned()),
        2 => Reply::Body("{\"choices\": []}".to_owned()),
        3 => Reply::Body("{\"choices\": [{}]}".to_owned()),
        4 => Reply::Body("{\"error\": {\"message\": \"upstream\", \"code\": 502}}".to_owned()),
        5 => Reply::Body("[".repeat(100_000)),
        _ => Reply::Answer,
    });
    let answers = answers(&Endpoint::new(patient(&server)).unwrap(), &requests(3)).unwrap();
    assert_eq!(text(&answers[2]), text_after("question 2"));
    assert_eq!(server.asked().len(), 3 * 7);
}

#[test]
fn a_server_that_restarts_in_the_middle_is_waited_for() {
    let server = Arc::new(Mutex::new(Server::start(|_| Reply::Answer)));
    let endpoint = Endpoint::new(patient(&server.lock().unwrap())).unwrap();
    let mut count = 0;
    let mut starting = None;
    endpoint
        .answer(&requests(100), &mut |_, _| {
            count += 1;
            if count == 30 || count == 60 {
                if let Some(thread) = starting.take() {
                    let thread: std::thread::JoinHandle<()> = thread;
                    thread.join().unwrap();
                }
                server.lock().unwrap().stop();
                let server = server.clone();
                starting = Some(std::thread::spawn(move || {
                    // Long enough that calls are refused in between.
                    std::thread::sleep(Duration::from_millis(100));
                    server.lock().unwrap().restart();
                }));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(count, 100);
    assert_each_answered_once(&server.lock().unwrap(), 100);
}

#[test]
fn a_failure_that_stays_ends_the_run_after_so_many_times() {
    let server = Server::start(|_| Reply::Status(500, "", r#"{"error": {"message": "out of memory"}}"#.to_owned()));
    let mut options = patient(&server);
    options.retries = 3;
    let error = answers(&Endpoint::new(options).unwrap(), &requests(1)).unwrap_err();
    assert!(error.message().contains("500") && error.message().ends_with("out of memory (4 times in a row)"), "{error}");
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn a_refusal_ends_the_run_at_once_in_the_servers_own_words() {
    for (status, words, help) in [
        (400, "context length is 2048\u{1b}[2J", "longer than its window"),
        (401, "wrong key sk-hidden", "OPENAI_API_KEY"),
        (404, "no such model", "chat only"),
        (422, "max_tokens", "parameter"),
    ] {
        let body = serde_json::json!({ "error": { "message": words } }).to_string();
        let server = Server::start(move |_| Reply::Status(status, "", body.clone()));
        let mut options = patient(&server);
        options.concurrency = 1;
        options.api_key = Some(ApiKey::new("sk-hidden").unwrap());
        let endpoint = Endpoint::new(options).unwrap();
        let error = answers(&endpoint, &requests(5)).unwrap_err().to_string();
        assert!(error.contains(&status.to_string()) && error.contains(&words[..9]) && error.contains(help), "{error}");
        assert!(!error.contains('\u{1b}') && !error.contains("sk-hidden"), "{error}");
        assert!(!format!("{endpoint:?} {}", endpoint.identity()).contains("sk-hidden"));
        assert_eq!(server.asked().len(), 1);
        assert!(server.asked()[0].headers.contains("Bearer sk-hidden"));
    }
}

#[test]
fn a_redirection_is_not_followed() {
    let server = Server::start(|_| Reply::Status(307, "Location: http://127.0.0.1:1/v1/completions\r\n", String::new()));
    let error = answers(&Endpoint::new(patient(&server)).unwrap(), &requests(1)).unwrap_err();
    assert!(error.message().contains("307") && error.message().contains("to http://127.0.0.1:1/"), "{error}");
}

#[test]
fn answers_under_way_are_taken_in_when_another_request_fails() {
    let server = Server::start(|seen| if seen.prompt == "question 3" { Reply::Status(400, "", String::new()) } else { Reply::Answer });
    let endpoint = Endpoint::new(patient(&server)).unwrap();
    let mut count = 0;
    endpoint
        .answer(&requests(50), &mut |_, _| {
            count += 1;
            Ok(())
        })
        .unwrap_err();
    assert_eq!(count, server.answered().len());
}

#[test]
fn an_answer_that_is_too_long_is_not_read() {
    let server = Server::start(|_| Reply::Body(format!("{{\"choices\": [{{\"text\": \"{}\"}}]}}", "a".repeat(100_000))));
    let mut options = patient(&server);
    options.max_response_bytes = 50_000;
    let error = answers(&Endpoint::new(options).unwrap(), &requests(1)).unwrap_err();
    assert!(error.message().contains("longer than 50000 bytes"), "{error}");
}

#[test]
fn no_more_calls_than_allowed_are_made_at_a_time() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = Server::start({
        let (now, most) = (now.clone(), most.clone());
        move |_| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            now.fetch_sub(1, Ordering::SeqCst);
            Reply::Answer
        }
    });
    let mut options = patient(&server);
    options.concurrency = 3;
    answers(&Endpoint::new(options).unwrap(), &requests(30)).unwrap();
    assert!(most.load(Ordering::SeqCst) <= 3);
}

#[test]
fn a_cancelled_run_ends_while_the_server_hangs() {
    let cancel = Arc::new(AtomicBool::new(false));
    let server = Server::start({
        let cancel = cancel.clone();
        move |_| {
            cancel.store(true, Ordering::SeqCst);
            Reply::Hang
        }
    });
    let mut options = patient(&server);
    options.cancel = cancel;
    // The call itself would last for ten minutes.
    assert_eq!(answers(&Endpoint::new(options).unwrap(), &requests(20)).unwrap_err().message(), "cancelled");
}

#[test]
fn an_error_of_the_caller_ends_the_run_with_it() {
    let server = Server::start(|_| Reply::Answer);
    let mut options = patient(&server);
    options.concurrency = 1;
    let error = Endpoint::new(options).unwrap().answer(&requests(20), &mut |_, _| Err(Error::new("disk full"))).unwrap_err();
    assert_eq!(error.message(), "disk full");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn nobody_at_the_address_is_one_clear_error_at_once_and_a_server_that_goes_is_asked_again() {
    let mut server = Server::start(|_| Reply::Answer);
    let mut options = patient(&server);
    options.retries = 2;
    let known = Endpoint::new(options.clone()).unwrap();
    answers(&known, &requests(1)).unwrap();
    server.stop();
    let error = answers(&known, &requests(1)).unwrap_err().to_string();
    assert!(
        error.contains("127.0.0.1") && error.contains("(3 times in a row)") && error.contains("see whether the server runs"),
        "{error}"
    );
    let error = answers(&Endpoint::new(options).unwrap(), &requests(1)).unwrap_err().to_string();
    assert!(error.contains("nobody listens there") && !error.contains("in a row"), "{error}");
}

#[test]
fn what_an_endpoint_cannot_do_is_said_before_anything_is_asked() {
    let server = Server::start(|_| Reply::Answer);
    let endpoint = Endpoint::new(patient(&server)).unwrap();
    let classify = Request::Classify { text: "a".to_owned(), pair: None, max_tokens: 8 };
    let mut apart = likelihood("a", " b");
    if let Request::LogLikelihood { tokenisation, .. } = &mut apart {
        *tokenisation = deltaic_eval::Tokenisation::Apart { max_tokens: 8 };
    }
    for (request, word) in [(classify, "head"), (apart, "apart"), (likelihood("a", ""), "empty")] {
        let error = answers(&endpoint, &[generate("first"), request]).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("run the model in this process"), "{error}");
    }
    assert!(server.asked().is_empty());
}

#[test]
fn addresses_names_and_concurrency_are_checked() {
    let of = |url: &str, model: &str, concurrency| {
        let mut options = EndpointOptions::new(url, model);
        options.concurrency = concurrency;
        Endpoint::new(options)
    };
    assert!(of("localhost:80", "m", 1).is_err());
    assert!(of("http://localhost:80", "", 1).is_err());
    assert!(of("http://localhost:80", "m", 0).is_err());
    of("http://localhost:80", "m", 1).unwrap();
}

#[test]
fn calls_have_openais_parameters() {
    let server = Server::start(|_| Reply::Answer);
    let endpoint = Endpoint::new(patient(&server)).unwrap();
    let turn = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    let request = Request::Generate {
        prompt: Prompt::Chat(vec![turn("system", "be short"), turn("user", "hi")]),
        max_new_tokens: 9,
        stop: ["a!", "b!", "c!", "d!", "hi", "e!"].map(str::to_owned).to_vec(),
        temperature: 0.7,
        top_p: 0.95,
        seed: u64::MAX,
    };
    answers(&endpoint, &[request]).unwrap();
    let seen = server.asked().remove(0);
    assert_eq!(seen.path, "/v1/chat/completions");
    let expected = serde_json::json!({
        "model": "model", "max_tokens": 9, "temperature": 0.7, "top_p": 0.95, "stop": ["a!", "b!", "c!", "d!"], "seed": i64::MAX,
        "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "hi"}]
    });
    assert_eq!(seen.body, expected);
}

#[test]
fn a_server_that_wants_the_newer_name_of_the_limit_gets_it() {
    let refusal = r#"{"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."}}"#;
    let server = Server::start(move |seen| match seen.body.get("max_tokens") {
        Some(_) => Reply::Status(400, "", refusal.to_owned()),
        None => Reply::Answer,
    });
    let chat = |text: &str| Request::Generate {
        prompt: Prompt::Chat(vec![Message { role: "user".to_owned(), content: text.to_owned() }]),
        max_new_tokens: 16,
        stop: vec![],
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
    };
    let mut options = patient(&server);
    options.concurrency = 1;
    let answers = answers(&Endpoint::new(options).unwrap(), &[chat("a"), chat("b"), chat("c")]).unwrap();
    assert_eq!(text(&answers[2]), text_after("c"));
    // The first call is made twice, the others once.
    let asked = server.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked[1..].iter().all(|seen| seen.body["max_completion_tokens"] == 16), "{asked:?}");
}

#[test]
fn a_first_answer_that_is_a_web_page_ends_the_run_at_once() {
    let page = Server::start(|_| Reply::Body("<html>It works!</html>".to_owned()));
    let error = answers(&Endpoint::new(patient(&page)).unwrap(), &requests(1)).unwrap_err();
    assert!(error.message().contains("not the JSON of a completion"), "{error}");
    assert_eq!(page.asked().len(), 1);
    // A page in the middle is a gateway's, which may pass.
    let server = Server::start(|seen| if seen.all_before == 1 { Reply::Body("<html>".to_owned()) } else { Reply::Answer });
    let mut options = patient(&server);
    options.concurrency = 1;
    assert_eq!(answers(&Endpoint::new(options).unwrap(), &requests(3)).unwrap().len(), 3);
}
