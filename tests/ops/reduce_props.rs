//! Reductions over random shapes and axes, compared with naive loops.

use proptest::prelude::*;
use wgrad::check::{CaseGraph, check_case};
use wgrad::op::Case;
use wgrad::{DType, Device, Graph, Reduction, Session, Tensor, gradients};

use crate::common;

/// Every index of the shape, in row-major order.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |rows, &size| {
        rows.iter().flat_map(|row| (0..size).map(move |i| [&row[..], &[i]].concat())).collect()
    })
}

/// The reduction of `x` over `axes`, in loops over multi-indices.
fn naive(x: &[f64], shape: &[usize], axes: &[usize], empty: f64, step: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let kept: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
    let sizes: Vec<usize> = kept.iter().map(|&axis| shape[axis]).collect();
    let outputs = indices(&sizes);
    let mut y = vec![empty; outputs.len()];
    for (index, &x) in indices(shape).iter().zip(x) {
        let place: Vec<usize> = kept.iter().map(|&axis| index[axis]).collect();
        let at = outputs.iter().position(|output| *output == place).expect("an output index");
        y[at] = step(y[at], x);
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reductions_agree_with_loops(
        shape in prop_oneof![prop::collection::vec(1usize..5, 1..6), prop::collection::vec(1usize..3, 6..10)],
        mask in 1u32..512,
        seed in 0u64..1000,
    ) {
        let axes: Vec<usize> = (0..shape.len()).filter(|axis| mask >> axis & 1 == 1).collect();
        prop_assume!(!axes.is_empty());
        let signed: Vec<isize> = axes.iter().map(|&axis| axis as isize).collect();
        let case = Case::new("sum", "random", move |x| {
            vec![x[0].sum(&signed, false), x[0].max(&signed, true), x[0].min(&signed, false)]
        })
        .float("x", &shape[..])
        .forward_only();
        let graph = CaseGraph::new(&case).expect("a valid graph");
        let inputs = graph.sample(seed);
        let x = inputs[0].to_f64();
        let outputs = graph.reference(&inputs).expect("the reference runs");
        let expected = [
            naive(&x, &shape, &axes, 0.0, |a, b| a + b),
            naive(&x, &shape, &axes, f64::NEG_INFINITY, f64::max),
            naive(&x, &shape, &axes, f64::INFINITY, f64::min),
        ];
        for (output, expected) in outputs.iter().zip(expected) {
            let output = output.to_f64();
            prop_assert_eq!(output.len(), expected.len());
            for (a, b) in output.iter().zip(expected) {
                prop_assert!((a - b).abs() <= 1e-12);
            }
        }
    }
}

/// Random shapes, axes and views on the GPU against the reference, with every variant.
#[test]
fn gpu_reductions_agree_with_the_reference() {
    let Some(device) = common::device() else { return };
    let sizes = prop_oneof![1usize..6, prop::sample::select(vec![8, 16, 31, 64, 100])];
    let shapes = prop_oneof![prop::collection::vec(sizes, 1..5), prop::collection::vec(1usize..4, 5..9)];
    let strategy = (shapes, 1u32..256, 0usize..8, 0u64..1000);
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let check = |(shape, mask, turn, seed): (Vec<usize>, u32, usize, u64)| {
        let rank = shape.len();
        let axes: Vec<isize> = (0..rank as isize).filter(|axis| mask >> axis & 1 == 1).collect();
        prop_assume!(!axes.is_empty());
        // Rotate the axes, so that inputs are read with strides.
        let turned: Vec<isize> = (0..rank).map(|axis| ((axis + turn) % rank) as isize).collect();
        let case = Case::new("sum", "random", move |x| {
            let x = x[0].permute(&turned);
            vec![x.sum(&axes, false), x.max(&axes, true), x.min(&axes, false)]
        })
        .float("x", &shape[..])
        .forward_only();
        let report = check_case(&device, &case, seed).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(report.compared() > 0 && report.passed(), "{:?}", report);
        Ok(())
    };
    runner.run(&strategy, check).unwrap_or_else(|error| panic!("{error}"));
}

/// Every element is counted, although drivers stop loops of that length.
#[test]
fn four_million_ones_sum_to_four_million() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [4_000_000]);
    let y = graph.input("y", DType::F32, [4_000_001]);
    let mut session = Session::new(device);
    let program = session.compile(&graph, &[&x.sum_all(), &y.sum_all(), &y.argmax(0, false)]).expect("compiles");
    let mut ones = vec![1.0f32; 4_000_001];
    let x = Tensor::new([4_000_000], &ones[1..]).expect("fits");
    ones[3_999_999] = 2.0;
    let y = Tensor::new([4_000_001], ones).expect("fits");
    let outputs = session.run(&program, &[("x", &x), ("y", &y)]).expect("runs");
    let outputs: Vec<f64> = outputs.iter().map(|output| output.item().expect("a scalar")).collect();
    assert_eq!(outputs, [4_000_000.0, 4_000_002.0, 3_999_999.0]);
}

/// Labels computed on the device cannot be checked on upload; the kernel checks them.
#[test]
fn out_of_range_labels_computed_on_the_device_are_errors() {
    for device in std::iter::once(Device::cpu()).chain(common::device()) {
        let graph = Graph::new();
        let logits = graph.input("logits", DType::F32, [3, 4]);
        let labels = graph.input("labels", DType::I32, [3]);
        let loss = logits.cross_entropy(&(&labels - 1.0), Reduction::Mean);
        let gradient = &wgrad::gradients(&loss, &[&logits])[0];
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&loss, gradient]).expect("compiles");
        let logits = Tensor::new([3, 4], vec![0.5f32; 12]).expect("fits");
        let mut run = |labels: [i32; 3]| {
            let labels = Tensor::new([3], labels).expect("fits");
            session.run(&program, &[("logits", &logits), ("labels", &labels)])
        };
        let outputs = run([1, 4, 2]).expect("in range");
        assert!((outputs[0].item().expect("a scalar") - 4f64.ln()).abs() < 1e-6);
        for bad in [[0, 1, 2], [1, 5, 2], [1, i32::MAX, 1]] {
            assert!(run(bad).is_err(), "{bad:?}");
        }
        run([1, 4, 2]).expect("in range again");
    }
}

/// The product of all factors except two.
fn without(x: &[f64], i: usize, j: usize) -> f64 {
    x.iter().enumerate().filter(|&(at, _)| at != i && at != j).map(|(_, x)| x).product()
}

#[test]
fn prod_has_correct_first_and_second_derivatives_at_zero_factors() {
    // Rows with no, one, two and three zeros, of an odd length; the axis is not the last.
    let rows: [[f64; 5]; 4] =
        [[2.0, 3.0, -1.5, 0.5, 4.0], [0.0, 3.0, -1.5, 0.5, 2.0], [0.0, 3.0, 0.0, 0.5, 2.0], [0.0, 3.0, 0.0, 0.5, -0.0]];
    let columns: Vec<f32> = (0..20).map(|i| rows[i % 4][i / 4] as f32).collect();
    let factors = [0.5, -1.0, 2.0, 1.5, -0.25];
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [5, 4]);
        let once = gradients(&x.prod(&[0], false).sum_all(), &[&x]).swap_remove(0);
        let each = graph.constant(Tensor::new([5, 1], factors.map(|f| f as f32)).expect("fits"));
        let twice = gradients(&(&once * each).sum_all(), &[&x]).swap_remove(0);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&once, &twice]).expect("compiles");
        let found =
            session.run(&program, &[("x", &Tensor::new([5, 4], columns.clone()).expect("fits"))]).expect("runs");
        let [once, twice] = [0, 1].map(|i| found[i].to_f64());
        for (row, x) in rows.iter().enumerate() {
            for i in 0..5 {
                let at = i * 4 + row;
                let slope = without(x, i, i);
                assert!((once[at] - slope).abs() <= 1e-5, "row {row}: slope {i} is {}, not {slope}", once[at]);
                let bend: f64 = (0..5).filter(|&j| j != i).map(|j| factors[j] * without(x, i, j)).sum();
                assert!((twice[at] - bend).abs() <= 1e-4, "row {row}: bend {i} is {}, not {bend}", twice[at]);
            }
        }
    }
}
