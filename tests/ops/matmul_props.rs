//! Matmul with random shapes, broadcast batches and transposes, compared with a naive triple loop.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use wgrad::check::{CaseGraph, check_case};
use wgrad::op::Case;
use wgrad::{Shape, Tensor, Value, View};

use crate::common;

/// Batch axes of the result; for each operand, which of them have size 1 and how many are missing; rows,
/// columns and inner size; transposes.
#[derive(Clone, Debug)]
struct Product {
    batch: Vec<usize>,
    ones: [Vec<bool>; 2],
    lacks: [usize; 2],
    matrix: [usize; 3],
    transposed: [bool; 2],
}

fn product() -> impl Strategy<Value = Product> {
    let size =
        || prop_oneof![1 => Just(0usize), 6 => 1..6usize, 6 => 1..40usize, 3 => (1..10usize).prop_map(|x| 4 * x)];
    prop::collection::vec(0..4usize, 0..4).prop_flat_map(move |batch| {
        let rank = batch.len();
        let ones = || prop::collection::vec(any::<bool>(), rank);
        let matrix = [size(), size(), size()];
        (Just(batch), [ones(), ones()], [0..=rank, 0..=rank], matrix, any::<[bool; 2]>())
            .prop_map(|(batch, ones, lacks, matrix, transposed)| Product { batch, ones, lacks, matrix, transposed })
    })
}

impl Product {
    /// The shape in which operand `i` is stored.
    fn stored(&self, i: usize) -> Vec<usize> {
        let [m, n, k] = self.matrix;
        let sizes = self.batch.iter().zip(&self.ones[i]).map(|(&size, &one)| if one { 1 } else { size });
        let mut shape: Vec<usize> = sizes.skip(self.lacks[i]).collect();
        let [rows, columns] = if i == 0 { [m, k] } else { [k, n] };
        shape.extend(if self.transposed[i] { [columns, rows] } else { [rows, columns] });
        shape
    }

    fn case(&self) -> Case {
        let [ta, tb] = self.transposed;
        let build = move |x: &[Value]| {
            let as_said = |x: &Value, transposed: bool| if transposed { x.t() } else { x.clone() };
            vec![as_said(&x[0], ta).matmul(&as_said(&x[1], tb))]
        };
        Case::new("matmul", "random", build).float("a", self.stored(0)).float("b", self.stored(1))
    }

    /// The definition, with independent index arithmetic.
    fn naive(&self, a: &Tensor, b: &Tensor) -> (Shape, Vec<f64>) {
        let [m, n, k] = self.matrix;
        let shapes = [0, 1].map(|i| Shape::from(self.stored(i)));
        let batches = [0, 1].map(|i| Shape::from(shapes[i][..shapes[i].rank() - 2].to_vec()));
        let batch = batches[0].broadcast(&batches[1]).expect("broadcasts");
        let at = |i: usize, index: &[usize], row: usize, column: usize| {
            let lacks = index.len() - batches[i].rank();
            let mut full: Vec<usize> =
                batches[i].iter().zip(&index[lacks..]).map(|(&size, &x)| if size == 1 { 0 } else { x }).collect();
            full.extend(if self.transposed[i] { [column, row] } else { [row, column] });
            full.iter().zip(View::contiguous(&shapes[i]).strides).map(|(x, stride)| x * stride).sum::<usize>()
        };
        let (a, b) = (a.to_f64(), b.to_f64());
        let mut y = Vec::new();
        for number in 0..batch.numel() {
            let index = batch.unravel(number);
            for row in 0..m {
                for column in 0..n {
                    y.push((0..k).map(|i| a[at(0, &index, row, i)] * b[at(1, &index, i, column)]).sum());
                }
            }
        }
        let mut shape = batch.to_vec();
        shape.extend([m, n]);
        (shape.into(), y)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_reference_matches_the_definition(product in product(), seed in any::<u64>()) {
        let graph = CaseGraph::new(&product.case()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let inputs = graph.sample(seed);
        let outputs = graph.reference(&inputs).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let (shape, expected) = product.naive(&inputs[0], &inputs[1]);
        prop_assert_eq!(outputs[0].shape(), &shape);
        for (got, expected) in outputs[0].to_f64().into_iter().zip(expected) {
            prop_assert!((got - expected).abs() <= 1e-12, "{}, expected {}", got, expected);
        }
    }
}

#[test]
fn every_variant_agrees_with_the_reference() {
    let Some(device) = common::device() else { return };
    let mut runner = TestRunner::new(Config { cases: 12, ..Config::default() });
    let result = runner.run(&(product(), any::<u64>()), |(product, seed)| {
        let report = check_case(&device, &product.case(), seed).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let failed = report.ways.iter().flat_map(|(_, report)| &report.calls).find(|call| !call.passed());
        prop_assert!(failed.is_none(), "{:?}", failed.map(|call| (&call.label, &call.worst, &call.stray)));
        Ok(())
    });
    result.unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn shape_errors_name_the_sizes() {
    let graph = wgrad::Graph::new();
    let input = |name: &str, shape: &[usize]| graph.input(name, wgrad::DType::F32, shape);
    let message = |a: &[usize], b: &[usize]| {
        let number = graph.errors().len();
        let y = input(&format!("a{number}"), a).matmul(&input(&format!("b{number}"), b));
        assert!(!y.is_valid() && !y.matmul(&y).is_valid());
        let errors = graph.errors();
        assert_eq!(errors.len(), number + 1);
        assert!(errors[number].location.file().ends_with("matmul_props.rs"));
        errors[number].to_string()
    };
    let text = message(&[2, 3], &[4, 5]);
    assert!(text.contains("a has 3 columns and b has 4 rows"), "{text}");
    let text = message(&[3], &[4]);
    assert!(text.contains("3 columns"), "{text}");
    let text = message(&[], &[4]);
    assert!(text.contains("at least one axis"), "{text}");
    let text = message(&[2, 4, 4], &[3, 4, 4]);
    assert!(text.contains("[2] and [3] do not broadcast"), "{text}");
}
