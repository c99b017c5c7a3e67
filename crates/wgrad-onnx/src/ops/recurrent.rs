//! Recurrent layers: by wgrad's kernels where they compute the same, else unrolled step by step.

use wgrad::ops::recurrent::{Activation, Cell, Weights};
use wgrad::{DType, Value};

use super::Family;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[("GRU", recurrent), ("LSTM", recurrent), ("RNN", recurrent)];

/// Steps that are unrolled.
const LONGEST: usize = 1024;

/// An activation with its numbers.
#[derive(Clone, Debug, PartialEq)]
struct Function {
    name: String,
    alpha: f64,
    beta: f64,
}

impl Function {
    fn new(name: &str, alpha: Option<f64>, beta: Option<f64>) -> Result<Function> {
        let name = name.to_lowercase();
        let (default_alpha, default_beta) = match name.as_str() {
            "relu" | "tanh" | "sigmoid" | "softsign" | "softplus" => (0.0, 0.0),
            "affine" | "scaledtanh" => (1.0, if name == "affine" { 0.0 } else { 1.0 }),
            "leakyrelu" => (0.01, 0.0),
            "thresholdedrelu" | "elu" => (1.0, 0.0),
            "hardsigmoid" => (0.2, 0.5),
            other => return Err(format!("the activation `{other}` is unknown").into()),
        };
        Ok(Function { name, alpha: alpha.unwrap_or(default_alpha), beta: beta.unwrap_or(default_beta) })
    }

    fn of(&self, x: &Value) -> Value {
        let Function { name, alpha, beta } = self;
        match name.as_str() {
            "relu" => x.relu(),
            "tanh" => x.tanh(),
            "sigmoid" => x.sigmoid(),
            "softsign" => x.softsign(),
            "softplus" => x.softplus(),
            "affine" => x * *alpha + *beta,
            "scaledtanh" => (x * *beta).tanh() * *alpha,
            "leakyrelu" => x.leaky_relu(*alpha),
            "thresholdedrelu" => x.gt(&x.full_like(*alpha)).where_(x, &x.zeros_like()),
            "elu" => x.elu(*alpha),
            _ => (x * *alpha + *beta).clamp(0.0, 1.0),
        }
    }
}

/// What all directions of a layer share.
struct Layer {
    cell: Cell,
    hidden: usize,
    clip: Option<f64>,
    input_forget: bool,
    linear_before_reset: bool,
    /// The lengths of the sequences, `[batch]`.
    lengths: Option<Value>,
}

/// A direction: its weights, states and activations. The gates are in the order of ONNX.
struct Direction {
    w: Value,
    r: Value,
    bias: Option<Value>,
    peepholes: Option<Value>,
    h: Value,
    c: Value,
    functions: Vec<Function>,
    reverse: bool,
}

/// The outputs of a direction: `[time, batch, hidden]`, and the last states `[batch, hidden]`.
type Outputs = (Value, Value, Value);

fn recurrent(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let cell = match node.op() {
        "RNN" => Cell::Rnn,
        "LSTM" => Cell::Lstm,
        _ => Cell::Gru,
    };
    let gates = match cell {
        Cell::Rnn => 1,
        Cell::Lstm => 4,
        Cell::Gru => 3,
    };
    node.attribute("output_sequence");
    let batch_first = node.flag("layout", false);
    let turned = |x: Value| if batch_first { x.permute(&[1, 0, 2]) } else { x };
    let x = turned(node.value(0)?);
    let (w, r) = (node.value(1)?, node.value(2)?);
    if [&x, &w, &r].iter().any(|value| value.shape().rank() != 3) {
        return Err("its data and weights must have three axes".into());
    }
    let (steps, batch, hidden) = (x.dim(0), x.dim(1), r.dim(2));
    let directions: &[bool] = match node.text("direction", "forward").as_str() {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(format!("the direction `{other}` is unknown").into()),
    };
    let count = directions.len();
    let given = node.int("hidden_size", hidden as i64);
    let sizes = [(&w, [count, gates * hidden, x.dim(2)]), (&r, [count, gates * hidden, hidden])];
    if given != hidden as i64 || sizes.iter().any(|(value, shape)| value.shape().to_vec() != shape) {
        return Err(format!("its weights {} and {} do not fit {count} directions", w.ty(), r.ty()).into());
    }
    let per_direction = match cell {
        Cell::Rnn => vec!["Tanh"],
        Cell::Lstm => vec!["Sigmoid", "Tanh", "Tanh"],
        Cell::Gru => vec!["Sigmoid", "Tanh"],
    };
    let (alphas, betas) = (
        node.attribute_numbers("activation_alpha").unwrap_or_default(),
        node.attribute_numbers("activation_beta").unwrap_or_default(),
    );
    let names = match node.texts("activations") {
        names if names.is_empty() => per_direction.repeat(count).into_iter().map(str::to_owned).collect(),
        names => names,
    };
    if names.len() != count * per_direction.len() {
        return Err(format!("{} activations do not fit {count} directions", names.len()).into());
    }
    let functions = names.iter().enumerate();
    let functions = functions.map(|(at, name)| Function::new(name, alphas.get(at).copied(), betas.get(at).copied()));
    let functions = functions.collect::<Result<Vec<_>>>()?;
    let zeros = || node.graph().full(x.dtype(), [count, batch, hidden], 0.0);
    let state = |at: usize| -> Result<Value> { Ok(node.optional_value(at)?.map_or_else(zeros, turned)) };
    let (h, c) = (state(5)?, if cell == Cell::Lstm { state(6)? } else { zeros() });
    let lengths = match node.optional(4) {
        Some(lengths) => {
            let all = |known: Vec<i64>| known.iter().all(|&length| length == steps as i64);
            let whole = lengths.known().and_then(|known| known.to_ints()).is_some_and(all);
            if whole { None } else { Some(node.value(4)?.cast(DType::I32)) }
        }
        None => None,
    };
    let (bias, peepholes) = (node.optional_value(3)?, if cell == Cell::Lstm { node.optional_value(7)? } else { None });
    let layer = Layer {
        cell,
        hidden,
        clip: node.optional_attribute_number("clip"),
        input_forget: node.flag("input_forget", false),
        linear_before_reset: node.flag("linear_before_reset", false),
        lengths,
    };
    let mut outputs: Vec<Outputs> = Vec::new();
    for (at, &reverse) in directions.iter().enumerate() {
        let part = |value: &Value| {
            let mut shape = value.shape().to_vec();
            shape.remove(0);
            value.slice(0, at, at + 1, 1).reshape(&signed(&shape))
        };
        let each = per_direction.len();
        let direction = Direction {
            w: part(&w),
            r: part(&r),
            bias: bias.as_ref().map(part),
            peepholes: peepholes.as_ref().map(part),
            h: part(&h),
            c: part(&c),
            functions: functions[at * each..(at + 1) * each].to_vec(),
            reverse,
        };
        outputs.push(match layer.is_native(&direction) {
            true => layer.native(&x, &direction),
            false if steps > LONGEST => {
                return Err(
                    format!("{steps} steps with these options are unrolled; at most {LONGEST} are supported").into()
                );
            }
            false => layer.unrolled(&x, &direction),
        });
    }
    // [time, directions, batch, hidden], or with the batch first.
    let whole = |list: Vec<Value>, shape: &[usize], axis: isize| {
        let list: Vec<Value> = list.iter().map(|value| value.reshape(&signed(shape))).collect();
        match &list[..] {
            [first, others @ ..] if !others.is_empty() => first.concat(&others.iter().collect::<Vec<_>>(), axis),
            _ => list[0].clone(),
        }
    };
    let y = whole(outputs.iter().map(|o| o.0.clone()).collect(), &[steps, 1, batch, hidden], 1);
    let h = whole(outputs.iter().map(|o| o.1.clone()).collect(), &[1, batch, hidden], 0);
    let c = whole(outputs.iter().map(|o| o.2.clone()).collect(), &[1, batch, hidden], 0);
    let y = if batch_first { y.permute(&[2, 0, 1, 3]) } else { y };
    let (h, c) = (turned(h), turned(c));
    let mut results = Vec::new();
    for value in [y, h].into_iter().chain((cell == Cell::Lstm).then_some(c)) {
        let value = node.checked(value)?;
        results.push(node.result(value, ty));
    }
    Ok(results)
}

impl Layer {
    /// Whether wgrad's kernels compute the same.
    fn is_native(&self, direction: &Direction) -> bool {
        let names: Vec<&str> = direction.functions.iter().map(|function| function.name.as_str()).collect();
        let functions = match self.cell {
            Cell::Rnn => names == ["tanh"] || names == ["relu"],
            Cell::Lstm => names == ["sigmoid", "tanh", "tanh"],
            Cell::Gru => names == ["sigmoid", "tanh"] && self.linear_before_reset,
        };
        functions
            && self.clip.is_none()
            && !self.input_forget
            && self.lengths.is_none()
            && direction.peepholes.is_none()
            && self.hidden <= 4000
    }

    /// The gates in another order.
    fn reordered(&self, x: &Value, order: &[usize]) -> Value {
        let part = |&gate: &usize| x.slice(0, gate * self.hidden, (gate + 1) * self.hidden, 1);
        let parts: Vec<Value> = order.iter().map(part).collect();
        match &parts[..] {
            [first, others @ ..] if !others.is_empty() => first.concat(&others.iter().collect::<Vec<_>>(), 0),
            _ => parts[0].clone(),
        }
    }

    fn native(&self, x: &Value, direction: &Direction) -> Outputs {
        // PyTorch has the gates i, f, g, o and r, z, n; ONNX i, o, f, c and z, r, h.
        let order: &[usize] = match self.cell {
            Cell::Rnn => &[0],
            Cell::Lstm => &[0, 2, 3, 1],
            Cell::Gru => &[1, 0, 2],
        };
        let all = order.len() * self.hidden;
        let bias = |from: usize| {
            direction.bias.as_ref().map(|bias| self.reordered(&bias.slice(0, from, from + all, 1), order))
        };
        let weights = Weights {
            w_ih: self.reordered(&direction.w, order),
            w_hh: self.reordered(&direction.r, order),
            b_ih: bias(0),
            b_hh: bias(all),
        };
        let states = match self.cell {
            Cell::Lstm => vec![direction.h.clone(), direction.c.clone()],
            _ => vec![direction.h.clone()],
        };
        let activation = if direction.functions[0].name == "relu" { Activation::Relu } else { Activation::Tanh };
        let found = x.permute(&[1, 0, 2]).recurrent(self.cell, activation, &weights, &states, direction.reverse);
        let c = found.c.unwrap_or_else(|| direction.c.clone());
        (found.y.permute(&[1, 0, 2]), found.h, c)
    }

    /// The steps of each sequence in reverse order, the padding in place.
    fn reversed(&self, x: &Value) -> Value {
        let Some(lengths) = &self.lengths else { return x.flip(&[0]) };
        let place = x.graph().iota(DType::I32, [x.dim(0), 1, 1], 0);
        let lengths = lengths.reshape(&[1, -1, 1]);
        let index = place.lt(&lengths).where_(&(&lengths - &place - 1.0), &place).broadcast_to(x.shape());
        x.gather(0, &index)
    }

    fn clipped(&self, x: Value) -> Value {
        self.clip.map_or(x.clone(), |limit| x.clamp(-limit, limit))
    }

    fn unrolled(&self, x: &Value, direction: &Direction) -> Outputs {
        let (steps, batch, n) = (x.dim(0), x.dim(1), self.hidden);
        let x = if direction.reverse { self.reversed(x) } else { x.clone() };
        let gates = direction.w.dim(0) / n;
        let halves = direction.bias.as_ref().map(|bias| {
            let all = gates * n;
            (bias.slice(0, 0, all, 1), bias.slice(0, all, 2 * all, 1))
        });
        let products = x.matmul(&direction.w.t());
        let products = halves.as_ref().map_or(products.clone(), |(input, _)| &products + input);
        let r = direction.r.t();
        let (mut h, mut c) = (direction.h.clone(), direction.c.clone());
        let gate = |x: &Value, number: usize| x.slice(-1, number * n, (number + 1) * n, 1);
        let mut list: Vec<Value> = Vec::new();
        for step in 0..steps {
            let of_input = products.slice(0, step, step + 1, 1).reshape(&signed(&[batch, gates * n]));
            let with_bias = |x: Value, first: usize, last: usize| match &halves {
                Some((_, bias)) => x + bias.slice(0, first * n, last * n, 1),
                None => x,
            };
            let f = |number: usize, x: Value| direction.functions[number].of(&self.clipped(x));
            let (new_h, new_c) = match self.cell {
                Cell::Rnn => (f(0, of_input + with_bias(h.matmul(&r), 0, 1)), c.clone()),
                Cell::Lstm => {
                    let all = of_input + with_bias(h.matmul(&r), 0, 4);
                    let peep = |number: usize, state: &Value| -> Option<Value> {
                        Some(direction.peepholes.as_ref()?.slice(0, number * n, (number + 1) * n, 1) * state)
                    };
                    let seen = |x: Value, more: Option<Value>| more.map_or(x.clone(), |more| x + more);
                    let i = f(0, seen(gate(&all, 0), peep(0, &c)));
                    let forget = match self.input_forget {
                        true => -&i + 1.0,
                        false => f(0, seen(gate(&all, 2), peep(2, &c))),
                    };
                    let next = forget * &c + &i * f(1, gate(&all, 3));
                    let o = f(0, seen(gate(&all, 1), peep(1, &next)));
                    (o * direction.functions[2].of(&next), next)
                }
                Cell::Gru => {
                    let of_state = h.matmul(&r.slice(1, 0, 2 * n, 1));
                    let both = of_input.slice(-1, 0, 2 * n, 1) + with_bias(of_state, 0, 2);
                    let (z, reset) = (f(0, gate(&both, 0)), f(0, gate(&both, 1)));
                    let r_h = r.slice(1, 2 * n, 3 * n, 1);
                    let hidden = match self.linear_before_reset {
                        true => &reset * with_bias(h.matmul(&r_h), 2, 3),
                        false => with_bias((&reset * &h).matmul(&r_h), 2, 3),
                    };
                    let new = f(1, gate(&of_input, 2) + hidden);
                    (&new - &z * (&new - &h), c.clone())
                }
            };
            let (shown, next_h, next_c) = match &self.lengths {
                // Beyond its end, a sequence keeps its state, and its outputs are 0.
                Some(lengths) => {
                    let lives = lengths.gt(&lengths.full_like(step as f64)).reshape(&[-1, 1]);
                    let keep = |new: &Value, old: &Value| lives.where_(new, old);
                    (keep(&new_h, &new_h.zeros_like()), keep(&new_h, &h), keep(&new_c, &c))
                }
                None => (new_h.clone(), new_h, new_c),
            };
            (h, c) = (next_h, next_c);
            list.push(shown.reshape(&signed(&[1, batch, n])));
        }
        let y = match &list[..] {
            [] => x.graph().full(x.dtype(), [0, batch, n], 0.0),
            [first, others @ ..] if !others.is_empty() => first.concat(&others.iter().collect::<Vec<_>>(), 0),
            [only, ..] => only.clone(),
        };
        (if direction.reverse { self.reversed(&y) } else { y }, h, c)
    }
}
