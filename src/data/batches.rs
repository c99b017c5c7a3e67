//! Batches of rows, in order or shuffled by a seed.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::tensor::map_data;
use crate::{Error, Result, Shape, Tensor};

/// Splits the rows of a data set into batches. The last batch of an epoch holds the remaining rows and may be
/// smaller; no row is dropped, unless [`Batches::drop_last`] says so.
///
/// ```
/// use wgrad::data::Batches;
/// let batches = Batches::new(5, 2)?;
/// let rows: Vec<Vec<usize>> = batches.epoch(0).collect();
/// assert_eq!(rows, [vec![0, 1], vec![2, 3], vec![4]]);
///
/// let shuffled = batches.shuffled(7);
/// assert!(shuffled.epoch(0).eq(shuffled.epoch(0))); // the same seed and epoch: the same order
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batches {
    rows: usize,
    size: usize,
    seed: Option<u64>,
    drop_last: bool,
}

impl Batches {
    /// Batches of `size` out of `rows` rows, in order.
    ///
    /// # Errors
    /// When `size` is 0.
    pub fn new(rows: usize, size: usize) -> Result<Batches> {
        if size == 0 {
            return Err(Error::Input("a batch has at least one row, not 0".into()));
        }
        Ok(Batches { rows, size, seed: None, drop_last: false })
    }

    /// Shuffles the rows for each epoch: the order is a function of seed and epoch alone.
    pub fn shuffled(self, seed: u64) -> Batches {
        Batches { seed: Some(seed), ..self }
    }

    /// Leaves out the last batch of an epoch if it is smaller than the others. (Shuffled, other rows are left out in each
    /// epoch.)
    pub fn drop_last(self) -> Batches {
        Batches { drop_last: true, ..self }
    }

    /// The number of batches in an epoch.
    pub fn count(&self) -> usize {
        if self.drop_last { self.rows / self.size } else { self.rows.div_ceil(self.size) }
    }

    /// The row numbers of each batch of this epoch.
    pub fn epoch(&self, epoch: u64) -> impl ExactSizeIterator<Item = Vec<usize>> + use<> {
        let mut order: Vec<usize> = (0..self.rows).collect();
        if let Some(seed) = self.seed {
            order.shuffle(&mut seeded(seed, epoch));
        }
        let (count, size) = (self.count(), self.size);
        (0..count).map(move |batch| order[batch * size..order.len().min((batch + 1) * size)].to_vec())
    }
}

/// A generator keyed with seed and step, so that no two pairs share a stream.
pub(super) fn seeded(seed: u64, step: u64) -> StdRng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&step.to_le_bytes());
    StdRng::from_seed(key)
}

impl Tensor {
    /// The rows (slices along the first axis) with these numbers, in this order, as one tensor.
    ///
    /// ```
    /// use wgrad::Tensor;
    /// let x = Tensor::new([3, 2], [0, 1, 10, 11, 20, 21])?;
    /// assert_eq!(x.rows(&[2, 0])?, Tensor::new([2, 2], [20, 21, 0, 1])?);
    /// assert!(x.rows(&[3]).is_err());
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the tensor is a scalar, or has no such row.
    pub fn rows(&self, numbers: &[usize]) -> Result<Tensor> {
        let Some((&count, inner)) = self.shape().split_first() else {
            return Err(Error::Input(format!("rows() needs at least one axis, but the tensor is {}", self.ty())));
        };
        if let Some(number) = numbers.iter().find(|&&number| number >= count) {
            return Err(Error::Input(format!("there is no row {number} in {}", self.ty())));
        }
        let width = Shape::from(inner).numel();
        let shape: Shape = std::iter::once(numbers.len()).chain(inner.iter().copied()).collect();
        Tensor::new(shape, map_data!(self.data(), v => pick(v, numbers, width)))
    }
}

fn pick<T: Copy>(all: &[T], rows: &[usize], width: usize) -> Vec<T> {
    rows.iter().flat_map(|&row| &all[row * width..(row + 1) * width]).copied().collect()
}
