// Elements, processed one at a time or, with VEC4, four neighbours at a time.

const VEC4: bool = false;
alias T = f32;

@if(VEC4)
alias V = vec4<T>;
@else
alias V = T;

// Stores v at OUT[i]. Floats pass through the epilogue.
@template(OUT)
fn store_OUT(i: u32, v: V) {
  @if(T == f32 && VEC4) OUT[i] = epilogue4(v, 4u * i);
  @elif(T == f32) OUT[i] = epilogue(v, i);
  @else OUT[i] = v;
}
