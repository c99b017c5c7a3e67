//! Single functions that need no device.

use std::cmp::Reverse;

use proptest::prelude::*;
use wgrad::check::sweep::{self, RANDOM};
use wgrad::check::{CaseGraph, ENDS, Histogram, agrees, differs, differs_beyond_nan, ulps};
use wgrad::op::{Cost, Machine, Style, Work};
use wgrad::plan::internals::{Lifetime, Order, assign, lower_bound};
use wgrad::profile::{GPUS, multiprocessors_of};
use wgrad::shape::{merge_axes, reciprocal};
use wgrad::tuning::{quartiles, winner};
use wgrad::{Device, Graph, Profile, Session, Shape, Tensor, View};

#[test]
fn reciprocals_divide_every_number_below_2_to_the_31() {
    let largest = (1u64 << 31) - 1;
    let edges = (0..31).flat_map(|bit| [(1usize << bit) + 1, (1 << bit) + 2, (2 << bit) - 1, 2 << bit]);
    for d in (1..3000).chain(edges).chain([10_007, 65_535, 1_000_003, largest as usize]) {
        let [multiplier, shift] = reciprocal(d);
        let d = d as u64;
        let multiples = [1, 2, 3, 1000, largest / d / 2, largest / d].map(|k| k * d);
        for n in multiples.into_iter().flat_map(|n| [n.saturating_sub(1), n, n + 1]).chain([0, largest]) {
            if n <= largest {
                assert_eq!((2 * n * u64::from(multiplier)) >> 32 >> shift, n / d, "{n} / {d}");
            }
        }
    }
}

#[test]
fn reshaped_views_keep_the_order_of_elements() {
    let base = Shape::from([4, 6]);
    let sliced = View { shape: Shape::from([4, 4]), strides: base.strides(), offset: 1 };
    let split = sliced.reshaped(&Shape::from([2, 2, 1, 4])).expect("rows split");
    assert_eq!(split.positions(), sliced.positions());
    let at = |i: usize| 1 + i / 4 * 6 + i % 4;
    assert_eq!(sliced.positions(), (0..16).map(at).collect::<Vec<usize>>());
    assert_eq!(sliced.reshaped(&Shape::from([16])), None);
    let transposed = View { shape: Shape::from([6, 4]), strides: vec![1, 6], offset: 0 };
    assert_eq!(transposed.reshaped(&Shape::from([24])), None);
    let split = transposed.reshaped(&Shape::from([3, 2, 4])).expect("outer axis split");
    assert_eq!(split.positions(), transposed.positions());
    assert_eq!(transposed.positions(), (0..24).map(|i| i / 4 + i % 4 * 6).collect::<Vec<usize>>());
    // An empty view has no positions, however long its other axes are.
    let empty = View { shape: Shape::from([1 << 40, 0]), strides: vec![0, 1], offset: 0 };
    assert!(empty.positions().is_empty());
}

#[test]
fn axes_merge_only_where_every_operand_allows() {
    let shape = Shape::from([2, 3, 4]);
    let dense = shape.strides();
    let bias = [0, 1, 0];
    let merged = merge_axes(&shape, &[&dense, &bias]);
    assert_eq!(merged.sizes, [2, 3, 4]);
    let merged = merge_axes(&shape, &[&dense, &[0, 4, 1]]);
    assert_eq!(merged.sizes, [2, 12]);
    assert_eq!(merged.strides, [vec![12, 1], vec![0, 1]]);
}

#[test]
fn grids_cover_without_much_surplus() {
    let mut profile = Profile::webgpu_defaults();
    profile.max_workgroups = 64;
    for n in [0u64, 1, 63, 64, 65, 1000, 4095, 4096] {
        let [x, y, z] = profile.grid(n).expect("fits");
        let cells = u64::from(x) * u64::from(y) * u64::from(z);
        assert!(cells >= n && cells <= n + 64, "{n} -> {x}x{y}");
    }
    for n in [4097u64, 8192, 100_000, 262_143, 262_144] {
        let [x, y, z] = profile.grid(n).expect("fits");
        let cells = u64::from(x) * u64::from(y) * u64::from(z);
        assert!(cells >= n && cells < n + 64 * u64::from(z) && z > 1, "{n} -> {x}x{y}x{z}");
        assert!(x.max(y).max(z) <= 64);
    }
    assert!(profile.grid(262_145).is_err());
}

#[test]
fn every_gpu_of_the_table_can_be_found() {
    for &(name, count) in GPUS {
        assert_eq!(multiprocessors_of(name), Some(count), "{name} is behind a name that it contains");
    }
    assert_eq!(multiprocessors_of("AMD Radeon RX 7900 XT"), Some(84));
    assert_eq!(multiprocessors_of("Intel(R) Arc(TM) A770 Graphics"), Some(32));
    assert_eq!(multiprocessors_of("llvmpipe (LLVM 15.0.6, 256 bits)"), None);
}

#[test]
fn a_cost_shows_its_unit() {
    let shown = [Cost(1.234e-5), Cost(0.00256), Cost(3.0)].map(|cost| cost.to_string());
    assert_eq!(shown, ["12.3 us", "2.56 ms", "3.00 s"]);
}

#[test]
fn barriers_and_tiles_pay_on_gpus_only() {
    let software = Profile { software: true, ..Profile::webgpu_defaults() };
    let [software, gpu] = [software, Profile::webgpu_defaults()].map(|profile| Machine::of(&profile));
    let shared = Work { style: Style::Shared, flops: 1e9, barriers: 100.0, ..Work::default() };
    let cached = Work { style: Style::Cached, flops: 1e9, ..Work::default() };
    assert!(gpu.cost(&shared) < gpu.cost(&cached));
    assert!(software.cost(&shared) > software.cost(&cached));
    // A few workgroups leave a GPU idle.
    let few = Work { workgroups: 64.0, ..Work { launches: 0.0, barriers: 0.0, ..shared } };
    let full = Work { workgroups: 256.0, ..few };
    assert_eq!(gpu.cost(&few).0, 4.0 * gpu.cost(&full).0);
    // One more than a whole number on each multiprocessor takes as long as the next whole number.
    let time = |workgroups: f64| workgroups * gpu.cost(&Work { workgroups, ..full }).0;
    assert!((time(257.0) / time(320.0) - 1.0).abs() < 1e-12);
}

/// A direct implementation of the rule of [`assign`].
fn assigned_by_trial(values: &[Lifetime]) -> (Vec<usize>, Vec<u64>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&v| (Reverse(values[v].bytes), values[v].first));
    let mut buffers: Vec<(u64, Vec<usize>)> = Vec::new();
    let mut assigned = vec![0; values.len()];
    for v in order {
        let apart = |&t: &usize| values[t].last < values[v].first || values[v].last < values[t].first;
        let free = (0..buffers.len()).filter(|&b| buffers[b].1.iter().all(apart));
        let best = free.min_by_key(|&b| buffers[b].0).unwrap_or_else(|| {
            buffers.push((values[v].bytes, Vec::new()));
            buffers.len() - 1
        });
        buffers[best].1.push(v);
        assigned[v] = best;
    }
    (assigned, buffers.into_iter().map(|(bytes, _)| bytes).collect())
}

proptest! {
    #[test]
    fn the_sweep_agrees_with_trying_every_buffer(
        lives in prop::collection::vec((1u64..6, 0usize..40, 0usize..12), 0..80),
    ) {
        let values: Vec<Lifetime> =
            lives.iter().map(|&(bytes, first, length)| Lifetime { bytes, first, last: first + length }).collect();
        prop_assert_eq!(assign(&values), assigned_by_trial(&values));
        let alive = |at: usize| values.iter().filter(|v| v.first <= at && at <= v.last).map(|v| v.bytes).sum();
        prop_assert_eq!(lower_bound(&values), (0..60).map(alive).max().unwrap_or(0));
    }

    #[test]
    fn sharing_values_never_overlap(lives in prop::collection::vec((1u64..1000, 0usize..40, 0usize..12), 0..60)) {
        let values: Vec<Lifetime> =
            lives.iter().map(|&(bytes, first, length)| Lifetime { bytes, first, last: first + length }).collect();
        let (assigned, sizes) = assign(&values);
        for (a, x) in values.iter().enumerate() {
            prop_assert!(sizes[assigned[a]] >= x.bytes);
            for (b, y) in values.iter().enumerate().skip(a + 1) {
                let meet = x.first <= y.last && y.first <= x.last;
                prop_assert!(!(meet && assigned[a] == assigned[b]), "{x:?} and {y:?} share");
            }
        }
        prop_assert!(sizes.iter().sum::<u64>() >= lower_bound(&values));
    }
}

#[test]
fn a_chain_needs_two_buffers() {
    let chain: Vec<Lifetime> = (0..10).map(|i| Lifetime { bytes: 100, first: i, last: i + 1 }).collect();
    let (_, sizes) = assign(&chain);
    assert_eq!(sizes, [100, 100]);
    assert_eq!(lower_bound(&chain), 200);
}

#[test]
fn the_order_is_kept_where_keys_run_out() {
    let mut order = Order::new(4);
    let mut want = vec![0, 1, 2, 3];
    for _ in 0..1000 {
        want.rotate_right(2);
        order.put_before(want[2], vec![want[1], want[0]]);
        assert_eq!(order.clusters(), want);
    }
}

#[test]
fn only_a_clear_gain_replaces_the_default_choice() {
    let of = |right: &[(&'static str, f64, f64)]| winner("a", right);
    assert_eq!(of(&[("a", 1.0, 0.1), ("b", 0.8, 0.1)]), Some("b"));
    assert_eq!(of(&[("a", 1.0, 0.3), ("b", 0.8, 0.1)]), Some("a"), "within its own spread");
    assert_eq!(of(&[("a", 1.0, 0.1), ("b", 0.8, 0.3)]), Some("a"), "within the other's spread");
    assert_eq!(of(&[("a", 1.0, 0.0), ("b", 0.98, 0.0)]), Some("a"), "not worth it");
    assert_eq!(of(&[("b", 3.0, 9.0), ("c", 2.0, 9.0)]), Some("c"), "the default was wrong");
    assert_eq!(of(&[("a", 1.0, 0.1), ("b", f64::NAN, f64::NAN)]), Some("a"));
    assert_eq!(of(&[]), None);
}

#[test]
fn quartiles_of_few() {
    assert_eq!(quartiles(&[3.0, 1.0, 2.0, 5.0, 4.0]), (3.0, 2.0));
    assert_eq!(quartiles(&[2.0]), (2.0, 0.0));
    assert_eq!(quartiles(&[]), (0.0, 0.0));
}

#[test]
fn infinities_agree_in_sign_and_nan_with_nan_alone() {
    let inf = f64::INFINITY;
    assert!(agrees(1.0, 1.0, 0.0) && agrees(1.0, 1.1, 0.2) && !agrees(1.0, 1.1, 0.05));
    for (got, exact) in [(inf, inf), (-inf, -inf), (inf, 1e39), (-inf, -1e39), (inf, 3.4e38)] {
        assert!(agrees(got, exact, 1e37), "{got} for {exact}");
    }
    for allowed in [0.0, 1.0, inf] {
        for (got, exact) in [(inf, -inf), (-inf, inf), (-inf, 1e39), (1.0, inf), (f64::NAN, 1.0), (f64::NAN, inf)] {
            assert!(
                !agrees(got, exact, if got.is_infinite() && exact.is_finite() { 0.0 } else { allowed }),
                "{got} for {exact}"
            );
        }
        assert!([1.0, inf, -inf].iter().all(|&got| !agrees(got, f64::NAN, allowed)));
        assert!(agrees(f64::NAN, f64::NAN, allowed) && agrees(f64::NAN, -f64::NAN, f64::NAN));
    }
    assert!(!agrees(inf, 1e30, 1e35), "far below the largest f32");
}

#[test]
fn tensors_differ_in_bits_or_beyond_nan() {
    let of = |bits: &[u32]| {
        vec![Tensor::new([bits.len()], bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<f32>>()).expect("fits")]
    };
    let (a, b) = (of(&[0x3f80_0000, 0x7fc0_0000]), of(&[0x3f80_0000, 0xffc0_0001]));
    assert_eq!((differs(&a, &a), differs(&a, &b), differs_beyond_nan(&a, &b)), (None, Some(0), None));
    let (c, zero, minus) = (of(&[0x3f80_0001, 0x7fc0_0000]), of(&[0]), of(&[0x8000_0000]));
    assert_eq!((differs_beyond_nan(&a, &c), differs_beyond_nan(&zero, &minus)), (Some(0), Some(0)));
    assert_eq!(differs_beyond_nan(&a, &of(&[0x3f80_0000, 0x3f80_0000])), Some(0), "NaN and a number");
    assert_eq!((differs(&a, &[]), differs_beyond_nan(&a, &zero)), (Some(0), Some(0)));
}

#[test]
fn ulps_follow_the_exponent() {
    let next = |x: f32| f64::from(f32::from_bits(x.to_bits() + 1));
    for x in [1.0f32, 1.5, 3.0, 1e-30, 1e30, f32::MIN_POSITIVE] {
        assert_eq!(ulps(next(x), f64::from(x)), 1.0, "{x}");
        assert_eq!(ulps(-next(x), -f64::from(x)), 1.0, "{x}");
    }
    assert_eq!(ulps(0.0, 1e-40).ceil(), 1.0, "a subnormal may be flushed");
    assert_eq!((ulps(f64::INFINITY, f64::INFINITY), ulps(f64::NAN, f64::NAN)), (0.0, 0.0));
    for (got, want) in [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.0, f64::INFINITY), (1.0, f64::NAN)] {
        assert_eq!(ulps(got, want), f64::INFINITY, "{got} {want}");
    }
}

#[test]
fn bins_and_quantiles() {
    let mut histogram = Histogram::default();
    assert_eq!(histogram.quantile(0.5), 0.0);
    let unit = f64::from(f32::EPSILON);
    (0..98).for_each(|_| histogram.add(1.0, 1.0));
    histogram.add(1.0 + 3.0 * unit, 1.0);
    assert_eq!((histogram.quantile(0.98), histogram.quantile(0.99)), (0.0, 4.0));
    let mut other = Histogram::default();
    other.add(f64::NAN, 1.0);
    histogram.merge(&other);
    assert_eq!((histogram.total(), histogram.counts[0], histogram.counts[ENDS.len()]), (100, 98, 1));
    assert_eq!((histogram.quantile(1.0), histogram.most), (f64::INFINITY, f64::INFINITY));
}

#[test]
fn random_cases_build_and_repeat() {
    for k in 0..150 {
        for (one, two) in sweep::random(7, k).iter().zip(&sweep::random(7, k)) {
            assert_eq!((one.case.op, &one.case.name, one.seed(7)), (two.case.op, &two.case.name, two.seed(7)));
            let graph = CaseGraph::new(&one.case);
            assert!(graph.is_ok(), "{} ({}): {}", one.case.op, one.case.name, graph.err().expect("it failed"));
        }
    }
}

#[test]
fn numbers_are_distinct_within_an_op() {
    let mut seen = std::collections::HashSet::new();
    for case in sweep::listed().iter().chain(&sweep::large()) {
        assert!(seen.insert((case.case.op, case.number)), "{} {}", case.case.op, case.number);
        assert!(case.number < RANDOM);
    }
}

#[test]
fn normal_numbers_have_the_moments_and_tails_of_the_normal_distribution() {
    const COUNT: f64 = 200_000.0;
    let graph = Graph::new();
    let [seed, step] = [3, 4].map(|n| graph.constant(Tensor::new([0; 0], [n as u32]).expect("a scalar")));
    let z = graph.random_normal([COUNT as usize], &seed, &step);
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &[&z]).expect("compiles");
    let z = session.run(&program, &[]).expect("runs")[0].to_f64();
    // The mean of a function over the numbers is within four standard errors of its expectation.
    let check = |what: &str, expected: f64, variance: f64, f: &dyn Fn(f64) -> f64| {
        let mean = z.iter().map(|&z| f(z)).sum::<f64>() / COUNT;
        assert!((mean - expected).abs() < 4.0 * (variance / COUNT).sqrt(), "{what}: {mean}, expected {expected}");
    };
    let share = |what: &str, p: f64, f: &dyn Fn(f64) -> bool| check(what, p, p * (1.0 - p), &|z| f64::from(f(z)));
    check("mean", 0.0, 1.0, &|z| z);
    check("variance", 1.0, 2.0, &|z| z * z);
    check("third moment", 0.0, 15.0, &|z| z.powi(3));
    check("fourth moment", 3.0, 96.0, &|z| z.powi(4));
    share("below -1", 0.158_655, &|z| z < -1.0);
    share("above 3", 0.001_349_9, &|z| z > 3.0);
    let pairs = z.iter().zip(&z[1..]).map(|(a, b)| a * b).sum::<f64>() / COUNT;
    assert!(pairs.abs() < 4.0 / COUNT.sqrt(), "neighbours are correlated: {pairs}");
}

#[test]
fn random_bits_are_even_and_streams_differ() {
    let graph = Graph::new();
    let [seed, step] = [1, 2].map(|n| graph.constant(Tensor::new([0; 0], [n as u32]).expect("a scalar")));
    let bits = [0; 2].map(|_| graph.random_bits([100_000], &seed, &step));
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &[&bits[0], &bits[1]]).expect("compiles");
    let [one, other] = &session.run(&program, &[]).expect("runs")[..] else { panic!("two outputs") };
    let (one, other) = (one.to_f64(), other.to_f64());
    let ones: u32 = one.iter().map(|&bits| (bits as u32).count_ones()).sum();
    let mean = f64::from(ones) / 100_000.0;
    assert!((mean - 16.0).abs() < 0.05, "{mean}");
    let same = one.iter().zip(&other).filter(|(one, other)| one == other).count();
    assert!(same < 5, "{same}");
}
