// Merges the means of a row's parts, weighted by their lengths, into those of the row. Variances add the parts' distances
// from the common mean (Chan, Golub and LeVeque, 1979).
// 1 parts: [parts, LINES, rows]: mean and variance, or two means; with a third line as in norm_moments.wgsl the second
// line holds variances (with ROOT their square roots). 2 whole: [2, rows].
// A workgroup merges 64 rows, an invocation one. Part p has every PARTS-th element of `size` from p on. Requires at most
// 4096 parts. Reference: the references in src/ops/norm.rs.

const RUN: u32 = 64u; // parts added sequentially: errors grow with RUN and the number of runs
const LINES: u32 = 3u; // or 2
const ROOT: bool = false;

struct Dims { rows: u32, size: u32, parts: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> whole: array<f32>;

// The share of the row's elements that part p has.
fn weight(p: u32) -> f32 {
  return f32((d.size - p + d.parts - 1u) / d.parts) / f32(d.size);
}

// One value of part p of a row.
fn part(p: u32, line: u32, row: u32) -> f32 {
  return parts[(LINES * p + line) * d.rows + row];
}

// The factor applied to differences, so that squares with mean `v` stay within the range of f32.
fn scale_of(v: f32) -> f32 {
  return select(select(1.0, 0x1p64, v < 0x1p-100), 0x1p-76, v > 0x1p100);
}

@compute @workgroup_size(64)
fn norm_merge(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group_number(group, groups) * 64u + lane;
  if (row >= d.rows) {
    return;
  }
  var a = 0.0;
  var b = 0.0;
  for (var p = 0u; p < d.parts;) {
    let stop = min(p + RUN, d.parts);
    var run = vec2(0.0);
    for (; p < stop; p++) {
      run += weight(p) * vec2(part(p, 0u, row), part(p, 1u, row));
    }
    a += run.x;
    b += run.y;
  }
  var rest = 0.0;
  if (LINES == 3u) {
    var scale = 1.0;
    for (var attempt = 0u; attempt < 2u; attempt++) { // repeated with a scale if squares leave the range of f32
      var moments = vec2(0.0);
      for (var p = 0u; p < d.parts;) {
        let stop = min(p + RUN, d.parts);
        var run = vec2(0.0);
        for (; p < stop; p++) {
          let c = (part(p, 0u, row) - a + part(p, 2u, row)) * scale;
          var v = part(p, 1u, row);
          if (ROOT) {
            v *= scale;
            v *= v;
          }
          run += weight(p) * vec2(c, v + c * c);
        }
        moments += run;
      }
      rest = moments.x;
      b = moments.y;
      if (!ROOT || attempt == 1u || scale_of(b) == 1.0) {
        break;
      }
      scale = scale_of(b);
    }
    b = max(b - rest * rest, 0.0);
    rest /= scale;
    if (ROOT) {
      b = sqrt(b) / scale;
    }
  }
  whole[row] = a + rest;
  whole[row + d.rows] = b;
}
