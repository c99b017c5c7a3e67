//! Profiles of steps: launches with their times, lines and layers.

use serde_json::Value as Json;
use wgrad::prelude::*;
use wgrad::{Program, StepProfile, TensorType, Trace};

use crate::common;

const FIRST: u32 = 16; // the line of fc1

/// A training step with two layers.
fn step(session: &mut Session) -> Program {
    let graph = Graph::new();
    let nn = Scope::train(&graph, 3);
    let x = graph.input("x", DType::F32, [32, 24]);
    let hidden = nn.linear("fc1", &x, 48).relu();
    let y = nn.linear("fc2", &hidden, 3);
    let loss = y.square().mean_all();
    Adam::new().minimize(&graph, &loss);
    session.compile(&graph, &[&loss]).expect("compiles")
}

#[test]
fn a_profile_names_each_launch_with_its_layer_and_trains() {
    let Some(device) = common::device() else { return };
    let x = Tensor::new([32, 24], (0..32 * 24).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>()).unwrap();
    let mut session = Session::new(device.clone());
    let program = step(&mut session);
    let profile: StepProfile = session.profile(&program, &[("x", &x)]).expect("a profile");

    assert_eq!(profile.launches.len(), program.plan().calls.len());
    for (launch, call) in profile.launches.iter().zip(&program.plan().calls) {
        assert_eq!((&launch.label, launch.kernel), (&call.label, call.kernel));
        assert!(launch.seconds > 0.0 && launch.seconds < 60.0 && launch.bytes > 0, "{launch:?}");
        assert!(launch.location.file().ends_with(".rs"));
    }
    // The product of the first layer has its line, and reads 32 x 24 and 24 x 48 numbers and a bias.
    let first = profile.launches.iter().find(|launch| launch.layer == "fc1" && launch.op() == "matmul").expect("fc1");
    assert_eq!((first.location.file(), first.location.line()), (file!(), FIRST));
    assert_eq!(first.flops, 2 * 32 * 24 * 48);
    // Each layer has a product forward and two backward, except that x has no gradient.
    let flops: u64 = profile.launches.iter().map(|launch| launch.flops).sum();
    assert_eq!(flops, 2 * 32 * (2 * 24 * 48 + 3 * 48 * 3));
    for layer in ["fc1", "fc2"] {
        let of_layer = profile.launches.iter().filter(|launch| launch.layer == layer).count();
        assert!(of_layer >= 2, "{layer}, forward and backward:\n{profile}");
    }
    for groups in [profile.by_op(), profile.by_layer()] {
        let (seconds, count) = groups.iter().fold((0.0, 0), |(s, n), (_, seconds, count)| (s + seconds, n + count));
        assert!((seconds - profile.seconds()).abs() < 1e-9 && count == profile.launches.len());
        assert!(groups.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    }
    let host = profile.host;
    assert!(host.upload > 0.0 && host.submit > 0.0 && host.readback > 0.0);
    let text = profile.to_string();
    for part in
        ["wait and read back", "matmul", "fc2", &format!("profile.rs:{FIRST}"), "launches  op", "launches  layer"]
    {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }

    let trace: Json = serde_json::from_str(&profile.to_chrome_trace()).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let spans: Vec<&Json> = events.iter().filter(|event| event["ph"] == "X").collect();
    let launches: Vec<&&Json> = spans.iter().filter(|event| event["tid"] == 2).collect();
    assert_eq!(launches.len(), profile.launches.len());
    for pair in launches.windows(2) {
        let end = pair[0]["ts"].as_f64().unwrap() + pair[0]["dur"].as_f64().unwrap();
        assert!((pair[1]["ts"].as_f64().unwrap() - end).abs() < 1e-3);
    }
    assert_eq!(spans.iter().filter(|event| event["tid"] == 1).count(), 3);

    // Profiled steps are steps: five as usual, five launch by launch.
    let mut plain = Session::new(device);
    let program = step(&mut plain);
    for _ in 0..10 {
        plain.run(&program, &[("x", &x)]).expect("runs");
    }
    assert_eq!(session.counters(), plain.counters());
    for name in plain.names() {
        assert_eq!(session.get(&name).unwrap().to_f64(), plain.get(&name).unwrap().to_f64(), "{name}");
    }
}

#[test]
fn the_reference_has_no_launches_to_profile() {
    let mut session = Session::new(Device::cpu());
    let program = step(&mut session);
    let error = session.profile(&program, &[]).unwrap_err().to_string();
    assert!(error.contains("no launches") && error.contains("GPU"), "{error}");
}

#[test]
fn a_trace_has_the_phases_of_a_step_within_its_run() {
    for device in common::devices() {
        let mut session = Session::new(device.clone());
        let x = Tensor::zeros(&TensorType::new(DType::F32, [32, 24]));
        let (done, trace) = Trace::record(|| {
            let program = step(&mut session);
            session.run(&program, &[("x", &x)])
        });
        done.expect("runs");
        let phases: &[&str] = match device.is_cpu() {
            true => &["compile", "run", "upload", "compute"],
            false => &["compile", "run", "upload", "submit", "wait for the device", "read back"],
        };
        assert_eq!(trace.spans.iter().map(|span| span.name).collect::<Vec<_>>(), phases);
        let run = &trace.spans[1];
        for pair in trace.spans[2..].windows(2) {
            assert!(pair[0].start + pair[0].seconds <= pair[1].start, "{pair:?}");
        }
        let inner: f64 = phases[2..].iter().map(|name| trace.seconds_of(name)).sum();
        assert!(inner > 0.0 && inner <= run.seconds && run.start + run.seconds <= trace.seconds, "{trace:?}");
        // Nothing is recorded any more, and a trace within another one takes its spans.
        let ((_, inner), outer) = Trace::record(|| Trace::record(|| step(&mut session)));
        assert_eq!((inner.spans.len(), outer.spans.len()), (1, 0));
    }
}
