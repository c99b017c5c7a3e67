// Reductions over a workgroup. The kernel declares THREADS, the size of the workgroup, and the type Tree.
//
// With SUBGROUPS, shuffles combine the values of a subgroup, and workgroup memory those of all subgroups: one barrier
// instead of one per level of a tree. The kernel sets own_subgroup to @builtin(subgroup_id). Which invocations form a
// subgroup does not matter, but subgroups must be full, unless there is only one. Drivers fill them if the workgroup is
// a multiple of their size. JOIN must be commutative, so that all invocations get the same bits.

const SUBGROUPS: bool = false;
const SUBGROUP_SIZE: u32 = 0u; // of all subgroups of the device; 0 if it varies

@if(SUBGROUPS)
var<workgroup> tree: array<Tree, THREADS / 4u>; // subgroups have at least 4 invocations
@else
var<workgroup> tree: array<Tree, THREADS>;

var<private> own_subgroup: u32;

// The number of invocations in each subgroup.
fn subgroup_width() -> u32 {
  @if(SUBGROUP_SIZE > 0) return min(SUBGROUP_SIZE, THREADS);
  @else return subgroupAdd(1u);
}

// Combines the invocations' values by the function JOIN; all invocations get the result. The tree may be used again
// after a workgroupBarrier().
@if(SUBGROUPS)
@template(JOIN)
fn tree_JOIN(lane: u32, v: Tree) -> Tree {
  let width = subgroup_width();
  var all = v;
  for (var by = 1u; by < width; by *= 2u) {
    all = JOIN(all, subgroupShuffleXor(all, by));
  }
  if (subgroupBroadcastFirst(lane) == lane) {
    tree[own_subgroup] = all;
  }
  workgroupBarrier();
  all = tree[0];
  for (var i = 1u; i < THREADS / width; i++) {
    all = JOIN(all, tree[i]);
  }
  return all;
}
@else
@template(JOIN)
fn tree_JOIN(lane: u32, v: Tree) -> Tree {
  tree[lane] = v;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      tree[lane] = JOIN(tree[lane], tree[lane + half]);
    }
  }
  workgroupBarrier();
  return tree[0];
}

fn sum(a: Tree, b: Tree) -> Tree { return a + b; }
