//! Transformations fitted to the columns of a training split, and applied to any other rows.

use crate::{Error, Result, Tensor};

/// The columns of `[rows, .., columns]`, in f64; a tensor of one axis is one column.
fn columns(x: &Tensor) -> Result<Vec<Vec<f64>>> {
    let width = width(x)?;
    let mut columns = vec![Vec::new(); width];
    for (at, value) in x.to_f64().into_iter().enumerate() {
        columns[at % width].push(value);
    }
    match columns.iter().all(Vec::is_empty) {
        true => Err(Error::Input(format!("there is nothing to learn from the columns of {}", x.ty()))),
        false => Ok(columns),
    }
}

fn width(x: &Tensor) -> Result<usize> {
    match x.shape()[..] {
        [] => Err(Error::Input(format!("expected columns [rows, columns], found {}", x.ty()))),
        [_] => Ok(1),
        [.., width] => Ok(width),
    }
}

/// Maps each element; `f` also gets the number of its column.
fn map(x: &Tensor, columns: usize, f: impl Fn(f64, usize) -> f64) -> Result<Tensor> {
    if width(x)? != columns {
        return Err(Error::Input(format!("was fitted to {columns} columns, but is applied to {}", x.ty())));
    }
    let mapped: Vec<f64> = x.to_f64().into_iter().enumerate().map(|(at, value)| f(value, at % columns)).collect();
    Tensor::new(x.shape().clone(), mapped)
}

fn mean(column: &[f64]) -> f64 {
    column.iter().sum::<f64>() / column.len() as f64
}

/// The middle value, or the mean of the two middle values.
fn median(column: &[f64]) -> f64 {
    let mut sorted = column.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { 0.5 * sorted[middle - 1] + 0.5 * sorted[middle] }
}

/// Shifts and scales each column: `(x - shift) / scale`. Both are computed from the training split, so that
/// nothing about the test rows leaks into the model. Columns are the last axis.
///
/// ```
/// use wgrad::{Tensor, data::Scaler};
/// let train = Tensor::new([2, 2], [1.0, 10.0, 3.0, 30.0])?;
/// let test = Tensor::new([1, 2], [4.0, 20.0])?;
/// let scaler = Scaler::standard(&train)?;
/// assert_eq!(scaler.apply(&train)?.to_f64(), [-1.0, -1.0, 1.0, 1.0]);
/// assert_eq!(scaler.apply(&test)?.to_f64(), [2.0, 0.0]);
/// assert_eq!(scaler.invert(&scaler.apply(&test)?)?, test);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    shift: Vec<f64>,
    scale: Vec<f64>,
}

impl Scaler {
    /// Scales to mean 0 and standard deviation 1 (the divisor is the number of rows). A constant column becomes
    /// 0.
    ///
    /// # Errors
    /// When there are no rows, or a column holds NaN, infinity, or numbers too large to square.
    pub fn standard(train: &Tensor) -> Result<Scaler> {
        Scaler::fit(train, |column| {
            let mean = mean(column);
            let squares: Vec<f64> = column.iter().map(|x| (x - mean).powi(2)).collect();
            (mean, self::mean(&squares).sqrt())
        })
    }

    /// Scales to the range from 0 (smallest) to 1 (largest). A constant column becomes 0.
    ///
    /// # Errors
    /// As [`Scaler::standard`].
    pub fn min_max(train: &Tensor) -> Result<Scaler> {
        Scaler::fit(train, |column| {
            let low = column.iter().copied().fold(f64::INFINITY, f64::min);
            let high = column.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (low, high - low)
        })
    }

    /// From the values of each column.
    ///
    /// # Errors
    /// If there are not equally many, one is not finite, or a scale is 0.
    pub fn new(shift: impl Into<Vec<f64>>, scale: impl Into<Vec<f64>>) -> Result<Scaler> {
        let (shift, scale) = (shift.into(), scale.into());
        let sound = shift.iter().all(|x| x.is_finite()) && scale.iter().all(|x| x.is_finite() && *x != 0.0);
        match sound && shift.len() == scale.len() {
            true => Ok(Scaler { shift, scale }),
            false => Err(Error::Input(format!(
                "expected equally many finite shifts and scales, and no scale of 0, found {shift:?} and {scale:?}"
            ))),
        }
    }

    fn fit(train: &Tensor, shift_and_scale: impl Fn(&[f64]) -> (f64, f64)) -> Result<Scaler> {
        let fit_one = |(number, column): (usize, &Vec<f64>)| {
            if column[0].is_finite() && column.iter().all(|x| *x == column[0]) {
                return Ok((column[0], 1.0));
            }
            let (shift, scale) = shift_and_scale(column);
            let usable = column.iter().all(|x| x.is_finite()) && shift.is_finite() && scale.is_normal();
            let why = "holds NaN, infinity, or numbers whose spread cannot be computed; an Imputer replaces NaN";
            usable.then_some((shift, scale)).ok_or_else(|| Error::Input(format!("column {} {why}", number + 1)))
        };
        let (shift, scale) = columns(train)?.iter().enumerate().map(fit_one).collect::<Result<_>>()?;
        Ok(Scaler { shift, scale })
    }

    /// The value subtracted from each column.
    pub fn shift(&self) -> &[f64] {
        &self.shift
    }

    /// The divisor of each column.
    pub fn scale(&self) -> &[f64] {
        &self.scale
    }

    /// `(x - shift) / scale`, on the host in double precision.
    ///
    /// # Errors
    /// If the number of columns differs from the fitted one.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        map(x, self.shift.len(), |value, column| (value - self.shift[column]) / self.scale[column])
    }

    /// The inverse: `x * scale + shift`.
    ///
    /// # Errors
    /// If the number of columns differs from the fitted one.
    pub fn invert(&self, x: &Tensor) -> Result<Tensor> {
        map(x, self.shift.len(), |value, column| value * self.scale[column] + self.shift[column])
    }
}

/// Replaces NaN, which marks a missing value, by one number per column. Columns are the last axis.
///
/// ```
/// use wgrad::{Tensor, data::Imputer};
/// let train = Tensor::new([4], [1.0, f64::NAN, 2.0, 9.0])?;
/// assert_eq!(Imputer::mean(&train)?.apply(&train)?.to_f64(), [1.0, 4.0, 2.0, 9.0]);
/// assert_eq!(Imputer::median(&train)?.apply(&train)?.to_f64(), [1.0, 2.0, 2.0, 9.0]);
/// assert_eq!(Imputer::constant(&train, 0.0)?.apply(&train)?.to_f64(), [1.0, 0.0, 2.0, 9.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Imputer(Vec<f64>);

impl Imputer {
    /// The mean of the present values.
    ///
    /// # Errors
    /// If a column has no values, or infinite ones.
    pub fn mean(train: &Tensor) -> Result<Imputer> {
        Imputer::fit(train, mean)
    }

    /// The median of the present values.
    ///
    /// # Errors
    /// As [`Imputer::mean`].
    pub fn median(train: &Tensor) -> Result<Imputer> {
        Imputer::fit(train, median)
    }

    /// This number for each column of `train`.
    ///
    /// # Errors
    /// When the number is not finite, or `train` has no axis.
    pub fn constant(train: &Tensor, value: f64) -> Result<Imputer> {
        if !value.is_finite() {
            return Err(Error::Input(format!("expected a finite number for missing values, not {value}")));
        }
        Ok(Imputer(vec![value; width(train)?]))
    }

    /// From the value of each column.
    ///
    /// # Errors
    /// If one is not finite.
    pub fn new(values: impl Into<Vec<f64>>) -> Result<Imputer> {
        let values = values.into();
        match values.iter().all(|x| x.is_finite()) {
            true => Ok(Imputer(values)),
            false => Err(Error::Input(format!("expected finite numbers for missing values, not {values:?}"))),
        }
    }

    /// The value for each column.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    fn fit(train: &Tensor, of: impl Fn(&[f64]) -> f64) -> Result<Imputer> {
        let fit_one = |(number, column): (usize, &Vec<f64>)| {
            let present: Vec<f64> = column.iter().copied().filter(|x| !x.is_nan()).collect();
            let value = if present.is_empty() { f64::NAN } else { of(&present) };
            let why = || Error::Input(format!("column {} has no values, or infinite ones", number + 1));
            value.is_finite().then_some(value).ok_or_else(why)
        };
        Ok(Imputer(columns(train)?.iter().enumerate().map(fit_one).collect::<Result<_>>()?))
    }

    /// `x` with each NaN replaced, on the host in double precision.
    ///
    /// # Errors
    /// If the number of columns differs from the fitted one.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        map(x, self.0.len(), |value, column| if value.is_nan() { self.0[column] } else { value })
    }
}
