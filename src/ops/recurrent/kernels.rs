//! The kernels of recurrent layers: a launch for each step.

use super::{Activation, Cell, Recurrence, RecurrenceGrad, Sizes};
use crate::op::{Args, Binding, Kernel, Launch, Lowered, Slot, Variant};
use crate::shader::Shader;
use crate::wgsl;

static VARIANTS: &[Variant] = &[Variant::plain("steps")];

/// Batch rows of an invocation.
const ROWS: usize = 4;

/// Invocations of a workgroup.
const THREADS: usize = 64;

const PLACES: &str = include_str!("../../../shaders/recurrent_places.wgsl");

/// The text behind a kernel: the cell, and what all share.
fn with_cell(text: Shader, of: &Recurrence, cell: &str) -> Shader {
    let text = text.append(cell).append(PLACES);
    match of.activation {
        Activation::Tanh => text,
        Activation::Relu => text
            .function("activate", "fn activate(v: f32) -> f32 { return relu_f32(v); }")
            .function("slope", "fn slope(y: f32) -> f32 { return select(0.0, 1.0, y > 0.0); }"),
    }
}

/// The text for vectors of four units: `get` and `set` are the functions that read and write one
/// element of `array`.
fn by_fours(text: Shader, array: &str, get: &str, set: &str) -> Shader {
    text.constant("WIDTH", 4)
        .alias("V", "vec4<f32>")
        .function("part", "fn part(v: V, i: u32) -> f32 { return v[i]; }")
        .function(get, &format!("fn {get}(i: u32) -> f32 {{ return {array}[i / 4u][i % 4u]; }}"))
        .function(set, &format!("fn {set}(i: u32, v: f32) {{ {array}[i / 4u][i % 4u] = v; }}"))
}

/// The uniform of a launch.
struct Words<'a> {
    sizes: &'a Sizes,
    step: usize,
    slots: (usize, usize),
    later: usize,
    terms: usize,
}

impl Words<'_> {
    fn binding(&self) -> Binding {
        let (from, to) = self.slots;
        let Words { sizes, step, later, terms, .. } = *self;
        Binding::Uniform([sizes.batch, sizes.hidden, step, from, to, later, terms, 0].map(|n| n as u32).to_vec())
    }
}

/// Units that an invocation computes.
fn width(sizes: &Sizes) -> usize {
    if sizes.hidden.is_multiple_of(4) { 4 } else { 1 }
}

fn grid(sizes: &Sizes, args: &Args<'_>) -> Result<[u32; 3], String> {
    let invocations = sizes.batch.div_ceil(ROWS) * (sizes.hidden / width(sizes));
    args.profile.grid(invocations.div_ceil(THREADS) as u64)
}

impl Kernel for Recurrence {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let sizes = Sizes::of_states(&args.outputs[0]);
        let cell = match self.cell {
            Cell::Rnn => include_str!("../../../shaders/recurrent_rnn.wgsl"),
            Cell::Lstm => include_str!("../../../shaders/recurrent_lstm.wgsl"),
            Cell::Gru => include_str!("../../../shaders/recurrent_gru.wgsl"),
        };
        let mut text =
            with_cell(wgsl!("recurrent"), self, cell).constant("GATES", self.cell.gates()).constant("ROWS", ROWS);
        if width(&sizes) == 4 {
            text = by_fours(text, "hs", "state", "set_state");
        }
        let text = text.finish()?;
        let own: &[Binding] = match self.cell {
            Cell::Rnn => &[],
            Cell::Lstm => &[Binding::Write(Slot::Output(1)), Binding::Write(Slot::Output(2))],
            Cell::Gru => &[Binding::Write(Slot::Output(1)), Binding::Read(Slot::Input(3))],
        };
        let workgroups = grid(&sizes, args)?;
        let launch = |number: usize| {
            let step = self.step(&sizes, number);
            let words = Words { sizes: &sizes, step, slots: self.slots(&sizes, number), later: 0, terms: 0 };
            let mut bindings = vec![
                words.binding(),
                Binding::Read(Slot::Input(0)),
                Binding::Read(Slot::Input(1)),
                Binding::Write(Slot::Output(0)),
            ];
            bindings.extend(own.iter().cloned());
            let label = format!("{} step", self.cell.name());
            Launch { label, wgsl: text.clone(), entry: "recurrent", bindings, workgroups }
        };
        let mut launches = vec![self.start(&sizes, args, 2, 0)?];
        if self.cell == Cell::Lstm {
            launches.push(self.start(&sizes, args, 3, 2)?);
        }
        launches.extend((0..sizes.steps).map(launch));
        Ok(Lowered { launches, scratch: Vec::new() })
    }
}

impl Recurrence {
    /// Copies an initial state to the slot before the first step.
    fn start(&self, sizes: &Sizes, args: &Args<'_>, input: usize, output: usize) -> Result<Launch, String> {
        let words = Words { sizes, step: 0, slots: self.slots(sizes, 0), later: 0, terms: 0 };
        Ok(Launch {
            label: "recurrent_start".into(),
            wgsl: wgsl!("recurrent_start").append(PLACES).finish()?,
            entry: "recurrent_start",
            bindings: vec![words.binding(), Binding::Read(Slot::Input(input)), Binding::Write(Slot::Output(output))],
            workgroups: args.profile.grid((sizes.batch * sizes.hidden).div_ceil(THREADS) as u64)?,
        })
    }
}

impl Kernel for RecurrenceGrad {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn lower(&self, _: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let of = &self.0;
        let sizes = Sizes::of_states(args.inputs[0]);
        let cell = match of.cell {
            Cell::Rnn => include_str!("../../../shaders/recurrent_rnn_grad.wgsl"),
            Cell::Lstm => include_str!("../../../shaders/recurrent_lstm_grad.wgsl"),
            Cell::Gru => include_str!("../../../shaders/recurrent_gru_grad.wgsl"),
        };
        let mut text = with_cell(wgsl!("recurrent_grad"), of, cell).constant("ROWS", ROWS);
        if width(&sizes) == 4 {
            text = by_fours(text, "ds", "sum_grad", "set_sum_grad");
        }
        let cells = args.inputs.len() > 4;
        if of.cell == Cell::Lstm && !cells {
            text = text.constant("CELLS", false);
        }
        let text = text.finish()?;
        let own: Vec<Binding> = match of.cell {
            Cell::Rnn => vec![Binding::Read(Slot::Input(2))],
            Cell::Lstm => vec![
                Binding::Read(Slot::Input(2)),
                Binding::Read(Slot::Input(3)),
                Binding::Read(Slot::Input(if cells { 4 } else { 3 })), // not read where there is none
                Binding::Write(Slot::Output(1)),
            ],
            Cell::Gru => vec![
                Binding::Read(Slot::Input(2)),
                Binding::Read(Slot::Input(3)),
                Binding::Write(Slot::Output(2)),
                Binding::Write(Slot::Output(1)),
            ],
        };
        let workgroups = grid(&sizes, args)?;
        let launch = |number: usize| {
            let is_last = number + 1 == sizes.steps;
            let words = Words {
                sizes: &sizes,
                step: of.step(&sizes, number),
                slots: of.slots(&sizes, number),
                later: if is_last { 0 } else { of.step(&sizes, number + 1) },
                terms: if is_last { 0 } else { of.cell.gates() * sizes.hidden / width(&sizes) },
            };
            let mut bindings = vec![
                words.binding(),
                Binding::Read(Slot::Input(0)),
                Binding::Read(Slot::Input(1)),
                Binding::Write(Slot::Output(0)),
            ];
            bindings.extend(own.iter().cloned());
            let label = format!("{}_grad step", of.cell.name());
            Launch { label, wgsl: text.clone(), entry: "recurrent_grad", bindings, workgroups }
        };
        Ok(Lowered { launches: (0..sizes.steps).rev().map(launch).collect(), scratch: Vec::new() })
    }
}
