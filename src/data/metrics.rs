//! Metrics: how good predictions are.

use std::fmt;

use super::classes::{numbers_below, size};
use crate::{Error, Result, Tensor};

/// Counts of predictions: actual classes in rows, predicted classes in columns.
///
/// ```
/// use wgrad::{Tensor, data::ConfusionMatrix};
/// let labels = Tensor::new([5], [0, 0, 0, 1, 1])?;
/// let predicted = Tensor::new([5], [0, 0, 1, 1, 0])?;
/// let matrix = ConfusionMatrix::new(&predicted, &labels, 2)?;
/// assert_eq!(matrix.count(0, 1), 1); // a row of class 0, predicted as 1
/// assert_eq!(matrix.accuracy(), 0.6);
/// assert_eq!((matrix.recall(0), matrix.precision(1)), (2.0 / 3.0, 0.5));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<usize>,
}

impl ConfusionMatrix {
    /// From two tensors of class numbers, of the same length.
    ///
    /// # Errors
    /// If a number is not an integer from 0 to `classes - 1`, or the lengths differ.
    pub fn new(predicted: &Tensor, labels: &Tensor, classes: usize) -> Result<ConfusionMatrix> {
        same_length(predicted, labels)?;
        let mut counts = vec![0; size(classes, classes)?];
        for (p, l) in numbers_below(predicted, classes)?.into_iter().zip(numbers_below(labels, classes)?) {
            counts[l * classes + p] += 1;
        }
        Ok(ConfusionMatrix { classes, counts })
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How often a row of class `label` was predicted as `predicted`; 0 for classes that do not exist.
    pub fn count(&self, label: usize, predicted: usize) -> usize {
        let inside = label < self.classes && predicted < self.classes;
        if inside { self.counts[label * self.classes + predicted] } else { 0 }
    }

    /// The fraction of rows that were predicted correctly; NaN without rows.
    pub fn accuracy(&self) -> f64 {
        let right: usize = (0..self.classes).map(|class| self.count(class, class)).sum();
        right as f64 / self.counts.iter().sum::<usize>() as f64
    }

    /// The fraction of the rows of a class that were found; NaN if there are none.
    pub fn recall(&self, class: usize) -> f64 {
        let all: usize = (0..self.classes).map(|predicted| self.count(class, predicted)).sum();
        self.count(class, class) as f64 / all as f64
    }

    /// The fraction of the rows predicted as a class that belong to it; NaN if there are none.
    pub fn precision(&self, class: usize) -> f64 {
        let all: usize = (0..self.classes).map(|label| self.count(label, class)).sum();
        self.count(class, class) as f64 / all as f64
    }
}

/// A row for each class, with its counts per predicted class.
impl fmt::Display for ConfusionMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is \\ predicted")?;
        (0..self.classes).try_for_each(|class| write!(f, "{class:>6}"))?;
        for label in 0..self.classes {
            write!(f, "\n{label:>14}")?;
            (0..self.classes).try_for_each(|predicted| write!(f, "{:>6}", self.count(label, predicted)))?;
        }
        Ok(())
    }
}

fn same_length(a: &Tensor, b: &Tensor) -> Result<()> {
    match a.numel() == b.numel() {
        true => Ok(()),
        false => Err(Error::Input(format!("there are {} predictions for {} rows", a.numel(), b.numel()))),
    }
}

/// The fraction of predictions that equal their label.
///
/// # Errors
/// If the lengths differ or are 0.
pub fn accuracy(predicted: &Tensor, labels: &Tensor) -> Result<f64> {
    same_length(predicted, labels)?;
    if labels.numel() == 0 {
        return Err(Error::Input("accuracy needs at least one prediction".into()));
    }
    let right = predicted.to_f64().iter().zip(labels.to_f64()).filter(|(p, l)| **p == *l).count();
    Ok(right as f64 / labels.numel() as f64)
}

/// Scores and labels, by increasing score.
fn sorted(scores: &Tensor, labels: &Tensor) -> Result<Vec<(f64, usize)>> {
    same_length(scores, labels)?;
    let mut scored: Vec<(f64, usize)> = scores.to_f64().into_iter().zip(numbers_below(labels, 2)?).collect();
    if scored.iter().any(|(score, _)| score.is_nan()) {
        return Err(Error::Input("a score is NaN".into()));
    }
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(scored)
}

/// The area under the ROC curve: the probability that a row of class 1 scores above a row of class 0, where
/// ties count half (J. A. Hanley and B. J. McNeil, Radiology 143, 1982).
///
/// ```
/// use wgrad::{Tensor, data::roc_auc};
/// let scores = Tensor::new([4], [0.1, 0.4, 0.35, 0.8])?;
/// assert_eq!(roc_auc(&scores, &Tensor::new([4], [0, 0, 1, 1])?)?, 0.75);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If a label is neither 0 nor 1, one of the two is absent, a score is NaN, or the lengths differ.
pub fn roc_auc(scores: &Tensor, labels: &Tensor) -> Result<f64> {
    let scored = sorted(scores, labels)?;
    // `won`: pairs in which the 1 scores higher; `below`: zeros with a smaller score.
    let (mut won, mut below, mut ones) = (0.0, 0.0, 0.0);
    for tied in scored.chunk_by(|a, b| a.0 == b.0) {
        let one = tied.iter().filter(|(_, label)| *label == 1).count() as f64;
        let zero = tied.len() as f64 - one;
        won += one * (below + 0.5 * zero);
        below += zero;
        ones += one;
    }
    match below * ones > 0.0 {
        true => Ok(won / (below * ones)),
        false => Err(Error::Input("the area under the curve needs rows of class 0 and of class 1".into())),
    }
}

/// The precision-recall curve: recall and precision if the rows with at least a certain score are predicted as class 1,
/// for each score that occurs, from the highest.
///
/// ```
/// use wgrad::{Tensor, data::precision_recall_curve};
/// let scores = Tensor::new([4], [0.1, 0.4, 0.35, 0.8])?;
/// let curve = precision_recall_curve(&scores, &Tensor::new([4], [0, 0, 1, 1])?)?;
/// assert_eq!(curve, [(0.5, 1.0), (0.5, 0.5), (1.0, 2.0 / 3.0), (1.0, 0.5)]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If a label is neither 0 nor 1, there is no 1, a score is NaN, or the lengths differ.
pub fn precision_recall_curve(scores: &Tensor, labels: &Tensor) -> Result<Vec<(f64, f64)>> {
    let scored = sorted(scores, labels)?;
    let all = scored.iter().filter(|(_, label)| *label == 1).count();
    if all == 0 {
        return Err(Error::Input("recall needs rows of class 1".into()));
    }
    let (mut found, mut predicted) = (0, 0);
    let points = scored.chunk_by(|a, b| a.0 == b.0).rev().map(|tied| {
        found += tied.iter().filter(|(_, label)| *label == 1).count();
        predicted += tied.len();
        (found as f64 / all as f64, found as f64 / predicted as f64)
    });
    Ok(points.collect())
}

/// The area under the [`precision_recall_curve`] as a sum of steps: each increase of the recall times the precision
/// there. A score that does not depend on the class has the share of class 1 on average.
///
/// ```
/// use wgrad::{Tensor, data::average_precision};
/// let labels = Tensor::new([4], [0, 0, 1, 1])?;
/// assert_eq!(average_precision(&Tensor::new([4], [0.1, 0.4, 0.35, 0.8])?, &labels)?, 0.5 + 0.5 * 2.0 / 3.0);
/// assert_eq!(average_precision(&Tensor::new([4], [0.5; 4])?, &labels)?, 0.5);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// As [`precision_recall_curve`].
pub fn average_precision(scores: &Tensor, labels: &Tensor) -> Result<f64> {
    let mut before = 0.0;
    let area = |(recall, precision): (f64, f64)| (recall - std::mem::replace(&mut before, recall)) * precision;
    Ok(precision_recall_curve(scores, labels)?.into_iter().map(area).sum())
}

/// The coefficient of determination, which is the fraction of the targets' variance that the predictions
/// explain: `1 - sum((y - p)^2) / sum((y - mean)^2)`. 1 is perfect, 0 is as good as predicting the mean, and it
/// may be negative.
///
/// # Errors
/// If the targets are constant, or the lengths differ.
pub fn r2_score(predicted: &Tensor, targets: &Tensor) -> Result<f64> {
    same_length(predicted, targets)?;
    let targets = targets.to_f64();
    let mean = targets.iter().sum::<f64>() / targets.len() as f64;
    let total: f64 = targets.iter().map(|y| (y - mean).powi(2)).sum();
    let left: f64 = targets.iter().zip(predicted.to_f64()).map(|(y, p)| (y - p).powi(2)).sum();
    match total > 0.0 {
        true => Ok(1.0 - left / total),
        false => Err(Error::Input("R2 is undefined for constant targets".into())),
    }
}
