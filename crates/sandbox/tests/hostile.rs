//! Hostile programs, run as root and as a plain user. What a program says about itself proves nothing: all is asserted from outside.
#![cfg(target_os = "linux")]

mod scene;

use scene::{Report, User, each_user};

/// Runs a program of `tests/hostile` as each user; asserts how it ended and all that holds for every program (`Scene::check`).
fn contained(file: &str, status: &str, check: impl Fn(&Report)) {
    let source = std::fs::read_to_string(format!("{}/tests/hostile/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    each_user(file, |scene| {
        let report = scene.run(&source);
        assert!(report.status.starts_with(status), "{file} as {:?}: {}\n{}", scene.user, report.status, report.output);
        scene.check(&report);
        check(&report);
    });
}

#[test]
fn a_fork_bomb_has_few_processes_and_none_afterwards() {
    contained("fork_bomb.py", "timed out", |report| assert!(report.most_threads > 2, "the sampler saw nothing"));
}

#[test]
fn a_thread_bomb_has_few_threads_and_none_afterwards() {
    contained("thread_bomb.py", "timed out", |report| assert!(report.most_threads > 2, "the sampler saw nothing"));
}

#[test]
fn files_outside_of_the_scratch_folder_are_not_written() {
    contained("writes_outside.py", "passed", |report| assert!(!report.output.contains("WROTE"), "{}", report.output));
}

#[test]
fn files_and_environments_outside_are_not_read() {
    contained("reads_outside.py", "passed", |_| {});
}

#[test]
fn the_callers_environment_does_not_reach_the_program() {
    contained("environment.py", "passed", |report| assert!(!report.output.contains("SECRET"), "{}", report.output));
}

#[test]
fn neither_loopback_nor_unix_sockets_are_reached() {
    contained("network.py", "passed", |report| {
        assert!(report.output.contains("-1 -1 -1 -1"), "{}", report.output);
    });
}

#[test]
fn memory_is_limited() {
    contained("memory.py", "failed: MemoryError", |_| {});
}

#[test]
fn memory_of_child_processes_and_of_files_in_memory_is_limited() {
    contained("memory_of_children.py", "", |report| assert!(!report.output.contains("MEMFD"), "{}", report.output));
}

#[test]
fn an_endless_loop_is_ended_in_time() {
    contained("endless_loop.py", "timed out", |report| {
        let found = report.rights.clone().expect("the sampler saw the process");
        assert!(!found.users.contains(&0), "runs as root: {found:?}");
        assert_eq!((found.capabilities, found.no_new_privs, found.seccomp), (0, 1, 2), "rights of the running program");
    });
}

#[test]
fn a_sleeping_program_is_ended_in_time() {
    contained("sleeps.py", "timed out", |_| {});
}

#[test]
fn a_flood_of_output_is_discarded() {
    contained("output_flood.py", "timed out", |report| assert!(report.output.contains("flood"), "its end is kept"));
}

#[test]
fn huge_files_do_not_take_the_memory() {
    contained("huge_file.py", "passed", |report| assert!(!report.output.contains("SPARSE"), "{}", report.output));
}

#[test]
fn the_scratch_folder_holds_a_bounded_number_of_files() {
    contained("fills_scratch.py", "passed", |report| {
        let count = report.output.split_whitespace().last().and_then(|count| count.parse::<u32>().ok());
        assert!(count.is_some_and(|count| count < 5000), "{}", report.output);
    });
}

#[test]
fn other_processes_are_not_killed() {
    contained("kills_everybody.py", "passed", |report| assert!(!report.output.contains("PIDFD"), "{}", report.output));
}

#[test]
fn other_processes_are_not_traced_or_read() {
    contained("ptrace.py", "passed", |_| {});
}

#[test]
fn nothing_lives_on_in_the_background() {
    contained("background.py", "passed", |_| {});
}

#[test]
fn a_program_that_ignores_all_signals_is_ended() {
    contained("ignores_signals.py", "timed out", |_| {});
}

#[test]
fn links_do_not_lead_out() {
    contained("symlinks.py", "passed", |_| {});
}

#[test]
fn no_shared_memory_is_made() {
    contained("shared_memory.py", "passed", |report| {
        // /dev/shm is the program's own, for semaphores, and goes with it: that nothing is left outside is looked at for every program.
        assert!(report.output.trim_start_matches("WROTE /dev/shm/deltaic_marker\n").starts_with("-1 -1 -1"), "{}", report.output);
    });
}

#[test]
fn no_rights_are_gained() {
    contained("gains_rights.py", "passed", |report| assert!(!report.output.contains("GAINED"), "{}", report.output));
}

#[test]
fn limits_are_not_raised() {
    contained("outlasts_limits.py", "passed", |report| assert!(!report.output.contains("RAISED"), "{}", report.output));
}

#[test]
fn what_one_run_leaves_in_its_scratch_folder_the_next_does_not_see() {
    for _ in 0..2 {
        contained("leaves_scratch.py", "passed", |report| assert_eq!(report.output.trim(), "found []"));
    }
}

#[test]
fn programs_that_end_before_their_tests_have_failed() {
    let folder = format!("{}/tests/early", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 15);
    each_user("tests/early", |scene| {
        for file in &files {
            let source = std::fs::read_to_string(file).unwrap();
            let report = scene.run(&format!("{source}\nassert 1 + 1 == 3\n"));
            assert!(report.status.starts_with("failed"), "{} as {:?}: {}", file.display(), scene.user, report.status);
        }
    });
}

#[test]
fn a_program_that_ends_after_its_tests_has_passed() {
    let programs = [
        "def f(x):\n    return x + 1\nassert f(1) == 2\n",
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 1\nassert asyncio.run(f()) == 1\n",
        "import threading\nt = threading.Thread(target=lambda: None)\nt.start()\nt.join()\n",
        "import subprocess, sys\nassert subprocess.run([sys.executable, '-S', '-c', 'print(1)'], capture_output=True).stdout == b'1\\n'\n",
        "import tempfile, os\nwith tempfile.NamedTemporaryFile() as f:\n    f.write(b'x')\nassert os.getcwd() == '/tmp'\n",
        "import hashlib, decimal, sqlite3, ssl, zlib, bz2, lzma, ctypes, datetime, random, statistics, unicodedata\n",
        "import multiprocessing.pool\nwith multiprocessing.pool.ThreadPool(2) as pool:\n    assert pool.map(abs, [-1, 2]) == [1, 2]\n",
        "import os\nif os.fork() == 0:\n    os._exit(3)\nassert os.waitstatus_to_exitcode(os.wait()[1]) == 3\n",
    ];
    each_user("programs that pass", |scene| {
        for program in programs {
            let report = scene.run(program);
            assert_eq!(report.status, "passed", "as {:?}: {program}\n{}", scene.user, report.output);
        }
    });
}

#[test]
fn standard_input_gives_nothing() {
    each_user("input", |scene| {
        let report = scene.run("input()\n");
        assert!(report.status.starts_with("failed: EOFError"), "as {:?}: {}", scene.user, report.status);
    });
}

#[test]
fn the_tests_run_as_a_plain_user_too() {
    // Named, so that a log shows where they did not.
    if !User::Nobody.is_possible() {
        println!("skipped: the plain user's half: needs root, setpriv and a Python that all may read");
    }
}
