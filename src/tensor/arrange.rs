//! Joining, slicing and reshaping host tensors, and tensors from nested vectors.

use std::ops::Range;

use super::{Data, Tensor, map_data};
use crate::{Error, Result, Shape};

impl Tensor {
    /// Copies elements out of other arrays and images, whatever their layout: element `[i, j, ..]` is
    /// `data[offset + i * strides[0] + j * strides[1] + ..]`. Strides count elements; negative ones go backwards, and 0
    /// repeats.
    ///
    /// ```
    /// use wgrad::Tensor;
    /// // Pixels of 2 rows and 2 columns in RGB, as of `image::RgbImage::as_raw`, as channels, rows, columns.
    /// let (height, width) = (2, 2);
    /// let raw: &[u8] = &[10, 20, 30, 11, 21, 31, 12, 22, 32, 13, 23, 33];
    /// let image = Tensor::from_strided([3, height, width], &[1, 3 * width as isize, 3], 0, raw)?;
    /// assert_eq!(image, Tensor::new([3, 2, 2], [10u8, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33])?);
    /// // A matrix by columns, as of `nalgebra::DMatrix::as_slice`.
    /// let columns = [1.0f32, 4.0, 2.0, 5.0, 3.0, 6.0];
    /// let matrix = Tensor::from_strided([2, 3], &[1, 2], 0, &columns)?;
    /// assert_eq!(matrix, Tensor::new([2, 3], [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// For a view `v` of `ndarray`, whose iterator is row-major whatever its strides:
    /// `Tensor::new(v.shape(), v.iter().copied().collect::<Vec<_>>())`.
    ///
    /// # Errors
    /// If there is not one stride for each axis, or an element lies outside of the data.
    pub fn from_strided<T: Copy>(
        shape: impl Into<Shape>,
        strides: &[isize],
        offset: usize,
        data: &[T],
    ) -> Result<Tensor>
    where
        Vec<T>: Into<Data>,
    {
        let shape = shape.into();
        if shape.rank() != strides.len() {
            let (axes, given) = (shape.rank(), strides.len());
            return Err(Error::Input(format!("from_strided: shape {shape} has {axes} axes, but {given} strides")));
        }
        if shape.contains(&0) {
            return Tensor::new(shape, Vec::new());
        }
        let (mut first, mut last) = (Some(offset as i128), Some(offset as i128));
        for (&size, &stride) in shape.iter().zip(strides) {
            let span = (size as i128 - 1).checked_mul(stride as i128);
            let end = if stride < 0 { &mut first } else { &mut last };
            *end = span.zip(*end).and_then(|(span, end)| end.checked_add(span));
        }
        let inside = |place: Option<i128>| place.is_some_and(|place| (0..data.len() as i128).contains(&place));
        if !inside(first) || !inside(last) {
            let place = |end: Option<i128>| end.map_or_else(|| "beyond 2^127".to_owned(), |end| end.to_string());
            return Err(Error::Input(format!(
                "from_strided: shape {shape} with strides {strides:?} and offset {offset} has elements at {} to {}, but \
                 there are {} elements",
                place(first),
                place(last),
                data.len()
            )));
        }
        let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
        let mut elements: Vec<T> = Vec::new();
        if count.is_none_or(|count| elements.try_reserve_exact(count).is_err()) {
            return Err(Error::Input(format!("from_strided: there is no memory for a tensor of shape {shape}")));
        }
        let axes = shape.iter().copied().zip(strides.iter().copied()).filter(|(size, _)| *size > 1);
        copy_strided(data, offset, &axes.collect::<Vec<_>>(), &mut elements);
        Tensor::new(shape, elements)
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::new(shape, self.data.clone())
    }

    /// The elements whose index along `axis` (negative: from the last) is in `range`, as in `x[:, 2:5]` of NumPy.
    ///
    /// ```
    /// use wgrad::Tensor;
    /// let x = Tensor::try_from(vec![vec![1, 2, 3], vec![4, 5, 6]])?;
    /// assert_eq!(x.slice(1, 1..3)?, Tensor::try_from(vec![vec![2, 3], vec![5, 6]])?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such axis, or the range exceeds it.
    pub fn slice(&self, axis: isize, range: Range<usize>) -> Result<Tensor> {
        let axis = self.existing_axis("slice", axis)?;
        let size = self.shape[axis];
        if range.start > range.end || range.end > size {
            return Err(Error::Input(format!("slice {range:?} exceeds axis {axis} of {}, of size {size}", self.ty())));
        }
        let mut sizes = self.shape.to_vec();
        sizes[axis] = range.len();
        let inner: usize = self.shape[axis + 1..].iter().product();
        let part = range.start * inner..range.end * inner;
        let data = match size * inner {
            0 => map_data!(&self.data, _v => Vec::new()),
            row => map_data!(&self.data, v => v.chunks(row).flat_map(|row| &row[part.clone()]).copied().collect()),
        };
        Ok(Tensor::of(&sizes.into(), data))
    }

    /// The tensors at each index of the first axis, each without that axis; none for a scalar.
    ///
    /// ```
    /// use wgrad::Tensor;
    /// let x = Tensor::new([3, 2], [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// let sums: Vec<f64> = x.iter_rows().map(|row| row.to_f64().iter().sum()).collect();
    /// assert_eq!(sums, [3.0, 7.0, 11.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn iter_rows(&self) -> impl ExactSizeIterator<Item = Tensor> {
        let (rows, inner) = match self.shape.split_first() {
            Some((&rows, inner)) => (rows, Shape::from(inner)),
            None => (0, Shape::scalar()),
        };
        let size = inner.numel();
        (0..rows)
            .map(move |row| Tensor::of(&inner, map_data!(&self.data, v => v[row * size..(row + 1) * size].to_vec())))
    }

    /// Joins tensors along an existing axis (negative: from the last), as `numpy.concatenate`. If some hold f32 as
    /// [`Data::F64`], as outputs of the reference do, so does the result.
    ///
    /// ```
    /// use wgrad::Tensor;
    /// let (a, b) = (Tensor::try_from(vec![vec![1, 2], vec![3, 4]])?, Tensor::try_from(vec![vec![5], vec![6]])?);
    /// assert_eq!(Tensor::concat(&[&a, &b], 1)?, Tensor::try_from(vec![vec![1, 2, 5], vec![3, 4, 6]])?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no tensors, or their types or other sizes differ.
    pub fn concat(tensors: &[&Tensor], axis: isize) -> Result<Tensor> {
        let Some(first) = tensors.first() else {
            return Err(Error::Input("concat needs at least one tensor".into()));
        };
        let axis = first.existing_axis("concat", axis)?;
        let others = |x: &Tensor| [&x.shape[..axis], &x.shape[axis + 1..]].concat();
        for x in tensors {
            if x.dtype() != first.dtype() || x.shape.rank() != first.shape.rank() || others(x) != others(first) {
                let why = "concat needs tensors of one type whose sizes differ only along";
                return Err(Error::Input(format!("{why} axis {axis}, not {} and {}", first.ty(), x.ty())));
            }
        }
        let is_f64 = |x: &Tensor| matches!(x.data, Data::F64(_));
        if tensors.iter().any(|x| is_f64(x)) && !tensors.iter().all(|x| is_f64(x)) {
            let wide: Vec<Tensor> = tensors.iter().map(|x| Tensor::of(&x.shape, x.to_f64())).collect();
            return Tensor::concat(&wide.iter().collect::<Vec<_>>(), axis as isize);
        }
        let mut sizes = first.shape.to_vec();
        sizes[axis] = tensors.iter().map(|x| x.shape[axis]).sum();
        let outer: usize = sizes[..axis].iter().product();
        let mut joined = map_data!(&first.data, _v => Vec::new());
        for row in 0..outer {
            for x in tensors {
                let size = x.numel() / outer;
                joined.extend(&x.data, row * size..(row + 1) * size);
            }
        }
        Ok(Tensor::of(&sizes.into(), joined))
    }

    /// Joins tensors of one shape along a new axis, as `numpy.stack`. The new axis of the result is `axis` (negative:
    /// from the last).
    ///
    /// ```
    /// use wgrad::Tensor;
    /// let (a, b) = (Tensor::new([2], [1, 2])?, Tensor::new([2], [3, 4])?);
    /// assert_eq!(Tensor::stack(&[&a, &b], -1)?, Tensor::try_from(vec![vec![1, 3], vec![2, 4]])?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no tensors, or their types or shapes differ.
    pub fn stack(tensors: &[&Tensor], axis: isize) -> Result<Tensor> {
        let mut widened = Vec::with_capacity(tensors.len());
        for x in tensors {
            if x.ty() != tensors[0].ty() {
                let (first, x) = (tensors[0].ty(), x.ty());
                return Err(Error::Input(format!("stack needs tensors of one type and shape, not {first} and {x}")));
            }
            let mut sizes = x.shape.to_vec();
            let at = if axis < 0 { axis + sizes.len() as isize + 1 } else { axis };
            if !(0..=sizes.len() as isize).contains(&at) {
                return Err(Error::Input(format!("stack: {} has no place for a new axis {axis}", x.ty())));
            }
            sizes.insert(at as usize, 1);
            widened.push(x.reshape(sizes)?);
        }
        Tensor::concat(&widened.iter().collect::<Vec<_>>(), axis)
    }

    fn existing_axis(&self, what: &str, axis: isize) -> Result<usize> {
        self.shape.axis(axis).ok_or_else(|| Error::Input(format!("{what}: {}", self.shape.no_axis(axis))))
    }
}

impl Data {
    /// Appends elements of another vector of the same type.
    fn extend(&mut self, from: &Data, range: Range<usize>) {
        macro_rules! same {
            ($($variant:ident),*) => {
                match (self, from) {
                    $((Data::$variant(to), Data::$variant(from)) => to.extend_from_slice(&from[range]),)*
                    _ => {}
                }
            };
        }
        same!(F32, F64, F16, BF16, I32, U32, I8, U8, Bool);
    }
}

/// A matrix from its rows.
///
/// # Errors
/// If the rows differ in length.
impl<T> TryFrom<Vec<Vec<T>>> for Tensor
where
    Data: From<Vec<T>>,
{
    type Error = Error;

    fn try_from(rows: Vec<Vec<T>>) -> Result<Tensor> {
        let columns = rows.first().map_or(0, Vec::len);
        if let Some((row, other)) = rows.iter().enumerate().find(|(_, row)| row.len() != columns) {
            let why = format!("row 0 has {columns} elements and row {row} has {}", other.len());
            return Err(Error::Input(format!("a matrix needs rows of one length, but {why}")));
        }
        Tensor::new([rows.len(), columns], rows.into_iter().flatten().collect::<Vec<T>>())
    }
}

/// Appends the elements of `axes`, sizes with strides, in row-major order. All are inside of the data.
fn copy_strided<T: Copy>(data: &[T], place: usize, axes: &[(usize, isize)], to: &mut Vec<T>) {
    let at = |i: usize, stride: isize| place.wrapping_add_signed(i as isize * stride);
    match axes {
        [] => to.push(data[place]),
        [(size, stride)] => to.extend((0..*size).map(|i| data[at(i, *stride)])),
        [(size, stride), inner @ ..] => (0..*size).for_each(|i| copy_strided(data, at(i, *stride), inner, to)),
    }
}
