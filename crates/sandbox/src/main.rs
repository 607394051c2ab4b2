//! `deltaic-sandbox PROGRAM.py...`: runs Python programs, each in a sandbox, and prints how each ended. For trying programs by hand, and the
//! binary that this crate's tests start sandboxes with.

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
    let sandbox = Sandbox::new(Settings::default()).map_err(|e| e.to_string())?;
    for path in std::env::args_os().skip(1) {
        let name = path.to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&path).map_err(|e| format!("{name}: {e}"))?;
        let outcome = sandbox.run(&Program { source }).map_err(|e| e.to_string())?;
        println!("{name}: {} ({:.3} s)", outcome.status, outcome.seconds);
        print!("{}{}", outcome.stdout_tail, outcome.stderr_tail);
    }
    Ok(())
}
