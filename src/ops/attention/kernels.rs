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
#[derive(Clone, Copy)]
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
    /// Whether a launch writes something for each score, and another reads it.
    pub stored: bool,
}

impl Products {
    /// Those of the gradient of queries, from the inputs of a gradient.
    pub fn of_queries(args: &Args<'_>) -> Products {
        let [[.., queries, e], [.., keys, width]] = [0, 2].map(|i| four(&args.inputs[i].shape));
        Products { rows: queries, others: keys, numbers: e + width, width: e, results: 1, stored: false }
    }

    /// Those of the gradients of keys and values.
    pub fn of_keys(args: &Args<'_>) -> Products {
        let [[.., queries, e], [.., keys, width]] = [0, 2].map(|i| four(&args.inputs[i].shape));
        let of_result = e.max(width);
        Products { rows: keys, others: queries, numbers: e + width, width: of_result, results: 2, stored: false }
    }
}

/// The time for these products.
pub(super) fn cost(variant: &Variant, args: &Args<'_>, products: &Products) -> Option<Cost> {
    let Products { rows, others, numbers, width, results, stored } = *products;
    let [n, h, ..] = four(&args.inputs[0].shape);
    let scratch = if stored { 8.0 * [n, h, rows, others].map(|size| size as f64).iter().product::<f64>() } else { 0.0 };
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
    Some(args.cost(&op::Work { style, flops, efficiency, workgroups, scratch, ..op::Work::default() }))
}

/// Rows of whole vec4, at any strides.
pub(super) fn reads(view: &View) -> bool {
    let inner = view.shape.rank() - 1;
    let outer = (0..inner).all(|axis| view.shape[axis] <= 1 || view.strides[axis].is_multiple_of(4));
    view.strides[inner] == 1 && view.offset.is_multiple_of(4) && outer
}

/// Maximum loop iterations per invocation. Some drivers silently stop loops after 65,535.
const MAX_ROUNDS: usize = 12_000;

/// The rows of a loop that a launch may take so that no invocation exceeds [`MAX_ROUNDS`]. For each 32 rows, it takes two
/// products of rows of `numbers` elements in all, with one iteration per two vec4, and two sums of 8 iterations.
fn longest(form: &Form, numbers: usize) -> usize {
    let rounds = (numbers / 8 + 20) * form.scores;
    (MAX_ROUNDS / rounds).max(1) * 32 * form.scores
}

/// Queries whose gradients of scores are in scratch memory: those from `origin` on, in `squares` of 32 (none if 0).
#[derive(Clone, Copy, Default)]
struct Part {
    origin: usize,
    squares: usize,
}

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
    fn uniform(&self, [tiles, chunks]: [usize; 2], range: [usize; 2], last: bool, part: Part) -> Vec<u32> {
        let heads = self.args.inputs[0].shape[1];
        let causal = usize::from(self.scores.causal);
        let mut words: Vec<usize> = vec![self.sizes[0], heads, tiles, chunks, range[0], range[1], causal];
        let bits = |x: f64| (x as f32).to_bits() as usize;
        // Scores are in units of ln 2.
        words.push(bits(self.scores.scale.0 * std::f64::consts::LOG2_E));
        words.extend(self.mask.unwrap_or_default());
        words.extend([bits(if last { self.scores.scale.0 } else { 1.0 }), part.origin, part.squares]);
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

    /// Splits the loop over rows `0..size`.
    fn ranges(&self, form: &Form, size: usize) -> Vec<[usize; 2]> {
        let most = longest(form, self.sizes[3] + self.sizes[4]);
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
        let mut bindings =
            vec![Binding::Uniform(work.uniform([tiles, chunks], range, number + 1 == count, Part::default()))];
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
    let pass = Pass::of_queries(&work, variant);
    Ok(Lowered { launches: pass.launches(variant, work.sizes[2], Slot::Output(0))?, scratch: Vec::new() })
}

pub(super) fn key_gradient(scores: &Scores, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
    let work = Work::new(scores, args, 2);
    let pass = Pass::of_keys(&work, variant);
    Ok(Lowered { launches: pass.launches(variant, work.sizes[1], Slot::Output(0))?, scratch: Vec::new() })
}

/// The gradients of queries, and of keys and values. If it takes less time, the second kernel stores the gradients of
/// the scores, for some queries at a time, and the first one reads them.
pub(super) fn gradients(scores: &Scores, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
    let work = Work::new(scores, args, 2);
    let [batches, queries, keys, ..] = work.sizes;
    let (of_queries, of_keys) = (Pass::of_queries(&work, variant), Pass::of_keys(&work, variant));
    let Some((_, Some(most))) = gradients_cost(variant, args) else {
        let mut launches = of_queries.launches(variant, keys, Slot::Output(0))?;
        launches.extend(of_keys.launches(variant, queries, Slot::Output(1))?);
        return Ok(Lowered { launches, scratch: Vec::new() });
    };
    let squares = most.min(queries).next_multiple_of(ALIGNMENT) / 32;
    let mut launches = Vec::new();
    for origin in (0..queries).step_by(most) {
        let part = Part { origin, squares };
        let range = [origin, queries.min(origin + most)];
        launches.push(of_keys.launch(variant, range, range[1] == queries, Slot::Output(1), part)?);
        let sums = Pass { rows: range[1] - origin, reads_scores: true, ..of_queries };
        for range in work.ranges(&sums.form, keys) {
            launches.push(sums.launch(variant, range, range[1] == keys, Slot::Output(0), part)?);
        }
    }
    Ok(Lowered { launches, scratch: vec![batches * keys.next_multiple_of(ALIGNMENT) * squares * 32 * 4] })
}

/// Stored queries and keys are whole tiles of both kernels.
const ALIGNMENT: usize = 64;

/// Bytes of gradients of scores that are stored at a time: four times as many as q, k, v and dy have, so that memory
/// grows linearly with the length, but within these limits.
const STORED: [u64; 2] = [4 << 20, 256 << 20];

/// The time for both gradients, and the queries for which gradients of scores are stored at a time, if they are.
pub(super) fn gradients_cost(variant: &Variant, args: &Args<'_>) -> Option<(Cost, Option<usize>)> {
    let [[n, h, .., e], [.., keys, width]] = [0, 2].map(|i| four(&args.inputs[i].shape));
    let of_keys = Products::of_keys(args);
    let of_queries = Products::of_queries(args);
    let both = |a: &Products, b: &Products| Some(Cost(cost(variant, args, a)?.0 + cost(variant, args, b)?.0));
    let again = both(&of_keys, &of_queries)?;
    let per_query = 4 * n * h * keys.next_multiple_of(ALIGNMENT);
    let operands: usize = args.inputs[..4].iter().map(|ty| ty.bytes()).sum();
    let bytes = (4 * operands as u64).clamp(STORED[0], STORED[1]).min(args.profile.max_binding);
    let most = (bytes / per_query as u64) as usize;
    let form = Form::of(variant, e.max(width), 2);
    let most = most.min(longest(&form, e + width)) / ALIGNMENT * ALIGNMENT;
    let bound = 7 + usize::from(args.inputs.len() > 5);
    if most == 0 || variant.cooperative || args.profile.usable_storage_buffers() < bound {
        return Some((again, None));
    }
    let stored = both(&Products { stored: true, ..of_keys }, &Products { numbers: 0, ..of_queries })?;
    Some(if stored < again { (stored, Some(most)) } else { (again, None) })
}

/// A kernel of a gradient.
#[derive(Clone, Copy)]
struct Pass<'a> {
    work: &'a Work<'a>,
    form: Form,
    /// Its two entry points; the second is for cooperative matrices.
    entries: [&'static str; 2],
    /// Rows and width of its result.
    rows: usize,
    width: usize,
    /// Whether it reads gradients of scores from scratch memory. Otherwise it stores those of a [`Part`] there.
    reads_scores: bool,
}

impl<'a> Pass<'a> {
    fn of_queries(work: &'a Work<'a>, variant: &Variant) -> Pass<'a> {
        let [_, rows, _, width, _] = work.sizes;
        let entries = ["attention_query_grad", "attention_query_grad_cooperative"];
        Pass { work, form: Form::of(variant, width, 1), entries, rows, width, reads_scores: false }
    }

    fn of_keys(work: &'a Work<'a>, variant: &Variant) -> Pass<'a> {
        let [_, _, rows, e, width] = work.sizes;
        let width = e.max(width);
        let entries = ["attention_key_grad", "attention_key_grad_cooperative"];
        Pass { work, form: Form::of(variant, width, 2), entries, rows, width, reads_scores: false }
    }

    /// The launches of a loop over `size` rows.
    fn launches(&self, variant: &Variant, size: usize, to: Slot) -> Result<Vec<Launch>, String> {
        let ranges = self.work.ranges(&self.form, size).into_iter();
        ranges.map(|range| self.launch(variant, range, range[1] == size, to, Part::default())).collect()
    }

    /// The launch for rows `range` of the loop.
    fn launch(&self, variant: &Variant, range: [usize; 2], last: bool, to: Slot, part: Part) -> Result<Launch, String> {
        let Pass { work, form, entries, rows, width, .. } = self;
        let entry = entries[usize::from(variant.cooperative)];
        let (tiles, chunks, workgroups) = work.grid(form, *rows, *width)?;
        let mut shader = work.shader(entry, variant, form)?;
        if variant.cooperative {
            shader = shader.set("CONTINUED", range[0] > 0);
        }
        let mut bindings = vec![Binding::Uniform(work.uniform([tiles, chunks], range, last, part))];
        let fifth = if self.reads_scores { Slot::Scratch(0) } else { Slot::Input(4) };
        bindings.extend((0..4).map(Slot::Input).chain([fifth]).map(Binding::Read));
        bindings.push(Binding::Write(to));
        if self.reads_scores {
            shader = shader.set("STORED", true).set("MASK", false);
        } else {
            bindings.extend(work.mask.map(|_| Binding::Read(Slot::Input(5))));
            if part.squares > 0 {
                shader = shader.set("STORES", true);
                bindings.push(Binding::Write(Slot::Scratch(0)));
            }
            if form.scores == 2 && !variant.cooperative {
                shader = shader.set("RECALLED", true);
            }
        }
        let label = format!("{} {}", entries[0], variant.name);
        Ok(Launch { label, wgsl: shader.finish()?, entry, bindings, workgroups })
    }
}
