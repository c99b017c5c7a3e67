//! Softmax and log-softmax along any axis, and their gradients. The maximum is subtracted first, so that nothing
//! overflows.

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Cost, F32_UNIT_ROUNDOFF, Fill, Kernel, Launch, Lowered, Lowering, Op,
    Rounding, Slot, Style, Variant, Work, gamma_of_runs,
};
use crate::ops::reduce::{MAX_THREADS, MIN_THREADS, RowShader, SHORT_ROWS, barriers_per_row, outer_size_inner};
use crate::shader::Shader;
use crate::{DType, Shape, Tensor, TensorType, Value};

/// `exp(x) / sum(exp(x))` along `axis`, or the logarithm of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Softmax {
    axis: usize,
    log: bool,
}

/// The gradient of [`Softmax`], from its output and the incoming gradient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SoftmaxGrad {
    axis: usize,
    log: bool,
}

/// The longest row of a kernel: with the fewest invocations per row, each loops over its share three times, in fewer
/// than 16,000 iterations in total.
pub(crate) const MAX_ROW: usize = 1 << 19;
const _: () = assert!(3 * MAX_ROW.div_ceil(MIN_THREADS as usize) < 16_000);

/// The longest row for one invocation.
const SHORT_ROW: usize = 4096;

/// Workgroup size when each invocation has its own row.
const ALONE: u32 = 64;

pub(crate) static ROW_VARIANTS: &[Variant] = &[
    Variant { invocations: ALONE, ..Variant::plain("invocation") },
    Variant { workgroup_memory: 16 * MAX_THREADS, invocations: MIN_THREADS, ..Variant::plain("workgroup") },
];

/// Whether a variant uses one workgroup per row.
pub(crate) fn is_workgroup(variant: &Variant) -> bool {
    *variant == ROW_VARIANTS[1]
}

/// One invocation per row, or a workgroup that finds the maximum and the sum of a row by trees of barriers. Rows along
/// outer axes are apart, but neighbouring rows are adjacent, and enough of them keep a GPU busy.
pub(crate) fn row_cost(variant: &Variant, args: &Args<'_>, size: usize, inner: usize) -> Option<Cost> {
    let bytes = 8.0 * args.inputs[0].shape.numel() as f64;
    let rows = args.inputs[0].shape.numel() / size.max(1);
    let barriers = rows as f64 * 2.0 * barriers_per_row(args.profile, rows, size);
    let work = match is_workgroup(variant) {
        true => Work { style: Style::Shared, bytes, barriers, ..Work::default() },
        false if inner >= 64 && rows >= 16_384 => Work { bytes, ..Work::default() },
        false => Work { style: Style::Apart, bytes, ..Work::default() },
    };
    (is_workgroup(variant) || size <= SHORT_ROW).then(|| args.cost(&work))
}

/// The shader of either variant, for `rows` rows of `size` elements of `registers` registers each.
pub(crate) fn row_shader(
    variant: &Variant,
    text: Shader,
    [rows, size]: [usize; 2],
    registers: usize,
    args: &Args<'_>,
) -> RowShader {
    if is_workgroup(variant) {
        RowShader::keeping(text, [rows, size], registers, args.profile)
    } else {
        RowShader::alone(text)
    }
}

fn check_rows(ty: &TensorType) -> Result<(), String> {
    if ty.dtype != DType::F32 {
        return Err("expected f32; cast() first".into());
    }
    Ok(())
}

/// Applies `f` to each row along `axis` of equally shaped tensors.
fn map_rows(inputs: &[&Tensor], axis: usize, f: impl Fn(&[Vec<f64>]) -> Vec<f64>) -> Tensor {
    let shape = inputs[0].shape();
    let [outer, size, inner] = outer_size_inner(shape, axis);
    let mut y = vec![0.0; shape.numel()];
    for row in 0..outer * inner {
        let start = row / inner * size * inner + row % inner;
        let of = |x: &&Tensor| (0..size).map(|k| x.f64s()[start + k * inner]).collect();
        let rows: Vec<Vec<f64>> = inputs.iter().map(of).collect();
        for (k, value) in f(&rows).into_iter().enumerate() {
            y[start + k * inner] = value;
        }
    }
    Tensor::of(shape, y)
}

/// The layout for the shaders: rows along the axis with elements `inner` apart, in scalars or vec4 (four neighbours in
/// one row, or one element of each of four rows).
struct Rows {
    uniform: Vec<u32>,
    rows: usize,
    size: usize,
    vector: Option<bool>,
}

impl Rows {
    fn new(shape: &Shape, axis: usize) -> Rows {
        let [outer, mut size, mut inner] = outer_size_inner(shape, axis);
        let vector = if inner == 1 && size.is_multiple_of(4) {
            size /= 4;
            Some(true)
        } else if inner.is_multiple_of(4) {
            inner /= 4;
            Some(false)
        } else {
            None
        };
        let rows = outer * inner;
        Rows { uniform: [rows, size, inner, 0].map(|n| n as u32).to_vec(), rows, size, vector }
    }

    /// Numbers per element.
    fn width(&self) -> usize {
        if self.vector.is_some() { 4 } else { 1 }
    }

    /// The shader for this vector width.
    fn text(&self, text: Shader, log: bool) -> Shader {
        text.set("LOG", log).set("VEC4", self.vector.is_some()).set("ACROSS", self.vector == Some(false))
    }
}

/// The row length of a softmax, from the sum of all its elements: each row sums to one.
fn row_length(sum: f64, numel: usize) -> f64 {
    numel as f64 / sum.round().max(1.0)
}

/// The relative error of a row's sum, in units of roundoff: that of runs of terms of one sign, plus a few for the tree.
fn sum_error(n: f64) -> f64 {
    gamma_of_runs(n as usize) / F32_UNIT_ROUNDOFF + 16.0
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_rows(inputs[0])?;
        Ok(vec![inputs[0].clone()])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![Some(g.y().op(SoftmaxGrad { axis: self.axis, log: self.log }, &[&g.dy()]))]
    }

    fn reference(&self, inputs: &[&Tensor], _: &[TensorType]) -> Vec<Tensor> {
        vec![map_rows(inputs, self.axis, |rows| {
            let x = &rows[0];
            let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = x.iter().map(|x| (x - top).exp()).sum();
            x.iter().map(|x| if self.log { x - top - sum.ln() } else { (x - top).exp() / sum }).collect()
        })]
    }

    /// With `m` the row's maximum: `x - m` is rounded, `exp` amplifies that error and adds `2 |x - m|` units of its own
    /// (which WGSL allows), the sum adds its own error, and `|x - m| <= -ln(softmax)`. Below the smallest normal number
    /// a device may return 0.
    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        if self.log {
            Rounding::bound(|_, y| {
                let y = y[0].to_f64();
                let n = row_length(y.iter().map(|y| y.exp()).sum(), y.len());
                vec![y.iter().map(|y| (6.0 * y.abs() + sum_error(n)) * F32_UNIT_ROUNDOFF).collect()]
            })
        } else {
            Rounding::bound(|_, y| {
                let y = y[0].to_f64();
                let n = row_length(y.iter().sum(), y.len());
                let bound =
                    |y: &f64| y * (6.0 * -y.max(f64::MIN_POSITIVE).ln() + sum_error(n)) * F32_UNIT_ROUNDOFF + 1.2e-38;
                vec![y.iter().map(bound).collect()]
            })
        }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for Softmax {
    fn variants(&self) -> &'static [Variant] {
        ROW_VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let [_, size, inner] = outer_size_inner(&args.inputs[0].shape, self.axis);
        row_cost(variant, args, size, inner)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let rows = Rows::new(&args.inputs[0].shape, self.axis);
        let entry = if is_workgroup(variant) { "softmax_workgroup" } else { "softmax" };
        let shader = row_shader(variant, Shader::new(entry), [rows.rows, rows.size], rows.width(), args);
        Ok(Launch {
            label: format!("{} {}", self.name(), variant.name),
            workgroups: args.profile.grid(shader.workgroups(rows.rows))?,
            wgsl: rows.text(shader.text, self.log).finish()?,
            entry,
            bindings: vec![
                Binding::Uniform(rows.uniform),
                Binding::Read(Slot::Input(0)),
                Binding::Write(Slot::Output(0)),
            ],
        }
        .into())
    }
}

impl Op for SoftmaxGrad {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax_grad" } else { "softmax_grad" }
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_rows(inputs[0])?;
        if inputs[0] != inputs[1] {
            return Err("expected y and dy of one type".into());
        }
        Ok(vec![inputs[0].clone()])
    }

    /// With `s` the row's sum of `y dy`, or of `dy` for the logarithm, and `g` the incoming gradient.
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let (y, dy, g_in) = (g.x(0), g.x(1), g.dy());
        let axes = [self.axis as isize];
        if self.log {
            let p = y.exp();
            return vec![
                g.when(0, || (&g_in * &p * dy.sum(&axes, true)).neg()),
                g.when(1, || &g_in - (&g_in * &p).sum(&axes, true)),
            ];
        }
        vec![
            g.when(0, || {
                let s = (y * dy).sum(&axes, true);
                &g_in * (dy - s) - dy * (&g_in * y).sum(&axes, true)
            }),
            g.when(1, || y.op(self.clone(), &[&g_in])),
        ]
    }

    fn reference(&self, inputs: &[&Tensor], _: &[TensorType]) -> Vec<Tensor> {
        vec![map_rows(inputs, self.axis, |rows| {
            let row = || rows[0].iter().zip(&rows[1]);
            if self.log {
                let sum: f64 = rows[1].iter().sum();
                row().map(|(y, dy)| dy - y.exp() * sum).collect()
            } else {
                let sum: f64 = row().map(|(y, dy)| y * dy).sum();
                row().map(|(y, dy)| y * (dy - sum)).collect()
            }
        })]
    }

    /// The error of the sum, at most that of a row filled with the largest `|dy|`, times `y`.
    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        fn largest(dy: &[f64]) -> f64 {
            dy.iter().fold(0.0, |a, b| b.abs().max(a))
        }
        if self.log {
            Rounding::bound(|inputs, _| {
                let (y, dy) = (inputs[0].to_f64(), inputs[1].to_f64());
                let n = row_length(y.iter().map(|y| y.exp()).sum(), y.len());
                let top = n * largest(&dy);
                let bound = |(y, dy): (&f64, &f64)| {
                    (2.0 * dy.abs() + y.exp() * top * (6.0 * y.abs() + sum_error(n))) * F32_UNIT_ROUNDOFF + 1.2e-38
                };
                vec![y.iter().zip(&dy).map(bound).collect()]
            })
        } else {
            Rounding::bound(|inputs, _| {
                let (y, dy) = (inputs[0].to_f64(), inputs[1].to_f64());
                let (n, top) = (row_length(y.iter().sum(), y.len()), largest(&dy));
                let bound = |(y, dy): (&f64, &f64)| {
                    (y * (dy.abs() * 4.0 + top * sum_error(n))).abs() * F32_UNIT_ROUNDOFF + 1.2e-38
                };
                vec![y.iter().zip(&dy).map(bound).collect()]
            })
        }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for SoftmaxGrad {
    fn variants(&self) -> &'static [Variant] {
        ROW_VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let [_, size, inner] = outer_size_inner(&args.inputs[0].shape, self.axis);
        row_cost(variant, args, size, inner)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let rows = Rows::new(&args.inputs[0].shape, self.axis);
        let entry = if is_workgroup(variant) { "softmax_grad_workgroup" } else { "softmax_grad" };
        let shader = row_shader(variant, Shader::new(entry), [rows.rows, rows.size], 2 * rows.width(), args); // y and dy
        Ok(Launch {
            label: format!("{} {}", self.name(), variant.name),
            workgroups: args.profile.grid(shader.workgroups(rows.rows))?,
            wgsl: rows.text(shader.text, self.log).finish()?,
            entry,
            bindings: vec![
                Binding::Uniform(rows.uniform),
                Binding::Read(Slot::Input(0)),
                Binding::Read(Slot::Input(1)),
                Binding::Write(Slot::Output(0)),
            ],
        }
        .into())
    }
}

impl Value {
    #[track_caller]
    fn softmax_op(&self, axis: isize, log: bool) -> Value {
        match self.axes_of(Softmax { axis: 0, log }.name(), &[axis]) {
            // Composed of reductions, which split long rows over many invocations.
            Ok(axes) if self.dtype().is_float() && self.shape()[axes[0]] > MAX_ROW => self.widely(|x| {
                let shifted = x - x.max(&[axis], true).stop_gradient();
                let exp = shifted.exp();
                let sum = exp.sum(&[axis], true);
                if log { shifted - sum.log() } else { exp / sum }
            }),
            Ok(axes) => self.op(Softmax { axis: axes[0], log }, &[]),
            Err(invalid) => invalid,
        }
    }

    /// `exp(x_k) / sum_j exp(x_j)` along `axis`, which may count from the end. f32 without overflow: the row's maximum
    /// is subtracted first.
    #[track_caller]
    pub fn softmax(&self, axis: isize) -> Value {
        self.softmax_op(axis, false)
    }

    /// `x_k - ln(sum_j exp(x_j))` along `axis`: the logarithm of [`Value::softmax`], accurate even where that
    /// underflows.
    #[track_caller]
    pub fn log_softmax(&self, axis: isize) -> Value {
        self.softmax_op(axis, true)
    }
}

/// Rows of 8: a low row before a high row, then rows with one element so high that with a wrong maximum the result
/// would underflow or overflow.
pub(super) const fn towers(high: f64) -> [f64; 48] {
    let mut x = [-high; 48];
    let mut k = 0;
    while k < 8 {
        x[8 + k] = high - k as f64;
        k += 1;
    }
    // At positions that differ in every bit, like the halves in a tree reduction.
    (x[16 + 1], x[24 + 3], x[32 + 7], x[40 + 5]) = (high, high, high, high);
    x
}

/// Two rows of `N / 2`: a low row, and a row that starts higher and has its maximum at `late`. With `turned`, two
/// columns.
const fn late_tower<const N: usize>(late: usize, turned: bool) -> [f64; N] {
    let mut x = [-100.0; N];
    if turned {
        (x[1], x[2 * late + 1]) = (0.0, 100.0);
    } else {
        (x[N / 2], x[N / 2 + late]) = (0.0, 100.0);
    }
    x
}

/// Such rows, with the maximum at the start of the second, third or fourth register of a workgroup's invocations, or
/// beyond the registers; and columns of this kind.
pub(super) const LATE: [(usize, &[f64]); 4] = [
    (189, &late_tower::<{ 2 * 189 }>(128, false)),
    (301, &late_tower::<{ 2 * 301 }>(256, false)),
    (451, &late_tower::<{ 2 * 451 }>(384, false)),
    (1109, &late_tower::<{ 2 * 1109 }>(1024, false)),
];
const LATE_COLUMNS: &[f64] = &late_tower::<{ 2 * 1109 }>(1024, true);

/// Test cases of these ops.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let both = |name: &str, axis: isize, shape: &[usize], fill: Fill, differentiable: bool| {
        [false, true].map(|log| {
            let case =
                Case::new(if log { "log_softmax" } else { "softmax" }, name, move |x| vec![x[0].softmax_op(axis, log)])
                    .input("x", TensorType::new(DType::F32, shape), fill.clone());
            if differentiable { case } else { case.forward_only() }
        })
    };
    let unit = Fill::Uniform(-2.0, 2.0);
    // Registers of GPUs hold the longer rows, except for a part of the last.
    for size in [1, 2, 3, 10, 255, 256, 257, 509, 1000, 5000, 5003, 12_003, 20_002, 50_004] {
        cases.extend(both(&format!("rows of {size}"), -1, &[3, size], unit.clone(), true));
    }
    // Enough rows for workgroups of several, the last not full.
    for size in SHORT_ROWS {
        cases.extend(both(&format!("259 rows of {size}"), -1, &[259, size], unit.clone(), true));
    }
    let large = Fill::Special(&[80.0, -80.0, 80.0, 79.0], -80.0, 80.0);
    cases.extend(both("+-80", 1, &[6, 8], large, true));
    let huge = Fill::Special(&[100.0, -100.0, 99.0, 100.0], -100.0, 100.0); // e^100 overflows f32
    cases.extend(both("+-100", 1, &[6, 8], huge, true));
    // The neighbouring row's elements are so much larger that with its maximum everything would underflow.
    const APART: &[f64] = &[-100.0, 100.0, 0.0, -100.0, 100.0, 0.0, -100.0, 100.0, 0.0, -100.0, 100.0, 0.0];
    cases.extend(both("rows far apart", 1, &[1, 4, 3], Fill::Special(APART, -1.0, 1.0), true));
    const TOWERS: &[f64] = &towers(100.0);
    cases.extend(both("towers", 1, &[6, 8], Fill::Special(TOWERS, -1.0, 1.0), true));
    for (size, fill) in LATE {
        let name = format!("a late tower among {size}");
        cases.extend(both(&name, 1, &[2, size], Fill::Special(fill, -1.0, 1.0), true));
    }
    cases.extend(both("a late tower in a column", 0, &[1109, 2], Fill::Special(LATE_COLUMNS, -1.0, 1.0), true));
    // Rows with a NaN, with infinities, and with minus infinity; only the last has finite results.
    const HARD: &[f64] = &{
        let mut x = [0.5; 48];
        (x[3], x[8 + 4], x[16], x[24 + 7]) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY);
        (x[32], x[33], x[40 + 6]) = (f64::INFINITY, f64::NEG_INFINITY, f64::NAN);
        x
    };
    cases.extend(both("NaN and infinities", 1, &[6, 8], Fill::Special(HARD, -1.0, 1.0), false));
    cases.extend(both("NaN and infinities, columns", 0, &[6, 8], Fill::Special(HARD, -1.0, 1.0), false));
    // Seven of every eight elements are not whole vectors.
    let sliced = Case::new("softmax", "towers, rows of 7", |x| vec![x[0].slice(1, 0, 7, 1).softmax_op(1, false)]);
    cases.push(sliced.input("x", TensorType::new(DType::F32, [6, 8]), Fill::Special(TOWERS, -1.0, 1.0)));
    cases.extend(both("channels", 1, &[2, 5, 3, 7], unit.clone(), true));
    cases.extend(both("channels, by vec4", 1, &[2, 5, 4, 4], unit.clone(), true));
    cases.extend(both("two whole workgroups of rows", -1, &[128, 3], unit.clone(), true));
    cases.extend(both("long columns", 1, &[2, 1101, 3], unit.clone(), true));
    cases.extend(both("first axis", 0, &[9, 5], unit.clone(), true));
    cases.extend(both("many short rows", -1, &[1025, 7], unit.clone(), true));
    cases.extend(both("a row of 100,000", -1, &[1, 100_000], unit.clone(), false));
    // All terms after the largest round in the same direction: a plain running sum would accumulate the errors.
    for (size, first) in [(4095, &[1.55]), (400_001, &[1.1])] {
        let fill = Fill::Special(first, 0.0, 0.0);
        cases.extend(both(&format!("{size} elements, all but one equal"), -1, &[1, size], fill, false));
    }
    cases.extend(both("no rows", -1, &[0, 5], unit.clone(), true));
    cases.extend(both("empty rows", -1, &[5, 0], unit, true));
    for log in [false, true] {
        // The gradient as an op of its own, so that its gradient is checked too.
        let name = if log { "log_softmax_grad" } else { "softmax_grad" };
        cases.push(
            Case::new(name, "differentiated again", move |x| {
                let y = x[0].softmax_op(-1, log);
                vec![y.op(SoftmaxGrad { axis: 1, log }, &[&x[1]])]
            })
            .float("x", [4, 6])
            .float("dy", [4, 6]),
        );
        // As above: a plain running sum of equal terms would accumulate rounding errors.
        for size in [4095, 400_001] {
            let case = Case::new(name, format!("{size} equal elements"), move |x| {
                vec![x[0].op(SoftmaxGrad { axis: 1, log }, &[&x[1]])]
            });
            let equal = |case: Case, name, n: f64| {
                let ty = TensorType::new(DType::F32, [1, size]);
                case.input(name, ty, Fill::Uniform(n, n))
            };
            let p = 1.0 / size as f64;
            cases.push(equal(equal(case, "y", if log { p.ln() } else { p }), "dy", 1.1).forward_only());
        }
    }
    cases
}
