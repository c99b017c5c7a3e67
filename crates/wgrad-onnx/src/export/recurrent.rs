//! Recurrent layers.
//!
//! The op reads the products of all steps with the input weights, which a matrix product before it has computed; the
//! operators of ONNX compute both. So the product is found again: `x W^T + b`, as `Value::recurrent` makes it.

use wgrad::graph::ValueId;

use super::site::{Found, Site, Size};
use super::writer::{Writer, int, ints, text, texts};

/// `x w + bias`, from the sums that the recurrence reads.
struct Projection {
    x: ValueId,
    w: ValueId,
    /// Vectors that are added.
    biases: Vec<ValueId>,
}

impl Projection {
    fn find(w: &Writer<'_>, mut sums: ValueId) -> Found<Projection> {
        let mut biases = Vec::new();
        loop {
            let site = w.maker(sums);
            match site.node.name() {
                "add" => {
                    let bias = w.maker(site.node.inputs[1]);
                    if bias.node.name() != "broadcast" || bias.input_shape(0)?.len() != 1 {
                        break;
                    }
                    biases.push(bias.node.inputs[0]);
                    sums = site.node.inputs[0];
                }
                // The steps and rows of a product are one axis.
                "reshape" => sums = site.node.inputs[0],
                "matmul" => {
                    let (mut x, mut by) = (site.node.inputs[0], site.node.inputs[1]);
                    while let "reshape" = w.maker(x).node.name() {
                        x = w.maker(x).node.inputs[0];
                    }
                    while let "broadcast" = w.maker(by).node.name() {
                        by = w.maker(by).node.inputs[0];
                    }
                    return Ok(Projection { x, w: by, biases });
                }
                _ => break,
            }
        }
        Err("the product with its input weights was not found: only layers made by Value::recurrent can be exported"
            .into())
    }
}

/// The gates of ONNX in terms of those of wgrad.
fn gates(cell: &str) -> &'static [i64] {
    match cell {
        "lstm" => &[0, 3, 1, 2], // i o f c, from i f g o
        "gru" => &[1, 0, 2],     // z r h, from r z n
        _ => &[0],
    }
}

/// Parts of equal size along the first axis, in another order, with a new axis for the direction.
fn reordered(w: &mut Writer<'_>, x: &str, cell: &str) -> String {
    let order = gates(cell);
    let zero = w.ints(&[0]);
    let mut y = x.to_owned();
    if order.len() > 1 {
        let outputs =
            w.node_of("Split", &[x], &[("axis", int(0)), ("num_outputs", int(order.len() as i64))], order.len());
        let parts: Vec<&str> = order.iter().map(|&gate| outputs[gate as usize].as_str()).collect();
        y = w.node_with("Concat", &parts, &[("axis", int(0))]);
    }
    w.node("Unsqueeze", &[&y, &zero])
}

pub(super) fn write(w: &mut Writer<'_>, site: &Site<'_>) -> Found<()> {
    let cell = site.node.name();
    let Projection { x, w: by, biases } = Projection::find(w, site.node.inputs[0])?;
    let transposed = |w: &mut Writer<'_>, id: ValueId| -> Found<String> {
        let name = w.value(id)?;
        Ok(w.node_with("Transpose", &[&name], &[("perm", ints(&[1, 0]))]))
    };
    let sums = site.input_shape(0)?;
    let inputs = w.maker(by).output_shape(by.output)?[0];
    let x = w.value(x)?;
    let x = w.reshaped(&x, &[sums[0], sums[1], inputs])?;
    let (input_weights, weights) = (transposed(w, by)?, transposed(w, site.node.inputs[1])?);
    let (input_weights, weights) = (reordered(w, &input_weights, cell), reordered(w, &weights, cell));

    let hidden = site.input_shape(1)?[0].known().ok_or("its number of units depends on the number of rows")?;
    let zeros = w.filled(site.input_type(0), &[gates(cell).len() as i64 * hidden], 0.0)?;
    let mut sum = zeros.clone();
    for bias in biases {
        let bias = w.value(bias)?;
        sum = if sum == zeros { bias } else { w.node("Add", &[&sum, &bias]) };
    }
    let of_state = if cell == "gru" { w.input(site, 3)? } else { zeros };
    let (sum, of_state) = (reordered(w, &sum, cell), reordered(w, &of_state, cell));
    let bias = w.node_with("Concat", &[&sum, &of_state], &[("axis", int(1))]);

    let zero = w.ints(&[0]);
    let first = w.input(site, 2)?;
    let first_state = w.node("Unsqueeze", &[&first, &zero]);
    let activation = if site.text("activation")? == "relu" { "Relu" } else { "Tanh" };
    let reverse = site.flag("reverse")?;
    let mut attributes =
        vec![("hidden_size", int(hidden)), ("direction", text(if reverse { "reverse" } else { "forward" }))];
    let mut inputs = vec![x.as_str(), &input_weights, &weights, &bias, "", &first_state];
    let cells;
    let (operator, activations, outputs) = match cell {
        "lstm" => {
            let first = w.input(site, 3)?;
            cells = w.node("Unsqueeze", &[&first, &zero]);
            inputs.push(&cells);
            ("LSTM", vec!["Sigmoid", activation, activation], 3)
        }
        "gru" => {
            attributes.push(("linear_before_reset", int(1)));
            ("GRU", vec!["Sigmoid", activation], 2)
        }
        _ => ("RNN", vec![activation], 2),
    };
    attributes.push(("activations", texts(&activations)));
    let y = w.node_of(operator, &inputs, &attributes, outputs);

    // The states of all steps, before, or behind them, the first one: [T, 1, B, H] to [T, B, H].
    let one = w.ints(&[1]);
    let steps = w.node("Squeeze", &[&y[0], &one]);
    let parts = if reverse { [&steps, &first_state] } else { [&first_state, &steps] };
    let states = w.node_with("Concat", &[parts[0], parts[1]], &[("axis", int(0))]);
    w.set(site, 0, states);
    if cell != "rnn" && w.is_needed(ValueId { node: site.number, output: 1 }) {
        return Err("the values of its gates have no output in ONNX".into());
    }
    let id = ValueId { node: site.number, output: 2 };
    if cell == "lstm" && w.is_needed(id) {
        last_cells(w, site, id, &y[2], reverse)?;
    }
    Ok(())
}

/// ONNX has the last cell state only: each reader must be the slice of it.
fn last_cells(w: &mut Writer<'_>, site: &Site<'_>, id: ValueId, last: &str, reverse: bool) -> Found<()> {
    let steps = site.output_shape(2)?[0].known().ok_or("its number of steps depends on the number of rows")?;
    let at = if reverse { 0 } else { steps - 1 };
    for reader in w.readers(id) {
        let is_last = reader.node.name() == "slice"
            && reader.int("axis")? == 0
            && reader.sizes("start")? == [Size::fixed(at)]
            && reader.sizes("end")? == [Size::fixed(at + 1)];
        if !is_last {
            return Err("the cell states before the last one have no output in ONNX".into());
        }
        w.set(&reader, 0, last.to_owned());
    }
    match w.is_output(id) {
        true => Err("the cell states before the last one have no output in ONNX".into()),
        false => Ok(()),
    }
}
