//! `wgrad check --replay` runs the case file of a wrong kernel call.

use std::path::Path;
use std::process::Command;

use wgrad::check::KernelCase;
use wgrad::{DType, Graph, Session, Tensor};

use crate::common;
use crate::my_square::{MySquare, RIGHT};

fn replay(file: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    let output = command.args(["check", "--replay"]).arg(file).output().expect("the binary starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("UTF-8"))
}

#[test]
fn a_wrong_kernel_call_fails_and_its_correction_passes() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [10, 7]);
    let line = line!() + 1;
    let y = graph.apply1(MySquare::wrong(), &[&x]);
    let mut session = Session::new(device);
    let program = session.compile(&graph, &[&y]).expect("compiles");
    let x = Tensor::new([10, 7], (0..70).map(|i| i as f32 / 35.0 - 1.0).collect::<Vec<_>>()).expect("x");
    let (_, report) = session.run_checked(&program, &[("x", &x)]).expect("runs");
    let path = report.divergence.expect("a divergence").file.expect("saved").expect("saved");

    let (code, text) = replay(&path);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("FAILED, 70 of 70") && text.contains(&format!("{}:{line}:", file!())), "{text}");

    let mut case = KernelCase::load(&path).expect("a case file");
    case.dispatches[0].wgsl.text = RIGHT.into();
    case.save(&path).expect("saved");
    let (code, text) = replay(&path);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("0 of 70 elements wrong"), "{text}");
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn files_other_than_case_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    let tensors = std::collections::BTreeMap::from([("x".to_owned(), Tensor::scalar(1.0))]);
    wgrad::io::safetensors::save(&path, &tensors, &Default::default()).expect("saved");
    let (code, text) = replay(&path);
    assert!(code == Some(2) && text.contains("not a case file") && !text.contains("panicked"), "{text}");
}
