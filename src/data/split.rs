//! Training and test splits.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;

use super::batches::seeded;
use super::classes::numbers;
use crate::{Error, Result, Tensor};

/// Row numbers of the two parts of a data set, ascending, for [`Tensor::rows`].
///
/// ```
/// use wgrad::{Tensor, data::Split};
/// let labels = Tensor::new([10], [0, 0, 0, 0, 0, 0, 0, 0, 1, 1])?;
/// let split = Split::stratified(&labels, 0.5, 42)?;
/// let ones = |rows: &[usize]| rows.iter().filter(|&&row| row >= 8).count();
/// assert_eq!((split.train.len(), ones(&split.train)), (5, 1));
/// assert_eq!((split.test.len(), ones(&split.test)), (5, 1));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Rows to train on.
    pub train: Vec<usize>,
    /// Rows to test with: never used for training, nor to fit a [`Scaler`](super::Scaler).
    pub test: Vec<usize>,
}

impl Split {
    /// Splits `rows` rows at random; `test_share` is the fraction of test rows.
    ///
    /// # Errors
    /// If one of the parts would be empty.
    pub fn random(rows: usize, test_share: f64, seed: u64) -> Result<Split> {
        Split::of(vec![(0..rows).collect()], test_share, seed)
    }

    /// [`Split::random`] with the same class proportions in both parts, as far as possible: test rows are
    /// allocated to the classes by largest remainders. `labels` are class numbers `[rows]`.
    ///
    /// # Errors
    /// If one of the parts would be empty, or a label is not a class number.
    pub fn stratified(labels: &Tensor, test_share: f64, seed: u64) -> Result<Split> {
        let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, class) in numbers(labels)?.into_iter().enumerate() {
            classes.entry(class).or_default().push(row);
        }
        Split::of(classes.into_values().collect(), test_share, seed)
    }

    fn of(groups: Vec<Vec<usize>>, test_share: f64, seed: u64) -> Result<Split> {
        let rows: usize = groups.iter().map(Vec::len).sum();
        let wanted = (rows as f64 * test_share).round();
        if !(wanted >= 1.0 && wanted < rows as f64) {
            let why = format!(
                "a share of {test_share} of {rows} rows leaves one part empty; expected a share between 0 and 1, and \
                 enough rows"
            );
            return Err(Error::Input(why));
        }
        let quotas = groups.iter().map(|group| group.len() as f64 * test_share);
        let mut counts: Vec<usize> = quotas.clone().map(|quota| quota as usize).collect();
        let mut by_remainder: Vec<(usize, f64)> = quotas.map(f64::fract).enumerate().collect();
        by_remainder.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable: equal remainders in the classes' order
        let missing = (wanted as usize).saturating_sub(counts.iter().sum());
        for (group, _) in by_remainder.into_iter().take(missing) {
            counts[group] += 1;
        }
        let mut rng = seeded(seed, 0);
        let mut split = Split { train: Vec::new(), test: Vec::new() };
        for (mut group, count) in groups.into_iter().zip(counts) {
            group.shuffle(&mut rng);
            let (test, train) = group.split_at(count.min(group.len()));
            split.test.extend(test);
            split.train.extend(train);
        }
        split.train.sort_unstable();
        split.test.sort_unstable();
        Ok(split)
    }
}
