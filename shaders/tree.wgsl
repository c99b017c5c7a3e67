// Reductions over a workgroup. The kernel declares THREADS, the size of the workgroup, and the type Tree.

var<workgroup> tree: array<Tree, THREADS>;

// Combines the invocations' values by the function JOIN; all invocations get the result. The tree may be used again
// after a workgroupBarrier().
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
