//! `deltaic study`.

use std::path::Path;

use deltaic_checkpoint::{Result, read_text};
use deltaic_study::study::{DryRun, Outcome, Places, Report, Study, StudyProgress, Watch, dry_run, report_only, run as run_study};
use serde_json::json;

use crate::arguments;
use crate::messages::{Messages, print};
use crate::progress::Items;

/// Greatest file of a study, in bytes.
const MAX_BYTES: u64 = 1 << 20;

pub fn run(arguments: &arguments::Study, messages: &Messages) -> Result<()> {
    let text = read_text(&arguments.study, MAX_BYTES)?;
    let study = Study::parse(&arguments.study.display().to_string(), &text)?;
    let folder = arguments.study.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let or_its_own = |given: &Option<std::path::PathBuf>| given.clone().unwrap_or_else(|| folder.to_owned());
    let places = Places { study: folder.to_owned(), models: or_its_own(&arguments.models), data: or_its_own(&arguments.data) };
    let cancel = crate::signals::cancel_flag()?;
    if arguments.dry_run {
        let found = dry_run(&study, &places, &arguments.out, &cancel)?;
        print(&if arguments.json { as_json(&found) } else { as_text(&found) });
        return Ok(());
    }
    if arguments.report {
        let report = report_only(&study, &places, &arguments.out, &cancel)?;
        print(&written(&report, arguments.json));
        return Ok(());
    }
    let bar = Items::new(messages.is_quiet());
    let cell = |progress: StudyProgress| {
        bar.finish();
        messages.note(&line(&progress));
    };
    let watch = Watch { cancel: &cancel, begin: &|label| bar.begin(label), cell: &cell, items: &|progress| bar.update(progress) };
    let report = run_study(&study, &places, &arguments.out, watch);
    bar.finish();
    print(&written(&report?, arguments.json));
    Ok(())
}

/// The files of a report.
fn written(report: &Report, json: bool) -> String {
    let files: Vec<String> = report.files.iter().map(|file| file.display().to_string()).collect();
    let (done, total) = report.cells;
    match json {
        true => format!("{:#}\n", json!({"files": files, "cells_done": done, "cells": total})),
        false => files.iter().map(|file| format!("{file}\n")).collect(),
    }
}

/// `12/560 sst2, dare 0.5, replicate 3 on sst2: 0.8712 (merged in 0.4 s, evaluated in 14.2 s), 2.1 h left`.
fn line(progress: &StudyProgress) -> String {
    let StudyProgress { label, outcome, seconds, done, total, seconds_left } = progress;
    let (merge, evaluate) = (seconds.merge, seconds.evaluate);
    let said = match outcome {
        Outcome::Measured => format!("measured in {evaluate:.1} s"),
        Outcome::Scored(headline) => {
            let headline = headline.map_or("not defined".to_owned(), |headline| format!("{headline:.4}"));
            format!("{headline} (merged in {merge:.1} s, evaluated in {evaluate:.1} s)")
        }
    };
    format!("{done}/{total} {label}: {said}, {} left", duration(*seconds_left))
}

/// `2.1 h`, or minutes where it is less than one.
fn duration(seconds: f64) -> String {
    if seconds >= 3600.0 { format!("{:.1} h", seconds / 3600.0) } else { format!("{:.0} min", (seconds / 60.0).ceil()) }
}

fn as_text(found: &DryRun) -> String {
    let mut text: String =
        found.cells.iter().map(|(label, done)| format!("{} {label}\n", if *done { "done   " } else { "to run " })).collect();
    let left = found.cells.iter().filter(|(_, done)| !done).count();
    let how = if found.measured { "by the cells that are done" } else { "a rough measure" };
    text += &format!("{} cells, {left} of them to run, {:.1} hours ({how})\n", found.cells.len(), found.seconds / 3600.0);
    if found.later > 0 {
        text += &format!("{} more, once the best points of grids are known\n", found.later);
    }
    text
}

fn as_json(found: &DryRun) -> String {
    let cells: Vec<_> = found.cells.iter().map(|(label, done)| json!({"cell": label, "done": done})).collect();
    let hours = found.seconds / 3600.0;
    format!("{:#}\n", json!({"cells": cells, "later": found.later, "hours_left": hours, "measured": found.measured}))
}
