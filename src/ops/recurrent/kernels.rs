//! Recurrent kernels: one launch per step, with or without tiles in workgroup memory, or one launch for many steps with a
//! workgroup per batch row, which passes the state from step to step in workgroup memory, and may keep the weights in
//! registers.

use super::{Activation, Cell, Recurrence, RecurrenceGrad, Sizes};
use crate::op::{Args, Binding, Cost, Kernel, Launch, Lowered, Machine, Slot, Style, Variant, Work};
use crate::ops::reduce::{MIN_THREADS, together_on};
use crate::shader::Shader;

static VARIANTS: &[Variant] = &[
    // The gradient of an LSTM needs the most memory.
    Variant { workgroup_memory: 4 * 4 * MAX_UNITS as u32, invocations: MIN_THREADS, ..Variant::plain("workgroup") },
    Variant::plain("steps"),
    // Three numbers for each sum of a gradient.
    Variant {
        workgroup_memory: 12 * REGISTER_COLUMNS as u32,
        invocations: REGISTER_COLUMNS as u32,
        ..Variant::plain("registers")
    },
    tile("tile256", 256),
    tile("tile512", 512),
];

/// Each of 64 invocations more adds up another part of the terms.
const fn tile(name: &'static str, invocations: u32) -> Variant {
    Variant { workgroup_memory: 64 * invocations, invocations, ..Variant::plain(name) }
}

/// How the work is divided, one for each variant.
#[derive(Clone, Copy, PartialEq)]
enum Division {
    /// A workgroup per batch row, for many steps.
    Workgroup,
    /// The same, with a column of the weights in the registers of each invocation.
    Registers,
    /// A launch per step; each invocation reads its operands from memory.
    Steps,
    /// A launch per step; workgroups of this number of invocations share tiles of the operands.
    Tile(u32),
}

impl Division {
    fn of(variant: &Variant) -> Division {
        match variant.name {
            "workgroup" => Division::Workgroup,
            "registers" => Division::Registers,
            "steps" => Division::Steps,
            _ => Division::Tile(variant.invocations),
        }
    }
}

/// Most hidden units whose states fit in workgroup memory.
const MAX_UNITS: usize = 512;

/// A workgroup reads the weights of one gate of this many units (144 KiB) in the time of a launch: 256 invocations with
/// some loads in flight get about 30 GB/s. Not measured.
const FEW_UNITS: usize = 192;

/// Most hidden units, and most sums (units of all gates), with weights in registers.
const REGISTER_UNITS: usize = 64;
const REGISTER_COLUMNS: usize = 256;

/// Most steps per launch with weights in registers: the launch then hardly counts.
const REGISTER_STEPS: usize = 256;

/// A step of a workgroup, without reading weights, takes this share of the time of a launch: about 0.4 us. Not measured.
const GROUP_STEP: f64 = 0.1;

/// Maximum loop iterations per invocation: some drivers silently stop longer loops.
const MAX_ROUNDS: usize = 16_000;
const _: () = assert!(rounds(4 * MAX_UNITS, MAX_UNITS, MIN_THREADS as usize) <= MAX_ROUNDS);

/// Variant `steps`: batch rows per invocation, and invocations per workgroup. Small, so that a small layer has work for
/// every core of a software adapter.
const ROWS: usize = 8;
const THREADS: usize = 32;

/// Tiles: the batch rows and units of a workgroup, as in recurrent_sums.wgsl.
const TILE: [usize; 2] = [32, 8];

/// Loop iterations per step with a workgroup per row, for `units` sums of `terms` terms.
const fn rounds(terms: usize, units: usize, threads: usize) -> usize {
    terms.div_ceil(threads) + units.div_ceil(threads) * (terms + 1) + 1
}

/// What the forward and backward kernels share.
struct Pass<'a> {
    of: &'a Recurrence,
    sizes: Sizes,
    args: &'a Args<'a>,
    division: Division,
    backward: bool,
}

impl Pass<'_> {
    /// Adjacent units per invocation.
    fn width(&self) -> usize {
        if self.division == Division::Steps && self.sizes.hidden.is_multiple_of(4) { 4 } else { 1 }
    }

    /// The shader of this layer.
    fn shader(&self, name: &str) -> Shader {
        let cell = match self.of.cell {
            Cell::Rnn => 0,
            Cell::Lstm => 1,
            Cell::Gru => 2,
        };
        let shader = Shader::new(name).set("CELL", cell).set("RELU", self.of.activation == Activation::Relu);
        let width = self.width();
        match self.division {
            Division::Workgroup => shader.set("THREADS", together_on(self.args.profile)),
            Division::Registers => {
                let hidden = self.sizes.hidden;
                let columns = self.of.cell.gates() * hidden;
                shader.set("THREADS", columns.next_multiple_of(64)).set("TERMS4", hidden / 4)
            }
            Division::Steps => {
                shader.set("ROWS", ROWS).set("THREADS", THREADS).set("WIDTH", width).set("VEC4", width == 4)
            }
            Division::Tile(invocations) => shader.set("PARTS", invocations / 64),
        }
    }

    /// One launch per step, or per as many steps as the loop limit allows, in processing order.
    fn launches(&self, shader: Shader, entry: &'static str, bindings: &[Binding]) -> Result<Vec<Launch>, String> {
        let Sizes { steps, batch, hidden } = self.sizes;
        let gates = self.of.cell.gates();
        let terms = if self.backward { gates * hidden } else { hidden };
        let (at_once, workgroups) = match self.division {
            Division::Workgroup => {
                let threads = together_on(self.args.profile) as usize;
                (MAX_ROUNDS / rounds(terms, hidden, threads), batch)
            }
            Division::Registers => (REGISTER_STEPS, batch),
            Division::Steps => (1, (batch.div_ceil(ROWS) * (hidden / self.width())).div_ceil(THREADS)),
            Division::Tile(_) => (1, tiles(&self.sizes)),
        };
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

/// Workgroups of the variants with tiles.
fn tiles(sizes: &Sizes) -> usize {
    sizes.batch.div_ceil(TILE[0]) * sizes.hidden.div_ceil(TILE[1])
}

/// With a workgroup per row, each step reads all weights in every workgroup, between barriers.
fn cost(of: &Recurrence, variant: &Variant, args: &Args<'_>, sizes: &Sizes) -> Option<Cost> {
    let Sizes { steps, batch, hidden } = *sizes;
    let (launches, gates) = (steps as f64, of.cell.gates() as f64);
    let flops = |rows: usize, units: usize| 2.0 * launches * (rows * units * hidden) as f64 * gates;
    // Workgroups that run one after the other, if this number of them fits on a multiprocessor.
    let waves = |resident: f64| (batch as f64 / Machine::of(args.profile).fill(resident)).ceil();
    // On a software adapter, barriers take longer than launches.
    let barriers = |per_step: f64| if args.profile.software { per_step * launches * batch as f64 } else { 0.0 };
    let work = match Division::of(variant) {
        Division::Workgroup if hidden > MAX_UNITS => return None,
        Division::Workgroup => {
            let step = GROUP_STEP + gates * (hidden as f64 / FEW_UNITS as f64).powi(2);
            let barriers = barriers(3.0);
            // Eight workgroups of 256 invocations fit on a multiprocessor.
            Work { style: Style::Shared, launches: launches * waves(8.0) * step, barriers, ..Work::default() }
        }
        Division::Registers => {
            let fits = hidden <= REGISTER_UNITS && of.cell.gates() * hidden <= REGISTER_COLUMNS;
            if !fits || !hidden.is_multiple_of(4) || hidden == 0 {
                return None;
            }
            // With 116 registers each, 512 invocations fit on a multiprocessor. A software adapter keeps registers in
            // memory between barriers.
            let waves = waves(512.0 / (gates * hidden as f64).max(64.0));
            let barriers = barriers(30.0);
            Work { style: Style::Shared, launches: launches * waves * GROUP_STEP, barriers, ..Work::default() }
        }
        Division::Steps => Work {
            style: Style::Cached,
            launches,
            flops: flops(batch.next_multiple_of(ROWS), hidden),
            workgroups: (batch.div_ceil(ROWS) * hidden).div_ceil(THREADS * 4) as f64,
            ..Work::default()
        },
        // Steps wait for memory, so that more invocations are faster. (0.3 is a guess.)
        Division::Tile(invocations) => Work {
            style: Style::Shared,
            launches,
            flops: flops(batch.next_multiple_of(TILE[0]), hidden.next_multiple_of(TILE[1])),
            efficiency: 0.3 * f64::from(invocations) / 512.0,
            workgroups: tiles(sizes) as f64,
            resident: 1.0,
            ..Work::default()
        },
    };
    Some(args.cost(&work))
}

impl Kernel for Recurrence {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        cost(self, variant, args, &Sizes::of_states(&args.outputs[0]))
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let sizes = Sizes::of_states(&args.outputs[0]);
        let pass = Pass { of: self, sizes, args, division: Division::of(variant), backward: false };
        let entry = match pass.division {
            Division::Workgroup => "recurrent_workgroup",
            Division::Registers => "recurrent_registers",
            Division::Steps => "recurrent",
            Division::Tile(_) => "recurrent_tile",
        };
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
        cost(&self.0, variant, args, &Sizes::of_states(args.inputs[0]))
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let (of, sizes) = (&self.0, Sizes::of_states(args.inputs[0]));
        let pass = Pass { of, sizes, args, division: Division::of(variant), backward: true };
        let entry = match pass.division {
            Division::Workgroup => "recurrent_grad_workgroup",
            Division::Registers => "recurrent_grad_registers",
            Division::Steps => "recurrent_grad",
            Division::Tile(_) => "recurrent_grad_tile",
        };
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
