//! One-hot encoding of class indices.

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant,
};
use crate::ops::gather::{NAN, indices};
use crate::ops::pad::copy_chunk;
use crate::shader::Shader;
use crate::{DType, Tensor, TensorType, Value};

/// `y[n, c]` is 1 where `index[n] = c`, else 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OneHot {
    classes: usize,
}

impl Op for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn attributes(&self) -> Attributes {
        vec![("classes", self.classes.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if !matches!(inputs[0].dtype, DType::I32 | DType::U32) {
            return Err("expected class indices as i32 or u32".into());
        }
        if self.classes == 0 {
            return Err("expected at least one class, not 0".into());
        }
        let sizes: Vec<usize> = inputs[0].shape.iter().copied().chain([self.classes]).collect();
        Ok(vec![TensorType::new(DType::F32, sizes)])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        vec![None]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let mut y = vec![0.0; outputs[0].shape.numel()];
        for (row, class) in indices(inputs[0]).into_iter().enumerate() {
            y[row * self.classes + class] = 1.0;
        }
        vec![Tensor::of(&outputs[0].shape, y)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }

    fn index_bound(&self, _: usize, _: &[&TensorType]) -> Option<usize> {
        Some(self.classes)
    }
}

impl Kernel for OneHot {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant { epilogue: true, ..Variant::plain("elements") }];
        VARIANTS
    }

    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let count = args.outputs[0].shape.numel();
        let chunk = copy_chunk(args.profile, count);
        Ok(Launch {
            label: "one_hot".into(),
            wgsl: Shader::new("one_hot").finish()?,
            entry: "one_hot",
            bindings: vec![
                Binding::Uniform(vec![count as u32, self.classes as u32, chunk as u32, NAN]),
                Binding::Read(Slot::Input(0)),
                Binding::Write(Slot::Output(0)),
                Binding::Status,
            ],
            workgroups: args.profile.grid(count.div_ceil(64 * chunk) as u64)?,
        }
        .into())
    }
}

impl Value {
    /// Class indices (i32 or u32, any shape `[..]`) to f32 `[.., classes]`: 1 at the class, 0 elsewhere. An index out
    /// of range is an error, as for [`Value::gather`].
    #[track_caller]
    pub fn one_hot(&self, classes: usize) -> Value {
        self.op(OneHot { classes }, &[])
    }
}

/// Test cases with one class out of range, computed on the device: see [`super::out_of_range_cases`].
pub(crate) fn out_of_range() -> Vec<Case> {
    let cases = [("the first class past the end", 5.0), ("class -1", -1.0)].map(|(what, class)| {
        Case::new("one_hot", format!("{what} of 5, the last of 70"), |x| {
            vec![x[0].concat(&[&x[1].reshape(&[1])], 0).cast(DType::I32).one_hot(5)]
        })
        .input("classes", TensorType::new(DType::F32, [69]), Fill::Index(5))
        .input("last", TensorType::new(DType::F32, []), Fill::Uniform(class, class))
        .forward_only()
    });
    cases.into()
}

/// Test cases of this op.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, dtype: DType, shape: &[usize], classes: usize| {
        Case::new("one_hot", name, move |x| vec![x[0].one_hot(classes)])
            .input("index", TensorType::new(dtype, shape), Fill::Index(classes as u32))
            .forward_only()
    };
    vec![
        case("a scalar of 7", DType::I32, &[], 7),
        case("9 of 5", DType::I32, &[9], 5),
        case("13 of 1", DType::U32, &[13], 1),
        case("2 x 3 of 64", DType::U32, &[2, 3], 64),
        case("none of 4", DType::I32, &[0], 4),
        case("64 of 1", DType::I32, &[64], 1),
        case("700 of 33", DType::I32, &[700], 33),
        Case::new("one_hot", "smoothed, times a vector", |x| vec![(x[0].one_hot(6) * 0.9 + 0.1) * &x[1]])
            .input("index", TensorType::new(DType::I32, [8]), Fill::Index(6))
            .float("w", [6]),
    ]
}
