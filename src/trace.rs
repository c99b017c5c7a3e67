//! Traces: what the host does and when, as spans on a track for each thread.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value as Json, json};

use crate::time::Instant;

/// A stretch of work of one thread. Example: [`Trace`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Span {
    /// What it does: `compile`, `run`, `upload`, `submit`, `wait for the device`, `read back`, `compute` (on the
    /// reference), `epoch`, `step`, `evaluate`, `wait for data`, `make batch`, `save checkpoint` or
    /// `load checkpoint`.
    pub name: &'static str,
    /// Which one, such as the number of the batch.
    pub number: Option<u64>,
    /// The thread: `main`, or `data worker 1`.
    pub thread: String,
    /// When it starts, in seconds from the start of the trace.
    pub start: f64,
    /// How long it takes, in seconds.
    pub seconds: f64,
}

/// What the host does and when, for any stretch of a program: compilations, steps, transfers, and the work of the
/// threads of a [`Loader`](crate::train::Loader).
///
/// With the feature `tracing`, the same spans also go to the subscriber of the crate `tracing`, at level debug.
///
/// ```
/// # use wgrad::{DType, Device, Graph, Session, Tensor, Trace};
/// let graph = Graph::new();
/// let y = graph.input("x", DType::F32, [2]).square();
/// let mut session = Session::new(Device::cpu());
/// let (y, trace) = Trace::record(|| {
///     let program = session.compile(&graph, &[&y])?;
///     session.run(&program, &[("x", &Tensor::new([2], [1.0f32, 3.0])?)])
/// });
/// assert_eq!(y?[0].to_f32(), [1.0, 9.0]);
/// assert_eq!(trace.spans[0].name, "compile");
/// println!("{trace}"); // a table
/// std::fs::write("trace.json", trace.to_chrome_trace()).expect("written"); // for ui.perfetto.dev
/// # std::fs::remove_file("trace.json").expect("removed");
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Trace {
    /// The spans by start. A span within another one follows it.
    pub spans: Vec<Span>,
    /// How long the trace is, in seconds.
    pub seconds: f64,
}

/// The trace that is being recorded.
#[derive(Clone)]
struct Recording {
    began: Instant,
    spans: Arc<Mutex<Vec<Span>>>,
}

thread_local! {
    /// The recording of this thread.
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

impl Trace {
    /// Calls a function and records its spans: those of this thread, and of the loaders that it starts. A trace within
    /// another one takes the spans from it.
    pub fn record<T>(work: impl FnOnce() -> T) -> (T, Trace) {
        let recording = Recording { began: Instant::now(), spans: Arc::default() };
        let result = {
            let _restored = Enter::new(Some(recording.clone()));
            work()
        };
        let seconds = recording.began.elapsed().as_secs_f64();
        let mut spans = std::mem::take(&mut *recording.spans.lock().unwrap_or_else(PoisonError::into_inner));
        spans.sort_by(|a, b| a.start.total_cmp(&b.start).then(b.seconds.total_cmp(&a.seconds)));
        (result, Trace { spans, seconds })
    }

    /// The time of all spans of a name, in seconds.
    pub fn seconds_of(&self, name: &str) -> f64 {
        self.spans.iter().filter(|span| span.name == name).map(|span| span.seconds).sum()
    }

    /// The trace in Chrome's format, for `ui.perfetto.dev` and `chrome://tracing`, with a track for each thread.
    pub fn to_chrome_trace(&self) -> String {
        chrome_trace(self.chrome_events(1, "wgrad"))
    }

    /// The events of [`Trace::to_chrome_trace`], as a process with this number and name.
    pub(crate) fn chrome_events(&self, process: u32, name: &str) -> Vec<Json> {
        let mut threads: Vec<&str> = Vec::new();
        let mut spans = Vec::new();
        for span in &self.spans {
            let known = threads.iter().position(|thread| *thread == span.thread);
            let track = known.unwrap_or_else(|| {
                threads.push(&span.thread);
                threads.len() - 1
            });
            let name = span.number.map_or_else(|| span.name.to_owned(), |number| format!("{} {number}", span.name));
            spans.push(chrome_span(process, track as u32 + 1, &name, span.start, span.seconds, json!({})));
        }
        let mut events = vec![chrome_process(process, name)];
        events.extend((1..).zip(threads).map(|(track, thread)| chrome_track(process, track, thread)));
        events.extend(spans);
        events
    }
}

/// A file in Chrome's trace format.
pub(crate) fn chrome_trace(events: Vec<Json>) -> String {
    json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string()
}

/// The name of a process in a trace file.
pub(crate) fn chrome_process(process: u32, name: &str) -> Json {
    json!({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}})
}

/// The name of a track, and its place.
pub(crate) fn chrome_track(process: u32, track: u32, name: &str) -> Json {
    json!({"ph": "M", "name": "thread_name", "pid": process, "tid": track, "args": {"name": name}})
}

/// A span on a track; times in seconds.
pub(crate) fn chrome_span(process: u32, track: u32, name: &str, start: f64, seconds: f64, details: Json) -> Json {
    json!({"ph": "X", "name": name, "pid": process, "tid": track, "ts": start * 1e6, "dur": seconds * 1e6,
        "args": details})
}

/// A table of the spans by thread and name: number, sum, and share of the trace.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: Vec<(&str, &str, usize, f64)> = Vec::new();
        for span in &self.spans {
            match groups.iter_mut().find(|(thread, name, ..)| (*thread, *name) == (&span.thread, span.name)) {
                Some((_, _, count, seconds)) => (*count, *seconds) = (*count + 1, *seconds + span.seconds),
                None => groups.push((&span.thread, span.name, 1, span.seconds)),
            }
        }
        groups.sort_by_key(|(thread, ..)| *thread != "main");
        write!(f, "{:>10} {:>5} {:>6}  span", "seconds", "share", "number")?;
        for (thread, name, count, seconds) in groups {
            let share = 100.0 * seconds / self.seconds.max(1e-12);
            write!(f, "\n{seconds:>10.4} {share:>4.0}% {count:>6}  {thread}: {name}")?;
        }
        Ok(())
    }
}

/// Makes a recording that of this thread, until it is dropped.
struct Enter(Option<Recording>);

impl Enter {
    fn new(recording: Option<Recording>) -> Enter {
        Enter(RECORDING.replace(recording))
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        RECORDING.set(self.0.take());
    }
}

/// Where the spans of a thread go, for another thread that works for it.
#[derive(Clone)]
pub(crate) struct Context {
    recording: Option<Recording>,
    #[cfg(feature = "tracing")]
    dispatch: tracing::Dispatch,
}

impl Context {
    /// That of this thread.
    pub fn current() -> Context {
        Context {
            recording: RECORDING.with_borrow(Clone::clone),
            #[cfg(feature = "tracing")]
            dispatch: tracing::dispatcher::get_default(Clone::clone),
        }
    }

    /// Calls a function on this thread, whose spans go there.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _restored = Enter::new(self.recording.clone());
        #[cfg(feature = "tracing")]
        let _default = tracing::dispatcher::set_default(&self.dispatch);
        work()
    }
}

/// Records a span from its creation until it is dropped; see [`span!`].
pub(crate) struct Guard {
    open: Option<(Recording, Instant)>,
    name: &'static str,
    number: Option<u64>,
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

impl Guard {
    pub fn new(
        name: &'static str,
        number: Option<u64>,
        #[cfg(feature = "tracing")] entered: tracing::span::EnteredSpan,
    ) -> Guard {
        let open = RECORDING.with_borrow(|recording| recording.clone().map(|recording| (recording, Instant::now())));
        Guard {
            open,
            name,
            number,
            #[cfg(feature = "tracing")]
            _entered: entered,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((recording, start)) = self.open.take() {
            let seconds = start.elapsed().as_secs_f64();
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            let start = start.duration_since(recording.began).as_secs_f64();
            let span = Span { name: self.name, number: self.number, thread, start, seconds };
            recording.spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        }
    }
}

/// `let _span = span!("submit");` marks the rest of a block as a span, `span!("step", number)` one of several. All spans
/// of the library are made here: for [`Trace`], and with the feature `tracing` for the crate of that name.
macro_rules! span {
    ($name:literal) => {
        $crate::trace::Guard::new(
            $name,
            None,
            #[cfg(feature = "tracing")]
            tracing::debug_span!(target: "wgrad", $name).entered(),
        )
    };
    ($name:literal, $number:expr) => {{
        let number: u64 = $number;
        $crate::trace::Guard::new(
            $name,
            Some(number),
            #[cfg(feature = "tracing")]
            tracing::debug_span!(target: "wgrad", $name, number).entered(),
        )
    }};
}
pub(crate) use span;
