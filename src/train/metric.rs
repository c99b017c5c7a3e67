//! Metrics of a whole evaluation, collected batch by batch.

use std::fmt;
use std::sync::Arc;

use crate::data::{ConfusionMatrix, roc_auc};
use crate::{DType, Error, Result, Tensor};

/// What a [`Trainer`](super::Trainer) reports for validation data besides the loss.
///
/// Predictions are the outputs of the model. For **classes**, these are logits `[N, C]` or `[N, C, d1, ...]` with class
/// numbers `[N, d1, ...]` as targets, or one logit per target, which is 0 or 1: the prediction is 1 if the logit is
/// positive. (The ROC AUC only needs scores in the right order.) For **numbers**, predictions and targets have equally
/// many elements.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::train::{Meter, Metric};
/// let mut meter = Meter::new(&[Metric::Accuracy, Metric::TopK(2)]);
/// let logits = Tensor::new([2, 3], [0.1f32, 0.7, 0.2, 0.5, 0.1, 0.4])?;
/// meter.add(&logits, &Tensor::new([2], [1, 2])?)?;
/// assert_eq!(meter.values()?, [("accuracy".to_owned(), 0.5), ("top-2 accuracy".to_owned(), 1.0)]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Metric {
    /// The fraction of targets that were predicted.
    Accuracy,
    /// The fraction of targets among the k largest logits. Equal logits count in favour of the smaller class.
    TopK(usize),
    /// True positives among predicted positives; for more than two classes, the mean over the classes that were
    /// predicted.
    Precision,
    /// Found positives among all positives; for more than two classes, the mean over the classes that occur.
    Recall,
    /// `2 p r / (p + r)` of precision and recall; for more than two classes, the mean over the classes that occur.
    F1,
    /// The area under the ROC curve; see [`roc_auc`]. With two logits per row, their difference is the score.
    RocAuc,
    /// The mean absolute error.
    Mae,
    /// The root of the mean squared error.
    Rmse,
    /// The coefficient of determination; see [`r2_score`](crate::data::r2_score).
    R2,
    /// `exp` of the mean cross entropy of logits and class numbers.
    Perplexity,
    /// A user-defined metric: the mean over all rows.
    Mean(Custom),
}

/// A user-defined metric; see [`Metric::mean_of`]. Example: [`Metric::mean_of`].
#[derive(Clone)]
pub struct Custom {
    name: String,
    higher_is_better: bool,
    of_batch: Arc<OfBatch>,
}

type OfBatch = dyn Fn(&Tensor, &Tensor) -> Result<f64> + Send + Sync;

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Metric {
    /// A user-defined metric: `of_batch` returns its mean over the rows of a batch, from predictions and targets.
    ///
    /// ```
    /// use wgrad::train::Metric;
    /// let within_one = Metric::mean_of("within 1", true, |prediction, target| {
    ///     let pairs = prediction.to_f64().into_iter().zip(target.to_f64());
    ///     Ok(pairs.filter(|(p, y)| (p - y).abs() <= 1.0).count() as f64 / target.numel() as f64)
    /// });
    /// assert_eq!(within_one.name(), "within 1");
    /// ```
    pub fn mean_of(
        name: &str,
        higher_is_better: bool,
        of_batch: impl Fn(&Tensor, &Tensor) -> Result<f64> + Send + Sync + 'static,
    ) -> Metric {
        Metric::Mean(Custom { name: name.to_owned(), higher_is_better, of_batch: Arc::new(of_batch) })
    }

    /// Its name in reports: `accuracy`, `top-5 accuracy`, `rmse`.
    pub fn name(&self) -> String {
        match self {
            Metric::Accuracy => "accuracy".into(),
            Metric::TopK(k) => format!("top-{k} accuracy"),
            Metric::Precision => "precision".into(),
            Metric::Recall => "recall".into(),
            Metric::F1 => "f1".into(),
            Metric::RocAuc => "roc auc".into(),
            Metric::Mae => "mae".into(),
            Metric::Rmse => "rmse".into(),
            Metric::R2 => "r2".into(),
            Metric::Perplexity => "perplexity".into(),
            Metric::Mean(custom) => custom.name.clone(),
        }
    }

    /// Whether larger values are better.
    pub fn higher_is_better(&self) -> bool {
        match self {
            Metric::Mae | Metric::Rmse | Metric::Perplexity => false,
            Metric::Mean(custom) => custom.higher_is_better,
            _ => true,
        }
    }
}

/// Collects predictions and targets, and computes metrics.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::train::{Meter, Metric};
/// let mut meter = Meter::new(&[Metric::Mae, Metric::Rmse]);
/// for (prediction, target) in [(1.0, 2.0), (5.0, 2.0)] {
///     meter.add(&Tensor::scalar(prediction), &Tensor::scalar(target))?;
/// }
/// assert_eq!(meter.values()?, [("mae".to_owned(), 2.0), ("rmse".to_owned(), 5f64.sqrt())]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Meter {
    metrics: Vec<Tally>,
    confusion: Option<Confusion>,
    uses_classes: bool,
}

#[derive(Debug)]
struct Tally {
    metric: Metric,
    /// A sum over rows, or what the metric sums up.
    sum: f64,
    rows: f64,
    /// All predictions and targets, for metrics that need them together.
    predictions: Vec<f64>,
    targets: Vec<f64>,
}

/// Predicted and actual classes.
#[derive(Debug, Default)]
struct Confusion {
    classes: usize,
    predicted: Vec<i32>,
    actual: Vec<i32>,
}

/// Scores of the classes, and the targets.
pub(super) struct Classes {
    /// `[targets, classes]`; with one logit per target, the scores 0 and the logit.
    scores: Vec<f64>,
    targets: Vec<usize>,
    classes: usize,
}

impl Classes {
    pub fn new(prediction: &Tensor, target: &Tensor) -> Result<Classes> {
        let (n, numbers) = (target.numel(), prediction.to_f64());
        let wrong = |why: &str| {
            let (p, y) = (prediction.ty(), target.ty());
            Error::Input(format!("metrics of classes: {why}; predictions are {p}, targets {y}"))
        };
        if n == 0 || !numbers.len().is_multiple_of(n) {
            return Err(wrong("expected logits [N, C] and class numbers [N], or one logit per target"));
        }
        let classes = numbers.len() / n;
        let scores: Vec<f64> = if classes == 1 {
            numbers.iter().flat_map(|&logit| [0.0, logit]).collect()
        } else {
            // The classes of a target are along axis 1, or the last axis if the other axes are joined.
            let axes = prediction.shape();
            let inner = match target.shape().split_first() {
                Some((&first, rest)) if axes[0] == first && axes.len() == rest.len() + 2 && axes[1] == classes => {
                    rest.iter().product::<usize>()
                }
                _ if axes.last() == Some(&classes) => 1,
                _ => return Err(wrong("expected the classes along axis 1")),
            };
            let place = |i: usize, class: usize| (i / inner * classes + class) * inner + i % inner;
            (0..n * classes).map(|at| numbers[place(at / classes, at % classes)]).collect()
        };
        let classes = classes.max(2);
        let target_of = |x: f64| match x >= 0.0 && x < classes as f64 && x.fract() == 0.0 {
            true => Ok(x as usize),
            false => Err(wrong(&format!("{x} is not a class number below {classes}"))),
        };
        let targets = target.to_f64().into_iter().map(target_of).collect::<Result<_>>()?;
        Ok(Classes { scores, targets, classes })
    }

    fn scores(&self, i: usize) -> &[f64] {
        &self.scores[i * self.classes..(i + 1) * self.classes]
    }

    /// The number of classes that are ranked before the target.
    fn rank(&self, i: usize) -> usize {
        let (scores, target) = (self.scores(i), self.targets[i]);
        let own = scores[target];
        // A NaN score is never found.
        if own.is_nan() {
            return scores.len();
        }
        scores.iter().enumerate().filter(|&(class, &x)| x > own || (x == own && class < target) || x.is_nan()).count()
    }

    /// The class with the largest score. A row with NaN is wrong whatever its target.
    pub fn predicted(&self, i: usize) -> i32 {
        if self.scores(i).iter().any(|score| score.is_nan()) {
            return ((self.targets[i] + 1) % self.classes) as i32;
        }
        let best =
            self.scores(i).iter().enumerate().fold((0, f64::NEG_INFINITY), |best, (class, &score)| {
                if score > best.1 { (class, score) } else { best }
            });
        best.0 as i32
    }

    pub fn target(&self, i: usize) -> usize {
        self.targets[i]
    }

    /// `-log softmax` of the target.
    pub fn cross_entropy(&self, i: usize) -> f64 {
        self.cross_entropy_of(i, self.targets[i])
    }

    /// `-log softmax` of a class.
    pub fn cross_entropy_of(&self, i: usize, class: usize) -> f64 {
        let scores = self.scores(i);
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|x| (x - most).exp()).sum();
        most + sum.ln() - scores[class]
    }
}

impl Meter {
    /// A meter for these metrics.
    pub fn new(metrics: &[Metric]) -> Meter {
        let tally = |metric: &Metric| Tally {
            metric: metric.clone(),
            sum: 0.0,
            rows: 0.0,
            predictions: Vec::new(),
            targets: Vec::new(),
        };
        use Metric::{Accuracy, F1, Perplexity, Precision, Recall, RocAuc, TopK};
        let counts = |m: &Metric| matches!(m, Accuracy | F1 | Precision | Recall);
        let classes = |m: &Metric| counts(m) || matches!(m, TopK(_) | Perplexity | RocAuc);
        Meter {
            metrics: metrics.iter().map(tally).collect(),
            confusion: metrics.iter().any(counts).then(Confusion::default),
            uses_classes: metrics.iter().any(classes),
        }
    }

    /// Adds a batch.
    ///
    /// # Errors
    /// If predictions and targets do not fit each other or a metric.
    pub fn add(&mut self, prediction: &Tensor, target: &Tensor) -> Result<()> {
        self.add_batch(prediction, target).map(drop)
    }

    /// As [`Meter::add`]; returns the scores of the classes if a metric uses them.
    pub(super) fn add_batch(&mut self, prediction: &Tensor, target: &Tensor) -> Result<Option<Classes>> {
        let classes = if self.uses_classes { Some(Classes::new(prediction, target)?) } else { None };
        if let (Some(confusion), Some(batch)) = (&mut self.confusion, &classes) {
            confusion.classes = confusion.classes.max(batch.classes);
            confusion.predicted.extend((0..batch.targets.len()).map(|i| batch.predicted(i)));
            confusion.actual.extend(batch.targets.iter().map(|&class| class as i32));
        }
        for tally in &mut self.metrics {
            tally.add(prediction, target, classes.as_ref())?;
        }
        Ok(classes)
    }

    /// The names and values of the metrics, in the order in which they were given.
    ///
    /// # Errors
    /// If a metric is undefined for the collected data; see [`roc_auc`] and [`r2_score`](crate::data::r2_score).
    pub fn values(&self) -> Result<Vec<(String, f64)>> {
        let confusion = self.confusion();
        self.metrics.iter().map(|tally| Ok((tally.metric.name(), tally.value(confusion.as_ref())?))).collect()
    }

    /// The confusion matrix, if a metric counts classes.
    pub fn confusion(&self) -> Option<ConfusionMatrix> {
        let Confusion { classes, predicted, actual } = self.confusion.as_ref()?;
        let column = |numbers: &[i32]| Tensor::new([numbers.len()], numbers.to_vec());
        ConfusionMatrix::new(&column(predicted).ok()?, &column(actual).ok()?, *classes).ok()
    }
}

impl Tally {
    fn add(&mut self, prediction: &Tensor, target: &Tensor, classes: Option<&Classes>) -> Result<()> {
        let numbers = || match prediction.numel() == target.numel() {
            true => Ok(prediction.to_f64().into_iter().zip(target.to_f64())),
            false => Err(Error::Input(format!(
                "{}: predictions {} and targets {} need equally many elements",
                self.metric.name(),
                prediction.ty(),
                target.ty()
            ))),
        };
        let mut rows = target.numel() as f64;
        match (&self.metric, classes) {
            (Metric::TopK(k), Some(batch)) => {
                self.sum += (0..batch.targets.len()).filter(|&i| batch.rank(i) < *k).count() as f64;
            }
            (Metric::Perplexity, Some(batch)) => {
                self.sum += (0..batch.targets.len()).map(|i| batch.cross_entropy(i)).sum::<f64>();
            }
            (Metric::RocAuc, Some(batch)) => {
                if batch.classes != 2 {
                    let why = format!("the ROC AUC needs two classes, not {}", batch.classes);
                    return Err(Error::Input(why));
                }
                self.predictions.extend(batch.scores.chunks(2).map(|scores| scores[1] - scores[0]));
                self.targets.extend(batch.targets.iter().map(|&class| class as f64));
            }
            (Metric::Mae, _) => self.sum += numbers()?.map(|(p, y)| (p - y).abs()).sum::<f64>(),
            (Metric::Rmse, _) => self.sum += numbers()?.map(|(p, y)| (p - y).powi(2)).sum::<f64>(),
            (Metric::R2, _) => {
                let (predictions, targets): (Vec<f64>, Vec<f64>) = numbers()?.unzip();
                self.predictions.extend(predictions);
                self.targets.extend(targets);
            }
            (Metric::Mean(custom), _) => {
                rows = target.shape().first().map_or(1, |&rows| rows) as f64;
                self.sum += (custom.of_batch)(prediction, target)? * rows;
            }
            _ => {} // counted by the confusion matrix
        }
        self.rows += rows;
        Ok(())
    }

    fn value(&self, confusion: Option<&ConfusionMatrix>) -> Result<f64> {
        let column = |numbers: &[f64]| Tensor::new([numbers.len()], numbers.to_vec());
        let mean = self.sum / self.rows;
        Ok(match (&self.metric, confusion) {
            (Metric::Accuracy, Some(matrix)) => matrix.accuracy(),
            (Metric::Precision, Some(matrix)) => over_classes(matrix, |class| matrix.precision(class)),
            (Metric::Recall, Some(matrix)) => over_classes(matrix, |class| matrix.recall(class)),
            (Metric::F1, Some(matrix)) => over_classes(matrix, |class| {
                let (precision, recall) = (matrix.precision(class), matrix.recall(class));
                // Without a prediction of the class, nothing of it was found.
                if recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
            }),
            (Metric::RocAuc, _) => roc_auc(&column(&self.predictions)?, &column(&self.targets)?.cast(DType::I32))?,
            (Metric::R2, _) => crate::data::r2_score(&column(&self.predictions)?, &column(&self.targets)?)?,
            (Metric::Rmse, _) => mean.sqrt(),
            (Metric::Perplexity, _) => mean.exp(),
            _ => mean,
        })
    }
}

/// For two classes, the value of class 1; otherwise the mean of those that are defined.
fn over_classes(matrix: &ConfusionMatrix, of: impl Fn(usize) -> f64) -> f64 {
    if matrix.classes() == 2 {
        return of(1);
    }
    let values: Vec<f64> = (0..matrix.classes()).map(of).filter(|value| !value.is_nan()).collect();
    values.iter().sum::<f64>() / values.len() as f64
}
