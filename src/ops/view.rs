//! Ops that move no data: reshape, permute, broadcast, slice, diagonal, stop_gradient. The plan turns them into
//! strides, and copies only where strides cannot express them.

use crate::op::{Attributes, Backward, Case, Fill, Lowering, Op, Rounding, Strided};
use crate::shape::View;
use crate::tensor::map_data;
use crate::{DType, Shape, Tensor, TensorType, Value};

/// A view op.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Move {
    /// The same elements in the same order with another shape.
    Reshape(Shape),
    /// Axis `i` of the output is axis `axes[i]` of the input.
    Permute(Vec<usize>),
    /// NumPy broadcasting.
    Broadcast(Shape),
    /// Elements `start`, `start + step`, ... before `end` along one axis.
    Slice { axis: usize, start: usize, end: usize, step: usize },
    /// Elements of equal index along two axes, which become one axis, the last.
    Diagonal(usize, usize),
    /// The same value; gradients do not flow through it.
    StopGradient,
}

impl Strided for Move {
    fn view(&self, input: &View) -> Option<View> {
        let mut view = input.clone();
        match self {
            Move::Reshape(shape) => return input.reshaped(shape),
            Move::Permute(axes) => {
                view.shape = axes.iter().map(|&axis| input.shape[axis]).collect();
                view.strides = axes.iter().map(|&axis| input.strides[axis]).collect();
            }
            Move::Broadcast(shape) => {
                let skipped = shape.rank() - input.shape.rank();
                view.strides = (0..shape.rank())
                    .map(|axis| {
                        if axis < skipped || input.shape[axis - skipped] == 1 {
                            0
                        } else {
                            input.strides[axis - skipped]
                        }
                    })
                    .collect();
                view.shape = shape.clone();
            }
            Move::Slice { axis, start, end, step } => {
                let mut sizes = input.shape.to_vec();
                sizes[*axis] = (end - start).div_ceil(*step);
                view.offset += start * input.strides[*axis];
                if sizes[*axis] > 1 {
                    view.strides[*axis] *= step; // irrelevant for a single element, and might overflow
                }
                view.shape = sizes.into();
            }
            Move::Diagonal(a, b) => {
                let kept = || (0..input.shape.rank()).filter(|axis| axis != a && axis != b);
                view.shape =
                    kept().map(|axis| input.shape[axis]).chain([input.shape[*a].min(input.shape[*b])]).collect();
                view.strides =
                    kept().map(|axis| input.strides[axis]).chain([input.strides[*a] + input.strides[*b]]).collect();
            }
            Move::StopGradient => {}
        }
        Some(view)
    }
}

impl Op for Move {
    fn name(&self) -> &'static str {
        match self {
            Move::Reshape(_) => "reshape",
            Move::Permute(_) => "permute",
            Move::Broadcast(_) => "broadcast",
            Move::Slice { .. } => "slice",
            Move::Diagonal(..) => "diagonal",
            Move::StopGradient => "stop_gradient",
        }
    }

    fn attributes(&self) -> Attributes {
        match self {
            Move::Reshape(shape) | Move::Broadcast(shape) => vec![("shape", shape.into())],
            Move::Permute(axes) => vec![("axes", axes[..].into())],
            Move::Slice { axis, start, end, step } => vec![
                ("axis", (*axis).into()),
                ("start", (*start).into()),
                ("end", (*end).into()),
                ("step", (*step).into()),
            ],
            Move::Diagonal(a, b) => vec![("axes", [*a, *b].into())],
            Move::StopGradient => vec![],
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let x = &inputs[0].shape;
        match self {
            Move::Reshape(shape) if shape.numel() != x.numel() => {
                return Err(format!("shape {shape} has {} elements, but the input has {}", shape.numel(), x.numel()));
            }
            Move::Permute(axes) => {
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                if sorted != (0..x.rank()).collect::<Vec<_>>() {
                    return Err(format!("expected each of the {} axes once, not {axes:?}", x.rank()));
                }
            }
            Move::Broadcast(shape) if x.broadcast(shape).as_ref() != Some(shape) => {
                return Err(format!(
                    "it does not broadcast to {shape}: aligned at the last axis, sizes must be equal or the input's 1"
                ));
            }
            Move::Slice { axis, start, end, step }
                if *axis >= x.rank() || start > end || *end > x[*axis] || *step == 0 =>
            {
                return Err(format!(
                    "expected start <= end <= size and a step of at least 1, not {start}..{end} step {step} on axis {axis}"
                ));
            }
            _ => {}
        }
        let view = self.view(&View::contiguous(x)).ok_or("internal: a contiguous input must be viewable")?;
        Ok(vec![TensorType::new(inputs[0].dtype, view.shape)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let (x, dy) = (g.x(0).shape(), g.dy());
        vec![match self {
            Move::Reshape(_) => Some(dy.reshaped(x.clone())),
            Move::Permute(axes) => {
                let mut inverse = vec![0isize; axes.len()];
                for (i, &axis) in axes.iter().enumerate() {
                    inverse[axis] = i as isize;
                }
                Some(dy.permute(&inverse))
            }
            Move::Broadcast(shape) => {
                let skipped = shape.rank() - x.rank();
                let axes: Vec<isize> = (0..shape.rank())
                    .filter(|&axis| axis < skipped || (x[axis - skipped] == 1 && shape[axis] != 1))
                    .map(|axis| axis as isize)
                    .collect();
                Some(dy.sum(&axes, true).reshaped(x.clone()))
            }
            Move::Slice { axis, start, step, .. } => Some(dy.pad_strided(*axis, *start, x[*axis], *step)),
            Move::Diagonal(a, b) => Some(onto_diagonal(&dy, x, *a, *b)),
            Move::StopGradient => None,
        }]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let x = inputs[0];
        let Some(view) = self.view(&View::contiguous(x.shape())) else { return vec![x.clone()] };
        vec![gather(x, &view, &outputs[0].shape)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::View(self)
    }
}

/// The inverse of a diagonal: places the last axis of `dy` along axes `a` and `b` of `shape`, zeros elsewhere.
fn onto_diagonal(dy: &Value, shape: &Shape, a: usize, b: usize) -> Value {
    // Repeat the diagonal across the other axis, then mask it.
    let (along, across) = if shape[a] <= shape[b] { (a, b) } else { (b, a) };
    let mut sizes: Vec<isize> = shape.iter().map(|&size| size as isize).collect();
    sizes[across] = 1;
    let kept = (0..shape.rank()).filter(|axis| *axis != a && *axis != b).collect::<Vec<_>>();
    let from = |axis: usize| kept.iter().position(|&k| k == axis).map_or(-1, |at| at as isize);
    let order: Vec<isize> = (0..shape.rank()).filter(|&axis| axis != across).map(from).collect();
    let spread = dy.permute(&order).reshape(&sizes).broadcast_to(shape);
    let number = |axis: usize| dy.graph().iota(DType::I32, shape, axis as isize);
    number(along).eq(&number(across)).where_(&spread, &spread.zeros_like())
}

/// The elements of a view of a contiguous tensor, as a contiguous tensor.
pub(crate) fn gather(x: &Tensor, view: &View, shape: &Shape) -> Tensor {
    fn pick<T: Copy>(x: &[T], view: &View) -> Vec<T> {
        if view.shape.numel() > 0 && view.is_dense() {
            return x[view.offset..view.offset + view.shape.numel()].to_vec();
        }
        if let [x] = x {
            return vec![*x; view.shape.numel()];
        }
        view.positions().into_iter().map(|at| x[at]).collect()
    }
    Tensor::of(shape, map_data!(x.data(), v => pick(v, view)))
}

impl Value {
    fn reshaped(&self, shape: Shape) -> Value {
        if *self.shape() == shape { self.clone() } else { self.op(Move::Reshape(shape), &[]) }
    }

    /// The same elements in row-major order with another shape; one size may be -1 and is inferred.
    #[track_caller]
    pub fn reshape(&self, sizes: &[isize]) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        let known = sizes.iter().filter(|&&s| s >= 0).fold(1usize, |n, &s| n.saturating_mul(s as usize));
        let open = sizes.iter().filter(|&&s| s == -1).count();
        let legal = sizes.iter().all(|&s| s >= -1) && open <= 1;
        if !legal || (open == 1 && (known == 0 || !self.shape().numel().is_multiple_of(known))) {
            let why = format!(
                "invalid sizes {sizes:?}: expected sizes of at least 0, and at most one -1 that divides evenly"
            );
            return self.graph().error("reshape", &[self], why);
        }
        let inferred = self.shape().numel().checked_div(known).unwrap_or(0);
        let shape: Shape = sizes.iter().map(|&s| if s == -1 { inferred } else { s as usize }).collect();
        if *self.shape() == shape { self.clone() } else { self.op(Move::Reshape(shape), &[]) }
    }

    /// Merges axes `start..` into one: `[N, C, H, W]` to `[N, C * H * W]` with `start` 1.
    #[track_caller]
    pub fn flatten(&self, start: usize) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        if start > self.shape().rank() {
            let why = self.shape().no_axis(start as isize);
            return self.graph().error("flatten", &[self], why);
        }
        let mut sizes: Vec<usize> = self.shape()[..start].to_vec();
        sizes.push(self.shape()[start..].iter().product());
        if self.shape().to_vec() == sizes { self.clone() } else { self.op(Move::Reshape(sizes.into()), &[]) }
    }

    /// Axis `i` of the result is axis `axes[i]` of the input; axes may count from the end.
    #[track_caller]
    pub fn permute(&self, axes: &[isize]) -> Value {
        let found: Result<Vec<usize>, isize> = axes.iter().map(|&axis| self.shape().axis(axis).ok_or(axis)).collect();
        match found {
            Ok(axes) => self.op(Move::Permute(axes), &[]),
            Err(_) if !self.is_valid() => self.clone(),
            Err(axis) => self.graph().error("permute", &[self], self.shape().no_axis(axis)),
        }
    }

    /// Swaps the last two axes; no data moves.
    #[track_caller]
    pub fn t(&self) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        let rank = self.shape().rank() as isize;
        if rank < 2 {
            return self.graph().error("t", &[self], "expected at least two axes");
        }
        let mut axes: Vec<isize> = (0..rank).collect();
        axes.swap(rank as usize - 1, rank as usize - 2);
        self.permute(&axes)
    }

    /// Broadcasts to a larger shape as in NumPy. The gradient is summed over the broadcast axes.
    #[track_caller]
    pub fn broadcast_to(&self, shape: &Shape) -> Value {
        if self.shape() == shape || !self.is_valid() {
            return self.clone();
        }
        self.op(Move::Broadcast(shape.clone()), &[])
    }

    /// Elements `start`, `start + step`, ... before `end` along `axis`.
    #[track_caller]
    pub fn slice(&self, axis: isize, start: usize, end: usize, step: usize) -> Value {
        match self.shape().axis(axis) {
            Some(axis) => self.op(Move::Slice { axis, start, end, step }, &[]),
            None if !self.is_valid() => self.clone(),
            None => self.graph().error("slice", &[self], self.shape().no_axis(axis)),
        }
    }

    /// The elements of equal index along two axes, which become one axis, the last: `torch.diagonal` without an offset.
    /// No data moves.
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let x = Graph::new().input("x", DType::F32, [3, 5, 4]);
    /// assert_eq!(x.diagonal(0, 2).shape().to_vec(), [5, 3]);
    /// ```
    #[track_caller]
    pub fn diagonal(&self, a: isize, b: isize) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        match (self.shape().axis(a), self.shape().axis(b)) {
            (Some(a), Some(b)) if a != b => self.op(Move::Diagonal(a, b), &[]),
            _ => {
                let why = format!("expected two different axes of {}, not {a} and {b}", self.shape());
                self.graph().error("diagonal", &[self], why)
            }
        }
    }

    /// Moves channels to pixels: `[N, C r^2, H, W]` to `[N, C, H r, W r]`, where channel `c r^2 + i r + j` becomes the
    /// pixels `(i, j)` of the `r x r` blocks of channel `c` (Shi et al., *Real-Time Single Image and Video
    /// Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network*, CVPR 2016).
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let x = Graph::new().input("x", DType::F32, [2, 12, 5, 7]);
    /// assert_eq!(x.pixel_shuffle(2).shape().to_vec(), [2, 3, 10, 14]);
    /// ```
    #[track_caller]
    pub fn pixel_shuffle(&self, r: usize) -> Value {
        match self.shape()[..] {
            [n, c, h, w] if (1..1 << 16).contains(&r) && c.is_multiple_of(r * r) => {
                let blocks = self.reshape(&[n, c / (r * r), r, r, h, w].map(|size| size as isize));
                let sizes = [n, c / (r * r), h * r, w * r].map(|size| size as isize);
                blocks.permute(&[0, 1, 4, 2, 5, 3]).reshape(&sizes)
            }
            _ if !self.is_valid() => self.clone(),
            _ => {
                let why =
                    format!("expected data [N, C, H, W] with a multiple of {r} x {r} channels, and r from 1 to 65535");
                self.graph().error("pixel_shuffle", &[self], why)
            }
        }
    }

    /// The inverse of [`Value::pixel_shuffle`]: `[N, C, H r, W r]` to `[N, C r^2, H, W]`.
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let x = Graph::new().input("x", DType::F32, [2, 3, 10, 14]);
    /// assert_eq!(x.pixel_unshuffle(2).shape().to_vec(), [2, 12, 5, 7]);
    /// ```
    #[track_caller]
    pub fn pixel_unshuffle(&self, r: usize) -> Value {
        match self.shape()[..] {
            [n, c, h, w] if (1..1 << 16).contains(&r) && h.is_multiple_of(r) && w.is_multiple_of(r) => {
                let blocks = self.reshape(&[n, c, h / r, r, w / r, r].map(|size| size as isize));
                let sizes = [n, c.saturating_mul(r * r), h / r, w / r].map(|size| size as isize);
                blocks.permute(&[0, 1, 3, 5, 2, 4]).reshape(&sizes)
            }
            _ if !self.is_valid() => self.clone(),
            _ => {
                let why = format!("expected data [N, C, H, W] with multiples of {r} as H and W, and r from 1 to 65535");
                self.graph().error("pixel_unshuffle", &[self], why)
            }
        }
    }

    /// The same value; gradients do not flow through it.
    #[track_caller]
    pub fn stop_gradient(&self) -> Value {
        self.op(Move::StopGradient, &[])
    }
}

/// Test cases of these ops. Each ends in an elementwise op or in the copy made when results are fetched.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("reshape", "infer", |x| vec![x[0].reshape(&[3, -1])]).float("x", [2, 3, 4]),
        Case::new("reshape", "of permuted, needs a copy", |x| vec![x[0].permute(&[1, 0]).reshape(&[-1])])
            .float("x", [5, 7]),
        // Numbers above 2^15 use another branch of `quotient`.
        Case::new("permute", "79,335 elements", |x| vec![x[0].permute(&[2, 1, 0])])
            .float("x", [45, 41, 43])
            .forward_only(),
        // On GPUs, by tiles: two long axes among others.
        Case::new("permute", "rank 5, 20 x 18 transposed", |x| vec![x[0].permute(&[2, 4, 0, 3, 1])])
            .float("x", [2, 18, 3, 2, 20])
            .forward_only(),
        Case::new("permute", "i32, 33 x 51 after a slice", |x| vec![x[0].slice(1, 1, 34, 1).permute(&[0, 2, 1])])
            .input("x", TensorType::new(DType::I32, [2, 35, 51]), Fill::Index(100_000))
            .forward_only(),
        Case::new("permute", "rank 4", |x| vec![x[0].permute(&[0, 2, 3, 1])]).float("x", [2, 3, 4, 5]),
        Case::new("reshape", "flatten and back", |x| vec![x[0].flatten(1) * 2.0, x[0].flatten(0).reshape(&[4, 6])])
            .float("x", [2, 3, 4]),
        Case::new("reshape", "a scalar", |x| vec![x[0].reshape(&[])]).float("x", [1, 1]),
        Case::new("reshape", "empty", |x| vec![x[0].reshape(&[2, 0, 5])]).float("x", [0, 3]),
        Case::new("permute", "t, twice", |x| vec![x[0].t(), x[0].t().t() + 1.0]).float("x", [2, 3, 5]),
        Case::new("permute", "i32", |x| vec![x[0].permute(&[1, 0])])
            .input("x", TensorType::new(DType::I32, [4, 9]), Fill::Index(1000))
            .forward_only(),
        Case::new("permute", "bool reversed", |x| vec![x[0].permute(&[2, 1, 0])])
            .input("x", TensorType::new(DType::Bool, [2, 3, 5]), Fill::Coin)
            .forward_only(),
        Case::new("broadcast", "a scalar", |x| vec![x[0].broadcast_to(&[3, 5].into())]).float("x", []),
        Case::new("broadcast", "new and inner axes", |x| vec![x[0].broadcast_to(&[2, 3, 4].into())]).float("x", [3, 1]),
        Case::new("slice", "middle", |x| vec![x[0].slice(1, 2, 7, 1)]).float("x", [3, 9]),
        Case::new("slice", "step 2, then rows", |x| vec![x[0].slice(1, 1, 9, 2).slice(0, 1, 3, 1)]).float("x", [4, 9]),
        Case::new("slice", "of nothing, past its start", |x| vec![x[0].slice(1, 2, 3, 1)]).float("x", [0, 3]),
        Case::new("slice", "one element by a wide step", |x| vec![x[0].slice(0, 1, 4, usize::MAX)]).float("x", [4, 3]),
        Case::new("slice", "empty", |x| vec![x[0].slice(0, 2, 2, 1)]).float("x", [4, 3]),
        Case::new("diagonal", "of a matrix", |x| vec![x[0].diagonal(0, 1)]).float("x", [4, 4]),
        Case::new("diagonal", "outer axes, of unequal sizes", |x| vec![x[0].diagonal(2, 0) * 2.0])
            .float("x", [3, 2, 5]),
        Case::new("diagonal", "inner axes of a slice", |x| vec![x[0].slice(1, 1, 7, 2).diagonal(-1, -2)])
            .float("x", [2, 7, 2]),
        Case::new("diagonal", "of a broadcast vector", |x| vec![x[0].broadcast_to(&[5, 5].into()).diagonal(0, 1)])
            .float("x", [5]),
        Case::new("diagonal", "of nothing", |x| vec![x[0].diagonal(0, 1)]).float("x", [0, 3]),
        Case::new("diagonal", "u32", |x| vec![x[0].diagonal(0, 2)])
            .input("x", TensorType::new(DType::U32, [3, 2, 3]), Fill::Index(1000))
            .forward_only(),
        Case::new("pixel_shuffle", "by 2", |x| vec![x[0].pixel_shuffle(2) * 2.0]).float("x", [2, 12, 3, 5]),
        Case::new("pixel_shuffle", "by 3, of nothing", |x| vec![x[0].pixel_shuffle(3) * 2.0]).float("x", [0, 9, 2, 2]),
        Case::new("pixel_unshuffle", "by 3", |x| vec![x[0].pixel_unshuffle(3) * 2.0]).float("x", [2, 2, 6, 3]),
        Case::new("stop_gradient", "half of a product", |x| vec![&x[0] * x[0].stop_gradient()])
            .float("x", [11])
            .forward_only(),
    ]
}
