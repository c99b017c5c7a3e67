//! A user-defined op with a kernel, a gradient and a reference.

use wgrad::op::{Args, Backward, Binding, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant};
use wgrad::shader::Source;
use wgrad::{Data, Tensor, TensorType, Value};

/// A correct kernel.
pub const RIGHT: &str = "
struct Sizes { n: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> p: Sizes;
@compute @workgroup_size(64)
fn my_square(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < p.n) { y[id.x] = x[id.x] * x[id.x]; }
}";

/// A user-defined op with the given kernel.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MySquare(pub String);

impl MySquare {
    /// A kernel whose results are off by 0.001.
    pub fn wrong() -> MySquare {
        MySquare(RIGHT.replace("x[id.x] * x[id.x]", "x[id.x] * x[id.x] + 1e-3"))
    }
}

impl Op for MySquare {
    fn name(&self) -> &'static str {
        "my_square"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(vec![inputs[0].clone()])
    }
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![Some(g.dy() * g.x(0) * 2.0)]
    }
    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let squares: Vec<f64> = inputs[0].to_f64().iter().map(|x| x * x).collect();
        vec![Tensor::new(&outputs[0].shape, Data::F64(squares)).expect("same shape")]
    }
    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Ulps(1.0, 0.0)
    }
    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for MySquare {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant::plain("only")];
        VARIANTS
    }
    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let n = args.outputs[0].shape.numel() as u32;
        Ok(Launch {
            label: "my_square".into(),
            wgsl: Source::new(self.0.as_str(), 64),
            entry: "my_square",
            bindings: vec![
                Binding::Read(Slot::Input(0)),
                Binding::Write(Slot::Output(0)),
                Binding::Uniform(vec![n, 0, 0, 0]),
            ],
            workgroups: args.profile.grid(u64::from(n.div_ceil(64)))?,
        }
        .into())
    }
}
