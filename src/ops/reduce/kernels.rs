//! Reduction kernels: one invocation per row or part of a row, or one workgroup per row where barriers are cheap. Long
//! rows take several launches.

use super::rows::{ALONE, MAX_THREADS, MIN_THREADS, RowShader, barriers_per_row, together_on};
use super::{Reduce, ReduceKind, split_view};
use crate::op::{Args, Binding, Cost, Kernel, Launch, Lowered, Machine, Op, Slot, Style, Variant, Work};
use crate::profile::Profile;
use crate::shader::{Shader, Source};
use crate::shape::{View, merge_axes};
use crate::{DType, Shape};

/// Maximum number of kept and of reduced axes in the kernels.
const MAX_AXES: usize = 3;

/// The kept or the reduced axes, merged, as the kernels loop over them.
#[derive(Debug, Clone, Copy)]
struct Walk {
    /// Sizes and strides, outermost first, padded in front with axes of size 1.
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

    /// Whether the innermost axis consists of whole vec4, and all other strides are whole vec4.
    fn by_fours(&self) -> bool {
        self.strides[2] == 1 && self.sizes[2].is_multiple_of(4) && self.steps_by_fours(2)
    }

    /// Whether the strides of the outermost `axes` axes are whole vec4.
    fn steps_by_fours(&self, axes: usize) -> bool {
        self.strides[..axes].iter().all(|stride| stride.is_multiple_of(4))
    }

    /// The same, counted in vec4; `inner` says whether the innermost axis is the contiguous one.
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

/// Whether the kernels can reduce these axes of a row-major tensor.
pub(super) fn walkable(shape: &Shape, axes: &[usize]) -> bool {
    let (kept, reduced) = split_view(&View::contiguous(shape), axes);
    Walk::new(&kept).is_some() && Walk::new(&reduced).is_some()
}

/// One launch: the elements it reads.
#[derive(Clone, Copy)]
struct Stage {
    kept: Walk,
    reduced: Walk,
    offset: usize,
    from: Slot,
    /// The bits of the factor applied to the final sum.
    factor: u32,
}

/// For launches of up to this many elements, compiling a shader without divisions or with vec4 columns takes longer
/// than the launch.
const SMALL: usize = 1 << 16;

impl Stage {
    /// The second of two stages: reduces partial results `[parts, outputs]`.
    fn of_parts(parts: usize, outputs: usize, from: Slot) -> Stage {
        let (kept, reduced) = (Walk::line(outputs, 1), Walk::line(parts, outputs));
        Stage { kept, reduced, offset: 0, from, factor: 1.0f32.to_bits() }
    }

    fn is_small(&self) -> bool {
        self.kept.count() * self.reduced.count() <= SMALL
    }

    /// Whether the kernel needs no divisions.
    fn is_flat(&self) -> bool {
        !self.is_small() && self.kept.is_line() && self.reduced.is_line()
    }

    /// The element type of the arrays, for an invocation per row, or a workgroup per row (`together`): those for vectors
    /// read many elements in long rows, and shorter ones share a text.
    fn width(&self, together: bool) -> Width {
        let Stage { kept, reduced, offset, .. } = self;
        if !offset.is_multiple_of(4) {
            Width::Scalar
        } else if reduced.by_fours() && kept.steps_by_fours(3) && (!together || self.is_flat()) {
            Width::Row4
        } else if !together && !self.is_small() && kept.by_fours() && reduced.steps_by_fours(3) {
            Width::Column4
        } else {
            Width::Scalar
        }
    }
}

/// The bits of the factor 1.
fn one(dtype: DType) -> u32 {
    dtype.word(1.0)
}

/// Whether workgroups, rather than invocations, add up the parts of split sums: if there are few sums of many parts.
pub(crate) fn adds_together(profile: &Profile, parts: usize, outputs: usize) -> bool {
    !profile.software && parts >= 64 && outputs <= 1024
}

/// The last launch of another op whose sums are split: the sum over `parts` (under 16,000) of `[parts, outputs]`, with
/// that op's epilogue.
pub(crate) fn sum_of_parts(
    dtype: DType,
    parts: usize,
    outputs: usize,
    from: Slot,
    to: Slot,
    profile: &Profile,
) -> Result<Launch, String> {
    let stage = Stage { factor: one(dtype), ..Stage::of_parts(parts, outputs, from) };
    Reduce::SUM_OF_PARTS.launch(dtype, stage, 1, to, adds_together(profile, parts, outputs), profile)
}

/// The same for parts with the layout of `view`, of at most three axes, which start `step` elements apart.
pub(crate) fn sum_of_views(
    parts: usize,
    step: usize,
    view: &View,
    from: Slot,
    to: Slot,
    profile: &Profile,
) -> Result<Launch, String> {
    let kept = Walk::new(view).ok_or_else(|| format!("a part has more than {MAX_AXES} axes"))?;
    let stage = Stage { kept, reduced: Walk::line(parts, step), offset: view.offset, from, factor: one(DType::F32) };
    let together = adds_together(profile, parts, view.shape.numel());
    Reduce::SUM_OF_PARTS.launch(DType::F32, stage, 1, to, together, profile)
}

/// The element type of the kernel's arrays.
#[derive(Clone, Copy, PartialEq)]
enum Width {
    /// One scalar.
    Scalar,
    /// Four neighbours in one row, reduced to one number.
    Row4,
    /// The same element of four neighbouring rows: four outputs.
    Column4,
}

/// Maximum elements reduced by one invocation: some drivers stop long loops.
pub(crate) const MAX_CHUNK: usize = 4096;

impl Reduce {
    const SUM_OF_PARTS: Reduce = Reduce { kind: ReduceKind::Sum, axes: Vec::new(), keepdim: false };

    /// The bits of the identity element of max or min; WGSL has no literal for infinity.
    fn identity(&self, dtype: DType) -> Option<u32> {
        Some(match (self.kind, dtype) {
            (ReduceKind::Max, DType::F32) => f32::NEG_INFINITY.to_bits(),
            (ReduceKind::Max, DType::I32) => i32::MIN as u32,
            (ReduceKind::Max, _) => 0,
            (ReduceKind::Min, DType::F32) => f32::INFINITY.to_bits(),
            (ReduceKind::Min, DType::I32) => i32::MAX as u32,
            (ReduceKind::Min, _) => u32::MAX,
            _ => return None,
        })
    }

    fn text(&self, text: Shader, dtype: DType, width: Width, flat: bool) -> Result<Source, String> {
        let kind = match self.kind {
            ReduceKind::Sum | ReduceKind::Mean => 0,
            ReduceKind::Max => 1,
            ReduceKind::Min => 2,
            ReduceKind::Prod => 3,
        };
        let text = text.set("KIND", kind).set("FLAT", flat).set("T", dtype.wgsl_storage());
        text.set("VEC4", width != Width::Scalar).set("ACROSS", width == Width::Column4).finish()
    }

    /// The launch of one stage, which reduces each row in `parts` parts.
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
        let word = self.identity(dtype).unwrap_or(factor);
        let flat = stage.is_flat();
        let width = stage.width(together);
        if width != Width::Scalar {
            (kept, reduced) = (kept.quartered(width == Width::Column4), reduced.quartered(width == Width::Row4));
            offset /= 4;
        }
        let (rows, count, last) = (kept.count(), reduced.count(), parts == 1);
        let mut uniform = [rows, count, parts, count.div_ceil(parts)].map(|n| n as u32).to_vec();
        let [[row_sizes, row_strides], [sizes, strides]] = [kept.words(), reduced.words()];
        for (words, more) in [(row_sizes, word), (row_strides, offset as u32), (sizes, 0), (strides, 0)] {
            uniform.extend(words);
            uniform.push(more);
        }
        let entry = if together { "reduce_rows" } else { "reduce" };
        let shader = if together {
            RowShader::new(Shader::new(entry), [rows * parts, count.div_ceil(parts)], together_on(profile), profile)
        } else {
            RowShader::alone(Shader::new(entry))
        };
        Ok(Launch {
            label: format!("{} {}", self.name(), if last { entry } else { "parts" }),
            workgroups: profile.grid(shader.workgroups(rows * parts))?,
            wgsl: self.text(shader.text, dtype, width, flat)?,
            entry,
            bindings: vec![Binding::Uniform(uniform), Binding::Read(from), Binding::Write(to)],
        })
    }

    /// Reduces in as many stages as needed to keep each invocation's loop short. Partial results are `[parts,
    /// outputs]`, and the next stage reduces them over the first axis.
    fn stages(&self, args: &Args<'_>, together: bool) -> Result<Lowered, String> {
        let dtype = args.inputs[0].dtype;
        let (kept, reduced) = split_view(&args.views[0], &self.axes);
        let (Some(kept), Some(reduced)) = (Walk::new(&kept), Walk::new(&reduced)) else {
            return Err(format!("the axes do not merge to at most {MAX_AXES} kept and {MAX_AXES} reduced ones"));
        };
        let outputs = args.outputs[0].shape.numel();
        let one = one(dtype);
        let factor = match self.kind {
            ReduceKind::Mean => (1.0 / reduced.count() as f32).to_bits(),
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
            together = together && (!args.profile.software || outputs < 64 && parts >= 64);
            stage = Stage::of_parts(parts, outputs, to);
        }
    }
}

/// Invocations of a GPU that hide the time of its memory, each with four loads in flight.
fn busy(profile: &Profile) -> usize {
    MAX_THREADS as usize * Machine::of(profile).fill(Work::default().resident) as usize
}

/// Number of parts per row, for `outputs` rows of `count` elements (or vectors).
pub(crate) fn parts(profile: &Profile, outputs: usize, count: usize, together: bool) -> usize {
    let lanes = if together { together_on(profile) as usize } else { 1 };
    let needed = count.div_ceil(MAX_CHUNK * lanes);
    // A second launch takes about as long as 16,000 elements on a software adapter, and on a GPU as 64 loads one after
    // the other (16 times 0.3 us, with four in flight).
    let short = if profile.software { outputs * count < 1 << 14 } else { count <= 64 * lanes };
    if short {
        return needed.max(1);
    }
    let (wanted, least) = if profile.software { (1024, 64) } else { (busy(profile), if together { 4 } else { 16 }) };
    let useful = (wanted / (outputs * lanes).max(1)).min(count / (least * lanes));
    let parts = needed.max(useful).max(1);
    // No part may be empty: maxima start from an element.
    count.div_ceil(count.div_ceil(parts).max(1)).max(1)
}

/// The cost of reducing each row by a workgroup (`together`) or an invocation. A workgroup reads neighbours if the
/// elements of a row are adjacent (`along_rows`), invocations if neighbouring rows are.
pub(crate) fn cost_of_rows(args: &Args<'_>, together: bool, along_rows: bool) -> Cost {
    let style = match (along_rows == together, together) {
        (true, true) => Style::Shared,
        (true, false) => Style::Adjacent,
        (false, _) => Style::Apart,
    };
    let [elements, rows] = [args.inputs[0], &args.outputs[0]].map(|ty| ty.shape.numel());
    let per_row = elements / rows.max(1);
    let (barriers, lanes) = if together {
        (rows as f64 * barriers_per_row(args.profile, rows, per_row), together_on(args.profile))
    } else {
        (0.0, 1)
    };
    let loads = per_row.div_ceil(parts(args.profile, rows, per_row, together) * lanes as usize) as f64;
    args.cost(&Work { style, bytes: 4.0 * elements as f64, barriers, loads, ..Work::default() })
}

const WORKGROUP: Variant = Variant {
    workgroup_memory: 4 * MAX_THREADS,
    invocations: MIN_THREADS,
    prologue: true,
    epilogue: true,
    ..Variant::plain("workgroup")
};
const INVOCATION: Variant =
    Variant { invocations: ALONE, prologue: true, epilogue: true, ..Variant::plain("invocation") };

impl Kernel for Reduce {
    fn variants(&self) -> &'static [Variant] {
        &[WORKGROUP, INVOCATION]
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let (kept, reduced) = split_view(&args.views[0], &self.axes);
        let along_rows = match (Walk::new(&kept), Walk::new(&reduced)) {
            (Some(kept), Some(reduced)) => kept.sizes[2] == 1 || reduced.strides[2] <= kept.strides[2],
            _ => false,
        };
        Some(cost_of_rows(args, *variant == WORKGROUP, along_rows))
    }

    fn reads(&self, _input: usize, view: &View) -> bool {
        let (kept, reduced) = split_view(view, &self.axes);
        Walk::new(&kept).is_some() && Walk::new(&reduced).is_some()
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        self.stages(args, *variant == WORKGROUP)
    }
}
