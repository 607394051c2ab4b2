//! A study's results as people read them: a table (CSV), figures (SVG), a page (HTML).

mod figure_merges;
mod figure_rates;
mod page;
mod page_measures;
mod page_tables;
mod panels;
mod tidy;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use deltaic_checkpoint::{Context, Result};

use super::findings::{self, Finished};

/// What a report is made of.
#[derive(Debug, Clone)]
pub struct Report {
    /// The files that were written.
    pub files: Vec<PathBuf>,
    /// Cells that have been run, and all that are known.
    pub cells: (usize, usize),
}

/// Writes `NAME.csv`, figures `NAME-WHAT.svg` and the page `NAME.html` into `out`, NAME being the study's.
pub(super) fn write(finished: &Finished<'_>, out: &Path) -> Result<Report> {
    let study = finished.open.study;
    let found = findings::find(finished)?;
    let listed = finished.open.list(&finished.kept.cells);
    let done = listed.cells.iter().filter(|(_, key)| finished.kept.cells.contains_key(key)).count();
    let figures = [figure_rates::draw(finished, &found.points), figure_merges::draw(finished, &found.merges)];
    let figures: Vec<(String, String)> = figures.into_iter().flatten().chain(page_measures::figures(finished)).collect();
    let page = page::write(finished, &found, &figures, (done, listed.cells.len() + listed.later));
    let named = figures.into_iter().map(|(what, svg)| (format!("{}-{what}.svg", study.study), svg));
    let tables = [(format!("{}.csv", study.study), tidy::csv(finished, &listed)?), (format!("{}.html", study.study), page)];
    let mut files = Vec::new();
    for (name, text) in named.chain(tables) {
        let path = out.join(name);
        replace(&path, &text)?;
        files.push(path);
    }
    Ok(Report { files, cells: (done, listed.cells.len() + listed.later) })
}

/// Writes a file under another name and renames it, so that there is never half of it.
fn replace(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let written = File::create(&partial).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&partial, path)).context("writing the report", path)
}
