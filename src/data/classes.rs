//! Class numbers: one-hot encoding, and balancing of unequal classes.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::batches::seeded;
use crate::{Data, Error, Result, Shape, Tensor};

/// The elements of an integer tensor; negative ones are an error.
pub(super) fn numbers(labels: &Tensor) -> Result<Vec<usize>> {
    let complain = |why: String| Err(Error::Input(format!("expected class numbers as i32 or u32, {why}")));
    match labels.data() {
        Data::U32(v) => Ok(v.iter().map(|&class| class as usize).collect()),
        Data::I32(v) => match v.iter().find(|&&class| class < 0) {
            Some(class) => complain(format!("none below 0; found {class}")),
            None => Ok(v.iter().map(|&class| class as usize).collect()),
        },
        _ => complain(format!("found {}", labels.ty())),
    }
}

/// [`numbers`], all below `classes`.
pub(super) fn numbers_below(labels: &Tensor, classes: usize) -> Result<Vec<usize>> {
    let numbers = numbers(labels)?;
    match numbers.iter().find(|&&class| class >= classes) {
        Some(class) => Err(Error::Input(format!("class {class} is not one of {classes}, which are numbered from 0"))),
        None => Ok(numbers),
    }
}

/// `rows * classes`, if a tensor may have that size.
pub(super) fn size(rows: usize, classes: usize) -> Result<usize> {
    let size = rows.checked_mul(classes).filter(|&size| size < 1 << 31);
    size.ok_or_else(|| Error::Input(format!("{rows} rows of {classes} classes are 2^31 numbers or more")))
}

/// One-hot encoding: 1 at each class's number and 0 elsewhere, `[..]` to `f32[.., classes]`.
///
/// ```
/// use wgrad::{Tensor, data::one_hot};
/// let y = one_hot(&Tensor::new([2], [2, 0])?, 3)?;
/// assert_eq!(y, Tensor::new([2, 3], [0.0f32, 0.0, 1.0, 1.0, 0.0, 0.0])?);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// When a label is not an integer from 0 to `classes - 1`.
pub fn one_hot(labels: &Tensor, classes: usize) -> Result<Tensor> {
    let numbers = numbers_below(labels, classes)?;
    let mut hot = vec![0f32; size(numbers.len(), classes)?];
    for (row, class) in numbers.into_iter().enumerate() {
        hot[row * classes + class] = 1.0;
    }
    let shape: Shape = labels.shape().iter().copied().chain([classes]).collect();
    Tensor::new(shape, hot)
}

/// Weights with which all classes count equally in a loss: `rows / (classes * rows of the class)`, f32
/// `[classes]` (G. King and L. Zeng, *Logistic regression in rare events data*, 2001). See
/// [`ClassLoss`](crate::loss::ClassLoss).
///
/// ```
/// use wgrad::{Tensor, data::class_weights};
/// let weights = class_weights(&Tensor::new([4], [0, 0, 0, 1])?, 2)?;
/// assert_eq!(weights.to_f64(), [4.0f32 / 6.0, 2.0].map(f64::from));
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// When a class has no rows, or a label is not an integer from 0 to `classes - 1`.
pub fn class_weights(labels: &Tensor, classes: usize) -> Result<Tensor> {
    let numbers = numbers_below(labels, classes)?;
    let mut counts = vec![0usize; size(1, classes)?];
    for &class in &numbers {
        counts[class] += 1;
    }
    if let Some(absent) = counts.iter().position(|&count| count == 0) {
        return Err(Error::Input(format!("class {absent} has no rows, so it cannot be weighted")));
    }
    let weight = |&count: &usize| (numbers.len() as f64 / (classes * count) as f64) as f32;
    Tensor::new([classes], counts.iter().map(weight).collect::<Vec<_>>())
}

/// Shuffled row numbers in which all classes are as frequent as the most frequent one: every row, and randomly
/// repeated rows of the rarer classes. Only for the training split: copies of a row in both parts of a split
/// would invalidate the test.
///
/// # Errors
/// When a label is not an integer of at least 0.
pub fn over_sample(labels: &Tensor, seed: u64) -> Result<Vec<usize>> {
    sample(labels, seed, |classes| classes.max().unwrap_or(0))
}

/// Shuffled row numbers in which all classes are as rare as the rarest one, drawn without repetition.
///
/// # Errors
/// When a label is not an integer of at least 0.
pub fn under_sample(labels: &Tensor, seed: u64) -> Result<Vec<usize>> {
    sample(labels, seed, |classes| classes.min().unwrap_or(0))
}

/// Equally many rows of each class; `size` computes that number from the classes' row counts.
fn sample(labels: &Tensor, seed: u64, size: impl Fn(&mut dyn Iterator<Item = usize>) -> usize) -> Result<Vec<usize>> {
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, class) in numbers(labels)?.into_iter().enumerate() {
        classes.entry(class).or_default().push(row);
    }
    let size = size(&mut classes.values().map(Vec::len));
    let mut rng: StdRng = seeded(seed, 0);
    let mut sampled = Vec::with_capacity(size * classes.len());
    for mut rows in classes.into_values() {
        rows.shuffle(&mut rng);
        let again: Vec<usize> = (rows.len()..size).map(|_| rows[rng.random_range(0..rows.len())]).collect();
        sampled.extend(rows.into_iter().take(size).chain(again));
    }
    sampled.shuffle(&mut rng);
    Ok(sampled)
}
