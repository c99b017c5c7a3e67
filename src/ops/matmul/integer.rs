//! Integer matrix products: i32 and u32, modulo 2^32. One kernel for every device and all integers, which multiplies four
//! pairs of i8 at a time; the other fast kernels are for floats only.

use super::kernels::{Blocks, MatmulTiling, Operand};
use super::{batch, infer_product, sizes};
use crate::op::{
    Args, Backward, Binding, Cost, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Style, Variant, Work,
};
use crate::parallel::for_chunks;
use crate::shader::Shader;
use crate::shape::{View, merge_axes};
use crate::{DType, Data, Tensor, TensorType, Value};

/// [`super::Matmul`] for integers.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct IntegerMatmul;

impl Op for IntegerMatmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        infer_product(inputs, &[DType::I32, DType::U32])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        vec![None, None]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        // Modulo 2^32, signed and unsigned products have the same bits.
        let [a, b] = [0, 1].map(|i| inputs[i].device_words());
        let y = product_of_integers(&a, &b, sizes(inputs[0].shape(), inputs[1].shape()), outputs[0].shape.numel());
        let data: Data = match outputs[0].dtype {
            DType::U32 => y.into(),
            _ => y.into_iter().map(|word| word as i32).collect::<Vec<i32>>().into(),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        inputs[0].shape.last().copied().unwrap_or(0)
    }

    fn multiply_adds(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> u64 {
        super::products(inputs, outputs)
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

fn product_of_integers(a: &[u32], b: &[u32], [m, n, k]: [usize; 3], count: usize) -> Vec<u32> {
    let mut y = vec![0u32; count];
    for_chunks(&mut y, n, &|row, y| {
        let (a, b) = (&a[row * k..][..k], &b[row / m * k * n..][..k * n]);
        for (factor, b) in a.iter().zip(b.chunks_exact(n)) {
            y.iter_mut().zip(b).for_each(|(y, &b)| *y = y.wrapping_add(factor.wrapping_mul(b)));
        }
    });
    y
}

/// The tile of one invocation. Integer sums do not depend on the order; they are split along k as for floats.
const TILING: MatmulTiling = MatmulTiling { tile: [4, 4], tiles_in_group: 64, resident: 16, terms: 1, cost: 1 };

/// One number at a time.
const INTEGER: Variant = Variant::plain("integer");
/// i8 that is contiguous along k: four at a time.
const DOT4: Variant = Variant::plain("dot4");

impl Kernel for IntegerMatmul {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[DOT4, INTEGER];
        VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let sizes @ [m, n, k] = sizes(&args.inputs[0].shape, &args.inputs[1].shape);
        let packed = |input: usize, outer: usize, is_b: bool| {
            let operand = Operand::new(&args.views[input], outer, k, is_b);
            args.stored[input] == DType::I8 && operand.blocks == Blocks::AlongInner
        };
        if *variant == DOT4 && !(packed(0, m, false) && packed(1, n, true)) {
            return None;
        }
        let batches = batch(&args.outputs[0].shape).numel();
        let work = TILING.work(Style::Adjacent, sizes, batches, args.profile);
        Some(args.cost(&Work { flops: if *variant == DOT4 { work.flops / 4.0 } else { work.flops }, ..work }))
    }

    /// Elements are read one by one, with any strides; the merged batch axes must be at most three.
    fn reads(&self, _input: usize, view: &View) -> bool {
        merge_axes(&batch(&view.shape), &[&view.strides[..view.shape.rank() - 2]]).sizes.len() <= 3
    }

    fn unpacks(&self, variant: &Variant) -> bool {
        *variant == DOT4
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let sizes @ [m, n, k] = sizes(&args.inputs[0].shape, &args.inputs[1].shape);
        let (batches, dtype) = (batch(&args.outputs[0].shape).numel(), args.outputs[0].dtype);
        let operands = [Operand::new(&args.views[0], m, k, false), Operand::new(&args.views[1], n, k, true)];
        let cut = TILING.cut(sizes, batches, args.profile);
        let target = if cut.parts > 1 { Slot::Scratch(0) } else { Slot::Output(0) };
        let dot4 = *variant == DOT4;
        let element = if dot4 { "u32" } else { dtype.wgsl_storage() };
        let launch = Launch {
            label: format!("matmul {}", variant.name),
            wgsl: Shader::new("matmul_integer").set("T", element).set("DOT4", dot4).finish()?,
            entry: "matmul_integer",
            bindings: vec![
                Binding::Uniform(cut.words(sizes, batches, &operands)),
                Binding::Read(Slot::Input(0)),
                Binding::Read(Slot::Input(1)),
                Binding::Write(target),
            ],
            workgroups: args.profile.grid(cut.workgroups as u64)?,
        };
        cut.with_sum(launch, dtype, batches * m * n, args.profile)
    }
}
