//! Selection of elements and slices by index: gather, index_select, embedding. Their gradients are the sums of
//! [`super::scatter`].

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant,
};
use crate::ops::pad::copy_chunk;
use crate::ops::reduce::outer_size_inner;
use crate::shader::Shader;
use crate::shape::{View, merge_axes, reciprocal};
use crate::tensor::map_data;
use crate::{DType, Data, Shape, Tensor, TensorType, Value};

/// `y[o, j, i] = x[o, index[o, j, i], i]`, where `o` and `i` run over the axes before and after `axis`, which have
/// equal sizes in `x` and `index`. An index that is the same for all `o` or `i` is a broadcast view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Gather {
    axis: usize,
}

/// The bits of a NaN, the result for an out-of-range index.
pub(crate) const NAN: u32 = 0x7fc0_0000;

/// Checks the type of an index and its sizes on the other axes.
pub(crate) fn check_index(x: &TensorType, index: &TensorType, axis: usize) -> Result<(), String> {
    let off_axis = |shape: &Shape| [&shape[..axis], &shape[(axis + 1).min(shape.rank())..]].concat();
    if !matches!(index.dtype, DType::I32 | DType::U32) {
        return Err("expected indices as i32 or u32".into());
    }
    if axis >= x.shape.rank() || x.shape.rank() != index.shape.rank() || off_axis(&x.shape) != off_axis(&index.shape) {
        return Err(format!("expected an index of equal sizes on all axes except axis {axis}"));
    }
    Ok(())
}

/// The indices of a reference tensor, which have been checked before.
pub(crate) fn indices(tensor: &Tensor) -> Vec<usize> {
    match tensor.data() {
        Data::I32(v) => v.iter().map(|&k| k as usize).collect(),
        Data::U32(v) => v.iter().map(|&k| k as usize).collect(),
        _ => Vec::new(),
    }
}

/// An operand viewed as `[outer, size, inner]` around an axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    /// Outer, axis, inner.
    pub sizes: [usize; 3],
    pub strides: [usize; 3],
    pub offset: usize,
}

impl Lines {
    /// `None` if the axes before or after `axis` do not merge into one.
    pub fn new(view: &View, axis: usize) -> Option<Lines> {
        let merged = |from: usize, to: usize| -> Option<usize> {
            let part: Shape = view.shape[from..to].into();
            let merged = merge_axes(&part, &[&view.strides[from..to]]);
            match merged.strides[0][..] {
                [] => Some(0),
                [stride] => Some(stride),
                _ => None,
            }
        };
        let rank = view.shape.rank();
        let strides = [merged(0, axis)?, view.strides[axis], merged(axis + 1, rank)?];
        Some(Lines { sizes: outer_size_inner(&view.shape, axis), strides, offset: view.offset })
    }

    /// Whether each aligned group of four elements along inner is an aligned vec4.
    pub fn by_fours(&self) -> bool {
        let [outer, axis, inner] = self.strides;
        inner == 1 && [self.sizes[2], outer, axis, self.offset].iter().all(|n| n.is_multiple_of(4))
    }

    /// Swaps axis and inner (one of which has size 1).
    pub fn turned(self) -> Lines {
        let Lines { sizes: [outer, axis, inner], strides: [o, a, i], offset } = self;
        Lines { sizes: [outer, inner, axis], strides: [o, i, a], offset }
    }

    /// The same, counted in vec4.
    pub fn quartered(self) -> Lines {
        let [outer, size, inner] = self.sizes;
        let [o, a, _] = self.strides;
        Lines { sizes: [outer, size, inner / 4], strides: [o / 4, a / 4, 1], offset: self.offset / 4 }
    }

    /// Strides and offset, as the vec4 of a uniform.
    pub fn words(&self) -> [u32; 4] {
        let [o, a, i] = self.strides;
        [o, a, i, self.offset].map(|n| n as u32)
    }
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let (x, index) = (inputs[0], inputs[1]);
        check_index(x, index, self.axis)?;
        if x.shape[self.axis] == 0 && index.shape.numel() > 0 {
            return Err(format!("axis {} is empty: there are no elements to select", self.axis));
        }
        Ok(vec![TensorType::new(x.dtype, &index.shape)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![g.when(0, || g.x(1).scatter_sum(self.axis, g.x(0).shape()[self.axis], &g.dy())), None]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let index = indices(inputs[1]);
        let [_, size, inner] = outer_size_inner(&outputs[0].shape, self.axis);
        let bound = inputs[0].shape()[self.axis];
        let at = |(n, k): (usize, &usize)| (n / (size * inner) * bound + k) * inner + n % inner;
        let from: Vec<usize> = index.iter().enumerate().map(at).collect();
        let data = map_data!(inputs[0].data(), v => from.iter().map(|&at| v[at]).collect());
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }

    fn index_bound(&self, input: usize, inputs: &[&TensorType]) -> Option<usize> {
        (input == 1).then(|| inputs[0].shape[self.axis])
    }
}

/// Elements (or vectors) per invocation of a GPU, for results of at least this many; `quotient` divides less than 2^31.
const EACH: usize = 4;
const FULL: std::ops::Range<usize> = 1 << 15..1 << 31;

impl Kernel for Gather {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant { epilogue: true, ..Variant::plain("elements") }];
        VARIANTS
    }

    fn reads(&self, _input: usize, view: &View) -> bool {
        Lines::new(view, self.axis).is_some()
    }

    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let lines = |input: usize| Lines::new(&args.views[input], self.axis).ok_or("its axes do not merge");
        let (mut x, index) = (lines(0)?, lines(1)?);
        let vec4 = x.by_fours() && index.strides[2] == 0;
        if vec4 {
            x = x.quartered();
        }
        let ([outer, size, _], inner) = (index.sizes, x.sizes[2]);
        let count = outer * size * inner;
        // Two loads follow each other; on a full GPU, those of several elements overlap.
        let each = if !args.profile.software && FULL.contains(&count) { EACH } else { 0 };
        let chunk = if each > 0 { each } else { copy_chunk(args.profile, count) };
        let mut uniform = [count, size, inner, chunk, x.sizes[1], NAN as usize].map(|n| n as u32).to_vec();
        uniform.extend([inner, size].into_iter().flat_map(reciprocal).chain([0, 0]));
        uniform.extend(x.words().into_iter().chain(index.words()));
        let t = if args.outputs[0].dtype == DType::F32 { "f32" } else { "u32" };
        Ok(Launch {
            label: "gather".into(),
            wgsl: Shader::new("gather").set("T", t).set("VEC4", vec4).set("EACH", each).finish()?,
            entry: "gather",
            bindings: vec![
                Binding::Uniform(uniform),
                Binding::Read(Slot::Input(0)),
                Binding::Read(Slot::Input(1)),
                Binding::Write(Slot::Output(0)),
                Binding::Status,
            ],
            workgroups: args.profile.grid(count.div_ceil(64 * chunk) as u64)?,
        }
        .into())
    }
}

impl Value {
    /// Slices this value on all axes except `axis` to the sizes of an index.
    #[track_caller]
    pub(crate) fn covered(&self, axis: usize, index: &Shape) -> Value {
        let smaller = |at: &usize| *at != axis && index[*at] < self.shape()[*at];
        let mut part = self.clone();
        for at in (0..self.shape().rank()).filter(smaller) {
            part = part.slice(at as isize, 0, index[at], 1);
        }
        part
    }

    /// The axis, if this value and all of `others` are valid and of equal rank, and the index (the first of `others`)
    /// is no larger than this value on the other axes.
    #[track_caller]
    pub(crate) fn indexed(&self, op: &str, axis: isize, others: &[&Value]) -> Result<usize, Value> {
        let inputs: Vec<&Value> = std::iter::once(self).chain(others.iter().copied()).collect();
        self.graph().admit(op, &inputs)?;
        let location = std::panic::Location::caller();
        let complain = |why: String| Err(self.graph().error_at(location, op, &inputs, why));
        let Some(at) = self.shape().axis(axis) else {
            return complain(self.shape().no_axis(axis));
        };
        let index = others[0].shape();
        let fits = |v: &&Value| v.shape().rank() == index.rank();
        let covers = |v: &Value, i: usize| i == at || index[i] <= v.shape()[i];
        if !inputs.iter().all(fits) || !(0..index.rank()).all(|i| covers(self, i)) {
            return complain(format!(
                "expected an index with {} axes, no larger than {} on all axes except axis {at}",
                self.shape().rank(),
                self.shape()
            ));
        }
        Ok(at)
    }

    /// Selects elements along `axis`: `y[.., j, ..] = x[.., index[.., j, ..], ..]`, in the shape of the index. The
    /// index (i32 or u32) has as many axes as `x` and may be smaller on axes other than `axis`. The gradient of an
    /// element is the sum over its uses, in a fixed order. PyTorch's `gather`.
    ///
    /// Indices fed by the host are checked at each run. Indices computed on the device are checked by the kernel; if
    /// one is out of range, the run returns an error.
    ///
    /// ```
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F32, [2, 3]);
    /// let index = graph.input("index", DType::I32, [2, 1]);
    /// let y = x.gather(1, &index);
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&y])?;
    /// let x = Tensor::new([2, 3], [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// let y = session.run(&program, &[("x", &x), ("index", &Tensor::new([2, 1], [2, 0])?)])?;
    /// assert_eq!(y[0].to_f32(), [3.0, 4.0]);
    /// assert!(session.run(&program, &[("x", &x), ("index", &Tensor::new([2, 1], [3, 0])?)]).is_err());
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn gather(&self, axis: isize, index: &Value) -> Value {
        match self.indexed("gather", axis, &[index]) {
            Ok(axis) => self.covered(axis, index.shape()).op(Gather { axis }, &[index]),
            Err(invalid) => invalid,
        }
    }

    /// Selects slices along `axis` by an index `[K]`; the result has size `K` on this axis. PyTorch's `index_select`.
    #[track_caller]
    pub fn index_select(&self, axis: isize, index: &Value) -> Value {
        if let Err(invalid) = self.graph().admit("index_select", &[self, index]) {
            return invalid;
        }
        let (Some(axis), 1) = (self.shape().axis(axis), index.shape().rank()) else {
            let why = format!("expected an axis of {} and an index [K], not axis {axis}", self.shape());
            return self.graph().error("index_select", &[self, index], why);
        };
        let mut sizes = self.shape().to_vec();
        sizes[axis] = index.dim(0);
        let mut column = vec![1; self.shape().rank() - axis];
        column[0] = index.dim(0) as isize;
        let index = index.reshape(&column).broadcast_to(&sizes.into());
        self.op(Gather { axis }, &[&index])
    }

    /// Looks up rows of a table `[V, D]`: an index of any shape `[..]` gives `[.., D]`. The gradient of a row is the
    /// sum over its uses, in a fixed order. PyTorch's `embedding`; for a layer see [`crate::nn::Embedding`].
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let graph = Graph::new();
    /// let table = graph.input("table", DType::F32, [1000, 64]);
    /// let words = graph.input("words", DType::I32, [8, 20]);
    /// assert_eq!(table.embedding(&words).shape().to_vec(), [8, 20, 64]);
    /// ```
    #[track_caller]
    pub fn embedding(&self, index: &Value) -> Value {
        if let Err(invalid) = self.graph().admit("embedding", &[self, index]) {
            return invalid;
        }
        if self.shape().rank() != 2 {
            return self.graph().error("embedding", &[self, index], "expected a table [V, D] and an index");
        }
        let sizes: Vec<isize> = index.shape().iter().chain(&self.shape()[1..]).map(|&size| size as isize).collect();
        self.index_select(0, &index.reshape(&[index.shape().numel() as isize])).reshape(&sizes)
    }
}

/// Adds the inputs `x` and an index below `bound`.
pub(crate) fn indexed_case(case: Case, x: &[usize], dtype: DType, index: &[usize], bound: usize) -> Case {
    case.float("x", x).input("index", TensorType::new(dtype, index), Fill::Index(bound as u32))
}

/// Cases with one out-of-range index computed on the device: see [`super::out_of_range_cases`].
pub(crate) fn out_of_range() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, width, count) in [(3, 2, 4), (7, 4, 65), (10, 3, 300), (5, 4, 40_000)] {
        for (what, index) in [("the first index past the end", rows as f64), ("index -1", -1.0)] {
            let name = format!("{what} of {rows}, the last of {count}");
            let case = Case::new("gather", name, |x| {
                let index = x[1].concat(&[&x[2].reshape(&[1])], 0).cast(DType::I32);
                vec![x[0].embedding(&index)]
            });
            let case = case
                .float("x", [rows, width])
                .input("index", TensorType::new(DType::F32, [count - 1]), Fill::Index(rows as u32))
                .input("last", TensorType::new(DType::F32, []), Fill::Uniform(index, index));
            cases.push(case.forward_only());
        }
    }
    cases
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let gather = |name: &str, axis: isize, x: &[usize], index: &[usize]| {
        let case = Case::new("gather", name, move |x| vec![x[0].gather(axis, &x[1])]);
        indexed_case(case, x, DType::I32, index, x[if axis < 0 { x.len() - 1 } else { axis as usize }])
    };
    let select = |name: &str, axis: isize, x: &[usize], count: usize| {
        let case = Case::new("gather", name, move |x| vec![x[0].index_select(axis, &x[1])]);
        indexed_case(case, x, DType::U32, &[count], x[axis as usize])
    };
    let table = |name: &str, x: [usize; 2], index: &[usize]| {
        let case = Case::new("gather", name, |x| vec![x[0].embedding(&x[1])]);
        indexed_case(case, &x, DType::I32, index, x[0])
    };
    let mut cases = vec![
        gather("last axis", -1, &[4, 7], &[4, 5]),
        gather("first axis, more indices than elements", 0, &[3, 5], &[9, 5]),
        gather("middle axis", 1, &[2, 6, 3], &[2, 4, 3]),
        gather("index smaller on other axes", 0, &[5, 6, 3], &[4, 2, 2]),
        gather("a whole workgroup", 0, &[64], &[64]),
        gather("one more", 0, &[7], &[65]),
        gather("no index", 0, &[7, 2], &[0, 2]),
        gather("with another empty axis", 0, &[7, 0], &[3, 0]),
        gather("70,001 elements", 0, &[100], &[70_001]).forward_only(),
        gather("several elements of an invocation, in many lines", 1, &[91, 5, 7], &[91, 13, 7]).forward_only(),
        select("slices of the first axis", 0, &[5, 3, 2], 8),
        select("slices of the middle axis", 1, &[3, 5, 4], 7),
        select("columns", 1, &[9, 6], 4),
        table("embedding", [10, 5], &[17]),
        table("embedding by vec4", [10, 8], &[3, 7]),
        table("embedding, one row", [1, 4], &[6]),
        table("embedding of a scalar index", [6, 3], &[]),
        gather("in many long lines", 1, &[91, 5, 7], &[91, 53, 7]).forward_only(),
        table("embedding, large, by vec4", [50, 64], &[9, 257]).forward_only(),
        indexed_case(
            Case::new("gather", "through views", |x| {
                vec![x[0].permute(&[2, 0, 1]).gather(1, &x[1].permute(&[1, 0, 2]).slice(2, 1, 5, 2))]
            }),
            &[6, 2, 4],
            DType::I32,
            &[3, 4, 6],
            6,
        ),
        indexed_case(
            Case::new("gather", "rows of a slice of a table, with and without vec4", |x| {
                vec![x[0].slice(1, 4, 12, 1).embedding(&x[1]), x[0].slice(1, 1, 9, 1).embedding(&x[1])]
            }),
            &[9, 16],
            DType::I32,
            &[5],
            9,
        ),
        indexed_case(
            Case::new("gather", "then scaled, plus a vector", |x| vec![(x[0].embedding(&x[1]) * 3.0 + &x[2]).tanh()]),
            &[11, 8],
            DType::I32,
            &[2, 6],
            11,
        )
        .float("b", [8]),
        indexed_case(
            Case::new("gather", "differentiated again", |x| vec![x[0].square().embedding(&x[1]).square()]),
            &[4, 3],
            DType::I32,
            &[6],
            4,
        ),
    ];
    for (dtype, fill) in [(DType::I32, Fill::Index(1000)), (DType::U32, Fill::Index(1000)), (DType::Bool, Fill::Coin)] {
        cases.push(
            Case::new("gather", format!("{dtype}, with and without vec4"), |x| {
                vec![x[0].embedding(&x[1]), x[0].t().gather(0, &x[2].t())]
            })
            .input("x", TensorType::new(dtype, [5, 4]), fill)
            .input("rows", TensorType::new(DType::I32, [7]), Fill::Index(5))
            .input("columns", TensorType::new(DType::U32, [5, 3]), Fill::Index(4))
            .forward_only(),
        );
    }
    cases
}
