//! Reductions over any axes: sum, product, mean, max, min, and what is composed of them.

mod cases;

pub use cases::cases;

use crate::op::{Args, Backward, Binding, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant};
use crate::profile::Profile;
use crate::shape::{View, merge_axes};
use crate::{DType, Data, Shape, Tensor, TensorType, Value, wgsl};

/// What is kept of the elements.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
}

/// A reduction over `axes` (sorted, distinct).
#[derive(Debug, Clone)]
struct Reduce {
    kind: Kind,
    axes: Vec<usize>,
    keepdim: bool,
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Mean => "mean",
            Kind::Max => "max",
            Kind::Min => "min",
            Kind::Prod => "prod",
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let x = inputs[0];
        if x.dtype == DType::Bool {
            return Err("expected numbers; cast() the bools".into());
        }
        let empty = self.axes.iter().any(|&axis| x.shape[axis] == 0);
        if empty && matches!(self.kind, Kind::Max | Kind::Min) {
            return Err("an empty axis has no extreme element".into());
        }
        Ok(vec![TensorType::new(x.dtype, x.shape.reduced(&self.axes, self.keepdim))])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let x = g.x(0);
        let kept = x.shape().reduced(&self.axes, true);
        let sizes: Vec<isize> = kept.iter().map(|&s| s as isize).collect();
        let dy = g.dy().reshape(&sizes).broadcast_to(x.shape());
        vec![Some(match self.kind {
            Kind::Sum => dy,
            Kind::Mean => dy * (1.0 / self.count(x.shape()) as f64),
            Kind::Prod => dy * self.product_of_the_others(x),
            // Equal extremes share the gradient evenly.
            _ => {
                let hit = x.eq(&g.y().reshape(&sizes).broadcast_to(x.shape()));
                let hit = hit.where_(&x.ones_like(), &x.zeros_like());
                let axes: Vec<isize> = self.axes.iter().map(|&a| a as isize).collect();
                let count = hit.sum(&axes, true).broadcast_to(x.shape());
                dy * hit / count
            }
        })]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        use rayon::prelude::*;
        let x = inputs[0];
        let (kept, reduced) = split_view(&View::contiguous(x.shape()), &self.axes);
        let (starts, offsets) = (kept.positions(), reduced.positions());
        fn fold<T: Copy + Send + Sync>(
            (starts, offsets): (&[usize], &[usize]),
            x: &[T],
            empty: T,
            step: impl Fn(T, T) -> T + Sync,
        ) -> Vec<T> {
            starts
                .par_iter()
                .map(|start| offsets.iter().fold(empty, |acc, offset| step(acc, x[start + offset])))
                .collect()
        }
        let at = (&starts[..], &offsets[..]);
        let data: Data = match (x.data(), self.kind) {
            (Data::F64(v), Kind::Sum) => fold(at, v, 0.0, |a, b| a + b).into(),
            (Data::F64(v), Kind::Mean) => {
                let mut sums = fold(at, v, 0.0, |a, b| a + b);
                sums.iter_mut().for_each(|sum| *sum /= offsets.len() as f64);
                sums.into()
            }
            (Data::F64(v), Kind::Max) => fold(at, v, f64::NEG_INFINITY, f64::max).into(),
            (Data::F64(v), Kind::Min) => fold(at, v, f64::INFINITY, f64::min).into(),
            (Data::F64(v), Kind::Prod) => fold(at, v, 1.0, |a, b| a * b).into(),
            (Data::I32(v), Kind::Prod) => fold(at, v, 1, i32::wrapping_mul).into(),
            (Data::U32(v), Kind::Prod) => fold(at, v, 1, u32::wrapping_mul).into(),
            (Data::I32(v), Kind::Sum) => fold(at, v, 0, i32::wrapping_add).into(),
            (Data::I32(v), Kind::Max) => fold(at, v, i32::MIN, |a, b| a.max(b)).into(),
            (Data::I32(v), Kind::Min) => fold(at, v, i32::MAX, |a, b| a.min(b)).into(),
            (Data::U32(v), Kind::Sum) => fold(at, v, 0, u32::wrapping_add).into(),
            (Data::U32(v), Kind::Max) => fold(at, v, u32::MIN, |a, b| a.max(b)).into(),
            (Data::U32(v), Kind::Min) => fold(at, v, u32::MAX, |a, b| a.min(b)).into(),
            _ => Tensor::zeros(&outputs[0]).into_data(),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let count = self.count(&inputs[0].shape);
        match self.kind {
            Kind::Sum if inputs[0].dtype == DType::F32 => Rounding::Sum(count),
            // One rounding for the factor, one for the product.
            Kind::Mean => Rounding::Sum(count + 2),
            // Half an ulp for each factor, and twice as many where the mantissa is small; tiny results are flushed.
            Kind::Prod if inputs[0].dtype == DType::F32 => Rounding::Ulps(count as f64, 1.2e-38),
            _ => Rounding::Exact,
        }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// A view parted into the axes that stay (with the offset) and those that are reduced.
fn split_view(view: &View, axes: &[usize]) -> (View, View) {
    let part = |reduced: bool| {
        let of = || (0..view.shape.rank()).filter(move |axis| axes.contains(axis) == reduced);
        View {
            shape: of().map(|axis| view.shape[axis]).collect::<Shape>(),
            strides: of().map(|axis| view.strides[axis]).collect(),
            offset: if reduced { 0 } else { view.offset },
        }
    };
    (part(false), part(true))
}

/// The most axes of each sort that the kernels walk.
const MAX_AXES: usize = 3;

/// One sort of axes (those that stay, or those reduced), merged, as the kernels walk them.
#[derive(Debug, Clone, Copy)]
struct Walk {
    /// Sizes and strides, outermost first, filled up with axes of size 1 in front.
    sizes: [usize; MAX_AXES],
    strides: [usize; MAX_AXES],
}

impl Walk {
    fn new(view: &View) -> Option<Walk> {
        let merged = merge_axes(&view.shape, &[&view.strides]);
        let skipped = MAX_AXES.checked_sub(merged.sizes.len())?;
        let mut walk = Walk { sizes: [1; MAX_AXES], strides: [0; MAX_AXES] };
        walk.sizes[skipped..].copy_from_slice(&merged.sizes);
        walk.strides[skipped..].copy_from_slice(&merged.strides[0]);
        Some(walk)
    }

    /// A single axis.
    fn line(size: usize, stride: usize) -> Walk {
        Walk { sizes: [1, 1, size], strides: [0, 0, stride] }
    }

    fn is_line(&self) -> bool {
        self.sizes[..2] == [1, 1]
    }

    fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Whether the innermost axis lies in whole vectors of four, and the others step over such.
    fn by_fours(&self) -> bool {
        self.strides[2] == 1 && self.sizes[2].is_multiple_of(4) && self.steps_by_fours(2)
    }

    /// Whether the outermost `axes` axes step over whole vectors of four.
    fn steps_by_fours(&self, axes: usize) -> bool {
        self.strides[..axes].iter().all(|stride| stride.is_multiple_of(4))
    }

    /// The same in vectors of four; `inner` says whether the innermost axis is the contiguous one.
    fn quartered(mut self, inner: bool) -> Walk {
        self.strides.iter_mut().for_each(|stride| *stride /= 4);
        if inner {
            self.sizes[2] /= 4;
            self.strides[2] = 1;
        }
        self
    }

    fn words(&self) -> [[u32; 3]; 2] {
        [self.sizes, self.strides].map(|words| words.map(|word| word as u32))
    }
}

/// One launch: which elements it reads.
#[derive(Clone, Copy)]
struct Stage {
    kept: Walk,
    reduced: Walk,
    offset: usize,
    from: Slot,
    /// The bits of what sums are multiplied with at the end.
    factor: u32,
}

/// A launch over so many elements is over before the compiler would be with a text that spares it divisions,
/// or reads four columns at a time.
const SMALL: usize = 1 << 16;

impl Stage {
    /// The second of two: partial results `[parts, outputs]`.
    fn of_parts(parts: usize, outputs: usize, from: Slot) -> Stage {
        let (kept, reduced) = (Walk::line(outputs, 1), Walk::line(parts, outputs));
        Stage { kept, reduced, offset: 0, from, factor: 1.0f32.to_bits() }
    }

    fn is_small(&self) -> bool {
        self.kept.count() * self.reduced.count() <= SMALL
    }

    /// What an element of the arrays is, if a row is one invocation's or the work of several `together`.
    fn width(&self, together: bool) -> Width {
        let Stage { kept, reduced, offset, .. } = self;
        if !offset.is_multiple_of(4) || together {
            Width::Scalar
        } else if reduced.by_fours() && kept.steps_by_fours(3) {
            Width::Row4
        } else if !self.is_small() && kept.by_fours() && reduced.steps_by_fours(3) {
            Width::Column4
        } else {
            Width::Scalar
        }
    }
}

/// The launch that ends another op whose sums were cut: the sum over `parts` (under 16,000) of `[parts, outputs]`,
/// with the op's epilogue.
pub(crate) fn sum_of_parts(
    parts: usize,
    outputs: usize,
    from: Slot,
    to: Slot,
    profile: &Profile,
) -> Result<Launch, String> {
    let sum = Reduce { kind: Kind::Sum, axes: vec![0], keepdim: false };
    sum.launch(DType::F32, Stage::of_parts(parts, outputs, from), 1, to, false, profile)
}

/// What one element of the kernel's arrays is.
#[derive(Clone, Copy, PartialEq)]
enum Width {
    /// One number.
    Scalar,
    /// Four neighbours of one row, to be reduced to one number.
    Row4,
    /// The same element of four neighbouring rows: four outputs.
    Column4,
}

/// The most elements one invocation reduces: short enough for drivers that cut long loops, and for
/// the rounding errors of a plain running sum.
pub(crate) const MAX_CHUNK: usize = 4096;

/// Invocations of a workgroup that each have a row of their own.
pub(crate) const ALONE: u32 = 64;

/// Invocations of a workgroup that has one row: so many, or as many as every device has.
pub(crate) const FEWEST: u32 = 128;
const MOST: u32 = 256;

/// How many invocations share a row on that device.
pub(crate) fn together_on(profile: &Profile) -> u32 {
    if profile.max_invocations >= MOST { MOST } else { FEWEST }
}

/// Of `[rows, n]`, for each element the product of the others of its row: of its partner, and of the pairs
/// but their own. Nothing is divided, so that it and its gradients are right where factors are 0.
fn product_of_others(x: &Value) -> Value {
    let (rows, n) = (x.dim(0) as isize, x.dim(1));
    if n <= 1 {
        return x.ones_like();
    }
    let half = n.div_ceil(2) as isize;
    let pairs = x.pad(&[(0, 0), (0, n % 2)], 1.0).reshape(&[rows, half, 2]);
    let [first, second] = [0, 1].map(|i| pairs.slice(2, i, i + 1, 1).reshape(&[rows, half]));
    let other_pairs = product_of_others(&(first * second)).reshape(&[rows, half, 1]);
    (pairs.flip(&[2]) * other_pairs).reshape(&[rows, 2 * half]).slice(1, 0, n, 1)
}

impl Reduce {
    /// How many elements are reduced to one.
    fn count(&self, shape: &Shape) -> usize {
        self.axes.iter().map(|&axis| shape[axis]).product()
    }

    /// For each element the product of all others that are multiplied with it.
    fn product_of_the_others(&self, x: &Value) -> Value {
        let mut order: Vec<usize> = (0..x.shape().rank()).filter(|axis| !self.axes.contains(axis)).collect();
        order.extend(&self.axes);
        let back = (0..order.len()).map(|axis| order.iter().position(|&a| a == axis).unwrap_or(axis) as isize);
        let moved = x.permute(&order.iter().map(|&axis| axis as isize).collect::<Vec<_>>());
        let count = self.count(x.shape());
        let rows: usize = moved.shape()[..order.len() - self.axes.len()].iter().product();
        let sizes: Vec<isize> = moved.shape().iter().map(|&size| size as isize).collect();
        let others = product_of_others(&moved.reshape(&[rows as isize, count as isize]));
        others.reshape(&sizes).permute(&back.collect::<Vec<_>>())
    }

    fn text(
        &self,
        dtype: DType,
        width: Width,
        flat: bool,
        threads: Option<u32>,
    ) -> Result<std::sync::Arc<str>, String> {
        let t = dtype.wgsl_storage();
        let (kind, identity) = match (self.kind, dtype) {
            (Kind::Sum | Kind::Mean, _) => (0, "0"),
            // Inputs are finite: the largest number stands for infinity, which WGSL cannot spell.
            (Kind::Max, DType::F32) => (1, "-0x1.fffffep+127"),
            (Kind::Max, DType::I32) => (1, "-2147483648"),
            (Kind::Max, _) => (1, "0"),
            (Kind::Min, DType::F32) => (2, "0x1.fffffep+127"),
            (Kind::Min, DType::I32) => (2, "2147483647"),
            (Kind::Min, _) => (2, "4294967295"),
            (Kind::Prod, _) => (3, "1"),
        };
        let text = match threads {
            Some(threads) => wgsl!("reduce_rows").constant("THREADS", threads),
            None => wgsl!("reduce"),
        };
        let mut text = text
            .append(include_str!("../../shaders/reduce_walk.wgsl"))
            .constant("KIND", kind)
            .constant("FLAT", flat)
            .alias("T", t)
            .function("identity", &format!("fn identity() -> T {{\n  return T({identity});\n}}"));
        let epilogue = dtype == DType::F32;
        if !epilogue {
            text = text.function("epilogue", "");
        }
        let value = |v: &str, i: &str| if epilogue { format!("epilogue({v}, {i})") } else { v.to_owned() };
        let store = match width {
            Width::Scalar => format!("y[i] = {};", value("v", "i")),
            Width::Row4 => {
                format!("let h = combine(v, v.zwxy);\n  let w = combine(h, h.yxwz).x;\n  y[i] = {};", value("w", "i"))
            }
            Width::Column4 => (0..4)
                .map(|k| format!("y[4u * i + {k}u] = {};", value(&format!("v[{k}]"), &format!("4u * i + {k}u"))))
                .collect::<Vec<_>>()
                .join("\n  "),
        };
        if width != Width::Scalar {
            text = text.alias("V", &format!("vec4<{t}>"));
        }
        text.function("store", &format!("fn store(i: u32, v: V) {{\n  {store}\n}}")).finish()
    }

    /// The launch of one stage, which reduces each row in so many parts.
    fn launch(
        &self,
        dtype: DType,
        stage: Stage,
        parts: usize,
        to: Slot,
        together: bool,
        profile: &Profile,
    ) -> Result<Launch, String> {
        let Stage { mut kept, mut reduced, mut offset, from, factor } = stage;
        let flat = !stage.is_small() && kept.is_line() && reduced.is_line();
        let width = stage.width(together);
        if width != Width::Scalar {
            (kept, reduced) = (kept.quartered(width == Width::Column4), reduced.quartered(width == Width::Row4));
            offset /= 4;
        }
        let (rows, count, last) = (kept.count(), reduced.count(), parts == 1);
        let mut uniform = [rows, count, parts, count.div_ceil(parts)].map(|n| n as u32).to_vec();
        let [[row_sizes, row_strides], [sizes, strides]] = [kept.words(), reduced.words()];
        for (words, more) in [(row_sizes, factor), (row_strides, offset as u32), (sizes, 0), (strides, 0)] {
            uniform.extend(words);
            uniform.push(more);
        }
        let workgroups = if together { rows * parts } else { (rows * parts).div_ceil(ALONE as usize) };
        let threads = together.then(|| together_on(profile));
        let entry = if together { "reduce_rows" } else { "reduce" };
        Ok(Launch {
            label: format!("{} {}", self.name(), if last { entry } else { "parts" }),
            wgsl: self.text(dtype, width, flat, threads)?,
            entry,
            bindings: vec![Binding::Uniform(uniform), Binding::Read(from), Binding::Write(to)],
            workgroups: profile.grid(workgroups as u64)?,
        })
    }

    /// Reduces in as many stages as keep each invocation's work short. Partial results lie as
    /// `[parts, outputs]`, which the next stage reduces over its first axis.
    fn stages(&self, args: &Args<'_>, together: bool) -> Result<Lowered, String> {
        let dtype = args.inputs[0].dtype;
        let (kept, reduced) = split_view(&args.views[0], &self.axes);
        let (Some(kept), Some(reduced)) = (Walk::new(&kept), Walk::new(&reduced)) else {
            return Err(format!("its axes do not merge to {MAX_AXES} kept and {MAX_AXES} reduced ones"));
        };
        let outputs = args.outputs[0].shape.numel();
        let one = if dtype == DType::F32 { 1.0f32.to_bits() } else { 1 };
        let factor = match self.kind {
            Kind::Mean => (1.0 / reduced.count() as f32).to_bits(),
            _ => one,
        };
        let mut stage = Stage { kept, reduced, offset: args.views[0].offset, from: Slot::Input(0), factor };
        let (mut lowered, mut together) = (Lowered::default(), together);
        loop {
            let elements = stage.reduced.count();
            let width = stage.width(together);
            let rows = if width == Width::Column4 { outputs / 4 } else { outputs };
            let count = if width == Width::Row4 { elements / 4 } else { elements };
            let parts = parts(args.profile, rows, count, together);
            let last = parts == 1;
            stage.factor = if last { factor } else { one };
            let to = if last { Slot::Output(0) } else { Slot::Scratch(lowered.scratch.len()) };
            if !last {
                lowered.scratch.push(parts * outputs * 4);
            }
            lowered.launches.push(self.launch(dtype, stage, parts, to, together, args.profile)?);
            if last {
                return Ok(lowered);
            }
            together = together && outputs < 64 && parts >= 64;
            stage = Stage::of_parts(parts, outputs, to);
        }
    }
}

/// How many parts each row is cut into, for so many outputs of so many elements.
pub(crate) fn parts(profile: &Profile, outputs: usize, count: usize, together: bool) -> usize {
    let lanes = if together { together_on(profile) as usize } else { 1 };
    let needed = count.div_ceil(MAX_CHUNK * lanes);
    // A second launch costs about as much as 16,000 elements do on a software adapter.
    if outputs * count < 1 << 14 {
        return needed.max(1);
    }
    let (wanted, least) = if profile.software { (1024, 64) } else { (65_536, 16) };
    let useful = (wanted / (outputs * lanes).max(1)).min(count / (least * lanes));
    let parts = needed.max(useful).max(1);
    // No part may be empty: maxima have nothing to start from.
    count.div_ceil(count.div_ceil(parts).max(1)).max(1)
}

const VARIANTS: &[Variant] = &[
    Variant { workgroup_memory: 4 * MOST, invocations: FEWEST, epilogue: true, ..Variant::plain("workgroup") },
    Variant { invocations: ALONE, epilogue: true, ..Variant::plain("invocation") },
];

impl Kernel for Reduce {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    /// A workgroup for each row where rows are long and contiguous, and barriers cheap.
    fn suits(&self, variant: &Variant, args: &Args<'_>) -> bool {
        if *variant != VARIANTS[0] {
            return true;
        }
        let (kept, reduced) = split_view(&args.views[0], &self.axes);
        let (Some(kept), Some(reduced)) = (Walk::new(&kept), Walk::new(&reduced)) else { return false };
        let along_rows = kept.sizes[2] == 1 || reduced.strides[2] <= kept.strides[2];
        !args.profile.software && along_rows && reduced.count() >= 64
    }

    fn reads(&self, _input: usize, view: &View) -> bool {
        let (kept, reduced) = split_view(view, &self.axes);
        Walk::new(&kept).is_some() && Walk::new(&reduced).is_some()
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        self.stages(args, *variant == VARIANTS[0])
    }
}

/// Elements before, along and behind an axis: `[outer, size, inner]`.
pub(crate) fn around(shape: &Shape, axis: usize) -> [usize; 3] {
    [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
}

impl Value {
    /// The axes as numbers from 0, sorted and distinct; where one does not exist, a mistake.
    #[track_caller]
    pub(crate) fn axes_of(&self, op: &str, axes: &[isize]) -> Result<Vec<usize>, Value> {
        if !self.is_valid() {
            return Err(self.clone());
        }
        let found: Option<Vec<usize>> = axes.iter().map(|&axis| self.shape().axis(axis)).collect();
        let Some(mut axes) = found else {
            let why = format!("axes {axes:?} are not all axes of {}", self.shape());
            return Err(self.graph().mistake(op, &[self], why));
        };
        axes.sort_unstable();
        axes.dedup();
        Ok(axes)
    }

    #[track_caller]
    fn reduce(&self, kind: Kind, axes: &[isize], keepdim: bool) -> Value {
        let op = Reduce { kind, axes: Vec::new(), keepdim };
        match self.axes_of(op.name(), axes) {
            Err(invalid) => invalid,
            Ok(axes) if axes.is_empty() => self.clone(),
            Ok(axes) => self.op(Reduce { axes, ..op }, &[]),
        }
    }

    fn every_axis(&self) -> Vec<isize> {
        (0..self.shape().rank() as isize).collect()
    }

    /// The sum over `axes`, which may count from the end; over no axes it is the value itself. With
    /// `keepdim` they stay, with size 1. The sum of nothing is 0; integers wrap.
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let x = Graph::new().input("x", DType::F32, [2, 3, 4]);
    /// assert_eq!(x.sum(&[0, -1], false).shape().to_vec(), [3]);
    /// assert_eq!(x.sum(&[0, -1], true).shape().to_vec(), [1, 3, 1]);
    /// ```
    #[track_caller]
    pub fn sum(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(Kind::Sum, axes, keepdim)
    }

    /// The sum of all elements, shape `[]`.
    #[track_caller]
    pub fn sum_all(&self) -> Value {
        self.sum(&self.every_axis(), false)
    }

    /// The mean over `axes`, floats; axes as for [`Value::sum`].
    #[track_caller]
    pub fn mean(&self, axes: &[isize], keepdim: bool) -> Value {
        let found = match self.axes_of("mean", axes) {
            Ok(found) => found,
            Err(invalid) => return invalid,
        };
        if self.dtype() != DType::F32 {
            return self.graph().mistake("mean", &[self], "expected f32; cast() first");
        }
        let count: usize = found.iter().map(|&axis| self.shape()[axis]).product();
        if count == 0 {
            return self.graph().mistake("mean", &[self], "the mean of no elements is undefined");
        }
        self.reduce(Kind::Mean, axes, keepdim)
    }

    /// The mean of all elements, shape `[]`.
    #[track_caller]
    pub fn mean_all(&self) -> Value {
        self.mean(&self.every_axis(), false)
    }

    /// The variance over `axes`: `sum((x - mean)^2) / (n - correction)`, with `n` the number of
    /// elements; `correction` 0 is the biased one, 1 Bessel's.
    #[track_caller]
    pub fn var(&self, axes: &[isize], correction: usize, keepdim: bool) -> Value {
        let found = match self.axes_of("var", axes) {
            Ok(found) => found,
            Err(invalid) => return invalid,
        };
        let count: usize = found.iter().map(|&axis| self.shape()[axis]).product();
        if count <= correction {
            let why = format!("expected more than {correction} elements a variance, not {count}");
            return self.graph().mistake("var", &[self], why);
        }
        let centered = self - self.mean(axes, true);
        centered.square().sum(axes, keepdim) * (1.0 / (count - correction) as f64)
    }

    /// The product over `axes`; of nothing it is 1, integers wrap. The gradient, and the gradient's, is right
    /// where factors are 0. Floats whose partial products leave the range of f32 give no defined value.
    #[track_caller]
    pub fn prod(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(Kind::Prod, axes, keepdim)
    }

    /// The largest over `axes`. Equal largest ones share the gradient evenly.
    #[track_caller]
    pub fn max(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(Kind::Max, axes, keepdim)
    }

    /// The smallest over `axes`. Equal smallest ones share the gradient evenly.
    #[track_caller]
    pub fn min(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(Kind::Min, axes, keepdim)
    }

    /// `ln(sum(exp(x)))` over `axes`, without overflow: the largest element is subtracted first.
    #[track_caller]
    pub fn logsumexp(&self, axes: &[isize], keepdim: bool) -> Value {
        let top = self.max(axes, true).stop_gradient();
        let sum = (self - &top).exp().sum(axes, keepdim);
        let sizes: Vec<isize> = sum.shape().iter().map(|&size| size as isize).collect();
        sum.log() + top.reshape(&sizes)
    }
}
