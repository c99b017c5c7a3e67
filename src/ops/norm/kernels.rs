//! Normalisation kernels. A workgroup (or invocation) per row reads the row once. Where rows are not contiguous, too
//! few or too long, or barriers are expensive: moments of parts of rows, a merge, and an elementwise pass.

use super::{MAX_ROW, Moments, NormKind, Normalize, NormalizeGrad, sizes};
use crate::Shape;
use crate::op::{Args, Binding, Cost, Kernel, Launch, Lowered, Slot, Style, Variant, Work};
use crate::ops::reduce::{ALONE, MAX_CHUNK, MAX_THREADS, MIN_THREADS, RowShader, barriers_per_row, parts};
use crate::profile::Profile;
use crate::shader::Shader;
use crate::shape::reciprocal;

static VARIANTS: &[Variant] = &[
    Variant {
        workgroup_memory: 8 * MAX_THREADS,
        invocations: MIN_THREADS,
        epilogue: true,
        ..Variant::plain("workgroup")
    },
    Variant { epilogue: true, ..Variant::plain("invocation") },
    Variant { epilogue: true, ..Variant::plain("parts") },
];

/// Whether a variant uses one workgroup per row.
fn is_workgroup(variant: &Variant) -> bool {
    *variant == VARIANTS[0]
}

/// Whether a variant uses one invocation per row.
fn is_invocation(variant: &Variant) -> bool {
    *variant == VARIANTS[1]
}

/// The longest row for a workgroup: with the fewest invocations, each loops over its share three times in fewer than
/// 16,000 iterations.
const LONGEST: usize = 1 << 19;
const _: () = assert!(3 * LONGEST.div_ceil(MIN_THREADS as usize) < 16_000);

/// The longest row for one invocation, in vectors; it loops over the row at most three times.
const SHORT: usize = 4096;

/// The element type of the shaders' arrays.
#[derive(Clone, Copy, PartialEq)]
enum Width {
    /// One scalar.
    Scalar,
    /// Four neighbours in one row.
    Row4,
    /// The same element of four neighbouring rows.
    Column4,
}

/// The layout `[outer, rows, inner]` as the shaders see it, counted in vectors.
struct Grid {
    width: Width,
    outer: usize,
    rows: usize,
    inner: usize,
}

impl Grid {
    fn new(shape: &Shape) -> Grid {
        let [outer, rows, inner] = sizes(shape);
        let width = match (inner, rows) {
            (inner, _) if inner.is_multiple_of(4) => Width::Row4,
            (1, rows) if rows.is_multiple_of(4) => Width::Column4,
            _ => Width::Scalar,
        };
        let by = |which: Width, n: usize| if width == which { n / 4 } else { n };
        Grid { width, outer, rows: by(Width::Column4, rows), inner: by(Width::Row4, inner) }
    }

    /// Vectors per row.
    fn size(&self) -> usize {
        self.outer * self.inner
    }

    /// Elements of the same row per vector.
    fn lanes(&self) -> usize {
        if self.width == Width::Row4 { 4 } else { 1 }
    }

    /// Whether neighbouring elements belong to different rows.
    fn columns(&self) -> bool {
        self.inner == 1 && self.width != Width::Row4
    }

    /// The shader for this vector width.
    fn text(&self, text: Shader) -> Shader {
        text.set("VEC4", self.width != Width::Scalar).set("ACROSS", self.width == Width::Column4)
    }

    /// The number of parts per row.
    fn parts(&self, profile: &Profile) -> usize {
        // One invocation merges all parts of a row: at most MAX_CHUNK, as long as MAX_ROW is its square.
        const _: () = assert!(MAX_ROW <= MAX_CHUNK * MAX_CHUNK);
        let least = self.size().div_ceil(MAX_CHUNK);
        // On GPUs a workgroup merges them.
        let most = if profile.software { 256 } else { 1024 };
        parts(profile, self.rows, self.size(), false).min(least.max(most))
    }

    /// The uniform of the elementwise pass.
    fn words(&self, eps: f64) -> Vec<u32> {
        let count = self.rows * self.size();
        let mut words = [self.rows, self.inner, count].map(|n| n as u32).to_vec();
        words.push((eps as f32).to_bits());
        words.extend(reciprocal(self.inner).into_iter().chain(reciprocal(self.rows)));
        words
    }
}

/// What differs between the launches of the two ops.
struct NormPlan<'a> {
    kind: NormKind,
    args: &'a Args<'a>,
    grid: Grid,
    /// Shaders: a workgroup per row, an invocation per row, moments or sums of parts, the elementwise pass.
    shaders: [&'static str; 4],
    /// The inputs that are reduced.
    data: Vec<Slot>,
    /// Bindings after the uniform, for the row kernels and for the elementwise pass, which reads its sums from `sums`.
    bound: [Vec<Binding>; 2],
    /// The buffer with the moments or sums of whole rows.
    sums: Slot,
}

impl NormPlan<'_> {
    fn lower(self, variant: &Variant) -> Result<Lowered, String> {
        if is_workgroup(variant) || is_invocation(variant) { self.rows(is_workgroup(variant)) } else { self.in_parts() }
    }

    /// One launch that processes whole rows.
    fn rows(self, workgroup: bool) -> Result<Lowered, String> {
        let NormPlan { kind, args, grid, shaders: [together, alone, ..], data, bound: [bound, _], .. } = self;
        let size = grid.size();
        let entry = if workgroup { together } else { alone };
        let text = grid.text(Shader::new(entry)).set("CENTERED", kind.centered);
        let width = if grid.width == Width::Scalar { 1 } else { 4 };
        let shader = match workgroup {
            true => RowShader::keeping(text, [grid.rows, size], data.len() * width, args.profile),
            false => RowShader::alone(text),
        };
        let n = (size * grid.lanes()) as f32;
        let words = vec![grid.rows as u32, size as u32, n.to_bits(), (kind.eps.0 as f32).to_bits()];
        Ok(Launch {
            label: entry.into(),
            workgroups: args.profile.grid(shader.workgroups(grid.rows))?,
            wgsl: shader.text.finish()?,
            entry,
            bindings: std::iter::once(Binding::Uniform(words)).chain(bound).collect(),
        }
        .into())
    }

    fn in_parts(self) -> Result<Lowered, String> {
        let NormPlan { kind, args, grid, shaders: [_, _, sums, apply], data, bound: [_, bound], .. } = self;
        let mut lowered = Lowered::default();
        let whole = if let Slot::Scratch(_) = self.sums {
            lowered.scratch.push(2 * args.inputs[0].shape[1] * 4);
            Slot::Scratch(0)
        } else {
            self.sums
        };
        let moments = kind.centered && matches!(whole, Slot::Output(_));
        let parts = Parts { grid: &grid, args, centered: kind.centered, moments, root: false };
        parts.add_to(&mut lowered, sums, data, whole)?;
        lowered.launches.push(Launch {
            label: apply.into(),
            wgsl: grid.text(Shader::new(apply)).finish()?,
            entry: apply,
            bindings: std::iter::once(Binding::Uniform(grid.words(kind.eps.0))).chain(bound).collect(),
            workgroups: args.profile.grid((grid.rows * grid.size()).div_ceil(256) as u64)?,
        });
        Ok(lowered)
    }
}

/// Computes two values per row, means or moments: first of parts of rows, then merged.
struct Parts<'a> {
    grid: &'a Grid,
    args: &'a Args<'a>,
    centered: bool,
    /// Whether the values are mean and variance.
    moments: bool,
    /// Whether to output the standard deviation in place of the variance.
    root: bool,
}

impl Parts<'_> {
    /// Adds the launches from `data` to `whole` `[2, rows]`.
    fn add_to(&self, lowered: &mut Lowered, entry: &'static str, data: Vec<Slot>, whole: Slot) -> Result<(), String> {
        let &Parts { grid, args, centered, moments, root } = self;
        let (rows, size, parts) = (args.inputs[0].shape[1], grid.size(), grid.parts(args.profile));
        // Moments of parts have a third line: the rounding error of their means.
        let lines = if moments { 3 } else { 2 };
        let of_parts = if parts > 1 {
            lowered.scratch.push(parts * lines * rows * 4);
            Slot::Scratch(lowered.scratch.len() - 1)
        } else {
            whole
        };
        let mut words = [grid.rows, grid.inner, size, parts].map(|n| n as u32).to_vec();
        words.extend(reciprocal(grid.inner));
        words.extend([(grid.lanes() as f32).to_bits(), 0]);
        let mut text = grid.text(Shader::new(entry)).set("CENTERED", centered);
        if entry == "norm_moments" {
            text = text.set("ROOT", root).set("LINES", if parts > 1 { lines } else { 2 });
        }
        let mut bindings = vec![Binding::Uniform(words)];
        bindings.extend(data.into_iter().map(Binding::Read));
        bindings.push(Binding::Write(of_parts));
        lowered.launches.push(Launch {
            label: entry.into(),
            wgsl: text.set("COLUMNS", grid.columns()).set("WHOLE", grid.outer == 1).finish()?,
            entry,
            bindings,
            workgroups: args.profile.grid((grid.rows * parts).div_ceil(64) as u64)?,
        });
        if parts > 1 {
            // Few rows leave a GPU idle, and an invocation reads parts one after the other.
            let together = !args.profile.software;
            let text = Shader::new("norm_merge").set("LINES", lines).set("ROOT", root).set("TOGETHER", together);
            let shader = match together {
                true => RowShader::whole(text, ALONE, args.profile),
                false => RowShader::alone(text),
            };
            lowered.launches.push(Launch {
                label: "norm_merge".into(),
                workgroups: args.profile.grid(shader.workgroups(rows))?,
                wgsl: shader.text.finish()?,
                entry: "norm_merge",
                bindings: vec![
                    Binding::Uniform([rows, size, parts, 0].map(|n| n as u32).to_vec()),
                    Binding::Read(of_parts),
                    Binding::Write(whole),
                ],
            });
        }
        Ok(())
    }
}

/// A workgroup or an invocation per row reads rows once, which must be contiguous and not too long; the parts read them
/// twice, with two more launches. Few long rows leave a device idle.
fn cost(variant: &Variant, args: &Args<'_>) -> Option<Cost> {
    let [outer, rows, inner] = sizes(&args.inputs[0].shape);
    let row = outer * inner;
    let elements = (rows * row) as f64;
    let grid = Grid::new(&args.inputs[0].shape);
    let whole = grid.outer == 1 && grid.width != Width::Column4;
    let long = if args.profile.software { rows * row >= 1 << 14 } else { row > 1 << 14 };
    let busy = |workgroups: usize| if rows < 64 && long { workgroups as f64 } else { f64::INFINITY };
    let work = match variant {
        _ if is_workgroup(variant) => Work {
            style: Style::Shared,
            bytes: 8.0 * elements,
            barriers: rows as f64 * 2.0 * barriers_per_row(args.profile, rows, row),
            workgroups: busy(rows),
            ..Work::default()
        },
        _ if is_invocation(variant) => {
            Work { style: Style::Apart, bytes: 8.0 * elements, workgroups: busy(rows.div_ceil(64)), ..Work::default() }
        }
        _ => Work {
            style: Style::Apart,
            launches: 3.0,
            bytes: 4.0 * elements,
            scratch: 8.0 * elements,
            ..Work::default()
        },
    };
    let longest = if is_workgroup(variant) { LONGEST } else { SHORT };
    let supported = !(is_workgroup(variant) || is_invocation(variant)) || (whole && grid.size() <= longest);
    supported.then(|| args.cost(&work))
}

impl Kernel for Normalize {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        cost(variant, args)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let (x, y, stats) = (Slot::Input(0), Slot::Output(0), Slot::Output(1));
        let plan = NormPlan {
            kind: self.0,
            args,
            grid: Grid::new(&args.inputs[0].shape),
            shaders: ["norm_workgroup", "norm_invocation", "norm_moments", "norm_apply"],
            data: vec![x],
            bound: [
                vec![Binding::Read(x), Binding::Write(y), Binding::Write(stats)],
                vec![Binding::Read(x), Binding::Read(stats), Binding::Write(y)],
            ],
            sums: stats,
        };
        plan.lower(variant)
    }
}

impl Kernel for NormalizeGrad {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        cost(variant, args)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let (y, stats, dy, dx) = (Slot::Input(0), Slot::Input(1), Slot::Input(2), Slot::Output(0));
        let sums = Slot::Scratch(0);
        let read = Binding::Read;
        let plan = NormPlan {
            kind: self.0,
            args,
            grid: Grid::new(&args.inputs[0].shape),
            shaders: ["norm_grad_workgroup", "norm_grad_invocation", "norm_grad_sums", "norm_grad_apply"],
            data: vec![y, dy],
            bound: [
                vec![read(y), read(stats), read(dy), Binding::Write(dx)],
                vec![read(y), read(stats), read(dy), read(sums), Binding::Write(dx)],
            ],
            sums,
        };
        plan.lower(variant)
    }
}

impl Kernel for Moments {
    fn variants(&self) -> &'static [Variant] {
        const PARTS: &[Variant] = &[Variant::plain("parts")];
        PARTS
    }

    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let mut lowered = Lowered::default();
        let grid = Grid::new(&args.inputs[0].shape);
        let parts = Parts { grid: &grid, args, centered: true, moments: true, root: self.root };
        parts.add_to(&mut lowered, "norm_moments", vec![Slot::Input(0)], Slot::Output(0))?;
        Ok(lowered)
    }
}
