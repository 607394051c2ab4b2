//! Places where no output can be.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::fixture::*;
use crate::{Row, row};

pub fn rows() -> Vec<Row> {
    let merge = |name: &'static str, out: &str, says: &[&'static str], spoil: fn(&Path)| {
        row(name, &format!("merge r.yml {out}"), says, spoil).good("merge r.yml out")
    };
    let forced = |name: &'static str, out: &str, says: &[&'static str], spoil: fn(&Path)| {
        row(name, &format!("merge --force r.yml {out}"), says, spoil).good("merge --force r.yml out")
    };
    let occupied = |f: &Path| {
        std::fs::create_dir(f.join("out")).unwrap();
        write(f, "out/notes.txt", "mine");
    };
    let mut rows = vec![
        merge("out: a file", "out", &["out", "a file"], |f| write(f, "out", "mine")),
        forced("out: a file, --force", "out", &["out", "a file"], |f| write(f, "out", "mine")),
        merge("out: a folder with something in it", "out", &["out", "not empty", "--force"], occupied),
        merge("out: the base", "base", &["base", "source"], |_| ()),
        forced("out: a model, --force", "a", &["a", "source"], |_| ()),
        forced("out: inside a source, --force", "base/out", &["base/out", "source"], |_| ()),
        forced("out: around the sources, --force", ".", &["source"], |_| ()),
        forced("out: a source by another way, --force", "x/../a", &["source"], |f| std::fs::create_dir(f.join("x")).unwrap()),
        forced("out: a link to a source, --force", "out", &["out", "symbolic link"], |f| symlink("a", f.join("out")).unwrap()),
        merge("out: a link to nothing", "out", &["out", "symbolic link"], |f| symlink("gone", f.join("out")).unwrap()),
        merge("out: a link to itself", "out", &["out", "symbolic link"], |f| symlink("out", f.join("out")).unwrap()),
        merge("out: a pipe", "out", &["out", "not a folder"], |f| {
            write(f, "out", "");
            pipe_instead(f, "out");
        }),
        merge("out: below a file", "file/out", &["file"], |f| write(f, "file", "mine")),
        merge("out: in /proc", "/proc/deltaic/out", &["/proc/deltaic"], |_| ()),
        merge("out: in /dev/null", "/dev/null/out", &["/dev/null"], |_| ()),
        merge("out: the root", "/", &["/"], |_| ()),
        merge("out: a name of 300 letters", &"x".repeat(300), &["xxx", "shorter"], |_| ()),
        merge("out: a name of 250 letters", &"y".repeat(250), &["yyy", "shorter"], |_| ()),
        merge("out: a path of 5,000 letters", &"z/".repeat(2500), &["z/z"], |_| ()),
        forced("out: the adapter, --force", "adapter", &["adapter", "source"], |f| patch(f, "r.yml", "./a", "./base+./adapter")),
        row("dry run: out is a source", "merge --dry-run r.yml a", &["a", "source"], |_| ()).good("merge --dry-run r.yml out"),
        row("dare: out is the base", "dare base a base --drop-rate 0.5", &["base", "source"], |_| ())
            .good("dare base a out --drop-rate 0.5"),
    ];
    rows.push(on_small_disk("out: on a disk without room for the weights", "size=16k"));
    rows.push(on_small_disk("out: on a disk without room for the other files", "size=52k"));
    rows.push(on_small_disk("out: on a disk that is read only", "size=1m,ro"));
    rows
}

/// OUT on a file system in memory, of a size; for root alone.
fn on_small_disk(name: &'static str, options: &'static str) -> Row {
    let mut row = row(name, "merge r.yml disk/out", &["disk"], |_| ()).good("merge r.yml out");
    row.spoil = Box::new(move |folder| {
        let disk = folder.join("disk");
        std::fs::create_dir(&disk).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk).output();
        mounted.is_ok_and(|output| output.status.success())
    });
    row.undo = |folder| {
        let _ = Command::new("umount").arg(folder.join("disk")).status();
    };
    row
}
