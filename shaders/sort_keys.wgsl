// Keys of Argsort: u32 whose order is that of the elements.

const DESCENDING: bool = false;
alias T = f32;

// A key with the order of u32; equal keys for equal numbers.
fn key_of(v: T) -> u32 {
  let bits = order_of(v);
  return select(bits, ~bits, DESCENDING);
}

// The order of floats: positive numbers after negative ones, whose bits are in reverse order; -0 equals 0, NaN is last.
@if(T == f32)
fn order_of(v: T) -> u32 {
  let bits = select(bitcast<u32>(v), 0u, bitcast<u32>(v) == SIGN_BIT);
  return select(bits ^ select(SIGN_BIT, 0xffffffffu, (bits & SIGN_BIT) != 0u), 0xffffffffu, is_nan(v));
}
@elif(T == i32)
fn order_of(v: T) -> u32 {
  return bitcast<u32>(v) ^ SIGN_BIT;
}
@else
fn order_of(v: T) -> u32 {
  return v;
}
