//! Timed work: a product, a convolution, an elementwise chain, and training steps.

use wasm_bindgen::prelude::*;
use wgrad::nn::Scope;
use wgrad::ops::conv2d::Conv2d;
use wgrad::optim::{Adam, Optimizer};
use wgrad::{Error, Graph, Program, Reduction, Session, Tensor, Value};

use crate::network::network;
use crate::page::{Gpu, thrown};

/// A program with its inputs on the GPU.
#[wasm_bindgen]
pub struct Bench {
    session: Session,
    program: Program,
    work: f64,
}

/// What a task computes, and its multiply-adds or, for elementwise work, bytes.
struct Task {
    graph: Graph,
    outputs: Vec<Value>,
    work: f64,
}

/// A variable of numbers from -1 to 1.
fn variable(graph: &Graph, name: &str, shape: &[usize]) -> Result<Value, Error> {
    let numbers: usize = shape.iter().product();
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = std::iter::repeat_with(next).take(numbers).collect();
    Ok(graph.variable(name, Tensor::new(shape, values)?))
}

/// A training step of a model of 10 classes with Adam.
fn training(rows: usize, shape: &[usize], macs: f64, model: impl Fn(&Scope, &Value) -> Value) -> Result<Task, Error> {
    let graph = Graph::new();
    let x = variable(&graph, "x", &[&[rows], shape].concat())?;
    let labels: Vec<i32> = (0..rows).map(|row| row as i32 % 10).collect();
    let labels = graph.variable("labels", Tensor::new([rows], labels)?);
    let loss = model(&Scope::train(&graph, 0), &x).cross_entropy(&labels, Reduction::Mean);
    Adam::new().minimize(&graph, &loss);
    Ok(Task { graph, outputs: vec![loss], work: 3.0 * rows as f64 * macs })
}

fn task(name: &str, size: usize) -> Result<Task, Error> {
    let graph = Graph::new();
    Ok(match name {
        "matmul" => {
            let y = variable(&graph, "a", &[size, size])?.matmul(&variable(&graph, "b", &[size, size])?);
            Task { graph, outputs: vec![y], work: (size * size * size) as f64 }
        }
        "conv2d" => {
            let x = variable(&graph, "x", &[8, 32, size, size])?;
            let y = x.conv2d(&variable(&graph, "w", &[32, 32, 3, 3])?, None, Conv2d::default().padding(1));
            Task { graph, outputs: vec![y], work: (8 * 32 * 32 * 9 * size * size) as f64 }
        }
        "elementwise" => {
            let x = variable(&graph, "x", &[size])?;
            let y = (&x * 0.5 + 1.0).tanh() * &x;
            Task { graph, outputs: vec![y], work: (8 * size) as f64 }
        }
        "mlp step" => training(size, &[784], (784 * 256 + 256 * 10) as f64, |nn, x| {
            nn.linear("fc2", &nn.linear("fc1", x, 256).relu(), 10)
        })?,
        "cnn step" => {
            let macs = 16 * 9 * 26 * 26 + 32 * 16 * 9 * 11 * 11 + 800 * 64 + 640;
            training(size, &[1, 28, 28], macs as f64, network)?
        }
        other => return Err(Error::Input(format!("there is no task `{other}`"))),
    })
}

impl Bench {
    async fn new(gpu: &Gpu, name: &str, size: usize) -> Result<Bench, Error> {
        let Task { graph, outputs, work } = task(name, size)?;
        let mut session = Session::new(gpu.device());
        let program = session.compile_async(&graph, &outputs.iter().collect::<Vec<_>>()).await?;
        Ok(Bench { session, program, work })
    }

    async fn runs(&mut self, count: usize) -> Result<(), Error> {
        for _ in 0..count {
            self.session.submit(&self.program, &[])?;
        }
        self.session.wait_async().await
    }
}

#[wasm_bindgen]
impl Bench {
    /// Compiles a task: `matmul`, `conv2d`, `elementwise`, `mlp step` or `cnn step`.
    pub async fn open(gpu: &Gpu, name: &str, size: usize) -> Result<Bench, JsValue> {
        Bench::new(gpu, name, size).await.map_err(thrown)
    }

    /// Multiply-adds of a run; bytes read and written for `elementwise`.
    pub fn work(&self) -> f64 {
        self.work
    }

    /// Compares one run with the reference, kernel call by kernel call; throws if they differ.
    pub async fn verify(&mut self) -> Result<usize, JsValue> {
        let (_, report) = self.session.check_async(&self.program, &[]).await.map_err(thrown)?;
        match &report.divergence {
            None if report.passed() => Ok(report.compared()),
            Some(divergence) => Err(divergence.to_string().into()),
            None => Err("it differs from the reference".into()),
        }
    }

    /// Runs so many times, and waits for the last.
    pub async fn run(&mut self, count: usize) -> Result<(), JsValue> {
        self.runs(count).await.map_err(thrown)
    }
}
