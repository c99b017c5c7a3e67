//! Launches of the attention kernels.

use super::{Scores, four};
use crate::DType;
use crate::op::{self, Args, Binding, Cost, Launch, Lowered, Slot, Style, Variant};
use crate::ops::cooperative::{self, Layout};
use crate::shader::Shader;
use crate::shape::View;

/// 8 lanes share 16 rows by shuffles: for lavapipe.
const SHUFFLE: Variant = Variant { subgroup: Some(8), invocations: 8, ..Variant::plain("shuffle") };
/// Tiles of 64 rows and 64 scores per row in workgroup memory, with 11 to 16 multiply-adds for each read of workgroup
/// memory, where `tile` has 8 to 11.
const TILE64: Variant = Variant { workgroup_memory: 16 * (528 + 1024), ..Variant::plain("tile64") };
/// Tiles of 32 rows and 64 scores per row; a workgroup computes 128 columns of the result, where the others compute 64
/// and so need the scores twice.
const TILE128: Variant = Variant { workgroup_memory: 16 * (512 + 512), ..Variant::plain("tile128") };
/// Tiles of 32 x 32 scores.
const TILE: Variant = Variant { workgroup_memory: 16 * (512 + 256), ..Variant::plain("tile") };

/// For GPUs with cooperative matrices: tiles of 64 rows and 64 scores per row, multiplied by subgroups. A workgroup
/// computes 64 or 128 columns of one result, or 64 of two.
const COOPERATIVE: Variant =
    Variant { cooperative: true, invocations: 128, workgroup_memory: 31760, ..Variant::plain("cooperative") };

pub(super) static VARIANTS: &[Variant] = &[COOPERATIVE, SHUFFLE, TILE64, TILE128, TILE];

/// The sizes of an invocation's part of the work.
struct Form {
    /// Rows of the result in a workgroup.
    rows: usize,
    /// Quads of rows per invocation, if they are in workgroup memory.
    quads: usize,
    /// vec4 of scores per row; 8 invocations share a row.
    scores: usize,
    /// vec4 of a row of the result.
    columns: usize,
}

impl Form {
    /// For results of this width. The gradient of keys and values, with two results, has registers for fewer scores.
    fn of(variant: &Variant, width: usize, results: usize) -> Form {
        let columns = if width <= 32 { 1 } else { 2 };
        let scores = if results == 1 { 2 } else { 1 };
        match *variant {
            SHUFFLE => Form { rows: 16, quads: 1, scores: 1, columns },
            TILE64 => Form { rows: 64, quads: 2, scores, columns },
            TILE128 => Form { rows: 32, quads: 1, scores, columns: 4 },
            COOPERATIVE => {
                let columns = if results == 1 && width > 64 { 4 } else { 2 };
                Form { rows: 64, quads: 2, scores: 2, columns }
            }
            _ => Form { rows: 32, quads: 1, scores: 1, columns },
        }
    }

    /// Workgroups side by side for a result of this width.
    fn chunks(&self, width: usize) -> usize {
        width.div_ceil(32 * self.columns)
    }
}

/// The products of a kernel: for each row of its result and each of `others`, a score, from rows of `numbers` elements,
/// is multiplied by a row of `width` elements for each of the `results`.
pub(super) struct Products {
    pub rows: usize,
    pub others: usize,
    pub numbers: usize,
    pub width: usize,
    pub results: usize,
}

/// The time for these products.
pub(super) fn cost(variant: &Variant, args: &Args<'_>, products: &Products) -> Option<Cost> {
    let Products { rows, others, numbers, width, results } = *products;
    let [n, h, ..] = four(&args.inputs[0].shape);
    let (form, software) = (Form::of(variant, width, results), args.profile.software);
    if variant.cooperative {
        Layout::of(variant, form.rows, args.profile)?;
    }
    let (tiles, chunks) = (rows.div_ceil(form.rows), form.chunks(width));
    // A software adapter computes no rows beyond the last, and keeps few registers.
    let rows = if software && !variant.cooperative { rows } else { tiles * form.rows };
    let numbers = if variant.cooperative { numbers.next_multiple_of(cooperative::TERMS) } else { numbers };
    let others = others.next_multiple_of(32 * form.scores);
    let per_score = chunks * (numbers + 32 * form.columns * results);
    let flops = 2.0 * [n, h, rows, others, per_score].map(|size| size as f64).iter().product::<f64>();
    let style = if *variant == SHUFFLE { Style::Shuffled } else { Style::Shared };
    // `tile` is measured; the others are estimated from the instructions of the compiled loops.
    let efficiency = match *variant {
        TILE64 | TILE128 | COOPERATIVE if software => 0.1,
        COOPERATIVE => 1.5,
        TILE64 => 0.5,
        TILE128 => 0.4,
        _ => 0.3,
    };
    let workgroups = if software { f64::INFINITY } else { (n * h * tiles * chunks) as f64 };
    Some(args.cost(&op::Work { style, flops, efficiency, workgroups, ..op::Work::default() }))
}

/// Rows of whole vec4, at any strides.
pub(super) fn reads(view: &View) -> bool {
    let inner = view.shape.rank() - 1;
    let outer = (0..inner).all(|axis| view.shape[axis] <= 1 || view.strides[axis].is_multiple_of(4));
    view.strides[inner] == 1 && view.offset.is_multiple_of(4) && outer
}

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

    /// The uniform, for rows `range` of the loop. The last launch multiplies the gradients of q and k by the scale.
    fn uniform(&self, tiles: usize, chunks: usize, range: [usize; 2], last: bool) -> Vec<u32> {
        let heads = self.args.inputs[0].shape[1];
        let causal = usize::from(self.scores.causal);
        let mut words: Vec<usize> = vec![self.sizes[0], heads, tiles, chunks, range[0], range[1], causal];
        let bits = |x: f64| (x as f32).to_bits() as usize;
        // Scores are in units of ln 2.
        words.push(bits(self.scores.scale.0 * std::f64::consts::LOG2_E));
        words.extend(self.mask.unwrap_or_default());
        words.extend([bits(if last { self.scores.scale.0 } else { 1.0 }), 0, 0]);
        for i in 0..4 {
            words.extend(self.operands.get(i).copied().unwrap_or_default());
            words.extend([0; 2]);
        }
        words.into_iter().map(|word| word as u32).collect()
    }

    /// The shader of a kernel.
    fn shader(&self, kernel: &str, variant: &Variant, form: &Form) -> Result<Shader, String> {
        let shader = Shader::new(kernel).set("MASK", self.mask.is_some());
        if !variant.cooperative {
            let shader = shader.set("SHUFFLE", *variant == SHUFFLE);
            return Ok(shader.set("QUADS", form.quads).set("SCORES", form.scores).set("COLUMNS", form.columns));
        }
        let profile = self.args.profile;
        let layout = Layout::of(variant, form.rows, profile).ok_or("no cooperative matrices fit the tile")?;
        Ok(layout
            .set(shader, profile)
            .set("IN_RANGE", self.args.stored[..self.operands.len()].iter().all(|&dtype| dtype == DType::F16))
            .set("PANELS", form.columns / 2))
    }

    /// The number of tiles along `rows`, the number of chunks along `width`, and the grid.
    fn grid(&self, form: &Form, rows: usize, width: usize) -> Result<(usize, usize, [u32; 3]), String> {
        let (tiles, chunks) = (rows.div_ceil(form.rows), form.chunks(width));
        Ok((tiles, chunks, self.args.profile.grid((self.sizes[0] * tiles * chunks) as u64)?))
    }

    /// Splits the loop over rows `0..size` so that no invocation exceeds [`MAX_ROUNDS`]. For each 32 rows, it takes two
    /// products, with one iteration per two vec4, and two sums of 8 iterations.
    fn ranges(&self, form: &Form, size: usize) -> Vec<[usize; 2]> {
        let step = 32 * form.scores;
        let rounds = ((self.sizes[3] + self.sizes[4]) / 8 + 20) * form.scores;
        let most = (MAX_ROUNDS / rounds).max(1) * step;
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
    let form = Form::of(variant, width, 1);
    let (tiles, chunks, workgroups) = work.grid(&form, queries, width)?;
    let entry = if variant.cooperative { "attention_cooperative" } else { "attention" };
    let shader = work.shader(entry, variant, &form)?;
    let ranges = work.ranges(&form, keys);
    let count = ranges.len();
    let mut launches = Vec::new();
    for (number, range) in ranges.into_iter().enumerate() {
        let lse = if number + 1 == count { Slot::Output(1) } else { Slot::Scratch(number % 2) };
        let mut bindings = vec![Binding::Uniform(work.uniform(tiles, chunks, range, number + 1 == count))];
        bindings.extend((0..3).map(|i| Binding::Read(Slot::Input(i))));
        bindings.extend([Binding::Write(Slot::Output(0)), Binding::Write(lse)]);
        bindings.extend(work.mask.map(|_| Binding::Read(Slot::Input(3))));
        if number > 0 {
            bindings.push(Binding::Read(Slot::Scratch((number - 1) % 2)));
        }
        launches.push(Launch {
            label: format!("attention {}", variant.name),
            wgsl: shader.clone().set("CONTINUED", number > 0).finish()?,
            entry,
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
    let form = Form::of(variant, e, 1);
    let grid = work.grid(&form, queries, e)?;
    let entries = ["attention_query_grad", "attention_query_grad_cooperative"];
    gradient(&work, variant, &form, entries, grid, keys)
}

pub(super) fn key_gradient(scores: &Scores, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
    let work = Work::new(scores, args, 2);
    let [_, queries, keys, e, width] = work.sizes;
    let form = Form::of(variant, e.max(width), 2);
    let grid = work.grid(&form, keys, e.max(width))?;
    let entries = ["attention_key_grad", "attention_key_grad_cooperative"];
    gradient(&work, variant, &form, entries, grid, queries)
}

/// The launches of a gradient with a loop over `size` rows; the second of its entry points is cooperative.
fn gradient(
    work: &Work<'_>,
    variant: &Variant,
    form: &Form,
    entries: [&'static str; 2],
    (tiles, chunks, workgroups): (usize, usize, [u32; 3]),
    size: usize,
) -> Result<Lowered, String> {
    let entry = entries[usize::from(variant.cooperative)];
    let shader = work.shader(entry, variant, form)?;
    let launch = |range: [usize; 2]| {
        let mut bindings = vec![Binding::Uniform(work.uniform(tiles, chunks, range, range[1] == size))];
        bindings.extend((0..5).map(|i| Binding::Read(Slot::Input(i))));
        bindings.push(Binding::Write(Slot::Output(0)));
        bindings.extend(work.mask.map(|_| Binding::Read(Slot::Input(5))));
        let wgsl = match variant.cooperative {
            true => shader.clone().set("CONTINUED", range[0] > 0).finish()?,
            false => shader.clone().finish()?,
        };
        Ok(Launch { label: format!("{} {}", entries[0], variant.name), wgsl, entry, bindings, workgroups })
    };
    let launches: Result<Vec<Launch>, String> = work.ranges(form, size).into_iter().map(launch).collect();
    Ok(Lowered { launches: launches?, scratch: Vec::new() })
}
