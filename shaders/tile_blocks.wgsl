// The blocks of 4 x 4 elements that the invocations of matmul_tile.wgsl and conv2d_tile.wgsl load: TERMS terms of `side`
// rows or columns.

// Terms 4 k4 .. 4 k4 + 4 of rows or columns 4 outer4 .. 4 outer4 + 4.
struct Block { k4: u32, outer4: u32 }

// The block of an invocation. Neighbours load what is contiguous in memory: terms, or else rows or columns.
fn block_of(number: u32, side: u32, by_terms: bool) -> Block {
  if (by_terms) { return Block(number % (TERMS / 4u), number / (TERMS / 4u)); }
  return Block(number / (side / 4u), number % (side / 4u));
}
