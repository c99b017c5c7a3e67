//! The rows of an evaluation that were predicted worst, for the report.

use serde_json::{Value as Json, json};

use super::Batch;
use super::metric::Classes;
use crate::Tensor;

/// Rows that are kept.
const KEPT: usize = 24;
/// The largest width and height of a picture; larger ones are sampled.
const PIXELS: usize = 64;
/// Numbers of a row that are listed.
const NUMBERS: usize = 24;

/// Collects the rows with the largest errors: for classes the cross entropy, for numbers the mean squared error.
#[derive(Default)]
pub(super) struct Worst {
    /// What the errors are.
    measure: &'static str,
    /// Errors and rows, the worst first.
    rows: Vec<(f64, Json)>,
}

impl Worst {
    /// Adds a batch; `numbers` are its rows in the data set, `classes` the scores if it predicts classes.
    pub fn add(
        &mut self,
        batch: &Batch,
        target: &str,
        prediction: &Tensor,
        numbers: &[usize],
        classes: Option<Classes>,
    ) {
        let Some(labels) = batch.get(target) else { return };
        let Some(found) = Found::new(prediction, labels, numbers.len(), classes) else { return };
        self.measure = found.measure;
        let mut order: Vec<usize> = (0..numbers.len()).collect();
        // NaN is worst.
        let worse = |a: f64, b: f64| b.is_nan().cmp(&a.is_nan()).then(b.total_cmp(&a));
        order.sort_by(|&a, &b| worse(found.errors[a], found.errors[b]));
        for row in order.into_iter().take(KEPT) {
            let error = found.errors[row];
            if self.rows.len() == KEPT && self.rows.last().is_some_and(|last| !worse(error, last.0).is_lt()) {
                break;
            }
            let mut shown = found.describe(row);
            shown["row"] = json!(numbers[row]);
            shown["error"] = json!(error);
            for (name, tensor) in batch.iter().filter(|(name, _)| *name != target) {
                if let Some(input) = input(tensor, row) {
                    shown["name"] = json!(name);
                    shown["input"] = input;
                    break;
                }
            }
            let at = self.rows.partition_point(|(known, _)| !worse(error, *known).is_lt());
            self.rows.insert(at, (error, shown));
            self.rows.truncate(KEPT);
        }
    }

    /// `{"epoch", "measure", "rows": [{"row", "error", "target", "predicted", "input"...}]}`; `None` without rows.
    pub fn finish(self, epoch: u64) -> Option<Json> {
        let rows: Vec<Json> = self.rows.into_iter().map(|(_, row)| row).collect();
        (!rows.is_empty()).then(|| json!({"epoch": epoch, "measure": self.measure, "rows": rows}))
    }
}

/// The errors of a batch's rows.
struct Found {
    measure: &'static str,
    errors: Vec<f64>,
    classes: Option<Classes>,
    targets: Vec<f64>,
    /// Unless it predicts classes.
    predictions: Vec<f64>,
}

impl Found {
    fn new(prediction: &Tensor, labels: &Tensor, rows: usize, classes: Option<Classes>) -> Option<Found> {
        let targets = labels.to_f64();
        let each = targets.len().checked_div(rows).filter(|&each| each > 0 && targets.len() == each * rows)?;
        let mean = |row: usize, error: &dyn Fn(usize) -> f64| -> f64 {
            (row * each..(row + 1) * each).map(error).sum::<f64>() / each as f64
        };
        if let Some(classes) = classes {
            let errors = (0..rows).map(|row| mean(row, &|i| classes.cross_entropy(i))).collect();
            let predictions = Vec::new();
            return Some(Found { measure: "cross entropy", errors, classes: Some(classes), targets, predictions });
        }
        let predictions = prediction.to_f64();
        if predictions.len() != targets.len() {
            return None;
        }
        let errors = (0..rows).map(|row| mean(row, &|i| (predictions[i] - targets[i]).powi(2))).collect();
        Some(Found { measure: "squared error", errors, classes: None, targets, predictions })
    }

    /// Target and prediction of a row; of classes also their probabilities, if the row has one target.
    fn describe(&self, row: usize) -> Json {
        let each = self.targets.len() / self.errors.len();
        let listed = row * each..row * each + each.min(NUMBERS);
        let Some(classes) = &self.classes else {
            return json!({"target": &self.targets[listed.clone()], "predicted": &self.predictions[listed]});
        };
        let predicted: Vec<i32> = listed.clone().map(|i| classes.predicted(i)).collect();
        let mut shown = json!({"target": &self.targets[listed.clone()], "predicted": predicted});
        if each == 1 {
            let of = |class: usize| (-classes.cross_entropy_of(row, class)).exp();
            shown["probability"] = json!(of(predicted[0] as usize));
            shown["target_probability"] = json!(of(classes.target(row)));
        }
        shown
    }
}

/// A row of an input: `{"width", "height", "channels", "pixels"}` for images `[n, channels, height, width]` with 1, 3 or
/// 4 channels, the pixels as hexadecimal bytes, channels last; the first numbers of other floats and integers.
fn input(tensor: &Tensor, row: usize) -> Option<Json> {
    let shape = tensor.shape().to_vec();
    let values = tensor.slice(0, row..row + 1).ok()?.to_f64();
    match shape[..] {
        [_, channels @ (1 | 3 | 4), height, width] if height > 1 && width > 1 => {
            let every = height.max(width).div_ceil(PIXELS);
            let finite = || values.iter().copied().filter(|x| x.is_finite());
            let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
            // Values from 0 to 1 are shown as they are.
            let (low, high) = if low >= 0.0 && high <= 1.0 { (0.0, 1.0) } else { (low, high) };
            let byte = |x: f64| ((x - low) / (high - low).max(1e-30) * 255.0).round().clamp(0.0, 255.0) as u8;
            let (rows, columns) = (height.div_ceil(every), width.div_ceil(every));
            let mut pixels = String::with_capacity(2 * rows * columns * channels);
            for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y * every, x * every))) {
                for channel in 0..channels {
                    pixels += &format!("{:02x}", byte(values[(channel * height + y) * width + x]));
                }
            }
            Some(json!({"width": columns, "height": rows, "channels": channels, "pixels": pixels}))
        }
        _ => Some(json!({"numbers": &values[..values.len().min(NUMBERS)], "of": values.len()})),
    }
}
