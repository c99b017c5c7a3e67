//! Cumulative sums along an axis.

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Cost, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot,
    Style, Variant, Work,
};
use crate::ops::reduce::{MAX_THREADS, MIN_THREADS, TREE, parts, together_on};
use crate::profile::Profile;
use crate::shader::Shader;
use crate::{DType, Data, Tensor, TensorType, Value};

/// Cumulative sums along `axis`, from its end if `reverse` is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CumSum {
    axis: usize,
    reverse: bool,
}

impl Op for CumSum {
    fn name(&self) -> &'static str {
        "cumsum"
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into()), ("reverse", self.reverse.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs[0].dtype == DType::Bool {
            return Err("expected numbers; cast() the bools".into());
        }
        Ok(vec![inputs[0].clone()])
    }

    /// Each element contributes to its own and all later sums: the cumulative sum of `dy` from the other end.
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![Some(g.dy().op(CumSum { axis: self.axis, reverse: !self.reverse }, &[]))]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let shape = &outputs[0].shape;
        let data: Data = match inputs[0].data() {
            Data::F64(x) => self.sums(x, &outputs[0], |a, b| a + b).into(),
            Data::I32(x) => self.sums(x, &outputs[0], i32::wrapping_add).into(),
            Data::U32(x) => self.sums(x, &outputs[0], u32::wrapping_add).into(),
            other => other.clone(),
        };
        vec![Tensor::of(shape, data)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        match inputs[0].dtype {
            DType::F32 => Rounding::Runs(inputs[0].shape[self.axis]),
            _ => Rounding::Exact,
        }
    }

    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        inputs[0].shape[self.axis]
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl CumSum {
    /// The size and the stride of the axis.
    fn steps(&self, ty: &TensorType) -> (usize, usize) {
        (ty.shape[self.axis], ty.shape[self.axis + 1..].iter().product())
    }

    fn sums<T: Copy>(&self, x: &[T], ty: &TensorType, add: impl Fn(T, T) -> T) -> Vec<T> {
        let (size, inner) = self.steps(ty);
        let mut y = x.to_vec();
        for block in y.chunks_mut((size * inner).max(1)) {
            for k in 1..size {
                let (j, before) = if self.reverse { (size - 1 - k, size - k) } else { (k, k - 1) };
                for i in 0..inner {
                    block[j * inner + i] = add(block[j * inner + i], block[before * inner + i]);
                }
            }
        }
        y
    }
}

/// An invocation per line or part of a line.
const LINES: Variant = Variant::plain("lines");
/// For GPUs: a workgroup per line of adjacent elements.
const ROWS: Variant = Variant { workgroup_memory: 8 * MAX_THREADS, invocations: MIN_THREADS, ..Variant::plain("rows") };

/// Elements that an invocation adds up at a time (HELD in cumsum_rows.wgsl).
const HELD: usize = 4;

/// The longest line of `rows`: its errors grow with the length divided by [`HELD`] times the invocations.
const MAX_ROW: usize = 1 << 16;

impl Kernel for CumSum {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[LINES, ROWS];
        VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let (size, inner) = self.steps(&args.outputs[0]);
        let lines = args.outputs[0].shape.numel() / size.max(1);
        let bytes = |size: usize| 8.0 * (lines * size) as f64;
        Some(args.cost(&match *variant {
            ROWS if inner != 1 || size > MAX_ROW => return None,
            ROWS => {
                let at_once = HELD * together_on(args.profile) as usize;
                let barriers = (lines * size.div_ceil(at_once)) as f64 * (TREE + 3.0);
                let bytes = bytes(size.next_multiple_of(at_once));
                Work { bytes, barriers, workgroups: lines as f64, ..Work::default() }
            }
            _ => {
                let style = if inner == 1 { Style::Apart } else { Style::Adjacent };
                // In chunks, the elements are read twice, in the first and the last of three launches.
                let (launches, more) =
                    if parts(args.profile, lines, size, false) > 1 { (3.0, 1.5) } else { (1.0, 1.0) };
                Work { style, launches, bytes: bytes(size) * more, ..Work::default() }
            }
        }))
    }

    /// Few or long lines are split into chunks, in three steps: the sum of each chunk, the cumulative sums of these,
    /// and the cumulative sums within each chunk.
    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let (size, inner) = self.steps(&args.outputs[0]);
        let lines = args.outputs[0].shape.numel() / size;
        if *variant == ROWS {
            let shader = Shader::new("cumsum_rows").set("T", args.outputs[0].dtype.wgsl_storage());
            let uniform = [lines, size, usize::from(self.reverse), 0].map(|n| n as u32).to_vec();
            return Ok(Launch {
                label: "cumsum rows".into(),
                wgsl: shader.set("THREADS", together_on(args.profile)).finish()?,
                entry: "cumsum_rows",
                bindings: vec![
                    Binding::Uniform(uniform),
                    Binding::Read(Slot::Input(0)),
                    Binding::Write(Slot::Output(0)),
                ],
                workgroups: args.profile.grid(lines as u64)?,
            }
            .into());
        }
        let chunks = parts(args.profile, lines, size, false);
        let whole = Walk { dtype: args.outputs[0].dtype, lines, size, inner, reverse: self.reverse, chunks };
        let [x, y] = [Slot::Input(0), Slot::Output(0)];
        let mut lowered = Lowered::default();
        whole.add_to(&mut lowered, x, y, args.profile)?;
        Ok(lowered)
    }
}

/// Cumulative sums of contiguous `[lines / inner, size, inner]`, with each line split into `chunks`.
struct Walk {
    dtype: DType,
    lines: usize,
    size: usize,
    inner: usize,
    reverse: bool,
    chunks: usize,
}

impl Walk {
    fn launch(&self, walk: bool, [x, before, y]: [Slot; 3], profile: &Profile) -> Result<Launch, String> {
        let &Walk { dtype, lines, size, inner, reverse, chunks } = self;
        let words = [lines, size, inner, usize::from(reverse), chunks, size.div_ceil(chunks), 0, 0];
        Ok(Launch {
            label: if walk { "cumsum" } else { "cumsum chunks" }.into(),
            wgsl: Shader::new("cumsum").set("WALK", walk).set("T", dtype.wgsl_storage()).finish()?,
            entry: "cumsum",
            bindings: vec![
                Binding::Uniform(words.map(|n| n as u32).to_vec()),
                Binding::Read(x),
                Binding::Read(before),
                Binding::Write(y),
            ],
            workgroups: profile.grid((lines * chunks).div_ceil(64) as u64)?,
        })
    }

    fn add_to(&self, lowered: &mut Lowered, x: Slot, y: Slot, profile: &Profile) -> Result<(), String> {
        if self.chunks == 1 {
            lowered.launches.push(self.launch(true, [x, x, y], profile)?);
            return Ok(());
        }
        let bytes = self.lines * self.chunks * 4;
        let [sums, before] = [0, 1].map(|number| Slot::Scratch(lowered.scratch.len() + number));
        lowered.scratch.extend([bytes; 2]);
        lowered.launches.push(self.launch(false, [x, x, sums], profile)?);
        let chunks = parts(profile, self.lines, self.chunks, false);
        let of_sums = Walk { size: self.chunks, inner: 1, reverse: false, chunks, ..*self };
        of_sums.add_to(lowered, sums, before, profile)?;
        lowered.launches.push(self.launch(true, [x, before, y], profile)?);
        Ok(())
    }
}

impl Value {
    /// Cumulative sums along `axis`: `y[j] = x[0] + ... + x[j]`. Integers wrap.
    #[track_caller]
    pub fn cumsum(&self, axis: isize) -> Value {
        match self.shape().axis(axis) {
            Some(axis) => self.op(CumSum { axis, reverse: false }, &[]),
            None if !self.is_valid() => self.clone(),
            None => self.graph().error("cumsum", &[self], self.shape().no_axis(axis)),
        }
    }
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &[usize], axis: isize| {
        Case::new("cumsum", name, move |x| vec![x[0].cumsum(axis)]).float("x", shape)
    };
    // Sums that wrap.
    let integers = |dtype: DType, shape: &[usize], axis: isize| {
        Case::new("cumsum", format!("{dtype}{shape:?} along {axis}"), move |x| vec![x[0].cumsum(axis)])
            .input("x", TensorType::new(dtype, shape), Fill::Index(1 << 30))
            .forward_only()
    };
    const HARD: &[f64] = &[0.5, 0.5, 0.5, f64::INFINITY, 0.5, 0.5, 0.5, 0.5, 0.5, f64::NAN];
    let nan = |name: &str, shape: &[usize], axis: isize| {
        let mut case = case(name, shape, axis).forward_only();
        case.inputs[0].fill = Fill::Special(HARD, -1.0, 1.0);
        case
    };
    vec![
        case("last", &[3, 7], -1),
        case("first of three", &[5, 2, 3], 0),
        case("middle of three", &[2, 4, 3], 1),
        case("one", &[4, 1], 1),
        case("two whole workgroups of lines", &[128, 3], 1),
        case("empty", &[0, 4], 1),
        case("more lines than a workgroup", &[67, 5], 1),
        case("many lines", &[700, 3], 1),
        case("more workgroups than low limits have in two dimensions", &[4200, 2], 1),
        case("two long lines", &[2, 20_001], 1),
        case("long columns", &[9001, 3], 0),
        case("a line of many chunks", &[250_001], 0).forward_only(),
        integers(DType::I32, &[5, 7], 1),
        integers(DType::U32, &[3, 9, 2], 1),
        integers(DType::I32, &[2, 20_001], 1),
        integers(DType::U32, &[9001, 3], 0),
        // All terms are rounded in the same direction, so errors of a plain running sum accumulate.
        Case::new("cumsum", "lines of 4000 tenths", |x| vec![x[0].cumsum(0)])
            .input("x", TensorType::new(DType::F32, [4000, 3]), Fill::Uniform(0.1, 0.1))
            .forward_only(),
        nan("NaN and infinity, rows", &[4, 40], 1),
        nan("NaN and infinity, columns", &[40, 4], 0),
    ]
}
