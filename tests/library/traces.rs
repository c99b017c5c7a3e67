//! Traces of trainings: data workers, waiting, steps, checkpoints; and the same spans for `tracing`.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value as Json;
use wgrad::Trace;
use wgrad::data::Batches;
use wgrad::prelude::*;
use wgrad::train::{Dataset, Loader, Trainer};

use super::train::{model, rows, squares};
use crate::common;

/// The spans of a name, as `(thread, number)`.
fn spans<'t>(trace: &'t Trace, name: &str) -> Vec<(&'t str, Option<u64>)> {
    let of_name = trace.spans.iter().filter(|span| span.name == name);
    of_name.map(|span| (span.thread.as_str(), span.number)).collect()
}

#[test]
fn a_trace_shows_who_makes_batches_and_how_long_the_loop_waits() {
    let slow = rows(12, 1).map(|batch, _| {
        std::thread::sleep(Duration::from_millis(20));
        Ok(batch)
    });
    for workers in [0, 2] {
        let loader = Loader::new(&slow, Batches::new(12, 2).unwrap()).workers(workers);
        let (waited, trace) = Trace::record(|| {
            let mut waited = 0.0;
            let each = |batch: wgrad::train::Loaded| {
                waited += batch.waited.as_secs_f64();
                Ok(ControlFlow::Continue(()))
            };
            loader.epoch(0, 0, each).unwrap();
            waited
        });
        let mut made = spans(&trace, "make batch");
        made.sort_by_key(|(_, number)| *number);
        assert_eq!(made.iter().map(|(_, number)| number.unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        let own = std::thread::current().name().unwrap().to_owned();
        let makers = if workers == 0 { vec![own.as_str()] } else { vec!["data worker 1", "data worker 2"] };
        assert!(made.iter().all(|(thread, _)| makers.contains(thread)), "{made:?}");
        assert!(makers.iter().all(|maker| made.iter().any(|(thread, _)| thread == maker)), "{made:?}");
        assert!(trace.seconds_of("make batch") >= 6.0 * 0.02, "{trace}");
        // All on the thread of the loop, and as long as the loader says.
        assert_eq!(spans(&trace, "wait for data"), vec![(own.as_str(), None); 6]);
        assert!((trace.seconds_of("wait for data") - waited).abs() < 0.01, "{waited} s, {trace}");

        let file: Json = serde_json::from_str(&trace.to_chrome_trace()).expect("JSON");
        let events = file["traceEvents"].as_array().unwrap();
        let tracks: Vec<&str> = (events.iter().filter(|event| event["name"] == "thread_name"))
            .map(|event| event["args"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(tracks.len(), 1 + workers, "{tracks:?}");
        for span in &trace.spans {
            let name = span.number.map_or(span.name.to_owned(), |number| format!("{} {number}", span.name));
            let micros = |event: &Json| (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            let found = events.iter().filter(|event| event["ph"] == "X" && event["name"] == name.as_str());
            let track = 1 + tracks.iter().position(|track| *track == span.thread).unwrap();
            let mut found = found.filter(|event| event["tid"] == track);
            assert!(found.any(|event| micros(event) == (span.start * 1e6, span.seconds * 1e6)), "{span:?}");
        }
    }
}

fn trainer() -> Trainer {
    Trainer::new(&model(), squares).epochs(2).batch(8).quiet()
}

#[test]
fn a_profile_of_a_training_traces_its_workers_and_changes_nothing() {
    let Some(device) = common::device() else { return };
    let data = rows(40, 2);
    let session = Session::new(device);
    let profile = trainer().workers(2).profile(&session, &data).expect("a profile");
    assert!(session.names().is_empty());
    let trace = profile.training.as_ref().expect("a trace");
    let numbers = |name| spans(trace, name).iter().map(|(_, number)| number.unwrap()).collect::<Vec<u64>>();
    assert_eq!(numbers("step"), [0, 1, 2, 3, 4]);
    for (name, count) in [("make batch", 5), ("submit", 5), ("wait for the device", 5), ("read back", 5)] {
        assert_eq!(spans(trace, name).len(), count, "{name}\n{trace}");
    }
    let text = profile.to_string();
    assert!(text.contains("5 steps of a training") && text.contains(": wait for data"), "{text}");
    let file: Json = serde_json::from_str(&profile.to_chrome_trace()).expect("JSON");
    let has_track = |(process, name): (u32, &str)| {
        let mut events = file["traceEvents"].as_array().unwrap().iter();
        let of_name = |event: &Json| event["args"]["name"].as_str().is_some_and(|found| found.starts_with(name));
        events.any(|event| event["pid"] == process && of_name(event))
    };
    let tracks = [(1, "host"), (1, "layers"), (2, "training"), (2, "data worker")];
    assert!(tracks.into_iter().all(has_track), "{file}");
}

#[test]
fn a_trace_of_a_training_has_its_epochs_steps_evaluations_and_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let data = rows(20, 2);
    let mut session = Session::new(Device::cpu());
    let mut trainer = trainer().folder(folder.path().join("run"));
    let (trained, trace) = Trace::record(|| trainer.fit(&mut session, &data, Some(&data)));
    trained.expect("trained");
    let numbers = |name| spans(&trace, name).iter().map(|(_, number)| *number).collect::<Vec<_>>();
    assert_eq!(numbers("epoch"), [Some(1), Some(2)]);
    assert_eq!(numbers("step"), [0, 1, 2, 0, 1, 2].map(Some));
    assert_eq!(numbers("evaluate").len(), 2);
    assert!(numbers("save checkpoint").len() >= 2);
    assert_eq!(numbers("compile").len(), 4); // full and partial batches, of training and evaluation
}

#[cfg(feature = "tracing")]
mod subscribed {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Collects the names of spans that were entered, with their threads.
    #[derive(Clone, Default)]
    struct Names {
        created: Arc<Mutex<Vec<&'static str>>>,
        entered: Arc<Mutex<BTreeSet<(&'static str, String)>>>,
    }

    impl Subscriber for Names {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "wgrad"
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let mut created = self.created.lock().unwrap();
            created.push(span.metadata().name());
            Id::from_u64(created.len() as u64)
        }

        fn enter(&self, span: &Id) {
            let name = self.created.lock().unwrap()[span.into_u64() as usize - 1];
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            self.entered.lock().unwrap().insert((name, thread));
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn subscribers_of_tracing_get_the_same_spans_from_all_threads() {
        let Some(device) = common::device() else { return };
        let folder = tempfile::tempdir().unwrap();
        let names = Names::default();
        // With a single dispatcher, `tracing` would switch off spans that another test's thread meets first.
        let _another = tracing::Dispatch::new(Names::default());
        let data = rows(20, 2);
        let mut session = Session::new(device);
        let mut trainer = trainer().workers(1).folder(folder.path().join("run"));
        let trained = || trainer.fit(&mut session, &data, Some(&data));
        let (trained, trace) = Trace::record(|| tracing::subscriber::with_default(names.clone(), trained));
        trained.expect("trained");
        let recorded: BTreeSet<_> = trace.spans.iter().map(|span| (span.name, span.thread.clone())).collect();
        assert_eq!(*names.entered.lock().unwrap(), recorded);
        assert_eq!(names.created.lock().unwrap().len(), trace.spans.len());
        let own = std::thread::current().name().unwrap().to_owned();
        for name in ["compile", "upload", "submit", "read back", "step", "epoch", "save checkpoint"] {
            assert!(recorded.contains(&(name, own.clone())), "{name}");
        }
        assert!(recorded.contains(&("make batch", "data worker 1".to_owned())));
    }
}
