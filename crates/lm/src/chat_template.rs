//! Chat templates: the Jinja templates by which Hugging Face models turn a conversation into text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Local};
use deltaic_checkpoint::{Error, Result, read_text};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, State, Value, context};
use serde::Serialize;
use serde_json::Value as Json;

use crate::chat_template_python::{methods, tojson};
use crate::tokenizer_settings::{SPECIAL, TokenizerSettings, read_object};

/// A template of more bytes is not read; the longest published ones have some 30 kB.
const MAX_TEMPLATE: u64 = 1 << 20;
/// What a template may spend: about so many instructions, or 64 bytes for each.
const FUEL: u64 = 1_000_000;
/// The stack of the thread in which a template runs; memory is taken as it is used. Values can be nested as deep as the fuel allows, and
/// minijinja drops them level by level.
const STACK: usize = 512 << 20;
/// Longest conversation as text, in bytes.
const MAX_OUTPUT: usize = 16 << 20;
/// The template's name within its environment.
const NAME: &str = "chat_template";

/// The chat template of a model.
///
/// Templates are programs from strangers: they see the conversation and the special tokens, no files, and time and memory are bounded.
///
/// ```
/// use deltaic_lm::ChatTemplate;
/// use std::collections::BTreeMap;
///
/// let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
/// let template = ChatTemplate::new(source, &BTreeMap::new())?;
/// let message = BTreeMap::from([("role", "user"), ("content", "Hello")]);
/// assert_eq!(template.render(&[message], true)?, "<|user|>Hello\n<|assistant|>");
/// # Ok::<(), deltaic_checkpoint::Error>(())
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: BTreeMap<String, String>,
    source: String,
    path: PathBuf,
    /// The moment that the template sees, one for all texts, so that a run over midnight does not mix two prompts.
    now: DateTime<Local>,
}

impl ChatTemplate {
    /// Reads the template of a model folder: `chat_template.jinja`, else `chat_template.json`, else the `chat_template` of
    /// tokenizer_config.json; of several named ones that called `default`. None where the folder has no template.
    ///
    /// # Errors
    /// A file cannot be read, or the template is no template.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let Some((path, source)) = find(folder)? else { return Ok(None) };
        let settings = TokenizerSettings::read(folder)?;
        let special = SPECIAL.iter().filter_map(|kind| Some(((*kind).to_owned(), settings.special(kind)?.content))).collect();
        Self::compile(source, special, path).map(Some)
    }

    /// A template given as text; `special` are the special tokens it sees, by kind (`bos_token`).
    ///
    /// # Errors
    /// The text is no template.
    pub fn new(source: &str, special: &BTreeMap<String, String>) -> Result<Self> {
        Self::compile(source.to_owned(), special.clone(), PathBuf::from("the chat template"))
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template asks for the date, so that its texts are not the same every day.
    pub fn uses_date(&self) -> bool {
        self.source.contains("strftime_now")
    }

    /// The date that the template sees, `2026-11-25`: the day on which it was opened.
    pub fn date(&self) -> String {
        self.now.format("%Y-%m-%d").to_string()
    }

    /// The text of a conversation. Messages serialise to objects with `role` and `content`; with `add_generation_prompt` the text ends where
    /// the assistant's next turn begins.
    ///
    /// # Errors
    /// The template refuses the conversation (many do where roles do not alternate), fails, or takes too long.
    pub fn render<M: Serialize>(&self, messages: &[M], add_generation_prompt: bool) -> Result<String> {
        let conversation = context! {
            messages => Serde(messages),
            add_generation_prompt => add_generation_prompt,
            tools => Value::from(()),
            documents => Value::from(()),
        };
        let context = context! { ..conversation, ..Value::from(Serde(&self.special)) };
        // Errors may hold the template's values: they, too, are dropped there.
        let run = move || {
            let mut text = Bounded(Vec::new());
            let template = self.environment.get_template(NAME);
            template.and_then(|template| template.render_captured_to(context, &mut text).map(drop)).map_err(|error| self.failed(&error))?;
            Ok(text)
        };
        let text = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run);
            let thread = thread.map_err(|error| Error::new(format!("a thread for the chat template cannot be started: {error}")))?;
            let panicked = |_| Error::new(format!("{}: the chat template makes the template library panic", self.path.display()));
            thread.join().map_err(panicked)?
        })?;
        String::from_utf8(text.0).map_err(|error| Error::new(format!("{}: the text is not UTF-8: {error}", self.path.display())))
    }

    fn compile(source: String, special: BTreeMap<String, String>, path: PathBuf) -> Result<Self> {
        if source.len() as u64 > MAX_TEMPLATE {
            let message = format!("{}: the chat template has {} bytes, expected at most {MAX_TEMPLATE}", path.display(), source.len());
            return Err(Error::new(message).help("give the prompt as text instead"));
        }
        let wrong = |error: minijinja::Error| {
            Error::new(format!("{}: not a readable chat template: {}", path.display(), reason(&error)))
                .help("compare the file with the model's source; prompts can be given as text instead")
        };
        let now = Local::now();
        let mut environment = environment(now).map_err(wrong)?;
        environment.add_template_owned(NAME, without_generation_blocks(&source)).map_err(wrong)?;
        Ok(Self { environment, special, source, path, now })
    }

    fn failed(&self, error: &minijinja::Error) -> Error {
        let message = match error.kind() {
            ErrorKind::OutOfFuel => format!("{}: the chat template takes too long for this conversation", self.path.display()),
            _ => format!("{}: the chat template fails for this conversation: {}", self.path.display(), reason(error)),
        };
        Error::new(message)
            .help("see which roles the template takes and in what order; many take no `system`, or want `user` and `assistant` in turn")
    }
}

/// The error of a template with its line and what caused it.
fn reason(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The file with the template and its text.
fn find(folder: &Path) -> Result<Option<(PathBuf, String)>> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let source = read_text(&path, MAX_TEMPLATE)?;
        return Ok(Some((path, source)));
    }
    for name in ["chat_template.json", "tokenizer_config.json"] {
        let path = folder.join(name);
        let template = match read_object(&path)?.and_then(|mut object| object.remove("chat_template")) {
            None | Some(Json::Null) => continue,
            Some(Json::String(template)) => template,
            Some(Json::Array(named)) => default_of(&named, &path)?,
            Some(other) => {
                let kind = if other.is_object() { "an object" } else { "something else" };
                let message = format!("{}: chat_template: expected a text or a list of named texts, found {kind}", path.display());
                return Err(Error::new(message).help("get the file from its source again"));
            }
        };
        return Ok(Some((path, template)));
    }
    Ok(None)
}

/// Of several named templates the one for plain conversations.
fn default_of(named: &[Json], path: &Path) -> Result<String> {
    let name = |entry: &Json| entry.get("name").and_then(Json::as_str).unwrap_or("").to_owned();
    let found = named.iter().find(|entry| name(entry) == "default").and_then(|entry| entry.get("template")?.as_str());
    found.map(str::to_owned).ok_or_else(|| {
        let names: Vec<String> = named.iter().map(name).collect();
        Error::new(format!("{}: chat_template: expected one called `default`, found {}", path.display(), names.join(", ")))
            .help("name one of them `default`, or put it into chat_template.jinja")
    })
}

/// An environment as transformers makes it: Jinja's own whitespace rules for blocks, no escaping, Python's methods, and four functions.
fn environment(now: DateTime<Local>) -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(methods);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |state: &State, format: &str| strftime(state, now, format));
    Ok(environment)
}

fn strftime(state: &State, now: DateTime<Local>, format: &str) -> std::result::Result<String, minijinja::Error> {
    // A field may be some ten times as long as it is written.
    state.consume_fuel(format.len() as u64)?;
    let mut text = String::new();
    write!(text, "{}", now.format(format))
        .map_err(|_| minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {format:?} is not a format of dates")))?;
    Ok(text)
}

/// The template with `{% generation %}` blocks as blocks that always stand: they mark the assistant's tokens for training, which is not done here.
fn without_generation_blocks(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (inside, after) = (&tag[2..end], &tag[end..]);
        let word = inside.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        match word {
            "generation" => text.push_str(&format!("{{%{}", inside.replace("generation", "if true"))),
            "endgeneration" => text.push_str(&format!("{{%{}", inside.replace("endgeneration", "endif"))),
            _ => text.push_str(&tag[..end]),
        }
        text.push_str("%}");
        rest = &after[2..];
    }
    text + rest
}

/// A buffer that refuses to grow beyond what a conversation may have.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("the text has more than {MAX_OUTPUT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
