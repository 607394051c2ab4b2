//! Inputs that mean harm, are broken, or are merely wrong, each through the binary: a table of rows, every one a good input with one thing
//! spoiled. What holds for all of them: the exit code; one message under 2,000 characters that names what is wrong and says what to do; no
//! panic; nothing on stdout; no output, no partial folder, no file changed; less than 1 GB of memory.
//!
//! `DELTAIC_BAD_INPUTS_TABLE=FILE` writes the table as Markdown, with what was said and the time that each took.

mod adapters;
#[path = "../checkpoints/mod.rs"]
mod checkpoints;
mod configs;
mod fixture;
mod indices;
mod outputs;
mod pickles;
mod recipes;
mod usage;
mod weights;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use checkpoints::{say, stderr};
use fixture::{fixture, tree};

/// Memory that a command may reserve, in KiB; what it uses is less.
const MEMORY: u64 = 1 << 20;
/// Nothing here takes longer, but where it hangs.
const HANG: Duration = Duration::from_secs(60);

/// A bad input.
pub struct Row {
    /// What is bad.
    name: &'static str,
    /// The arguments, separated by spaces, run in the fixture's folder.
    command: String,
    /// Arguments that succeed on the fixture as it is; mostly the same ones.
    good: String,
    /// Expected exit code.
    exit: i32,
    /// What the message has to hold.
    says: Vec<&'static str>,
    /// Spoils the fixture. False where this machine cannot: the row is then skipped.
    spoil: Box<dyn Fn(&Path) -> bool>,
    /// Undoes what deleting the folder does not.
    undo: fn(&Path),
}

impl Row {
    /// Where the command itself is bad: one that succeeds.
    fn good(mut self, command: &str) -> Self {
        self.good = command.to_owned();
        self
    }

    /// The same row with another command.
    fn run(mut self, command: &str) -> Self {
        (self.command, self.good) = (command.to_owned(), command.to_owned());
        self
    }

    fn exit(mut self, code: i32) -> Self {
        self.exit = code;
        self
    }

    /// What is prepared besides.
    fn with(mut self, prepare: fn(&Path)) -> Self {
        let spoil = self.spoil;
        self.spoil = Box::new(move |folder| {
            prepare(folder);
            spoil(folder)
        });
        self
    }
}

/// A row whose command succeeds as long as nothing is spoiled.
pub fn row(name: &'static str, command: &str, says: &[&'static str], spoil: impl Fn(&Path) + 'static) -> Row {
    let spoil = move |folder: &Path| {
        spoil(folder);
        true
    };
    let command = command.to_owned();
    Row { name, good: command.clone(), command, exit: 1, says: says.to_vec(), spoil: Box::new(spoil), undo: |_| {} }
}

/// The binary under a limit of memory, in a folder.
fn deltaic(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new("sh");
    let run = format!("ulimit -v {MEMORY} 2>/dev/null; exec \"$0\" \"$@\"");
    command.args(["-c", &run, env!("CARGO_BIN_EXE_deltaic")]).args(arguments.split(' '));
    // Every arena of the allocator reserves 64 MB, used or not: without this the limit would count cores.
    command.env("MALLOC_ARENA_MAX", "2").env("NO_COLOR", "1").env("HF_HUB_CACHE", "/nowhere").env("RUST_BACKTRACE", "0");
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command; one that hangs is killed. What it prints here always fits a pipe.
fn run(mut command: Command) -> Result<(Output, Duration), String> {
    let begun = Instant::now();
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if begun.elapsed() > HANG {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("still at work after {HANG:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let taken = begun.elapsed();
    Ok((child.wait_with_output().map_err(|error| error.to_string())?, taken))
}

/// What is wrong with how a row went.
fn faults(row: &Row, output: &Output) -> Vec<String> {
    let message = stderr(output);
    let mut faults = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            faults.push(what);
        }
    };
    expect(output.status.code() == Some(row.exit), format!("expected exit {}, found {}", row.exit, output.status));
    expect(message.matches("error: ").count() == 1, "not one error".to_owned());
    expect(message.chars().count() < 2000, format!("{} characters", message.chars().count()));
    expect(!message.contains("panicked"), "panicked".to_owned());
    expect(!message.contains(|c: char| c.is_control() && c != '\n'), "control characters".to_owned());
    expect(output.stdout.is_empty(), format!("on stdout: {}", String::from_utf8_lossy(&output.stdout)));
    for said in &row.says {
        expect(message.contains(said), format!("does not say `{said}`"));
    }
    // What to do: a line of help, what stands behind the underlined place of a recipe, or clap's usage.
    let labelled = message.trim_end().lines().any(|line| line.split_once('^').is_some_and(|(_, rest)| rest.trim_matches('^').len() > 3));
    expect(message.contains("\n  = ") || labelled || row.exit == 2 && message.contains("--help"), "does not say what to do".to_owned());
    faults
}

/// One row, from a fresh fixture to what is left of it. None where it was skipped; else the first line of the message, and the time.
fn check(row: &Row) -> Result<Option<(String, Duration)>, String> {
    let folder = fixture();
    let path = folder.path();
    if !(row.spoil)(path) {
        return Ok(None);
    }
    let before = tree(path);
    let ran = run(deltaic(path, &row.command));
    let changed = tree(path) != before;
    (row.undo)(path);
    let (output, taken) = ran?;
    let mut faults = faults(row, &output);
    if changed {
        faults.push("the folder is not as it was before".to_owned());
    }
    let message = stderr(&output).replace(&path.display().to_string(), "…");
    match faults.is_empty() {
        true => Ok(Some((message.lines().find(|line| line.starts_with("error: ")).unwrap_or_default().to_owned(), taken))),
        false => Err(format!("{}\n{message}", faults.join("; "))),
    }
}

#[test]
fn bad_inputs_end_in_one_message_that_says_what_to_do_and_change_nothing() {
    let mut rows = weights::rows();
    for more in [indices::rows(), configs::rows(), pickles::rows(), adapters::rows(), recipes::rows(), outputs::rows(), usage::rows()] {
        rows.extend(more);
    }
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "two rows have one name");

    // An input is only bad where it is good without what was spoiled.
    let good: BTreeSet<&str> = rows.iter().map(|row| row.good.as_str()).collect();
    for arguments in good {
        let folder = fixture();
        let (output, _) = run(deltaic(folder.path(), arguments)).unwrap();
        assert!(output.status.success(), "deltaic {arguments}\n{}", stderr(&output));
    }

    let mut table = String::from("| input | command | exit | message |\n| --- | --- | --- | --- |\n");
    let (mut failed, mut done, mut slowest) = (Vec::new(), 0, (Duration::ZERO, ""));
    for row in &rows {
        match check(row) {
            Err(faults) => failed.push(format!("{}: deltaic {}: {faults}", row.name, row.command)),
            Ok(None) => checkpoints::skipped("bad_inputs", &format!("{}: not possible on this machine", row.name)),
            Ok(Some((said, taken))) => {
                done += 1;
                slowest = slowest.max((taken, row.name));
                let cell = |text: &str| text.chars().take(160).collect::<String>().replace('|', "\\|");
                table += &format!("| {} | `{}` | {} | {} |\n", row.name, cell(&row.command), row.exit, cell(&said));
            }
        }
    }
    say(&format!("{done} bad inputs, {} failed; slowest: {} in {:?}", failed.len(), slowest.1, slowest.0));
    if let Some(file) = std::env::var_os("DELTAIC_BAD_INPUTS_TABLE") {
        std::fs::write(file, table).unwrap();
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), rows.len(), failed.join("\n"));
    assert!(done >= 100, "{done} bad inputs, expected at least 100");
}
