//! Index of the largest or smallest element along one axis.

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Cost, Fill, Kernel, Launch, Lowered, Lowering, Nan, Op, Rounding, Slot,
    Variant,
};
use crate::ops::reduce::{
    ALONE, MAX_CHUNK, MAX_THREADS, MIN_THREADS, RowShader, SHORT_ROWS, cost_of_rows, exceeds, outer_size_inner, parts,
    threads_per_row,
};
use crate::shader::Shader;
use crate::{DType, Tensor, TensorType, Value};

/// The index of the largest (or smallest) element along one axis: the first one on ties, or the first NaN if any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Argmax {
    smallest: bool,
    axis: usize,
    keepdim: bool,
}

impl Op for Argmax {
    fn name(&self) -> &'static str {
        if self.smallest { "argmin" } else { "argmax" }
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into()), ("keepdim", self.keepdim.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let x = inputs[0];
        if x.dtype == DType::Bool {
            return Err("expected numbers; cast() the bools".into());
        }
        if x.shape[self.axis] == 0 {
            return Err("an empty axis has no extreme element; expected a size of at least 1".into());
        }
        Ok(vec![TensorType::new(DType::I32, x.shape.reduced(&[self.axis], self.keepdim))])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        vec![None]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let x = inputs[0].to_f64(); // exact for every type
        let [_, size, inner] = outer_size_inner(inputs[0].shape(), self.axis);
        let row = |row: usize| {
            let start = row / inner * size * inner + row % inner;
            let beats = |a: f64, b: f64| if self.smallest { exceeds(-a, -b) } else { exceeds(a, b) };
            (0..size).fold(0, |best, k| if beats(x[start + k * inner], x[start + best * inner]) { k } else { best })
                as i32
        };
        vec![Tensor::of(&outputs[0].shape, (0..outputs[0].shape.numel()).map(row).collect::<Vec<i32>>())]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn nan(&self, _: usize) -> Nan {
        Nan::Extreme
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// A workgroup, or an invocation, for each part of a row.
const WORKGROUP: Variant =
    Variant { workgroup_memory: 8 * MAX_THREADS, invocations: MIN_THREADS, ..Variant::plain("workgroup") };
const INVOCATION: Variant = Variant { invocations: ALONE, ..Variant::plain("invocation") };

impl Argmax {
    fn text(&self, name: &str, dtype: DType) -> Shader {
        Shader::new(name).set("SMALLEST", self.smallest).set("T", dtype.wgsl_storage())
    }
}

impl Kernel for Argmax {
    fn variants(&self) -> &'static [Variant] {
        &[WORKGROUP, INVOCATION]
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let [.., inner] = outer_size_inner(&args.inputs[0].shape, self.axis);
        Some(cost_of_rows(args, *variant == WORKGROUP, inner == 1))
    }

    /// Short rows take one launch. Long rows take two: the first reduces each part, the second reduces the parts.
    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let rows = args.outputs[0].shape.numel();
        let [_, size, inner] = outer_size_inner(&args.inputs[0].shape, self.axis);
        let together = *variant == WORKGROUP;
        let parts = if together {
            parts(args.profile, rows, size, true)
        } else {
            let wanted = if rows * size < 1 << 14 { 1 } else { (1024 / rows).min(size / 64) };
            // One invocation of the second launch loops over all parts of a row, so both loops must stay short.
            wanted.max(size.div_ceil(MAX_CHUNK.max(size.isqrt()))).max(1)
        };
        // Workgroups read neighbours as vec4, if parts of rows consist of whole ones.
        let width =
            if together && inner == 1 && size.is_multiple_of(4) && size > 4 * MIN_THREADS as usize { 4 } else { 1 };
        let chunk = size.div_ceil(parts).next_multiple_of(width);
        let parts = size.div_ceil(chunk); // leaves no part empty
        let uniform =
            |width: usize| [rows, size / width, inner, parts, chunk / width, 0, 0, 0].map(|n| n as u32).to_vec();
        let dtype = args.inputs[0].dtype;
        let first = |to: Slot| -> Result<Launch, String> {
            let entry = if together { "argmax_rows" } else { "argmax" };
            let text = self.text(entry, dtype);
            let shader = if together {
                // Combining the invocations' results takes longer than reading a few elements more.
                let threads = if width == 4 { MIN_THREADS } else { threads_per_row(args.profile, chunk) };
                RowShader::new(text.set("VEC4", width == 4), [rows * parts, chunk / width], threads, args.profile)
            } else {
                RowShader::alone(text)
            };
            Ok(Launch {
                label: format!("{} {}", self.name(), variant.name),
                workgroups: args.profile.grid(shader.workgroups(rows * parts))?,
                wgsl: shader.text.finish()?,
                entry,
                bindings: vec![Binding::Uniform(uniform(width)), Binding::Read(Slot::Input(0)), Binding::Write(to)],
            })
        };
        if parts == 1 {
            return Ok(first(Slot::Output(0))?.into());
        }
        let second = Launch {
            label: format!("{} parts", self.name()),
            wgsl: self.text("argmax_parts", dtype).finish()?,
            entry: "argmax_parts",
            bindings: vec![
                Binding::Uniform(uniform(1)),
                Binding::Read(Slot::Input(0)),
                Binding::Read(Slot::Scratch(0)),
                Binding::Write(Slot::Output(0)),
            ],
            workgroups: args.profile.grid(rows.div_ceil(ALONE as usize) as u64)?,
        };
        Ok(Lowered { launches: vec![first(Slot::Scratch(0))?, second], scratch: vec![rows * parts * 4] })
    }
}

impl Value {
    /// The index of the largest element along `axis`, as i32: the first one on ties, or the first NaN.
    #[track_caller]
    pub fn argmax(&self, axis: isize, keepdim: bool) -> Value {
        self.index_of_extreme(false, axis, keepdim)
    }

    /// The index of the smallest element along `axis`, as i32: the first one on ties, or the first NaN.
    #[track_caller]
    pub fn argmin(&self, axis: isize, keepdim: bool) -> Value {
        self.index_of_extreme(true, axis, keepdim)
    }

    #[track_caller]
    fn index_of_extreme(&self, smallest: bool, axis: isize, keepdim: bool) -> Value {
        let op = Argmax { smallest, axis: 0, keepdim };
        match self.axes_of(op.name(), &[axis]) {
            Ok(axes) => self.op(Argmax { axis: axes[0], ..op }, &[]),
            Err(invalid) => invalid,
        }
    }
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let of = |case: Case, shape: &[usize], fill: Fill| {
        case.input("x", TensorType::new(DType::F32, shape), fill).forward_only()
    };
    let mut cases = vec![
        of(Case::new("argmax", "first axis", |x| vec![x[0].argmax(0, true)]), &[7, 6], Fill::Distinct),
        of(Case::new("argmax", "middle", |x| vec![x[0].argmax(1, false)]), &[3, 9, 5], Fill::Distinct),
        of(Case::new("argmax", "long", |x| vec![x[0].argmax(0, false)]), &[30_011], Fill::Distinct),
        // Several parts even for workgroups of a software adapter.
        of(Case::new("argmax", "longer", |x| vec![x[0].argmax(0, false)]), &[70_003], Fill::Distinct),
        // Two full workgroups of rows, each row split into several parts.
        of(Case::new("argmax", "many rows in parts", |x| vec![x[0].argmax(1, false)]), &[128, 257], Fill::Distinct),
        of(
            Case::new("argmax", "two whole workgroups of rows", |x| vec![x[0].argmax(1, false)]),
            &[128, 3],
            Fill::Distinct,
        ),
        of(Case::new("argmax", "more rows in parts", |x| vec![x[0].argmax(1, false)]), &[300, 130], Fill::Distinct),
        // Each place in a vec4 has the largest element of some row.
        of(Case::new("argmax", "rows by vec4", |x| vec![x[0].argmax(1, false)]), &[16, 600], Fill::Distinct),
        of(Case::new("argmax", "many rows", |x| vec![x[0].argmax(1, false)]), &[700, 3], Fill::Distinct),
        of(Case::new("argmax", "zero-size result", |x| vec![x[0].argmax(1, false)]), &[0, 3], Fill::Distinct),
    ];
    // Enough rows for workgroups of several, the last not full.
    for size in SHORT_ROWS {
        let rows = Case::new("argmax", format!("259 rows of {size}"), |x| vec![x[0].argmax(1, false)]);
        cases.push(of(rows, &[259, size], Fill::Distinct));
    }
    // A long axis split into 64 parts of 64, followed by another axis.
    let parts = Case::new("argmax", "middle axis in parts", |x| vec![x[0].argmax(1, false)]);
    cases.push(of(parts, &[2, 4096, 3], Fill::Distinct));
    let first =
        Case::new("argmax", "largest first of its part", |x| vec![x[0].concat(&[&x[1], &x[2]], 1).argmax(1, false)]);
    let float = |size: usize| TensorType::new(DType::F32, [2, size, 3]);
    cases.push(
        first
            .input("before", float(5 * 64), Fill::Uniform(-1.0, 1.0))
            .input("largest", float(1), Fill::Uniform(2.0, 3.0))
            .input("behind", float(4095 - 5 * 64), Fill::Uniform(-1.0, 1.0))
            .forward_only(),
    );
    for size in [1, 2, 255, 256, 257, 1000, 5000] {
        let case = Case::new("argmax", format!("rows of {size}, and columns, with ties"), |x| {
            vec![x[0].argmax(-1, false), x[0].permute(&[1, 0]).argmax(0, true)]
        });
        cases.push(of(case, &[3, size], Fill::Index(200)));
    }
    for size in [1, 257, 5000] {
        let case = Case::new("argmin", format!("rows of {size}, and columns, with ties"), |x| {
            vec![x[0].argmin(-1, false), x[0].permute(&[1, 0]).argmin(0, true)]
        });
        cases.push(of(case, &[3, size], Fill::Index(200)));
    }
    // In rows of 400: one NaN; two; one after an infinity; no NaN but infinities of both signs.
    const LATE: [f64; 2000] = {
        let mut x = [0.5; 2000];
        (x[77], x[400 + 390], x[400 + 391], x[800], x[801]) = (f64::NAN, f64::NAN, f64::NAN, f64::INFINITY, f64::NAN);
        (x[1203], x[1300], x[1999]) = (f64::INFINITY, f64::NEG_INFINITY, f64::INFINITY);
        x
    };
    for (size, name) in [(400, "one launch"), (100, "short rows"), (1000, "vec4")] {
        for smallest in [false, true] {
            let op = if smallest { "argmin" } else { "argmax" };
            let case = Case::new(op, format!("NaN and infinities, {name}, and columns"), move |x| {
                [-1, 0].map(|axis| x[0].index_of_extreme(smallest, axis, false)).into()
            });
            cases.push(of(case, &[2000 / size, size], Fill::Special(&LATE, -1.0, 1.0)));
        }
    }
    for smallest in [false, true] {
        let op = if smallest { "argmin" } else { "argmax" };
        let case = Case::new(op, "NaN in a long row", move |x| vec![x[0].index_of_extreme(smallest, 0, false)]);
        cases.push(of(case, &[30_011], Fill::Special(&LATE, -1.0, 1.0)));
    }
    for dtype in [DType::I32, DType::U32] {
        cases.push(
            Case::new("argmax", dtype.name(), |x| vec![x[0].argmax(1, false), x[0].argmin(0, false)])
                .input("x", TensorType::new(dtype, [6, 36]), Fill::Index(1 << 30))
                .forward_only(),
        );
        cases.push(
            Case::new("argmin", format!("{dtype}, with ties"), |x| vec![x[0].argmin(1, false), x[0].argmax(0, false)])
                .input("x", TensorType::new(dtype, [7, 37]), Fill::Index(4))
                .forward_only(),
        );
    }
    cases
}
