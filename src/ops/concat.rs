//! Concatenation and splitting along an axis.

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant,
};
use crate::ops::pad::copy_chunk;
use crate::ops::reduce::outer_size_inner;
use crate::shader::Shader;
use crate::{DType, Data, Tensor, TensorType, Value};

/// Concatenates the inputs along `axis`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Concat {
    axis: usize,
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let first = inputs[0];
        let fits = |ty: &&TensorType| {
            ty.dtype == first.dtype
                && ty.shape.rank() == first.shape.rank()
                && (0..first.shape.rank()).all(|axis| axis == self.axis || ty.shape[axis] == first.shape[axis])
        };
        if !inputs.iter().all(fits) {
            return Err(format!("expected equal types, and equal sizes on all axes except axis {}", self.axis));
        }
        let mut sizes = first.shape.to_vec();
        sizes[self.axis] = inputs.iter().map(|ty| ty.shape[self.axis]).sum();
        Ok(vec![TensorType::new(first.dtype, sizes)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let dy = g.dy();
        let mut start = 0;
        (0..g.inputs.len())
            .map(|i| {
                let end = start + g.x(i).shape()[self.axis];
                let dx = g.when(i, || dy.slice(self.axis as isize, start, end, 1));
                start = end;
                dx
            })
            .collect()
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let [outer, ..] = outer_size_inner(&outputs[0].shape, self.axis);
        /// Interleaves the rows of the inputs.
        fn join<T: Copy>(outer: usize, inputs: &[&[T]]) -> Vec<T> {
            let rows = (0..outer).flat_map(|row| inputs.iter().map(move |x| (row, x)));
            rows.flat_map(|(row, x)| {
                let len = x.len() / outer;
                x[row * len..(row + 1) * len].iter().copied()
            })
            .collect()
        }
        macro_rules! join_all {
            ($($variant:ident),*) => {
                match inputs[0].data() {
                    $(Data::$variant(_) => {
                        let parts = inputs.iter().map(|x| match x.data() {
                            Data::$variant(v) => &v[..],
                            _ => &[],
                        });
                        Data::$variant(join(outer, &parts.collect::<Vec<_>>()))
                    })*
                }
            };
        }
        vec![Tensor::of(&outputs[0].shape, join_all!(F32, F64, F16, BF16, I32, U32, I8, U8, Bool))]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for Concat {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant { invocations: 64, ..Variant::plain("elements") }];
        VARIANTS
    }

    /// One launch per input copies it into its part of the output.
    fn lower(&self, _variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let row_of = |ty: &TensorType| {
            let [_, size, inner] = outer_size_inner(&ty.shape, self.axis);
            size * inner
        };
        let total = row_of(&args.outputs[0]);
        let (mut lowered, mut start) = (Lowered::default(), 0);
        for (i, ty) in args.inputs.iter().enumerate() {
            let row = row_of(ty);
            let rows = ty.shape.numel() / row.max(1);
            let mut words = [row, total, start];
            start += row;
            if rows * row == 0 {
                continue;
            }
            // Copies vec4 if every row starts and ends at a multiple of 4.
            let vec4 = words.iter().all(|n| n.is_multiple_of(4));
            if vec4 {
                words = words.map(|n| n / 4);
            }
            let [length, total, start] = words;
            let chunk = copy_chunk(args.profile, rows * length);
            let row_chunks = length.div_ceil(chunk);
            let uniform = [rows * row_chunks, row_chunks, chunk, length, total, start, 0, 0];
            lowered.launches.push(Launch {
                label: "concat".into(),
                wgsl: Shader::new("concat").set("V", if vec4 { "vec4<u32>" } else { "u32" }).finish()?,
                entry: "concat",
                bindings: vec![
                    Binding::Uniform(uniform.map(|n| n as u32).to_vec()),
                    Binding::Read(Slot::Input(i)),
                    Binding::Write(Slot::Output(0)),
                ],
                workgroups: args.profile.grid((rows * row_chunks).div_ceil(64) as u64)?,
            });
        }
        Ok(lowered)
    }
}

impl Value {
    /// Concatenates values along `axis`, which may be negative to count from the end. The values have the same
    /// type and equal sizes on all other axes.
    ///
    /// ```
    /// use wgrad::{DType, Graph, Value};
    /// let graph = Graph::new();
    /// let a = graph.input("a", DType::F32, [2, 3]);
    /// let b = graph.input("b", DType::F32, [2, 5]);
    /// assert_eq!(a.concat(&[&b], 1).shape().to_vec(), [2, 8]);
    /// ```
    #[track_caller]
    pub fn concat(&self, others: &[&Value], axis: isize) -> Value {
        match self.axes_of("concat", &[axis]) {
            Ok(_) if others.is_empty() => self.clone(),
            Ok(axes) => self.op(Concat { axis: axes[0] }, others),
            Err(invalid) => invalid,
        }
    }

    /// Splits the value along `axis` into pieces of the given sizes, which must add up to the size of the axis.
    #[track_caller]
    pub fn split(&self, sizes: &[usize], axis: isize) -> Vec<Value> {
        let axis = match self.axes_of("split", &[axis]) {
            Ok(axes) => axes[0],
            Err(invalid) => return vec![invalid; sizes.len()],
        };
        let whole = self.shape()[axis];
        if sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(whole) {
            let why = format!("the sizes {sizes:?} do not add up to {whole}, the size of axis {axis}");
            return vec![self.graph().error("split", &[self], why); sizes.len()];
        }
        let mut start = 0;
        let piece = |&size: &usize| {
            start += size;
            self.slice(axis as isize, start - size, start, 1)
        };
        // `#[track_caller]` does not reach into closures.
        self.graph().at(std::panic::Location::caller(), || sizes.iter().map(piece).collect())
    }
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let ty = |dtype, shape: [usize; 2]| TensorType::new(dtype, shape);
    let mut cases = vec![
        Case::new("concat", "first axis", |x| vec![x[0].concat(&[&x[1]], 0)]).float("a", [2, 3]).float("b", [5, 3]),
        Case::new("concat", "channels of three, by vec4", |x| vec![x[0].concat(&[&x[1], &x[2]], 1)])
            .float("a", [2, 3, 4, 4])
            .float("b", [2, 1, 4, 4])
            .float("c", [2, 2, 4, 4]),
        Case::new("concat", "last axis, one empty", |x| vec![x[0].concat(&[&x[1], &x[2]], -1)])
            .float("a", [7, 3])
            .float("b", [7, 0])
            .float("c", [7, 4]),
        Case::new("concat", "nine of them, one twice", |x| {
            vec![x[0].concat(&[&x[1], &x[0], &x[1], &x[1], &x[0], &x[0], &x[1], &x[0]], 0)]
        })
        .float("a", [1, 5])
        .float("b", [2, 5]),
        Case::new("concat", "permuted and sliced", |x| {
            vec![x[0].permute(&[1, 0]).concat(&[&x[1].slice(1, 1, 6, 2)], 1)]
        })
        .float("a", [4, 5])
        .float("b", [5, 7]),
        Case::new("concat", "split and swapped", |x| {
            let parts = x[0].split(&[2, 3, 4], 1);
            vec![parts[2].concat(&[&parts[0], &parts[1]], 1)]
        })
        .float("x", [5, 9]),
        Case::new("concat", "large", |x| vec![x[0].concat(&[&x[1]], 1)]).float("a", [257, 129]).float("b", [257, 64]),
    ];
    for (dtype, fill) in [(DType::I32, Fill::Index(1000)), (DType::U32, Fill::Index(1000)), (DType::Bool, Fill::Coin)] {
        cases.push(
            Case::new("concat", dtype.name(), |x| vec![x[0].concat(&[&x[1]], 1)])
                .input("a", ty(dtype, [3, 2]), fill.clone())
                .input("b", ty(dtype, [3, 5]), fill)
                .forward_only(),
        );
    }
    cases
}
