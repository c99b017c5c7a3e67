// y[part, row] = sum times a factor (or max, min, product) of the part-th chunk of x[row, :].
// 1 x: any strides; 2 y: [parts, rows] row-major.
// A workgroup computes one element of y: each invocation reduces its share of the chunk in blocks of RUN elements, then
// a tree combines the shares. Requires chunk * parts >= count.
// Appended: reduce_walk.wgsl. Twin: Reduce::reference in src/ops/reduce.rs.

const THREADS: u32 = 256u; // or 128

var<workgroup> tree: array<T, THREADS>;

@compute @workgroup_size(THREADS)
fn reduce_rows(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = (wid.z * grid.y + wid.y) * grid.x + wid.x;
  let inside = i < d.rows * d.parts;
  let part = i / d.rows;
  let row = i - part * d.rows;
  let start = start_of(row);
  var acc = identity();
  if (inside) {
    let end = min((part + 1u) * d.chunk, d.count);
    for (var j = part * d.chunk + lid; j < end;) {
      let stop = min(j + RUN * THREADS, end);
      var block = identity();
      for (; j < stop; j += THREADS) {
        block = combine(block, x[element(start, j)]);
      }
      acc = combine(acc, block);
    }
  }
  tree[lid] = acc;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid < half) {
      tree[lid] = combine(tree[lid], tree[lid + half]);
    }
  }
  if (inside && lid == 0u) {
    store(i, scaled(tree[0]));
  }
}
