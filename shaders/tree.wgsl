// Reductions over the invocations that share a row. A workgroup has ROWS rows, of LANES invocations each. The kernel
// declares THREADS, the size of the workgroup, and the type Tree, and sets `place`.
//
// With SUBGROUPS, shuffles combine the values of a subgroup. If a workgroup has several rows, each must lie in a
// subgroup, so that this is all. Otherwise workgroup memory combines the values of all subgroups: one barrier instead of
// one per level of a tree. Subgroups must be full, unless there is only one. Drivers fill them if the workgroup is a
// multiple of their size. JOIN must be commutative, so that all invocations get the same bits.

const SUBGROUPS: bool = false;
const SUBGROUP_SIZE: u32 = 0u; // of all subgroups of the device; 0 if it varies
const ROWS: u32 = 1u;
const LANES: u32 = THREADS / ROWS; // at least 4

@if(!SUBGROUPS)
var<workgroup> tree: array<Tree, THREADS>;
@elif(ROWS == 1)
var<workgroup> tree: array<Tree, THREADS / 4u>; // subgroups have at least 4 invocations

// The invocation's number in the workgroup; LANES neighbours share a row.
var<private> place: u32;

// The number of an invocation, such that those of a subgroup are neighbours.
fn place_in(subgroup: u32, invocation: u32) -> u32 { return subgroup * subgroup_width() + invocation; }

// The number of invocations in each subgroup.
fn subgroup_width() -> u32 {
  @if(SUBGROUP_SIZE > 0) return min(SUBGROUP_SIZE, THREADS);
  @else return subgroupAdd(1u);
}

// Waits until all invocations have their result, so that the tree can be used again.
fn tree_barrier() {
  @if(ROWS == 1 || !SUBGROUPS) workgroupBarrier();
}

// Combines the values of the invocations of a row by the function JOIN; each of them gets the result.
@if(SUBGROUPS)
@template(JOIN)
fn tree_JOIN(v: Tree) -> Tree {
  @if(ROWS == 1) let width = subgroup_width();
  @else let width = LANES;
  var all = v;
  for (var by = 1u; by < width; by *= 2u) {
    all = JOIN(all, subgroupShuffleXor(all, by));
  }
  @if(ROWS == 1) {
    if (place % width == 0u) {
      tree[place / width] = all;
    }
    workgroupBarrier();
    all = tree[0];
    for (var i = 1u; i < THREADS / width; i++) {
      all = JOIN(all, tree[i]);
    }
  }
  return all;
}
@else
@template(JOIN)
fn tree_JOIN(v: Tree) -> Tree {
  let lane = place % LANES;
  tree[place] = v;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      tree[place] = JOIN(tree[place], tree[place + half]);
    }
  }
  workgroupBarrier();
  return tree[place - lane];
}

fn sum(a: Tree, b: Tree) -> Tree { return a + b; }
