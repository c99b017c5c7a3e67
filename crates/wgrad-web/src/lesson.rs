//! A convolutional network that learns digits.

use serde_json::json;
use wasm_bindgen::prelude::*;
use wgrad::data::Digits;
use wgrad::io::Weights;
use wgrad::nn::Scope;
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Error, Graph, Program, Reduction, Session, Tensor};

use crate::network::network;
use crate::page::{Gpu, object, thrown};

/// Digits per training step.
const BATCH: usize = 32;
/// Digits per step of an evaluation.
const EVALUATED: usize = 100;

/// The training of the lesson's network.
#[wasm_bindgen]
pub struct Lesson {
    session: Session,
    train: Digits,
    test: Digits,
    step: Program,
    evaluation: Program,
    recognition: Program,
    /// The graph of the network alone, which declares the weights.
    model: Graph,
    steps: usize,
}

/// Compiles the network for `rows` digits; returns its probabilities.
async fn inference(session: &mut Session, rows: usize) -> Result<(Program, Graph), Error> {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [rows, 1, 28, 28]);
    let y = network(&Scope::eval(&graph, 0), &x).softmax(1);
    Ok((session.compile_async(&graph, &[&y]).await?, graph))
}

impl Lesson {
    async fn new(gpu: &Gpu, [images, labels, test_images, test_labels]: [&[u8]; 4]) -> Result<Lesson, Error> {
        let mut session = Session::new(gpu.device());
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [BATCH, 1, 28, 28]);
        let labels_of_batch = graph.input("labels", DType::I32, [BATCH]);
        let loss = network(&Scope::train(&graph, 0), &x).cross_entropy(&labels_of_batch, Reduction::Mean);
        Adam::new().lr(2e-3).minimize(&graph, &loss);
        let step = session.compile_async(&graph, &[&loss]).await?;
        let (evaluation, model) = inference(&mut session, EVALUATED).await?;
        let (recognition, _) = inference(&mut session, 1).await?;
        let (train, test) = (Digits::from_bytes(images, labels)?, Digits::from_bytes(test_images, test_labels)?);
        Ok(Lesson { session, train, test, step, evaluation, recognition, model, steps: 0 })
    }

    /// The next batch; the digits are in random order already.
    fn batch(&self) -> Result<(Tensor, Tensor), Error> {
        let first = self.steps * BATCH;
        let rows: Vec<usize> = (first..first + BATCH).map(|row| row % self.train.len()).collect();
        Ok((self.train.images.rows(&rows)?, self.train.labels.rows(&rows)?))
    }

    async fn train(&mut self) -> Result<f64, Error> {
        let (x, labels) = self.batch()?;
        self.steps += 1;
        self.session.run_async(&self.step, &[("x", &x), ("labels", &labels)]).await?[0].item()
    }

    async fn evaluate(&mut self) -> Result<f64, Error> {
        let mut right = 0;
        let batches = self.test.len() / EVALUATED;
        for batch in 0..batches {
            let rows: Vec<usize> = (batch * EVALUATED..(batch + 1) * EVALUATED).collect();
            let (x, labels) = (self.test.images.rows(&rows)?, self.test.labels.rows(&rows)?.to_f64());
            let outputs = self.session.run_async(&self.evaluation, &[("x", &x)]).await?;
            let rows = outputs[0].to_f64();
            right += rows.chunks(10).zip(labels).filter(|(row, label)| largest(row) as f64 == *label).count();
        }
        Ok(right as f64 / (batches * EVALUATED).max(1) as f64)
    }
}

/// The place of the largest number.
fn largest(row: &[f64]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0)
}

#[wasm_bindgen]
impl Lesson {
    /// Prepares a training with the digits of four IDX files, gzipped or not.
    pub async fn open(
        gpu: &Gpu,
        images: &[u8],
        labels: &[u8],
        test_images: &[u8],
        test_labels: &[u8],
    ) -> Result<Lesson, JsValue> {
        Lesson::new(gpu, [images, labels, test_images, test_labels]).await.map_err(thrown)
    }

    /// The number of digits of a step.
    pub fn batch_size(&self) -> usize {
        BATCH
    }

    /// Trains one step; returns the loss.
    pub async fn step(&mut self) -> Result<f64, JsValue> {
        self.train().await.map_err(thrown)
    }

    /// The share of test digits that the network recognises.
    pub async fn accuracy(&mut self) -> Result<f64, JsValue> {
        self.evaluate().await.map_err(thrown)
    }

    /// The 16 filters of the first layer, of 3 by 3 numbers each.
    pub async fn filters(&self) -> Result<Vec<f32>, JsValue> {
        Ok(self.session.get_async("conv1.weight").await.map_err(thrown)?.to_f32())
    }

    /// The probabilities of the ten digits for an image of 28 by 28 numbers from 0 to 1.
    pub async fn recognize(&mut self, pixels: Vec<f32>) -> Result<Vec<f32>, JsValue> {
        let x = Tensor::new([1, 1, 28, 28], pixels).map_err(thrown)?;
        let outputs = self.session.run_async(&self.recognition, &[("x", &x)]).await.map_err(thrown)?;
        Ok(outputs[0].to_f32())
    }

    /// A test digit: its label, then its pixels.
    pub fn test_digit(&self, number: usize) -> Result<Vec<f32>, JsValue> {
        let row = [number % self.test.len().max(1)];
        let digit = || Ok((self.test.labels.rows(&row)?.to_f32(), self.test.images.rows(&row)?.to_f32()));
        let (label, pixels) = digit().map_err(thrown)?;
        Ok([label, pixels].concat())
    }

    /// Trains one step kernel call by kernel call, and compares each with the reference.
    pub async fn check(&mut self) -> Result<JsValue, JsValue> {
        let (x, labels) = self.batch().map_err(thrown)?;
        self.steps += 1;
        let checked = self.session.check_async(&self.step, &[("x", &x), ("labels", &labels)]).await;
        let (_, report) = checked.map_err(thrown)?;
        object(&json!({
            "passed": report.passed(),
            "calls": report.calls.len(),
            "compared": report.compared(),
            "worst": report.worst().map(|(call, element)| json!({
                "kernel": call.label, "share of tolerance": element.ratio(),
            })),
            "failure": report.divergence.map(|divergence| divergence.to_string()),
        }))
    }

    /// The weights as the bytes of a safetensors file.
    pub async fn weights(&self) -> Result<Vec<u8>, JsValue> {
        self.session.weights_to_bytes_async(&self.model).await.map_err(thrown)
    }

    /// Loads weights from the bytes of a safetensors file.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), JsValue> {
        self.session.load_weights_bytes(bytes, &self.model, &Weights::new()).map(drop).map_err(thrown)
    }
}
