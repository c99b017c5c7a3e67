// Merges the means of a row's parts, weighted by their lengths, into those of `groups` groups, or of the whole row (one
// group). Variances add the parts' distances from the common mean (Chan, Golub and LeVeque, 1979).
// 1 parts: [parts, LINES, rows]: mean and variance, or two means; with a third line as in norm_moments.wgsl the second
// line holds variances (with ROOT their square roots). 2 whole: [groups, LINES, rows], with LAST [2, rows].
// A workgroup merges 64 groups, an invocation one. Part p has every PARTS-th element of `size` from p on, group g every
// GROUPS-th part from g on. Requires parts / groups <= 4096, an integer. Reference: the references in src/ops/norm.rs.

const RUN: u32 = 64u; // parts added sequentially: errors grow with RUN and the number of runs
const LINES: u32 = 3u; // or 2
const ROOT: bool = false;
const LAST: bool = true;

struct Dims { rows: u32, size: u32, parts: u32, groups: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> whole: array<f32>;

// Number of elements at every n-th position from `first` on.
fn count(first: u32, n: u32) -> f32 {
  return f32((d.size - first + n - 1u) / n);
}

// The weight of part p in a group of n elements.
fn weight(p: u32, n: f32) -> f32 {
  return count(p, d.parts) / n;
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
  let i = group_number(group, groups) * 64u + lane;
  if (i >= d.rows * d.groups) {
    return;
  }
  let cluster = i / d.rows;
  let row = i - cluster * d.rows;
  let n = count(cluster, d.groups);
  var a = 0.0;
  var b = 0.0;
  for (var p = cluster; p < d.parts;) {
    let stop = min(p + RUN * d.groups, d.parts);
    var run = vec2(0.0);
    for (; p < stop; p += d.groups) {
      run += weight(p, n) * vec2(part(p, 0u, row), part(p, 1u, row));
    }
    a += run.x;
    b += run.y;
  }
  var rest = 0.0;
  if (LINES == 3u) {
    var scale = 1.0;
    for (var attempt = 0u; attempt < 2u; attempt++) { // repeated with a scale if squares leave the range of f32
      var moments = vec2(0.0);
      for (var p = cluster; p < d.parts;) {
        let stop = min(p + RUN * d.groups, d.parts);
        var run = vec2(0.0);
        for (; p < stop; p += d.groups) {
          let c = (part(p, 0u, row) - a + part(p, 2u, row)) * scale;
          var v = part(p, 1u, row);
          if (ROOT) {
            v *= scale;
            v *= v;
          }
          run += weight(p, n) * vec2(c, v + c * c);
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
  let lines = select(LINES, 2u, LAST);
  let at = lines * cluster * d.rows + row;
  if (LAST) {
    a += rest;
  } else if (LINES == 3u) {
    whole[at + 2u * d.rows] = rest;
  }
  whole[at] = a;
  whole[at + d.rows] = b;
}
