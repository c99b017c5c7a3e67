//! Ctrl-C and the other signals that ask a process to end, and ending while work is still under way.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use wgrad_lab::output::Stop;

/// The signals that ask a process to end: SIGHUP, SIGINT and SIGTERM.
#[cfg(unix)]
const ENDING: [i32; 3] = [1, 2, 15];

#[cfg(unix)]
mod system {
    /// SIG_IGN.
    pub const IGNORED: usize = 1;

    unsafe extern "C" {
        pub fn signal(number: i32, handler: usize) -> usize;
        pub fn _exit(status: i32) -> !;
    }
}

/// Calls `f` at the first signal that asks the process to end; a second one ends it at once. What
/// was ignored when the process started stays ignored, as under `nohup`.
pub fn watch(mut f: impl FnMut() + Send + 'static) -> Result<(), Stop> {
    // SAFETY: these are signals that may be ignored; none is handled yet.
    #[cfg(unix)]
    let ignored = ENDING.map(|number| unsafe { system::signal(number, system::IGNORED) } == system::IGNORED);
    let mut seen = false;
    let handler = move || {
        if std::mem::replace(&mut seen, true) {
            end(130);
        }
        f();
    };
    ctrlc::set_handler(handler).map_err(|error| Stop::Error(format!("signals cannot be watched: {error}")))?;
    #[cfg(unix)]
    for (number, _) in ENDING.into_iter().zip(ignored).filter(|(_, ignored)| *ignored) {
        // SAFETY: as above; the handler stays with the others.
        unsafe { system::signal(number, system::IGNORED) };
    }
    Ok(())
}

/// Whether a thread is still at work that nobody waits for.
static ABANDONED: AtomicBool = AtomicBool::new(false);

/// Says that a thread is left at work, in a driver's compiler for instance, which cannot be stopped.
pub fn abandon() {
    ABANDONED.store(true, Ordering::Relaxed);
}

/// Ends the process from `main`. Where work was abandoned, nothing else is run on the way out: what a
/// driver tidies up then, its threads are still using.
pub fn leave(code: u8) -> ExitCode {
    if ABANDONED.load(Ordering::Relaxed) {
        end(code);
    }
    ExitCode::from(code)
}

fn end(code: u8) -> ! {
    // SAFETY: it does nothing but end the process. Standard output is flushed after each line.
    #[cfg(unix)]
    unsafe {
        system::_exit(code.into())
    }
    #[cfg(not(unix))]
    std::process::exit(code.into())
}
