//! Gradient accumulation over several batches: a large effective batch with the memory of a small one.

use std::panic::Location;

use super::Gradient;
use crate::{Graph, Tensor};

/// The name suffix of a parameter's gradient sum.
const SUM: &str = "grad_sum";

/// Makes each run add its gradients to the variables `PARAMETER.grad_sum` without updating parameters; another program
/// takes the step ([`accumulated`]).
///
/// ```
/// use wgrad::optim::{Optimizer, Sgd, accumulate, accumulated, parameter_gradients};
/// use wgrad::{DType, Device, Graph, Session, Tensor};
///
/// let batch = Graph::new();
/// let w = batch.parameter("w", Tensor::scalar(1.0));
/// let x = batch.input("x", DType::F32, []);
/// let loss = (&w * &x).square();
/// accumulate(&batch, &parameter_gradients(&batch, &loss));
///
/// let step = Graph::new();
/// step.parameter("w", Tensor::scalar(1.0));
/// Sgd::new().lr(0.01).apply(&step, &accumulated(&step, 2));
///
/// let mut session = Session::new(Device::cpu());
/// let batch = session.compile(&batch, &[&loss])?;
/// let step = session.compile(&step, &[])?;
/// session.run(&batch, &[("x", &Tensor::scalar(1.0))])?; // d loss / d w = 2 w x^2 = 2
/// session.run(&batch, &[("x", &Tensor::scalar(2.0))])?; // and 8
/// session.run(&step, &[])?;
/// assert!((session.get("w")?.item()? - (1.0 - 0.01 * 5.0)).abs() < 1e-12);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[track_caller]
pub fn accumulate(graph: &Graph, gradients: &[Gradient]) {
    for gradient in gradients {
        if graph.admit("accumulate", &[&gradient.parameter, &gradient.value]).is_err() {
            continue;
        }
        let sum = gradient.state(SUM);
        graph.assign(&sum, &(&sum + gradient.value.widen()));
    }
}

/// The mean over `batches` of the accumulated gradients of each parameter that the graph declares; each run resets the
/// sums. A parameter without accumulated gradients has gradient zero.
#[track_caller]
pub fn accumulated(graph: &Graph, batches: usize) -> Vec<Gradient> {
    if batches == 0 {
        graph.error("accumulated", &[], "expected at least one batch");
        return Vec::new();
    }
    let gradient = |(name, parameter): (String, crate::Value)| {
        let zeros = Tensor::zeros(parameter.widen().ty());
        let sum = graph.variable(&format!("{name}.{SUM}"), zeros);
        graph.assign(&sum, &sum.zeros_like());
        Gradient { name, parameter, value: sum / batches as f64 }
    };
    graph.at(Location::caller(), || graph.parameters().into_iter().map(gradient).collect())
}
