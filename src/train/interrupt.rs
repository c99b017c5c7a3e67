//! Ctrl-C ends a training after the current step.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

static PRESSED: AtomicUsize = AtomicUsize::new(0);

/// Catches Ctrl-C and SIGTERM from now on, unless the program already does. The second one ends the process.
pub(super) fn catch() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        #[cfg(not(target_family = "wasm"))]
        // If the program has a handler of its own, it decides.
        let _ = ctrlc::try_set_handler(|| {
            if PRESSED.fetch_add(1, Ordering::SeqCst) > 0 {
                std::process::exit(130);
            }
        });
    });
    PRESSED.store(0, Ordering::SeqCst);
}

/// Whether Ctrl-C was pressed.
pub(super) fn pressed() -> bool {
    PRESSED.load(Ordering::SeqCst) > 0
}
