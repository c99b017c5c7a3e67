//! Ctrl-C and other termination signals, and exiting while work is still running.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use wgrad_lab::output::Stop;

/// The termination signals SIGHUP, SIGINT and SIGTERM.
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

/// Calls `f` at the first termination signal; a second one exits at once. Signals that were ignored when the
/// process started stay ignored, as under `nohup`.
pub fn watch(mut f: impl FnMut() + Send + 'static) -> Result<(), Stop> {
    // SAFETY: these signals may be ignored; no handler is installed yet.
    #[cfg(unix)]
    let ignored = ENDING.map(|number| unsafe { system::signal(number, system::IGNORED) } == system::IGNORED);
    let mut seen = false;
    let handler = move || {
        if std::mem::replace(&mut seen, true) {
            end(130);
        }
        f();
    };
    ctrlc::set_handler(handler).map_err(|error| Stop::Error(format!("cannot install a signal handler: {error}")))?;
    #[cfg(unix)]
    for (number, _) in ENDING.into_iter().zip(ignored).filter(|(_, ignored)| *ignored) {
        // SAFETY: as above; the handler stays installed for the others.
        unsafe { system::signal(number, system::IGNORED) };
    }
    Ok(())
}

/// Whether a thread is still running that nobody waits for.
static ABANDONED: AtomicBool = AtomicBool::new(false);

/// Records that a thread keeps running, for instance in a driver's compiler, and cannot be stopped.
pub fn abandon() {
    ABANDONED.store(true, Ordering::Relaxed);
}

/// Returns the exit code from `main`. After [`abandon`] it exits at once, without destructors or exit handlers:
/// the abandoned thread still uses what a driver would free.
pub fn leave(code: u8) -> ExitCode {
    if ABANDONED.load(Ordering::Relaxed) {
        end(code);
    }
    ExitCode::from(code)
}

fn end(code: u8) -> ! {
    // SAFETY: it only ends the process. Standard output is flushed after each line.
    #[cfg(unix)]
    unsafe {
        system::_exit(code.into())
    }
    #[cfg(not(unix))]
    std::process::exit(code.into())
}
