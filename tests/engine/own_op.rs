//! An op defined outside the library, with a kernel, a gradient, a reference and cases, is checked like the library's.

use wgrad::check::{Extras, check_case_with};
use wgrad::op::{
    Args, Backward, Binding, Bits, Case, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot, Variant,
};
use wgrad::plan::{Options, Plan};
use wgrad::shader::Shader;
use wgrad::{DType, Data, Graph, Profile, Tensor, TensorType, Value};

use crate::common;

/// Soft thresholding: `sign(x) * max(|x| - threshold, 0)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SoftThreshold {
    threshold: Bits,
    kernel: &'static str,
}

const KERNEL: &str = "// y[i] = epilogue(sign(x[i]) * max(|x[i]| - threshold, 0)). 1 x, 2 y: contiguous, n elements.
struct Params { n: u32, threshold: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn soft_threshold(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i < p.n) {
    y[i] = epilogue(nan_or(x[i], sign_f32(x[i]) * max(abs(x[i]) - p.threshold, 0.0)), i);
  }
}
";

/// The last element of each workgroup is not written.
const WRONG: &str = "struct Params { n: u32, threshold: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn soft_threshold(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < p.n && id.x % 64u != 63u) {
    y[id.x] = epilogue(sign(x[id.x]) * max(abs(x[id.x]) - p.threshold, 0.0), id.x);
  }
}
";

impl Op for SoftThreshold {
    fn name(&self) -> &'static str {
        "soft_threshold"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match inputs[0].dtype {
            DType::F32 => Ok(vec![inputs[0].clone()]),
            other => Err(format!("expected f32, not {other}")),
        }
    }
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        // dy where |x| > threshold, else 0.
        vec![Some(g.dy() * (g.x(0).abs() - self.threshold.0).relu().sign())]
    }
    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let t = self.threshold.0;
        let of = |x: f64| if x.is_nan() { x } else { x.signum() * (x.abs() - t).max(0.0) };
        let y: Vec<f64> = inputs[0].to_f64().into_iter().map(of).collect();
        vec![Tensor::new(&outputs[0].shape, Data::F64(y)).expect("as many elements")]
    }
    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Ulps(1.0, 0.0)
    }
    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for SoftThreshold {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant { epilogue: true, ..Variant::plain("elements") }];
        VARIANTS
    }
    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let n = args.outputs[0].shape.numel() as u32;
        Ok(Launch {
            label: "soft_threshold".into(),
            wgsl: Shader::from_source("soft_threshold", self.kernel).finish()?,
            entry: "soft_threshold",
            bindings: vec![
                Binding::Uniform(vec![n, (self.threshold.0 as f32).to_bits()]),
                Binding::Read(Slot::Input(0)),
                Binding::Write(Slot::Output(0)),
            ],
            workgroups: args.profile.grid(u64::from(n.div_ceil(64)))?,
        }
        .into())
    }
}

fn cases(kernel: &'static str) -> Vec<Case> {
    let op = SoftThreshold { threshold: Bits(0.25), kernel };
    let case = |name: &str, build: fn(&[Value], &SoftThreshold) -> Value| {
        let op = op.clone();
        Case::new("soft_threshold", name, move |x| vec![build(x, &op)])
    };
    let plain = |x: &[Value], op: &SoftThreshold| x[0].graph().apply1(op.clone(), &[&x[0]]);
    let mut cases = Vec::new();
    for n in [0, 1, 64, 65, 5000] {
        cases.push(case(&format!("{n} elements"), plain).float("x", [n]));
    }
    // A view is copied first; pointwise ops around it are fused.
    cases.push(case("transposed", |x, op| x[0].graph().apply1(op.clone(), &[&x[0].t()])).float("x", [7, 30]));
    cases.push(
        case("fused", |x, op| (x[0].graph().apply1(op.clone(), &[&(&x[0] * 2.0)]) + &x[0]).relu()).float("x", [30, 40]),
    );
    const SPECIALS: &[f64] = &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 0.25, -0.25, 1e30];
    let specials = Fill::Special(SPECIALS, -1.0, 1.0);
    cases.push(case("specials", plain).input("x", TensorType::new(DType::F32, [70]), specials).forward_only());
    cases
}

#[test]
fn an_op_of_a_program_is_checked_like_the_library_s() {
    let extras = Extras { repeat: true, gradients: Some(8), every_way: true, permuted: true };
    let Some(device) = common::device() else { return };
    let (mut compared, mut finite) = (0, 0);
    for case in cases(KERNEL) {
        let report = check_case_with(&device, &case, 1, &extras).expect("runs");
        assert!(report.passed(), "{}: {report:?}", case.name);
        compared += report.compared();
        finite += report.gradients.finite;
    }
    assert!(compared > 6000 && finite >= 30, "{compared} elements and {finite} finite differences");
    let wrong = &cases(WRONG)[3];
    assert!(!check_case_with(&device, wrong, 1, &extras).expect("runs").passed(), "a wrong kernel is detected");
}

/// An op of another type with the same attributes and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Twin(SoftThreshold);

impl Op for Twin {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        self.0.infer(inputs)
    }
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        self.0.gradient(g)
    }
    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        self.0.reference(inputs, outputs)
    }
    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        self.0.rounding(inputs)
    }
    fn lowering(&self) -> Lowering<'_> {
        self.0.lowering()
    }
}

#[test]
fn equal_ops_are_computed_once() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [100]);
    let op = |threshold: f64| SoftThreshold { threshold: Bits(threshold), kernel: KERNEL };
    let calls = |values: &[Value]| {
        let outputs: Vec<&Value> = values.iter().collect();
        let (plan, findings) =
            Plan::of(&graph, &outputs, &Profile::webgpu_defaults(), &Options::default()).expect("plans");
        assert!(findings.is_empty(), "{findings:?}");
        plan.calls.len()
    };
    let plain = |threshold: f64| graph.apply1(op(threshold), &[&x]);
    assert_eq!(calls(&[plain(0.25), plain(0.25)]), 1);
    assert_eq!(calls(&[plain(0.25), plain(0.5)]), 2);
    // 0 and -0 are different attributes, and NaN equals itself.
    assert_eq!(calls(&[plain(0.0), plain(-0.0)]), 2);
    assert_eq!(calls(&[plain(f64::NAN), plain(f64::NAN)]), 1);
    assert_eq!(calls(&[plain(0.25), graph.apply1(Twin(op(0.25)), &[&x])]), 2);
}

/// The soft threshold in a kernel with a slot for its input, as its only variant declares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Declared {
    op: SoftThreshold,
    prologue: bool,
    launches: usize,
}

const PROLOGUE: &str = "struct Params { n: u32, threshold: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn soft_threshold(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < p.n) {
    let v = prologue(x[id.x], id.x);
    y[id.x] = nan_or(v, sign_f32(v) * max(abs(v) - p.threshold, 0.0));
  }
}
";

impl Op for Declared {
    fn name(&self) -> &'static str {
        "declared"
    }
    /// Without an input, 64 numbers.
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(vec![inputs.first().map_or(TensorType::new(DType::F32, [64]), |&ty| ty.clone())])
    }
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        self.op.gradient(g)
    }
    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        self.op.reference(inputs, outputs)
    }
    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        self.op.rounding(inputs)
    }
    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for Declared {
    fn variants(&self) -> &'static [Variant] {
        const PROLOGUE: &[Variant] = &[Variant { prologue: true, ..Variant::plain("elements") }];
        const EPILOGUE: &[Variant] = &[Variant { epilogue: true, ..Variant::plain("elements") }];
        if self.prologue { PROLOGUE } else { EPILOGUE }
    }
    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let once = self.op.lower(variant, args)?;
        let launches = vec![once.launches; self.launches].concat();
        Ok(Lowered { launches, scratch: once.scratch })
    }
}

/// What a variant declares must be in its shader: fused ops would be lost otherwise.
#[test]
fn slots_for_fused_ops_must_be_there() {
    let declared = |kernel, prologue, launches| {
        let op = SoftThreshold { threshold: Bits(0.25), kernel };
        Declared { op, prologue, launches }
    };
    let case = |op: Declared| {
        let build = move |x: &[Value]| vec![(x[0].graph().apply1(op.clone(), &[&(&x[0] * &x[1])])).relu()];
        Case::new("declared", "a product", build).float("x", [7, 30]).float("y", [7, 30])
    };
    let findings = |op: Declared| {
        let graph = Graph::new();
        let [x, y] = ["x", "y"].map(|name| graph.input(name, DType::F32, [7, 30]));
        let result = graph.apply1(op, &[&(x * y)]).relu();
        let (plan, findings) =
            Plan::of(&graph, &[&result], &Profile::webgpu_defaults(), &Options::default()).expect("plans");
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        (plan.calls.len(), findings.join("\n"))
    };
    assert_eq!(findings(declared(PROLOGUE, true, 1)), (2, String::new()));
    if let Some(device) = common::device() {
        let extras = Extras { repeat: true, gradients: None, every_way: true, permuted: true };
        let report = check_case_with(&device, &case(declared(PROLOGUE, true, 1)), 1, &extras).expect("runs");
        assert!(report.passed() && report.compared() >= 420, "{report:?}");
    }
    let says = |op: Declared, what: &str| {
        let (_, found) = findings(op);
        assert!(found.contains("declared") && found.contains(what), "{found}");
    };
    says(declared(WRONG, true, 1), "declares `prologue: true`, but the shader does not call it");
    says(declared(PROLOGUE, false, 1), "declares `epilogue: true`, but the shader does not call it");
    says(declared(PROLOGUE, true, 2), "a later launch reads the first input");
    // An op without inputs has nothing that a prologue could compute, or a launch could bind.
    let graph = Graph::new();
    let none = graph.apply1(declared(PROLOGUE, true, 1), &[]);
    let (_, findings) = Plan::of(&graph, &[&none], &Profile::webgpu_defaults(), &Options::default()).expect("plans");
    assert!(findings.iter().any(|found| found.to_string().contains("binds input 0, but there are 0")), "{findings:?}");
}
