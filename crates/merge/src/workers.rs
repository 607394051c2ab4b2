//! Threads that share a queue of work.

use std::thread::{Builder, scope};

/// Runs `work` on so many threads of their own, and waits for them. Where the system gives fewer, fewer do it all: `work` takes from a queue
/// until that is empty. Where it gives none, the calling thread does.
pub(crate) fn on_threads(threads: usize, work: impl Fn() + Sync) {
    scope(|scope| {
        for started in 0..threads.max(1) {
            if Builder::new().spawn_scoped(scope, &work).is_err() {
                if started == 0 {
                    work();
                }
                break;
            }
        }
    });
}
