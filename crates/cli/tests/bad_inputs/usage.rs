//! Wrong usage: exit 2.

use crate::{Row, row};

pub fn rows() -> Vec<Row> {
    let usage = |name: &'static str, command: &str, says: &[&'static str]| row(name, command, says, |_| ()).good("merge r.yml out").exit(2);
    vec![
        usage("usage: no such verb", "merge-all r.yml out", &["merge-all"]),
        usage("usage: no such flag", "merge r.yml out --no-such-flag", &["--no-such-flag"]),
        usage("usage: no OUT", "merge r.yml", &["<OUT>"]),
        usage("usage: an OUT without a name", "merge r.yml ", &["<OUT>"]),
        usage("usage: one argument too many", "merge r.yml out more", &["more"]),
        usage("usage: a drop rate of 2", "dare base a out --drop-rate 2", &["--drop-rate", "0 .. 1"]),
        usage("usage: a drop rate that is NaN", "dare base a out --drop-rate nan", &["--drop-rate", "0 .. 1"]),
        usage("usage: no drop rate", "dare base a out", &["--drop-rate"]),
        usage("usage: no threads", "merge --threads 0 r.yml out", &["--threads"]),
        usage("usage: a million threads", "merge --threads 1000000 r.yml out", &["--threads"]),
        usage("usage: a shard size of -1", "merge --out-shard-size=-1 r.yml out", &["--out-shard-size"]),
        usage("usage: a shard size of 99999999999GB", "merge --out-shard-size 99999999999GB r.yml out", &["--out-shard-size"]),
        usage("usage: a seed of -1", "merge --random-seed=-1 r.yml out", &["--random-seed"]),
        usage("usage: both --strict and --ignore-unknown", "merge --strict --ignore-unknown r.yml out", &["--strict"]),
        usage("usage: an instruction set of another machine", "merge --instruction-set mmx r.yml out", &["--instruction-set"]),
        usage("usage: nothing to inspect", "inspect", &["<MODELS>"]),
    ]
}
