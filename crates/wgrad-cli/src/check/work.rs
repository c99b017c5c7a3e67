//! Runs the cases of a check one by one on a separate thread. The thread that watches it reports the results when
//! time is up or a signal comes, even while a driver compiles a shader, which cannot be interrupted.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wgrad::Device;
use wgrad::check::sweep::{LARGE, Numbered, RANDOM};
use wgrad::check::{Extras, check_case_in};

use super::findings::Findings;
use super::progress::Progress;
use super::{Request, command, training};
use crate::signals;
use wgrad_lab::output::Stop;

/// Deadlines of a quick check, as multiples of its time limit: up to the first, any case is started; up to the
/// second, required cases and the trainings; at the third it ends, whatever is running.
const SHARES: [f64; 3] = [1.0, 1.4, 1.6];

/// Extra time for a case that is running at the end.
const GRACE: Duration = Duration::from_millis(500);

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All work is done.
    Done,
    /// Time ran out while a case was running.
    Late,
    /// A signal came.
    Interrupted,
}

enum Event {
    Signal,
    Done,
}

/// The work, and its results.
pub struct Work {
    pub request: Request,
    pub device: Device,
    pub tasks: Vec<Numbered>,
    /// How many of the tasks a quick check must run.
    pub must: usize,
    pub started: Instant,
    pub stop: AtomicBool,
    pub found: Mutex<Found>,
}

/// Results so far.
#[derive(Default)]
pub struct Found {
    pub findings: Findings,
    /// Number of listed cases that ran.
    pub ran: usize,
}

impl Work {
    /// Runs as many cases as time and signals allow. Returns the results and how the check ended.
    pub fn run(self) -> Result<(Found, End), Stop> {
        let work = Arc::new(self);
        let (sender, events) = channel();
        let signal = sender.clone();
        signals::watch(move || drop(signal.send(Event::Signal)))?;
        let mut progress = Progress::new(&work.tasks, work.started, work.until(0));
        let (worker, bar) = (work.clone(), progress.bar());
        // As much stack as a main thread has.
        let builder = std::thread::Builder::new().name("check".into()).stack_size(8 << 20);
        let thread = builder.spawn(move || {
            let _last = Last(sender);
            worker.cases(&mut progress);
        });
        let thread = thread.map_err(|error| Stop::Error(format!("cannot start a thread: {error}")))?;
        let (end, running) = work.wait(&events);
        bar.finish_and_clear();
        if running {
            signals::abandon();
        } else if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
        Ok((std::mem::take(&mut *work.found()), end))
    }

    /// Waits for the end. Returns how the check ended, and whether a case is still running.
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

    /// When this deadline is; `None` without a time limit.
    fn until(&self, share: usize) -> Option<Instant> {
        let limited = !self.request.full && self.request.case.is_none();
        limited.then(|| self.started + Duration::from_secs_f64(SHARES[share] * self.request.seconds))
    }

    /// Whether work with this deadline may still start.
    fn goes_on(&self, share: usize) -> bool {
        !self.stop.load(Ordering::Relaxed) && self.until(share).is_none_or(|until| Instant::now() < until)
    }

    pub fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cases(&self, progress: &mut Progress) {
        let (request, device) = (&self.request, &self.device);
        let mut permuted = HashSet::new();
        for (at, numbered) in self.tasks.iter().enumerate() {
            if !self.goes_on(usize::from(at < self.must)) {
                break;
            }
            progress.begins(numbered);
            let started = Instant::now();
            let listed = numbered.number < LARGE;
            // Once time is up, the required cases that are left run with the default variants only.
            let late = !self.goes_on(0);
            let extras = Extras {
                repeat: true,
                // Judging finite differences of random cases would need their condition number.
                gradients: listed.then_some(if request.full { 24 } else { 6 }),
                every_way: request.full && listed,
                // A permuted order needs another pipeline: a quick check compiles one per op.
                permuted: match request.full {
                    true => listed,
                    false => request.case.is_some() || !(late || permuted.contains(numbered.case.op)),
                },
            };
            let select = |mut ways: Vec<_>| {
                ways.truncate(if late { 1 } else { ways.len() });
                ways
            };
            let checked = check_case_in(device, &numbered.case, numbered.seed(request.seed), &extras, select);
            if checked.as_ref().is_ok_and(|report| report.permuted > 0) {
                permuted.insert(numbered.case.op);
            }
            progress.ended(numbered, started.elapsed());
            let mut found = self.found();
            found.ran += usize::from(listed && numbered.number < RANDOM);
            found.findings.add(numbered, checked, &command(request, numbered));
        }
        if request.pattern.is_none() && self.goes_on(1) {
            let training = training::repeat_training(device).unwrap_or_else(|error| Err(error.to_string()));
            self.found().findings.training = Some(training);
        }
    }
}

/// Sends an event when its thread ends, even by a panic.
struct Last(Sender<Event>);

impl Drop for Last {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Done);
    }
}
