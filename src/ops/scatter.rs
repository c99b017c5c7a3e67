//! Sums of elements by index: scatter_add, and the gradients of everything in [`super::gather`]. No atomics: each
//! output owns its sum and adds in index order, so results are bit-identical from run to run.
//!
//! Two variants. `walk`: each output scans the whole index, `outputs * count` comparisons in one launch. `sorted`: the
//! index is sorted on the device (stable, `count log(count)^2` steps), each output's segment is found by binary search,
//! and its terms are summed. Segments may be long (a padding token): whole blocks with a single index are summed first,
//! so that no invocation adds more than a few thousand terms.

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Cost, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot,
    Variant, Work,
};
use crate::ops::gather::{Lines, check_index, indexed_case, indices};
use crate::ops::reduce::outer_size_inner;
use crate::ops::sort::{Sorting, tile_on};
use crate::shader::Shader;
use crate::shape::View;
use crate::{DType, Data, Tensor, TensorType, Value};

/// `z[o, k, i] = sum of src[o, j, i] over the j with index[o, j, i] = k`, for `k` below `size`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ScatterSum {
    axis: usize,
    size: usize,
}

/// The longest index for `walk`.
const LONGEST_WALK: usize = 8192;

/// The longest index: one invocation then adds up to two blocks of terms and 4096 block sums.
const MAX: usize = 1 << 24;

/// Block length for summing whole blocks with a single index; short indices have no blocks.
fn block_of(count: usize) -> Option<usize> {
    (count > LONGEST_WALK).then(|| count.isqrt().next_power_of_two().clamp(1024, 4096))
}

const WALK: Variant = Variant { epilogue: true, ..Variant::plain("walk") };
const SORTED: Variant = Variant { epilogue: true, ..Variant::plain("sorted") };

impl Op for ScatterSum {
    fn name(&self) -> &'static str {
        "scatter_sum"
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into()), ("size", self.size.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let (index, src) = (inputs[0], inputs[1]);
        check_index(src, index, self.axis)?;
        if src.shape != index.shape || src.dtype == DType::Bool {
            return Err("expected numeric source elements, one for each index".into());
        }
        let count = index.shape[self.axis];
        if count > MAX {
            return Err(format!("expected at most {MAX} indices along the axis, not {count}; split the index"));
        }
        if self.size == 0 && index.shape.numel() > 0 {
            return Err(format!("axis {} is empty: there is nothing to add to", self.axis));
        }
        let mut sizes = index.shape.to_vec();
        sizes[self.axis] = self.size;
        Ok(vec![TensorType::new(src.dtype, sizes)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![None, g.when(1, || g.dy().gather(self.axis as isize, g.x(0)))]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let index = indices(inputs[0]);
        let [_, count, inner] = outer_size_inner(inputs[0].shape(), self.axis);
        let to = |n: usize| (n / (count * inner) * self.size + index[n]) * inner + n % inner;
        fn add<T: Copy + Default>(x: &[T], to: impl Fn(usize) -> usize, n: usize, plus: fn(T, T) -> T) -> Vec<T> {
            let mut z = vec![T::default(); n];
            x.iter().enumerate().for_each(|(from, &x)| z[to(from)] = plus(z[to(from)], x));
            z
        }
        let n = outputs[0].shape.numel();
        let data: Data = match inputs[1].data() {
            Data::F64(v) => add(v, to, n, |a, b| a + b).into(),
            Data::I32(v) => add(v, to, n, i32::wrapping_add).into(),
            Data::U32(v) => add(v, to, n, u32::wrapping_add).into(),
            _ => Tensor::zeros(&outputs[0]).into_data(),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        match inputs[1].dtype {
            DType::F32 => Rounding::Runs(inputs[0].shape[self.axis]),
            _ => Rounding::Exact,
        }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }

    fn index_bound(&self, input: usize, _: &[&TensorType]) -> Option<usize> {
        (input == 0).then_some(self.size)
    }
}

/// Layout of the operands, in vec4 where possible.
struct Layout {
    index: Lines,
    src: Lines,
    /// The axes after `axis`, counted in V.
    inner: usize,
    vec4: bool,
    t: &'static str,
    /// Number of distinct index lines along outer and inner.
    lines: [usize; 2],
}

impl Layout {
    fn new(op: &ScatterSum, args: &Args<'_>) -> Result<Layout, String> {
        let lines = |input: usize| Lines::new(&args.views[input], op.axis).ok_or("its axes do not merge");
        let (index, mut src) = (lines(0)?, lines(1)?);
        let vec4 = src.by_fours() && index.strides[2] == 0;
        if vec4 {
            src = src.quartered();
        }
        let own = |place: usize| if index.strides[place] == 0 { 1 } else { index.sizes[place] };
        let t = args.inputs[1].dtype.wgsl_storage();
        Ok(Layout { index, src, inner: src.sizes[2], vec4, t, lines: [own(0), own(2)] })
    }

    /// A shader for these elements.
    fn shader(&self, name: &str) -> Shader {
        Shader::new(name).set("T", self.t).set("VEC4", self.vec4)
    }

    /// Increments of the line number along outer and inner.
    fn line_steps(&self) -> [usize; 2] {
        let step = |place: usize, step: usize| if self.index.strides[place] == 0 { 0 } else { step };
        [step(0, self.lines[1]), step(2, 1)]
    }
}

impl Kernel for ScatterSum {
    fn variants(&self) -> &'static [Variant] {
        &[WALK, SORTED]
    }

    /// Scanning costs one comparison per output and index; sorting costs several launches, in whose time a device
    /// compares this often.
    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let count = args.inputs[0].shape[self.axis];
        let sorting = if args.profile.software { 1 << 21 } else { 1 << 25 };
        let comparisons = match *variant == WALK {
            true if count > LONGEST_WALK => return None,
            true => {
                let vec4 = Layout::new(self, args).is_ok_and(|layout| layout.vec4);
                args.outputs[0].shape.numel() / if vec4 { 4 } else { 1 } * count
            }
            false => sorting,
        };
        Some(args.cost(&Work { flops: comparisons as f64, efficiency: 0.05, ..Work::default() }))
    }

    fn reads(&self, _input: usize, view: &View) -> bool {
        Lines::new(view, self.axis).is_some()
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let layout = Layout::new(self, args)?;
        if *variant == WALK { self.walk(&layout, args) } else { self.sorted(&layout, args) }
    }
}

impl ScatterSum {
    fn walk(&self, layout: &Layout, args: &Args<'_>) -> Result<Lowered, String> {
        let [outer, count, _] = layout.index.sizes;
        let outputs = outer * self.size * layout.inner;
        let mut uniform = [outputs, count, self.size, layout.inner].map(|n| n as u32).to_vec();
        uniform.extend(layout.index.words().into_iter().chain(layout.src.words()));
        Ok(Launch {
            label: "scatter walk".into(),
            wgsl: layout.shader("scatter_walk").finish()?,
            entry: "scatter_walk",
            bindings: vec![
                Binding::Uniform(uniform),
                Binding::Read(Slot::Input(0)),
                Binding::Read(Slot::Input(1)),
                Binding::Write(Slot::Output(0)),
                Binding::Status,
            ],
            workgroups: args.profile.grid(outputs.div_ceil(64) as u64)?,
        }
        .into())
    }

    fn sorted(&self, layout: &Layout, args: &Args<'_>) -> Result<Lowered, String> {
        let grid = |invocations: usize| args.profile.grid(invocations.div_ceil(64) as u64);
        let [outer, count, _] = layout.index.sizes;
        if count == 0 {
            return self.walk(layout, args); // nothing to sort: zeros
        }
        let (lines, [line_outer, line_inner]) = (layout.lines[0] * layout.lines[1], layout.line_steps());
        let starts = lines * (self.size + 1);
        // Scratch order: the sorted index, the starts, the block sums, then the buffers for sorting.
        let (order, starts_slot) = (Slot::Scratch(0), Slot::Scratch(1));
        let mut lowered = Lowered { launches: Vec::new(), scratch: vec![lines * count * 4, starts * 4] };
        let block = block_of(count);
        let blocks = block.map_or(0, |block| count / block);
        let part = if blocks > 0 {
            let width = if layout.vec4 { 16 } else { 4 };
            lowered.scratch.push(outer * blocks * layout.inner * width);
            Slot::Scratch(2)
        } else {
            Slot::Input(1) // bound, not read
        };
        let sorting = Sorting {
            profile: args.profile,
            from: Slot::Input(0),
            keys: layout.index,
            t: "u32",
            descending: false,
            lines: layout.lines,
            tile: tile_on(args.profile, count),
        };
        sorting.add_to(&mut lowered, order, None)?;

        let mut uniform = [starts, count, layout.lines[1], self.size].map(|n| n as u32).to_vec();
        uniform.extend(layout.index.words());
        lowered.launches.push(Launch {
            label: "scatter starts".into(),
            wgsl: Shader::new("scatter_starts").finish()?,
            entry: "scatter_starts",
            bindings: vec![
                Binding::Uniform(uniform),
                Binding::Read(Slot::Input(0)),
                Binding::Read(order),
                Binding::Write(starts_slot),
                Binding::Status,
            ],
            workgroups: grid(starts)?,
        });

        let block = block.unwrap_or(1);
        let [index, src] = [&layout.index, &layout.src].map(Lines::words);
        if blocks > 0 {
            let total = outer * blocks * layout.inner;
            let words = [total, count, layout.inner, block, blocks, line_outer, line_inner, 0].map(|n| n as u32);
            lowered.launches.push(Launch {
                label: "scatter blocks".into(),
                wgsl: layout.shader("scatter_blocks").finish()?,
                entry: "scatter_blocks",
                bindings: vec![
                    Binding::Uniform(words.into_iter().chain(index).chain(src).collect()),
                    Binding::Read(Slot::Input(0)),
                    Binding::Read(Slot::Input(1)),
                    Binding::Read(order),
                    Binding::Write(part),
                ],
                workgroups: grid(total)?,
            });
        }

        let outputs = outer * self.size * layout.inner;
        let words = [outputs, count, self.size, layout.inner, block, blocks, line_outer, line_inner].map(|n| n as u32);
        lowered.launches.push(Launch {
            label: "scatter sum".into(),
            wgsl: layout.shader("scatter_sum").set("BLOCKS", blocks > 0).finish()?,
            entry: "scatter_sum",
            bindings: vec![
                Binding::Uniform(words.into_iter().chain(src).collect()),
                Binding::Read(Slot::Input(1)),
                Binding::Read(order),
                Binding::Read(starts_slot),
                Binding::Read(part),
                Binding::Write(Slot::Output(0)),
            ],
            workgroups: grid(outputs)?,
        });
        Ok(lowered)
    }
}

impl Value {
    /// Sums `src` by this index along `axis`, which gets size `size` in the result.
    #[track_caller]
    pub(crate) fn scatter_sum(&self, axis: usize, size: usize, src: &Value) -> Value {
        self.op(ScatterSum { axis, size }, &[src])
    }

    /// This value plus the elements of `src`, each at its index along `axis`: `y[.., index[.., j, ..], ..] += src[..,
    /// j, ..]`. Duplicate indices are added in the order of `j`, deterministically. The index (i32 or u32) has the same
    /// rank; as in PyTorch's `scatter_add`, it may be smaller than this value on all axes but `axis`, and smaller than
    /// `src` on every axis. Indices out of range are an error, as for [`Value::gather`]; at most 2^24 indices along the
    /// axis.
    ///
    /// ```
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let index = graph.input("index", DType::I32, [3]);
    /// let src = graph.input("src", DType::F32, [3]);
    /// let y = graph.full(DType::F32, [4], 10.0).scatter_add(0, &index, &src);
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&y])?;
    /// let (index, src) = (Tensor::new([3], [2, 0, 2])?, Tensor::new([3], [1.0f32, 2.0, 3.0])?);
    /// let y = session.run(&program, &[("index", &index), ("src", &src)])?;
    /// assert_eq!(y[0].to_f32(), [12.0, 10.0, 14.0, 10.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn scatter_add(&self, axis: isize, index: &Value, src: &Value) -> Value {
        let at = match self.indexed("scatter_add", axis, &[index, src]) {
            Ok(at) => at,
            Err(invalid) => return invalid,
        };
        if (0..index.shape().rank()).any(|i| index.shape()[i] > src.shape()[i]) {
            let why = "expected an index no larger than the source on any axis";
            return self.graph().error("scatter_add", &[self, index, src], why);
        }
        let src = src.covered(at, index.shape()).slice(axis, 0, index.shape()[at], 1);
        let sum = index.scatter_sum(at, self.shape()[at], &src);
        if !sum.is_valid() {
            return sum;
        }
        let missing: Vec<(usize, usize)> =
            self.shape().iter().zip(sum.shape().iter()).map(|(a, b)| (0, a - b)).collect();
        self + sum.pad(&missing, 0.0)
    }
}

/// Test cases with one index out of range, computed on the device: see [`super::out_of_range_cases`].
pub(crate) fn out_of_range() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, width, count) in [(3, 2, 4), (7, 4, 65), (10, 3, 300)] {
        for (what, index) in [("the first index past the end", rows as f64), ("index -1", -1.0)] {
            let name = format!("{what} of {rows}, the last of {count}");
            let case = Case::new("scatter_sum", name, move |x| {
                let index = x[1].concat(&[&x[2].reshape(&[1])], 0).cast(DType::I32);
                let index = index.reshape(&[-1, 1]).broadcast_to(x[0].shape());
                vec![index.scatter_sum(0, rows, &x[0])]
            });
            let case = case
                .float("x", [count, width])
                .input("index", TensorType::new(DType::F32, [count - 1]), Fill::Index(rows as u32))
                .input("last", TensorType::new(DType::F32, []), Fill::Uniform(index, index));
            cases.push(case.forward_only());
        }
    }
    cases
}

/// Test cases of this op.
pub fn cases() -> Vec<Case> {
    let add = |name: &str, axis: isize, x: &[usize], index: &[usize], src: &[usize]| {
        let case = Case::new("scatter_sum", name, move |x| vec![x[0].scatter_add(axis, &x[1], &x[2])]);
        indexed_case(case, x, DType::I32, index, x[axis as usize]).float("src", src)
    };
    // The gradient of an embedding.
    let rows = |name: &str, size: usize, [count, width]: [usize; 2], bound: usize| {
        Case::new("scatter_sum", name, move |x| {
            let index = x[0].reshape(&[-1, 1]).broadcast_to(x[1].shape());
            vec![index.scatter_sum(0, size, &x[1])]
        })
        .input("index", TensorType::new(DType::I32, [count]), Fill::Index(bound as u32))
        .float("src", [count, width])
    };
    let mut cases = vec![
        add("first axis", 0, &[5, 4], &[7, 4], &[7, 4]),
        add("last axis", 1, &[3, 6], &[3, 8], &[3, 8]),
        add("middle axis", 1, &[2, 5, 3], &[2, 4, 3], &[2, 4, 3]),
        add("index smaller everywhere", 2, &[4, 3, 5], &[2, 3, 4], &[3, 3, 6]),
        add("two whole workgroups", 0, &[128], &[3], &[3]),
        add("no index", 0, &[4, 2], &[0, 2], &[3, 2]),
        add("many lines", 1, &[130, 3], &[130, 9], &[130, 9]),
        add("lines of 300 inside", 0, &[4, 7], &[300, 7], &[300, 7]),
        rows("rows", 6, [17, 5], 6),
        rows("rows by vec4", 9, [40, 8], 9),
        rows("rows by vec4, one used", 7, [65, 4], 1),
        rows("300 rows to 1000", 1000, [300, 1], 1000),
        rows("300 rows to one", 1, [300, 3], 1),
        rows("127 rows, 128 starts", 127, [70, 1], 127),
        rows("8200 wide rows to 3", 3, [8200, 65], 3).forward_only(),
        rows("10,000 rows to 40, by vec4", 40, [10_000, 4], 40).forward_only(),
        Case::new("scatter_sum", "runs of whole blocks, by vec4", |x| {
            let run = |k: f64, count: usize| x[0].graph().full(DType::I32, [count, 1], k);
            let index = run(0.0, 2048).concat(&[&run(1.0, 6144)], 0).concat(&[&run(2.0, 1024)], 0);
            vec![index.broadcast_to(x[0].shape()).scatter_sum(0, 4, &x[0])]
        })
        .float("src", [9216, 4])
        .forward_only(),
        indexed_case(
            Case::new("scatter_sum", "long lines on both sides, of a slice", |x| {
                vec![x[0].scatter_add(1, &x[1].slice(0, 1, 4, 1), &x[2])]
            }),
            &[3, 4, 2],
            DType::I32,
            &[4, 9000, 2],
            4,
        )
        .float("src", [3, 9001, 2])
        .forward_only(),
        indexed_case(
            Case::new("scatter_sum", "through views", |x| {
                let index = x[1].permute(&[1, 0, 2]).slice(2, 1, 5, 2);
                vec![x[0].scatter_add(1, &index, &x[2].permute(&[2, 0, 1]))]
            }),
            &[4, 6, 2],
            DType::U32,
            &[3, 4, 6],
            6,
        )
        .float("src", [3, 2, 4]),
        indexed_case(
            Case::new("scatter_sum", "long lines side by side", |x| {
                let index = x[1].permute(&[1, 0]);
                vec![index.scatter_sum(0, 5, &x[0].permute(&[1, 0]))]
            }),
            &[2, 9000],
            DType::I32,
            &[2, 9000],
            5,
        )
        .forward_only(),
        Case::new("scatter_sum", "the update of a table in its epilogue", |x| {
            let index = x[1].reshape(&[-1, 1]).broadcast_to(x[2].shape());
            vec![&x[0] - index.scatter_sum(0, 9, &x[2]) * 0.1]
        })
        .float("table", [9, 8])
        .input("index", TensorType::new(DType::I32, [30]), Fill::Index(9))
        .float("dy", [30, 8]),
    ];
    // All terms round in the same direction: a plain running sum would accumulate the errors.
    for count in [8000, 20_000] {
        let case = Case::new("scatter_sum", format!("{count} tenths to one row"), |x| {
            let index = x[0].graph().full(DType::I32, x[0].shape(), 0.0);
            vec![index.scatter_sum(0, 2, &x[0])]
        });
        let case = case.input("src", TensorType::new(DType::F32, [count, 2]), Fill::Uniform(0.1, 0.1));
        cases.push(case.forward_only());
    }
    for dtype in [DType::I32, DType::U32] {
        cases.push(
            Case::new("scatter_sum", format!("{dtype}, by vec4 and not"), |x| {
                let index = |x: &Value, like: &Value| x.reshape(&[-1, 1]).broadcast_to(like.shape());
                let odd = x[0].slice(1, 1, 8, 2);
                vec![
                    index(&x[1], &x[0]).scatter_sum(0, 5, &(&x[0] - 500.0)),
                    index(&x[1], &odd).scatter_sum(0, 5, &odd),
                ]
            })
            .input("src", TensorType::new(dtype, [12, 8]), Fill::Index(1 << 30))
            .input("index", TensorType::new(DType::I32, [12]), Fill::Index(5))
            .forward_only(),
        );
    }
    cases
}
