//! The one error type of deltaic's libraries.

use std::fmt;

/// A failure as the user reads it: one message that names the file, the tensor, what was expected and what was found,
/// and, where there is something to do, a line of help.
#[derive(Debug, Clone)]
pub struct Error {
    message: String,
    help: Option<String>,
    not_yet: bool,
}

/// `Result` with deltaic's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with its message, without the leading `error:`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, not_yet: false }
    }

    /// An error for what is valid but not built yet; its message begins with `not yet:`.
    pub fn not_yet(what: impl fmt::Display) -> Self {
        Self { message: format!("not yet: {what}"), help: None, not_yet: true }
    }

    /// The same error with a line that says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same error with a line that says what to do, where it has none.
    pub fn or_help(mut self, help: &str) -> Self {
        self.help.get_or_insert_with(|| help.to_owned());
        self
    }

    /// The message in one piece, without the help.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with another message.
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The same error with a path before its message.
    pub fn within(mut self, path: &std::path::Path) -> Self {
        self.message = format!("{}: {}", path.display(), self.message);
        self
    }

    /// Whether what was asked for is valid but not built yet.
    pub fn is_not_yet(&self) -> bool {
        self.not_yet
    }
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
    /// Turns the error into deltaic's: `doing path: error`.
    fn context(self, doing: &str, path: &std::path::Path) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, doing: &str, path: &std::path::Path) -> Result<T> {
        self.map_err(|error| Error::new(format!("{}: {doing}: {error}", path.display())))
    }
}
