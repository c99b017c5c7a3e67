// Elements of the rows of softmaxes and normalisations: V is f32, or with VEC4 a vec4 of four neighbours in one row, or
// with ACROSS of one element in each of four rows. S holds one value per row.

import package::elements::{V, VEC4};

const ACROSS: bool = false;

@if(VEC4 && ACROSS)
alias S = vec4<f32>;
@else
alias S = f32;

// The sum of the elements of V that lie in one row.
fn lanes(v: V) -> S {
  @if(VEC4 && !ACROSS) return (v.x + v.y) + (v.z + v.w);
  @else return v;
}
