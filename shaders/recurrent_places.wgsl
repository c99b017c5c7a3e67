
// What the texts of recurrent layers share: where things lie.
// All tensors are time-major: x and gates [T, B, gates, H], states [T + 1, B, H], one slot more than steps.
struct Params {
  batch: u32,
  hidden: u32,
  step: u32, // the step of x
  from_slot: u32, // the slot of the states before it
  to_slot: u32, // and behind it
  later: u32, // backward: the step behind it
  terms: u32, // backward: V in a row of ds; 0 where no step is behind it
  steps: u32, // that a launch takes
  reverse: u32, // whether they go from the last to the first
}

struct At { step: u32, from_slot: u32, to_slot: u32, row: u32, unit: u32 }

@group(0) @binding(0) var<uniform> p: Params;

// Of `gates` rows of H in each batch row of a step, row 0.
fn in_step(at: At, gates: u32) -> u32 {
  return (at.step * p.batch + at.row) * gates * p.hidden + at.unit;
}

// The step that is computed next.
fn next(at: At, reverse: bool) -> At {
  let by = select(1u, 0xffffffffu, reverse);
  return At(at.step + by, at.from_slot + by, at.to_slot + by, at.row, at.unit);
}

fn in_slot(slot: u32, at: At) -> u32 {
  return (slot * p.batch + at.row) * p.hidden + at.unit;
}

fn activate(v: f32) -> f32 { return tanh_f32(v); }

// The activation's slope where it is y.
fn slope(y: f32) -> f32 { return 1.0 - y * y; }
