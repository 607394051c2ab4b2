//! The library's own contract: order, cancelling, errors, running without confinement.
#![cfg(unix)]

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deltaic_sandbox::{Confinement, Limits, Program, Sandbox, Settings, Status};

fn settings() -> Settings {
    Settings { launcher: Some(env!("CARGO_BIN_EXE_deltaic-sandbox").into()), ..Settings::default() }
}

fn program(source: &str) -> Program {
    Program { source: source.to_owned() }
}

#[cfg(target_os = "linux")]
#[test]
fn outcomes_come_in_the_order_of_the_programs_and_each_is_heard_of_once() {
    let sandbox = Sandbox::new(settings()).unwrap();
    let programs: Vec<Program> =
        (0..12).map(|i| program(&format!("import time\ntime.sleep({})\nprint({i})", (12 - i) % 3 * 50 / 1000))).collect();
    let heard = Mutex::new(Vec::new());
    let outcomes = sandbox.run_all(&programs, 4, &AtomicBool::new(false), &|i, _| heard.lock().unwrap().push(i)).unwrap();
    let printed: Vec<usize> = outcomes.iter().map(|outcome| outcome.stdout_tail.trim().parse().unwrap()).collect();
    assert_eq!(printed, (0..12).collect::<Vec<_>>());
    let mut heard = heard.into_inner().unwrap();
    heard.sort_unstable();
    assert_eq!(heard, printed);
}

#[cfg(target_os = "linux")]
#[test]
fn cancelling_ends_running_programs_and_is_an_error() {
    let limits = Limits { seconds: 600.0, ..Limits::default() };
    let sandbox = Sandbox::new(Settings { limits, ..settings() }).unwrap();
    let cancel = AtomicBool::new(false);
    let began = Instant::now();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            cancel.store(true, Ordering::Relaxed);
        });
        sandbox.run_all(&vec![program("while True: pass"); 3], 2, &cancel, &|_, _| {}).unwrap_err()
    });
    assert!(error.message().contains("cancelled"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[cfg(target_os = "linux")]
#[test]
fn sets_iterate_in_the_same_order_in_every_run() {
    let sandbox = Sandbox::new(settings()).unwrap();
    let run = || sandbox.run(&program("print({str(i) for i in range(50)})")).unwrap().stdout_tail;
    assert_eq!(run(), run());
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_no_python_is_a_failure_of_the_program() {
    let sandbox = Sandbox::new(settings()).unwrap();
    for (source, message) in [
        ("def f(:\n", "SyntaxError"),
        ("x = '\0'", ""),
        ("def f(): return f()\nf()", "RecursionError"),
        ("print('\u{fffd}') or undefined", "NameError"),
        ("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E", "E"),
        ("raise ValueError('x' * 10**6)", "ValueError: xxx"),
        (&"x = 1\n".repeat(3 << 20), "the program is too long to be run"),
    ] {
        match sandbox.run(&program(source)).unwrap().status {
            Status::Failed(found) => assert!(found.starts_with(message) && found.len() < 1000, "{source:.100}: {found}"),
            other => panic!("{:.100}: {other}", source),
        }
    }
}

#[test]
fn a_launcher_that_knows_nothing_of_sandboxes_is_an_error() {
    let error = Sandbox::new(Settings { launcher: Some("/bin/true".into()), ..Settings::default() }).unwrap_err();
    assert!(error.to_string().contains("run_if_inside"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn where_confinement_is_possible_it_is_not_left_out() {
    let sandbox = Sandbox::new(Settings { confinement: Confinement::WherePossible, ..settings() }).unwrap();
    assert_eq!(sandbox.unconfined_because(), None);
    let inside = sandbox.run(&program("import os\nprint(os.getcwd(), os.path.exists('/etc/passwd'))")).unwrap().stdout_tail;
    assert_eq!(inside.trim(), "/tmp False");
    let python = sandbox.run(&program("import sys\nprint(*sys.version_info[:3])")).unwrap().stdout_tail;
    assert_eq!(python.trim(), sandbox.python_version().map(|part| part.to_string()).join(" "));
}

#[test]
fn a_missing_interpreter_is_named() {
    let error = Sandbox::new(Settings { python: PathBuf::from("/nowhere/python3"), ..settings() }).unwrap_err();
    assert!(error.message().contains("/nowhere/python3"), "{error}");
}

#[test]
fn limits_out_of_range_are_named() {
    for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = Sandbox::new(Settings { limits: Limits { seconds, ..Limits::default() }, ..settings() }).unwrap_err();
        assert!(error.message().contains("time"), "{error}");
    }
}

#[test]
fn without_confinement_programs_are_judged_and_ended_all_the_same() {
    let limits = Limits { seconds: 1.0, ..Limits::default() };
    let sandbox = Sandbox::new(Settings { limits, confinement: Confinement::None, ..settings() }).unwrap();
    let status = |source: &str| sandbox.run(&program(source)).unwrap().status;
    assert_eq!(status("assert 1 + 1 == 2"), Status::Passed);
    assert_eq!(status("while True: pass"), Status::TimedOut);
    assert!(matches!(status("import os\nos._exit(0)"), Status::Failed(_)));
    let scratch = sandbox.run(&program("import os\nopen('left', 'w').close()\nprint(os.getcwd())")).unwrap().stdout_tail;
    assert!(!scratch.trim().is_empty() && !PathBuf::from(scratch.trim()).exists(), "{scratch} is left over");
}
