//! A row of the table of elementwise functions, and its op.

use std::hash::{Hash, Hasher};

use crate::op::{Arg, Attribute, Attributes, Backward, Bits, Lowering, Nan, Op, Pointwise, Rounding};
use crate::parallel::for_chunks;
use crate::{DType, Data, Tensor, TensorType, Value};

/// The properties of an elementwise function, except its WGSL.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(super) name: &'static str,
    function: Function,
    gradient: Rule,
    ulps: f64,
    absolute: f64,
    identity: Option<f64>,
    nan: Nan,
    reads_subnormals: bool,
    selects: bool,
    /// The range of random inputs of its test cases.
    pub(super) domain: (f64, f64),
    /// Special values at the beginning of its test inputs.
    pub(super) special: &'static [f64],
}

/// The operand and result types, and the function of the reference.
#[derive(Clone, Copy)]
pub(super) enum Function {
    /// Floats, with the number of operands; the function takes operands and attributes.
    Floats(usize, fn(&[f64], &[f64]) -> f64),
    /// Numbers of one type, with the number of operands: floats, or integers in 64 bits, of which the result keeps
    /// the lower 32.
    Numbers(usize, fn(&[f64]) -> f64, fn(&[i64]) -> i64),
    /// Integers of one type, with the number of operands, in 64 bits, of which the result keeps the lower 32.
    Integers(usize, fn(&[i64]) -> i64),
    /// Two numbers of one type to bool; every 32-bit integer is an exact f64.
    Compare(fn(f64, f64) -> bool),
    /// One or two bools to bool; a single operand is passed as both arguments.
    Logic(usize, fn(bool, bool) -> bool),
    /// A bool and two values of one type; the result has that type.
    Select,
}

/// The gradient of each operand, given the attributes.
type Rule = fn(&Backward<'_>, &[f64]) -> Vec<Option<Value>>;

impl Row {
    const fn new(function: Function) -> Row {
        Row {
            name: "",
            function,
            gradient: |_, _| vec![None; 3],
            ulps: 0.0,
            absolute: 0.0,
            identity: None,
            nan: Nan::Spreads,
            reads_subnormals: false,
            selects: false,
            domain: (-2.0, 2.0),
            special: &[],
        }
    }

    pub(super) const fn named(self, name: &'static str) -> Row {
        Row { name, ..self }
    }

    pub(super) const fn floats(operands: usize, f: fn(&[f64], &[f64]) -> f64) -> Row {
        Row::new(Function::Floats(operands, f))
    }

    pub(super) const fn numbers(operands: usize, float: fn(&[f64]) -> f64, integer: fn(&[i64]) -> i64) -> Row {
        Row::new(Function::Numbers(operands, float, integer))
    }

    pub(super) const fn integers(operands: usize, f: fn(&[i64]) -> i64) -> Row {
        Row::new(Function::Integers(operands, f))
    }

    pub(super) const fn compare(f: fn(f64, f64) -> bool) -> Row {
        Row { nan: Nan::Compares(false), ..Row::new(Function::Compare(f)) }
    }

    pub(super) const fn logic(operands: usize, f: fn(bool, bool) -> bool) -> Row {
        Row::new(Function::Logic(operands, f))
    }

    pub(super) const fn select() -> Row {
        Row::new(Function::Select)
    }

    /// Error bound of devices in units in the last place; functions without it are exact.
    pub(super) const fn ulps(self, ulps: f64) -> Row {
        Row { ulps, ..self }
    }

    /// Additional absolute error bound.
    pub(super) const fn absolute(self, absolute: f64) -> Row {
        Row { absolute, ..self }
    }

    /// The identity element: the other operand is returned bit for bit.
    pub(super) const fn identity(self, number: f64) -> Row {
        Row { identity: Some(number), ..self }
    }

    /// How NaN operands affect the result, if they do not propagate.
    pub(super) const fn nan(self, nan: Nan) -> Row {
        Row { nan, ..self }
    }

    /// Marks functions that distinguish subnormal numbers, which devices may treat as 0.
    pub(super) const fn reads_subnormals(self) -> Row {
        Row { reads_subnormals: true, ..self }
    }

    /// Marks functions whose result is an operand, its negative, or 0: see [`Op::selects`].
    pub(super) const fn selects(self) -> Row {
        Row { selects: true, ..self }
    }

    /// The range of random test inputs, and special values that begin a test input.
    pub(super) const fn cases(self, low: f64, high: f64, special: &'static [f64]) -> Row {
        Row { domain: (low, high), special, ..self }
    }

    pub(super) const fn gradient(self, gradient: Rule) -> Row {
        Row { gradient, ..self }
    }

    /// The number of operands.
    pub(super) fn arity(&self) -> usize {
        match self.function {
            Function::Floats(n, _) | Function::Numbers(n, ..) | Function::Integers(n, _) | Function::Logic(n, _) => n,
            Function::Compare(_) => 2,
            Function::Select => 3,
        }
    }

    /// The allowed types of the operands (for a selection, of its branches).
    pub(super) fn dtypes(&self) -> &'static [DType] {
        match self.function {
            Function::Floats(..) => &[DType::F32],
            Function::Numbers(..) | Function::Compare(_) => &[DType::F32, DType::I32, DType::U32],
            Function::Integers(..) => &[DType::I32, DType::U32],
            Function::Logic(..) => &[DType::Bool],
            Function::Select => &[DType::F32, DType::I32, DType::U32, DType::Bool],
        }
    }

    /// Whether its first operand is the condition of a selection.
    pub(super) fn is_select(&self) -> bool {
        matches!(self.function, Function::Select)
    }

    /// Whether it maps floats to floats and so has gradients.
    pub(super) fn differentiable(&self) -> bool {
        !matches!(self.function, Function::Integers(..) | Function::Compare(_) | Function::Logic(..))
    }
}

/// An elementwise op: a row and its attributes.
pub(super) struct Elementwise {
    pub(super) row: &'static Row,
    pub(super) attributes: Vec<f64>,
}

impl Elementwise {
    fn key(&self) -> (&'static str, Vec<Bits>) {
        (self.row.name, self.attributes.iter().map(|&x| Bits(x)).collect())
    }
}

impl PartialEq for Elementwise {
    fn eq(&self, other: &Elementwise) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Elementwise {}

impl Hash for Elementwise {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

impl std::fmt::Debug for Elementwise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.row.name, self.attributes)
    }
}

impl Op for Elementwise {
    fn name(&self) -> &'static str {
        self.row.name
    }

    fn attributes(&self) -> Attributes {
        match &self.attributes[..] {
            [] => vec![],
            values => vec![("values", Attribute::Floats(values.to_vec()))],
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let operands = if self.row.is_select() { &inputs[1..] } else { inputs };
        let dtype = operands[0].dtype;
        let fits = operands.iter().all(|ty| ty.dtype == dtype) && self.row.dtypes().contains(&dtype);
        let (wanted, result) = match self.row.function {
            Function::Floats(..) => ("f32 operands; cast() the others", dtype),
            Function::Numbers(..) => ("numbers of one type; cast() one side", dtype),
            Function::Integers(..) => ("integers of one type, i32 or u32; cast() the others", dtype),
            Function::Compare(_) => ("two numbers of one type; cast() one side", DType::Bool),
            Function::Logic(..) => ("bool operands; compare first", DType::Bool),
            Function::Select => ("a bool condition and two branches of one type", dtype),
        };
        if !fits || (self.row.is_select() && inputs[0].dtype != DType::Bool) {
            return Err(format!("expected {wanted}"));
        }
        Ok(vec![TensorType::new(result, &inputs[0].shape)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        (self.row.gradient)(g, &self.attributes)
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        vec![Tensor::of(&outputs[0].shape, self.evaluate(inputs, outputs[0].dtype))]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let exact = self.row.ulps == 0.0 && self.row.absolute == 0.0;
        if exact || inputs.iter().any(|ty| matches!(ty.dtype, DType::I32 | DType::U32)) {
            Rounding::Exact
        } else {
            Rounding::Ulps(self.row.ulps, self.row.absolute)
        }
    }

    fn identity(&self) -> Option<f64> {
        self.row.identity
    }

    fn nan(&self, _: usize) -> Nan {
        self.row.nan
    }

    fn selects(&self) -> bool {
        self.row.selects
    }

    fn reads_subnormals(&self) -> bool {
        self.row.reads_subnormals
    }

    fn lowering(&self) -> Lowering<'_> {
        let operands = (0..self.row.arity()).map(Arg::Input);
        let attributes = self.attributes.iter().map(|&a| Arg::F32(a));
        Lowering::Pointwise(Pointwise {
            function: self.row.name.to_owned(),
            args: operands.chain(attributes).collect(),
        })
    }
}

impl Elementwise {
    fn evaluate(&self, inputs: &[&Tensor], dtype: DType) -> Data {
        match self.row.function {
            Function::Floats(_, f) => map_floats(inputs, |x| f(x, &self.attributes)).into(),
            Function::Numbers(_, float, integer) => match dtype {
                DType::I32 => map_integers(inputs, |x| integer(x) as i32).into(),
                DType::U32 => map_integers(inputs, |x| integer(x) as u32).into(),
                _ => map_floats(inputs, float).into(),
            },
            Function::Integers(_, f) => match dtype {
                DType::I32 => map_integers(inputs, |x| f(x) as i32).into(),
                _ => map_integers(inputs, |x| f(x) as u32).into(),
            },
            Function::Compare(f) => match (inputs[0].data(), inputs[1].data()) {
                (Data::F64(a), Data::F64(b)) => zip(a, b, f).into(),
                (Data::I32(a), Data::I32(b)) => zip(a, b, |a, b| f(f64::from(a), f64::from(b))).into(),
                (Data::U32(a), Data::U32(b)) => zip(a, b, |a, b| f(f64::from(a), f64::from(b))).into(),
                _ => mistyped(inputs[0], DType::Bool),
            },
            Function::Logic(n, f) => match (inputs[0].data(), inputs[n - 1].data()) {
                (Data::Bool(a), Data::Bool(b)) => zip(a, b, f).into(),
                _ => mistyped(inputs[0], DType::Bool),
            },
            Function::Select => match (inputs[0].data(), inputs[1].data(), inputs[2].data()) {
                (Data::Bool(c), Data::F64(a), Data::F64(b)) => pick(c, a, b).into(),
                (Data::Bool(c), Data::I32(a), Data::I32(b)) => pick(c, a, b).into(),
                (Data::Bool(c), Data::U32(a), Data::U32(b)) => pick(c, a, b).into(),
                (Data::Bool(c), Data::Bool(a), Data::Bool(b)) => pick(c, a, b).into(),
                _ => mistyped(inputs[1], dtype),
            },
        }
    }
}

/// Unreachable: `infer` rejects such types.
fn mistyped(like: &Tensor, dtype: DType) -> Data {
    Tensor::zeros(&TensorType::new(dtype, like.shape())).to_reference().into_data()
}

fn zip<T: Copy>(a: &[T], b: &[T], f: impl Fn(T, T) -> bool) -> Vec<bool> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

fn pick<T: Copy>(condition: &[bool], a: &[T], b: &[T]) -> Vec<T> {
    condition.iter().zip(a.iter().zip(b)).map(|(&c, (&a, &b))| if c { a } else { b }).collect()
}

fn map_floats(inputs: &[&Tensor], f: impl Fn(&[f64]) -> f64 + Sync) -> Vec<f64> {
    const CHUNK: usize = 1 << 14;
    let columns: Vec<&[f64]> = inputs.iter().map(|t| t.f64s()).collect();
    let mut out = vec![0.0; inputs[0].numel()];
    for_chunks(&mut out, CHUNK, &|chunk, out| {
        let rows = chunk * CHUNK..chunk * CHUNK + out.len();
        let part = |number: usize| columns[number][rows.clone()].iter().copied();
        match columns.len() {
            1 => out.iter_mut().zip(part(0)).for_each(|(y, a)| *y = f(&[a])),
            2 => out.iter_mut().zip(part(0).zip(part(1))).for_each(|(y, (a, b))| *y = f(&[a, b])),
            _ => out.iter_mut().zip(part(0).zip(part(1).zip(part(2)))).for_each(|(y, (a, (b, c)))| *y = f(&[a, b, c])),
        }
    });
    out
}

fn map_integers<T>(inputs: &[&Tensor], f: impl Fn(&[i64]) -> T) -> Vec<T> {
    let at = |t: &Tensor, i: usize| match t.data() {
        Data::I32(v) => i64::from(v[i]),
        Data::U32(v) => i64::from(v[i]),
        _ => 0,
    };
    let compute = |i: usize| {
        let mut x = [0; 3];
        for (x, t) in x.iter_mut().zip(inputs) {
            *x = at(t, i);
        }
        f(&x[..inputs.len()])
    };
    (0..inputs[0].numel()).map(compute).collect()
}

/// An integer quotient; the dividend if the divisor is 0.
pub(super) fn divided(x: &[i64], quotient: fn(i64, i64) -> i64) -> i64 {
    if x[1] == 0 { x[0] } else { quotient(x[0], x[1]) }
}

/// An integer remainder; 0 if the divisor is 0.
pub(super) fn remaining(x: &[i64], remainder: fn(i64, i64) -> i64) -> i64 {
    if x[1] == 0 { 0 } else { remainder(x[0], x[1]) }
}
