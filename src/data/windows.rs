//! Sliding windows over sequences.

use crate::{Error, Result, Shape, Tensor};

/// All windows of `size` steps of a series `[T, ..]`, each with the step that follows it: inputs
/// `[T - size, size, ..]` and targets `[T - size, ..]`.
///
/// ```
/// use wgrad::{Tensor, data::windows};
/// let (x, y) = windows(&Tensor::new([5], [1, 2, 3, 4, 5])?, 3)?;
/// assert_eq!(x, Tensor::new([2, 3], [1, 2, 3, 2, 3, 4])?);
/// assert_eq!(y, Tensor::new([2], [4, 5])?);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the series is a scalar or not longer than `size`, or `size` is 0.
pub fn windows(series: &Tensor, size: usize) -> Result<(Tensor, Tensor)> {
    let Some((&steps, inner)) = series.shape().split_first() else {
        return Err(Error::Input(format!("windows() needs at least one axis, but the series is {}", series.ty())));
    };
    if size == 0 || size >= steps {
        let why = format!("a window of {size} steps and the next one do not fit a series of {steps}");
        return Err(Error::Input(why));
    }
    let count = steps - size;
    let rows: Vec<usize> = (0..count).flat_map(|start| start..start + size).collect();
    let shape: Shape = [count, size].into_iter().chain(inner.iter().copied()).collect();
    let inputs = Tensor::new(shape, series.rows(&rows)?.into_data())?;
    let targets = series.rows(&(size..steps).collect::<Vec<_>>())?;
    Ok((inputs, targets))
}
