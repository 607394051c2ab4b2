//! Messages on stderr: errors, warnings, notes.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use deltaic_checkpoint::Error;

/// Where messages go, and how.
pub struct Messages {
    quiet: bool,
    colored: bool,
}

impl Messages {
    pub fn new(quiet: bool, color: ColorChoice) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colored = match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR") => false,
            ColorChoice::Auto if std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0") => true,
            ColorChoice::Auto => std::io::stderr().is_terminal(),
        };
        Self { quiet, colored }
    }

    /// Whether only errors and results are wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub fn error(&self, error: &Error) {
        self.say("error", AnsiColor::Red, &error.to_string());
    }

    pub fn warning(&self, text: &str) {
        if !self.quiet {
            self.say("warning", AnsiColor::Yellow, text);
        }
    }

    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.say("note", AnsiColor::Cyan, text);
        }
    }

    fn say(&self, kind: &str, color: AnsiColor, text: &str) {
        let style = if self.colored { Style::new().bold().fg_color(Some(color.into())) } else { Style::new() };
        // Nobody is left to be told when stderr is gone.
        let _ = writeln!(std::io::stderr(), "{style}{kind}:{style:#} {text}");
    }
}

/// Prints a result. A reader that is gone ends the program quietly, as it does in a pipe.
pub fn print(text: &str) {
    if let Err(error) = std::io::stdout().lock().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        let _ = writeln!(std::io::stderr(), "error: writing the result: {error}");
        std::process::exit(1);
    }
}
