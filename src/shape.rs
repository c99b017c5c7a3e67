//! Shapes: sizes of the axes, row-major strides, NumPy broadcasting, axis arithmetic.

use std::fmt;
use std::ops::Deref;

/// The sizes of a tensor's axes, outermost first. A scalar has the empty shape `[]`.
///
/// ```
/// use wgrad::Shape;
/// let shape = Shape::from([2, 3]);
/// assert_eq!(shape.numel(), 6);
/// assert_eq!(shape.strides(), [3, 1]);
/// assert_eq!(shape.to_string(), "[2, 3]");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The shape of a scalar, `[]`.
    pub fn scalar() -> Self {
        Shape(Vec::new())
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The number of elements: the product of the sizes, 1 for a scalar. Saturates at `usize::MAX`.
    pub fn numel(&self) -> usize {
        if self.0.contains(&0) {
            return 0;
        }
        self.0.iter().fold(1, |n, &d| n.saturating_mul(d))
    }

    /// Row-major (C order) strides, in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1usize; self.rank()];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(self.0[axis].max(1));
        }
        strides
    }

    /// The common shape of two operands under NumPy broadcasting: shapes are aligned at their last
    /// axis, and sizes must be equal or 1. `None` if they are not compatible.
    ///
    /// ```
    /// use wgrad::Shape;
    /// let column = Shape::from([4, 1]);
    /// assert_eq!(column.broadcast(&Shape::from([3])), Some(Shape::from([4, 3])));
    /// assert_eq!(column.broadcast(&Shape::from([3, 3])), None);
    /// ```
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let size = |shape: &Shape, axis: usize| {
            let skipped = rank - shape.rank();
            if axis < skipped { 1 } else { shape.0[axis - skipped] }
        };
        (0..rank)
            .map(|axis| match (size(self, axis), size(other, axis)) {
                (a, b) if a == b => Some(a),
                (1, b) => Some(b),
                (a, 1) => Some(a),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }

    /// The axis for a possibly negative number: `-1` is the last. `None` if out of range.
    pub fn axis(&self, axis: isize) -> Option<usize> {
        let rank = self.rank() as isize;
        let axis = if axis < 0 { axis + rank } else { axis };
        (0..rank).contains(&axis).then_some(axis as usize)
    }

    /// Why [`Shape::axis`] finds none, for an error.
    pub(crate) fn no_axis(&self, axis: isize) -> String {
        match self.rank() {
            0 => format!("there is no axis {axis} in {self}, a scalar"),
            rank => format!("there is no axis {axis} in {self}; expected 0 to {}, or -{rank} to -1", rank - 1),
        }
    }

    /// The shape after a reduction over `axes` (sorted, distinct), which are removed, or kept with size 1.
    pub fn reduced(&self, axes: &[usize], keepdim: bool) -> Shape {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(axis, &size)| match (axes.contains(&axis), keepdim) {
                (false, _) => Some(size),
                (true, true) => Some(1),
                (true, false) => None,
            })
            .collect()
    }

    /// The multi-index of the row-major position `linear`.
    pub fn unravel(&self, mut linear: usize) -> Vec<usize> {
        let mut index = vec![0; self.rank()];
        for axis in (0..self.rank()).rev() {
            index[axis] = linear % self.0[axis].max(1);
            linear /= self.0[axis].max(1);
        }
        index
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl From<Vec<usize>> for Shape {
    fn from(sizes: Vec<usize>) -> Self {
        Shape(sizes)
    }
}

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Self {
        Shape(sizes.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        Shape(sizes.to_vec())
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        shape.clone()
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(sizes: I) -> Self {
        Shape(sizes.into_iter().collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The layout of a tensor in its buffer: element `index` is at
/// `offset + sum(index[axis] * strides[axis])`, in elements. Broadcasting is a stride of 0.
///
/// ```
/// use wgrad::View;
/// let rows = View::contiguous(&[2, 3].into());
/// let columns = View { shape: [3, 2].into(), strides: vec![1, 3], offset: 0 }; // the transpose, of the same elements
/// assert_eq!((rows.strides.clone(), columns.positions()), (vec![3, 1], vec![0, 3, 1, 4, 2, 5]));
/// assert!(rows.is_contiguous() && !columns.is_contiguous());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The shape of the view.
    pub shape: Shape,
    /// The stride of each axis, in elements; 0 for a broadcast axis.
    pub strides: Vec<usize>,
    /// The position of element `[0, 0, ...]`.
    pub offset: usize,
}

impl View {
    /// The view of a tensor stored row-major from the start of its buffer.
    pub fn contiguous(shape: &Shape) -> Self {
        View { shape: shape.clone(), strides: shape.strides(), offset: 0 }
    }

    /// Whether the elements are row-major without gaps from the start of the buffer.
    pub fn is_contiguous(&self) -> bool {
        self.offset == 0 && self.is_dense()
    }

    /// Whether the elements are row-major without gaps, at any offset.
    pub fn is_dense(&self) -> bool {
        let dense = self.shape.strides();
        (0..self.shape.rank()).all(|axis| self.shape[axis] <= 1 || self.strides[axis] == dense[axis])
            || self.shape.numel() == 0
    }

    /// The view reshaped to a shape with the same number of elements, if strides can express it.
    pub fn reshaped(&self, shape: &Shape) -> Option<View> {
        if self.is_dense() {
            return Some(View { shape: shape.clone(), strides: shape.strides(), offset: self.offset });
        }
        // Each group of mergeable axes can be split into new axes.
        let merged = merge_axes(&self.shape, &[&self.strides]);
        let mut groups = merged.sizes.iter().zip(&merged.strides[0]);
        let mut strides = vec![0; shape.rank()];
        let mut axis = 0;
        while axis < shape.rank() {
            if shape[axis] == 1 {
                axis += 1;
                continue;
            }
            let (&size, &stride) = groups.next()?;
            let (first, mut taken) = (axis, 1);
            while taken < size {
                taken *= *shape.get(axis)?;
                axis += 1;
            }
            if taken != size {
                return None;
            }
            let mut step = stride;
            for inner in (first..axis).rev() {
                strides[inner] = step;
                step *= shape[inner];
            }
        }
        Some(View { shape: shape.clone(), strides, offset: self.offset })
    }

    /// The buffer positions of all elements, in row-major order.
    pub fn positions(&self) -> Vec<usize> {
        if self.shape.numel() == 0 {
            return Vec::new();
        }
        self.shape.iter().zip(&self.strides).fold(vec![self.offset], |all, (&size, &stride)| {
            let mut longer = Vec::with_capacity(all.len() * size);
            all.iter().for_each(|&at| longer.extend((0..size).map(|i| at + i * stride)));
            longer
        })
    }
}

/// Axes after merging neighbours that can be traversed as one axis in every operand. Example: [`merge_axes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Sizes after merging, outermost first; none is 1.
    pub sizes: Vec<usize>,
    /// For each operand, its strides along the merged axes.
    pub strides: Vec<Vec<usize>>,
}

/// Merges the axes of one shape over several operands' strides. Axes of size 1 are dropped; two
/// neighbours are merged if, in every operand, the outer stride is the inner stride times the inner size.
///
/// ```
/// use wgrad::shape::{Shape, merge_axes};
/// // A contiguous [2, 3, 4], and a row of 4 that is broadcast to it: the last axis stays on its own.
/// let merged = merge_axes(&Shape::from([2, 3, 4]), &[&[12, 4, 1], &[0, 0, 1]]);
/// assert_eq!(merged.sizes, [6, 4]);
/// assert_eq!(merged.strides, [[4, 1], [0, 1]]);
/// ```
pub fn merge_axes(shape: &Shape, operands: &[&[usize]]) -> Merged {
    let mut sizes: Vec<usize> = Vec::new();
    let mut strides: Vec<Vec<usize>> = vec![Vec::new(); operands.len()];
    for axis in 0..shape.rank() {
        let size = shape[axis];
        if size == 1 {
            continue;
        }
        let joins = !sizes.is_empty()
            && operands
                .iter()
                .zip(&strides)
                .all(|(operand, merged)| merged.last().is_some_and(|&outer| outer == operand[axis] * size));
        if joins && let Some(last) = sizes.last_mut() {
            *last *= size;
            for (operand, merged) in operands.iter().zip(&mut strides) {
                if let Some(stride) = merged.last_mut() {
                    *stride = operand[axis];
                }
            }
        } else {
            sizes.push(size);
            for (operand, merged) in operands.iter().zip(&mut strides) {
                merged.push(operand[axis]);
            }
        }
    }
    Merged { sizes, strides }
}

/// The multiplier and shift with which `quotient` in `shaders/scalar.wgsl` divides `n` below 2^31
/// by `d` in 1 to 2^31: `n / d = (2 n * multiplier) >> 32 >> shift` (Granlund and Montgomery,
/// *Division by invariant integers using multiplication*, PLDI 1994, theorem 4.2).
pub fn reciprocal(d: usize) -> [u32; 2] {
    let shift = d.next_power_of_two().trailing_zeros();
    let multiplier = (1u64 << (31 + shift)) / d.max(1) as u64 + 1;
    [multiplier as u32, shift]
}
