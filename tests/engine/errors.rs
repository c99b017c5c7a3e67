//! User errors and device failures give an [`Error`] that says what was expected, never a panic.
//! Nothing is computed on bad input.

use wgrad::op::{Args, Backward, Binding, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant};
use wgrad::shader::Source;
use wgrad::{DType, Device, Error, Graph, Reduction, Session, Tensor, TensorType, Value};

use crate::common;

#[test]
fn labels_are_validated_on_upload() {
    for device in common::devices() {
        let graph = Graph::new();
        let logits = graph.parameter("logits", Tensor::new([3, 4], vec![0.25f32; 12]).expect("logits"));
        let labels = graph.input("labels", DType::I32, [3]);
        let loss = logits.cross_entropy(&labels, Reduction::Mean);
        graph.assign(&logits, &(&logits + 1.0));
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&loss]).expect("compiles");
        for (bad, message) in [
            ([0, -1, 3], "input `labels`: index -1 at [1] is out of range: expected 0 to 3"),
            ([0, 1, 4], "input `labels`: index 4 at [2] is out of range: expected 0 to 3"),
        ] {
            let labels = Tensor::new([3], bad).expect("labels");
            let error = session.run(&program, &[("labels", &labels)]).expect_err("out of range");
            assert_eq!(error.to_string(), message);
        }
        assert_eq!(session.get("logits").expect("logits").to_f32(), [0.25; 12], "nothing ran");
        let labels = Tensor::new([3], [0, 1, 3]).expect("labels");
        let loss = session.run(&program, &[("labels", &labels)]).expect("runs")[0].item().expect("scalar");
        approx::assert_abs_diff_eq!(loss, 4f64.ln(), epsilon = 1e-6);
    }
}

#[test]
fn out_of_range_indices_computed_on_the_device_are_errors() {
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [2, 3]);
        let labels = graph.input("t", DType::F32, [2]).cast(DType::I32);
        let loss = x.cross_entropy(&labels, Reduction::Sum);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&loss]).expect("compiles");
        let x = Tensor::new([2, 3], vec![0.0f32; 6]).expect("x");
        let run = |session: &mut Session, t: [f32; 2]| {
            let t = Tensor::new([2], t).expect("t");
            session.run(&program, &[("x", &x), ("t", &t)])
        };
        let good = run(&mut session, [0.0, 2.0]).expect("in range")[0].item().expect("scalar");
        approx::assert_abs_diff_eq!(good, 2.0 * 3f64.ln(), epsilon = 1e-6);
        let error = run(&mut session, [0.0, 3.0]).expect_err("3 is out of range").to_string();
        assert!(error.contains("out of range"), "{error}");
        run(&mut session, [1.0, 1.0]).expect("the flag is cleared for the next run");
    }
}

/// A user-defined op whose kernel is not valid WGSL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Broken;

impl Op for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(vec![inputs[0].clone()])
    }
    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        vec![None]
    }
    fn reference(&self, inputs: &[&Tensor], _: &[TensorType]) -> Vec<Tensor> {
        vec![inputs[0].clone()]
    }
    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }
    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for Broken {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant::plain("only")];
        VARIANTS
    }
    fn lower(&self, _: &Variant, _: &Args<'_>) -> Result<Lowered, String> {
        Ok(Launch {
            label: "broken".into(),
            wgsl: Source::new("@compute @workgroup_size(1) fn broken() { let x: u32 = 1.5; }", 1),
            entry: "broken",
            bindings: vec![Binding::Read(Slot::Input(0)), Binding::Write(Slot::Output(0))],
            workgroups: [1, 1, 1],
        }
        .into())
    }
}

#[test]
fn a_refused_shader_is_an_error_that_names_the_kernel() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [4]);
    let y = graph.apply1(Broken, &[&x]);
    let mut session = Session::new(device.clone());
    let error = session.compile(&graph, &[&y]).err().expect("refused");
    assert!(matches!(error, Error::Gpu(_)) && error.to_string().contains("kernel broken"), "{error}");
    // The device remains usable.
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2]);
    let y = &x + 1.0;
    let program = session.compile(&graph, &[&y]).expect("compiles");
    let x = Tensor::new([2], [1.0f32, 2.0]).expect("x");
    assert_eq!(session.run(&program, &[("x", &x)]).expect("runs")[0].to_f32(), [2.0, 3.0]);
}

#[test]
fn a_lost_device_is_an_error() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2]);
    let w = graph.parameter("w", Tensor::new([2], [1.0f32, 1.0]).expect("w"));
    let y = &x + &w;
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &[&y]).expect("compiles");
    let x = Tensor::new([2], [1.0f32, 2.0]).expect("x");
    session.run(&program, &[("x", &x)]).expect("runs");
    device.destroy();
    for error in [
        session.run(&program, &[("x", &x)]).expect_err("lost"),
        session.get("w").expect_err("lost"),
        session.set("w", &x).expect_err("lost"),
        session.compile(&graph, &[&y]).err().expect("lost"),
    ] {
        assert!(matches!(error, Error::DeviceLost(_)), "{error}");
        assert!(error.to_string().contains("new session"), "{error}");
    }
}

#[test]
fn tensors_too_large_for_the_device_are_refused_before_allocation() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1 << 15, 1 << 15]); // 4 GiB
    let y = x.exp();
    let most = device.profile().max_binding.min(device.profile().max_buffer);
    let mut session = Session::new(device);
    match session.compile(&graph, &[&y]) {
        Err(Error::Limit(text)) => assert!(text.contains(&most.to_string()) && text.contains("batch"), "{text}"),
        Err(other) => panic!("{other}"),
        Ok(_) => assert!(most > 1 << 32, "it fits"),
    }
}

#[test]
fn unknown_device_names_are_refused_with_a_list_of_devices() {
    let error = Device::open(Some("no such adapter")).expect_err("unknown").to_string();
    assert!(error.contains("`no such adapter`") && error.contains("cpu"), "{error}");
    assert!(Device::open(Some("99")).is_err());
    assert!(Device::open(Some("CPU")).expect("the reference").is_cpu());
}
