//! Reverses the order of elements along axes.

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant,
};
use crate::ops::gather::Lines;
use crate::ops::pad::copy_chunk;
use crate::ops::reduce::outer_size_inner;
use crate::shader::Shader;
use crate::shape::{View, reciprocal};
use crate::tensor::map_data;
use crate::{DType, Tensor, TensorType, Value};

/// Reverses one axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flip {
    axis: usize,
}

impl Op for Flip {
    fn name(&self) -> &'static str {
        "flip"
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(vec![inputs[0].clone()])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![Some(g.dy().op(self.clone(), &[]))]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let [_, size, inner] = outer_size_inner(&outputs[0].shape, self.axis);
        let block = (size * inner).max(1);
        let from = |n: usize| n / block * block + (size - 1 - n % block / inner) * inner + n % inner;
        fn pick<T: Copy>(x: &[T], from: impl Fn(usize) -> usize) -> Vec<T> {
            (0..x.len()).map(|n| x[from(n)]).collect()
        }
        let data = map_data!(inputs[0].data(), v => pick(v, from));
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for Flip {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant { epilogue: true, ..Variant::plain("elements") }];
        VARIANTS
    }

    fn reads(&self, _input: usize, view: &View) -> bool {
        Lines::new(view, self.axis).is_some()
    }

    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let mut x = Lines::new(&args.views[0], self.axis).ok_or("its axes do not merge")?;
        // Moves vec4 unchanged, or, along the last axis, reversed.
        let along = x.sizes[2] == 1 && x.turned().by_fours();
        let vec4 = along || x.by_fours();
        if along {
            x = x.turned().quartered().turned();
        } else if vec4 {
            x = x.quartered();
        }
        let [outer, size, inner] = x.sizes;
        let count = outer * size * inner;
        let chunk = copy_chunk(args.profile, count);
        let mut uniform: Vec<u32> = [inner, size].into_iter().flat_map(reciprocal).collect();
        uniform.extend([count, size, inner, chunk].map(|n| n as u32));
        uniform.extend(x.words());
        let t = if args.outputs[0].dtype == DType::F32 { "f32" } else { "u32" };
        Ok(Launch {
            label: "flip".into(),
            wgsl: Shader::new("flip").set("T", t).set("VEC4", vec4).set("ALONG", along).finish()?,
            entry: "flip",
            bindings: vec![Binding::Uniform(uniform), Binding::Read(Slot::Input(0)), Binding::Write(Slot::Output(0))],
            workgroups: args.profile.grid(count.div_ceil(64 * chunk) as u64)?,
        }
        .into())
    }
}

impl Value {
    /// Reverses the order of the elements along `axes`.
    #[track_caller]
    pub fn flip(&self, axes: &[isize]) -> Value {
        let axes = match self.axes_of("flip", axes) {
            Ok(axes) => axes,
            Err(invalid) => return invalid,
        };
        let sizes: Vec<isize> = self.shape().iter().map(|&size| size as isize).collect();
        // Adjacent axes are merged and reversed as one.
        let mut y = self.clone();
        for run in axes.chunk_by(|a, b| a + 1 == *b) {
            let (first, last) = (run[0], run[run.len() - 1]);
            let merged: isize = sizes[first..=last].iter().product();
            let line = [&sizes[..first], &[merged], &sizes[last + 1..]].concat();
            y = y.reshape(&line).op(Flip { axis: first }, &[]).reshape(&sizes);
        }
        y
    }
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &[usize], axes: &'static [isize]| {
        Case::new("flip", name, move |x| vec![x[0].flip(axes)]).float("x", shape)
    };
    let mut cases = vec![
        case("one axis", &[7], &[0]),
        case("a whole workgroup", &[64], &[0]),
        case("two axes apart", &[3, 4, 5], &[0, 2]),
        case("two neighbours", &[3, 4, 5], &[-1, 1]),
        case("all", &[2, 3, 5], &[0, 1, 2]),
        case("none", &[2, 3], &[]),
        case("the first, by vec4", &[5, 2, 4], &[0]),
        case("the middle, by vec4", &[3, 5, 8], &[1]),
        case("the last, by vec4", &[5, 12], &[1]),
        case("empty", &[3, 0], &[0]),
        case("rows of images", &[2, 3, 7, 9], &[3]),
        case("257 x 129", &[257, 129], &[1]),
        Case::new("flip", "of views, rows and columns, then doubled", |x| {
            let view = x[0].t().slice(0, 1, 6, 2);
            vec![view.flip(&[1]) * 2.0, view.flip(&[0])]
        })
        .float("x", [4, 7]),
        Case::new("flip", "the last of a view, by vec4, then doubled", |x| {
            vec![x[0].slice(0, 1, 4, 2).slice(1, 4, 12, 1).flip(&[1]) * 2.0]
        })
        .float("x", [5, 16]),
        Case::new("flip", "by vec4, plus a matrix", |x| vec![x[0].flip(&[0]) + &x[1]])
            .float("x", [3, 8])
            .float("b", [3, 8]),
    ];
    for (dtype, fill) in [(DType::I32, Fill::Index(1000)), (DType::U32, Fill::Index(1000)), (DType::Bool, Fill::Coin)] {
        cases.push(
            Case::new("flip", format!("{dtype}, with and without vec4"), |x| {
                vec![x[0].flip(&[0]), x[0].flip(&[1]), x[0].t().flip(&[1])]
            })
            .input("x", TensorType::new(dtype, [5, 4]), fill)
            .forward_only(),
        );
    }
    cases
}
