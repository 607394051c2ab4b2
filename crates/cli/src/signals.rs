//! Ctrl-C, and the signals that ask a program to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use deltaic_checkpoint::{Error, Result};
use nix::sys::signal::{SigSet, Signal};

/// Past a limit of file sizes (`ulimit -f`) a write then fails, with a message, instead of ending the program without one.
pub fn block_file_size_signal() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    // Where it cannot be blocked the program ends as it did before.
    let _ = signals.thread_block();
}

/// A flag that the first signal sets, so that the work ends in order: the same one for whoever asks. A second signal ends the program at
/// once; the name of a folder that is left then says what it is.
pub fn cancel_flag() -> Result<Arc<AtomicBool>> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(Arc::clone(flag));
    }
    let cancel = Arc::clone(FLAG.get_or_init(Arc::default));
    let flag = Arc::clone(&cancel);
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Error::new(format!("setting up the handling of Ctrl-C: {error}")))?;
    Ok(cancel)
}
