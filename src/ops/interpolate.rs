//! Resizing axes by interpolation, such as images and feature maps.

use crate::op::{
    Args, Attributes, Backward, Binding, Case, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant,
};
use crate::ops::gather::Lines;
use crate::ops::reduce::outer_size_inner;
use crate::shader::Shader;
use crate::shape::{View, reciprocal};
use crate::{DType, Tensor, TensorType, Value};

/// How [`Value::interpolate`] computes an element between two others. Example: [`Value::interpolate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interpolation {
    /// Element `floor(j n_in / n_out)`.
    Nearest,
    /// Linear, at position `(j + 1/2) n_in / n_out - 1/2`: PyTorch's default, `align_corners=False`.
    Linear,
    /// Linear, at position `j (n_in - 1) / (n_out - 1)`, so that the first and last elements are unchanged:
    /// PyTorch's `align_corners=True`.
    LinearAligned,
}

/// Maximum loop iterations per invocation: some drivers silently stop longer loops.
const MAX_ITERATIONS: usize = 16_000;

/// Resizes one axis from `n_in` to `n_out` elements, or computes the transpose, which is the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Interpolate {
    axis: usize,
    mode: Interpolation,
    n_in: usize,
    n_out: usize,
    transposed: bool,
}

impl Interpolate {
    /// Output `j` is at position `(j step + start) / unit`, clamped to the source axis: `[unit, step, start]`.
    fn scale(&self) -> [i64; 3] {
        let [n_in, n_out] = [self.n_in, self.n_out].map(|n| n as i64);
        match self.mode {
            Interpolation::Nearest => [n_out, n_in, 0],
            Interpolation::Linear => [2 * n_out, 2 * n_in, n_in - n_out],
            Interpolation::LinearAligned if n_out == 1 => [1, 0, 0],
            Interpolation::LinearAligned => [n_out - 1, n_in - 1, 0],
        }
    }

    /// The source elements that output `j` is computed from, with their weights.
    fn taps(&self, j: usize) -> [(usize, f64); 2] {
        let [unit, step, start] = self.scale();
        let at = (j as i64 * step + start).clamp(0, (self.n_in as i64 - 1) * unit);
        let (low, rest) = ((at / unit) as usize, (at % unit) as f64 / unit as f64);
        let rest = if self.mode == Interpolation::Nearest { 0.0 } else { rest };
        [(low, 1.0 - rest), ((low + 1).min(self.n_in - 1), rest)]
    }

    /// The maximum number of terms of a sum.
    fn terms(&self) -> usize {
        if self.transposed { 2 * self.n_out.div_ceil(self.n_in) + 2 } else { 2 }
    }
}

impl Op for Interpolate {
    fn name(&self) -> &'static str {
        if self.transposed { "interpolate_grad" } else { "interpolate" }
    }

    fn attributes(&self) -> Attributes {
        let mode = match self.mode {
            Interpolation::Nearest => "nearest",
            Interpolation::Linear => "linear",
            Interpolation::LinearAligned => "linear_aligned",
        };
        let sizes = [self.n_in, self.n_out];
        vec![("axis", self.axis.into()), ("mode", mode.into()), ("sizes", sizes.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs[0].dtype != DType::F32 {
            return Err("expected floats; cast() the input".into());
        }
        let (n_in, n_out) = (self.n_in, self.n_out);
        if n_in == 0 || n_out == 0 {
            return Err(format!(
                "cannot resize axis {} from {n_in} to {n_out} elements; both must be at least 1",
                self.axis
            ));
        }
        if n_in.saturating_mul(n_out) > 1 << 29 || 2 * n_out.div_ceil(n_in) + 2 > MAX_ITERATIONS {
            return Err(format!(
                "cannot resize axis {} from {n_in} to {n_out} elements; resize in two steps",
                self.axis
            ));
        }
        let mut shape = inputs[0].shape.to_vec();
        shape[self.axis] = if self.transposed { n_in } else { n_out };
        Ok(vec![TensorType::new(DType::F32, shape)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![Some(g.dy().op(Interpolate { transposed: !self.transposed, ..*self }, &[]))]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let [_, size, inner] = outer_size_inner(&outputs[0].shape, self.axis);
        let from = if self.transposed { self.n_out } else { self.n_in };
        let x = inputs[0].to_f64();
        let mut y = vec![0.0; outputs[0].shape.numel()];
        for o in 0..y.len() / (size * inner).max(1) {
            for (j, (k, weight)) in (0..self.n_out).flat_map(|j| self.taps(j).map(|tap| (j, tap))) {
                let (to, source) = if self.transposed { (k, j) } else { (j, k) };
                for i in (0..inner).filter(|_| weight != 0.0) {
                    y[(o * size + to) * inner + i] += weight * x[(o * from + source) * inner + i];
                }
            }
        }
        vec![Tensor::of(&outputs[0].shape, y)]
    }

    /// A weight is the quotient of two exact integers (2.5 ulp, as WGSL grants).
    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Sum(self.terms() + 5)
    }

    fn reduction_len(&self, _: &[&TensorType]) -> usize {
        self.terms()
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for Interpolate {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant { epilogue: true, ..Variant::plain("elements") }];
        VARIANTS
    }

    fn reads(&self, _input: usize, view: &View) -> bool {
        Lines::new(view, self.axis).is_some()
    }

    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let x = Lines::new(&args.views[0], self.axis).ok_or("its axes do not merge")?;
        let count = args.outputs[0].shape.numel();
        let [_, size, inner] = outer_size_inner(&args.outputs[0].shape, self.axis);
        let scale = self.scale();
        let mut uniform = x.words().to_vec();
        uniform.extend([inner, size, scale[0] as usize].into_iter().flat_map(reciprocal));
        uniform.extend([count, size, inner, self.n_in, self.n_out].map(|n| n as u32));
        uniform.extend(scale.map(|n| n as i32 as u32));
        uniform.extend([0; 2]); // padding
        let text = Shader::new("interpolate").set("TRANSPOSED", self.transposed);
        Ok(Launch {
            label: self.name().into(),
            wgsl: text.set("NEAREST", self.mode == Interpolation::Nearest).finish()?,
            entry: "interpolate",
            bindings: vec![Binding::Uniform(uniform), Binding::Read(Slot::Input(0)), Binding::Write(Slot::Output(0))],
            workgroups: args.profile.grid(count.div_ceil(64) as u64)?,
        }
        .into())
    }
}

impl Value {
    /// Resizes the last `size.len()` axes to `size` elements, one axis after the other: linear, bilinear or trilinear
    /// interpolation of `[N, C, W]`, `[N, C, H, W]` or `[N, C, D, H, W]`. Floats.
    ///
    /// ```
    /// use wgrad::ops::interpolate::Interpolation;
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    ///
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F32, [1, 1, 4]);
    /// let linear = x.interpolate(&[8], Interpolation::Linear);
    /// let aligned = x.interpolate(&[7], Interpolation::LinearAligned);
    /// let nearest = x.interpolate(&[3], Interpolation::Nearest);
    ///
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&linear, &aligned, &nearest])?;
    /// let x = Tensor::new([1, 1, 4], [1.0f32, 2.0, 3.0, 4.0])?;
    /// let outputs = session.run(&program, &[("x", &x)])?;
    /// assert_eq!(outputs[0].to_f32(), [1.0, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.0]);
    /// assert_eq!(outputs[1].to_f32(), [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]);
    /// assert_eq!(outputs[2].to_f32(), [1.0, 2.0, 3.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn interpolate(&self, size: &[usize], mode: Interpolation) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        let Some(first) = self.shape().rank().checked_sub(size.len()) else {
            let why =
                format!("there are {} sizes for the {} axes of {}", size.len(), self.shape().rank(), self.shape());
            return self.graph().error("interpolate", &[self], why);
        };
        let mut y = self.clone();
        for (axis, &n_out) in (first..).zip(size) {
            let n_in = self.shape()[axis];
            if n_in != n_out {
                y = y.op(Interpolate { axis, mode, n_in, n_out, transposed: false }, &[]);
            }
        }
        y
    }
}

/// The cases of this family.
pub fn cases() -> Vec<Case> {
    use Interpolation::{Linear, LinearAligned, Nearest};
    let case = |name: &str, shape: &[usize], size: &'static [usize], mode: Interpolation| {
        Case::new("interpolate", format!("{name}, {mode:?}"), move |x| vec![x[0].interpolate(size, mode)])
            .float("x", shape)
    };
    let mut cases = Vec::new();
    for mode in [Nearest, Linear, LinearAligned] {
        cases.extend([
            case("doubled", &[2, 3, 5], &[10], mode),
            case("7 to 3", &[2, 7], &[3], mode),
            case("64 to 65", &[64], &[65], mode),
            case("images 5 x 4 to 9 x 7", &[2, 3, 5, 4], &[9, 7], mode),
            case("images 9 x 8 to 4 x 11", &[1, 2, 9, 8], &[4, 11], mode),
            case("volumes", &[2, 2, 3, 4], &[3, 5, 2], mode),
            case("one element to 5", &[3, 1], &[5], mode),
            case("6 elements to one", &[3, 6], &[1], mode),
            case("2 elements to 3001", &[1, 2], &[3001], mode),
            case("3001 elements to 2", &[3001], &[2], mode),
            case("no rows", &[0, 4], &[6], mode),
        ]);
    }
    cases.push(
        Case::new("interpolate", "of a permuted and sliced view, then doubled", |x| {
            vec![x[0].permute(&[0, 2, 1]).slice(2, 1, 6, 1).interpolate(&[9], Linear) * 2.0]
        })
        .float("x", [2, 7, 5]),
    );
    const HARD: &[f64] = &[1.0, f64::NAN, 2.0, f64::INFINITY, 3.0];
    let mut hard = case("NaN and infinity", &[2, 5], &[9], LinearAligned).forward_only();
    hard.inputs[0].fill = Fill::Special(HARD, -1.0, 1.0);
    cases.push(hard);
    cases
}
