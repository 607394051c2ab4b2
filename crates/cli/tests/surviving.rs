//! What can stop a merge: `kill -9`, Ctrl-C, a full disk, another run, a mount point. There is always the old model, the whole new one, or none.
//!
//! `DELTAIC_KILLS=100 DELTAIC_KILL_RECIPE=recipe.yml` kills a merge of one's own more often.

mod checkpoints;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use checkpoints::{deltaic, fail, files, read, say, skipped, small_models, stderr, succeed, write};
use safetensors::{Dtype, tensor::TensorView};

const LAYERS: usize = 24;

/// A base and two fine-tunes of so many elements a layer, and a recipe that merges them.
fn family(folder: &Path, elements: usize) -> PathBuf {
    for (number, name) in ["base", "a", "b"].into_iter().enumerate() {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), format!(r#"{{"model_type": "llama", "num_hidden_layers": {LAYERS}}}"#)).unwrap();
        let layer = |layer: usize| -> Vec<u8> {
            let value = |i: usize| ((i * 31 + layer) % 1009) as f32 * 1e-3 + (number * ((i * 7 + number) % 13)) as f32 * 1e-4;
            (0..elements).flat_map(|i| value(i).to_le_bytes()).collect()
        };
        let data: Vec<Vec<u8>> = (0..LAYERS).map(layer).collect();
        let view = |(i, data): (usize, &'_ Vec<u8>)| {
            (format!("model.layers.{i}.mlp.up_proj.weight"), TensorView::new(Dtype::F32, vec![elements / 64, 64], leaked(data)).unwrap())
        };
        let views: BTreeMap<String, TensorView<'_>> = data.iter().enumerate().map(view).collect();
        std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    }
    let recipe =
        "merge_method: dare_ties\nbase_model: base\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 0.5, density: 0.5}\nseed: 5\n";
    write(folder, "recipe.yml", recipe)
}

/// Views borrow their bytes; tests end soon.
fn leaked(data: &[u8]) -> &'static [u8] {
    Box::leak(data.to_vec().into_boxed_slice())
}

fn start(recipe: &Path, out: &Path, flags: &[&str]) -> Child {
    deltaic().arg("merge").arg(recipe).arg(out).args(flags).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Bytes that a process has written so far.
fn written(process: &Child) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", process.id())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok())
}

fn partial_folders(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains(".partial-")).collect()
}

#[test]
fn a_merge_that_was_killed_is_gone_on_with_to_the_same_bytes() {
    let number = |name: &str, default: u32| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let folder = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
    let recipe = match std::env::var_os("DELTAIC_KILL_RECIPE") {
        Some(recipe) => PathBuf::from(recipe),
        None => family(folder.path(), 1 << 18),
    };
    let (whole, out) = (folder.path().join("whole"), folder.path().join("out"));
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        succeed(deltaic().arg("merge").arg(&recipe).arg(&whole).arg("--force"));
        times.push(started.elapsed());
    }
    times.sort();
    let (time, expected) = (times[1], files(&whole));
    let total = expected.iter().filter(|(name, _)| name.ends_with(".safetensors")).map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    let (mut state, mut gone_on, mut whole_already, mut twice) = (0x2545_F491u64, 0, 0, Vec::new());
    let kills = number("DELTAIC_KILLS", 8);
    for kill in 0..kills {
        let mut process = start(&recipe, &out, &[]);
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(time.mul_f64((state >> 40) as f64 / f64::from(1 << 24)));
        let done = written(&process);
        process.kill().unwrap();
        process.wait().unwrap();
        whole_already += u32::from(out.exists());
        let result = succeed(deltaic().arg("merge").arg(&recipe).arg(&out).args(["--resume", "--json"]));
        let kept = serde_json::from_str::<serde_json::Value>(&result).unwrap()["kept_bytes"].as_u64().unwrap();
        gone_on += u32::from(kept > 0);
        twice.extend(done.filter(|_| kept < total).map(|done| done.min(total).saturating_sub(kept) as f64 / total as f64));
        let got = files(&out);
        assert!(got == expected, "kill {kill}: other bytes in {:?}", differing(&got, &expected));
        assert!(partial_folders(folder.path()).is_empty(), "kill {kill}");
        std::fs::remove_dir_all(&out).unwrap();
    }
    let (mean, most) = (twice.iter().sum::<f64>() / twice.len().max(1) as f64, twice.iter().copied().fold(0.0, f64::max));
    say(&format!(
        "{kills} kills of a merge of {:.1} s: the same bytes each time; {gone_on} found work done, {whole_already} came too late; \
         done twice: {:.1}% of the output in the mean, {:.1}% at most",
        time.as_secs_f64(),
        100.0 * mean,
        100.0 * most
    ));
}

fn differing<'a>(got: &'a BTreeMap<String, Vec<u8>>, expected: &'a BTreeMap<String, Vec<u8>>) -> Vec<&'a String> {
    got.keys().chain(expected.keys()).filter(|name| got.get(*name) != expected.get(*name)).collect()
}

#[test]
fn an_interrupted_merge_names_what_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = family(folder.path(), 1 << 19);
    let out = folder.path().join("out");
    let process = start(&recipe, &out, &["--threads", "1"]);
    // From the first bytes of weights on there is something to interrupt.
    let deadline = Instant::now() + Duration::from_secs(60);
    while written(&process).is_none_or(|bytes| bytes < 4 << 20) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    succeed(Command::new("kill").arg("-INT").arg(process.id().to_string()));
    let output = process.wait_with_output().unwrap();
    let (message, left) = (stderr(&output), partial_folders(folder.path()));
    assert!(!out.exists(), "the merge was over before it was interrupted");
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("error: cancelled"), "{message}");
    match &left[..] {
        [] => assert!(!message.contains("--resume"), "{message}"),
        [left] => assert!(message.contains(&*left.to_string_lossy()) && message.contains("--resume"), "{message}"),
        several => panic!("{several:?}"),
    }
}

#[test]
fn of_two_runs_on_one_out_one_is_told_to_wait() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = family(folder.path(), 1 << 19);
    let out = folder.path().join("out");
    let mut first = start(&recipe, &out, &["--threads", "1"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while written(&first).is_none_or(|bytes| bytes < 1 << 20) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    for flags in [&[][..], &["--resume"], &["--force"]] {
        let message = fail(deltaic().arg("merge").arg(&recipe).arg(&out).args(flags));
        assert!(message.contains("another run of this merge is at work") && message.contains("= wait for it"), "{flags:?}: {message}");
    }
    assert!(first.wait().unwrap().success());
    assert_eq!(read(&out).len(), LAYERS);
}

/// A file system of its own, unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    /// None where mounting is not allowed.
    fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(at).output();
        done.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    fn resize(&self, size: &str) {
        succeed(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_before_the_first_byte_and_the_merge_succeeds_after_room_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = family(folder.path(), 1 << 16);
    let Some(disk) = Mounted::tmpfs(&folder.path().join("disk"), "3M") else {
        return skipped("a_full_disk_is_said_before_the_first_byte_and_the_merge_succeeds_after_room_is_made", "mounting needs root");
    };
    let out = disk.0.join("models/out");
    let message = fail(deltaic().arg("merge").arg(&recipe).arg(&out));
    assert!(message.contains("the output needs") && message.contains("are free") && message.contains("= make room"), "{message}");
    assert!(!disk.0.join("models").exists(), "the folder that was made for it is gone, too");
    disk.resize("9M");
    succeed(deltaic().arg("merge").arg(&recipe).arg(&out));
    let elsewhere = folder.path().join("elsewhere");
    succeed(deltaic().arg("merge").arg(&recipe).arg(&elsewhere));
    assert!(files(&out) == files(&elsewhere));
    // The old model is in the way of a second one, and stays.
    let before = files(&out);
    let message = fail(deltaic().arg("merge").arg(&recipe).arg(&out).arg("--force"));
    assert!(message.contains("the output needs"), "{message}");
    assert!(files(&out) == before);
}

#[test]
fn a_mount_point_is_filled_from_inside() {
    let folder = small_models();
    let Some(disk) = Mounted::tmpfs(&folder.path().join("disk"), "64M") else {
        return skipped("a_mount_point_is_filled_from_inside", "mounting needs root");
    };
    let recipe = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: fine-tune-a}, {model: fine-tune-b}]\nparameters: {weight: 0.5}\n";
    let recipe = write(folder.path(), "recipe.yml", recipe);
    let elsewhere = folder.path().join("elsewhere");
    let names = |folder: &Path| files(folder).into_keys().collect::<Vec<_>>();
    for (flags, shards) in [(&["--out-shard-size", "20KB"][..], true), (&["--force"], false)] {
        succeed(deltaic().arg("merge").arg(&recipe).arg(&disk.0).args(flags));
        succeed(deltaic().arg("merge").arg(&recipe).arg(&elsewhere).args(flags));
        assert_eq!(names(&disk.0), names(&elsewhere));
        assert!(files(&disk.0) == files(&elsewhere));
        assert_eq!(disk.0.join("model.safetensors.index.json").exists(), shards);
    }
    let message = fail(deltaic().arg("merge").arg(&recipe).arg(&disk.0));
    assert!(message.contains("the folder is not empty"), "{message}");
}
