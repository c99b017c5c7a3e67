//! Running sums along an axis.

use crate::op::{Args, Backward, Binding, Case, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant};
use crate::{DType, Tensor, TensorType, Value};

/// Running sums along `axis`, from its end where `reverse` is set.
#[derive(Debug, Clone)]
struct CumSum {
    axis: usize,
    reverse: bool,
}

/// Elements that one launch walks along the axis: drivers stop longer loops.
const LONGEST_WALK: usize = 8192;

impl Op for CumSum {
    fn name(&self) -> &'static str {
        "cumsum"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs[0].dtype != DType::F32 {
            return Err("expected floats; cast() the numbers".into());
        }
        Ok(vec![inputs[0].clone()])
    }

    /// Each element entered all sums behind it: the running sum of `dy` from the other end.
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![Some(g.dy().op(CumSum { axis: self.axis, reverse: !self.reverse }, &[]))]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let shape = &outputs[0].shape;
        let (size, inner) = self.steps(&outputs[0]);
        let mut y = inputs[0].f64s().to_vec();
        for block in y.chunks_mut((size * inner).max(1)) {
            for k in 1..size {
                let (j, before) = if self.reverse { (size - 1 - k, size - k) } else { (k, k - 1) };
                for i in 0..inner {
                    block[j * inner + i] += block[before * inner + i];
                }
            }
        }
        vec![Tensor::of(shape, y)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        Rounding::Sum(inputs[0].shape[self.axis])
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl CumSum {
    /// The size of the axis, and the elements between neighbours along it.
    fn steps(&self, ty: &TensorType) -> (usize, usize) {
        (ty.shape[self.axis], ty.shape[self.axis + 1..].iter().product())
    }
}

impl Kernel for CumSum {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant::plain("lines")];
        VARIANTS
    }

    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let (size, inner) = self.steps(&args.outputs[0]);
        let lines = args.outputs[0].shape.numel() / size;
        let text = crate::wgsl!("cumsum").finish()?;
        let workgroups = args.profile.grid(lines.div_ceil(64) as u64)?;
        let launch = |first: usize| {
            let last = size.min(first + LONGEST_WALK);
            let words = [lines, size, inner, usize::from(self.reverse), first, last].map(|n| n as u32);
            let bindings =
                vec![Binding::Uniform(words.to_vec()), Binding::Read(Slot::Input(0)), Binding::Write(Slot::Output(0))];
            Launch { label: "cumsum".into(), wgsl: text.clone(), entry: "cumsum", bindings, workgroups }
        };
        Ok(Lowered { launches: (0..size).step_by(LONGEST_WALK).map(launch).collect(), scratch: Vec::new() })
    }
}

impl Value {
    /// Running sums along `axis`: `y[j] = x[0] + ... + x[j]`. Floats.
    #[track_caller]
    pub fn cumsum(&self, axis: isize) -> Value {
        match self.shape().axis(axis) {
            Some(axis) => self.op(CumSum { axis, reverse: false }, &[]),
            None if !self.is_valid() => self.clone(),
            None => self.graph().mistake("cumsum", &[self], format!("there is no axis {axis} in {}", self.shape())),
        }
    }
}

/// The cases of this family.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &[usize], axis: isize| {
        Case::new("cumsum", name, move |x| vec![x[0].cumsum(axis)]).float("x", shape)
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
        case("longer than a launch walks", &[2, 20_001], 1),
    ]
}
