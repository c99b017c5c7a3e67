//! Recurrent layers over a whole sequence: RNN, LSTM and GRU with PyTorch's gate order.
//!
//! The input projections of all steps are one matmul. The recurrence is one op for the whole sequence, and one for its
//! gradient, with one launch per step or per several steps (see `kernels`). The gradient of the recurrent weights is
//! again one matmul over all steps. Internally, time is the first axis, and state tensors have one slot more than there
//! are steps, so that the states before and after every step are both plain slices.

mod cases;
mod kernels;
mod reference;

pub use cases::cases;
pub(super) use cases::{Form, With, case};

use crate::op::{Attributes, Backward, Lowering, Op, Rounding};
use crate::{DType, Tensor, TensorType, Value};

/// The type of recurrent cell. Example: [`Value::recurrent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// `h' = f(W x + b + U h + c)` (Elman, *Finding structure in time*, 1990).
    Rnn,
    /// Gates in the order i, f, g, o: `c' = f c + i g`, `h' = o f(c')` (Hochreiter and Schmidhuber,
    /// *Long short-term memory*, 1997; with the forget gate of Gers, Schmidhuber and Cummins, 2000).
    Lstm,
    /// Gates in the order r, z, n: `n = f(W x + b + r (U h + c))`, `h' = (1 - z) n + z h` (Cho et al., EMNLP 2014; r is
    /// applied after the product, as in PyTorch and cuDNN).
    Gru,
}

impl Cell {
    /// Rows of weights per hidden unit.
    pub const fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Cell::Rnn => "rnn",
            Cell::Lstm => "lstm",
            Cell::Gru => "gru",
        }
    }
}

/// The activation `f`: of an RNN's sum, of an LSTM's g and c, of a GRU's n. Example: [`Value::recurrent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The default.
    #[default]
    Tanh,
    /// `max(x, 0)`; for RNNs as in Le, Jaitly and Hinton (arXiv:1504.00941).
    Relu,
}

/// The weights of one layer in one direction, with G = [`Cell::gates`]. Example: [`Value::recurrent`].
#[derive(Clone, Debug)]
pub struct Weights {
    /// `[G hidden, in]`.
    pub w_ih: Value,
    /// `[G hidden, hidden]`.
    pub w_hh: Value,
    /// `[G hidden]`, or none.
    pub b_ih: Option<Value>,
    /// `[G hidden]`, or none.
    pub b_hh: Option<Value>,
}

/// The outputs of a recurrent layer. Example: [`Value::recurrent`].
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The hidden states of all steps, `[batch, time, hidden]`.
    pub y: Value,
    /// The last hidden state, `[batch, hidden]`.
    pub h: Value,
    /// The last cell state of an LSTM, `[batch, hidden]`.
    pub c: Option<Value>,
}

/// Maximum hidden units: the loop of a step runs over all gates of all units.
pub(crate) const MAX_HIDDEN: usize = 4000;

/// The recurrence. Inputs: `x` [T, B, G H] (the input projections, with bias), `w` [H, G H], the initial state [B, H],
/// and the initial cell state of an LSTM or the recurrent bias [G H] of a GRU. Outputs: the states [T + 1, B, H]; for
/// LSTM and GRU, the gate values that the gradient needs [T, B, 4 H]; for LSTM, the cell states [T + 1, B, H].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Recurrence {
    cell: Cell,
    activation: Activation,
    reverse: bool,
}

/// The gradient of [`Recurrence`]. Inputs: the gradient of the states, `w` [G H, H], the saved gates (not for RNN), the
/// states (for LSTM the cell states), and optionally the gradient of the cell states. Outputs: the gradient of the sums
/// `h W` [T, B, G H]; for LSTM and GRU, the gradient that flows from the first step to the initial state without a
/// product [B, H]; for GRU, the gradient of `x`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RecurrenceGrad(Recurrence);

struct Sizes {
    steps: usize,
    batch: usize,
    hidden: usize,
}

impl Sizes {
    /// From the type of the states.
    fn of_states(ty: &TensorType) -> Sizes {
        Sizes { steps: ty.shape[0] - 1, batch: ty.shape[1], hidden: ty.shape[2] }
    }

    fn states(&self) -> TensorType {
        TensorType::new(DType::F32, [self.steps + 1, self.batch, self.hidden])
    }

    fn gates(&self, gates: usize) -> TensorType {
        TensorType::new(DType::F32, [self.steps, self.batch, gates * self.hidden])
    }

    fn state(&self) -> TensorType {
        TensorType::new(DType::F32, [self.batch, self.hidden])
    }
}

impl Recurrence {
    /// The `number`th step in processing order.
    fn step(&self, sizes: &Sizes, number: usize) -> usize {
        if self.reverse { sizes.steps - 1 - number } else { number }
    }

    /// The slots of the states before and after the `number`th step.
    fn slots(&self, sizes: &Sizes, number: usize) -> (usize, usize) {
        let step = self.step(sizes, number);
        if self.reverse { (step + 1, step) } else { (step, step + 1) }
    }

    /// The states after (`behind`) or before each step, in time order.
    #[track_caller]
    fn of_slots(&self, states: &Value, behind: bool) -> Value {
        let slots = states.shape()[0];
        let first = usize::from(behind != self.reverse);
        states.slice(0, first, first + slots - 1, 1)
    }

    /// The state in a slot, [B, H].
    #[track_caller]
    fn in_slot(&self, states: &Value, slot: usize) -> Value {
        let sizes = states.shape()[1..].iter().map(|&size| size as isize).collect::<Vec<_>>();
        states.slice(0, slot, slot + 1, 1).reshape(&sizes)
    }

    /// The slots of the initial and the last state.
    fn ends(&self, states: &Value) -> (usize, usize) {
        let last = states.shape()[0] - 1;
        if self.reverse { (last, 0) } else { (0, last) }
    }
}

/// The f64 data of the tensors.
fn floats<'a>(tensors: &'a [&Tensor]) -> Vec<&'a [f64]> {
    tensors.iter().map(|tensor| tensor.f64s()).collect()
}

fn tensors(values: Vec<Vec<f64>>, types: &[TensorType]) -> Vec<Tensor> {
    values.into_iter().zip(types).map(|(values, ty)| Tensor::of(&ty.shape, values)).collect()
}

impl Op for Recurrence {
    fn name(&self) -> &'static str {
        self.cell.name()
    }

    fn attributes(&self) -> Attributes {
        let activation = match self.activation {
            Activation::Tanh => "tanh",
            Activation::Relu => "relu",
        };
        vec![("activation", activation.into()), ("reverse", self.reverse.into())]
    }

    /// User input has been checked by [`Value::recurrent`].
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let (x, h0) = (inputs[0], inputs[2]);
        let sizes = Sizes { steps: x.shape[0], batch: x.shape[1], hidden: h0.shape[1] };
        if sizes.steps == 0 {
            return Err("expected a sequence of at least one step".into());
        }
        if !(1..=MAX_HIDDEN).contains(&sizes.hidden) {
            return Err(format!("expected 1 to {MAX_HIDDEN} hidden units, not {}", sizes.hidden));
        }
        Ok(match self.cell {
            Cell::Rnn => vec![sizes.states()],
            Cell::Lstm => vec![sizes.states(), sizes.gates(4), sizes.states()],
            Cell::Gru => vec![sizes.states(), sizes.gates(4)],
        })
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let w = g.x(1);
        let hs = &g.outputs[0];
        let dhs = g.dys[0].clone().unwrap_or_else(|| hs.zeros_like());
        let dcs = g.dys.get(2).cloned().flatten();
        let w_hh = w.t();
        let mut inputs = vec![&dhs, &w_hh];
        inputs.extend(&g.outputs[1..]);
        if self.cell != Cell::Lstm {
            inputs.push(hs);
        }
        inputs.extend(&dcs);
        let found = hs.graph().apply(RecurrenceGrad(self.clone()), &inputs);
        if !found[0].is_valid() {
            return vec![found[0].clone().into(); g.inputs.len()];
        }
        let ds = &found[0];
        let gates = ds.dim(-1) as isize;
        let (start, _) = self.ends(hs);
        let first = if self.reverse { ds.dim(0) - 1 } else { 0 };
        // dW = sum over steps and rows of h_before^T ds.
        let dw = || {
            let before = self.of_slots(hs, false).reshape(&[-1, hs.dim(-1) as isize]);
            ds.reshape(&[-1, gates]).t().matmul(&before).t()
        };
        let dh0 = || {
            let through = self.in_slot(ds, first).matmul(&w_hh) + self.in_slot(&dhs, start);
            if self.cell == Cell::Gru { through + &found[1] } else { through }
        };
        let last = || match (self.cell, &dcs) {
            (Cell::Gru, _) => ds.sum(&[0, 1], false),
            (_, Some(dcs)) => &found[1] + self.in_slot(dcs, start),
            (_, None) => found[1].clone(),
        };
        let dx = || if self.cell == Cell::Gru { found[2].clone() } else { ds.clone() };
        let all = vec![g.when(0, dx), g.when(1, dw), g.when(2, dh0)];
        all.into_iter().chain((g.inputs.len() > 3).then(|| g.when(3, last))).collect()
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let sizes = Sizes::of_states(&outputs[0]);
        tensors(reference::forward(self, &sizes, &floats(inputs), None), outputs)
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let of = self.clone();
        let (steps, hidden) = (inputs[0].shape[0], inputs[2].shape[1]);
        Rounding::bound(move |inputs, _| {
            let sizes = Sizes { steps, batch: inputs[0].shape()[1], hidden };
            reference::bounds(|run| reference::forward(&of, &sizes, &floats(inputs), run))
        })
    }

    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        self.cell.gates() * inputs[2].shape[1]
    }

    fn multiply_adds(&self, inputs: &[&TensorType], _: &[TensorType]) -> u64 {
        (inputs[0].shape.numel() * inputs[2].shape[1]) as u64
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Op for RecurrenceGrad {
    fn name(&self) -> &'static str {
        match self.0.cell {
            Cell::Rnn => "rnn_grad",
            Cell::Lstm => "lstm_grad",
            Cell::Gru => "gru_grad",
        }
    }

    fn attributes(&self) -> Attributes {
        self.0.attributes()
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let sizes = Sizes::of_states(inputs[0]);
        Ok(match self.0.cell {
            Cell::Rnn => vec![sizes.gates(1)],
            Cell::Lstm => vec![sizes.gates(4), sizes.state()],
            Cell::Gru => vec![sizes.gates(3), sizes.state(), sizes.gates(3)],
        })
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let why = "recurrent layers can be differentiated once";
        let graph = g.x(0).graph();
        vec![Some(graph.error(self.name(), &g.inputs.iter().collect::<Vec<_>>(), why)); g.inputs.len()]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let sizes = Sizes::of_states(&inputs[0].ty());
        tensors(reference::backward(&self.0, &sizes, &floats(inputs), None), outputs)
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let of = self.0.clone();
        let sizes = Sizes::of_states(inputs[0]);
        Rounding::bound(move |inputs, _| {
            reference::bounds(|run| reference::backward(&of, &sizes, &floats(inputs), run))
        })
    }

    /// The gate gradients `G H`; here the hidden size.
    fn reduction_len(&self, inputs: &[&TensorType]) -> usize {
        inputs[0].shape[2]
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Value {
    /// A recurrent layer over a sequence `[batch, time, in]`, in one direction; `reverse` processes the steps from last
    /// to first. `state` is the initial hidden state `[batch, hidden]` and, for an LSTM, the initial cell state; empty
    /// means zeros.
    ///
    /// ```
    /// use wgrad::ops::recurrent::{Activation, Cell, Weights};
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let x = graph.constant(Tensor::new([1, 3, 1], [1.0f32, 0.0, 0.0])?);
    /// let one = graph.constant(Tensor::new([1, 1], [1.0f32])?);
    /// let half = graph.constant(Tensor::new([1, 1], [0.5f32])?);
    /// let weights = Weights { w_ih: one, w_hh: half, b_ih: None, b_hh: None };
    /// let y = x.recurrent(Cell::Rnn, Activation::Relu, &weights, &[], false).y;
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&y])?;
    /// assert_eq!(session.run(&program, &[])?[0].to_f32(), [1.0, 0.5, 0.25]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// The result can be differentiated once.
    ///
    /// # Errors
    /// At compile time, when shapes do not match, there is no step, or there are more than 4,000 hidden units.
    #[track_caller]
    pub fn recurrent(
        &self,
        cell: Cell,
        activation: Activation,
        weights: &Weights,
        state: &[Value],
        reverse: bool,
    ) -> Sequence {
        let of = Recurrence { cell, activation, reverse };
        let Weights { w_ih, w_hh, b_ih, b_hh } = weights;
        let given: Vec<&Value> = [self, w_ih, w_hh].into_iter().chain(b_ih).chain(b_hh).chain(state).collect();
        if let Err(invalid) = check(cell, &given, weights, state) {
            return Sequence { y: invalid.clone(), h: invalid.clone(), c: (cell == Cell::Lstm).then_some(invalid) };
        }
        let (batch, hidden) = (self.shape()[0], w_hh.shape()[1]);
        let product = self.permute(&[1, 0, 2]).matmul(&w_ih.t());
        let mut x = b_ih.iter().fold(product, |x, bias| x + bias);
        let common = given.iter().all(|v| v.dtype() == self.dtype());
        let dtype = if common { self.dtype() } else { DType::F32 };
        let zeros = |shape: &[usize]| self.graph().full(dtype, shape, 0.0);
        let initial = |number: usize| state.get(number).cloned().unwrap_or_else(|| zeros(&[batch, hidden]));
        let last = match (cell, b_hh) {
            (Cell::Gru, bias) => Some(bias.clone().unwrap_or_else(|| zeros(&[3 * hidden]))),
            (Cell::Lstm, _) => Some(initial(1)),
            (Cell::Rnn, _) => None,
        };
        if let (Cell::Rnn | Cell::Lstm, Some(bias)) = (cell, b_hh) {
            x = x + bias;
        }
        let (w, h0) = (w_hh.t(), initial(0));
        let inputs: Vec<&Value> = [&x, &w, &h0].into_iter().chain(&last).collect();
        let outputs = self.graph().apply(of.clone(), &inputs);
        let hs = &outputs[0];
        if !hs.is_valid() {
            return Sequence { y: hs.clone(), h: hs.clone(), c: (cell == Cell::Lstm).then(|| hs.clone()) };
        }
        let (_, end) = of.ends(hs);
        Sequence {
            y: of.of_slots(hs, true).permute(&[1, 0, 2]),
            h: of.in_slot(hs, end),
            c: (cell == Cell::Lstm).then(|| of.in_slot(&outputs[2], end)),
        }
    }
}

/// Checks the user's inputs; returns an invalid value if they are wrong.
#[track_caller]
fn check(cell: Cell, given: &[&Value], weights: &Weights, state: &[Value]) -> Result<(), Value> {
    let (x, name) = (given[0], cell.name());
    x.graph().admit(name, given)?;
    let location = std::panic::Location::caller();
    let complain = |why: String| Err(x.graph().error_at(location, name, given, why));
    let float = given.iter().all(|v| v.dtype().is_float());
    if !float || x.shape().rank() != 3 || weights.w_hh.shape().rank() != 2 {
        return complain("expected float data [batch, time, in] and weights of two axes".into());
    }
    let (batch, inputs, hidden) = (x.shape()[0], x.shape()[2], weights.w_hh.shape()[1]);
    let rows = cell.gates() * hidden;
    let mut wanted = vec![("w_ih", &weights.w_ih, vec![rows, inputs]), ("w_hh", &weights.w_hh, vec![rows, hidden])];
    wanted.extend(weights.b_ih.iter().map(|bias| ("b_ih", bias, vec![rows])));
    wanted.extend(weights.b_hh.iter().map(|bias| ("b_hh", bias, vec![rows])));
    wanted.extend(state.iter().map(|state| ("state", state, vec![batch, hidden])));
    if let Some((name, value, shape)) = wanted.iter().find(|(_, value, shape)| value.shape()[..] != shape[..]) {
        return complain(format!("expected {name} of shape {shape:?}, not {}", value.shape()));
    }
    let states = if cell == Cell::Lstm { 2 } else { 1 };
    if !state.is_empty() && state.len() != states {
        return complain(format!("expected {states} initial states or none, not {}", state.len()));
    }
    Ok(())
}
