//! The progress of a check on standard error, with an estimate of the time that is left.

use std::collections::HashMap;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use wgrad::check::sweep::Numbered;
use wgrad_lab::output;

/// Between two lines where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(15);
/// The length of the bar, in steps.
const STEPS: u64 = 1000;

/// A bar on a terminal; elsewhere a line now and then.
pub struct Progress {
    bar: ProgressBar,
    estimate: Estimate,
    started: Instant,
    /// When a check with a time limit starts no more cases.
    until: Option<Instant>,
    cases: usize,
    ran: usize,
    printed: Instant,
}

impl Progress {
    pub fn new(tasks: &[Numbered], started: Instant, until: Option<Instant>) -> Progress {
        let bar = ProgressBar::new(STEPS); // hidden where there is no terminal
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {elapsed} elapsed, {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        let estimate = Estimate::new(tasks.iter().map(|numbered| numbered.case.op));
        Progress { bar, estimate, started, until, cases: tasks.len(), ran: 0, printed: Instant::now() }
    }

    /// A handle to remove the bar.
    pub fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// A case begins.
    pub fn begins(&mut self, numbered: &Numbered) {
        let elapsed = self.started.elapsed();
        let left = self.left();
        let about = left.map_or_else(String::new, |left| format!(", about {} s left", left.as_secs()));
        let text = format!("{} of {} cases{about}", self.ran, self.cases);
        if let Some(left) = left {
            let share = elapsed.as_secs_f64() / (elapsed + left).as_secs_f64().max(1e-9);
            self.bar.set_position((share * STEPS as f64) as u64);
        }
        if !stderr().is_terminal() && self.printed.elapsed() >= INTERVAL {
            self.printed = Instant::now();
            output::note(format!("{} s elapsed, {text}", elapsed.as_secs()));
        }
        let name: String = numbered.case.name.chars().take(40).collect();
        self.bar.set_message(format!("{text}  {} ({name})", numbered.case.op));
    }

    /// A case has ended.
    pub fn ended(&mut self, numbered: &Numbered, took: Duration) {
        self.ran += 1;
        self.estimate.ran(numbered.case.op, took.as_secs_f64());
    }

    /// The time left: that of the other cases, but not beyond the time limit.
    fn left(&self) -> Option<Duration> {
        let left = self.estimate.left().map(Duration::from_secs_f64);
        let limit = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        match (left, limit) {
            (Some(left), Some(limit)) => Some(left.min(limit)),
            (left, limit) => left.or(limit),
        }
    }
}

/// Estimates how long cases will take from those that have run: each as the mean of its op. An average case of all ops
/// is added to those of each op, so that one unusual case does not decide.
struct Estimate {
    ops: HashMap<&'static str, Op>,
    ran: usize,
    seconds: f64,
}

#[derive(Default)]
struct Op {
    left: usize,
    ran: usize,
    seconds: f64,
}

impl Estimate {
    fn new(cases: impl Iterator<Item = &'static str>) -> Estimate {
        let mut ops: HashMap<&'static str, Op> = HashMap::new();
        cases.for_each(|op| ops.entry(op).or_default().left += 1);
        Estimate { ops, ran: 0, seconds: 0.0 }
    }

    fn ran(&mut self, op: &'static str, seconds: f64) {
        let of_op = self.ops.entry(op).or_default();
        of_op.left = of_op.left.saturating_sub(1);
        (of_op.ran, of_op.seconds) = (of_op.ran + 1, of_op.seconds + seconds);
        (self.ran, self.seconds) = (self.ran + 1, self.seconds + seconds);
    }

    /// In seconds; none before a case has run.
    fn left(&self) -> Option<f64> {
        let average = (self.ran > 0).then(|| self.seconds / self.ran as f64)?;
        let mean = |op: &Op| (op.seconds + average) / (op.ran + 1) as f64;
        Some(self.ops.values().map(|op| op.left as f64 * mean(op)).sum())
    }
}
