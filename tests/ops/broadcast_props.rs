//! Broadcasting and fused chains over random shapes, compared element by element with NumPy's rule. On
//! the reference, and on the GPU if there is one.

use proptest::prelude::*;
use wgrad::{DType, Device, Graph, Session, Shape, Tensor};

use crate::common;

/// A shape, and a second one that broadcasts with it: sizes of 1, and missing outer axes.
fn shapes() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, Vec<usize>)> {
    prop::collection::vec((0usize..6, 0u8..4), 0..5).prop_flat_map(|axes| {
        let rank = axes.len();
        (Just(axes), 0..=rank, 0..=rank).prop_map(|(axes, cut_a, cut_b)| {
            let size = |(size, kind): (usize, u8), one: u8| if kind == one { 1 } else { size };
            let a: Vec<usize> = axes.iter().map(|&axis| size(axis, 0)).collect();
            let b: Vec<usize> = axes.iter().map(|&axis| size(axis, 1)).collect();
            let c: Vec<usize> = axes.iter().map(|&axis| size(axis, 2)).collect();
            // Only one operand may lack axes, so that another has the full rank.
            (a, b[cut_a.min(cut_b)..].to_vec(), c)
        })
    })
}

fn fill(shape: &[usize], seed: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 16.0 - 3.0).collect();
    Tensor::new(shape, values).expect("one value per element")
}

/// The element that NumPy's rule selects for `index` of the common shape.
fn element(x: &Tensor, index: &[usize]) -> f64 {
    let skipped = index.len() - x.shape().rank();
    let strides = x.shape().strides();
    let own = index[skipped..].iter().zip(x.shape().iter());
    let at: usize = own.zip(&strides).map(|((&i, &size), stride)| if size == 1 { 0 } else { i * stride }).sum();
    x.to_f64()[at]
}

fn check(device: &Device, a: &[usize], b: &[usize], c: &[usize]) {
    let (ta, tb, tc) = (fill(a, 1), fill(b, 2), fill(c, 3));
    let common = ta.shape().broadcast(tb.shape()).and_then(|s| s.broadcast(tc.shape())).expect("they fit");
    let graph = Graph::new();
    let x = graph.input("a", DType::F32, a);
    let y = graph.input("b", DType::F32, b);
    let z = graph.input("c", DType::F32, c);
    let result = (&x * &y - &z).maximum(&(&y + 0.5));
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &[&result]).expect("compiles");
    let got = session.run(&program, &[("a", &ta), ("b", &tb), ("c", &tc)]).expect("runs").remove(0);
    assert_eq!(*got.shape(), common);
    let full = Shape::from(&common);
    for (i, got) in got.to_f64().into_iter().enumerate() {
        let index = full.unravel(i);
        let (a, b, c) = (element(&ta, &index), element(&tb, &index), element(&tc, &index));
        // All numbers are small multiples of 1/256: exact in f32.
        assert_eq!(got, (a * b - c).max(b + 0.5), "{index:?} of {common} on {device}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn broadcasting_follows_numpy((a, b, c) in shapes()) {
        check(&Device::cpu(), &a, &b, &c);
        thread_local!(static GPU: Option<Device> = common::device());
        GPU.with(|gpu| if let Some(device) = gpu { check(device, &a, &b, &c) });
    }
}
