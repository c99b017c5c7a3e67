
// The RNN cell: h = activate(x + h_before w). hs first holds the sums.

@group(0) @binding(1) var<storage, read> x: array<f32>;

fn set_sum(at: At, gate: u32, v: f32) {
  set_state(in_slot(at.to_slot, at), v);
}

fn cell(at: At) {
  let i = in_slot(at.to_slot, at);
  set_state(i, activate(x[in_step(at, 1u)] + state(i)));
}
