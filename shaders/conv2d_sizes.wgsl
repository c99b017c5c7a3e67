// Sizes and options of the direct convolution kernels.

struct Conv {
  c: u32, h: i32, w: i32, o: u32, kh: u32, kw: u32, oh: u32, ow: u32,
  sy: u32, sx: u32, py: i32, px: i32, dy: u32, dx: u32, group_c: u32, group_o: u32,
  begin: u32, end: u32, count: u32, splits: u32,
}
@group(0) @binding(0) var<uniform> s: Conv;
