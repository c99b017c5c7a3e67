//! Every op forward and backward against the reference: `wgrad check` for browsers.

use std::collections::HashSet;

use serde_json::{Value as Json, json};
use wasm_bindgen::prelude::*;
use wgrad::Error;
use wgrad::check::sweep::{NARROW, Numbered, listed};
use wgrad::check::{CaseReport, Extras, check_case_async};

use crate::page::{Gpu, object};

/// The cases of all ops.
#[wasm_bindgen]
pub struct Doctor {
    cases: Vec<Numbered>,
    /// Those of a quick check.
    quick: Vec<usize>,
    /// Ops of which a program has run with its workgroups in reverse order.
    permuted: HashSet<&'static str>,
}

#[wasm_bindgen]
impl Doctor {
    /// Lists the cases.
    #[wasm_bindgen(constructor)]
    #[expect(clippy::new_without_default, reason = "only JavaScript makes one")]
    pub fn new() -> Doctor {
        let cases = listed();
        let mut seen = HashSet::new();
        // The first case of each op and direction that has elements to compare.
        let wanted = |numbered: &Numbered| {
            let full = numbered.case.inputs.iter().all(|input| input.ty.shape.numel() > 0);
            full && numbered.number < NARROW && seen.insert((numbered.case.op, numbered.case.differentiable))
        };
        let first: Vec<bool> = cases.iter().map(wanted).collect();
        let quick = (0..cases.len()).filter(|&at| first[at]).collect();
        Doctor { cases, quick, permuted: HashSet::new() }
    }

    /// The cases: op, number, description and whether they are backward, too.
    pub fn list(&self, all: bool) -> Result<JsValue, JsValue> {
        let places: Vec<usize> = if all { (0..self.cases.len()).collect() } else { self.quick.clone() };
        let described = places.into_iter().map(|at| {
            let Numbered { number, case } = &self.cases[at];
            json!({ "at": at, "op": case.op, "case": number, "name": case.name, "backward": case.differentiable })
        });
        object(&Json::Array(described.collect()))
    }

    /// Runs a case in all ways that the GPU supports, and compares them with the reference.
    pub async fn check(&mut self, gpu: &Gpu, at: usize, seed: u32) -> Result<JsValue, JsValue> {
        let numbered = self.cases.get(at).ok_or_else(|| JsValue::from("there is no such case"))?;
        let op = numbered.case.op;
        let permuted = !self.permuted.contains(op);
        let extras = Extras { repeat: true, gradients: Some(6), every_way: false, permuted };
        let checked =
            check_case_async(&gpu.device(), &numbered.case, numbered.seed(seed.into()), &extras, |ways| ways).await;
        if checked.as_ref().is_ok_and(|report| report.permuted > 0) {
            self.permuted.insert(op);
        }
        object(&told(checked))
    }
}

/// A report for JavaScript.
fn told(checked: Result<CaseReport, Error>) -> Json {
    let report = match checked {
        Ok(report) => report,
        // This is how a kernel fails that the browser does not compile.
        Err(error) => {
            return json!({ "passed": false, "compared": 0, "failures": [{ "what": error.to_string() }] });
        }
    };
    let mut failures: Vec<Json> = report.complaints.iter().map(|why| json!({ "what": why })).collect();
    let (mut histogram, mut worst) = (wgrad::check::Histogram::default(), None::<(f64, String, String)>);
    for (options, way) in &report.ways {
        let name = options.variant.clone().unwrap_or(if options.fuse { "fused" } else { "unfused" }.to_owned());
        for call in &way.calls {
            histogram.merge(&call.histogram);
            if let Some(element) = &call.worst
                && worst.as_ref().is_none_or(|(ratio, ..)| element.ratio() > *ratio)
            {
                worst = Some((element.ratio(), call.label.clone(), element.to_string()));
            }
            if !call.passed() {
                let kernels: Vec<&str> = call.dispatches.iter().map(|dispatch| &*dispatch.wgsl.text).collect();
                failures.push(json!({
                    "way": name,
                    "kernel": call.label,
                    "wrong": call.wrong,
                    "of": call.compared,
                    "what": [call.worst.as_ref().map(ToString::to_string), call.stray.clone(), call.status.clone()],
                    "text": kernels,
                }));
            }
        }
    }
    json!({
        "passed": report.passed(),
        "compared": report.compared(),
        "ways": report.ways.len(),
        "gradients": report.gradients.spread,
        "worst": worst.map(|(ratio, kernel, element)| json!({
            "ratio": ratio, "kernel": kernel, "element": element,
        })),
        "histogram": histogram.counts,
        "most ulp": histogram.most,
        "failures": failures,
    })
}
