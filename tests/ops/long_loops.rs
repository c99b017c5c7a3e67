//! Sizes at which one invocation could run too many loop iterations: drivers stop long loops silently.
//! lavapipe does so after 65,535 iterations, summed over all loops of an invocation. Every plan for these
//! cases is compared with the reference.

use wgrad::check::check_case;
use wgrad::op::{Case, Fill};
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::pool2d::Pool2d;
use wgrad::plan::{Bound, Options, Plan};
use wgrad::{DType, Device, Graph, Profile, TensorType, Value};

use crate::common;

/// Longer than the rows of the row kernels; odd, so that no kernel reads vectors of four.
const ROW: usize = MAX_ROW + 4095;
/// The longest row of the row kernels.
const MAX_ROW: usize = 1 << 19;

fn case(
    op: &'static str,
    name: &str,
    shape: &[usize],
    build: impl Fn(&Value) -> Value + Send + Sync + 'static,
) -> Case {
    // Distinct elements, so that elements skipped by a stopped loop change the result.
    let fill = if op.contains("max_") || op == "argmax" { Fill::Distinct } else { Fill::Uniform(-2.0, 2.0) };
    Case::new(op, name, move |x| vec![build(&x[0])]).input("x", TensorType::new(DType::F32, shape), fill)
}

fn rows() -> Vec<Case> {
    let classes = |c: usize| {
        Case::new("cross_entropy", format!("{c} classes"), |x| vec![x[0].cross_entropy_losses(&x[1])])
            .input("x", TensorType::new(DType::F32, [2, c]), Fill::Uniform(-2.0, 2.0))
            .input("class", TensorType::new(DType::I32, [2]), Fill::Index(c as u32))
    };
    vec![
        case("softmax", "the longest row of a kernel", &[2, MAX_ROW - 1], |x| x.softmax(1)),
        case("log_softmax", "the longest row of a kernel", &[2, MAX_ROW], |x| x.log_softmax(1)),
        case("softmax", "a longer row", &[2, ROW], |x| x.softmax(1)),
        case("log_softmax", "a longer row, outermost", &[ROW + 20, 2], |x| x.log_softmax(0)),
        classes(MAX_ROW - 1),
        case("argmax", "a long row", &[2, ROW], |x| x.argmax(1, false)).forward_only(),
        case("sum", "a long row", &[2, ROW], |x| x.sum(&[1], false)),
        case("max", "a long row, outermost", &[ROW, 2], |x| x.max(&[0], false)).forward_only(),
        case("sum", "short runs", &[3, 3, ROW / 8], |x| x.permute(&[0, 2, 1]).sum(&[0, 1], false)),
        case("cumsum", "a long row", &[1, ROW / 8], |x| x.cumsum(1)),
    ]
}

fn windows() -> Vec<Case> {
    let mut cases = Vec::new();
    for [h, w] in [[16_000, 1], [126, 126]] {
        let wide = Pool2d::new([h, w]);
        let shape = &[1, 1, 2 * h, w];
        cases.push(case("max_pool2d", &format!("windows of {h} x {w}"), shape, move |x| x.max_pool2d(wide)));
        cases.push(case("avg_pool2d", &format!("windows of {h} x {w}"), shape, move |x| x.avg_pool2d(wide)));
        // Each element is in hundreds of windows, whose elements an invocation examines one by one: about 200,000.
        let [h, w] = if w == 1 { [h / 16, 1] } else { [h / 3, w / 3] };
        let near = Pool2d::new([h.div_ceil(2), w.div_ceil(2)]).stride(1);
        let shape = &[1, 1, h, w];
        cases.push(case("max_pool2d", &format!("many windows in {h} x {w}"), shape, move |x| x.max_pool2d(near)));
        cases.push(case("avg_pool2d", &format!("many windows in {h} x {w}"), shape, move |x| x.avg_pool2d(near)));
    }
    // One element in a quarter of a million, and input left over after the last window.
    for (shape, step) in [([1, 1, 504, 504], 504), ([1, 1, 30_001, 2], 20_000)] {
        let far = Pool2d::new(1).stride(step);
        cases.push(case("max_pool2d", &format!("steps of {step}"), &shape, move |x| x.max_pool2d(far)));
    }
    let build = |x: &[Value]| vec![x[0].conv2d(&x[1], None, Conv2d::default())];
    let tensor = |h: usize| TensorType::new(DType::F32, [1, 2, h, 1]);
    let unit = Fill::Uniform(-2.0, 2.0);
    let case = Case::new("conv2d", "a kernel of 10,000 x 1", build).input("x", tensor(10_001), unit.clone());
    // Forward only: the gradients have no longer loops, and their billions of operations take a minute on a CPU.
    cases.push(case.input("w", tensor(10_000), unit).forward_only());
    cases
}

fn run(device: &Device, cases: &[Case]) {
    for (number, case) in cases.iter().enumerate() {
        let name = format!("{} ({})", case.op, case.name);
        let report = check_case(device, case, number as u64).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(report.passed() && report.compared() > 0, "{name}: {report:?}");
    }
}

/// With 128 invocations per workgroup, so that each does the most work.
#[test]
fn long_rows_are_split() {
    let Some(whole) = common::device() else { return };
    let few = Profile { max_invocations: 128, ..whole.profile().clone() };
    run(&Device::open_within(None, Some(&few)).expect("opens"), &rows());
}

#[test]
fn large_windows_are_read_completely() {
    let Some(device) = common::device() else { return };
    run(&device, &windows());
}

/// The plan for a row of a gigabyte stays within the same bounds.
#[test]
fn argmax_splits_long_rows_into_few_short_parts() {
    let graph = Graph::new();
    let y = graph.input("x", DType::F32, [250_000_000]).argmax(0, false);
    let profile = Profile { max_binding: 1 << 40, max_buffer: 1 << 40, ..Profile::webgpu_defaults() };
    let (plan, findings) = Plan::of(&graph, &[&y], &profile, &Options::default()).expect("a valid graph");
    assert!(findings.is_empty(), "{findings:?}");
    let [first, second] = &plan.calls[0].dispatches[..] else { panic!("{:?}", plan.calls[0]) };
    assert_eq!((&*first.entry, &*second.entry), ("argmax_rows", "argmax_parts"));
    for (dispatch, size) in [(first, 250_000_000 / 4), (second, 250_000_000)] {
        let Bound::Uniform(words) = &dispatch.bindings[0] else { panic!("{dispatch:?}") };
        let [parts, chunk] = [words[3], words[4]]; // the first launch counts in vec4
        let each = chunk.div_ceil(first.wgsl.invocations);
        assert!(parts < 16_000 && each < 16_000 && u64::from(parts) * u64::from(chunk) >= size, "{words:?}");
    }
}
