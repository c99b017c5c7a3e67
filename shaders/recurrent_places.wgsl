// Memory layout shared by the recurrent kernels.
// All tensors are time-major: x and gates [T, B, gates, H], states [T + 1, B, H], one slot more than steps.

const CELL: u32 = 0u; // 0 RNN, 1 LSTM, 2 GRU
const RELU: bool = false; // activation relu in place of tanh

struct Params {
  batch: u32,
  hidden: u32,
  step: u32, // the step of x
  from_slot: u32, // the slot of the states before it
  to_slot: u32, // the slot of the states after it
  later: u32, // backward: the step after it
  terms: u32, // backward: V per row of ds; 0 if no step follows
  steps: u32, // steps per launch
  reverse: u32, // whether the order is from last to first
}

struct At { step: u32, from_slot: u32, to_slot: u32, row: u32, unit: u32 }

@group(0) @binding(0) var<uniform> p: Params;

// The start of the `gates` rows of H for a batch row of a step.
fn in_step(at: At, gates: u32) -> u32 {
  return (at.step * p.batch + at.row) * gates * p.hidden + at.unit;
}

// The next step in processing order.
fn next(at: At, reverse: bool) -> At {
  let by = select(1u, 0xffffffffu, reverse);
  return At(at.step + by, at.from_slot + by, at.to_slot + by, at.row, at.unit);
}

fn in_slot(slot: u32, at: At) -> u32 {
  return (slot * p.batch + at.row) * p.hidden + at.unit;
}

fn activate(v: f32) -> f32 {
  @if(RELU) return relu_f32(v);
  @else return tanh_f32(v);
}

// The activation's derivative, from its value y.
fn slope(y: f32) -> f32 {
  @if(RELU) return nan_or(y, select(0.0, 1.0, y > 0.0));
  @else return 1.0 - y * y;
}
