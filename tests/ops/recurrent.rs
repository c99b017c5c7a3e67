//! Recurrent layers compared with PyTorch's formulas in plain loops, and gradients with finite differences.

use std::collections::{BTreeMap, HashMap};

use wgrad::check::bound::{Bounded, evaluate};
use wgrad::nn::{Recurrent, RecurrentOptions, Scope};
use wgrad::ops::recurrent::{Activation, Cell, Weights};
use wgrad::{DType, Device, Error, Graph, Session, Tensor, Value, gradients};

use crate::common;

const BATCH: usize = 2;
const STEPS: usize = 3;
const INPUTS: usize = 3;

/// A network to test.
#[derive(Clone, Copy, Debug)]
struct Net {
    cell: Cell,
    activation: Activation,
    layers: usize,
    bidirectional: bool,
    bias: bool,
    /// Whether initial states are fed.
    initial: bool,
    hidden: usize,
}

impl Net {
    fn directions(&self) -> &'static [&'static str] {
        if self.bidirectional { &["", "_reverse"] } else { &[""] }
    }

    /// The names of the hidden state and an LSTM's cell state.
    fn kinds(&self) -> &'static [&'static str] {
        if self.cell == Cell::Lstm { &["h0", "c0"] } else { &["h0"] }
    }

    /// Names and shapes of the parameters, in PyTorch's order.
    fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let rows = self.hidden * self.cell.gates();
        let mut all = Vec::new();
        for layer in 0..self.layers {
            for direction in self.directions() {
                let columns = if layer == 0 { INPUTS } else { self.hidden * self.directions().len() };
                let mut add = |what: &str, shape: &[usize]| {
                    all.push((format!("net.{what}_l{layer}{direction}"), shape.to_vec()));
                };
                add("weight_ih", &[rows, columns]);
                add("weight_hh", &[rows, self.hidden]);
                if self.bias {
                    add("bias_ih", &[rows]);
                    add("bias_hh", &[rows]);
                }
            }
        }
        all
    }

    /// Names and shapes of the inputs.
    fn feeds(&self) -> Vec<(String, Vec<usize>)> {
        let states = vec![self.layers * self.directions().len(), BATCH, self.hidden];
        let kinds = self.kinds().iter().filter(|_| self.initial);
        std::iter::once(("x".to_owned(), vec![BATCH, STEPS, INPUTS]))
            .chain(kinds.map(|kind| ((*kind).to_owned(), states.clone())))
            .collect()
    }
}

type Values = BTreeMap<String, Vec<f64>>;

/// f32 values between -1 and 1 that depend on name and position.
fn numbers(name: &str, count: usize) -> Vec<f64> {
    let start = name.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let number = |i: usize| (start.wrapping_add(i as u32).wrapping_mul(2_654_435_769) >> 16) % 2001;
    (0..count).map(|i| f64::from((f64::from(number(i)) / 1000.0 - 1.0) as f32)).collect()
}

fn tensor(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::new(shape, values.iter().map(|&v| v as f32).collect::<Vec<f32>>()).expect("a tensor")
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// One step of a layer: the new hidden and cell states.
fn step(net: &Net, values: &Values, suffix: &str, x: &[f64], h: &[f64], c: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let f = |v: f64| if net.activation == Activation::Relu { v.max(0.0) } else { v.tanh() };
    let (mut new_h, mut new_c) = (Vec::new(), Vec::new());
    for unit in 0..net.hidden {
        let row = |gate: usize| gate * net.hidden + unit;
        let dot = |what: &str, x: &[f64], gate: usize| -> f64 {
            let w = &values[&format!("net.weight_{what}_{suffix}")][row(gate) * x.len()..];
            let bias = values.get(&format!("net.bias_{what}_{suffix}")).map_or(0.0, |bias| bias[row(gate)]);
            x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + bias
        };
        let input = |gate| dot("ih", x, gate);
        let state = |gate| dot("hh", h, gate);
        match net.cell {
            Cell::Rnn => new_h.push(f(input(0) + state(0))),
            Cell::Lstm => {
                let [i, forget, o] = [0, 1, 3].map(|gate| sigmoid(input(gate) + state(gate)));
                let g = f(input(2) + state(2));
                new_c.push(forget * c[unit] + i * g);
                new_h.push(o * f(new_c[unit]));
            }
            Cell::Gru => {
                let [r, z] = [0, 1].map(|gate| sigmoid(input(gate) + state(gate)));
                let n = f(input(2) + r * state(2));
                new_h.push((1.0 - z) * n + z * h[unit]);
            }
        }
    }
    (new_h, new_c)
}

/// The network in plain loops: `y`, `h`, and an LSTM's `c`.
fn plain(net: &Net, values: &Values) -> Vec<Vec<f64>> {
    let (directions, hidden) = (net.directions().len(), net.hidden);
    let mut y = vec![0.0; BATCH * STEPS * directions * hidden];
    let mut ends = vec![vec![0.0; net.layers * directions * BATCH * hidden]; net.kinds().len()];
    for row in 0..BATCH {
        let x = &values["x"][row * STEPS * INPUTS..];
        let mut below: Vec<Vec<f64>> = (0..STEPS).map(|t| x[t * INPUTS..][..INPUTS].to_vec()).collect();
        for layer in 0..net.layers {
            let mut above = vec![Vec::new(); STEPS];
            for (number, direction) in net.directions().iter().enumerate() {
                let at = ((layer * directions + number) * BATCH + row) * hidden;
                let start = |kind: &str| values.get(kind).map_or(vec![0.0; hidden], |all| all[at..][..hidden].to_vec());
                let (mut h, mut c) = (start("h0"), start("c0"));
                let order: Vec<usize> = if number == 1 { (0..STEPS).rev().collect() } else { (0..STEPS).collect() };
                for t in order {
                    (h, c) = step(net, values, &format!("l{layer}{direction}"), &below[t], &h, &c);
                    above[t].extend(&h);
                }
                for (end, state) in ends.iter_mut().zip([h, c]) {
                    end[at..][..hidden].copy_from_slice(&state);
                }
            }
            below = above;
        }
        for (t, states) in below.iter().enumerate() {
            y[(row * STEPS + t) * directions * hidden..][..directions * hidden].copy_from_slice(states);
        }
    }
    std::iter::once(y).chain(ends).collect()
}

/// A weighted sum of all output elements, each with a different factor.
fn loss(outputs: &[Vec<f64>]) -> f64 {
    let factors = |i: usize, y: &[f64]| numbers(&format!("factors {i}"), y.len());
    let sum = |(i, y): (usize, &Vec<f64>)| y.iter().zip(factors(i, y)).map(|(y, f)| y * f).sum::<f64>();
    outputs.iter().enumerate().map(sum).sum()
}

/// The gradient of the loss for each element of each input and parameter, by finite differences.
fn slopes(net: &Net, values: &Values) -> Values {
    const H: f64 = 1e-5;
    let slope = |name: &str, i: usize| {
        let moved = |by: f64| {
            let mut values = values.clone();
            values.get_mut(name).expect("a name")[i] += by;
            loss(&plain(net, &values))
        };
        (moved(H) - moved(-H)) / (2.0 * H)
    };
    values.iter().map(|(name, v)| (name.clone(), (0..v.len()).map(|i| slope(name, i)).collect())).collect()
}

/// The outputs, and the gradients by name, of the layer on a device.
fn run(net: &Net, device: &Device, values: &Values) -> (Vec<Vec<f64>>, Values) {
    let graph = Graph::new();
    let mut options = RecurrentOptions::default().layers(net.layers).activation(net.activation);
    if net.bidirectional {
        options = options.bidirectional();
    }
    if !net.bias {
        options = options.no_bias();
    }
    let layer = Recurrent::new(net.cell, &Scope::train(&graph, 1), "net", INPUTS, net.hidden, options);
    let fed: Vec<Value> = net.feeds().iter().map(|(name, shape)| graph.input(name, DType::F32, &shape[..])).collect();
    let states = layer.states(&fed[0], net.initial.then_some(&fed[1..]));
    let outputs: Vec<Value> = [states.y, states.h].into_iter().chain(states.c).collect();
    let weighed = outputs.iter().enumerate().map(|(i, y)| {
        let factors = numbers(&format!("factors {i}"), y.shape().numel());
        (y * graph.constant(tensor(y.shape(), &factors))).sum_all()
    });
    let loss = weighed.reduce(|sum, term| sum + term).expect("outputs");
    let parameters = graph.parameters();
    let names: Vec<String> = parameters.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, net.parameters().into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    let wrt: Vec<&Value> = fed.iter().chain(parameters.iter().map(|(_, value)| value)).collect();
    let found = gradients(&loss, &wrt);
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &outputs.iter().chain(&found).collect::<Vec<_>>()).expect("compiles");
    for (name, shape) in net.parameters() {
        session.set(&name, &tensor(&shape, &values[&name])).expect("is set");
    }
    let feeds: Vec<(String, Tensor)> =
        net.feeds().into_iter().map(|(name, shape)| (name.clone(), tensor(&shape, &values[&name]))).collect();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut got: Vec<Vec<f64>> = session.run(&program, &feeds).expect("runs").iter().map(Tensor::to_f64).collect();
    let gradients = got.split_off(outputs.len());
    let names = net.feeds().into_iter().chain(net.parameters()).map(|(name, _)| name);
    (got, names.zip(gradients).collect())
}

#[track_caller]
fn assert_close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert!(got.len() == want.len() && !got.is_empty(), "{what}: {} elements, expected {}", got.len(), want.len());
    let off = got.iter().zip(want).map(|(got, want)| (got - want).abs());
    for (i, off) in off.enumerate() {
        assert!(off <= tolerance, "{what}: element {i} is {}, expected {}", got[i], want[i]);
    }
}

/// Compares on the reference and on a GPU.
fn holds(net: Net) {
    let of = |(name, shape): (String, Vec<usize>)| {
        let numbers = numbers(&name, shape.iter().product());
        (name, numbers)
    };
    let values: Values = net.feeds().into_iter().chain(net.parameters()).map(of).collect();
    let (outputs, slopes) = (plain(&net, &values), slopes(&net, &values));
    assert!(slopes.values().all(|slopes| slopes.iter().any(|slope| slope.abs() > 1e-3)), "{net:?}: gradients are 0");
    for device in common::devices() {
        // The finite differences are accurate to about 1e-9.
        let (exact, by_differences) = if device.is_cpu() { (1e-12, 1e-8) } else { (1e-5, 3e-5) };
        let (got, gradients) = run(&net, &device, &values);
        assert_eq!(got.len(), 1 + net.kinds().len());
        for ((got, want), name) in got.iter().zip(&outputs).zip(["y", "h", "c"]) {
            assert_close(got, want, exact, &format!("{device}, {net:?}: {name}"));
        }
        assert_eq!(gradients.keys().collect::<Vec<_>>(), slopes.keys().collect::<Vec<_>>());
        for (name, want) in &slopes {
            assert_close(&gradients[name], want, by_differences, &format!("{device}, {net:?}: gradient of {name}"));
        }
    }
}

/// Tests networks of a cell: stacked, bidirectional, with and without initial states and biases.
fn networks(cell: Cell) {
    let net = Net {
        cell,
        activation: Activation::Tanh,
        layers: 2,
        bidirectional: false,
        bias: true,
        initial: true,
        hidden: 4,
    };
    holds(net);
    holds(Net { layers: 3, bidirectional: true, hidden: 3, ..net });
    holds(Net { bidirectional: true, initial: false, hidden: 2, ..net });
    holds(Net { layers: 1, bidirectional: true, bias: false, hidden: 5, ..net });
    holds(Net { activation: Activation::Relu, bias: false, initial: false, ..net });
}

#[test]
fn rnns_follow_the_formulas() {
    networks(Cell::Rnn);
}

#[test]
fn lstms_follow_the_formulas() {
    networks(Cell::Lstm);
}

#[test]
fn grus_follow_the_formulas() {
    networks(Cell::Gru);
}

#[test]
fn a_second_derivative_is_refused_by_name() {
    for (cell, name) in [(Cell::Rnn, "rnn_grad"), (Cell::Lstm, "lstm_grad"), (Cell::Gru, "gru_grad")] {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [1, 2, 3]);
        let weight = |name: &str, columns: usize| graph.input(name, DType::F32, [cell.gates() * 4, columns]);
        let weights = Weights { w_ih: weight("w_ih", 3), w_hh: weight("w_hh", 4), b_ih: None, b_hh: None };
        let y = x.recurrent(cell, Activation::Tanh, &weights, &[], false).y;
        let once = gradients(&y.square().sum_all(), &[&x]).swap_remove(0);
        assert!(once.is_valid(), "{:?}", graph.errors());
        let twice = gradients(&once.square().sum_all(), &[&x]).swap_remove(0);
        let Err(Error::Graph(errors)) = Session::new(Device::cpu()).compile(&graph, &[&twice]) else {
            panic!("{name} was differentiated twice")
        };
        let message = errors[0].to_string();
        assert!(message.contains(name) && message.contains("can be differentiated once"), "{message}");
        assert!(message.contains(file!()), "{message}");
    }
}

/// A bound comes from 16 random runs: in a million elements, none may be far too low by chance. Each state is the sum of
/// 1/2 and half the previous state, so all are 1, and a device rounds each at least once.
#[test]
fn no_element_of_many_gets_a_bound_far_below_its_errors() {
    const STEPS: usize = 1_000_000;
    let graph = Graph::new();
    let inputs: [(&str, &[usize]); 4] = [("x", &[1, STEPS, 1]), ("h", &[1, 1]), ("w_ih", &[1, 1]), ("w_hh", &[1, 1])];
    let [x, h, w_ih, w_hh] = inputs.map(|(name, shape)| graph.input(name, DType::F32, shape));
    let full = |(value, number): (&Value, f64)| {
        (value.id(), Tensor::new(value.shape(), vec![number; value.shape().numel()]).expect("a tensor"))
    };
    let feeds = HashMap::from([(&x, 0.5), (&h, 1.0), (&w_ih, 1.0), (&w_hh, 0.5)].map(full));
    let weights = Weights { w_ih, w_hh, b_ih: None, b_hh: None };
    let y = x.recurrent(Cell::Rnn, Activation::Relu, &weights, &[h], false).y;
    let found =
        evaluate(&graph.nodes(), &[y.id()], feeds, wgrad::Precision::Highest).expect("evaluates").remove(&y.id());
    let Bounded { value, error, .. } = found.expect("y");
    let least = error.expect("bounds").into_iter().fold(f64::INFINITY, f64::min);
    assert!(value.to_f64().iter().all(|&y| y == 1.0));
    assert!(least > f64::from(f32::EPSILON) / 2.0, "{least:e} is below half a unit in the last place of 1");
}
