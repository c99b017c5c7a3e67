//! Launches of the attention kernels.

use super::{Scores, four};
use crate::op::{self, Args, Binding, Cost, Launch, Lowered, Slot, Style, Variant};
use crate::shader::Shader;
use crate::shape::View;

/// 8 lanes share 16 rows by shuffles: for lavapipe.
const SHUFFLE: Variant = Variant { subgroup: Some(8), invocations: 8, ..Variant::plain("shuffle") };
/// Tiles of 32 x 32 scores in workgroup memory.
const TILE: Variant = Variant { workgroup_memory: 16 * (512 + 256), ..Variant::plain("tile") };
/// Tiles of 64 x 32, with 11 to 16 multiply-adds for each read of workgroup memory, where `tile` has 8 to 11. The
/// gradients would need more registers than there are.
const TILE64: Variant = Variant { workgroup_memory: 16 * (512 + 512), ..Variant::plain("tile64") };

pub(super) static VARIANTS: &[Variant] = &[SHUFFLE, TILE, TILE64];
pub(super) static GRADIENT_VARIANTS: &[Variant] = &[SHUFFLE, TILE];

/// Rows of the result that a workgroup computes.
fn rows(variant: &Variant) -> usize {
    match *variant {
        SHUFFLE => 16,
        TILE64 => 64,
        _ => 32,
    }
}

/// The time of a product per score and number of q or k.
pub(super) fn cost(variant: &Variant, args: &Args<'_>) -> Option<Cost> {
    let [n, h, l, e] = four(&args.inputs[0].shape);
    let keys = args.inputs[1].shape[2];
    let (tiles, software) = (l.div_ceil(rows(variant)), args.profile.software);
    // A software adapter computes no rows beyond the last, and keeps few registers.
    let computed = if software { l } else { tiles * rows(variant) };
    let flops = 2.0 * [n, h, computed, e, keys].map(|size| size as f64).iter().product::<f64>();
    let style = if *variant == SHUFFLE { Style::Shuffled } else { Style::Shared };
    let efficiency = match *variant {
        TILE64 if software => 0.2,
        TILE64 => 0.4,
        _ => 0.3,
    };
    let workgroups = if software { f64::INFINITY } else { (n * h * tiles) as f64 };
    Some(args.cost(&op::Work { style, flops, efficiency, workgroups, ..op::Work::default() }))
}

/// Rows of whole vec4, at any strides.
pub(super) fn reads(view: &View) -> bool {
    let inner = view.shape.rank() - 1;
    let outer = (0..inner).all(|axis| view.shape[axis] <= 1 || view.strides[axis].is_multiple_of(4));
    view.strides[inner] == 1 && view.offset.is_multiple_of(4) && outer
}

/// Rows of one operand per iteration of the kernels' outer loop.
const STEP: usize = 32;

/// Maximum loop iterations per invocation. Some drivers silently stop loops after 65,535.
const MAX_ROUNDS: usize = 12_000;

/// The parameters of a kernel, except for the range of its loop.
struct Work<'a> {
    scores: &'a Scores,
    args: &'a Args<'a>,
    /// Heads (of the whole batch), queries, keys, and the row lengths of q and v.
    sizes: [usize; 5],
    /// Strides and offset of q, k, v, and of dy for the gradients.
    operands: Vec<[usize; 6]>,
    mask: Option<[usize; 5]>,
}

impl<'a> Work<'a> {
    /// `others` is the number of inputs between values and mask; the first of them, dy, is an operand too.
    fn new(scores: &'a Scores, args: &'a Args<'a>, others: usize) -> Work<'a> {
        let [n, h, l, e] = four(&args.inputs[0].shape);
        let [.., s, width] = four(&args.inputs[2].shape);
        let operand = |i: usize| {
            let [offset, batch, head, row] = strides(&args.views[i]).map(|x| x / 4);
            [offset, batch, head, row, args.inputs[i].shape[2], args.inputs[i].shape[3] / 4]
        };
        let mask = args.views.get(3 + others).map(|view| {
            let [offset, batch, head, query] = strides(view);
            [offset, batch, head, query, stride(view, 3)]
        });
        let operands = (0..3 + others.min(1)).map(operand).collect();
        Work { scores, args, sizes: [n * h, l, s, e, width], operands, mask }
    }

    /// The uniform, for rows `range` of the loop.
    fn uniform(&self, tiles: usize, chunks: usize, range: [usize; 2]) -> Vec<u32> {
        let heads = self.args.inputs[0].shape[1];
        let causal = usize::from(self.scores.causal);
        let mut words: Vec<usize> = vec![self.sizes[0], heads, tiles, chunks, range[0], range[1], causal];
        words.push((self.scores.scale.0 as f32).to_bits() as usize);
        words.extend(self.mask.unwrap_or_default());
        words.extend([0; 3]);
        for i in 0..4 {
            words.extend(self.operands.get(i).copied().unwrap_or_default());
            words.extend([0; 2]);
        }
        words.into_iter().map(|word| word as u32).collect()
    }

    /// The shader of a kernel.
    fn shader(&self, kernel: &str, variant: &Variant) -> Shader {
        let shader = Shader::new(kernel).set("SHUFFLE", *variant == SHUFFLE).set("WIDE", *variant == TILE64);
        shader.set("COLUMNS", self.columns()).set("MASK", self.mask.is_some())
    }

    /// vec4 of an output row per invocation; 8 invocations share a row.
    fn columns(&self) -> usize {
        if self.sizes[3].max(self.sizes[4]) <= 32 { 1 } else { 2 }
    }

    /// The number of tiles along `rows`, the number of chunks along `width`, and the grid.
    fn grid(&self, variant: &Variant, rows: usize, width: usize) -> Result<(usize, usize, [u32; 3]), String> {
        let tiles = rows.div_ceil(self::rows(variant));
        let chunks = width.div_ceil(32 * self.columns());
        Ok((tiles, chunks, self.args.profile.grid((self.sizes[0] * tiles * chunks) as u64)?))
    }

    /// Splits the loop over rows `0..size` so that no invocation exceeds [`MAX_ROUNDS`]. A step takes two products,
    /// with one iteration per two vec4, and two sums of 8 iterations.
    fn ranges(&self, size: usize) -> Vec<[usize; 2]> {
        let rounds = (self.sizes[3] + self.sizes[4]) / 8 + 20;
        let most = (MAX_ROUNDS / rounds).max(1) * STEP;
        (0..size).step_by(most).map(|first| [first, size.min(first + most)]).collect()
    }
}

/// Offset and the strides of the first three axes.
fn strides(view: &View) -> [usize; 4] {
    [view.offset, stride(view, 0), stride(view, 1), stride(view, 2)]
}

/// 0 along an axis of one element.
fn stride(view: &View, axis: usize) -> usize {
    if view.shape[axis] > 1 { view.strides[axis] } else { 0 }
}

/// y and lse. If the keys are split, launches pass lse on through two alternating scratch buffers, because
/// workgroups for other columns of y may still read the previous one.
pub(super) fn forward(scores: &Scores, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
    let work = Work::new(scores, args, 0);
    let [batches, queries, keys, _, width] = work.sizes;
    let (tiles, chunks, workgroups) = work.grid(variant, queries, width)?;
    let ranges = work.ranges(keys);
    let count = ranges.len();
    let mut launches = Vec::new();
    for (number, range) in ranges.into_iter().enumerate() {
        let lse = if number + 1 == count { Slot::Output(1) } else { Slot::Scratch(number % 2) };
        let mut bindings = vec![Binding::Uniform(work.uniform(tiles, chunks, range))];
        bindings.extend((0..3).map(|i| Binding::Read(Slot::Input(i))));
        bindings.extend([Binding::Write(Slot::Output(0)), Binding::Write(lse)]);
        bindings.extend(work.mask.map(|_| Binding::Read(Slot::Input(3))));
        if number > 0 {
            bindings.push(Binding::Read(Slot::Scratch((number - 1) % 2)));
        }
        launches.push(Launch {
            label: format!("attention {}", variant.name),
            wgsl: work.shader("attention", variant).set("CONTINUED", number > 0).finish()?,
            entry: "attention",
            bindings,
            workgroups,
        });
    }
    let scratch = vec![batches * queries * 4; (count - 1).min(2)];
    Ok(Lowered { launches, scratch })
}

pub(super) fn query_gradient(scores: &Scores, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
    let work = Work::new(scores, args, 2);
    let [_, queries, keys, e, _] = work.sizes;
    let grid = work.grid(variant, queries, e)?;
    gradient(&work, variant, "attention_query_grad", grid, keys)
}

pub(super) fn key_gradient(scores: &Scores, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
    let work = Work::new(scores, args, 2);
    let [_, queries, keys, e, width] = work.sizes;
    let grid = work.grid(variant, keys, e.max(width))?;
    gradient(&work, variant, "attention_key_grad", grid, queries)
}

/// The launches of a gradient with a loop over `size` rows.
fn gradient(
    work: &Work<'_>,
    variant: &Variant,
    entry: &'static str,
    (tiles, chunks, workgroups): (usize, usize, [u32; 3]),
    size: usize,
) -> Result<Lowered, String> {
    let wgsl = work.shader(entry, variant).finish()?;
    let launch = |range| {
        let mut bindings = vec![Binding::Uniform(work.uniform(tiles, chunks, range))];
        bindings.extend((0..5).map(|i| Binding::Read(Slot::Input(i))));
        bindings.push(Binding::Write(Slot::Output(0)));
        bindings.extend(work.mask.map(|_| Binding::Read(Slot::Input(5))));
        Launch { label: format!("{} {}", entry, variant.name), wgsl: wgsl.clone(), entry, bindings, workgroups }
    };
    Ok(Lowered { launches: work.ranges(size).into_iter().map(launch).collect(), scratch: Vec::new() })
}
