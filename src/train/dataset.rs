//! Data sets: rows of named tensors.

use std::collections::BTreeMap;

use crate::data::{Augment, Digits, TextWindows};
use crate::io::safetensors::RowFile;
use crate::{Error, Result, Tensor};

/// A batch: tensors by name, whose first axes are its rows. [`Trainer::new`](super::Trainer::new) expects `x`, the
/// model's input, and `y`, the target.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::train::{Batch, Dataset};
/// let data = Batch::from([("x".to_owned(), Tensor::new([3, 1], [1.0f32, 2.0, 3.0])?)]);
/// assert_eq!((Dataset::len(&data), data.batch(&[2, 0], 0)?["x"].to_f32()), (3, vec![3.0, 1.0]));
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Batch = BTreeMap<String, Tensor>;

/// Rows that a [`Trainer`](super::Trainer) trains on.
///
/// Implemented by pairs of tensors `(x, y)`, a single tensor `x`, [`Digits`], named tensors, windows of a text
/// ([`TextWindows`]), safetensors files of any size ([`RowFile`]), and [`FromFn`] for everything else, such as files that
/// are read and decoded when needed. For lines of text, see [`TextLines`](crate::data::TextLines).
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::train::Dataset;
/// let x = Tensor::new([3, 2], [0.0f32, 0.1, 1.0, 1.1, 2.0, 2.1])?;
/// let y = Tensor::new([3], [0, 1, 0])?;
/// let data = (x, y);
/// assert_eq!(data.len(), 3);
/// assert_eq!(data.batch(&[2], 0)?["x"].to_f32(), [2.0, 2.1]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Dataset: Sync {
    /// The number of rows.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows with these numbers, in this order. `step` counts the batches of the whole training, and seeds random
    /// changes: the result must be a function of `rows` and `step` alone, so that a resumed training sees the same
    /// batches, whatever the number of worker threads.
    ///
    /// # Errors
    /// If a row does not exist or cannot be read.
    fn batch(&self, rows: &[usize], step: u64) -> Result<Batch>;

    /// The same rows, changed by a function of batch and step: scaling, other types, computed targets. It runs on the
    /// worker threads.
    ///
    /// ```
    /// use wgrad::Tensor;
    /// use wgrad::train::Dataset;
    /// // An autoencoder predicts its input.
    /// let data = Tensor::new([2, 3], [0.0f32; 6])?.map(|mut batch, _step| {
    ///     batch.insert("y".into(), batch["x"].clone());
    ///     Ok(batch)
    /// });
    /// assert_eq!(data.batch(&[0], 1)?["y"].numel(), 3);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    fn map<F: Fn(Batch, u64) -> Result<Batch> + Sync>(self, change: F) -> Map<Self, F>
    where
        Self: Sized,
    {
        Map { inner: self, change }
    }

    /// The same rows with random changes of the images `x`, other ones at each step. They are made on the worker
    /// threads.
    ///
    /// ```
    /// use wgrad::Tensor;
    /// use wgrad::data::Augment;
    /// use wgrad::train::Dataset;
    /// let data = Tensor::new([1, 1, 2, 2], [1.0f32, 2.0, 3.0, 4.0])?.augment(Augment::new(7).flip());
    /// let first: Vec<f32> = (0..9).map(|step| Ok(data.batch(&[0], step)?["x"].to_f32()[0])).collect::<wgrad::Result<_>>()?;
    /// assert!(first.contains(&1.0) && first.contains(&2.0));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    fn augment(self, augment: Augment) -> Augmented<Self>
    where
        Self: Sized,
    {
        Augmented { inner: self, augment }
    }
}

/// See [`Dataset::augment`]. Example: [`Map`].
#[derive(Clone, Debug)]
pub struct Augmented<D> {
    inner: D,
    augment: Augment,
}

impl<D: Dataset> Dataset for Augmented<D> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn batch(&self, rows: &[usize], step: u64) -> Result<Batch> {
        let mut batch = self.inner.batch(rows, step)?;
        let images = batch.get_mut("x").ok_or_else(|| Error::Input("augment: the batch has no images `x`".into()))?;
        *images = self.augment.apply(images, step)?;
        Ok(batch)
    }
}

/// See [`Dataset::map`].
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::train::Dataset;
/// let data = Tensor::new([2], [1.0f32, 2.0])?.map(|mut batch, _step| {
///     let doubled: Vec<f32> = batch["x"].to_f32().iter().map(|x| 2.0 * x).collect();
///     batch.insert("x".into(), Tensor::new([doubled.len()], doubled)?);
///     Ok(batch)
/// });
/// assert_eq!(data.batch(&[1], 0)?["x"].to_f32(), [4.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Map<D, F> {
    inner: D,
    change: F,
}

impl<D: Dataset, F: Fn(Batch, u64) -> Result<Batch> + Sync> Dataset for Map<D, F> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn batch(&self, rows: &[usize], step: u64) -> Result<Batch> {
        (self.change)(self.inner.batch(rows, step)?, step)
    }
}

/// A data set from its number of rows and a function.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::train::{Batch, Dataset, FromFn};
/// // The squares of the row numbers.
/// let squares = FromFn::new(100, |rows, _step| {
///     let column = |f: fn(f64) -> f64| {
///         Tensor::new([rows.len(), 1], rows.iter().map(|&row| f(row as f64) as f32).collect::<Vec<_>>())
///     };
///     Ok(Batch::from([("x".into(), column(|x| x)?), ("y".into(), column(|x| x * x)?)]))
/// });
/// assert_eq!(squares.batch(&[3, 9], 0)?["y"].to_f32(), [9.0, 81.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FromFn<F> {
    rows: usize,
    function: F,
}

impl<F: Fn(&[usize], u64) -> Result<Batch> + Sync> FromFn<F> {
    /// `function` returns the rows with these numbers; see [`Dataset::batch`].
    pub fn new(rows: usize, function: F) -> FromFn<F> {
        FromFn { rows, function }
    }
}

impl<F: Fn(&[usize], u64) -> Result<Batch> + Sync> Dataset for FromFn<F> {
    fn len(&self) -> usize {
        self.rows
    }

    fn batch(&self, rows: &[usize], step: u64) -> Result<Batch> {
        (self.function)(rows, step)
    }
}

impl<D: Dataset + ?Sized> Dataset for &D {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn batch(&self, rows: &[usize], step: u64) -> Result<Batch> {
        (**self).batch(rows, step)
    }
}

/// The number of rows of tensors that must have equally many.
fn common_rows<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<usize> {
    let mut first: Option<(&str, usize)> = None;
    for (name, tensor) in tensors {
        let Some(&rows) = tensor.shape().first() else {
            return Err(Error::Input(format!("`{name}` is a scalar; a data set needs rows along the first axis")));
        };
        match first {
            Some((other, expected)) if expected != rows => {
                return Err(Error::Input(format!("`{other}` has {expected} rows, but `{name}` has {rows}")));
            }
            _ => first = Some((name, rows)),
        }
    }
    Ok(first.map_or(0, |(_, rows)| rows))
}

/// The rows of each tensor.
fn rows_of<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)> + Clone, rows: &[usize]) -> Result<Batch> {
    common_rows(tensors.clone())?;
    tensors.into_iter().map(|(name, tensor)| Ok((name.to_owned(), tensor.rows(rows)?))).collect()
}

/// The input `x`, without a target.
impl Dataset for Tensor {
    fn len(&self) -> usize {
        self.shape().first().copied().unwrap_or(0)
    }

    fn batch(&self, rows: &[usize], _: u64) -> Result<Batch> {
        rows_of([("x", self)], rows)
    }
}

/// The input `x` and the target `y`.
impl Dataset for (Tensor, Tensor) {
    fn len(&self) -> usize {
        Dataset::len(&self.0)
    }

    fn batch(&self, rows: &[usize], _: u64) -> Result<Batch> {
        rows_of([("x", &self.0), ("y", &self.1)], rows)
    }
}

/// The images as `x`, the labels as `y`.
impl Dataset for Digits {
    fn len(&self) -> usize {
        Digits::len(self)
    }

    fn batch(&self, rows: &[usize], _: u64) -> Result<Batch> {
        rows_of([("x", &self.images), ("y", &self.labels)], rows)
    }
}

/// The windows as `x`, the same one step later as `y`.
impl Dataset for TextWindows {
    fn len(&self) -> usize {
        TextWindows::len(self)
    }

    fn batch(&self, rows: &[usize], _: u64) -> Result<Batch> {
        let (x, y) = self.windows(rows)?;
        Ok(Batch::from([("x".to_owned(), x), ("y".to_owned(), y)]))
    }
}

/// The tensors of the file, by name, read when they are needed.
impl Dataset for RowFile {
    fn len(&self) -> usize {
        RowFile::len(self)
    }

    fn batch(&self, rows: &[usize], _: u64) -> Result<Batch> {
        self.read(rows)
    }
}

/// The images as `x`, their classes as `y`.
#[cfg(feature = "images")]
impl Dataset for crate::data::ImageFolder {
    fn len(&self) -> usize {
        crate::data::ImageFolder::len(self)
    }

    fn batch(&self, rows: &[usize], _: u64) -> Result<Batch> {
        let (images, labels) = self.load(rows)?;
        Ok(Batch::from([("x".to_owned(), images), ("y".to_owned(), labels)]))
    }
}

/// Named tensors with equally many rows.
impl Dataset for BTreeMap<String, Tensor> {
    fn len(&self) -> usize {
        self.values().next().map_or(0, Dataset::len)
    }

    fn batch(&self, rows: &[usize], _: u64) -> Result<Batch> {
        rows_of(self.iter().map(|(name, tensor)| (name.as_str(), tensor)), rows)
    }
}
