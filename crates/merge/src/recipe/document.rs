//! A recipe's text, and messages that show the line they speak of.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Error, Result, open_regular};

use super::Span;

/// Greatest size of a recipe in bytes; published ones have a few thousand.
pub const MAX_BYTES: usize = 1_000_000;

/// What to do about a file that is no recipe.
const NOT_ONE: &str = "a recipe is a YAML file of some lines: name that one, or save it as UTF-8";

/// Longest part of a line that a message shows, in characters.
const MAX_SHOWN: usize = 120;
/// Longest message, in characters.
const MAX_MESSAGE: usize = 400;
/// How much of a longer line is shown before the place in question.
const SHOWN_BEFORE: usize = 50;

/// The text of a recipe and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name in messages: the path as given, or `-`.
    pub name: String,
    /// The text, as it stands in the file.
    pub text: String,
    /// The folder that relative paths in the recipe start from.
    pub folder: PathBuf,
}

impl Document {
    /// A document from its text.
    pub fn new(name: impl Into<String>, text: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), text: text.into(), folder: folder.into() }
    }

    /// A document from what a file holds.
    ///
    /// # Errors
    /// More than [`MAX_BYTES`] bytes, or not UTF-8: the message has the byte's offset and line.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>, folder: impl Into<PathBuf>) -> Result<Self> {
        let name = name.into();
        if bytes.len() > MAX_BYTES {
            return Err(Error::new(format!("{name}: a recipe of more than {MAX_BYTES} bytes")).help(NOT_ONE));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(name, text, folder)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
                let byte = error.as_bytes()[at];
                Err(Error::new(format!("{name}:{line}: not UTF-8 text: byte 0x{byte:02x} at offset {at}")).help(NOT_ONE))
            }
        }
    }

    /// Reads a document; relative paths in it start from `folder`.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is not UTF-8.
    pub fn from_reader(name: impl Into<String>, reader: impl Read, folder: impl Into<PathBuf>) -> Result<Self> {
        let name = name.into();
        let mut bytes = Vec::new();
        reader.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).context("reading the recipe", Path::new(&name))?;
        Self::from_bytes(name, bytes, folder)
    }

    /// Reads the file at `path`, which lies in a folder that others may have filled; relative paths in it start from its folder.
    ///
    /// # Errors
    /// It cannot be read, is no regular file (a pipe would be waited for), is too large, or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of_file(open_regular(path)?, path)
    }

    /// As [`Document::read`], for a recipe that the user names: it may be a pipe too, such as a shell's `<(…)`.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is not UTF-8.
    pub fn read_given(path: &Path) -> Result<Self> {
        Self::of_file(File::open(path).context("opening the recipe", path)?, path)
    }

    fn of_file(file: File, path: &Path) -> Result<Self> {
        Self::from_reader(path.display().to_string(), file, path.parent().unwrap_or(Path::new("")))
    }

    /// Number of the line in which `span` begins, from 1.
    pub fn line(&self, span: Span) -> usize {
        1 + self.text.as_bytes()[..span.start.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
    }

    /// An error about the text at `span`: see [`Document::render`].
    pub fn error(&self, span: Span, message: impl AsRef<str>, label: impl AsRef<str>) -> Error {
        Error::new(self.render(span, message.as_ref(), label.as_ref()))
    }

    /// An error, as [`Document::error`], about something that is valid but not built yet.
    pub fn not_yet(&self, span: Span, message: impl AsRef<str>) -> Error {
        Error::not_yet(self.render(span, message.as_ref(), ""))
            .help("it is valid, but not built yet: leave it out, or wait for a later version")
    }

    /// The message with the document's name and line, that line of the text, and the place in it underlined, with `label` behind.
    ///
    /// Message and label are one line each; what they quote from the document is escaped and, where very long, cut.
    pub fn render(&self, span: Span, message: &str, label: &str) -> String {
        let number = self.line(span).to_string();
        let (line, before, width) = self.excerpt(span);
        let margin = " ".repeat(number.len() + 2);
        let underline = format!("{}{} {}", " ".repeat(before), "^".repeat(width), shortened(label));
        format!("{}:{number}: {}\n  {number} | {line}\n{margin} | {}", escaped(&self.name), shortened(message), underline.trim_end())
    }

    /// The line that holds the span's start (or, of a long one, the part around it), the width before the span, and the span's width, at
    /// least 1.
    fn excerpt(&self, span: Span) -> (String, usize, usize) {
        let text = self.text.as_str();
        let start = floor(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, span.end).clamp(start, line_end);
        let long = text[line_start..line_end].chars().take(MAX_SHOWN + 1).count() > MAX_SHOWN;
        let (from, to) = if long {
            let from = text[line_start..start].char_indices().rev().nth(SHOWN_BEFORE - 1).map_or(line_start, |(at, _)| line_start + at);
            let to = text[from..line_end].char_indices().nth(MAX_SHOWN).map_or(line_end, |(at, _)| from + at);
            (from, to)
        } else {
            (line_start, line_end)
        };
        let left = if from > line_start { "…" } else { "" };
        let right = if to < line_end { "…" } else { "" };
        let shown_before = format!("{left}{}", escaped(&text[from..start]));
        let marked = escaped(text[start..end.min(to).max(start)].trim_end());
        let line = format!("{left}{}{right}", escaped(text[from..to].trim_end()));
        (line, shown_before.chars().count(), marked.chars().count().max(1))
    }
}

/// One line of a message, as a terminal may show it.
fn shortened(line: &str) -> String {
    let mut out = escaped(&line.chars().take(MAX_MESSAGE).collect::<String>());
    if line.chars().nth(MAX_MESSAGE).is_some() {
        out.push('…');
    }
    out
}

/// The greatest character boundary of `text` that is not behind `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Text as a terminal may show it: tabs as four spaces, control characters and those that change the direction of writing as escapes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => out.push_str("    "),
            c if c.is_control() || is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Whether a character has no width or changes how others are shown.
pub(super) fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span_of(document: &Document, part: &str) -> Span {
        let start = document.text.find(part).unwrap();
        Span { start, end: start + part.len() }
    }

    #[test]
    fn an_error_shows_its_line_underlined() {
        let text = "a\nb\nc\nd\ne\nf\n    parameters: {weight: 0.5, densty: 0.3}\n";
        let document = Document::new("recipe.yml", text, "");
        let error = document.error(span_of(&document, "densty"), "unknown key `densty` in parameters of ties", "did you mean `density`?");
        assert_eq!(
            error.to_string(),
            "recipe.yml:7: unknown key `densty` in parameters of ties\n  7 |     parameters: {weight: 0.5, densty: 0.3}\n    \
             |                               ^^^^^^ did you mean `density`?"
        );
    }

    #[test]
    fn tabs_are_aligned_and_control_characters_escaped() {
        let document = Document::new("r", "a:\t\u{1b}[31mx\r\n", "");
        let shown = document.render(span_of(&document, "x"), "m", "l");
        assert_eq!(shown, format!("r:1: m\n  1 | a:    \\u{{1b}}[31mx\n    | {}^ l", " ".repeat(16)));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}é: here{}", "x".repeat(5000), "y".repeat(5000));
        let document = Document::new("r", text, "");
        let shown = document.render(span_of(&document, "here"), "m", "");
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[1].starts_with("  1 | …x") && lines[1].ends_with("y…"), "{shown}");
        let column = lines[2].find('^').unwrap();
        let marked: String = lines[1].chars().skip(column).take(4).collect();
        assert_eq!(marked, "here");
        assert!(lines.iter().all(|line| line.chars().count() < 140));
    }

    #[test]
    fn what_a_message_quotes_is_escaped_and_cut() {
        let shown = Document::new("r\n", "a", "").render(Span { start: 0, end: 1 }, &format!("\u{1b}{}", "x".repeat(9999)), "\u{7}");
        assert!(shown.starts_with("r\\u{a}:1: \\u{1b}xx") && shown.ends_with("^ \\u{7}"), "{shown}");
        assert!(shown.len() < 500);
    }

    #[test]
    fn a_span_at_the_end_or_beyond_is_shown_all_the_same() {
        for (text, start, end) in [("", 0, 0), ("a", 1, 1), ("a\n", 2, 2), ("é", 1, 9), ("a\nb", 0, 3), ("a", 7, 3)] {
            let shown = Document::new("r", text, "").render(Span { start, end }, "m", "l");
            assert!(shown.ends_with("^ l"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        let error = Document::read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.message(), "/dev/zero: not a file: found a device");
        let given = Document::read_given(Path::new("/dev/zero")).unwrap_err();
        assert!(given.message().contains("more than 1000000 bytes"), "{given}");
    }

    #[test]
    fn what_is_not_utf8_is_named_with_its_line() {
        let error = Document::from_bytes("r", b"a: b\nc: \xff\n".to_vec(), "").unwrap_err();
        assert_eq!(error.message(), "r:2: not UTF-8 text: byte 0xff at offset 8");
        assert!(Document::from_bytes("r", vec![b' '; MAX_BYTES + 1], "").is_err());
    }
}
