//! `deltaic-sandbox [--exec-timeout SECONDS] PROGRAM.py...`: runs Python programs, each in a sandbox, and prints how each ended. For trying programs
//! by hand, and the binary that this crate's tests start sandboxes with.

use std::path::PathBuf;
use std::process::ExitCode;

use deltaic_sandbox::{Program, Sandbox, Settings, run_if_inside};

fn main() -> ExitCode {
    run_if_inside();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut settings = Settings::default();
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.first().is_some_and(|first| first.as_os_str() == "--exec-timeout") {
        let seconds = paths.get(1).and_then(|seconds| seconds.to_str()?.parse().ok());
        settings.limits.seconds = seconds.ok_or("--exec-timeout: expected a number of seconds")?;
        paths.drain(..2);
    }
    let sandbox = Sandbox::new(settings).map_err(|e| e.to_string())?;
    for path in paths {
        let source = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let outcome = sandbox.run(&Program { source }).map_err(|e| e.to_string())?;
        println!("{}: {} ({:.3} s)", path.display(), outcome.status, outcome.seconds);
        print!("{}{}", outcome.stdout_tail, outcome.stderr_tail);
    }
    Ok(())
}
