//! Training on several ranks, which are threads here: the same numbers as on one, faults, and resuming.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use wgrad::distributed::World;
use wgrad::ops::all_reduce::AllReduce;
use wgrad::plan::{Options, Plan};
use wgrad::prelude::*;
use wgrad::train::{Control, Ended, FromFn, Metric, Model, Trainer};
use wgrad::{Profile, Result};

use crate::common;
use crate::my_square::{MySquare, RIGHT};
use crate::train::{rows, squares, state};

/// Runs a function on all ranks of a new world; a rank's `None` is a panic.
fn on_ranks<T: Send>(worlds: Vec<World>, run: impl Fn(World) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let run = &run;
        let ranks: Vec<_> = worlds.into_iter().map(|world| scope.spawn(move || run(world))).collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
    })
}

fn model() -> Model {
    let network = |nn: &Scope, x: &Value| nn.linear("fc2", &nn.linear("fc1", x, 8).tanh(), 1);
    Model::new([3], network).seed(5)
}

/// What differs between the trainings of these tests.
type Change<'a> = dyn Fn(Trainer) -> Trainer + Sync + 'a;

/// The session after a training with 23 rows in batches of 10: the last one has 3.
fn trained(device: &Device, world: Option<&World>, model: &Model, change: &Change<'_>) -> Result<Session> {
    let trainer = Trainer::new(model, squares).lr(0.02).epochs(3).batch(10).quiet();
    let mut trainer = change(world.into_iter().fold(trainer, Trainer::distributed));
    let mut session = Session::new(device.clone());
    trainer.fit(&mut session, &rows(23, 1), Some(&rows(9, 2)))?;
    Ok(session)
}

/// The largest difference of the variables of two sessions, relative to the largest magnitude of each.
fn difference(a: &Session, b: &Session) -> f64 {
    assert_eq!(a.names(), b.names());
    let difference = |name: String| {
        let [a, b] = [a, b].map(|session| session.get(&name).expect("a variable").to_f64());
        let most = a.iter().fold(1e-6f64, |most, x| most.max(x.abs()));
        a.iter().zip(&b).fold(0.0, |worst, (a, b)| {
            assert!((a - b).is_finite(), "{name}: {a} and {b}");
            f64::max(worst, (a - b).abs() / most)
        })
    };
    a.names().into_iter().map(difference).fold(0.0, f64::max)
}

#[test]
fn ranks_train_as_one_with_the_same_batch() {
    let changes: [(&str, &Change<'_>); 5] = [
        ("adam", &|trainer| trainer),
        ("momentum", &|trainer| trainer.optimizer(Sgd::new().momentum(0.9))),
        ("clipped", &|trainer| trainer.clip_norm(0.05)),
        ("accumulated", &|trainer| trainer.accumulate(2)),
        ("averaged", &|trainer| trainer.average(0.9)),
    ];
    for device in common::devices() {
        // Of f64, which the session returns as f32; and of f32 sums in another order, which Adam amplifies where a
        // gradient is close to 0.
        let bound = if device.is_cpu() { 1e-6 } else { 2e-4 };
        for (name, change) in &changes {
            // A step after another, since errors would grow.
            for steps in [1, 2, 3, 9] {
                let change = |trainer: Trainer| change(trainer).steps(steps);
                let alone = trained(&device, None, &model(), &change).expect("one rank");
                for ranks in [2, 3, 4] {
                    let sessions = on_ranks(World::threads(ranks), |world| {
                        trained(&device, Some(&world), &model(), &change).expect("a rank")
                    });
                    let worst = difference(&alone, &sessions[0]);
                    assert!(worst <= bound, "{device}, {name}, {steps} steps, {ranks} ranks: {worst}");
                    for session in &sessions[1..] {
                        assert_eq!(state(session), state(&sessions[0]), "{device}, {name}, {ranks} ranks");
                    }
                }
            }
        }
    }
}

#[test]
fn ranks_agree_with_norms_masks_and_half_precision() {
    let network = |nn: &Scope, x: &Value| {
        let x = nn.batch_norm("bn", &nn.linear("fc1", x, 8)).relu();
        nn.linear("fc2", &nn.dropout(&x, 0.25), 1)
    };
    for device in common::devices() {
        for dtype in [DType::F32, DType::F16] {
            let run = || {
                on_ranks(World::threads(3), |world| {
                    // A batch norm needs more than the one row per rank of the last batch.
                    let change = |trainer: Trainer| trainer.mixed(dtype).drop_last();
                    let session = trained(&device, Some(&world), &Model::new([3], network), &change);
                    state(&session.expect("a rank"))
                })
            };
            let first = run();
            assert!(first.iter().all(|other| *other == first[0]), "{device}, {dtype}");
            assert_eq!(run(), first, "{device}, {dtype}: another run has the same bits");
        }
    }
}

#[test]
fn running_statistics_are_the_means_of_the_ranks() {
    // Two ranks with two rows each.
    let x = Tensor::new([4, 1], [0.0f32, 2.0, 5.0, 9.0]).unwrap();
    let statistics = on_ranks(World::threads(2), |world| {
        let model = Model::new([1], |nn: &Scope, x: &Value| nn.batch_norm("bn", x));
        let mut trainer = Trainer::new(&model, squares).batch(4).steps(1).shuffle(false).quiet().distributed(&world);
        let mut session = Session::new(Device::cpu());
        trainer.fit(&mut session, &(x.clone(), x.clone()), None).expect("a step");
        ["bn.running_mean", "bn.running_var"].map(|name| session.get(name).unwrap().item().unwrap())
    });
    // Momentum 0.1; means 1 and 7, unbiased variances 2 and 8.
    let expected = [0.1 * 4.0, 0.9 + 0.1 * 5.0];
    for found in statistics {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, expected {expected:?}");
    }
}

#[test]
fn a_rank_whose_gradients_overflow_makes_all_skip_the_step() {
    let Some(device) = common::device() else { return };
    // Only the second rank's rows are huge.
    let data = FromFn::new(4, |rows, _| {
        let x: Vec<f32> = rows.iter().map(|&row| if row < 2 { 1.0 } else { 60000.0 }).collect();
        let column = |x: Vec<f32>| Tensor::new([x.len(), 1], x);
        Ok([("x".into(), column(x.clone())?), ("y".into(), column(vec![0.0; x.len()])?)].into())
    });
    let after = |steps: u64| {
        on_ranks(World::threads(2), |world| {
            let model = Model::new([1], |nn: &Scope, x: &Value| nn.linear("fc", x, 1));
            let mut trainer = Trainer::new(&model, squares).batch(4).steps(steps).shuffle(false).quiet();
            trainer = trainer.mixed(DType::F16).optimizer(Sgd::new().lr(0.1)).distributed(&world);
            let mut session = Session::new(device.clone());
            trainer.fit(&mut session, &data, None).expect("a skipped step");
            let value = |name: &str| session.get(name).unwrap().item().unwrap();
            ["fc.weight", "loss_scale.skipped", "loss_scale.scale"].map(value)
        })
    };
    let (before, found) = (after(0), after(1));
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], [before[0][0], 1.0, 32768.0]);
}

/// Numbers of very different sizes.
fn values(count: usize, rank: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + rank * 3) as f32).sin() * 10f32.powi((i % 9) as i32 - 6)).collect()
}

#[test]
fn all_reduce_computes_sums_and_means_in_phases_and_buckets() {
    // 28 MiB and some small ones: two buckets of the first phase.
    let sizes = [7usize << 20, 5, 1000, 3];
    for device in common::devices() {
        let ranks = 3;
        let results = on_ranks(World::threads(ranks), |world| {
            let graph = Graph::new();
            let inputs: Vec<Value> =
                sizes.iter().enumerate().map(|(n, &size)| graph.input(&format!("x{n}"), DType::F32, [size])).collect();
            let sums: Vec<Value> = inputs.iter().map(|x| (x * 2.0).all_reduce(AllReduce::SUM)).collect();
            let mean = (sums[2].slice(0, 0, 3, 1) + &inputs[3]).all_reduce(AllReduce::MEAN);
            let total = graph.variable("total", Tensor::new([3], [1.0f32; 3]).unwrap());
            graph.assign(&total, &(&total + &mean));
            let largest = sums[0].abs().max(&[0], false);
            let outputs = [&largest, &sums[1], &sums[2], &sums[3], &mean];
            if !device.is_cpu() {
                let phases = Plan::of(&graph, &outputs, device.profile(), &Options::default()).unwrap().0.exchanges();
                let buckets: Vec<Vec<usize>> = phases
                    .iter()
                    .map(|phase| phase.buckets.iter().map(|bucket| bucket.members.len()).collect())
                    .collect();
                assert_eq!(buckets, [vec![1, 3], vec![1]]);
            }
            let mut session = Session::new(device.clone());
            session.distribute(&world).unwrap();
            let program = session.compile(&graph, &outputs).unwrap();
            let fed: Vec<(String, Tensor)> = sizes
                .iter()
                .enumerate()
                .map(|(n, &size)| (format!("x{n}"), Tensor::new([size], values(size, world.rank() + n)).unwrap()))
                .collect();
            let feeds: Vec<(&str, &Tensor)> = fed.iter().map(|(name, x)| (name.as_str(), x)).collect();
            let mut outputs = session.run(&program, &feeds).unwrap();
            session.run(&program, &feeds).unwrap();
            outputs.push(session.get("total").unwrap());
            outputs
        });
        for others in &results[1..] {
            assert_eq!(*others, results[0], "{device}");
        }
        let close = |n: usize, expected: &[f64]| {
            let found = results[0][n].to_f64();
            assert_eq!(found.len(), expected.len());
            let most = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            let right = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * most);
            assert!(right, "{device}, output {n}: {found:?}");
        };
        let sum = |n: usize| -> Vec<f64> {
            let of = |i: usize| (0..ranks).map(|rank| 2.0 * f64::from(values(sizes[n], rank + n)[i])).sum();
            (0..sizes[n]).map(of).collect()
        };
        let mean: Vec<f64> = (0..3)
            .map(|i| sum(2)[i] + (0..ranks).map(|rank| f64::from(values(3, rank + 3)[i])).sum::<f64>() / ranks as f64)
            .collect();
        for n in 1..4 {
            close(n, &sum(n));
        }
        close(4, &mean);
        close(5, &mean.iter().map(|x| 1.0 + 2.0 * x).collect::<Vec<_>>());
        assert!(results[0][0].item().unwrap() > 1.0);
    }
}

#[test]
fn compressed_sums_are_within_their_bound() {
    let Some(device) = common::device() else { return };
    let (count, ranks) = (5003, 3); // parts of more than a block, and a shorter one
    let operands: Vec<Vec<f32>> = (0..ranks).map(|rank| values(count, rank)).collect();
    let results = on_ranks(World::threads(ranks), |world| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [count]);
        let mut session = Session::new(device.clone());
        session.distribute(&world).unwrap();
        let program = session.compile(&graph, &[&x.all_reduce(AllReduce::SUM.compressed())]).unwrap();
        let x = Tensor::new([count], operands[world.rank()].clone()).unwrap();
        let sum = session.run(&program, &[("x", &x)]).unwrap()[0].to_f64();
        assert_eq!(world.traffic().bytes, 2 * count as u64, "half of f32");
        sum
    });
    let most = operands.iter().flatten().fold(0.0f64, |most, x| most.max(f64::from(x.abs())));
    let (mut rounded, mut over) = (0, 0);
    for (i, &got) in results[0].iter().enumerate() {
        let terms: Vec<f64> = operands.iter().map(|x| f64::from(x[i])).collect();
        let exact: f64 = terms.iter().sum();
        let magnitudes: f64 = terms.iter().map(|x| x.abs()).sum();
        // And the rounding of the sum in f32.
        let bound =
            2f64.powi(-11) * (magnitudes + exact.abs()) * 1.001 + 2f64.powi(-40) * 6.0 * most + magnitudes * 1e-6;
        over += usize::from(!((got - exact).abs() <= bound));
        rounded += usize::from(got != exact);
    }
    assert_eq!(over, 0, "of {count} over the bound");
    assert!(rounded > count / 2, "nothing was compressed");
    assert!(results.iter().all(|other| *other == results[0]), "the ranks have the same bits");
    // Infinities and NaN arrive.
    let special = on_ranks(World::threads(2), |world| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [3]);
        let mut session = Session::new(device.clone());
        session.distribute(&world).unwrap();
        let program = session.compile(&graph, &[&x.all_reduce(AllReduce::SUM.compressed())]).unwrap();
        let x = [[f32::INFINITY, f32::NAN, 3e38], [1.0, 1.0, -1e38]][world.rank()];
        session.run(&program, &[("x", &Tensor::new([3], x).unwrap())]).unwrap()[0].to_f32()
    });
    assert!(special[0][0] == f32::INFINITY && special[0][1].is_nan(), "{special:?}");
    assert!((special[0][2] / 2e38 - 1.0).abs() < 1e-3, "{special:?}");
}

#[test]
fn a_training_with_compressed_gradients_learns_the_same() {
    let Some(device) = common::device() else { return };
    let alone = trained(&device, None, &model(), &|trainer| trainer).unwrap();
    let sessions = on_ranks(World::threads(2), |world| {
        trained(&device, Some(&world), &model(), &|trainer| trainer.compress_gradients(true)).unwrap()
    });
    let worst = difference(&alone, &sessions[0]);
    assert!(worst > 0.0 && worst < 0.1, "{worst}");
    assert_eq!(state(&sessions[0]), state(&sessions[1]));
}

#[test]
fn evaluations_are_those_of_one_rank() {
    let data = rows(11, 3);
    for device in common::devices() {
        let evaluation = |world: Option<World>| {
            let mut trainer = Trainer::new(&model(), squares).batch(4).metrics([Metric::Mae, Metric::R2]).quiet();
            trainer = world.iter().fold(trainer, Trainer::distributed);
            trainer.evaluate(&mut Session::new(device.clone()), &data).unwrap()
        };
        let alone = evaluation(None);
        for others in on_ranks(World::threads(3), |world| evaluation(Some(world))) {
            for name in ["loss", "mae", "r2"] {
                let [a, b] = [&alone, &others].map(|evaluation| evaluation.get(name).unwrap());
                assert!((a - b).abs() <= 1e-6 * a.abs(), "{device}, {name}: {a} and {b}");
            }
        }
    }
}

/// The errors of all ranks.
fn errors(worlds: Vec<World>, run: impl Fn(&World) -> Result<()> + Sync) -> Vec<String> {
    on_ranks(worlds, |world| run(&world).expect_err("an error").to_string())
}

fn fit(world: &World, change: impl Fn(Trainer) -> Trainer) -> Result<()> {
    let trainer = Trainer::new(&model(), squares).batch(4).epochs(50).quiet().distributed(world);
    change(trainer).fit(&mut Session::new(Device::cpu()), &rows(16, 1), None).map(drop)
}

#[test]
fn an_error_of_one_rank_ends_all_at_once() {
    let began = Instant::now();
    let found = errors(World::threads(3), |world| {
        let rank = world.rank();
        fit(world, |trainer| {
            trainer.on_step(move |event| match (rank, event.epoch) {
                (1, 3) => Err(Error::OutOfMemory("the buffers need 90 GiB".into())),
                _ => Ok(Control::Continue),
            })
        })
    });
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(found[1].contains("90 GiB"), "{found:?}");
    for other in [0, 2] {
        assert_eq!(found[other], format!("rank 1 failed: {}", found[1]));
    }
}

#[test]
fn a_rank_that_hangs_is_named() {
    let began = Instant::now();
    let found = errors(World::threads_within(3, Duration::from_secs(2)), |world| {
        let rank = world.rank();
        fit(world, |trainer| {
            trainer.on_step(move |event| {
                if (rank, event.epoch, event.batch) == (2, 2, 1) {
                    thread::sleep(Duration::from_secs(5));
                }
                Ok(Control::Continue)
            })
        })
    });
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    for error in &found {
        assert!(error.starts_with("rank 2 did not take part in exchange"), "{found:?}");
    }
}

#[test]
fn a_rank_that_ends_or_panics_is_named() {
    let found = errors(World::threads(2), |world| match world.rank() {
        0 => world.sum(&[1.0]).map(drop),
        _ => Err(Error::Input("it leaves".into())), // without World::fail
    });
    assert_eq!(found[0], "rank 1 has ended, but rank 0 waits for it");
    let mut worlds = World::threads(2);
    let (second, first) = (worlds.pop().unwrap(), worlds.pop().unwrap());
    let panicked = thread::spawn(move || {
        let _world = second;
        panic!("a panic that this test wants");
    });
    assert_eq!(first.sum(&[1.0]).unwrap_err().to_string(), "rank 1 panicked");
    assert!(panicked.join().is_err());
}

#[test]
fn ranks_that_do_not_fit_together_are_refused() {
    let found = errors(World::threads(2), |world| {
        let name = if world.rank() == 0 { "fc" } else { "layer" };
        let model = Model::new([3], move |nn: &Scope, x: &Value| nn.linear(name, x, 1));
        let mut trainer = Trainer::new(&model, squares).quiet().distributed(world);
        trainer.fit(&mut Session::new(Device::cpu()), &rows(16, 1), None).map(drop)
    });
    let expected = "variable `fc.bias` is f32[1] on rank 0 and missing on rank 1; all ranks must train the same model";
    assert!(found[0].ends_with(expected) && found[1].ends_with(expected), "{found:?}");
    let found = errors(World::threads(2), |world| world.sum(&vec![0.0; 1 + world.rank()]).map(drop));
    assert!(found[0].contains("rank 0 adds 1 values and rank 1 2"), "{found:?}");
    if let Some(device) = common::device() {
        let found = errors(World::threads(2), |world| {
            let device = if world.rank() == 0 { device.clone() } else { Device::cpu() };
            Session::new(device).distribute(world)
        });
        assert!(found[0].starts_with("rank 1 computes on the reference and rank 0 on a GPU"), "{found:?}");
    }
    let error = trained(&Device::cpu(), None, &model(), &|trainer| trainer).map(|mut session| {
        let world = World::threads(2).remove(0);
        world.fail("it was a test");
        session.distribute(&world).unwrap_err().to_string()
    });
    assert_eq!(error.unwrap(), "rank 0 failed: it was a test");
}

#[test]
fn variables_that_differ_are_found() {
    for device in common::devices() {
        let found = errors(World::threads(3), |world| {
            let rank = world.rank();
            let trainer = Trainer::new(&model(), squares).batch(4).epochs(3).quiet().distributed(world);
            let mut trainer = trainer.on_epoch(move |session, epoch| {
                if (rank, epoch.number) == (1, 1) {
                    // The last bit of one weight.
                    let mut weights = session.get("fc1.weight")?.to_f32();
                    weights[5] = f32::from_bits(weights[5].to_bits() ^ 1);
                    session.set("fc1.weight", &Tensor::new([8, 3], weights)?)?;
                }
                Ok(Control::Continue)
            });
            trainer.fit(&mut Session::new(device.clone()), &rows(16, 1), None).map(drop)
        });
        for error in &found {
            assert!(error.contains("variable `fc1."), "{device}: {found:?}");
            assert!(error.contains("of rank 1 has other bits than that of rank 0"), "{device}: {found:?}");
        }
    }
}

#[test]
fn a_training_resumes_on_another_number_of_ranks() {
    for device in common::devices() {
        let bound = if device.is_cpu() { 1e-6 } else { 2e-4 };
        let folder = tempfile::tempdir().unwrap();
        let run = |ranks: usize, steps: u64, folder: Option<&std::path::Path>| {
            let one = |world: &World| {
                let trainer = Trainer::new(&model(), squares).lr(0.02).epochs(4).batch(10).quiet();
                let mut trainer = trainer.steps(steps).distributed(world);
                if let Some(folder) = folder {
                    trainer = trainer.folder(folder).resume(true).restore_best();
                }
                let mut session = Session::new(device.clone());
                let history = trainer.fit(&mut session, &rows(23, 1), Some(&rows(9, 2))).expect("a rank");
                (history.epochs.len(), session)
            };
            on_ranks(World::threads(ranks), |world| one(&world))
        };
        let path = folder.path().join("run");
        run(4, 5, Some(&path)); // ends within the second epoch
        run(2, 8, Some(&path));
        let resumed = run(3, 12, Some(&path));
        for (epochs, session) in &resumed {
            assert_eq!(*epochs, 4);
            assert_eq!(state(session), state(&resumed[0].1));
        }
        let straight = run(1, 12, Some(&folder.path().join("straight")));
        let worst = difference(&straight[0].1, &resumed[0].1);
        assert!(worst <= bound, "{device}: {worst}");
        let log = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
        assert_eq!(log.matches("\"kind\":\"step\"").count(), 12, "{log}");
    }
}

#[test]
fn ranks_end_at_the_same_step() {
    let ended = Mutex::new(Vec::new());
    on_ranks(World::threads(3), |world| {
        let rank = world.rank();
        let trainer = Trainer::new(&model(), squares).batch(4).epochs(1_000_000).quiet().distributed(&world);
        // Only one of them has a budget.
        let mut trainer = if rank == 2 { trainer.time_budget(Duration::from_millis(50)) } else { trainer };
        let mut session = Session::new(Device::cpu());
        let history = trainer.fit(&mut session, &rows(16, 1), None).expect("a rank");
        assert_eq!(history.ended, Ended::TimeBudget);
        ended.lock().unwrap().push(state(&session));
    });
    let ended = ended.into_inner().unwrap();
    assert!(ended.iter().all(|other| *other == ended[0]));
}

#[test]
fn a_loss_that_is_not_finite_ends_all_ranks() {
    let found = errors(World::threads(2), |world| {
        let data = (rows(16, 1).0, Tensor::new([16, 1], [vec![0.0f32; 15], vec![f32::NAN]].concat()).unwrap());
        let mut trainer = Trainer::new(&model(), squares).batch(16).quiet().shuffle(false).distributed(world);
        trainer.fit(&mut Session::new(Device::cpu()), &data, None).map(drop)
    });
    for error in &found {
        assert!(error.contains("the training diverged: the loss of epoch 1, batch 1 is NaN"), "{found:?}");
    }
}

#[test]
fn every_rank_verifies_its_own_device() {
    let Some(device) = common::device() else { return };
    let verify = |world: &World, op: fn(usize) -> MySquare| {
        let rank = world.rank();
        let model =
            Model::new([3], move |nn: &Scope, x: &Value| nn.graph().apply1(op(rank), &[&nn.linear("fc", x, 1)]));
        let mut trainer = Trainer::new(&model, squares).batch(4).quiet().distributed(world);
        let session = Session::new(device.clone());
        trainer.verify(&session, &rows(16, 1))
    };
    let right = |_: usize| MySquare(RIGHT.to_owned());
    for checked in on_ranks(World::threads(3), |world| verify(&world, right).expect("right")) {
        assert!(checked.steps == 1 && checked.numbers > 10, "{checked:?}");
    }
    // A device that computes wrong.
    let wrong = |rank: usize| if rank == 1 { MySquare::wrong() } else { MySquare(RIGHT.to_owned()) };
    let found = errors(World::threads(2), |world| {
        verify(world, wrong)?;
        world.sum(&[1.0]).map(drop)
    });
    assert!(found[1].contains("first divergence: my_square.only"), "{found:?}");
    assert_eq!(found[0], format!("rank 1 failed: {}", found[1]));
}

#[test]
fn ranks_check_steps_in_turn() {
    let Some(device) = common::device() else { return };
    let unchecked = on_ranks(World::threads(2), |world| {
        state(&trained(&device, Some(&world), &model(), &|trainer| trainer).expect("a rank"))
    });
    let found = on_ranks(World::threads(2), |world| {
        let trainer = Trainer::new(&model(), squares).lr(0.02).epochs(3).batch(10).quiet().distributed(&world);
        let mut trainer = if world.rank() == 0 { trainer.shadow(true) } else { trainer.find_nan(true) };
        let mut session = Session::new(device.clone());
        trainer.fit(&mut session, &rows(23, 1), Some(&rows(9, 2))).expect("a rank");
        (trainer.checked(), state(&session))
    });
    for (checked, state) in &found {
        assert_eq!(*state, unchecked[0], "checks change no bit");
        assert_eq!(checked.steps, 6, "half of 9 steps and 3 evaluations");
    }
    assert!(found[0].0.numbers > 100);
}

#[test]
fn a_session_of_several_ranks_times_no_single_launches() {
    let Some(device) = common::device() else { return };
    on_ranks(World::threads(2), |world| {
        let graph = Graph::new();
        let y = graph.input("x", DType::F32, [4]).exp().all_reduce(AllReduce::SUM);
        let mut session = Session::new(device.clone());
        session.distribute(&world).unwrap();
        let program = session.compile(&graph, &[&y]).unwrap();
        let x = Tensor::new([4], [0.0f32; 4]).unwrap();
        let error = session.time_calls(&program, &[("x", &x)]).unwrap_err();
        assert!(error.to_string().starts_with("timing single launches is not possible"), "{error}");
        // Before it runs a step, for which it would wait forever if one rank did this.
        let error = session.profile(&program, &[("x", &x)]).unwrap_err();
        assert!(error.to_string().starts_with("a profile is not possible"), "{error}");
    });
    let graph = Graph::new();
    let y = graph.input("x", DType::F32, [4]).cast(DType::I32).all_reduce(AllReduce::SUM);
    let error = Plan::of(&graph, &[&y], &Profile::webgpu_defaults(), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("all_reduce(i32[4]): expected f32; cast() it"), "{error}");
}
