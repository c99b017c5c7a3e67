
// The cell of an RNN: h = activate(x + h_before w). The sums wait in hs.

@group(0) @binding(1) var<storage, read> x: array<f32>;

fn set_sum(at: At, gate: u32, v: f32) {
  set_state(in_slot(at.to_slot, at), v);
}

fn cell(at: At) {
  let i = in_slot(at.to_slot, at);
  set_state(i, activate(x[in_step(at, 1u)] + state(i)));
}
