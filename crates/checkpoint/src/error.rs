//! The one error type of deltaic's libraries.

use std::fmt;
use std::io::ErrorKind;

use rustix::io::Errno;

/// Longest message in characters; with the help it stays under 2,000. What is quoted from files is cut where it is quoted, but paths, and
/// messages of other crates, may be of any length.
const MAX_MESSAGE: usize = 1500;
/// Longest help in characters.
const MAX_HELP: usize = 450;

/// A failure as the user reads it: one message that names the file, the tensor, what was expected and what was found,
/// and, where there is something to do, a line of help.
#[derive(Debug, Clone)]
pub struct Error {
    message: String,
    help: Option<String>,
    not_yet: bool,
    permanent: bool,
}

/// `Result` with deltaic's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with its message, without the leading `error:`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: cut(message.into(), MAX_MESSAGE), help: None, not_yet: false, permanent: false }
    }

    /// An error for what is valid but not built yet; its message begins with `not yet:`.
    pub fn not_yet(what: impl fmt::Display) -> Self {
        Self { not_yet: true, ..Self::new(format!("not yet: {what}")) }
    }

    /// The same error with a line that says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(cut(help.into(), MAX_HELP));
        self
    }

    /// The same error with one more thing that can be done.
    pub fn and_help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(match self.help {
            Some(first) => format!("{first}; {help}"),
            None => help.to_string(),
        });
        self
    }

    /// The same error, with this line where it has none that says what to do.
    pub fn or_help(self, help: &str) -> Self {
        if self.help.is_some() { self } else { self.help(help) }
    }

    /// The message in one piece, without the help.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with another message.
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = cut(message.into(), MAX_MESSAGE);
        self
    }

    /// The same error with a path before its message.
    pub fn within(self, path: &std::path::Path) -> Self {
        let message = format!("{}: {}", path.display(), self.message);
        self.with_message(message)
    }

    /// The same error, known to come back however often the same work is done on the same sources.
    pub fn permanent(self) -> Self {
        Self { permanent: true, ..self }
    }

    /// Whether the same work on the same sources ends in this error again, so that nothing of it is worth keeping.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// Whether what was asked for is valid but not built yet.
    pub fn is_not_yet(&self) -> bool {
        self.not_yet
    }
}

/// A text of at most `longest` characters: of a longer one the beginning, which has the file's name, and the end, which has the reason. Control
/// characters, with which a name in a file could forge a message, are shown as escapes; lines stay.
fn cut(text: String, longest: usize) -> String {
    let is_hostile = |c: char| c.is_control() && c != '\n';
    let text = if text.contains(is_hostile) {
        text.chars().flat_map(|c| if is_hostile(c) { c.escape_unicode().collect() } else { vec![c] }).collect()
    } else {
        text
    };
    let count = text.chars().count();
    if count <= longest {
        return text;
    }
    let kept = (longest - 1) / 2;
    text.chars().take(kept).chain(['…']).chain(text.chars().skip(count - kept)).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  = {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Adds to an I/O error which file it was and what was being done.
pub trait Context<T> {
    /// Turns the error into deltaic's: `path: doing: error`, with what the user can do about an error of that kind.
    fn context(self, doing: &str, path: &std::path::Path) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, doing: &str, path: &std::path::Path) -> Result<T> {
        self.map_err(|error| Error::new(format!("{}: {doing}: {error}", path.display())).help(what_to_do(&error)))
    }
}

fn what_to_do(error: &std::io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => {
            return "more files than a process may have open: raise the limit with `ulimit -n 65536`, and run it again";
        }
        Some(Errno::LOOP) => return "a link leads back to itself: put the file itself there",
        _ => {}
    }
    match error.kind() {
        ErrorKind::NotFound => "see whether the path is right: it, or the folder that it lies in, is not there (any more)",
        ErrorKind::PermissionDenied => "see with `ls -ld` who may read and write there, or choose another place",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room, or choose another disk",
        ErrorKind::ReadOnlyFilesystem => "nothing can be written on that file system: choose another place",
        ErrorKind::IsADirectory => "a file is expected there, not a folder",
        ErrorKind::NotADirectory => "a part of the path is a file, not a folder: choose another place",
        ErrorKind::InvalidFilename => "choose a shorter name",
        ErrorKind::UnexpectedEof => "the file ends too early: it was cut while it was read, or its download is not complete",
        ErrorKind::InvalidData => "the file is damaged or of another format: get it from its source again",
        _ => "the operating system refused it: see whether the path is right and the disk sound",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_and_keep_their_beginning_and_end() {
        let path = std::path::PathBuf::from("é/".repeat(5000));
        let error = Error::new(format!("begin {} end", "x".repeat(9999))).within(&path).help("h".repeat(9999));
        assert!(error.to_string().chars().count() < 2000 && error.message().starts_with("é/") && error.message().ends_with(" end"));
        assert_eq!(Error::new("one\ntwo").message(), "one\ntwo");
    }

    #[test]
    fn too_many_open_files_come_with_the_limit_to_raise() {
        let result: std::io::Result<()> = Err(Errno::MFILE.into());
        assert!(result.context("opening", std::path::Path::new("a")).unwrap_err().to_string().contains("ulimit -n"));
    }

    #[test]
    fn what_controls_a_terminal_is_shown_as_escapes() {
        assert_eq!(Error::new("a\u{1b}[2J\rb\tc\n").message(), "a\\u{1b}[2J\\u{d}b\\u{9}c\n");
    }
}
