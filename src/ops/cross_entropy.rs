//! Fused cross entropy of logits and class indices: the losses, their gradient, or both in one launch.

use std::borrow::Cow;
use std::sync::Arc;

use crate::op::{
    Args, Attributes, Backward, Binding, Bits, Case, Cost, Fill, Kernel, Launch, Lowered, Lowering, Op, Rounding, Slot,
    Variant,
};
use crate::op::{F32_UNIT_ROUNDOFF, gamma_of_runs};
use crate::ops::reduce::SHORT_ROWS;
use crate::ops::softmax::{LATE, MAX_ROW, ROW_VARIANTS, is_workgroup, row_cost, row_shader, towers};
use crate::shader::Shader;
use crate::{DType, Data, Tensor, TensorType, Value};

/// Cross entropy of rows of logits `[N, C]` and their classes `[N]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum CrossEntropy {
    /// `ln(sum(exp(x))) - x[class]` for each row: `[N]`.
    Losses,
    /// The gradient of the losses for the logits, `(softmax(x) - onehot(class)) * dy[n]`, from logits, classes and
    /// `dy [N]`.
    Gradient,
    /// The losses, and their gradient for a `dy` that is the same for all rows. The plan uses it where a graph has both,
    /// so that the logits are read once.
    Both {
        /// Exactly an f32.
        dy: Bits,
    },
}

/// Whether an op computes losses for [`with_gradient`].
pub(crate) fn is_losses(op: &dyn Op) -> bool {
    op.equals(&CrossEntropy::Losses)
}

/// An op for the losses and their gradient, if `losses` and `gradient` are ops for these, with the same logits and
/// classes, and if all elements of `dy` have this value.
pub(crate) fn with_gradient(losses: &dyn Op, gradient: &dyn Op, dy: f64) -> Option<Arc<dyn Op>> {
    let pair = is_losses(losses) && gradient.equals(&CrossEntropy::Gradient);
    pair.then(|| Arc::new(CrossEntropy::Both { dy: Bits(f64::from(dy as f32)) }) as Arc<dyn Op>)
}

/// The bits of a NaN, the result of a row whose class is out of range.
const NAN: u32 = 0x7fc0_0000;

fn check_types(inputs: &[&TensorType]) -> Result<(), String> {
    let (x, class) = (inputs[0], inputs[1]);
    if x.dtype != DType::F32 || x.shape.rank() != 2 || !matches!(class.dtype, DType::I32 | DType::U32) {
        return Err("expected f32 logits [N, C] and i32 or u32 classes [N]".into());
    }
    if class.shape.to_vec() != [x.shape[0]] {
        return Err(format!("expected {} class indices, one for each row of logits", x.shape[0]));
    }
    if !(1..=MAX_ROW).contains(&x.shape[1]) {
        return Err(format!("expected 1 to {MAX_ROW} classes, not {}", x.shape[1]));
    }
    Ok(())
}

/// Each row of logits with its class index, which has been checked before.
fn rows<'a>(inputs: &'a [&Tensor]) -> impl Iterator<Item = (&'a [f64], usize)> + 'a {
    let class = |row: usize| match inputs[1].data() {
        Data::I32(v) => v[row] as usize,
        Data::U32(v) => v[row] as usize,
        _ => 0,
    };
    let c = inputs[0].shape()[1];
    inputs[0].f64s().chunks(c).enumerate().map(move |(row, x)| (x, class(row)))
}

/// The largest logit and the sum of `exp(x - largest)`.
fn largest_and_sum(x: &[f64]) -> (f64, f64) {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (top, x.iter().map(|x| (x - top).exp()).sum())
}

/// The gradients of all rows.
fn gradients_of_rows(inputs: &[&Tensor], dy: &[f64]) -> Vec<f64> {
    let dx = rows(inputs).zip(dy).flat_map(|((x, class), dy)| {
        let (top, sum) = largest_and_sum(x);
        let hit = move |k: usize| if k == class { 1.0 } else { 0.0 };
        x.iter().enumerate().map(move |(k, x)| ((x - top).exp() / sum - hit(k)) * dy)
    });
    dx.collect()
}

/// The losses of all rows.
fn losses_of_rows(inputs: &[&Tensor]) -> Vec<f64> {
    let loss = |(x, class): (&[f64], usize)| {
        let (top, sum) = largest_and_sum(x);
        sum.ln() - (x[class] - top)
    };
    rows(inputs).map(loss).collect()
}

/// How far losses may be off. The roundings of `x - m` and of the final difference are proportional to the distance from
/// the maximum `m`. The relative error of the sum is the absolute error of the logarithm. `exp` adds `2 |x - m|` units to
/// a term of size `exp(x - m)`, which is never more than one unit of the sum.
fn loss_bounds(inputs: &[&Tensor]) -> Vec<f64> {
    let bound = |(x, class): (&[f64], usize)| {
        let (top, sum) = largest_and_sum(x);
        gamma_of_runs(x.len()) + (4.0 * (top - x[class]) + 4.0 * sum.ln() + 16.0) * F32_UNIT_ROUNDOFF
    };
    rows(inputs).map(bound).collect()
}

/// How far gradients may be off: the error of `softmax` times `dy`, plus a rounding of the difference.
fn gradient_bounds(inputs: &[&Tensor], dy: &[f64]) -> Vec<f64> {
    let bounds = rows(inputs).zip(dy).flat_map(|((x, class), dy)| {
        let (top, sum) = largest_and_sum(x);
        let error = move |(k, x): (usize, &f64)| {
            let p = (x - top).exp() / sum;
            let one = if k == class { 2.0 } else { 0.0 };
            dy.abs()
                * (p * (gamma_of_runs(inputs[0].shape()[1]) + (6.0 * (top - x) + 16.0) * F32_UNIT_ROUNDOFF)
                    + one * F32_UNIT_ROUNDOFF)
                + 1.2e-38
        };
        x.iter().enumerate().map(error).collect::<Vec<f64>>()
    });
    bounds.collect()
}

/// The gradient of [`CrossEntropy::Gradient`] for the logits, where `g` is that of its result. Only softmax depends on the
/// logits; its Jacobian is symmetric.
fn second_gradient(x: &Value, dy: &Value, g: &Value) -> Value {
    let p = x.softmax(1);
    let scaled = g * dy.reshape(&[x.dim(0) as isize, 1]);
    let mean = (&p * &scaled).sum(&[1], true);
    p * (scaled - mean)
}

impl CrossEntropy {
    /// What is computed of losses and gradient, in this order.
    fn computed<T>(&self, losses: impl FnOnce() -> T, gradient: impl FnOnce() -> T) -> Vec<T> {
        match self {
            CrossEntropy::Losses => vec![losses()],
            CrossEntropy::Gradient => vec![gradient()],
            CrossEntropy::Both { .. } => vec![losses(), gradient()],
        }
    }

    /// `dy` for each row; none for losses.
    fn dy<'a>(&self, inputs: &'a [&Tensor]) -> Cow<'a, [f64]> {
        match self {
            CrossEntropy::Losses => Cow::default(),
            CrossEntropy::Gradient => inputs[2].f64s().into(),
            CrossEntropy::Both { dy } => vec![dy.0; inputs[1].numel()].into(),
        }
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        match self {
            CrossEntropy::Losses => "cross_entropy",
            CrossEntropy::Gradient => "cross_entropy_grad",
            CrossEntropy::Both { .. } => "cross_entropy_with_grad",
        }
    }

    fn attributes(&self) -> Attributes {
        match self {
            CrossEntropy::Both { dy } => vec![("dy", dy.0.into())],
            _ => Attributes::new(),
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_types(inputs)?;
        if *self == CrossEntropy::Gradient && *inputs[2] != TensorType::new(DType::F32, &inputs[1].shape) {
            return Err("expected one f32 dy for each row".into());
        }
        Ok(self.computed(|| TensorType::new(DType::F32, &inputs[1].shape), || inputs[0].clone()))
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let (x, class) = (g.x(0), g.x(1));
        let of_losses = |dy: &Value| x.op(CrossEntropy::Gradient, &[class, dy]);
        match self {
            CrossEntropy::Losses => vec![g.when(0, || of_losses(&g.dy())), None],
            CrossEntropy::Gradient => vec![
                g.when(0, || second_gradient(x, g.x(2), &g.dy())),
                None,
                g.when(2, || (of_losses(&g.x(2).ones_like()) * g.dy()).sum(&[1], false)),
            ],
            CrossEntropy::Both { dy } => {
                let of_gradient = |g_dx: &Value| second_gradient(x, &g.outputs[0].full_like(dy.0), g_dx);
                let both = || match (g.dys[0].as_ref().map(of_losses), g.dys[1].as_ref().map(of_gradient)) {
                    (Some(a), Some(b)) => a + b,
                    (a, b) => a.or(b).unwrap_or_else(|| x.zeros_like()),
                };
                vec![g.when(0, both), None]
            }
        }
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let results = self.computed(|| losses_of_rows(inputs), || gradients_of_rows(inputs, &self.dy(inputs)));
        outputs.iter().zip(results).map(|(ty, result)| Tensor::of(&ty.shape, result)).collect()
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        let op = self.clone();
        Rounding::bound(move |inputs, _| {
            op.computed(|| loss_bounds(inputs), || gradient_bounds(inputs, &op.dy(inputs)))
        })
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }

    fn index_bound(&self, input: usize, inputs: &[&TensorType]) -> Option<usize> {
        (input == 1).then(|| inputs[0].shape[1])
    }
}

impl Kernel for CrossEntropy {
    fn variants(&self) -> &'static [Variant] {
        ROW_VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        row_cost(variant, args, args.inputs[0].shape[1], 1)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let [n, c] = [args.inputs[0].shape[0], args.inputs[0].shape[1]];
        let entry = if is_workgroup(variant) { "cross_entropy_workgroup" } else { "cross_entropy" };
        let both = matches!(self, CrossEntropy::Both { .. });
        let shader = row_shader(variant, Shader::new(entry).set("BOTH", both), [n, c], 1, args);
        let (read, write) = (|input| Binding::Read(Slot::Input(input)), |output| Binding::Write(Slot::Output(output)));
        let (what, word, [third, fourth]) = match self {
            // The losses do not read dy; any input can fill its binding.
            CrossEntropy::Losses => ("losses", 0, [read(1), write(0)]),
            CrossEntropy::Gradient => ("gradient", 1, [read(2), write(0)]),
            CrossEntropy::Both { dy } => ("losses and gradient", (dy.0 as f32).to_bits(), [write(0), write(1)]),
        };
        Ok(Launch {
            label: format!("{entry} {what}"),
            workgroups: args.profile.grid(shader.workgroups(n))?,
            wgsl: shader.text.finish()?,
            entry,
            bindings: vec![
                Binding::Uniform(vec![n as u32, c as u32, NAN, word]),
                read(0),
                read(1),
                third,
                fourth,
                Binding::Status,
            ],
        }
        .into())
    }
}

impl Value {
    /// Cross entropy of logits `[N, C]` or `[N, C, d1, ...]` (f32) and a target, which is either
    /// - class indices `[N]` or `[N, d1, ...]` (i32 or u32, in `0..C`): `ln(sum(exp(x))) - x[class]`, or
    /// - probabilities in the shape of the logits (f32): `-sum(target * log_softmax(x))` over the classes.
    ///
    /// The losses have the shape of the logits without the class axis; for their mean or sum see
    /// [`Value::cross_entropy`].
    #[track_caller]
    pub fn cross_entropy_losses(&self, target: &Value) -> Value {
        if let Err(invalid) = self.graph().admit("cross_entropy", &[self, target]) {
            return invalid;
        }
        if self.dtype().is_narrow() {
            return self.widen().cross_entropy_losses(target);
        }
        let location = std::panic::Location::caller();
        let complain = |why: String| self.graph().error_at(location, "cross_entropy", &[self, target], why);
        let rank = self.shape().rank();
        if rank < 2 {
            return complain("expected logits [N, C] or [N, C, d1, ...]".into());
        }
        if target.dtype().is_float() {
            if target.shape() != self.shape() {
                return complain("expected probabilities of the logits' shape, or class indices as i32 or u32".into());
            }
            return self.log_softmax(1).times_share(&target.widen()).sum(&[1], false).neg();
        }
        let classes = self.shape()[1];
        let rest: Vec<isize> = (0..rank).filter(|&axis| axis != 1).map(|axis| self.shape()[axis] as isize).collect();
        if !target.shape().iter().map(|&size| size as isize).eq(rest.iter().copied()) {
            return complain(format!("expected class indices of shape {rest:?}"));
        }
        let n = target.shape().numel() as isize;
        let axes: Vec<isize> = std::iter::once(0).chain(2..rank as isize).chain([1]).collect();
        let logits = if rank == 2 { self.clone() } else { self.permute(&axes).reshape(&[n, classes as isize]) };
        logits.op(CrossEntropy::Losses, &[&target.reshape(&[n])]).reshape(&rest)
    }

    /// `share * x`, with 0 for a share of 0 even if `x` is a log-probability of minus infinity.
    #[track_caller]
    pub(crate) fn times_share(&self, share: &Value) -> Value {
        let finite = self.maximum(&self.full_like(f64::from(f32::MIN)));
        share * share.eq(&share.zeros_like()).where_(&finite, self)
    }
}

/// Cases with one out-of-range class computed on the device: every way to run them must return an error.
pub fn out_of_range() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, size) in [(3, 2), (65, 10), (5, 256)] {
        for (what, class) in [("the first class past the end", size as f64), ("class -1", -1.0)] {
            let build = |x: &[Value]| (x[0].clone(), x[1].concat(&[&x[2].reshape(&[1])], 0).cast(DType::I32));
            let name = format!("{what} of {size}, in the last of {rows} rows");
            let losses = Case::new("cross_entropy", &name, move |x| {
                let (x, class) = build(x);
                vec![x.op(CrossEntropy::Losses, &[&class])]
            });
            let gradient = Case::new("cross_entropy_grad", &name, move |x| {
                let (x, class) = build(x);
                vec![x.op(CrossEntropy::Gradient, &[&class, &class.cast(DType::F32)])]
            });
            let both = Case::new("cross_entropy_with_grad", name, move |x| {
                let (x, class) = build(x);
                with_grad(&[x, class], 0.5)
            });
            for case in [losses, gradient, both] {
                let case = case
                    .float("x", [rows, size])
                    .input("classes", TensorType::new(DType::F32, [rows - 1]), Fill::Index(size as u32))
                    .input("last", TensorType::new(DType::F32, []), Fill::Uniform(class, class));
                cases.push(case.forward_only());
            }
        }
    }
    cases
}

/// Losses and gradients for one `dy`.
fn with_grad(x: &[Value], dy: f64) -> Vec<Value> {
    x[0].graph().apply(CrossEntropy::Both { dy: Bits(dy) }, &[&x[0], &x[1]])
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let logits = |case: Case, shape: &[usize], fill: Fill| case.input("x", TensorType::new(DType::F32, shape), fill);
    let classes = |case: Case, dtype: DType, shape: &[usize], c: usize| {
        case.input("class", TensorType::new(dtype, shape), Fill::Index(c as u32))
    };
    let losses = |name: String| Case::new("cross_entropy", name, |x| vec![x[0].op(CrossEntropy::Losses, &[&x[1]])]);
    let unit = Fill::Uniform(-2.0, 2.0);
    let mut cases = Vec::new();
    // Registers of GPUs hold the longer rows, except for a part of the last.
    let long = [(4, 1000), (2, 5000), (2, 12_003), (2, 20_001), (2, 50_257)];
    let short = [(1, 1), (3, 2), (65, 10), (128, 3), (700, 3), (5, 255), (5, 256), (3, 257), (450, 509)];
    for (n, c) in short.into_iter().chain(long).chain(SHORT_ROWS.map(|c| (259, c))) {
        let case = logits(losses(format!("{n} of {c} classes")), &[n, c], unit.clone());
        cases.push(classes(case, if n % 2 == 0 { DType::I32 } else { DType::U32 }, &[n], c));
    }
    let large = Fill::Special(&[80.0, -80.0, 80.0, 79.0], -80.0, 80.0);
    cases.push(classes(logits(losses("+-80".into()), &[9, 6], large), DType::I32, &[9], 6));
    const TOWERS: &[f64] = &towers(80.0);
    let fill = Fill::Special(TOWERS, -1.0, 1.0);
    cases.push(classes(logits(losses("towers".into()), &[6, 8], fill), DType::U32, &[6], 8));
    const HARD: &[f64] = &{
        let mut x = [0.5; 48];
        (x[3], x[8 + 4], x[16 + 5], x[24 + 7]) = (f64::NAN, f64::INFINITY, -f64::NAN, f64::NAN);
        x
    };
    let case = logits(losses("NaN and infinity".into()), &[6, 8], Fill::Special(HARD, -1.0, 1.0)).forward_only();
    cases.push(classes(case, DType::U32, &[6], 8));
    let case =
        Case::new("cross_entropy_grad", "NaN and infinity", |x| vec![x[0].op(CrossEntropy::Gradient, &[&x[1], &x[2]])]);
    let case = logits(case, &[6, 8], Fill::Special(HARD, -1.0, 1.0)).forward_only();
    cases.push(classes(case, DType::I32, &[6], 8).float("dy", [6]));
    for (size, fill) in LATE {
        let case = losses(format!("a late tower among {size}"));
        cases.push(classes(logits(case, &[2, size], Fill::Special(fill, -1.0, 1.0)), DType::U32, &[2], size));
    }
    cases.push(classes(logits(losses("no rows".into()), &[0, 6], unit.clone()), DType::I32, &[0], 6));
    let case = logits(losses("100,000 classes".into()), &[2, 100_000], unit.clone()).forward_only();
    cases.push(classes(case, DType::U32, &[2], 100_000));
    // After the largest, all terms are rounded in the same direction, so errors of a plain running sum accumulate.
    for (size, first) in [(4095, &[1.55]), (400_001, &[1.1])] {
        let case = losses(format!("{size} classes, all but one equal"));
        let case = logits(case, &[1, size], Fill::Special(first, 0.0, 0.0));
        cases.push(classes(case, DType::U32, &[1], size).forward_only());
    }
    for (n, c) in [(1, 1), (65, 10), (5, 256), (450, 509), (4, 1000), (2, 50_257), (259, 127)] {
        let case = Case::new("cross_entropy_with_grad", format!("{n} of {c} classes"), |x| with_grad(x, 0.75));
        let case = classes(logits(case, &[n, c], unit.clone()), DType::I32, &[n], c);
        cases.push(if c > 1000 { case.forward_only() } else { case });
    }
    let case = Case::new("cross_entropy_with_grad", "NaN and infinity", |x| with_grad(x, -1.5));
    let case = logits(case, &[6, 8], Fill::Special(HARD, -1.0, 1.0)).forward_only();
    cases.push(classes(case, DType::U32, &[6], 8));
    let case = Case::new("cross_entropy_with_grad", "no rows", |x| with_grad(x, 1.0));
    cases.push(classes(logits(case, &[0, 6], unit.clone()), DType::I32, &[0], 6));
    // The plan joins the losses and their gradient, but not the gradient of weighted losses.
    let step = Case::new("cross_entropy_with_grad", "a mean and its gradient", |x| {
        let (losses, n) = (x[0].cross_entropy_losses(&x[1]), x[1].shape().numel() as f64);
        let gradient = |dy: &Value| x[0].op(CrossEntropy::Gradient, &[&x[1], dy]);
        vec![losses.mean_all(), gradient(&losses.full_like(1.0 / n)), gradient(&(losses.ones_like() * &x[2]))]
    });
    let step = classes(logits(step, &[12, 9], unit.clone()), DType::I32, &[12], 9).float("weights", [12]);
    cases.push(step.forward_only());
    let mean = Case::new("cross_entropy", "pixels", |x| vec![x[0].cross_entropy_losses(&x[1])]);
    cases.push(classes(logits(mean, &[2, 5, 3, 4], unit.clone()), DType::I32, &[2, 3, 4], 5));
    let sum = Case::new("cross_entropy", "sum", |x| vec![x[0].cross_entropy_losses(&x[1]).sum_all()]);
    cases.push(classes(logits(sum, &[7, 5], unit.clone()), DType::I32, &[7], 5));
    let soft = Case::new("cross_entropy", "probabilities", |x| vec![x[0].cross_entropy_losses(&x[1])]);
    cases.push(logits(soft, &[6, 5], unit.clone()).input(
        "t",
        TensorType::new(DType::F32, [6, 5]),
        Fill::Uniform(0.0, 0.5),
    ));
    let again = Case::new("cross_entropy_grad", "differentiated again", |x| {
        vec![x[0].op(CrossEntropy::Gradient, &[&x[1], &x[2]])]
    });
    cases.push(classes(logits(again, &[4, 6], unit), DType::I32, &[4], 6).float("dy", [4]));
    cases
}
