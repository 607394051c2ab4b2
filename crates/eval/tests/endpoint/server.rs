//! A small server with OpenAI's interface, on loopback: its answers follow from the prompt alone, its faults from a script, and it keeps
//! book of what it was asked and what it answered.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// What the server does with a call.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The right answer.
    Answer,
    /// The right answer, cut in the middle; then the connection is closed.
    Cut,
    /// Nothing, until the client gives up.
    Hang,
    /// The connection is closed without a word.
    Close,
    /// Another status, with more header lines and a body.
    Status(u16, &'static str, String),
    /// This body with status 200.
    Body(String),
}

/// A call as the script sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `/v1/completions` or `/v1/chat/completions`.
    pub path: String,
    /// Its header lines, in lower case.
    pub headers: String,
    /// Its JSON.
    pub body: Value,
    /// The prompt, or the last message.
    pub prompt: String,
    /// How often this prompt was asked before.
    pub before: usize,
    /// How many calls there were before.
    pub all_before: usize,
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

#[derive(Default)]
struct Books {
    asked: Vec<Seen>,
    answered: HashMap<String, usize>,
}

/// A running server; it ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    script: Arc<Script>,
    books: Arc<Mutex<Books>>,
    life: Option<Life>,
}

/// Its lock is held while an answer is written.
type Connection = (Arc<Mutex<()>>, TcpStream);

/// From one start to the next stop.
struct Life {
    ended: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<Connection>>>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Self { address, script: Arc::new(script), books: Arc::default(), life: None };
        server.live(listener);
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Ends all connections, between answers, and refuses new ones.
    pub fn stop(&mut self) {
        let Some(life) = self.life.take() else { return };
        life.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        life.accepting.join().unwrap();
        for (answering, stream) in life.connections.lock().unwrap().drain(..) {
            let _between_answers = answering.lock().unwrap();
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Starts again at the same address.
    pub fn restart(&mut self) {
        self.live(TcpListener::bind(self.address).unwrap());
    }

    /// All calls, in the order in which they came.
    pub fn asked(&self) -> Vec<Seen> {
        self.books.lock().unwrap().asked.clone()
    }

    /// How often each prompt was answered in full.
    pub fn answered(&self) -> HashMap<String, usize> {
        self.books.lock().unwrap().answered.clone()
    }

    fn live(&mut self, listener: TcpListener) {
        let ended = Arc::new(AtomicBool::new(false));
        let connections: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let (script, books) = (self.script.clone(), self.books.clone());
        let accepting = std::thread::spawn({
            let (ended, connections) = (ended.clone(), connections.clone());
            move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let stream = stream.unwrap();
                    let answering = Arc::new(Mutex::new(()));
                    connections.lock().unwrap().push((answering.clone(), stream.try_clone().unwrap()));
                    let (script, books, ended) = (script.clone(), books.clone(), ended.clone());
                    std::thread::spawn(move || while serve(&stream, &*script, &books, &answering, &ended).is_some() {});
                }
            }
        });
        self.life = Some(Life { ended, connections, accepting });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves one call; `None` ends the connection.
fn serve(mut stream: &TcpStream, script: &Script, books: &Mutex<Books>, answering: &Mutex<()>, ended: &AtomicBool) -> Option<()> {
    let (path, headers, body) = read_call(stream)?;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let prompt = match &body["messages"] {
        Value::Array(messages) => messages.last().unwrap()["content"].as_str().unwrap().to_owned(),
        _ => body["prompt"].as_str().unwrap().to_owned(),
    };
    let guard = answering.lock().unwrap();
    if ended.load(Ordering::SeqCst) {
        return end(stream);
    }
    let seen = {
        let mut books = books.lock().unwrap();
        let before = books.asked.iter().filter(|seen| seen.prompt == prompt).count();
        let seen = Seen { path, headers, body, prompt, before, all_before: books.asked.len() };
        books.asked.push(seen.clone());
        seen
    };
    let (status, extra, content, cut) = match script(&seen) {
        Reply::Answer => (200, "", answer(&seen).to_string(), false),
        Reply::Cut => (200, "", answer(&seen).to_string(), true),
        Reply::Body(content) => (200, "", content, false),
        Reply::Status(status, extra, content) => (status, extra, content, false),
        Reply::Close => return end(stream),
        Reply::Hang => {
            drop(guard);
            // Until the client or the server closes the connection.
            let _ = stream.read(&mut [0]);
            return end(stream);
        }
    };
    let head = format!("HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{extra}\r\n", content.len());
    let sent = if cut { &content[..content.len() / 2] } else { &content[..] };
    // In the books first: an answer that the client has is always there.
    if status == 200 && !cut {
        *books.lock().unwrap().answered.entry(seen.prompt.clone()).or_default() += 1;
    }
    stream.write_all(format!("{head}{sent}").as_bytes()).ok()?;
    if cut { end(stream) } else { Some(()) }
}

fn end(stream: &TcpStream) -> Option<()> {
    let _ = stream.shutdown(Shutdown::Both);
    None
}

fn read_call(stream: &TcpStream) -> Option<(String, String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let path = lines[0].split(' ').nth(1)?.to_owned();
    let headers = lines[1..].join("\n");
    let length = headers.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, headers, body))
}

/// What the server's model writes after a prompt.
pub fn text_after(prompt: &str) -> String {
    format!(" reply of {} to {:?}", prompt.len(), prompt.chars().last())
}

/// The logarithm that the server's model gives a token after so many characters.
fn logprob(token: &str, start: usize) -> f64 {
    -0.25 - ((token.len() * 7 + start * 3) % 11) as f64 / 4.0
}

fn answer(seen: &Seen) -> Value {
    let text = text_after(&seen.prompt);
    let usage = json!({ "prompt_tokens": words(&seen.prompt).len(), "completion_tokens": 3 });
    if seen.path.ends_with("/chat/completions") {
        let choice = json!({ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" });
        return json!({ "object": "chat.completion", "choices": [choice], "usage": usage });
    }
    if seen.body["echo"] != true {
        return json!({ "object": "text_completion", "choices": [{ "index": 0, "text": text, "finish_reason": "length" }], "usage": usage });
    }
    let mut tokens = words(&seen.prompt);
    tokens.push(" next".to_owned());
    let starts: Vec<usize> = (0..tokens.len()).map(|at| tokens[..at].concat().chars().count()).collect();
    let mut logprobs: Vec<Value> = tokens.iter().zip(&starts).map(|(token, &start)| json!(logprob(token, start))).collect();
    let mut top: Vec<Value> = tokens.iter().zip(&logprobs).map(|(token, logprob)| json!({ token: logprob })).collect();
    (logprobs[0], top[0]) = (Value::Null, Value::Null);
    let lists = json!({ "tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": starts });
    let choice = json!({ "index": 0, "text": format!("{} next", seen.prompt), "logprobs": lists, "finish_reason": "length" });
    json!({ "object": "text_completion", "choices": [choice], "usage": { "prompt_tokens": tokens.len() - 1, "completion_tokens": 1 } })
}

/// Words with the space before them.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if c != ' ' => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    words
}
