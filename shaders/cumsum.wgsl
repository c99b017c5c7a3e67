// y[o, j, i] = sum over k <= j of x[o, k, i]; with `reverse`, over k >= j.
// 1 x: contiguous T [outer, size, inner]; 2 before: [lines, chunks], cumulative sums of whole chunks, not read for the
// first chunk; 3 y: as x, or, without WALK, [lines, chunks], the sum of each chunk.
// A line is split into `chunks` of `chunk` <= 4096 elements (the last may be shorter), numbered from the end where the
// sums start. An invocation processes one chunk, starting from the sum before it; a workgroup processes 64.
// Reference: CumSum::reference in src/ops/cumsum.rs.

const WALK: bool = true;
alias T = f32;
const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs

struct Params { lines: u32, size: u32, inner: u32, reverse: u32, chunks: u32, chunk: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> before: array<T>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;

@compute @workgroup_size(64)
fn cumsum(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= p.lines * p.chunks) { return; }
  // Neighbouring invocations process neighbouring lines.
  let chunk = i / p.lines;
  let line = i - chunk * p.lines;
  let start = line / p.inner * p.size * p.inner + line % p.inner;
  var sum = T(0);
  if (WALK && chunk > 0u) {
    sum = before[line * p.chunks + chunk - 1u];
  }
  let first = chunk * p.chunk;
  let last = min(first + p.chunk, p.size);
  for (var k = first; k < last;) {
    let stop = min(k + RUN, last);
    var run = T(0);
    for (; k < stop; k++) {
      let at = start + select(k, p.size - 1u - k, p.reverse != 0u) * p.inner;
      run += x[at];
      if (WALK) {
        y[at] = sum + run;
      }
    }
    sum += run;
  }
  if (!WALK) {
    y[line * p.chunks + chunk] = sum;
  }
}
