//! The cases of a check, one after the other, in a thread of their own. The thread that watches it
//! reports what there is when the time is over or a signal comes, even while a driver compiles a
//! shader, which nothing can interrupt.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use wgrad::Device;
use wgrad::check::sweep::{LARGE, Numbered, RANDOM};
use wgrad::check::{Extras, check_case_with};

use super::findings::Findings;
use super::{Request, command, training};
use crate::signals;
use wgrad_lab::output::Stop;

/// Shares of a quick check's time: up to the first one, cases are taken up as they come; up to the
/// second one those that no quick check goes without, and the trainings; at the third one it ends,
/// whatever is under way.
const SHARES: [f64; 3] = [1.0, 1.4, 1.6];

/// How long a case that is under way at the end may still take.
const GRACE: Duration = Duration::from_millis(500);

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With what it had to do.
    Done,
    /// Because its time was over, with a case under way.
    Late,
    /// Because of a signal.
    Interrupted,
}

enum Event {
    Signal,
    Done,
}

/// The work, and what has come of it.
pub struct Work {
    pub request: Request,
    pub device: Device,
    pub tasks: Vec<Numbered>,
    /// How many of the tasks no quick check goes without.
    pub must: usize,
    pub started: Instant,
    pub stop: AtomicBool,
    pub found: Mutex<Found>,
}

/// What has been found so far.
#[derive(Default)]
pub struct Found {
    pub findings: Findings,
    /// Listed cases that ran.
    pub ran: usize,
}

impl Work {
    /// Does the work, as far as time and signals allow. Gives what was found, and how it ended.
    pub fn run(self) -> Result<(Found, End), Stop> {
        let work = Arc::new(self);
        let (sender, events) = channel();
        let signal = sender.clone();
        signals::watch(move || drop(signal.send(Event::Signal)))?;
        let bar = progress(work.tasks.len() as u64);
        let (worker, shown) = (work.clone(), bar.clone());
        // As large a stack as a main thread has.
        let builder = std::thread::Builder::new().name("check".into()).stack_size(8 << 20);
        let thread = builder.spawn(move || {
            let _last = Last(sender);
            worker.cases(&shown);
        });
        let thread = thread.map_err(|error| Stop::Error(format!("no thread could be started: {error}")))?;
        let (end, running) = work.wait(&events);
        bar.finish_and_clear();
        if running {
            signals::abandon();
        } else if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
        Ok((std::mem::take(&mut *work.found()), end))
    }

    /// Waits for the end: how it ended, and whether a case is still under way.
    fn wait(&self, events: &Receiver<Event>) -> (End, bool) {
        let event = match self.until(2) {
            Some(until) => events.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let end = match event {
            Ok(Event::Done) => return (End::Done, false),
            Ok(Event::Signal) => End::Interrupted,
            Err(_) => End::Late,
        };
        self.stop.store(true, Ordering::Relaxed);
        (end, !matches!(events.recv_timeout(GRACE), Ok(Event::Done)))
    }

    /// When that share of the time is over; never, where there is no limit.
    fn until(&self, share: usize) -> Option<Instant> {
        let limited = !self.request.full && self.request.case.is_none();
        limited.then(|| self.started + Duration::from_secs_f64(SHARES[share] * self.request.seconds))
    }

    /// Whether something of that share is still to be begun.
    fn goes_on(&self, share: usize) -> bool {
        !self.stop.load(Ordering::Relaxed) && self.until(share).is_none_or(|until| Instant::now() < until)
    }

    pub fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cases(&self, bar: &ProgressBar) {
        let (request, device) = (&self.request, &self.device);
        let mut permuted = HashSet::new();
        for (at, numbered) in self.tasks.iter().enumerate() {
            if !self.goes_on(usize::from(at < self.must)) {
                break;
            }
            bar.set_message(format!("{} ({})", numbered.case.op, shortened(&numbered.case.name)));
            let listed = numbered.number < LARGE;
            let extras = Extras {
                repeat: true,
                // Finite differences of random cases would need a condition number to be judged by.
                gradients: listed.then_some(if request.full { 24 } else { 6 }),
                every_way: request.full && listed,
                // Another order is another pipeline: a quick check makes one for each op.
                permuted: match request.full {
                    true => listed,
                    false => request.case.is_some() || !permuted.contains(numbered.case.op),
                },
            };
            let checked = check_case_with(device, &numbered.case, numbered.seed(request.seed), &extras);
            if checked.as_ref().is_ok_and(|report| report.permuted > 0) {
                permuted.insert(numbered.case.op);
            }
            let mut found = self.found();
            found.ran += usize::from(listed && numbered.number < RANDOM);
            found.findings.add(numbered, checked, device.profile(), &command(request, numbered));
            bar.inc(1);
        }
        if request.pattern.is_none() && self.goes_on(1) {
            let training = training::repeat_training(device).unwrap_or_else(|error| Err(error.to_string()));
            self.found().findings.training = Some(training);
        }
    }
}

/// Tells, when its thread ends in whatever way, that it has ended.
struct Last(Sender<Event>);

impl Drop for Last {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Done);
    }
}

/// On stderr; invisible where that is no terminal.
fn progress(tasks: u64) -> ProgressBar {
    let bar = ProgressBar::new(tasks);
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} cases, {elapsed} gone, about {eta} left  {wide_msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn shortened(name: &str) -> String {
    name.chars().take(40).collect()
}
