//! Training steps.

use serde_json::{Value as Json, json};
use wgrad::nn::{Recurrent, RecurrentOptions, Scope, init};
use wgrad::ops::all_reduce::AllReduce;
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::recurrent::Cell;
use wgrad::optim::{Adam, Optimizer, all_reduce, parameter_gradients};
use wgrad::{DType, Graph, Reduction, Tensor, Value, gradients};

use super::{MAX, Of, Runs, Work, labels, product};

/// Cross-entropy of a model's logits with Adam; the images are on the device, labels are fed.
fn training(
    of: Of,
    x: Tensor,
    classes: usize,
    params: Json,
    macs: f64,
    steps: usize,
    model: impl FnOnce(&Scope, &Value) -> Value,
) -> Result<Work, String> {
    let graph = Graph::new();
    let batch = x.shape()[0];
    let x = graph.variable("x", x);
    let target = graph.input("labels", DType::I32, [batch]);
    let loss = model(&Scope::train(&graph, 1).mixed(of.dtype), &x).cross_entropy(&target, Reduction::Mean);
    let mut gradients = parameter_gradients(&graph, &loss);
    if of.ranks {
        gradients = all_reduce(&gradients, AllReduce::MEAN);
    }
    Adam::new().lr(1e-3).apply(&graph, &gradients);
    Ok(Work {
        graph,
        outputs: vec![loss],
        feeds: vec![("labels", labels(batch, classes)?)],
        params,
        flop: 6.0 * macs,
        bytes: 0.0,
        arithmetic: true,
        runs: Runs::Steps(steps),
        sample: None,
    })
}

pub(super) fn mlp_step(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let (batch, widths) = (sizes[0], &sizes[1..]);
    let macs: f64 = widths.windows(2).map(|pair| product(&[batch, pair[0], pair[1]])).sum();
    if let Some(pair) = widths.windows(2).find(|pair| product(pair) > MAX as f64) {
        return Err(format!("a layer of {pair:?} has more than {MAX} weights; use smaller sizes"));
    }
    let steps = if of.name == "mlp_step" { 1 } else { 20 };
    let (classes, layers) = (widths[widths.len() - 1], widths.len() - 1);
    let x = of.draw().tensor(&[batch, widths[0]])?;
    training(of, x, classes, json!(sizes), macs, steps, |nn, x| {
        widths[1..].iter().enumerate().fold(x.clone(), |x, (i, &width)| {
            let y = nn.linear(&format!("fc{}", i + 1), &x, width);
            if i + 1 < layers { y.relu() } else { y }
        })
    })
}

pub(super) fn cnn_step(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let &[n, c, h, w] = sizes else { return Err("expected four sizes".into()) };
    if h < 4 || w < 4 {
        return Err("images must be at least 4 x 4: they are halved twice".into());
    }
    let (h2, w2, h4, w4) = (h / 2, w / 2, h / 4, w / 4);
    let flat = 64 * h4 * w4;
    let macs = product(&[n, 32, c, 9, h, w])
        + product(&[n, 64, 32, 9, h2, w2])
        + product(&[n, flat, 128])
        + product(&[n, 128, 10]);
    let x = of.draw().tensor(&[n, c, h, w])?;
    training(of, x, 10, json!([n, c, h, w, "pad1"]), macs, 1, |nn, x| {
        let same = || Conv2d::default().padding(1);
        let x = nn.conv2d("conv1", x, 32, 3, same()).relu().max_pool2d(2);
        let x = nn.conv2d("conv2", &x, 64, 3, same()).relu().max_pool2d(2);
        let x = nn.linear("fc1", &x.flatten(1), 128).relu();
        nn.linear("fc2", &x, 10)
    })
}

/// The last hidden state of a recurrent layer, and a dense layer with 10 outputs.
pub(super) fn recurrent_step(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let &[batch, steps, inputs, hidden] = sizes else { return Err("expected four sizes".into()) };
    let (gates, cell) = match of.name {
        "lstm_step" => (4, Cell::Lstm),
        "gru_step" => (3, Cell::Gru),
        _ => (1, Cell::Rnn),
    };
    let macs = product(&[batch, steps, gates * hidden]) * (inputs + hidden) as f64 + product(&[batch, hidden, 10]);
    let x = of.draw().tensor(&[batch, steps, inputs])?;
    training(of, x, 10, json!(sizes), macs, 1, |nn, x| {
        let layer = Recurrent::new(cell, nn, "layer", inputs, hidden, RecurrentOptions::default());
        let states = layer.states(x, None);
        nn.linear("out", &states.h.reshape(&[-1, hidden as isize]), 10)
    })
}

/// Graphs of about this many nodes of small tensors, for planning: elementwise ops with their gradient, products and
/// tanh with theirs, residual layers trained with Adam, views that end in copies.
pub(super) fn large_graph(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let nodes = sizes[0];
    if nodes > 1 << 20 {
        return Err(format!("{nodes} nodes are too many"));
    }
    let times = |each: usize| 0..nodes.div_ceil(each);
    let graph = Graph::new();
    let x = graph.variable("x", of.draw().tensor(&[16, 16])?);
    let w = graph.variable("w", init::orthogonal(1.0).draw([16, 16], 1, "w").cast(of.dtype));
    let outputs = match of.name {
        "plan_chain" => {
            let y = times(6).fold(x.clone(), |y, _| y.sin() * 1.01);
            gradients(&y.cast(DType::F32).mean_all(), &[&x])
        }
        "plan_products" => {
            let y = times(11).fold(x.clone(), |y, _| y.matmul(&w).tanh());
            gradients(&y.cast(DType::F32).mean_all(), &[&x, &w])
        }
        "plan_layers" => {
            let nn = Scope::train(&graph, 1).mixed(of.dtype);
            let y = times(66).fold(x, |y, layer| &y + nn.linear(&format!("fc{layer}"), &y, 16).relu() * 0.01);
            let loss = y.square().cast(DType::F32).mean_all();
            Adam::new().minimize(&graph, &loss);
            vec![loss]
        }
        _ => vec![times(2).fold(x.reshape(&[4, 64]), |y, _| y.t().reshape(&[4, 64])).exp()],
    };
    Ok(Work {
        graph,
        outputs,
        feeds: Vec::new(),
        params: json!([nodes]),
        flop: 0.0,
        bytes: 0.0,
        arithmetic: false,
        runs: Runs::Planning,
        sample: None,
    })
}
