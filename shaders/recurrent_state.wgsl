// The buffer that a step reads and writes: hs of a recurrent layer, ds of its gradient. In scalars or, with VEC4, in
// vec4 of neighbouring units.

const VEC4: bool = false;
const WIDTH: u32 = 1u; // scalars per V: 4 with VEC4

@if(VEC4)
alias V = vec4<f32>;
@else
alias V = f32;

// Scalar i of a V.
fn part(v: V, i: u32) -> f32 {
  @if(VEC4) return v[i];
  @else return v;
}

// Scalar i of a buffer of V.
@template(BUFFER)
fn get_BUFFER(i: u32) -> f32 {
  @if(VEC4) return BUFFER[i / 4u][i % 4u];
  @else return BUFFER[i];
}

@template(BUFFER)
fn set_BUFFER(i: u32, v: f32) {
  @if(VEC4) BUFFER[i / 4u][i % 4u] = v;
  @else BUFFER[i] = v;
}
