// Merges the means of a row's parts, weighted by their lengths, into those of the row. Variances add the parts' distances
// from the common mean (Chan, Golub and LeVeque, 1979).
// 1 parts: [parts, LINES, rows]: mean and variance, or two means; with a third line as in norm_moments.wgsl the second
// line holds variances (with ROOT their square roots). 2 whole: [2, rows].
// A workgroup merges 64 rows, an invocation one; with TOGETHER, a workgroup merges one row. Part p has every PARTS-th
// element of `size` from p on. Requires at most 4096 parts. Reference: the references in src/ops/norm.rs.

import package::tree::{place, place_in, SUBGROUPS, tree_barrier, tree_JOIN};

const TOGETHER: bool = false;
const THREADS: u32 = 64u;
// From one part of an invocation to the next.
@if(TOGETHER)
const STEP: u32 = THREADS;
@else
const STEP: u32 = 1u;
const RUN: u32 = 64u; // parts added sequentially: errors grow with RUN and the number of runs
const LINES: u32 = 3u; // or 2
const ROOT: bool = false;

alias Tree = vec2<f32>;

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

// The sum over the invocations that share a row.
fn total(v: vec2<f32>) -> vec2<f32> {
  @if(TOGETHER) return tree_sum(v);
  @else return v;
}

@compute @workgroup_size(THREADS)
fn norm_merge(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @if(TOGETHER && SUBGROUPS) @builtin(subgroup_id) subgroup: u32,
  @if(TOGETHER && SUBGROUPS) @builtin(subgroup_invocation_id) index: u32,
  @else @builtin(local_invocation_index) index: u32,
) {
  @if(TOGETHER && SUBGROUPS) let lane = place_in(subgroup, index);
  @else let lane = index;
  @if(TOGETHER) place = lane;
  @if(TOGETHER) let row = group_number(group, groups);
  @else let row = group_number(group, groups) * THREADS + lane;
  if (row >= d.rows) { return; } // uniform in the workgroup if it shares a row
  @if(TOGETHER) let first = lane;
  @else let first = 0u;
  var means = vec2(0.0);
  for (var p = first; p < d.parts;) {
    let stop = min(p + RUN * STEP, d.parts);
    var run = vec2(0.0);
    for (; p < stop; p += STEP) {
      run += weight(p) * vec2(part(p, 0u, row), part(p, 1u, row));
    }
    means += run;
  }
  means = total(means);
  let a = means.x;
  var b = means.y;
  var rest = 0.0;
  if (LINES == 3u) {
    var scale = 1.0;
    // Repeated with a scale if squares leave the range of f32.
    for (var attempt = 0u; attempt < select(1u, 2u, ROOT); attempt++) {
      var moments = vec2(0.0);
      for (var p = first; p < d.parts;) {
        let stop = min(p + RUN * STEP, d.parts);
        var run = vec2(0.0);
        for (; p < stop; p += STEP) {
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
      @if(TOGETHER) tree_barrier();
      moments = total(moments);
      rest = moments.x;
      b = moments.y;
      // The scale of the last attempt divides `rest` below. A workgroup does not leave the loop early: barriers must be in
      // uniform control flow.
      if (ROOT && attempt == 0u) {
        let wanted = scale_of(b);
        @if(!TOGETHER) if (wanted == 1.0) { break; }
        scale = wanted;
      }
    }
    b = max(b - rest * rest, 0.0);
    rest /= scale;
    if (ROOT) {
      b = sqrt(b) / scale;
    }
  }
  @if(TOGETHER) if (lane > 0u) { return; }
  whole[row] = a + rest;
  whole[row + d.rows] = b;
}
