//! Progress on standard error: a line that is redrawn on a terminal, a line for each epoch elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Shows progress. Nothing if `quiet`.
pub(super) struct Display {
    terminal: bool,
    quiet: bool,
    drawn: Option<Instant>,
}

/// Between two redraws.
const REDRAW: Duration = Duration::from_millis(100);
const BAR: usize = 24;

impl Display {
    pub fn new(quiet: bool) -> Display {
        Display { terminal: stderr().is_terminal(), quiet, drawn: None }
    }

    /// Redraws the line of the current epoch: what it is, how much is done, and figures.
    pub fn step(&mut self, what: &str, done: usize, all: usize, figures: &str, left: Duration) {
        if self.quiet || !self.terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
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
