//! Padding with a constant, around the elements and between them: the inverse of slicing. Padding with the elements
//! themselves is composed of slices.

use crate::op::{
    Args, Attributes, Backward, Binding, Bits, Case, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot,
    Variant,
};
use crate::profile::Profile;
use crate::shader::Shader;
use crate::shape::View;
use crate::{DType, Data, Tensor, TensorType, Value};

/// Placement of the elements of one axis: element `i` goes to `start + i * step` of `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Placement {
    start: usize,
    size: usize,
    step: usize,
}

/// Places the elements in a larger tensor that holds `value` elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pad {
    axes: Vec<Placement>,
    value: Bits,
}

/// How [`Value::pad_with`] continues an axis beyond its ends. Example: [`Value::pad_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Padding {
    /// Mirrored at the first and last element, without repeating them: `c b [a b c] b a`.
    Reflect,
    /// With the first and last element: `a a [a b c] c c`.
    Replicate,
    /// With the other end: `b c [a b c] a b`.
    Circular,
}

/// A merged axis of the kernel: its placement, input size and input stride.
#[derive(Debug, Clone, Copy)]
struct Axis {
    to: Placement,
    from: usize,
    stride: usize,
}

/// Maximum number of axes in the kernel, after merging.
const MAX_AXES: usize = 8;

/// Maximum number of axes padded by one op: contiguous inputs then merge to few enough axes.
const MAX_PADDED: usize = 6;

/// Consecutive elements per invocation of a copy kernel. GPUs coalesce the accesses of neighbouring invocations;
/// software adapters pay for the index arithmetic of every invocation.
pub(crate) fn copy_chunk(profile: &Profile, count: usize) -> usize {
    if profile.software { (count / 4096).clamp(1, 32) } else { 1 }
}

impl Pad {
    /// The axes, outermost first. An axis that is not padded is merged into the next outer one where the strides allow
    /// it.
    fn merged(&self, view: &View) -> Vec<Axis> {
        let mut merged: Vec<Axis> = Vec::new();
        for (axis, &to) in self.axes.iter().enumerate() {
            let (from, stride) = (view.shape[axis], view.strides[axis]);
            let whole = to.start == 0 && to.size == from;
            if whole && from == 1 {
                continue;
            }
            match merged.last_mut() {
                Some(outer) if whole && outer.to.step == 1 && (outer.stride == stride * from || outer.from <= 1) => {
                    let Placement { start, size, .. } = outer.to;
                    outer.to = Placement { start: start * from, size: size * from, step: 1 };
                    outer.from *= from;
                    outer.stride = stride;
                }
                _ => merged.push(Axis { to, from, stride }),
            }
        }
        merged
    }
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn attributes(&self) -> Attributes {
        let of = |f: fn(&Placement) -> usize| self.axes.iter().map(f).collect::<Vec<usize>>()[..].into();
        vec![
            ("start", of(|axis| axis.start)),
            ("size", of(|axis| axis.size)),
            ("step", of(|axis| axis.step)),
            ("value", self.value.0.into()),
        ]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let x = inputs[0];
        x.dtype.check(self.value.0)?;
        if self.axes.len() != x.shape.rank() {
            return Err(format!(
                "expected (before, after) for each of the {} axes, not {} pairs",
                x.shape.rank(),
                self.axes.len()
            ));
        }
        for (axis, (to, &from)) in self.axes.iter().zip(x.shape.iter()).enumerate() {
            let fits = match from {
                0 => to.start <= to.size && to.step > 0,
                _ => {
                    to.step > 0
                        && (from - 1)
                            .checked_mul(to.step)
                            .and_then(|last| last.checked_add(to.start))
                            .is_some_and(|last| last < to.size)
                }
            };
            if !fits {
                return Err(format!(
                    "{from} elements from {} with step {} do not fit {} on axis {axis}",
                    to.start, to.step, to.size
                ));
            }
        }
        Ok(vec![TensorType::new(x.dtype, self.axes.iter().map(|to| to.size).collect::<Vec<_>>())])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let sizes = g.x(0).shape();
        let mut dx = g.dy();
        for (axis, to) in self.axes.iter().enumerate() {
            let end = if sizes[axis] == 0 { to.start } else { to.start + (sizes[axis] - 1) * to.step + 1 };
            if (to.start, end) != (0, to.size) || to.step != 1 {
                dx = dx.slice(axis as isize, to.start, end, to.step);
            }
        }
        vec![Some(dx)]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let (x, y) = (inputs[0], &outputs[0].shape);
        let strides = y.strides();
        let place = View {
            shape: x.shape().clone(),
            // The step is irrelevant for a single element, and might overflow.
            strides: (self.axes.iter().zip(&strides).zip(x.shape().iter()))
                .map(|((to, stride), &from)| if from > 1 { to.step * stride } else { 0 })
                .collect(),
            offset: self.axes.iter().zip(&strides).map(|(to, stride)| to.start * stride).sum(),
        };
        fn scatter<T: Copy>(x: &[T], place: &View, mut y: Vec<T>) -> Vec<T> {
            for (&x, at) in x.iter().zip(place.positions()) {
                y[at] = x;
            }
            y
        }
        let data: Data = match (x.data(), x.dtype().filled(self.value.0, y.numel())) {
            (Data::F64(v), Data::F64(y)) => scatter(v, &place, y).into(),
            (Data::I32(v), Data::I32(y)) => scatter(v, &place, y).into(),
            (Data::U32(v), Data::U32(y)) => scatter(v, &place, y).into(),
            (Data::Bool(v), Data::Bool(y)) => scatter(v, &place, y).into(),
            (_, number) => number, // not reached: floats are F64
        };
        vec![Tensor::of(y, data)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        // A copy; only `value` itself may be rounded to f32.
        if inputs[0].dtype.rounds(self.value.0) { Rounding::Ulps(0.5, 0.0) } else { Rounding::Exact }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for Pad {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant { invocations: 64, ..Variant::plain("elements") }];
        VARIANTS
    }

    fn reads(&self, _input: usize, view: &View) -> bool {
        self.merged(view).len() <= MAX_AXES
    }

    fn lower(&self, _variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let view = &args.views[0];
        let mut axes = self.merged(view);
        if axes.len() > MAX_AXES {
            return Err(format!("expected at most {MAX_AXES} axes after merging, not {}", axes.len()));
        }
        let (mut count, mut offset) = (args.outputs[0].shape.numel(), view.offset);
        // Four elements are copied as one vec4 where sizes, strides and offsets allow it.
        let vec4 = offset % 4 == 0
            && axes.split_last().is_some_and(|(last, outer)| {
                last.stride == 1
                    && last.to.step == 1
                    && [last.to.start, last.to.size, last.from].iter().all(|n| n % 4 == 0)
                    && outer.iter().all(|axis| axis.stride % 4 == 0)
            });
        if vec4 {
            (count, offset) = (count / 4, offset / 4);
            if let Some((last, outer)) = axes.split_last_mut() {
                last.to = Placement { start: last.to.start / 4, size: last.to.size / 4, step: 1 };
                last.from /= 4;
                outer.iter_mut().for_each(|axis| axis.stride /= 4);
            }
        }
        let row = axes.last().map_or(1, |axis| axis.to.size);
        let chunk = copy_chunk(args.profile, count);
        let row_chunks = row.div_ceil(chunk);
        let chunks = count / row * row_chunks;
        let value = args.inputs[0].dtype.word(self.value.0);
        let mut uniform = [chunks, row_chunks, chunk, axes.len(), offset].map(|n| n as u32).to_vec();
        uniform.extend([value, 0, 0]);
        for i in 0..MAX_AXES {
            // Innermost first. Two vec4 per axis: start, size, step, from; stride. Beyond them, axes of one element: the
            // kernel reads the innermost even if all axes have been merged away.
            let axis = axes.len().checked_sub(i + 1).map(|at| axes[at]);
            let words = axis
                .map_or([0, 1, 1, 1, 0, 0, 0, 0], |a| [a.to.start, a.to.size, a.to.step, a.from, a.stride, 0, 0, 0]);
            uniform.extend(words.map(|n| n as u32));
        }
        let text = Shader::new("pad")
            .set("V", if vec4 { "vec4<u32>" } else { "u32" })
            .set("STEPS", axes.iter().any(|axis| axis.to.step != 1));
        Ok(Launch {
            label: "pad".into(),
            wgsl: text.finish()?,
            entry: "pad",
            bindings: vec![Binding::Uniform(uniform), Binding::Read(Slot::Input(0)), Binding::Write(Slot::Output(0))],
            workgroups: args.profile.grid(chunks.div_ceil(64) as u64)?,
        }
        .into())
    }
}

impl Value {
    /// Padded with `value`, which must be representable in the data type. `pads` holds `(before, after)` for each axis,
    /// first axis first. The gradient is the corresponding slice.
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let x = Graph::new().input("x", DType::F32, [2, 3]);
    /// assert_eq!(x.pad(&[(0, 1), (2, 2)], 0.0).shape().to_vec(), [3, 7]);
    /// ```
    #[track_caller]
    pub fn pad(&self, pads: &[(usize, usize)], value: f64) -> Value {
        let padded: Vec<usize> = (0..pads.len()).filter(|&axis| pads[axis] != (0, 0)).collect();
        if pads.len() == self.shape().rank() && padded.is_empty() && self.dtype().check(value).is_ok() {
            return self.clone();
        }
        if let Some(&last) = padded.get(MAX_PADDED) {
            let part = |later: bool| -> Vec<(usize, usize)> {
                pads.iter().enumerate().map(|(axis, &pad)| if (axis >= last) == later { pad } else { (0, 0) }).collect()
            };
            return self.pad(&part(false), value).pad(&part(true), value);
        }
        // If there are more pairs than axes, the op reports an error.
        let size = |axis: usize| self.shape().get(axis).copied().unwrap_or(0);
        let axes = pads.iter().enumerate().map(|(axis, &(before, after))| Placement {
            start: before,
            size: size(axis).saturating_add(before).saturating_add(after),
            step: 1,
        });
        self.op(Pad { axes: axes.collect(), value: Bits(value) }, &[])
    }

    /// Padded with its own elements; `pads` as for [`Value::pad`]. [`Padding::Reflect`] needs more elements than it adds
    /// at either end of an axis, [`Padding::Circular`] as many, and [`Padding::Replicate`] at least one.
    ///
    /// ```
    /// use wgrad::ops::pad::Padding;
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F32, [3]);
    /// let all = [Padding::Reflect, Padding::Replicate, Padding::Circular].map(|how| x.pad_with(&[(2, 1)], how));
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &all.each_ref())?;
    /// let y = session.run(&program, &[("x", &Tensor::new([3], [1.0f32, 2.0, 3.0])?)])?;
    /// assert_eq!(y[0].to_f32(), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    /// assert_eq!(y[1].to_f32(), [1.0, 1.0, 1.0, 2.0, 3.0, 3.0]);
    /// assert_eq!(y[2].to_f32(), [2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn pad_with(&self, pads: &[(usize, usize)], padding: Padding) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        let fits = |(&size, &(before, after)): (&usize, &(usize, usize))| match (before.max(after), padding) {
            (0, _) => true,
            (most, Padding::Reflect) => most < size,
            (most, Padding::Replicate) => size > 0 && most < 1 << 31,
            (most, Padding::Circular) => most <= size,
        };
        if pads.len() != self.shape().rank() || !self.shape().iter().zip(pads).all(fits) {
            let why = format!("cannot add {pads:?} by {padding:?}: expected a pair for each axis, of enough elements");
            return self.graph().error("pad", &[self], why);
        }
        let mut y = self.clone();
        for (axis, &(before, after)) in pads.iter().enumerate().filter(|(_, pads)| **pads != (0, 0)) {
            let size = y.shape()[axis];
            let slice = |start: usize, end: usize| y.slice(axis as isize, start, end, 1);
            let repeated = |at: usize, count: usize| {
                let mut shape = y.shape().to_vec();
                shape[axis] = count;
                slice(at, at + 1).broadcast_to(&shape.into())
            };
            let flipped = |start: usize, end: usize| slice(start, end).flip(&[axis as isize]);
            let [first, last] = match padding {
                Padding::Reflect => [flipped(1, 1 + before), flipped(size - 1 - after, size - 1)],
                Padding::Replicate => [repeated(0, before), repeated(size - 1, after)],
                Padding::Circular => [slice(size - before, size), slice(0, after)],
            };
            let parts = [(before, &first), (size, &y), (after, &last)];
            let parts: Vec<&Value> = parts.iter().filter(|(count, _)| *count > 0).map(|(_, part)| *part).collect();
            y = parts[0].concat(&parts[1..], axis as isize);
        }
        y
    }

    /// The inverse of a slice: element `i` along `axis` goes to `start + i * step` of `size`, zeros elsewhere.
    #[track_caller]
    pub(crate) fn pad_strided(&self, axis: usize, start: usize, size: usize, step: usize) -> Value {
        if self.shape().get(axis) == Some(&size) && start == 0 && step == 1 {
            return self.clone();
        }
        let whole = self.shape().iter().map(|&size| Placement { start: 0, size, step: 1 });
        let mut axes: Vec<Placement> = whole.collect();
        if let Some(to) = axes.get_mut(axis) {
            *to = Placement { start, size, step };
        }
        self.op(Pad { axes, value: Bits(0.0) }, &[])
    }
}

/// Test cases of this op.
pub fn cases() -> Vec<Case> {
    let ints =
        |case: Case, dtype: DType| case.input("x", TensorType::new(dtype, [3, 5]), Fill::Index(1000)).forward_only();
    vec![
        Case::new("pad", "one axis", |x| vec![x[0].pad(&[(2, 1)], 0.0)]).float("x", [5]),
        Case::new("pad", "last two of four, 1.5", |x| vec![x[0].pad(&[(0, 0), (0, 0), (1, 2), (3, 0)], 1.5)])
            .float("x", [2, 3, 4, 5]),
        Case::new("pad", "every axis", |x| vec![x[0].pad(&[(1, 0), (0, 1), (2, 2), (1, 3)], 0.0)])
            .float("x", [2, 3, 2, 3]),
        Case::new("pad", "all of eight axes", |x| vec![x[0].pad(&[(1, 0); 8], 1.5)])
            .float("x", [1, 2, 1, 1, 2, 1, 1, 1]),
        Case::new("pad", "channels, by vec4", |x| vec![x[0].pad(&[(0, 0), (3, 2), (0, 0), (0, 0)], 0.0)])
            .float("x", [2, 3, 4, 8]),
        Case::new("pad", "permuted", |x| vec![x[0].permute(&[2, 0, 1]).pad(&[(1, 1), (0, 0), (0, 2)], -1.0)])
            .float("x", [3, 4, 5]),
        Case::new("pad", "of a slice with steps", |x| vec![x[0].slice(1, 1, 10, 3).pad(&[(0, 0), (1, 1)], 0.0)])
            .float("x", [4, 11]),
        Case::new("pad", "between, as the gradient of a slice", |x| {
            vec![x[0].pad_strided(1, 2, 17, 3), x[0].pad_strided(0, 1, 9, 2)]
        })
        .float("x", [4, 5]),
        Case::new("pad", "by nothing, as the gradient of a slice of one element", |x| {
            vec![x[0].slice(0, 0, 1, 3) * 2.0]
        })
        .float("x", [1, 1]),
        Case::new("pad", "of nothing", |x| vec![x[0].pad(&[(2, 1), (0, 0)], 2.0)]).float("x", [0, 3]),
        Case::new("pad", "to nothing", |x| vec![x[0].pad(&[(1, 0), (0, 0)], 2.0)]).float("x", [3, 0]),
        Case::new("pad", "large", |x| vec![x[0].pad(&[(1, 1), (1, 1)], 0.0)]).float("x", [255, 257]),
        Case::new("pad_with", "reflected", |x| vec![x[0].pad_with(&[(0, 0), (2, 1), (0, 3)], Padding::Reflect) * 2.0])
            .float("x", [2, 3, 5]),
        Case::new("pad_with", "replicated", |x| vec![x[0].pad_with(&[(0, 1), (4, 0)], Padding::Replicate) * 2.0])
            .float("x", [2, 3]),
        Case::new("pad_with", "circular", |x| vec![x[0].pad_with(&[(0, 2), (3, 1)], Padding::Circular) * 2.0])
            .float("x", [2, 3]),
        ints(Case::new("pad", "i32", |x| vec![x[0].pad(&[(0, 1), (1, 0)], -7.0)]), DType::I32),
        ints(Case::new("pad", "u32", |x| vec![x[0].pad(&[(0, 1), (1, 0)], 7.0)]), DType::U32),
        ints(Case::new("pad", "bool", |x| vec![x[0].pad(&[(0, 1), (1, 0)], 1.0)]), DType::Bool),
    ]
}
