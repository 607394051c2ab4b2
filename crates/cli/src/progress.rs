//! A bar on a terminal, for work of over a second.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use deltaic_merge::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far a merge has come: share, GB/s read and written, time left.
pub struct Bar {
    started: Instant,
    bar: Option<ProgressBar>,
    last: Mutex<Instant>,
}

const TEMPLATE: &str = "{prefix}{wide_bar} {percent:>3}%  {msg}";

impl Bar {
    pub fn new(quiet: bool) -> Self {
        Self { started: Instant::now(), bar: on_terminal(quiet), last: Mutex::new(Instant::now()) }
    }

    /// Takes news from any worker.
    pub fn update(&self, progress: Progress) {
        let Some(bar) = &self.bar else { return };
        let Ok(mut last) = self.last.try_lock() else { return };
        if self.started.elapsed() < Duration::from_secs(1) || last.elapsed() < Duration::from_millis(100) {
            return;
        }
        *last = Instant::now();
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = (progress.bytes_read + progress.bytes_written) as f64 / seconds / 1e9;
        let reads_done = progress.read.saturating_sub(1) as f64 + progress.elements_done as f64 / progress.elements.max(1) as f64;
        let left = seconds * (progress.reads as f64 / reads_done.max(1e-9) - 1.0);
        bar.set_length(progress.elements * progress.reads as u64);
        bar.set_position((reads_done * progress.elements as f64) as u64);
        if progress.reads > 1 {
            bar.set_prefix(format!("read {} of {} ", progress.read, progress.reads));
        }
        bar.set_message(format!("{rate:.1} GB/s  {} left", minutes(left)));
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows how many items of a task are done: of questions, programs, verdicts.
#[cfg(feature = "eval")]
pub struct Items {
    bar: Option<ProgressBar>,
    started: Mutex<Instant>,
}

#[cfg(feature = "eval")]
impl Items {
    pub fn new(quiet: bool) -> Self {
        Self { bar: on_terminal(quiet), started: Mutex::new(Instant::now()) }
    }

    /// Begins with a model and a task.
    pub fn begin(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_prefix(format!("{what} "));
        }
        if let Ok(mut started) = self.started.lock() {
            *started = Instant::now();
        }
    }

    /// Takes news from any thread.
    pub fn update(&self, progress: deltaic_eval::Progress) {
        let what = match progress.stage {
            deltaic_eval::Stage::Asking => "asked",
            deltaic_eval::Stage::Executing => "programs run",
            deltaic_eval::Stage::Judging => "judged",
        };
        self.show(progress.done, progress.total, what);
    }

    /// Shows that so many of `total` are done.
    pub fn show(&self, done: usize, total: usize, what: &str) {
        let Some(bar) = &self.bar else { return };
        let Ok(mut started) = self.started.try_lock() else { return };
        if done == 0 {
            *started = Instant::now();
        }
        let seconds = started.elapsed().as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        let left = seconds * (total as f64 / done.max(1) as f64 - 1.0);
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(format!("{done}/{total} {what}  {} left", minutes(left)));
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A bar, where there is a terminal to see it.
fn on_terminal(quiet: bool) -> Option<ProgressBar> {
    let wanted = !quiet && std::io::stderr().is_terminal();
    wanted.then(|| {
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        bar.set_style(style);
        bar
    })
}

fn minutes(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 360_000.0) as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
