//! The tasks by name and shape: the same computations as in the peers' benchmark programs, with inputs that stay on
//! the device.

mod quantized;
mod training;

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use wgrad::ops::attention::Attention;
use wgrad::ops::conv2d::Conv2d;
use wgrad::{DType, Graph, Reduction, Tensor, Value, gradients, gradients_of};

use super::sample::{Pick, Sample, sampled};
use quantized::quantized_matmul;
use training::{cnn_step, large_graph, mlp_step, recurrent_step};

/// Maximum elements per tensor: 1 GiB.
const MAX: usize = 1 << 28;

/// A kind of task.
pub struct Task {
    pub name: &'static str,
    /// The syntax of its shapes.
    pub form: &'static str,
    /// The shapes that the peers are measured with; [`build`] uses the first by default.
    pub shapes: &'static [&'static str],
    /// Builds the work for these sizes; an error message if they do not fit.
    build: fn(Of, &[usize]) -> Result<Work, String>,
}

/// What to build of a task.
#[derive(Clone, Copy)]
struct Of {
    /// The task's name.
    name: &'static str,
    /// The type in which floats are stored: inputs and parameters, or in training steps inputs and activations.
    dtype: DType,
    /// Whether training steps sum the gradients over the ranks of a job.
    ranks: bool,
}

impl Of {
    fn draw(self) -> Draw {
        Draw(StdRng::seed_from_u64(1), self.dtype)
    }

    /// Bytes of so many stored floats.
    fn bytes(self, floats: f64) -> f64 {
        floats * 4.0 / self.dtype.per_word() as f64
    }
}

/// One task, ready to be compiled.
pub struct Work {
    pub graph: Graph,
    pub outputs: Vec<Value>,
    pub feeds: Vec<(&'static str, Tensor)>,
    /// In the peers' format.
    pub params: Json,
    /// Nominal floating-point operations per run; a multiply-add counts as two.
    pub flop: f64,
    /// Minimum bytes moved per run: inputs read once, outputs written once. 0: use what the plan moves.
    pub bytes: f64,
    /// Whether it is compute-bound rather than memory-bound.
    pub arithmetic: bool,
    pub runs: Runs,
    /// How to check a sample of the outputs if the reference would take too long for all.
    pub sample: Option<Sample>,
}

/// What one timed run executes.
#[derive(Clone, Copy, PartialEq)]
pub enum Runs {
    /// The launches and a wait for the device.
    Forward,
    /// This many training steps; the last loss is read back.
    Steps(usize),
    /// No launches: only planning.
    Planning,
}

/// Shows that planning time is about linear: four times as many nodes must take about four times as long.
const LARGE_GRAPHS: &[&str] = &["1500", "6000", "24000"];

const CONVOLUTIONS: &[&str] = &["8,3,32,32,32,3,1,1", "8,32,28,28,64,3,1,1", "4,64,56,56,64,3,1,1"];

const QUANTIZED: &[&str] = &["1x4096x4096", "8x1024x1024", "256x512x512"];

/// All tasks, in the order of `all`.
pub const TASKS: &[Task] = &[
    Task {
        name: "matmul",
        form: "MxKxN or BxMxKxN",
        shapes: &["256x256x256", "512x512x512", "1024x1024x1024", "64x784x256", "8x128x64x128"],
        build: matmul,
    },
    Task { name: "matmul_q8", form: "MxKxN", shapes: QUANTIZED, build: quantized_matmul },
    Task { name: "matmul_q4", form: "MxKxN", shapes: QUANTIZED, build: quantized_matmul },
    Task { name: "conv2d", form: "N,C,H,W,O,K,stride,pad", shapes: CONVOLUTIONS, build: conv2d },
    Task { name: "conv2d_bwd", form: "N,C,H,W,O,K,stride,pad", shapes: CONVOLUTIONS, build: conv2d },
    Task { name: "softmax", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: softmax },
    Task { name: "cross_entropy", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "layernorm", form: "ROWSxCOLUMNS", shapes: &["1024x768"], build: norm },
    Task { name: "rmsnorm", form: "ROWSxCOLUMNS", shapes: &["1024x768"], build: norm },
    Task { name: "batchnorm", form: "N,C,H,W", shapes: &["64,32,28,28"], build: norm },
    Task { name: "groupnorm", form: "N,C,H,W", shapes: &["64,32,28,28"], build: norm },
    Task { name: "attention", form: "HEADSxLENGTHxNUMBERS", shapes: &["8x256x64"], build: attention },
    Task { name: "attention_bwd", form: "HEADSxLENGTHxNUMBERS", shapes: &["8x256x64"], build: attention },
    Task { name: "embedding", form: "ROWSxNUMBERSxINDICES", shapes: &["10000x64x10000"], build: embedding },
    Task { name: "embedding_bwd", form: "ROWSxNUMBERSxINDICES", shapes: &["10000x64x10000"], build: embedding },
    Task { name: "cumsum", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "argmax", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "sort", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "flip", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "transpose", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "concat", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "pad", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "one_hot", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "dropout", form: "ROWSxCOLUMNS", shapes: &["1024x1024"], build: rows },
    Task { name: "max_pool2d", form: "N,C,H,W", shapes: &["64,32,28,28"], build: pool },
    Task { name: "avg_pool2d", form: "N,C,H,W", shapes: &["64,32,28,28"], build: pool },
    Task { name: "relu", form: "N", shapes: &["4194304"], build: pointwise },
    Task { name: "gelu", form: "N", shapes: &["4194304"], build: pointwise },
    Task { name: "sum", form: "N", shapes: &["4194304"], build: pointwise },
    Task { name: "dot", form: "N", shapes: &["4194304"], build: pointwise },
    Task { name: "add", form: "N", shapes: &["4194304"], build: pointwise },
    Task { name: "mlp_step", form: "BATCH,IN,...,OUT", shapes: &["64,784,512,256,10"], build: mlp_step },
    Task { name: "mlp_step_nosync", form: "BATCH,IN,...,OUT", shapes: &["64,784,512,256,10"], build: mlp_step },
    Task { name: "cnn_step", form: "N,C,H,W", shapes: &["64,1,28,28"], build: cnn_step },
    Task { name: "lstm_step", form: "BATCH,TIME,IN,HIDDEN", shapes: &["32,32,16,64"], build: recurrent_step },
    Task { name: "gru_step", form: "BATCH,TIME,IN,HIDDEN", shapes: &["32,32,16,64"], build: recurrent_step },
    Task { name: "rnn_step", form: "BATCH,TIME,IN,HIDDEN", shapes: &["32,32,16,64"], build: recurrent_step },
    Task { name: "plan_chain", form: "NODES", shapes: LARGE_GRAPHS, build: large_graph },
    Task { name: "plan_products", form: "NODES", shapes: LARGE_GRAPHS, build: large_graph },
    Task { name: "plan_layers", form: "NODES", shapes: LARGE_GRAPHS, build: large_graph },
    Task { name: "plan_views", form: "NODES", shapes: LARGE_GRAPHS, build: large_graph },
];

/// Tasks and shapes for GPUs: sizes that fill a large one, and the steps of small networks.
pub const GPU: &[(&str, &[&str])] = &[
    (
        "matmul",
        &[
            "256x256x256",
            "512x512x512",
            "1024x1024x1024",
            "2048x2048x2048",
            "4096x4096x4096",
            "8192x8192x8192",
            "64x784x256",
            "8x4096x4096",
            "1x4096x4096",
            "256x4096x4096",
            "4096x64x4096",
            "64x64x16384",
            "64x512x64x512",
        ],
    ),
    ("matmul_q8", &["1x4096x4096", "8x4096x4096", "256x4096x4096"]),
    ("matmul_q4", &["1x4096x4096", "8x4096x4096", "256x4096x4096"]),
    (
        "conv2d",
        &[
            "32,3,224,224,64,7,2,3",
            "32,64,56,56,64,3,1,1",
            "32,128,28,28,128,3,1,1",
            "32,256,14,14,256,3,1,1",
            "32,64,56,56,256,1,1,0",
            "64,32,28,28,64,3,1,1",
        ],
    ),
    ("conv2d_bwd", &["32,64,56,56,64,3,1,1", "32,128,28,28,128,3,2,1", "32,256,14,14,256,3,1,1"]),
    ("attention", &["128x1024x64", "32x4096x64"]),
    ("attention_bwd", &["128x1024x64"]),
    ("softmax", &["16384x1024", "1024x32768", "131072x64"]),
    ("cross_entropy", &["8192x32768"]),
    ("layernorm", &["16384x1024", "131072x64"]),
    ("rmsnorm", &["16384x4096"]),
    ("batchnorm", &["64,64,56,56"]),
    ("groupnorm", &["64,64,56,56"]),
    ("embedding", &["50000x512x16384"]),
    ("embedding_bwd", &["50000x512x16384"]),
    ("cumsum", &["4096x4096"]),
    ("argmax", &["4096x4096"]),
    ("sort", &["1024x4096"]),
    ("transpose", &["8192x8192"]),
    ("dropout", &["8192x8192"]),
    ("max_pool2d", &["64,64,112,112"]),
    ("avg_pool2d", &["64,64,112,112"]),
    ("relu", &["67108864"]),
    ("gelu", &["67108864"]),
    ("add", &["67108864"]),
    ("sum", &["67108864"]),
    ("dot", &["67108864"]),
    ("mlp_step", &["64,784,512,256,10", "1024,4096,4096,4096,10"]),
    ("mlp_step_nosync", &["64,784,512,256,10"]),
    ("cnn_step", &["64,1,28,28", "1024,1,28,28"]),
    ("lstm_step", &["32,32,16,64", "64,128,256,512"]),
    ("gru_step", &["64,128,256,512"]),
];

/// The task with this name.
pub fn find(name: &str) -> Option<&'static Task> {
    TASKS.iter().find(|task| task.name == name)
}

impl Task {
    /// Parses a shape.
    pub fn sizes(&self, shape: &str) -> Result<Vec<usize>, String> {
        let wrong = |why: String| {
            format!(
                "`{shape}` is not a shape of {}: {why}; expected {}, such as {}",
                self.name, self.form, self.shapes[0]
            )
        };
        let sizes: Result<Vec<usize>, String> = shape
            .split(['x', ','])
            .map(|size| size.parse().map_err(|_| wrong(format!("`{size}` is not a whole number"))))
            .collect();
        let sizes = sizes?;
        let (n, counts) = (sizes.len(), self.counts());
        if !counts.contains(&n) {
            return Err(wrong(format!("it has {n} numbers")));
        }
        let last = if self.name.starts_with("conv2d") { n - 1 } else { n }; // a padding may be 0
        if sizes[..last].contains(&0) {
            return Err(wrong("a size is 0".into()));
        }
        Ok(sizes)
    }

    /// How many numbers its shapes may have.
    fn counts(&self) -> std::ops::RangeInclusive<usize> {
        match self.form {
            "N" | "NODES" => 1..=1,
            "MxKxN or BxMxKxN" => 3..=4,
            "BATCH,IN,...,OUT" => 3..=64,
            form => {
                let n = form.split(['x', ',']).count();
                n..=n
            }
        }
    }

    /// Builds the work.
    pub fn build(&self, sizes: &[usize], dtype: DType) -> Result<Work, String> {
        self.checked(Of { name: self.name, dtype, ranks: false }, sizes)
    }

    /// Builds a training step that takes the mean of the gradients over the ranks of a job.
    pub fn build_for_ranks(&self, sizes: &[usize], dtype: DType) -> Result<Work, String> {
        self.checked(Of { name: self.name, dtype, ranks: true }, sizes)
    }

    fn checked(&self, of: Of, sizes: &[usize]) -> Result<Work, String> {
        let work = (self.build)(of, sizes)?;
        let errors = work.graph.errors();
        match errors.first() {
            None => Ok(work),
            Some(error) => Err(format!("{} of these sizes: {error}", self.name)),
        }
    }
}

/// Deterministic random numbers in [-1, 1], in this type.
struct Draw(StdRng, DType);

impl Draw {
    fn tensor(&mut self, shape: &[usize]) -> Result<Tensor, String> {
        let n = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).filter(|&n| n <= MAX);
        let n = n.ok_or_else(|| format!("a tensor of {shape:?} has more than {MAX} elements; use smaller sizes"))?;
        let values: Vec<f32> = (0..n).map(|_| self.0.random_range(-1.0f32..=1.0)).collect();
        Ok(Tensor::new(shape, values).map_err(|e| e.to_string())?.cast(self.1))
    }
}

/// The peers' labels.
fn labels(n: usize, classes: usize) -> Result<Tensor, String> {
    let labels: Vec<i32> = (0..n).map(|i| ((i * 7 + 3) % classes) as i32).collect();
    Tensor::new([n], labels).map_err(|e| e.to_string())
}

fn product(sizes: &[usize]) -> f64 {
    sizes.iter().map(|&size| size as f64).product()
}

/// A forward computation with these variables as inputs.
fn forward(
    inputs: &[(&'static str, Arc<Tensor>)],
    build: impl FnOnce(&[Value]) -> Vec<Value>,
) -> Result<(Graph, Vec<Value>), String> {
    let graph = Graph::new();
    let values: Vec<Value> = inputs.iter().map(|(name, tensor)| graph.variable(name, tensor.clone())).collect();
    let outputs = build(&values);
    match graph.errors().first() {
        Some(mistake) => Err(mistake.to_string()),
        None => Ok((graph, outputs)),
    }
}

fn elements<'a>(values: impl IntoIterator<Item = &'a Value>) -> f64 {
    values.into_iter().map(|value| value.shape().numel() as f64).sum()
}

fn matmul(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let [batch, m, k, n] = match *sizes {
        [m, k, n] => [1, m, k, n],
        [batch, m, k, n] => [batch, m, k, n],
        _ => return Err("expected three or four sizes".into()),
    };
    let (left, right) =
        if sizes.len() == 3 { (vec![m, k], vec![k, n]) } else { (vec![batch, m, k], vec![batch, k, n]) };
    let mut draw = of.draw();
    let (a, b) = (Arc::new(draw.tensor(&left)?), Arc::new(draw.tensor(&right)?));
    let inputs = [("a", a.clone()), ("b", b.clone())];
    let (graph, outputs) = forward(&inputs, |v| vec![v[0].matmul(&v[1])])?;
    let rows = left.len() - 2;
    let sample: Sample = Box::new(move |session, outputs| {
        let picks = sampled(m, 64);
        let inputs = [a.pick(rows, &picks), (*b).clone()];
        session.compare(k, &inputs, |v| v[0].matmul(&v[1]), &outputs[0].pick(rows, &picks))
    });
    Ok(Work {
        bytes: of.bytes(product(&left) + product(&right) + elements(&outputs)),
        graph,
        outputs,
        feeds: Vec::new(),
        params: json!(sizes),
        flop: 2.0 * product(sizes),
        arithmetic: true,
        runs: Runs::Forward,
        sample: Some(sample),
    })
}

/// The convolution; for `conv2d_bwd` also the loss `sum(y g)` and its gradients.
fn conv2d(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let &[n, c, h, w, o, kernel, stride, padding] = sizes else { return Err("expected eight sizes".into()) };
    let backward = of.name == "conv2d_bwd";
    let options = Conv2d::default().stride(stride).padding(padding);
    let mut draw = of.draw();
    let x = Arc::new(draw.tensor(&[n, c, h, w])?);
    let weight = Arc::new(draw.tensor(&[o, c, kernel, kernel])?);
    let probe = Graph::new();
    let (px, pw) = (probe.input("x", of.dtype, x.shape()), probe.input("w", of.dtype, weight.shape()));
    let y = px.conv2d(&pw, None, options);
    if let Some(mistake) = probe.errors().first() {
        return Err(mistake.to_string());
    }
    let (oh, ow) = (y.dim(2), y.dim(3));
    let flop = 2.0 * product(&[n, o, oh, ow, c, kernel, kernel]);
    let read = (x.numel() + weight.numel()) as f64;
    let written = y.shape().numel() as f64;
    let inputs = [("x", x.clone()), ("weight", weight.clone())];
    if !backward {
        let (graph, outputs) = forward(&inputs, |v| vec![v[0].conv2d(&v[1], None, options)])?;
        let sample: Sample = Box::new(move |session, outputs| {
            let (images, channels) = ([n - 1], sampled(o, 16));
            let inputs = [x.pick(0, &images), weight.pick(0, &channels)];
            let got = outputs[0].pick(0, &images).pick(1, &channels);
            session.compare(c * kernel * kernel, &inputs, |v| v[0].conv2d(&v[1], None, options), &got)
        });
        return Ok(convolution(of, graph, outputs, sizes, flop, read + written, sample));
    }
    let g = Arc::new(draw.tensor(&[n, o, oh, ow])?);
    let inputs = [("x", x.clone()), ("weight", weight.clone()), ("g", g.clone())];
    let (graph, outputs) = forward(&inputs, |v| {
        let loss = (v[0].conv2d(&v[1], None, options) * &v[2]).cast(DType::F32).sum_all();
        let gradients = gradients(&loss, &[&v[0], &v[1]]);
        std::iter::once(loss).chain(gradients).collect()
    })?;
    let sample: Sample = Box::new(move |session, outputs| {
        let (images, ins, outs) = ([n - 1], sampled(c, 16), sampled(o, 16));
        let of_x = [g.pick(0, &images), weight.pick(1, &ins)];
        let got = outputs[1].pick(0, &images).pick(1, &ins);
        let mut found =
            session.compare(o * kernel * kernel, &of_x, |v| v[0].conv2d_input_grad(&v[1], (h, w), options), &got)?;
        let of_weight = [x.pick(1, &ins), g.pick(1, &outs)];
        let got = outputs[2].pick(0, &outs).pick(1, &ins);
        found.add(session.compare(
            n * oh * ow,
            &of_weight,
            |v| v[0].conv2d_weight_grad(&v[1], (kernel, kernel), options),
            &got,
        )?);
        // sum(y g) = sum(x dx), since the input's gradient is the transposed convolution.
        found.add(session.inner_product(&x, &outputs[1], &outputs[0], o * kernel * kernel)?);
        Ok(found)
    });
    // Forward reads x and w; the gradients read g twice, x and w once more, and write dx and dw.
    let bytes = 2.0 * read + 3.0 * written + read;
    Ok(convolution(of, graph, outputs, sizes, 3.0 * flop, bytes, sample))
}

fn convolution(
    of: Of,
    graph: Graph,
    outputs: Vec<Value>,
    sizes: &[usize],
    flop: f64,
    floats: f64,
    sample: Sample,
) -> Work {
    Work {
        graph,
        outputs,
        feeds: Vec::new(),
        params: json!(sizes),
        flop,
        bytes: of.bytes(floats),
        arithmetic: true,
        runs: Runs::Forward,
        sample: Some(sample),
    }
}

fn softmax(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let x = Arc::new(of.draw().tensor(sizes)?);
    let (graph, outputs) = forward(&[("x", x)], |v| vec![v[0].softmax(1)])?;
    // Maximum, difference, exponential, sum, quotient.
    Ok(moving(of, graph, outputs, sizes, 5.0, 2.0))
}

/// Ops along rows. Minimum traffic is the input and the output once; arithmetic is negligible.
fn rows(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let x = Arc::new(of.draw().tensor(sizes)?);
    let labels = labels(sizes[0], sizes[1])?;
    let [seed, step] = [1u32, 2].map(|n| Tensor::new([], vec![n]).map_err(|e| e.to_string()));
    let (seed, step) = (seed?, step?);
    let (graph, outputs) = forward(&[("x", x)], |v| {
        let (x, graph) = (&v[0], v[0].graph());
        vec![match of.name {
            "cumsum" => x.cumsum(1),
            "argmax" => x.argmax(1, false),
            "sort" => x.sort(1, false).0,
            "flip" => x.flip(&[1]),
            "transpose" => x.t(),
            "concat" => x.concat(&[x], 1),
            "pad" => x.pad(&[(1, 1), (1, 1)], 0.0),
            "one_hot" => graph.constant(labels).one_hot(sizes[1]),
            "dropout" => x.dropout(0.5, &graph.constant(seed), &graph.constant(step)),
            _ => {
                // A sum may be too large for f16.
                let reduction = if of.dtype == DType::F32 { Reduction::Sum } else { Reduction::Mean };
                let loss = x.cross_entropy(&graph.constant(labels), reduction).cast(DType::F32);
                return [gradients(&loss, &[x]), vec![loss]].concat();
            }
        }]
    })?;
    let floats = match of.name {
        "argmax" | "one_hot" => 1.0,
        "concat" => 3.0,
        _ => 2.0,
    };
    Ok(moving(of, graph, outputs, sizes, 0.0, floats))
}

/// Non-overlapping 2x2 windows.
fn pool(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let x = Arc::new(of.draw().tensor(sizes)?);
    let (graph, outputs) =
        forward(&[("x", x)], |v| vec![if of.name == "max_pool2d" { v[0].max_pool2d(2) } else { v[0].avg_pool2d(2) }])?;
    Ok(moving(of, graph, outputs, sizes, 0.0, 1.25))
}

/// Over rows, or over channels (`groupnorm`: in groups of 4), with scale and, except in `rmsnorm`, shift.
fn norm(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let mut draw = of.draw();
    let columns = &sizes[1..2];
    let (x, weight, bias) = (draw.tensor(sizes)?, draw.tensor(columns)?, draw.tensor(columns)?);
    let inputs = [("x", Arc::new(x)), ("weight", Arc::new(weight)), ("bias", Arc::new(bias))];
    let (graph, outputs) = forward(&inputs, |v| {
        let (x, weight, bias) = (&v[0], Some(&v[1]), Some(&v[2]));
        vec![match of.name {
            "layernorm" => x.layer_norm(columns, weight, bias, 1e-5),
            "rmsnorm" => x.rms_norm(columns, weight, 1e-5),
            "batchnorm" => x.batch_norm_training(weight, bias, 1e-5).y,
            _ => x.group_norm((columns[0] / 4).max(1), weight, bias, 1e-5),
        }]
    })?;
    // Mean, difference, square, mean of squares, difference, scaling, scaling and shift; or square, mean of
    // squares, scaling and scaling.
    Ok(moving(of, graph, outputs, sizes, if of.name == "rmsnorm" { 4.0 } else { 8.0 }, 2.0))
}

/// Plain attention with independent heads; for `attention_bwd` also the loss `sum(y g)` and its gradients.
fn attention(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let &[heads, length, numbers] = sizes else { return Err("expected three sizes".into()) };
    let backward = of.name == "attention_bwd";
    let mut draw = of.draw();
    let names: &[&'static str] = if backward { &["q", "k", "v", "g"] } else { &["q", "k", "v"] };
    let inputs: Result<Vec<_>, String> =
        names.iter().map(|&name| Ok((name, Arc::new(draw.tensor(&[heads, length, numbers])?)))).collect();
    let (graph, outputs) = forward(&inputs?, |v| {
        let y = v[0].scaled_dot_product_attention(&v[1], &v[2], &Attention::default());
        if !backward {
            return vec![y];
        }
        let loss = (y * &v[3]).cast(DType::F32).sum_all();
        let gradients = gradients(&loss, &[&v[0], &v[1], &v[2]]);
        std::iter::once(loss).chain(gradients).collect()
    })?;
    // Two products forward and four backward; recomputation does not count.
    let flop = 4.0 * product(&[heads, length, length, numbers]) * if backward { 3.0 } else { 1.0 };
    let floats = product(sizes) * if backward { 13.0 } else { 4.0 };
    Ok(Work {
        graph,
        outputs,
        feeds: Vec::new(),
        params: json!(sizes),
        flop,
        bytes: of.bytes(floats),
        arithmetic: true,
        runs: Runs::Forward,
        sample: None,
    })
}

/// Looks up rows of a table; `embedding_bwd` computes only the table's gradient.
fn embedding(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let &[rows, numbers, indices] = sizes else { return Err("expected three sizes".into()) };
    let backward = of.name == "embedding_bwd";
    let mut draw = of.draw();
    let mut inputs = vec![("table", Arc::new(draw.tensor(&[rows, numbers])?))];
    // Random order, with repetitions.
    let index: Vec<i32> = (0..indices).map(|_| draw.0.random_range(0..rows as i32)).collect();
    inputs.push(("index", Arc::new(Tensor::new([indices], index).map_err(|e| e.to_string())?)));
    inputs.push(("g", Arc::new(draw.tensor(&[indices, numbers])?)));
    let (graph, outputs) = forward(&inputs[..if backward { 3 } else { 2 }], |v| {
        let y = v[0].embedding(&v[1]);
        if backward { gradients_of(&[(&y, &v[2])], &[&v[0]]) } else { vec![y] }
    })?;
    let table = if backward { rows } else { indices.min(rows) };
    Ok(Work {
        bytes: of.bytes(product(&[indices, numbers]) + product(&[table, numbers])) + 4.0 * indices as f64,
        graph,
        outputs,
        feeds: Vec::new(),
        params: json!(sizes),
        flop: if backward { product(&[indices, numbers]) } else { 0.0 },
        arithmetic: false,
        runs: Runs::Forward,
        sample: None,
    })
}

fn pointwise(of: Of, sizes: &[usize]) -> Result<Work, String> {
    let mut draw = of.draw();
    let x = Arc::new(draw.tensor(sizes)?);
    let mut inputs = vec![("x", x)];
    if matches!(of.name, "add" | "dot") {
        inputs.push(("y", Arc::new(draw.tensor(sizes)?)));
    }
    let (graph, outputs) = forward(&inputs, |v| {
        vec![match of.name {
            "relu" => v[0].relu(),
            "gelu" => v[0].gelu(),
            "sum" => v[0].sum_all(),
            "dot" => (&v[0] * &v[1]).sum_all(),
            _ => &v[0] + &v[1],
        }]
    })?;
    let (flop, floats) = match of.name {
        "sum" => (1.0, 1.0),
        "dot" => (2.0, 2.0),
        "add" => (1.0, 3.0),
        "gelu" => (4.0, 2.0), // 0.5 x (1 + erf(c x)), erf counted as one
        _ => (1.0, 2.0),
    };
    Ok(moving(of, graph, outputs, sizes, flop, floats))
}

/// A memory-bound task, with operations and floats moved per element.
fn moving(of: Of, graph: Graph, outputs: Vec<Value>, sizes: &[usize], flop: f64, floats: f64) -> Work {
    Work {
        graph,
        outputs,
        feeds: Vec::new(),
        params: json!(sizes),
        flop: flop * product(sizes),
        bytes: of.bytes(floats * product(sizes)),
        arithmetic: false,
        runs: Runs::Forward,
        sample: None,
    }
}
