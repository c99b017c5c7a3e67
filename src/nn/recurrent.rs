//! RNN, LSTM and GRU layers: stacked, in one or both directions.

use std::panic::Location;

use super::layers::{Dropout, Layer};
use super::{Scope, init};
use crate::Value;
use crate::ops::recurrent::{Activation, Cell, Weights};

/// Options of a recurrent layer. Default: one layer, forward only, with biases, tanh, no dropout.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::{Recurrent, RecurrentOptions};
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 5, 3], vec![0.5f32; 15])?);
/// let y = {
///     let options = RecurrentOptions::default().layers(2).bidirectional();
///     Recurrent::gru(&Scope::eval(&graph, 0), "gru", 3, 4, options).forward(&x)
/// };
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!(y.shape()[..], [1, 5, 8]); // both directions
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RecurrentOptions {
    layers: usize,
    bidirectional: bool,
    bias: bool,
    activation: Activation,
    dropout: f64,
}

impl Default for RecurrentOptions {
    fn default() -> Self {
        RecurrentOptions { layers: 1, bidirectional: false, bias: true, activation: Activation::Tanh, dropout: 0.0 }
    }
}

impl RecurrentOptions {
    /// Sets the number of stacked layers; each reads the states of the previous one.
    pub fn layers(self, layers: usize) -> Self {
        RecurrentOptions { layers, ..self }
    }

    /// Adds a second set of weights that reads each sequence backwards; the states of both are concatenated.
    pub fn bidirectional(self) -> Self {
        RecurrentOptions { bidirectional: true, ..self }
    }

    /// Without biases.
    pub fn no_bias(self) -> Self {
        RecurrentOptions { bias: false, ..self }
    }

    /// Sets the activation function of the cell.
    pub fn activation(self, activation: Activation) -> Self {
        RecurrentOptions { activation, ..self }
    }

    /// Sets the dropout probability between layers in training.
    pub fn dropout(self, dropout: f64) -> Self {
        RecurrentOptions { dropout, ..self }
    }
}

/// The outputs of a recurrent layer; D is 2 if bidirectional, else 1.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::{Recurrent, RecurrentOptions};
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([2, 5, 3], vec![0.5f32; 30])?);
/// let y = {
///     let lstm = Recurrent::lstm(&Scope::eval(&graph, 0), "lstm", 3, 4, RecurrentOptions::default());
///     let states = lstm.states(&x, None);
///     assert_eq!((states.y.shape()[..].to_vec(), states.h.shape()[..].to_vec()), (vec![2, 5, 4], vec![1, 2, 4]));
///     states.h - states.y.slice(1, 4, 5, 1).reshape(&[1, 2, 4])
/// };
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert!(y.to_f64().iter().all(|difference| *difference == 0.0)); // h is the last step of y
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct States {
    /// The hidden states of the last layer at all steps, `[batch, time, D hidden]`.
    pub y: Value,
    /// The final hidden state of each layer and direction, `[layers D, batch, hidden]`.
    pub h: Value,
    /// The final cell states of an LSTM, likewise.
    pub c: Option<Value>,
}

/// A recurrent layer over sequences `[batch, time, in]`; see [`Value::recurrent`] for the formulas.
///
/// Parameters, with PyTorch's names, layouts and initial values: for layer K `NAME.weight_ih_lK`
/// `[G hidden, in]`, `NAME.weight_hh_lK` `[G hidden, hidden]`, `NAME.bias_ih_lK` and `NAME.bias_hh_lK`
/// `[G hidden]`; those of the backward direction end in `_reverse`. G is 1 for an RNN, 4 for an LSTM
/// (i, f, g, o), 3 for a GRU (r, z, n). All are initialised from `U(-b, b)` with `b = 1 / sqrt(hidden)`.
///
/// ```
/// use wgrad::nn::{Layer, Recurrent, RecurrentOptions, Scope};
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let nn = Scope::train(&graph, 0);
/// let options = RecurrentOptions::default().layers(2).bidirectional();
/// let lstm = Recurrent::lstm(&nn, "lstm", 8, 16, options);
/// let states = lstm.states(&graph.input("x", DType::F32, [4, 10, 8]), None);
/// assert_eq!(states.y.shape()[..], [4, 10, 32]);
/// assert_eq!(states.h.shape()[..], [4, 4, 16]);
/// assert_eq!(graph.parameters()[15].0, "lstm.bias_hh_l1_reverse");
/// ```
#[derive(Clone, Debug)]
pub struct Recurrent {
    nn: Scope,
    cell: Cell,
    options: RecurrentOptions,
    /// By layer, then direction.
    weights: Vec<Weights>,
}

impl Recurrent {
    /// An RNN.
    #[track_caller]
    pub fn rnn(nn: &Scope, name: &str, inputs: usize, hidden: usize, options: RecurrentOptions) -> Recurrent {
        Recurrent::new(Cell::Rnn, nn, name, inputs, hidden, options)
    }

    /// An LSTM.
    #[track_caller]
    pub fn lstm(nn: &Scope, name: &str, inputs: usize, hidden: usize, options: RecurrentOptions) -> Recurrent {
        Recurrent::new(Cell::Lstm, nn, name, inputs, hidden, options)
    }

    /// A GRU.
    #[track_caller]
    pub fn gru(nn: &Scope, name: &str, inputs: usize, hidden: usize, options: RecurrentOptions) -> Recurrent {
        Recurrent::new(Cell::Gru, nn, name, inputs, hidden, options)
    }

    /// Declares the parameters.
    #[track_caller]
    pub fn new(
        cell: Cell,
        nn: &Scope,
        name: &str,
        inputs: usize,
        hidden: usize,
        options: RecurrentOptions,
    ) -> Recurrent {
        let (part, location) = (nn.part(name), Location::caller());
        let bound = 1.0 / (hidden.max(1) as f64).sqrt();
        let rows = hidden.saturating_mul(cell.gates());
        let mut weights = Vec::new();
        for layer in 0..options.layers {
            let inputs = if layer == 0 { inputs } else { hidden.saturating_mul(options.directions().len()) };
            for &direction in options.directions() {
                let named = |what: &str| format!("{what}_l{layer}{direction}");
                let drawn = || init::uniform(-bound, bound);
                let weight = |what: &str, size: usize| {
                    nn.graph().at(location, || part.parameter(&named(what), [rows, size], drawn()))
                };
                let bias = |what: &str| {
                    let declare = || part.bias(&named(what), [rows], drawn());
                    options.bias.then(|| nn.graph().at(location, declare)).flatten()
                };
                weights.push(Weights {
                    w_ih: weight("weight_ih", inputs),
                    w_hh: weight("weight_hh", hidden),
                    b_ih: bias("bias_ih"),
                    b_hh: bias("bias_hh"),
                });
            }
        }
        Recurrent { nn: nn.clone(), cell, options, weights }
    }

    /// The weights by layer, then direction.
    pub fn weights(&self) -> &[Weights] {
        &self.weights
    }

    /// Computes all states from initial ones: `h`, and for an LSTM also `c`, each `[layers D, batch, hidden]`; zeros
    /// by default.
    #[track_caller]
    pub fn states(&self, x: &Value, initial: Option<&[Value]>) -> States {
        x.graph().at(Location::caller(), || self.run(x, initial))
    }

    fn run(&self, x: &Value, initial: Option<&[Value]>) -> States {
        let directions = self.options.directions().len();
        let mut y = x.clone();
        let (mut hs, mut cs) = (Vec::new(), Vec::new());
        for (layer, weights) in self.weights.chunks(directions).enumerate() {
            if layer > 0 {
                y = Dropout::new(&self.nn, self.options.dropout).forward(&y);
            }
            let mut ys = Vec::new();
            for (direction, weights) in weights.iter().enumerate() {
                let number = layer * directions + direction;
                let initial = initial.unwrap_or_default().iter();
                let initial: Vec<Value> = initial.map(|all| one_of(all, number)).collect();
                let found = y.widen().recurrent(self.cell, self.options.activation, weights, &initial, direction == 1);
                ys.push(y.widely(|_| found.y.clone()));
                hs.push(found.h);
                cs.extend(found.c);
            }
            y = side_by_side(&ys, 2).unwrap_or(y);
        }
        let all = |states: Vec<Value>| side_by_side(&states.iter().map(stackable).collect::<Vec<_>>(), 0);
        let Some(h) = all(hs) else {
            let invalid = x.graph().error("recurrent", &[x], "expected at least one layer");
            return States { y: invalid.clone(), h: invalid, c: None };
        };
        States { y, h, c: all(cs) }
    }
}

impl Layer for Recurrent {
    /// The hidden states of the last layer at all steps.
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        self.states(x, None).y
    }
}

impl RecurrentOptions {
    /// The suffix of the parameter names for each direction.
    fn directions(&self) -> &'static [&'static str] {
        if self.bidirectional { &["", "_reverse"] } else { &[""] }
    }
}

/// State `number` of `all`, as `[batch, hidden]`.
fn one_of(all: &Value, number: usize) -> Value {
    match all.shape()[..] {
        [_, batch, hidden] => all.slice(0, number, number + 1, 1).reshape(&[batch as isize, hidden as isize]),
        _ if !all.is_valid() => all.clone(),
        _ => all.graph().error("recurrent", &[all], "expected initial states [layers, batch, hidden]"),
    }
}

/// `[batch, hidden]` as `[1, batch, hidden]`.
fn stackable(state: &Value) -> Value {
    let sizes: Vec<isize> = std::iter::once(1).chain(state.shape().iter().map(|&size| size as isize)).collect();
    state.reshape(&sizes)
}

fn side_by_side(values: &[Value], axis: isize) -> Option<Value> {
    let (first, others) = values.split_first()?;
    Some(if others.is_empty() { first.clone() } else { first.concat(&others.iter().collect::<Vec<_>>(), axis) })
}
