//! Sums and maxima over random shapes and axes against naive loops.

use proptest::prelude::*;
use wgrad::check::CaseGraph;
use wgrad::op::Case;

/// Every index of the shape, row-major.
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
        let at = outputs.iter().position(|output| *output == place).expect("it is one of them");
        y[at] = step(y[at], x);
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn reductions_agree_with_loops(
        shape in prop::collection::vec(1usize..5, 1..6),
        mask in 1u32..32,
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
        let graph = CaseGraph::new(&case).expect("a good graph");
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
