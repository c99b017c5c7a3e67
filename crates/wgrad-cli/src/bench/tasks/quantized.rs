//! Products with quantised weights.

use std::sync::Arc;

use serde_json::json;
use wgrad::Graph;
use wgrad::quant::{Calibration, Scheme};

use super::super::sample::Pick;
use super::{Of, Runs, Sample, Work, product, sampled};

/// A product with a weight `[N, K]` that is quantised in blocks.
pub fn quantized_matmul(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let &[m, k, n] = sizes else { return Err("expected three sizes".into()) };
    let scheme = if of.name == "matmul_q4" { Scheme::int4() } else { Scheme::int8() }.per_block();
    let mut draw = of.draw();
    let a = Arc::new(draw.tensor(&[m, k])?);
    let weight = scheme.quantize(&draw.tensor(&[n, k])?, Calibration::MinMax).map_err(|e| e.to_string())?;
    let graph = Graph::new();
    let outputs = vec![graph.variable("a", a.clone()).matmul_quantized(&weight.declare(&graph, "b"))];
    let bytes = of.bytes(product(&[m, k]) + product(&[m, n])) + weight.bytes() as f64;
    let sample: Sample = Box::new(move |session, outputs| {
        let picks = sampled(m, 64);
        // The numbers that the integers stand for are exact in f32.
        let inputs = [a.pick(0, &picks), weight.dequantize()?];
        session.compare(k + 1, &inputs, |v| v[0].matmul(&v[1].t()), &outputs[0].pick(0, &picks))
    });
    Ok(Work {
        bytes,
        graph,
        outputs,
        feeds: Vec::new(),
        params: json!(sizes),
        flop: 2.0 * product(sizes),
        // With fewer rows, weights are read more slowly than they are multiplied.
        arithmetic: m >= 64,
        runs: Runs::Forward,
        sample: Some(sample),
    })
}
