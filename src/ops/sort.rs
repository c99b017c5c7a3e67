//! Sorting along an axis of any length: runs are sorted, sixteen elements in registers or, on GPUs, up to 4,096 in
//! workgroup memory, then merged pairwise, sixteen elements per invocation. Stable, with identical results on every
//! device.

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Cost, Fill, Kernel, Launch, Lowered, Lowering, Nan, Op, Rounding, Slot,
    Style, Variant, Work,
};
use crate::ops::gather::Lines;
use crate::ops::reduce::outer_size_inner;
use crate::profile::Profile;
use crate::shader::Shader;
use crate::shape::{View, reciprocal};
use crate::{DType, Tensor, TensorType, Value};

/// The indices along one axis that sort the elements. Stable; NaN is the largest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Argsort {
    axis: usize,
    descending: bool,
}

impl Op for Argsort {
    fn name(&self) -> &'static str {
        "argsort"
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into()), ("descending", self.descending.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs[0].dtype == DType::Bool {
            return Err("expected numbers; cast() the bools".into());
        }
        Ok(vec![TensorType::new(DType::I32, &inputs[0].shape)])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        vec![None]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let x = inputs[0].to_f64(); // exact for every type
        let [outer, size, inner] = outer_size_inner(&outputs[0].shape, self.axis);
        let mut y = vec![0; x.len()];
        for line in 0..outer * inner {
            let start = line / inner * size * inner + line % inner;
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|&a, &b| {
                let (a, b) = (x[start + a * inner], x[start + b * inner]);
                // NaN is unordered; it counts as the largest.
                let ascending = a.partial_cmp(&b).unwrap_or(a.is_nan().cmp(&b.is_nan()));
                if self.descending { ascending.reverse() } else { ascending }
            });
            for (place, p) in order.into_iter().enumerate() {
                y[start + place * inner] = p as i32;
            }
        }
        vec![Tensor::of(&outputs[0].shape, y)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn nan(&self, _: usize) -> Nan {
        Nan::Extreme
    }

    fn reads_subnormals(&self) -> bool {
        true
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// What is sorted: lines of `keys`, with line number `o * inner + i`.
pub(crate) struct Sorting<'a> {
    pub profile: &'a Profile,
    /// The buffer of the keys, their WGSL type and their layout.
    pub from: Slot,
    pub keys: Lines,
    pub t: &'a str,
    pub descending: bool,
    /// Number of distinct lines of `keys` along outer and inner.
    pub lines: [usize; 2],
    /// Elements per run that a workgroup sorts (see [`tile`]); without it, an invocation sorts [`RUN`].
    pub tile: Option<usize>,
}

/// Elements per run sorted by the first launch, and per invocation of the merge launches.
const RUN: usize = 16;

/// Smallest and largest number of elements that a workgroup sorts in workgroup memory, at 8 bytes each.
const TILES: [usize; 2] = [256, 4096];

/// Elements per invocation of `sort_tile`.
const EACH: usize = 8;

/// How many of `count` elements a workgroup of a device that can run [`TILE`] sorts at a time.
fn tile(profile: &Profile, count: usize) -> usize {
    let most = (profile.max_workgroup_memory as usize / 8).min(profile.max_invocations as usize * EACH);
    let most = TILES[1].min(1 << most.max(1).ilog2());
    count.next_power_of_two().clamp(TILES[0].min(most), most)
}

/// The tile for sorting as a part of another op: on GPUs with enough workgroup memory, and if the elements fill one.
pub(crate) fn tile_on(profile: &Profile, count: usize) -> Option<usize> {
    let fits = profile.max_workgroup_memory >= TILE.workgroup_memory;
    (!profile.software && fits && count >= TILES[0]).then(|| tile(profile, count))
}

impl Sorting<'_> {
    /// The default layout of the order: `[lines, count]`.
    fn rows(&self) -> Lines {
        let ([outer, inner], count) = (self.lines, self.keys.sizes[1]);
        Lines { sizes: [outer, count, inner], strides: [inner * count, 1, count], offset: 0 }
    }

    /// Adds the launches that write the order to `to`, in the layout `layout` or, by default, `[lines, count]`.
    pub fn add_to(&self, lowered: &mut Lowered, to: Slot, layout: Option<Lines>) -> Result<(), String> {
        let count = self.keys.sizes[1];
        let lines = self.lines[0] * self.lines[1];
        let first_run = self.tile.unwrap_or(RUN);
        let layout = layout.unwrap_or(self.rows());
        // Each pass halves the number of sorted runs, until one is left. Two scratch buffers of pairs alternate.
        let merges = count.div_ceil(first_run).next_power_of_two().trailing_zeros() as usize;
        let scratch = lowered.scratch.len();
        lowered.scratch.extend(vec![lines * count * 8; merges.min(2)]);
        let pairs = |pass: usize| Slot::Scratch(scratch + pass % 2);
        for pass in 0..=merges {
            let last = pass == merges;
            let target = if last { to } else { pairs(pass) };
            let run = first_run << pass.saturating_sub(1);
            let row_chunks = count.div_ceil(if pass == 0 { first_run } else { RUN });
            let chunks = lines * row_chunks;
            let mut uniform = [chunks, row_chunks, count, run].map(|n| n as u32).to_vec();
            uniform.extend([row_chunks, self.lines[1]].into_iter().flat_map(reciprocal));
            uniform.extend([self.lines[1] as u32, 0, 0, 0]);
            uniform.extend([self.keys, layout].iter().flat_map(Lines::words));
            let (text, entry, read) = match pass {
                0 => {
                    let (text, entry) = match self.tile {
                        Some(tile) => (Shader::new("sort_tile").set("TILE", tile), "sort_tile"),
                        None => (Shader::new("sort_blocks").set("RUN", RUN), "sort_blocks"),
                    };
                    (text.set("DESCENDING", self.descending).set("T", self.t), entry, self.from)
                }
                _ => (Shader::new("sort_merge").set("RUN", RUN), "sort_merge", pairs(pass - 1)),
            };
            let workgroups = if pass == 0 && self.tile.is_some() { chunks } else { chunks.div_ceil(64) };
            lowered.launches.push(Launch {
                label: entry.replace('_', " "),
                wgsl: text.set("LAST", last).finish()?,
                entry,
                bindings: vec![Binding::Uniform(uniform), Binding::Read(read), Binding::Write(target)],
                workgroups: self.profile.grid(workgroups as u64)?,
            });
        }
        Ok(())
    }
}

const MERGE: Variant = Variant::plain("merge");
/// For GPUs: fewer passes, since a workgroup sorts the first runs.
const TILE: Variant =
    Variant { workgroup_memory: 8 * TILES[0] as u32, invocations: (TILES[0] / EACH) as u32, ..Variant::plain("tile") };

impl Kernel for Argsort {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[MERGE, TILE];
        VARIANTS
    }

    /// Passes over the pairs, and the barriers of the network: one per three steps.
    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let count = args.inputs[0].shape[self.axis];
        let elements = args.inputs[0].shape.numel() as f64;
        let passes = |run: usize| f64::from(count.div_ceil(run).next_power_of_two().ilog2() + 1);
        let work = |passes: f64| Work { launches: passes, bytes: 16.0 * elements * passes, ..Work::default() };
        Some(args.cost(&match *variant {
            TILE => {
                let tile = tile(args.profile, count);
                let rounds: u32 = (4..=tile.ilog2()).map(|steps| steps.div_ceil(3)).sum();
                let tiles = elements / count.max(1) as f64 * count.div_ceil(tile) as f64;
                Work { barriers: f64::from(rounds + 1) * tiles, ..work(passes(tile)) }
            }
            _ => Work { style: Style::Apart, ..work(passes(RUN)) },
        }))
    }

    fn reads(&self, _input: usize, view: &View) -> bool {
        Lines::new(view, self.axis).is_some()
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let keys = Lines::new(&args.views[0], self.axis).ok_or("its axes do not merge")?;
        let y = Lines::new(&View::contiguous(&args.outputs[0].shape), self.axis).ok_or("its axes do not merge")?;
        let sorting = Sorting {
            profile: args.profile,
            from: Slot::Input(0),
            keys,
            t: args.inputs[0].dtype.wgsl_storage(),
            descending: self.descending,
            lines: [keys.sizes[0], keys.sizes[2]],
            tile: (*variant == TILE).then(|| tile(args.profile, keys.sizes[1])),
        };
        let mut lowered = Lowered::default();
        sorting.add_to(&mut lowered, Slot::Output(0), Some(y))?;
        Ok(lowered)
    }
}

impl Value {
    /// The indices along `axis`, as i32, that sort the elements. Stable; any numeric type and any length; NaN counts as
    /// the largest.
    #[track_caller]
    pub fn argsort(&self, axis: isize, descending: bool) -> Value {
        match self.axes_of("argsort", &[axis]) {
            Ok(axes) => self.op(Argsort { axis: axes[0], descending }, &[]),
            Err(invalid) => invalid,
        }
    }

    /// The elements sorted along `axis`, and their indices before sorting (see [`Value::argsort`]). Gradients flow back
    /// to the original positions.
    ///
    /// ```
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let (values, numbers) = graph.input("x", DType::F32, [4]).sort(0, true);
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&values, &numbers])?;
    /// let y = session.run(&program, &[("x", &Tensor::new([4], [2.0f32, 7.0, 1.0, 7.0])?)])?;
    /// assert_eq!((y[0].to_f32(), y[1].to_f64()), (vec![7.0, 7.0, 2.0, 1.0], vec![1.0, 3.0, 0.0, 2.0]));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn sort(&self, axis: isize, descending: bool) -> (Value, Value) {
        let order = self.argsort(axis, descending);
        (self.gather(axis, &order), order)
    }

    /// The `k` largest elements along `axis` (without `largest`, the smallest), in order, and their indices; ties go to
    /// the first. Gradients flow to the selected elements.
    #[track_caller]
    pub fn topk(&self, k: usize, axis: isize, largest: bool) -> (Value, Value) {
        if self.shape().axis(axis).is_some_and(|axis| k > self.shape()[axis]) {
            let why = format!("there are no {k} elements along axis {axis} of {}", self.shape());
            let wrong = self.graph().error("topk", &[self], why);
            return (wrong.clone(), wrong);
        }
        let order = self.argsort(axis, largest).slice(axis, 0, k, 1);
        (self.gather(axis, &order), order)
    }
}

/// Unordered values, values ordered only by their bits, and neighbours.
const HARD: &[f64] = &{
    let (nan, inf, next) = (f64::NAN, f64::INFINITY, -1.0 - f32::EPSILON as f64);
    [0.5, nan, 1e-40, -inf, 0.0, -0.0, inf, -1e-40, -nan, 3e38, -3e38, 1e-45, inf, nan, -1.0, -inf, 0.0, 2.0, nan, next]
};

/// Test cases of this family.
pub fn cases() -> Vec<Case> {
    let of = |case: Case, shape: &[usize], fill: Fill| case.input("x", TensorType::new(DType::F32, shape), fill);
    let mut cases = Vec::new();
    for size in [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 255, 256, 257, 1000, 1025, 5000] {
        let case = Case::new("argsort", format!("rows of {size}, and columns down, with ties"), |x| {
            vec![x[0].argsort(-1, false), x[0].t().argsort(0, true)]
        });
        cases.push(of(case, &[3, size], Fill::Index(200)).forward_only());
    }
    let sort = |name: &str, axis: isize, down: bool| {
        Case::new("argsort", name, move |x| {
            let (values, order) = x[0].sort(axis, down);
            vec![values, order]
        })
    };
    cases.extend([
        of(sort("the last axis with its values", -1, false), &[4, 9], Fill::Distinct),
        of(sort("down a middle axis with its values", 1, true), &[2, 70, 3], Fill::Distinct),
        of(sort("nothing", 1, true), &[2, 0, 3], Fill::Distinct),
        of(sort("many short lines", 1, true), &[150, 5, 3], Fill::Distinct),
        of(sort("20,000 with ties", 0, true), &[20_000], Fill::Index(3000)).forward_only(),
        of(
            Case::new("argsort", "of a view", |x| vec![x[0].permute(&[2, 0, 1]).slice(0, 1, 9, 3).argsort(2, false)]),
            &[3, 5, 10],
            Fill::Distinct,
        )
        .forward_only(),
        of(
            Case::new("argsort", "of a slice of random numbers", |x| vec![x[0].slice(1, 3, 40, 1).argsort(1, true)]),
            &[4, 50],
            Fill::Uniform(-1.0, 1.0),
        )
        .forward_only(),
        of(
            Case::new("argsort", "two long columns", |x| vec![x[0].argsort(0, false)]),
            &[2100, 2],
            Fill::Uniform(-1.0, 1.0),
        )
        .forward_only(),
        of(
            Case::new("argsort", "topk and least", |x| {
                let ((top, at), (least, _)) = (x[0].topk(3, 1, true), x[0].topk(2, 0, false));
                vec![top, at, least]
            }),
            &[5, 80],
            Fill::Distinct,
        ),
        of(
            Case::new("argsort", "NaN, infinities and subnormal numbers", |x| {
                [x[0].sort(0, false), x[0].sort(0, true), x[0].topk(3, 0, true)]
                    .map(|(values, order)| [values, order])
                    .concat()
            }),
            &[40],
            Fill::Special(HARD, -1.0, 1.0),
        )
        .forward_only(),
        Case::new("argsort", "negative i32 down", |x| vec![(&x[0] - 500.0).argsort(0, true)])
            .input("x", TensorType::new(DType::I32, [300]), Fill::Index(1000))
            .forward_only(),
        Case::new("argsort", "large u32", |x| vec![(&x[0] * 3.0).argsort(0, false)])
            .input("x", TensorType::new(DType::U32, [300]), Fill::Index(1 << 30))
            .forward_only(),
    ]);
    cases.extend([DType::I32, DType::U32].map(|dtype| {
        Case::new("argsort", format!("{dtype} with ties"), |x| vec![x[0].argsort(0, false)])
            .input("x", TensorType::new(dtype, [300]), Fill::Index(100))
            .forward_only()
    }));
    cases
}
