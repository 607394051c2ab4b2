//! Answers in the shapes that servers document: OpenAI's completions with echo, vLLM, llama-cpp-python, llama.cpp, chat.
//! What is expected is worked out by hand.

use deltaic_eval::{Answer, Endpoint, Finish, Message, Prompt, Request};
use serde_json::json;

use super::server::{Reply, Server};
use super::{answer, answers, generate, likelihood, patient};

fn serving(body: serde_json::Value) -> Server {
    Server::start(move |_| Reply::Body(body.to_string()))
}

#[test]
fn openais_echo_is_read() {
    let server = serving(json!({
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "davinci-002",
        "choices": [{"text": "The cat sat down on", "index": 0, "finish_reason": "length", "logprobs": {
            "tokens": ["The", " cat", " sat", " down", " on"],
            "token_logprobs": [null, -8.5, -2.25, -0.5, -1.0],
            "top_logprobs": [null, {" first": -2.0, " cat": -8.5}, {" is": -1.75, " sat": -2.25}, {" down": -0.5}, {" on": -1.0}],
            "text_offset": [0, 3, 7, 11, 16]}}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
    }));
    assert_eq!(
        answer(&server, likelihood("The cat", " sat down")).unwrap(),
        Answer::LogLikelihood { sum: -2.75, tokens: 2, greedy: false }
    );
    // White space at the prompt's end is the continuation's.
    assert_eq!(answer(&server, likelihood("The cat sat ", "down")).unwrap(), Answer::LogLikelihood { sum: -0.5, tokens: 1, greedy: true });
    assert_eq!(answer(&server, likelihood("The cat sat", " down")).unwrap(), Answer::LogLikelihood { sum: -0.5, tokens: 1, greedy: true });
    let body = &server.asked()[0].body;
    let expected = json!({"model": "model", "prompt": "The cat sat down", "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 1});
    assert_eq!(*body, expected);
}

#[test]
fn openais_escaped_parts_of_characters_are_laid_by_their_offsets() {
    let server = serving(json!({
        "choices": [{"text": "a 🦀 is red now", "index": 0, "finish_reason": "length", "logprobs": {
            "tokens": ["a", "bytes: \\xf0\\x9f", "bytes:\\xa6\\x80", " is", " red", " now"],
            "token_logprobs": [null, -1.0, -2.0, -4.0, -0.125, -9.0],
            "top_logprobs": [null, {"x": -0.5}, {"bytes:\\xa6\\x80": -2.0}, {" is": -4.0, " was": -3.0}, {" red": -0.125}, {" now": -9.0}],
            "text_offset": [0, 1, 2, 3, 6, 10]}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1}
    }));
    assert_eq!(answer(&server, likelihood("a 🦀 is", " red")).unwrap(), Answer::LogLikelihood { sum: -0.125, tokens: 1, greedy: true });
    assert_eq!(answer(&server, likelihood("a 🦀", " is red")).unwrap(), Answer::LogLikelihood { sum: -4.125, tokens: 2, greedy: false });
}

/// vLLM: a BOS stands in the lists, its text counts in the offsets and is not in the text.
fn vllm() -> serde_json::Value {
    json!({
        "id": "cmpl-2", "object": "text_completion", "created": 1, "model": "meta-llama/Llama-3.2-1B",
        "choices": [{"index": 0, "text": "The cat sat on", "logprobs": {
            "text_offset": [0, 17, 20, 24, 28],
            "token_logprobs": [null, -7.0, -3.5, -2.25, -0.5],
            "tokens": ["<|begin_of_text|>", "The", " cat", " sat", " on"],
            "top_logprobs": [null, {"The": -7.0, "Question": -1.0}, {" cat": -3.5, " first": -1.5}, {" sat": -2.25}, {" on": -0.5}]},
            "finish_reason": "length", "stop_reason": null, "prompt_logprobs": null}],
        "usage": {"prompt_tokens": 4, "total_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": null}
    })
}

#[test]
fn vllms_echo_with_a_bos_is_read() {
    let server = serving(vllm());
    assert_eq!(answer(&server, likelihood("The cat", " sat")).unwrap(), Answer::LogLikelihood { sum: -2.25, tokens: 1, greedy: true });
    // An empty prompt, and a whole text: everything behind the BOS.
    let all = Answer::LogLikelihood { sum: -12.75, tokens: 3, greedy: false };
    assert_eq!(answer(&server, likelihood("", "The cat sat")).unwrap(), all);
    assert_eq!(answer(&server, Request::Rolling { text: "The cat sat".to_owned() }).unwrap(), all);
}

#[test]
fn tokens_that_lost_their_spaces_are_counted_by_a_second_call_once_per_prompt() {
    // Sentencepiece's tokens, decoded one by one: the offsets fit nothing.
    let lists = |words: &[&str]| {
        let mut tokens = vec!["<s>"];
        tokens.extend(words);
        tokens.push("on");
        let logprobs: Vec<Option<f64>> = (0..tokens.len()).map(|at| (at > 0).then(|| -(2f64.powi(-(at as i32))))).collect();
        let top: Vec<_> = tokens.iter().zip(&logprobs).map(|(token, logprob)| logprob.map(|logprob| json!({ *token: logprob }))).collect();
        let text = format!("{} on", words.join(" "));
        json!({"choices": [{"text": text, "logprobs": {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top}}]})
    };
    let server = Server::start(move |seen| {
        let words: Vec<&str> = seen.prompt.split(' ').collect();
        // The second call fails at first: what the first one brought is not asked for again.
        if words.len() == 2 && seen.before == 0 { Reply::Status(500, "", String::new()) } else { Reply::Body(lists(&words).to_string()) }
    });
    let requests = [" sat", " ran off", " saw me", " is"].map(|continuation| likelihood("The cat", continuation));
    let answers = answers(&Endpoint::new(patient(&server)).unwrap(), &requests).unwrap();
    // Tokens: <s>, The (1/2), cat (1/4), then 1/8, and 1/16.
    let of = |sum, tokens| Answer::LogLikelihood { sum, tokens, greedy: true };
    assert_eq!(answers, [of(-0.125, 1), of(-0.1875, 2), of(-0.1875, 2), of(-0.125, 1)]);
    let mut answered: Vec<_> = server.answered().into_iter().collect();
    answered.sort();
    let expected = ["The cat", "The cat is", "The cat ran off", "The cat sat", "The cat saw me"].map(|prompt| (prompt.to_owned(), 1));
    assert_eq!(answered, expected);
}

#[test]
fn llama_cpp_pythons_lists_lack_the_bos_that_it_counts() {
    let server = serving(json!({
        "id": "cmpl-3", "object": "text_completion", "created": 1, "model": "m.gguf",
        "choices": [{"text": "The cat sat on", "index": 0, "logprobs": {
            "tokens": ["The", " cat", " sat", " on"], "text_offset": [0, 3, 7, 11],
            "token_logprobs": [null, -3.5, -2.25, -0.5],
            "top_logprobs": [null, {" cat": -3.5}, {" sat": -2.25, " is": -1.0}, {" on": -0.5}]}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
    }));
    assert_eq!(answer(&server, likelihood("The cat", " sat")).unwrap(), Answer::LogLikelihood { sum: -2.25, tokens: 1, greedy: false });
    // The first token has no probability.
    let error = answer(&server, likelihood("", "The cat sat")).unwrap_err().to_string();
    assert!(error.contains("no probability of token 0") && error.contains("BOS"), "{error}");
}

#[test]
fn a_server_without_echo_is_one_error_that_names_others() {
    // llama.cpp's own server: it passes over `echo` and writes logprobs as chat has them.
    let server = serving(json!({
        "choices": [{"text": " on", "index": 0, "finish_reason": "length", "logprobs": {"content": [
            {"id": 389, "token": " on", "bytes": [32, 111, 110], "logprob": -0.5, "top_logprobs": []}]}}],
        "created": 1, "model": "gpt-3.5-turbo", "object": "text_completion", "usage": {"completion_tokens": 1, "prompt_tokens": 3, "total_tokens": 4}
    }));
    let error = answer(&server, likelihood("The cat", " sat")).unwrap_err().to_string();
    assert!(
        error.contains("does not repeat the prompt (`echo`)") && error.contains("vLLM") && error.contains("in this process"),
        "{error}"
    );
    // Echo, and no log-probabilities.
    let server = serving(json!({"choices": [{"text": "The cat sat on", "logprobs": null}]}));
    let error = answer(&server, likelihood("The cat", " sat")).unwrap_err().to_string();
    assert!(error.contains("no log-probabilities") && error.contains("vLLM"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn lists_that_do_not_fit_each_other_are_an_error() {
    for (place, value) in [
        ("token_logprobs", json!([null])),
        ("text_offset", json!([0])),
        ("top_logprobs", json!([])),
        ("top_logprobs", json!(null)),
        ("top_logprobs", json!([null, null, null, null, null])),
        ("token_logprobs", json!([null, null, null, null, null])),
    ] {
        let mut body = vllm();
        body["choices"][0]["logprobs"][place] = value;
        answer(&serving(body), likelihood("The cat", " sat")).expect_err(place);
    }
    // More tokens said to be generated than there are.
    let mut body = vllm();
    body["usage"]["completion_tokens"] = json!(u64::MAX);
    assert_eq!(
        answer(&serving(body), likelihood("The cat", " sat")).unwrap(),
        Answer::LogLikelihood { sum: -2.25, tokens: 1, greedy: true }
    );
}

#[test]
fn a_completion_is_cut_before_the_first_stop_string() {
    let server = serving(
        json!({"choices": [{"text": " 42\nQuestion: next\nAnswer", "finish_reason": "length"}], "usage": {"completion_tokens": 7}}),
    );
    let mut request = generate("p");
    if let Request::Generate { stop, .. } = &mut request {
        *stop = ["Answer", "", "\nQuestion"].map(str::to_owned).to_vec();
    }
    let expected = Answer::Text { text: " 42".to_owned(), tokens: 7, finish: Finish::Stop };
    assert_eq!(answer(&server, request).unwrap(), expected);
    let expected = Answer::Text { text: " 42\nQuestion: next\nAnswer".to_owned(), tokens: 7, finish: Finish::Length };
    assert_eq!(answer(&server, generate("p")).unwrap(), expected);
}

#[test]
fn a_chat_completion_is_read() {
    let chat = || Request::Generate {
        prompt: Prompt::Chat(vec![Message { role: "user".to_owned(), content: "hi".to_owned() }]),
        max_new_tokens: 8,
        stop: vec![],
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
    };
    let of = |message: serde_json::Value, why: &str| {
        serving(json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": null,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": why, "stop_reason": null}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        }))
    };
    let server = of(json!({"role": "assistant", "content": "Hello there", "refusal": null, "tool_calls": []}), "stop");
    assert_eq!(answer(&server, chat()).unwrap(), Answer::Text { text: "Hello there".to_owned(), tokens: 3, finish: Finish::Stop });
    // All tokens went into reasoning.
    let server = of(json!({"role": "assistant", "content": null, "reasoning_content": "hm"}), "length");
    assert_eq!(answer(&server, chat()).unwrap(), Answer::Text { text: String::new(), tokens: 3, finish: Finish::Length });
}
