//! Test cases of the recurrent layers.

use super::{Activation, Cell, Weights};
use crate::op::{Case, Fill};
use crate::{DType, TensorType, gradients};

/// Sizes of a case.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub batch: usize,
    pub steps: usize,
    pub inputs: usize,
    pub hidden: usize,
}

/// Options of a case.
#[derive(Clone, Copy, Debug, Default)]
pub struct With {
    pub activation: Activation,
    pub reverse: bool,
    pub bias: bool,
    pub state: bool,
    /// Whether only the last states are used, not `y`.
    pub ends: bool,
}

/// A layer in one direction.
pub fn case(cell: Cell, name: impl Into<String>, form: Form, with: With) -> Case {
    let Form { batch, steps, inputs, hidden } = form;
    let rows = cell.gates() * hidden;
    let build = move |v: &[crate::Value]| {
        let mut rest = v[3..].iter().cloned();
        let bias = |v: Option<crate::Value>| if with.bias { v } else { None };
        let (b_ih, b_hh) = if with.bias { (bias(rest.next()), bias(rest.next())) } else { (None, None) };
        let weights = Weights { w_ih: v[1].clone(), w_hh: v[2].clone(), b_ih, b_hh };
        let state: Vec<_> = rest.collect();
        let found = v[0].recurrent(cell, with.activation, &weights, &state, with.reverse);
        let y = (!with.ends).then_some(found.y);
        y.into_iter().chain([found.h]).chain(found.c).collect()
    };
    // PyTorch's initialisation: with larger weights, errors would grow without bound over the steps.
    let bound = 1.0 / (hidden as f64).sqrt();
    let weight = |case: Case, name, shape: &[usize]| {
        case.input(name, TensorType::new(DType::F32, shape), Fill::Uniform(-bound, bound))
    };
    let mut case = Case::new(cell.name(), name, build).float("x", [batch, steps, inputs]);
    case = weight(weight(case, "w_ih", &[rows, inputs]), "w_hh", &[rows, hidden]);
    if with.bias {
        case = weight(weight(case, "b_ih", &[rows]), "b_hh", &[rows]);
    }
    if with.state {
        case = case.float("h0", [batch, hidden]);
        if cell == Cell::Lstm {
            case = case.float("c0", [batch, hidden]);
        }
    }
    case
}

/// Test cases of this family.
pub fn cases() -> Vec<Case> {
    let form = |batch, steps, inputs, hidden| Form { batch, steps, inputs, hidden };
    let all = With { bias: true, state: true, ..With::default() };
    let mut cases = Vec::new();
    for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
        let mut add = |name: &str, form: Form, with: With| cases.push(case(cell, name, form, with));
        add("one of each", form(1, 1, 1, 1), all);
        add("one step", form(3, 1, 2, 4), all);
        add("3 units", form(2, 3, 4, 3), all);
        add("8 units, 73 rows", form(73, 3, 3, 8), all);
        add("no bias, no state", form(2, 3, 2, 5), With::default());
        add("reverse", form(3, 4, 2, 4), With { reverse: true, ..all });
        add("reverse, 5 units", form(4, 3, 2, 5), With { reverse: true, ..all });
        add("relu", form(3, 3, 2, 4), With { activation: Activation::Relu, ..all });
        add("last states alone", form(3, 4, 2, 8), With { ends: true, ..all });
        add("12 units", form(3, 3, 2, 12), all);
        add("60 units", form(2, 3, 3, 60), all);
        add("64 units", form(9, 3, 5, 64), all);
        add("97 units, several workgroups", form(17, 2, 3, 97), With { bias: true, ..With::default() });
        add("72 units, 37 rows", form(37, 2, 3, 72), all);
        add("no rows", form(0, 2, 3, 4), all);
        if cell == Cell::Gru {
            // More than one launch of `registers`.
            add("300 steps, reverse", form(1, 300, 1, 4), With { reverse: true, ..all });
        }
        // The NaN is in the second step of the second row.
        const NAN: &[f64] = &[0.5, -0.5, 0.25, 1.0, -1.0, 0.5, 0.0, 0.75, f64::NAN];
        for activation in [Activation::Tanh, Activation::Relu] {
            let name = format!("NaN, {activation:?}");
            let mut case = case(cell, name, form(5, 3, 2, 4), With { activation, ..all }).forward_only();
            case.inputs[0].fill = Fill::Special(NAN, -1.0, 1.0);
            cases.push(case);
        }
        // The gradient of the last step does not meet the weights. (The infinity saturates the first gate; in a GRU, it
        // would be multiplied by another.)
        if cell != Cell::Gru {
            let mut infinite = case(cell, "gradient of a step, infinite weight", form(2, 1, 2, 4), all).forward_only();
            infinite.inputs[2].fill = Fill::Special(&[f64::INFINITY], -1.0, 1.0);
            let build = infinite.build;
            infinite.build = Box::new(move |v| gradients(&build(v)[0].cast(DType::F32).sum_all(), &[&v[0]]));
            cases.push(infinite);
        }
    }
    cases
}
