//! CPU reference of the recurrent layers, one batch row at a time, and error bounds for devices.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Activation, Cell, Recurrence, Sizes};
use crate::op::{F32_UNIT_ROUNDOFF, gamma};
use crate::ops::matmul::add_row_times_matrix;
use crate::parallel;

/// What a run adds to each result: nothing, or a random fraction of its maximum rounding error.
struct Noise(Option<StdRng>);

impl Noise {
    fn of(run: Option<u64>, row: usize) -> Noise {
        Noise(run.map(|run| StdRng::seed_from_u64(run << 32 | row as u64)))
    }

    fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// `value` with an error of at most `error`.
    fn off(&mut self, value: f64, error: f64) -> f64 {
        match &mut self.0 {
            Some(rng) => value + rng.random_range(-1.0..1.0) * error,
            None => value,
        }
    }

    /// `value` after this many roundings of intermediate results that are no larger.
    fn rounded(&mut self, value: f64, roundings: f64) -> f64 {
        self.off(value, roundings * F32_UNIT_ROUNDOFF * value.abs())
    }

    /// `row` times a matrix of `row.len()` rows.
    fn product(&mut self, row: &[f64], matrix: &[f64], columns: usize) -> Vec<f64> {
        let mut y = vec![0.0; columns];
        if columns > 0 && !row.is_empty() {
            add_row_times_matrix(&mut y, row, matrix);
        }
        if self.is_on() {
            let mut magnitude = vec![0.0; columns];
            for (x, row) in row.iter().zip(matrix.chunks(columns)) {
                magnitude.iter_mut().zip(row).for_each(|(m, w)| *m += (x * w).abs());
            }
            y.iter_mut().zip(magnitude).for_each(|(y, m)| *y = self.off(*y, gamma(row.len()) * m));
        }
        y
    }

    /// The sigmoid of `x`, which has been rounded twice.
    fn sigmoid(&mut self, x: f64) -> f64 {
        let x = self.rounded(x, 2.0);
        // Uses the smaller exponential, so that nothing overflows.
        let e = (-x.abs()).exp();
        self.rounded(if x >= 0.0 { 1.0 } else { e } / (1.0 + e), FUNCTION)
    }

    fn activate(&mut self, activation: Activation, x: f64) -> f64 {
        let x = self.rounded(x, 2.0);
        match activation {
            Activation::Tanh => self.rounded(x.tanh(), FUNCTION),
            Activation::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            } // NaN stays
        }
    }
}

/// The error of a function of `scalar.wgsl` in roundings: 6 units in the last place.
const FUNCTION: f64 = 12.0;

/// The derivative of an activation, from its value `y`.
fn slope(activation: Activation, y: f64) -> f64 {
    match activation {
        Activation::Tanh => 1.0 - y * y,
        Activation::Relu if y.is_nan() => y,
        Activation::Relu => f64::from(u8::from(y > 0.0)),
    }
}

/// Transposes `[row][position][size]` to `[position][row][size]`.
fn by_position(rows: &[Vec<f64>], size: usize) -> Vec<f64> {
    let positions = rows.first().map_or(0, |row| row.len() / size.max(1));
    let mut all = Vec::with_capacity(rows.len() * positions * size);
    for position in 0..positions {
        rows.iter().for_each(|row| all.extend(&row[position * size..][..size]));
    }
    all
}

/// Merges the outputs of several rows, each a list of tensors for one row.
fn together(rows: Vec<Vec<Vec<f64>>>, sizes: &[usize]) -> Vec<Vec<f64>> {
    let tensor = |number: usize, size: usize| {
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| row[number].clone()).collect();
        by_position(&rows, size)
    };
    sizes.iter().enumerate().map(|(number, &size)| tensor(number, size)).collect()
}

/// States and gates from `x`, `w`, the initial state, and the initial cell state or the bias.
pub(super) fn forward(of: &Recurrence, sizes: &Sizes, inputs: &[&[f64]], run: Option<u64>) -> Vec<Vec<f64>> {
    let h = sizes.hidden;
    let rows = parallel::map(sizes.batch, &|row| forward_row(of, sizes, inputs, row, Noise::of(run, row)));
    let each: &[usize] = match of.cell {
        Cell::Rnn => &[h],
        Cell::Lstm => &[h, 4 * h, h],
        Cell::Gru => &[h, 4 * h],
    };
    together(rows, each)
}

fn forward_row(of: &Recurrence, sizes: &Sizes, inputs: &[&[f64]], row: usize, mut noise: Noise) -> Vec<Vec<f64>> {
    let &Sizes { steps, batch, hidden } = sizes;
    let gates = of.cell.gates();
    let [x, w, h0] = [inputs[0], inputs[1], inputs[2]];
    let mut hs = vec![0.0; (steps + 1) * hidden];
    let mut cs = vec![0.0; (steps + 1) * hidden];
    let mut saved = vec![0.0; steps * 4 * hidden];
    let (start, _) = of.slots(sizes, 0);
    hs[start * hidden..][..hidden].copy_from_slice(&h0[row * hidden..][..hidden]);
    if of.cell == Cell::Lstm {
        cs[start * hidden..][..hidden].copy_from_slice(&inputs[3][row * hidden..][..hidden]);
    }
    for number in 0..steps {
        let step = of.step(sizes, number);
        let (from, to) = of.slots(sizes, number);
        let x = &x[(step * batch + row) * gates * hidden..][..gates * hidden];
        let s = noise.product(&hs[from * hidden..][..hidden], w, gates * hidden);
        for unit in 0..hidden {
            let sum = |gate: usize| s[gate * hidden + unit];
            let x = |gate: usize| x[gate * hidden + unit];
            let mut save = |gate: usize, v: f64| saved[(step * 4 + gate) * hidden + unit] = v;
            hs[to * hidden + unit] = match of.cell {
                Cell::Rnn => noise.activate(of.activation, x(0) + sum(0)),
                Cell::Lstm => {
                    let i = noise.sigmoid(x(0) + sum(0));
                    let f = noise.sigmoid(x(1) + sum(1));
                    let g = noise.activate(of.activation, x(2) + sum(2));
                    let o = noise.sigmoid(x(3) + sum(3));
                    [i, f, g, o].into_iter().enumerate().for_each(|(gate, v)| save(gate, v));
                    let kept = f * cs[from * hidden + unit];
                    let c = noise.off(kept + i * g, 3.0 * F32_UNIT_ROUNDOFF * (kept.abs() + (i * g).abs()));
                    cs[to * hidden + unit] = c;
                    let h = o * noise.activate(of.activation, c);
                    noise.rounded(h, 1.0)
                }
                Cell::Gru => {
                    let [s_r, s_z, q] =
                        [0, 1, 2].map(|gate| noise.rounded(sum(gate) + inputs[3][gate * hidden + unit], 1.0));
                    let r = noise.sigmoid(x(0) + s_r);
                    let z = noise.sigmoid(x(1) + s_z);
                    let rounded = noise.off(r * q, F32_UNIT_ROUNDOFF * (r * q).abs());
                    let n = noise.activate(of.activation, x(2) + rounded);
                    [r, z, n, q].into_iter().enumerate().for_each(|(gate, v)| save(gate, v));
                    let before = hs[from * hidden + unit];
                    let magnitude = ((1.0 - z) * n).abs() + (z * before).abs();
                    noise.off((1.0 - z) * n + z * before, 4.0 * F32_UNIT_ROUNDOFF * magnitude)
                }
            };
        }
    }
    match of.cell {
        Cell::Rnn => vec![hs],
        Cell::Lstm => vec![hs, saved, cs],
        Cell::Gru => vec![hs, saved],
    }
}

/// The gradients of the sums, and the other outputs of [`super::RecurrenceGrad`], from its inputs.
pub(super) fn backward(of: &Recurrence, sizes: &Sizes, inputs: &[&[f64]], run: Option<u64>) -> Vec<Vec<f64>> {
    let h = sizes.hidden;
    let rows = parallel::map(sizes.batch, &|row| backward_row(of, sizes, inputs, row, Noise::of(run, row)));
    let each: &[usize] = match of.cell {
        Cell::Rnn => &[h],
        Cell::Lstm => &[4 * h, h],
        Cell::Gru => &[3 * h, h, 3 * h],
    };
    together(rows, each)
}

fn backward_row(of: &Recurrence, sizes: &Sizes, inputs: &[&[f64]], row: usize, mut noise: Noise) -> Vec<Vec<f64>> {
    let &Sizes { steps, batch, hidden } = sizes;
    let gates = of.cell.gates();
    let [dhs, w] = [inputs[0], inputs[1]];
    let slot = |states: &[f64], slot: usize, unit: usize| states[(slot * batch + row) * hidden + unit];
    let mut ds = vec![0.0; steps * gates * hidden];
    let mut dx = vec![0.0; if of.cell == Cell::Gru { ds.len() } else { 0 }];
    let mut carry = vec![0.0; hidden];
    let mut later: Option<usize> = None;
    for number in (0..steps).rev() {
        let step = of.step(sizes, number);
        let (from, to) = of.slots(sizes, number);
        let through = match later {
            Some(later) => noise.product(&ds[later * gates * hidden..][..gates * hidden], w, hidden),
            None => vec![0.0; hidden],
        };
        for unit in 0..hidden {
            let saved = |gate: usize| inputs[2][((step * batch + row) * 4 + gate) * hidden + unit];
            let mut set = |gate: usize, v: f64| ds[(step * gates + gate) * hidden + unit] = v;
            let given = slot(dhs, to, unit);
            let dh = noise.off(given + through[unit], F32_UNIT_ROUNDOFF * (given.abs() + through[unit].abs()));
            match of.cell {
                Cell::Rnn => set(0, noise.off_slope(dh, of.activation, slot(inputs[2], to, unit))),
                Cell::Lstm => {
                    let cs = inputs[3];
                    let [i, f, g, o] = [0, 1, 2, 3].map(saved);
                    let a = noise.activate(of.activation, slot(cs, to, unit));
                    let mut d = noise.off_slope(dh * o, of.activation, a);
                    if let Some(dcs) = inputs.get(4) {
                        d += slot(dcs, to, unit);
                    }
                    let d = noise.off(d + carry[unit], 3.0 * F32_UNIT_ROUNDOFF * (d.abs() + carry[unit].abs()));
                    set(0, noise.off_sigmoid(d * g, i));
                    set(1, noise.off_sigmoid(d * slot(cs, from, unit), f));
                    set(2, noise.off_slope(d * i, of.activation, g));
                    set(3, noise.off_sigmoid(dh * a, o));
                    carry[unit] = noise.rounded(d * f, 1.0);
                }
                Cell::Gru => {
                    let [r, z, n, q] = [0, 1, 2, 3].map(saved);
                    let dh = noise.off(dh + carry[unit], F32_UNIT_ROUNDOFF * (dh.abs() + carry[unit].abs()));
                    let of_n = noise.off_slope(dh * (1.0 - z), of.activation, n);
                    let of_n = noise.off(of_n, 2.0 * F32_UNIT_ROUNDOFF * dh.abs());
                    let of_r = noise.off_sigmoid(of_n * q, r);
                    let before = slot(inputs[3], from, unit);
                    let of_z = noise.off_sigmoid(dh * (before - n), z);
                    let of_z = noise.off(of_z, F32_UNIT_ROUNDOFF * (dh * z).abs() * (before.abs() + n.abs()));
                    let of_q = noise.rounded(of_n * r, 1.0);
                    [of_r, of_z, of_q].into_iter().enumerate().for_each(|(gate, v)| set(gate, v));
                    let to_x = [of_r, of_z, of_n].into_iter().enumerate();
                    to_x.for_each(|(gate, v)| dx[(step * 3 + gate) * hidden + unit] = v);
                    carry[unit] = noise.rounded(dh * z, 1.0);
                }
            }
        }
        later = Some(step);
    }
    match of.cell {
        Cell::Rnn => vec![ds],
        Cell::Lstm => vec![ds, carry],
        Cell::Gru => vec![ds, carry, dx],
    }
}

impl Noise {
    /// `d` times the derivative of an activation with value `y`; `1 - y^2` may cancel.
    fn off_slope(&mut self, d: f64, activation: Activation, y: f64) -> f64 {
        let error = match activation {
            Activation::Tanh => 2.0 * F32_UNIT_ROUNDOFF * d.abs(),
            Activation::Relu => 0.0,
        };
        let v = d * slope(activation, y);
        self.off(v, error + 2.0 * F32_UNIT_ROUNDOFF * v.abs())
    }

    /// `d` times the derivative of a sigmoid with value `y`.
    fn off_sigmoid(&mut self, d: f64, y: f64) -> f64 {
        self.off(
            d * (y * (1.0 - y)),
            F32_UNIT_ROUNDOFF * (d * y).abs() + 4.0 * F32_UNIT_ROUNDOFF * (d * y * (1.0 - y)).abs(),
        )
    }
}

/// Number of random runs of [`bounds`].
const RUNS: u64 = 16;

/// Error bounds for devices by Monte Carlo arithmetic (Parker, *Monte Carlo Arithmetic: exploiting randomness in
/// floating-point arithmetic*, UCLA CSD-970002, 1997). The reference is rerun with a random error at each rounding,
/// uniform between the negative and the positive maximum, so that errors grow or decay over the steps as they do in
/// this layer. A device's rounding errors stay below the maximum and vary from place to place; the bound is three times
/// the largest deviation of all runs. The number of runs must suit the millions of elements that are compared: an
/// element whose deviations all happen to be small gets a bound that is too low. (Errors of one size with random signs
/// would not work: if two of them have equal weight, they cancel in all of n runs once in 2^n times.)
pub(super) fn bounds(run: impl Fn(Option<u64>) -> Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let exact = run(None);
    let mut most: Vec<Vec<f64>> = exact.iter().map(|y| vec![0.0; y.len()]).collect();
    for number in 0..RUNS {
        for ((most, exact), tried) in most.iter_mut().zip(&exact).zip(run(Some(number))) {
            for ((most, exact), tried) in most.iter_mut().zip(exact).zip(tried) {
                *most = most.max((tried - exact).abs());
            }
        }
    }
    // Devices may flush subnormal numbers to 0.
    let bound = |most: Vec<f64>| most.into_iter().map(|m| 3.0 * m + f64::from(f32::MIN_POSITIVE)).collect();
    most.into_iter().map(bound).collect()
}
