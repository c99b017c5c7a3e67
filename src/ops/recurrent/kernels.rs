//! Recurrent kernels: either one launch per step, or one launch for many steps with a workgroup per batch row, which
//! passes the state from step to step in workgroup memory.

use super::{Activation, Cell, Recurrence, RecurrenceGrad, Sizes};
use crate::op::{Args, Binding, Cost, Kernel, Launch, Lowered, Slot, Style, Variant, Work};
use crate::ops::reduce::{MIN_THREADS, together_on};
use crate::shader::Shader;

static VARIANTS: &[Variant] = &[
    // The gradient of an LSTM needs the most memory.
    Variant { workgroup_memory: 4 * 4 * MAX_UNITS as u32, invocations: MIN_THREADS, ..Variant::plain("workgroup") },
    Variant::plain("steps"),
];

fn is_workgroup(variant: &Variant) -> bool {
    *variant == VARIANTS[0]
}

/// Most hidden units whose states fit in workgroup memory.
const MAX_UNITS: usize = 512;

/// A workgroup reads the weights of this many units in the time of a launch.
const FEW_UNITS: usize = 256;

/// Maximum loop iterations per invocation: some drivers silently stop longer loops.
const MAX_ROUNDS: usize = 16_000;
const _: () = assert!(rounds(4 * MAX_UNITS, MAX_UNITS, MIN_THREADS as usize) <= MAX_ROUNDS);

/// Variant `steps`: batch rows per invocation, and invocations per workgroup. Small, so that a small layer has work for
/// every core of a software adapter.
const ROWS: usize = 8;
const THREADS: usize = 32;

/// Loop iterations per step with a workgroup per row, for `units` sums of `terms` terms.
const fn rounds(terms: usize, units: usize, threads: usize) -> usize {
    terms.div_ceil(threads) + units.div_ceil(threads) * (terms + 1) + 1
}

/// What the forward and backward kernels share.
struct Pass<'a> {
    of: &'a Recurrence,
    sizes: Sizes,
    args: &'a Args<'a>,
    together: bool,
    backward: bool,
}

impl Pass<'_> {
    /// Adjacent units per invocation.
    fn width(&self) -> usize {
        if !self.together && self.sizes.hidden.is_multiple_of(4) { 4 } else { 1 }
    }

    /// The shader of this layer.
    fn shader(&self, name: &str) -> Shader {
        let cell = match self.of.cell {
            Cell::Rnn => 0,
            Cell::Lstm => 1,
            Cell::Gru => 2,
        };
        let shader = Shader::new(name).set("CELL", cell).set("RELU", self.of.activation == Activation::Relu);
        if self.together {
            return shader.set("THREADS", together_on(self.args.profile));
        }
        let width = self.width();
        shader.set("ROWS", ROWS).set("THREADS", THREADS).set("WIDTH", width).set("VEC4", width == 4)
    }

    /// One launch per step, or per as many steps as the loop limit allows, in processing order.
    fn launches(&self, shader: Shader, entry: &'static str, bindings: &[Binding]) -> Result<Vec<Launch>, String> {
        let Sizes { steps, batch, hidden } = self.sizes;
        let gates = self.of.cell.gates();
        let terms = if self.backward { gates * hidden } else { hidden };
        let at_once =
            if self.together { MAX_ROUNDS / rounds(terms, hidden, together_on(self.args.profile) as usize) } else { 1 };
        let workgroups =
            if self.together { batch } else { (batch.div_ceil(ROWS) * (hidden / self.width())).div_ceil(THREADS) };
        let workgroups = self.args.profile.grid(workgroups as u64)?;
        let wgsl = shader.finish()?;
        let launch = |done: usize| {
            let number = if self.backward { steps - 1 - done } else { done };
            let behind = if self.backward && done > 0 { Some(number + 1) } else { None };
            let terms = behind.map_or(0, |_| terms / self.width());
            let later = behind.map_or(0, |number| self.of.step(&self.sizes, number));
            let uniform = self.uniform(number, later, terms, at_once.min(steps - done));
            let bindings = [uniform].into_iter().chain(bindings.iter().cloned()).collect();
            let (name, grad) = (self.of.cell.name(), if self.backward { "_grad" } else { "" });
            Launch { label: format!("{name}{grad} step"), wgsl: wgsl.clone(), entry, bindings, workgroups }
        };
        Ok((0..steps).step_by(at_once).map(launch).collect())
    }

    /// `Params` of recurrent_places.wgsl.
    fn uniform(&self, number: usize, later: usize, terms: usize, steps: usize) -> Binding {
        let Sizes { batch, hidden, .. } = self.sizes;
        let (from, to) = self.of.slots(&self.sizes, number);
        let step = self.of.step(&self.sizes, number);
        let words = [batch, hidden, step, from, to, later, terms, steps, usize::from(self.of.reverse)];
        Binding::Uniform(words.map(|n| n as u32).to_vec())
    }

    /// Copies an initial state to the slot before the first step.
    fn start(&self, input: usize, output: usize) -> Result<Launch, String> {
        let elements = self.sizes.batch * self.sizes.hidden;
        Ok(Launch {
            label: "recurrent_start".into(),
            wgsl: Shader::new("recurrent_start").finish()?,
            entry: "recurrent_start",
            bindings: vec![
                self.uniform(0, 0, 0, 0),
                Binding::Read(Slot::Input(input)),
                Binding::Write(Slot::Output(output)),
            ],
            workgroups: self.args.profile.grid(elements.div_ceil(64) as u64)?,
        })
    }
}

/// A launch per step, or a workgroup per row that reads all weights in each step, between barriers.
fn cost(variant: &Variant, args: &Args<'_>, sizes: &Sizes) -> Option<Cost> {
    let (steps, rows) = (sizes.steps as f64, sizes.batch as f64);
    if !is_workgroup(variant) {
        return Some(args.cost(&Work { launches: steps, ..Work::default() }));
    }
    let read = (sizes.hidden as f64 / FEW_UNITS as f64).powi(2);
    // With few units, barriers on a software adapter take longer than launches.
    let barriers = if args.profile.software { 3.0 * steps * rows } else { 0.0 };
    let work = Work { style: Style::Shared, launches: steps * read, barriers, ..Work::default() };
    (sizes.hidden <= MAX_UNITS).then(|| args.cost(&work))
}

impl Kernel for Recurrence {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        cost(variant, args, &Sizes::of_states(&args.outputs[0]))
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let sizes = Sizes::of_states(&args.outputs[0]);
        let pass = Pass { of: self, sizes, args, together: is_workgroup(variant), backward: false };
        let entry = if pass.together { "recurrent_workgroup" } else { "recurrent" };
        let mut bindings =
            vec![Binding::Read(Slot::Input(0)), Binding::Read(Slot::Input(1)), Binding::Write(Slot::Output(0))];
        let mut launches = vec![pass.start(2, 0)?];
        match self.cell {
            Cell::Rnn => {}
            Cell::Lstm => {
                launches.push(pass.start(3, 2)?);
                bindings.extend([Binding::Write(Slot::Output(1)), Binding::Write(Slot::Output(2))]);
            }
            Cell::Gru => bindings.extend([Binding::Write(Slot::Output(1)), Binding::Read(Slot::Input(3))]),
        }
        launches.extend(pass.launches(pass.shader(entry), entry, &bindings)?);
        Ok(Lowered { launches, scratch: Vec::new() })
    }
}

impl Kernel for RecurrenceGrad {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        cost(variant, args, &Sizes::of_states(args.inputs[0]))
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let (of, sizes) = (&self.0, Sizes::of_states(args.inputs[0]));
        let pass = Pass { of, sizes, args, together: is_workgroup(variant), backward: true };
        let entry = if pass.together { "recurrent_grad_workgroup" } else { "recurrent_grad" };
        let mut shader = pass.shader(entry);
        let read = |number: usize| Binding::Read(Slot::Input(number));
        let write = |number: usize| Binding::Write(Slot::Output(number));
        let mut bindings = vec![read(0), read(1), write(0), read(2)];
        match of.cell {
            Cell::Rnn => {}
            Cell::Lstm => {
                // Without a gradient of the cell states, another buffer is bound but not read.
                let cells = args.inputs.len() > 4;
                bindings.extend([read(3), read(if cells { 4 } else { 3 }), write(1)]);
                shader = shader.set("CELLS", cells);
            }
            Cell::Gru => bindings.extend([read(3), write(2), write(1)]),
        }
        Ok(Lowered { launches: pass.launches(shader, entry, &bindings)?, scratch: Vec::new() })
    }
}
