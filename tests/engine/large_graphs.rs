//! Graphs of 200,000 nodes: every traversal is iterative and takes about linear time. A thread with a
//! stack of 512 KiB builds, differentiates, plans, lints, runs and drops them. Needs no GPU.

use wgrad::plan::{Bound, Options, Plan};
use wgrad::{DType, Device, Graph, Profile, Session, Shape, Tensor, TensorType, Value, gradients};

const NODES: usize = 200_000;

fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(run).expect("a thread");
    thread.join().expect("the test passes");
}

fn gpu() -> Profile {
    Profile { kind: "discrete GPU".into(), max_storage_buffers: 31, ..Profile::webgpu_defaults() }
}

/// Plans for a GPU, runs on the reference, and lints for a phone.
fn run(graph: &Graph, outputs: &[&Value], x: &Tensor) -> (Plan, Vec<Vec<f64>>) {
    let count = graph.nodes().nodes.len();
    assert!(count >= NODES, "{count} nodes");
    let (plan, findings) = Plan::of(graph, outputs, &gpu(), &Options::default()).expect("plans");
    assert!(findings.is_empty(), "{findings:?}");
    let mut session = Session::new(Device::cpu());
    let program = session.compile(graph, outputs).expect("compiles");
    assert!(session.lint(&program, &Profile::phone()).iter().all(|finding| !finding.refused));
    let results = session.run(&program, &[("x", x)]).expect("runs");
    (plan, results.iter().map(Tensor::to_f64).collect())
}

fn assert_close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 1e-6 * want.abs().max(1.0), "{got}, expected {want}");
    }
}

#[test]
fn a_chain_of_permute_and_reshape_pairs() {
    on_a_small_stack(|| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [2, 3]);
        let mut y = x.clone();
        for _ in 0..NODES / 2 {
            y = y.t().reshape(&[2, 3]);
        }
        let numbers = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let (plan, results) = run(&graph, &[&y], &Tensor::new([2, 3], numbers.map(|x| x as f32)).expect("6 numbers"));
        let mut want = numbers;
        for _ in 0..NODES / 2 {
            want = [want[0], want[3], want[1], want[4], want[2], want[5]];
        }
        assert_close(&results[0], &want);
        assert_eq!(plan.calls.len(), NODES / 2);
    });
}

#[test]
fn an_elementwise_chain_with_its_gradient() {
    on_a_small_stack(|| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [5]);
        let mut y = x.clone();
        for _ in 0..NODES / 6 {
            y = (&y * 0.9999).sin() / 0.9999;
        }
        let dx = gradients(&y.sum_all(), &[&x]).remove(0);
        let numbers = [-1.0f32, -0.1, 0.0, 0.01, 1.0];
        let (_, results) = run(&graph, &[&y, &dx], &Tensor::new([5], numbers).expect("5 numbers"));
        let want = numbers.map(|x| {
            (0..NODES / 6).fold((f64::from(x), 1.0), |(y, dy), _| {
                let a = y * f64::from(0.9999f32);
                (a.sin() / f64::from(0.9999f32), dy * a.cos())
            })
        });
        assert_close(&results[0], &want.map(|(y, _)| y));
        assert_close(&results[1], &want.map(|(_, dy)| dy));
    });
}

#[test]
fn a_chain_of_products_with_its_gradients() {
    on_a_small_stack(|| {
        let graph = Graph::new();
        let (x, w) = (graph.input("x", DType::F32, [1, 2]), rotation());
        let w = graph.parameter("w", w);
        let mut y = x.clone();
        let length = NODES / 3;
        for _ in 0..length {
            y = y.matmul(&w);
        }
        let dx = gradients(&y.sum_all(), &[&x]).remove(0);
        let (_, results) = run(&graph, &[&y, &dx], &Tensor::new([1, 2], [1.0f32, 2.0]).expect("2 numbers"));
        let w: Vec<f64> = rotation().to_f64();
        let (mut want, mut gradient) = ([1.0, 2.0], [1.0, 1.0]);
        for _ in 0..length {
            want = [want[0] * w[0] + want[1] * w[2], want[0] * w[1] + want[1] * w[3]];
            gradient = [gradient[0] * w[0] + gradient[1] * w[1], gradient[0] * w[2] + gradient[1] * w[3]];
        }
        assert_close(&results[0], &want);
        assert_close(&results[1], &gradient);
    });
}

fn rotation() -> Tensor {
    let (sin, cos) = 0.001f32.sin_cos();
    Tensor::new([2, 2], [cos, sin, -sin, cos]).expect("4 numbers")
}

#[test]
fn a_wide_fan_out_and_fan_in() {
    on_a_small_stack(|| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [2, 3]);
        let length = NODES / 6;
        let terms: Vec<Value> = (0..length).map(|i| (&x * (i % 7) as f64).sum(&[0], false)).collect();
        let sum = terms.iter().skip(1).fold(terms[0].clone(), |sum, term| sum + term);
        let dx = gradients(&sum.sum_all(), &[&x]).remove(0);
        let x = Tensor::new([2, 3], [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("6 numbers");
        let (_, results) = run(&graph, &[&sum, &dx], &x);
        let factor = (0..length).map(|i| (i % 7) as f64).sum::<f64>();
        assert_close(&results[0], &[5.0, 7.0, 9.0].map(|x| x * factor));
        assert_close(&results[1], &[factor; 6]);
    });
}

/// Each variable's new value depends on its neighbour's old value: in-place updates must run in the
/// reverse of the graph's order.
#[test]
fn variables_updated_from_their_neighbours() {
    on_a_small_stack(|| {
        let graph = Graph::new();
        let count = 10_000usize;
        let zeros = TensorType::new(DType::F32, Shape::scalar());
        let all: Vec<Value> = (0..count).map(|i| graph.variable(&format!("v{i}"), Tensor::zeros(&zeros))).collect();
        let x = graph.input("x", DType::F32, Shape::scalar());
        graph.assign(&all[0], &(&x * 0.5));
        for pair in all.windows(2) {
            graph.assign(&pair[1], &(&pair[0] * 0.5));
        }
        // A launch of several updates is as correct as several launches in that order.
        for (fuse, calls) in [(false, count), (true, count.div_ceil(15))] {
            let options = Options { fuse, ..Options::default() };
            let (plan, findings) = Plan::of(&graph, &[], &gpu(), &options).expect("plans");
            assert!(findings.is_empty() && plan.commits.is_empty(), "{} copies", plan.commits.len());
            assert_eq!(plan.calls.len(), calls);
        }
        let mut session = Session::new(Device::cpu());
        let program = session.compile(&graph, &[]).expect("compiles");
        for _ in 0..3 {
            session.run(&program, &[("x", &Tensor::scalar(8.0))]).expect("runs");
        }
        let value = |name: &str| session.get(name).expect("a variable").item().expect("one number");
        assert_eq!(["v0", "v1", "v2", "v3"].map(value), [4.0, 2.0, 1.0, 0.0]);
    });
}

/// Ops that call long WGSL functions are fused into smaller groups.
#[test]
fn a_dispatch_calls_a_limited_number_of_function_lines() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1000]);
    let y = (0..100).fold(x.clone(), |y, i| y.pow(&y.full_like(1.0 + 0.01 * f64::from(i))));
    let (plan, _) = Plan::of(&graph, &[&y], &gpu(), &Options::default()).expect("plans");
    let calls = |text: &str| text.lines().filter(|line| line.contains("= pow_f32(")).count();
    let calls: Vec<usize> = plan.calls.iter().map(|call| calls(&call.dispatches[0].wgsl.text)).collect();
    assert_eq!(calls.iter().sum::<usize>(), 100, "{calls:?}");
    assert!(calls.iter().all(|&calls| calls <= 20) && calls.len() <= 8, "{calls:?}");
}

/// A dispatch with thousands of fused ops would compile for minutes and exceed a GPU's registers.
#[test]
fn a_dispatch_fuses_a_limited_number_of_ops() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1000]);
    let mut y = x.clone();
    for _ in 0..800 {
        y = y.sin() * 1.01;
    }
    let dx = gradients(&y.sum_all(), &[&x]).remove(0);
    for profile in [gpu(), Profile::webgpu_defaults(), Profile::reference()] {
        let (plan, _) = Plan::of(&graph, &[&y, &dx], &profile, &Options::default()).expect("plans");
        for dispatch in plan.calls.iter().flat_map(|call| &call.dispatches) {
            let calls = dispatch.wgsl.text.lines().filter(|line| line.starts_with("  let v")).count();
            assert!(calls <= 64, "{calls} ops in {}", dispatch.label);
            let storage = dispatch.bindings.iter().filter(|b| matches!(b, Bound::Storage { .. })).count();
            assert!(storage <= profile.usable_storage_buffers(), "{storage} buffers in {}", dispatch.label);
        }
        let most = 4800 / if profile.max_storage_buffers < 31 { 10 } else { 40 };
        assert!(plan.calls.len() <= most, "{} launches on {}", plan.calls.len(), profile.name);
    }
}
