// y[part, row] = sum, times a factor (or max, min, product) of the part-th chunk of x[row, :], for any strides of x.
// 1 x: in V, any strides; 2 y: [parts, rows] row-major, in T (four rows to a V of columns).
// A workgroup computes 64 elements of y, an invocation one (or four): blocks of RUN elements, then their sums, so
// that rounding errors grow with the length of a block and the number of blocks, not with their product.
// chunk * parts >= count. V is T, or vec4<T> where four neighbours lie in a row or in four rows.
// Behind it: reduce_walk.wgsl. Twin: Reduce::reference in src/ops/reduce.rs.

@compute @workgroup_size(64)
fn reduce(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= d.rows * d.parts) {
    return;
  }
  // Neighbours work on neighbouring rows.
  let part = i / d.rows;
  let row = i - part * d.rows;
  let start = start_of(row);
  var acc = V(identity());
  var j = part * d.chunk;
  let end = min(j + d.chunk, d.count);
  // Runs along the innermost axis: the position is worked out once for each.
  while (j < end) {
    let stop = min(j + RUN, end);
    var block = V(identity());
    while (j < stop) {
      var run = stop - j;
      if (!FLAT) {
        run = min(run, d.sizes.z - j % d.sizes.z);
      }
      var at = element(start, j);
      for (var k = 0u; k < run; k++) {
        block = combine(block, x[at]);
        at += d.strides.z;
      }
      j += run;
    }
    acc = combine(acc, block);
  }
  store(i, scaled(acc));
}
