//! Examples of ops, which tests, checks and benchmarks run.

use crate::{DType, TensorType, Value};

/// How to fill a case's input. Example: [`check_case`](crate::check::check_case).
#[derive(Clone, Debug)]
pub enum Fill {
    /// Uniform floats in that range.
    Uniform(f64, f64),
    /// Uniform floats in that range, with these values first.
    Special(&'static [f64], f64, f64),
    /// Distinct floats at least 0.01 apart: for maxima, which have no gradient at ties.
    Distinct,
    /// Integers in `0..bound`, for U32 and I32.
    Index(u32),
    /// Random truth values.
    Coin,
}

/// One input of a case. Example: [`check_case`](crate::check::check_case).
#[derive(Clone, Debug)]
pub struct CaseInput {
    /// Its name in reports.
    pub name: &'static str,
    /// Its type.
    pub ty: TensorType,
    /// Its values.
    pub fill: Fill,
}

/// Builds a case's graph: from inputs to outputs. Example: [`check_case`](crate::check::check_case).
pub type Build = dyn Fn(&[Value]) -> Vec<Value> + Send + Sync;

/// An example of an op, used by tests, gradient checks, `wgrad check` and benchmarks.
pub struct Case {
    /// The op's name.
    pub op: &'static str,
    /// What distinguishes this case, such as `3x3 stride 2`.
    pub name: String,
    /// Its inputs.
    pub inputs: Vec<CaseInput>,
    /// Its graph.
    pub build: Box<Build>,
    /// Whether its gradients are also checked: by finite differences, and on the device.
    pub differentiable: bool,
    /// Whether terms of its gradients cancel, so that they move far when operands are rounded to f16. They are compared
    /// end to end with [`Precision::Highest`](super::Precision) only.
    pub ill_conditioned: bool,
}

impl Case {
    /// A differentiable case, still without inputs.
    pub fn new(
        op: &'static str,
        name: impl Into<String>,
        build: impl Fn(&[Value]) -> Vec<Value> + Send + Sync + 'static,
    ) -> Self {
        Case::boxed(op, name.into(), Box::new(build))
    }

    fn boxed(op: &'static str, name: String, build: Box<Build>) -> Self {
        Case { op, name, inputs: Vec::new(), build, differentiable: true, ill_conditioned: false }
    }

    /// Adds a float input, uniform in [-1, 1].
    pub fn float(self, name: &'static str, shape: impl Into<crate::Shape>) -> Self {
        self.input(name, TensorType::new(DType::F32, shape), Fill::Uniform(-1.0, 1.0))
    }

    /// Adds an input.
    pub fn input(mut self, name: &'static str, ty: TensorType, fill: Fill) -> Self {
        self.inputs.push(CaseInput { name, ty, fill });
        self
    }

    /// The case with its f32 inputs in another float type; `None` if it has none, or if their range exceeds the type's.
    pub fn with_floats(mut self, dtype: DType) -> Option<Self> {
        let mut floats = self.inputs.iter_mut().filter(|input| input.ty.dtype == DType::F32).peekable();
        floats.peek()?;
        for input in floats {
            if let Fill::Uniform(low, high) | Fill::Special(_, low, high) = input.fill
                && (dtype.check(low).is_err() || dtype.check(high).is_err())
            {
                return None;
            }
            input.ty.dtype = dtype;
        }
        self.name = format!("{}, {dtype}", self.name);
        Some(self)
    }

    /// Skips the gradient check: for integers, comparisons, and inputs where the op is not differentiable.
    pub fn forward_only(mut self) -> Self {
        self.differentiable = false;
        self
    }

    /// Skips the comparison of gradients end to end if operands may be rounded to f16: see [`Case::ill_conditioned`].
    pub fn with_cancelling_gradients(mut self) -> Self {
        self.ill_conditioned = true;
        self
    }
}
