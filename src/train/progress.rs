//! Progress on standard error: a line that is redrawn on a terminal, a line for each epoch elsewhere.

use std::io::{IsTerminal, Write, stderr};

use crate::time::{Duration, Instant};

/// Shows progress: on a terminal, a line that is redrawn up to ten times a second; elsewhere, only whole lines.
///
/// ```
/// use std::time::Duration;
/// use wgrad::train::Progress;
/// let mut progress = Progress::new();
/// for step in 0..100 {
///     progress.step("training", step, 100, "loss 0.1", Duration::from_secs(3));
/// }
/// progress.line("trained"); // replaces the line
/// ```
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    quiet: bool,
    drawn: Option<Instant>,
}

/// Between two redraws.
const REDRAW: Duration = Duration::from_millis(100);
const BAR: usize = 24;

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Progress {
    /// Progress on standard error.
    pub fn new() -> Progress {
        Progress { terminal: stderr().is_terminal(), quiet: false, drawn: None }
    }

    /// Shows nothing.
    pub fn quiet() -> Progress {
        Progress { terminal: false, quiet: true, drawn: None }
    }

    /// Whether [`Progress::step`] would redraw the line now.
    pub(super) fn is_due(&self) -> bool {
        !self.quiet && self.terminal && self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW)
    }

    /// Redraws the current line: what it is, how much of it is done, figures, and the estimated time left.
    pub fn step(&mut self, what: &str, done: usize, all: usize, figures: &str, left: Duration) {
        if !self.is_due() {
            return;
        }
        self.drawn = Some(Instant::now());
        let full = (done * BAR).checked_div(all).unwrap_or(BAR).min(BAR);
        let bar = format!("{}{}", "=".repeat(full), " ".repeat(BAR - full));
        let _ = write!(stderr(), "\r\x1b[K{what} [{bar}] {done}/{all}, {figures}, {} left", duration(left));
    }

    /// Prints a line.
    pub fn line(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        if self.drawn.take().is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
        let _ = writeln!(stderr(), "{text}");
    }
}

/// `8 s`, `3:05 min`, `2:10 h`.
fn duration(d: Duration) -> String {
    match d.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        seconds => format!("{}:{:02} h", seconds / 3600, seconds % 3600 / 60),
    }
}
