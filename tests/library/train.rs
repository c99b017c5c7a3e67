//! The trainer: the same numbers as a loop by hand, resuming, stopping, metrics, data on threads.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::Duration;

use wgrad::data::{Augment, Batches};
use wgrad::optim::schedule::Cosine;
use wgrad::prelude::*;
use wgrad::train::{Batch, Control, Dataset, Ended, FromFn, Loader, Meter, Metric, Model, Step, Trainer};
use wgrad::{Program, Result};

use crate::common;

/// `f32` numbers from -1 to 1 without a pattern that a model could miss.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..count)
        .map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Rows with three features and a target that is a function of them.
pub fn rows(count: usize, seed: u32) -> (Tensor, Tensor) {
    let x = numbers(3 * count, seed);
    let y: Vec<f32> = x.chunks(3).map(|x| x[0] * x[1] - 0.5 * x[2]).collect();
    (Tensor::new([count, 3], x).unwrap(), Tensor::new([count, 1], y).unwrap())
}

fn network(nn: &Scope, x: &Value) -> Value {
    let x = nn.linear("fc1", x, 8).tanh();
    nn.linear("fc2", &nn.dropout(&x, 0.25), 1)
}

pub fn model() -> Model {
    Model::new([3], network).seed(5)
}

pub fn squares(p: &Value, y: &Value) -> Value {
    p.mse_loss(y, Reduction::Mean)
}

/// Bits of variables, and counts of counters, by name.
pub type State = (Vec<(String, Vec<u64>)>, Vec<(String, u64)>);

/// All variables and counters.
pub fn state(session: &Session) -> State {
    let bits = |name: String| {
        let numbers = session.get(&name).expect("a variable").to_f64();
        (name, numbers.into_iter().map(f64::to_bits).collect())
    };
    let counters = session.counters().iter().map(|(name, count)| (name.clone(), *count)).collect();
    (session.names().into_iter().map(bits).collect(), counters)
}

#[test]
fn a_training_has_the_bits_of_a_loop_by_hand() {
    for device in common::devices() {
        let (x, y) = rows(22, 1);
        let mut by_hand = Session::new(device.clone());
        let compile = |session: &mut Session, batch: usize| -> Program {
            let graph = Graph::new();
            let x = graph.input("x", DType::F32, [batch, 3]);
            let y = graph.input("y", DType::F32, [batch, 1]);
            let loss = squares(&network(&Scope::train(&graph, 5), &x), &y);
            Adam::new().minimize(&graph, &loss);
            session.compile(&graph, &[&loss]).expect("compiles")
        };
        let (full, rest) = (compile(&mut by_hand, 8), compile(&mut by_hand, 6));
        let mut means = Vec::new();
        for epoch in 0..3 {
            let mut sum = 0.0;
            for rows in Batches::new(22, 8).unwrap().shuffled(5).epoch(epoch) {
                let program = if rows.len() == 8 { &full } else { &rest };
                let (x, y) = (x.rows(&rows).unwrap(), y.rows(&rows).unwrap());
                let lr = Tensor::scalar(0.02);
                let loss = by_hand.run(program, &[("x", &x), ("y", &y), ("lr", &lr)]).unwrap()[0].item().unwrap();
                sum += loss * rows.len() as f64;
            }
            means.push(sum / 22.0);
        }
        let mut session = Session::new(device);
        let mut trainer = Trainer::new(&model(), squares).lr(0.02).epochs(3).batch(8).workers(2).quiet();
        let history = trainer.fit(&mut session, &(x.clone(), y.clone()), None).expect("trains");
        assert_eq!(state(&session), state(&by_hand));
        assert_eq!(history.epochs.iter().map(|epoch| epoch.loss).collect::<Vec<_>>(), means);
        assert_eq!(history.epochs.iter().map(|epoch| epoch.steps).collect::<Vec<_>>(), [3, 6, 9]);
        assert_eq!(history.ended, Ended::Finished);
    }
}

/// Everything that a resumed training must continue: dropout, augmentation, accumulation, a partial last batch, a
/// schedule, moving averages, worker threads.
pub fn demanding(folder: &std::path::Path) -> Trainer {
    Trainer::new(&model(), squares)
        .optimizer(AdamW::new())
        .schedule(|steps| Cosine { lr: 0.05, last: 0.001, steps })
        .epochs(4)
        .batch(4)
        .accumulate(2)
        .clip_norm(1.0)
        .average(0.9)
        .workers(3)
        .checkpoint_every(2)
        .metrics([Metric::Mae])
        .folder(folder)
        .quiet()
}

pub fn noisy(data: &(Tensor, Tensor)) -> impl Dataset {
    let augment = Augment::new(3).noise(0.1);
    data.clone().map(move |mut batch, step| {
        let x = &batch["x"];
        let images = x.reshape([x.shape()[0], 1, 1, 3])?;
        let noisy = augment.apply(&images, step)?.reshape(x.shape().clone())?;
        batch.insert("x".into(), noisy);
        Ok(batch)
    })
}

/// The log without what depends on time.
pub fn log(folder: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("a log");
    let lines = text.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        for timed in ["seconds", "waiting", "rows_per_second"] {
            line.as_object_mut().expect("an object").remove(timed);
        }
        line.to_string()
    });
    lines.collect()
}

#[test]
fn a_resumed_training_has_the_bits_of_an_uninterrupted_one() {
    let (data, test) = (rows(27, 2), rows(9, 3));
    for device in common::devices() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = folder.path().join("whole");
        let mut session = Session::new(device.clone());
        let history = demanding(&whole).fit(&mut session, &noisy(&data), Some(&test)).expect("trains");
        // 27 rows: 7 batches, of which the last has 3 rows; 4 steps, of which the last has one batch.
        assert_eq!(history.epochs.iter().map(|epoch| epoch.steps).collect::<Vec<_>>(), [4, 8, 12, 16]);
        // The step after the one that says stop has been started, and is finished.
        for stops in [vec![1], vec![5, 8], vec![7, 11, 18], vec![14], vec![27]] {
            let parts = folder.path().join(format!("{stops:?}"));
            for (number, &stop) in stops.iter().chain([&usize::MAX]).enumerate() {
                let mut session = Session::new(device.clone());
                let mut trainer = demanding(&parts).resume(number > 0).on_step(move |event| {
                    let batches = (event.epoch as usize - 1) * 7 + event.batch;
                    Ok(if batches == stop { Control::Stop } else { Control::Continue })
                });
                let part = trainer.fit(&mut session, &noisy(&data), Some(&test)).expect("trains");
                if stop < usize::MAX {
                    let Ended::Interrupted(Some(checkpoint)) = &part.ended else { panic!("{:?}", part.ended) };
                    assert!(checkpoint.exists());
                    continue;
                }
                assert_eq!(part.epochs.len(), 4);
                for (part, whole) in part.epochs.iter().zip(&history.epochs) {
                    assert_eq!((part.loss, part.lr, part.steps), (whole.loss, whole.lr, whole.steps));
                    let metrics = |epoch: &wgrad::train::Epoch| {
                        let validation = epoch.validation.as_ref().expect("validation");
                        (validation.loss, validation.metrics.clone())
                    };
                    assert_eq!(metrics(part), metrics(whole));
                }
                assert_eq!(log(&parts), log(&whole), "{stops:?}");
                let mut uninterrupted = Session::new(device.clone());
                let mut again = demanding(&whole).resume(true);
                again.fit(&mut uninterrupted, &noisy(&data), Some(&test)).expect("loads the last checkpoint");
                assert_eq!(state(&session), state(&uninterrupted), "{stops:?}");
            }
        }
    }
}

#[test]
fn a_training_that_ends_within_an_epoch_takes_the_other_batches_when_it_is_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, test) = (rows(16, 14), rows(8, 15));
    let train = |run: &str, steps: u64| {
        let mut session = Session::new(Device::cpu());
        let trainer = Trainer::new(&model(), squares).lr(0.02).epochs(4).steps(steps).batch(4);
        let mut trainer = trainer.folder(folder.path().join(run)).metrics([Metric::Mae]).resume(true).quiet();
        let history = trainer.fit(&mut session, &data, Some(&test)).expect("trains");
        let epochs = history.epochs.iter().map(|epoch| (epoch.number, epoch.steps, epoch.loss));
        (state(&session), epochs.collect::<Vec<_>>())
    };
    let whole = train("whole", 10);
    // The third epoch has two of its four batches.
    assert_eq!(whole.1.iter().map(|epoch| epoch.1).collect::<Vec<_>>(), [4, 8, 10]);
    assert_eq!(train("whole", 10), whole, "resumed after its end");
    let part = train("parts", 5);
    assert_eq!(part.1.iter().map(|epoch| epoch.1).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(train("parts", 10), whole);
    let logs = ["whole", "parts"].map(|run| log(&folder.path().join(run)));
    assert_eq!(logs[0].iter().filter(|line| !line.contains(r#""kind":"end""#)).count(), 13);
    let without_ends =
        logs.map(|log| log.into_iter().filter(|line| !line.contains(r#""kind":"end""#)).collect::<Vec<_>>());
    assert_eq!(without_ends[0], without_ends[1]);
}

#[test]
fn other_settings_are_refused_and_damaged_checkpoints_are_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, run) = (rows(12, 4), folder.path().join("run"));
    let trainer = || Trainer::new(&model(), squares).batch(4).folder(&run).quiet();
    let mut session = Session::new(Device::cpu());
    trainer().epochs(2).fit(&mut session, &data, None).expect("trains");
    let other = trainer().batch(6).resume(true).fit(&mut Session::new(Device::cpu()), &data, None).unwrap_err();
    let other = other.to_string();
    assert!(other.contains("batch is 6, and was 4") && other.contains("another folder"), "{other}");
    // The newest checkpoint is cut off.
    let mut files: Vec<_> = std::fs::read_dir(run.join("checkpoints")).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-"));
    files.sort();
    let bytes = std::fs::read(files.last().unwrap()).unwrap();
    std::fs::write(files.last().unwrap(), &bytes[..bytes.len() / 2]).unwrap();
    let mut resumed = Session::new(Device::cpu());
    let history =
        trainer().epochs(3).resume(true).fit(&mut resumed, &data, None).expect("resumes from the first epoch");
    assert_eq!(history.epochs.len(), 3);
    let mut whole = Session::new(Device::cpu());
    Trainer::new(&model(), squares).batch(4).epochs(3).quiet().fit(&mut whole, &data, None).expect("trains");
    assert_eq!(state(&resumed), state(&whole));
    // Without resume, nothing is overwritten.
    trainer().epochs(1).fit(&mut Session::new(Device::cpu()), &data, None).expect("trains");
    assert!(folder.path().join("run.1/metrics.jsonl").exists());
    assert_eq!(log(&run).iter().filter(|line| line.contains("epoch\"")).count(), 4);
}

#[test]
fn the_best_weights_are_restored_and_a_training_without_progress_ends() {
    let (data, test) = (rows(16, 5), rows(8, 6));
    for folder in [None, Some(tempfile::tempdir().expect("a folder"))] {
        let mut session = Session::new(Device::cpu());
        // The rate is so high that the loss grows.
        let mut trainer = Trainer::new(&model(), squares)
            .optimizer(Sgd::new())
            .lr(3.0)
            .epochs(50)
            .batch(16)
            .metrics([Metric::Rmse])
            .early_stopping(3)
            .reduce_on_plateau(0.5, 2)
            .restore_best()
            .quiet();
        if let Some(folder) = &folder {
            trainer = trainer.folder(folder.path().join("run"));
        }
        let history = trainer.fit(&mut session, &data, Some(&test)).expect("trains");
        assert_eq!(history.ended, Ended::EarlyStopping(3));
        let best = history.best_epoch().expect("an epoch");
        assert_eq!(history.epochs.len() as u64, best.number + 3);
        let least = history.epochs.iter().map(|e| e.validation.as_ref().unwrap().loss).fold(f64::INFINITY, f64::min);
        let validation = best.validation.as_ref().expect("validation");
        assert_eq!(validation.loss, least);
        assert!((validation.get("rmse").unwrap() - validation.loss.sqrt()).abs() < 1e-12);
        assert_eq!(trainer.evaluate(&mut session, &test).expect("evaluates").loss, least);
        // The rate is halved after two epochs without an improvement.
        let last = history.epochs.last().unwrap();
        assert_eq!((history.epochs[0].lr, last.lr), (Some(3.0), Some(1.5)));
    }
}

#[test]
fn a_diverging_training_names_the_step_and_the_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let (x, y) = rows(12, 7);
    let mut session = Session::new(Device::cpu());
    // The logarithm of a negative number, in the second epoch only: the batches of an epoch are known by their steps.
    let data = (x, y).map(|mut batch, step| {
        let sign = if step >= 4 { -1.0f32 } else { 1.0 };
        batch.insert("scale".into(), Tensor::new([1], [sign])?);
        Ok(batch)
    });
    let build = |nn: &Scope, batch: &wgrad::train::Inputs| {
        let p = network(nn, &batch.get("x")) + batch.get("scale").log();
        Step { loss: squares(&p, &batch.get("y")), prediction: None }
    };
    let run = folder.path().join("run");
    let mut trainer = Trainer::of(build).lr(0.01).batch(4).folder(&run).quiet();
    let error = trainer.fit(&mut session, &data, None).unwrap_err().to_string();
    for part in ["the loss of epoch 2, batch 2 is NaN", "log", "train.rs", "last good checkpoint", "clip_norm"] {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
    // The session has the weights after the first epoch.
    let mut first = Session::new(Device::cpu());
    let mut trainer = Trainer::of(build).lr(0.01).batch(4).epochs(1).quiet();
    trainer.fit(&mut first, &data, None).expect("trains");
    assert_eq!(state(&session), state(&first));
    // Without a folder, there is no checkpoint.
    let mut trainer = Trainer::of(build).lr(0.01).batch(4).quiet();
    let error = trainer.fit(&mut Session::new(Device::cpu()), &data, None).unwrap_err().to_string();
    assert!(error.contains("epoch 2, batch 2") && error.contains("there is no checkpoint"), "{error}");
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    let (x, y) = rows(16, 8);
    let data = (x, y);
    let train = |batch: usize, accumulate: usize| {
        let mut session = Session::new(Device::cpu());
        let plain = Model::new([3], |nn: &Scope, x: &Value| nn.linear("fc", &nn.linear("fc1", x, 4).tanh(), 1));
        let trainer = Trainer::new(&plain, squares).optimizer(Sgd::new().momentum(0.9)).lr(0.1).epochs(2);
        let mut trainer = trainer.batch(batch).accumulate(accumulate).shuffle(false).quiet();
        let history = trainer.fit(&mut session, &data, None).expect("trains");
        (session.get("fc1.weight").unwrap().to_f64(), history.epochs[1].steps)
    };
    let ((large, steps), (small, same)) = (train(8, 1), train(2, 4));
    assert_eq!((steps, same), (4, 4));
    for (a, b) in large.iter().zip(&small) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }
}

#[test]
fn an_accumulated_step_updates_running_statistics_once_per_batch() {
    let data = rows(16, 8);
    let train = |accumulate: usize| {
        let mut session = Session::new(Device::cpu());
        let model = Model::new([3], |nn: &Scope, x: &Value| nn.linear("fc", &nn.batch_norm("bn", x), 1));
        let trainer = Trainer::new(&model, squares).lr(0.0).epochs(1).batch(4).accumulate(accumulate);
        trainer.quiet().fit(&mut session, &data, None).expect("trains");
        session.get("bn.running_mean").unwrap().to_f64()
    };
    assert_eq!(train(1), train(3));
    assert!(train(1).iter().all(|mean| *mean != 0.0));
}

#[test]
fn predictions_of_any_number_of_rows_are_those_of_each_row() {
    for device in common::devices() {
        let mut session = Session::new(device);
        let mut model = model().batch(4);
        let x = rows(11, 9).0;
        let all = model.predict(&mut session, &x).expect("predicts").to_f32();
        assert_eq!(all.len(), 11);
        for count in [1, 3, 4, 5, 8] {
            let some = model.predict(&mut session, &x.slice(0, 0..count).unwrap()).expect("predicts").to_f32();
            for (some, all) in some.iter().zip(&all) {
                assert!((some - all).abs() <= 1e-6, "{count} rows: {some} {all}");
            }
        }
        let error = model.predict(&mut session, &Tensor::new([2, 4], [0.0f32; 8]).unwrap()).unwrap_err().to_string();
        assert!(error.contains("expected rows f32[n, 3]") && error.contains("f32[2, 4]"), "{error}");
    }
}

#[test]
fn mixed_precision_averages_and_groups_train() {
    let Some(device) = common::device() else { return };
    let (data, test) = (rows(64, 10), rows(32, 11));
    let plain = Model::new([3], |nn: &Scope, x: &Value| nn.linear("fc2", &nn.linear("fc1", x, 16).tanh(), 1));
    let fit = |change: fn(Trainer) -> Trainer| {
        let mut session = Session::new(device.clone());
        let trainer = change(Trainer::new(&plain, squares).lr(0.02).epochs(15).batch(16).quiet());
        let mut trainer = trainer;
        let history = trainer.fit(&mut session, &data, Some(&test)).expect("trains");
        (history.epochs[0].validation.as_ref().unwrap().loss, history.epochs[14].validation.as_ref().unwrap().loss)
    };
    let (_, f32) = fit(|t| t);
    for (name, change) in [
        ("f16", (|t| t.mixed(DType::F16)) as fn(Trainer) -> Trainer),
        ("bf16", |t| t.mixed(DType::BF16)),
        ("averages", |t| t.average(0.8)),
        ("f16, accumulated", |t| t.mixed(DType::F16).accumulate(2).batch(8)),
        ("groups", |t| {
            t.update(|graph, gradients| {
                let (weights, others): (Vec<_>, Vec<_>) =
                    gradients.iter().cloned().partition(|g| g.name.ends_with("weight"));
                AdamW::new().weight_decay(1e-4).apply(graph, &weights);
                Adam::new().lr_factor(0.5).apply(graph, &others);
            })
        }),
    ] {
        let (first, last) = fit(change);
        assert!(last < 0.6 * first && last < 2.0 * f32 + 0.01, "{name}: {first} to {last}; f32: {f32}");
    }
}

#[test]
fn a_missing_tensor_is_reported_with_the_line_that_asks_for_it() {
    let data = rows(8, 12);
    let fit = |trainer: Trainer, data: &dyn Dataset| {
        let mut trainer = trainer.quiet();
        trainer.fit(&mut Session::new(Device::cpu()), data, None).unwrap_err().to_string()
    };
    static LINE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let build = |nn: &Scope, batch: &wgrad::train::Inputs| {
        let (loss, line) = (batch.get("absent").mean_all(), line!());
        LINE.store(line, std::sync::atomic::Ordering::Relaxed);
        Step { loss: loss + nn.linear("fc", &batch.get("x"), 1).mean_all(), prediction: None }
    };
    let error = fit(Trainer::of(build), &data);
    let line = LINE.load(std::sync::atomic::Ordering::Relaxed);
    assert!(error.contains(&format!("train.rs:{line}")) && error.contains("it has x, y"), "{error}");
}

#[test]
fn a_time_budget_ends_the_training() {
    let slow = FromFn::new(8, |rows: &[usize], _| -> Result<Batch> {
        std::thread::sleep(Duration::from_millis(5));
        self::rows(8, 13).batch(rows, 0)
    });
    let mut trainer = Trainer::new(&model(), squares).epochs(10_000).batch(2);
    trainer = trainer.time_budget(Duration::from_millis(100)).quiet();
    let history = trainer.fit(&mut Session::new(Device::cpu()), &slow, None).expect("trains");
    assert_eq!(history.ended, Ended::TimeBudget);
    assert!((1..100).contains(&history.epochs.len()), "{}", history.epochs.len());
    // The device waits for the data nearly all the time.
    assert!(history.epochs[0].waiting > 0.2, "{}", history.epochs[0].waiting);
}

#[test]
fn batches_come_in_order_whatever_the_number_of_threads() {
    let data = FromFn::new(100, |rows: &[usize], step| {
        // Earlier batches take longer.
        std::thread::sleep(Duration::from_micros(if step % 3 == 0 { 2000 } else { 10 }));
        let x: Vec<f32> = rows.iter().map(|&row| row as f32 + 1000.0 * step as f32).collect();
        Ok(Batch::from([("x".into(), Tensor::new([rows.len()], x)?)]))
    });
    let epoch = |workers: usize, first: usize| {
        let loader = Loader::new(&data, Batches::new(100, 7).unwrap().shuffled(3)).workers(workers);
        let mut seen = Vec::new();
        loader
            .epoch(2, first, |batch| {
                assert_eq!(batch.number, first + seen.len());
                seen.push(batch.tensors["x"].to_f32());
                Ok(ControlFlow::Continue(()))
            })
            .expect("runs");
        seen
    };
    let all = epoch(0, 0);
    assert_eq!(all.len(), 15);
    assert_eq!(all[14].len(), 2);
    for workers in [1, 2, 5] {
        assert_eq!(epoch(workers, 0), all);
        assert_eq!(epoch(workers, 6), all[6..]);
    }
}

#[test]
fn errors_and_panics_of_data_end_an_epoch() {
    let made = Mutex::new(Vec::new());
    let data = FromFn::new(100, |rows: &[usize], step| {
        made.lock().unwrap().push(step);
        match step {
            5 => Err(wgrad::Error::Input("row 5 is broken".into())),
            8 => panic!("no such file"),
            _ => Tensor::new([rows.len()], vec![0.0f32; rows.len()]).map(|x| Batch::from([("x".into(), x)])),
        }
    });
    for workers in [0, 3] {
        let loader = Loader::new(&data, Batches::new(100, 1).unwrap()).workers(workers);
        let mut seen = 0;
        let mut count = |_| {
            seen += 1;
            Ok(ControlFlow::Continue(()))
        };
        assert_eq!(loader.epoch(0, 0, &mut count).unwrap_err().to_string(), "row 5 is broken");
        let error = loader.epoch(0, 6, &mut count).unwrap_err().to_string();
        assert!(error.contains("batch 8 of epoch 0 panicked: no such file"), "{error}");
        assert_eq!(seen, 7);
        // Breaking off ends the workers; the queue is bounded.
        made.lock().unwrap().clear();
        loader.epoch(0, 9, |_| Ok(ControlFlow::Break(()))).expect("ends");
        assert!(made.lock().unwrap().iter().all(|&step| step < 9 + 1 + 2 * 3 + 3), "{made:?}");
    }
}

#[test]
fn metrics_of_classes_are_those_of_their_definitions() {
    // Predicted classes 0, 1, 2, 1, 2, 0 for the targets 0, 1, 2, 2, 2, 1.
    let logits = [3, 1, 2, 1, 3, 2, 1, 2, 3, 1, 3, 2, 2, 1, 3, 3, 2, 1].map(|x| x as f32);
    let logits = Tensor::new([6, 3], logits.to_vec()).unwrap();
    let targets = Tensor::new([6], [0, 1, 2, 2, 2, 1]).unwrap();
    let metrics = [
        Metric::Accuracy,
        Metric::TopK(2),
        Metric::Precision,
        Metric::Recall,
        Metric::F1,
        Metric::Perplexity,
        Metric::mean_of("constant", true, |_, _| Ok(3.0)),
    ];
    let meter = |split: usize| {
        let mut meter = Meter::new(&metrics);
        for part in [0..split, split..6] {
            if !part.is_empty() {
                let rows = |x: &Tensor| x.slice(0, part.clone()).unwrap();
                meter.add(&rows(&logits), &rows(&targets)).expect("fits");
            }
        }
        meter.values().expect("defined")
    };
    let log_sum = (3f64.exp() + 2f64.exp() + 1f64.exp()).ln();
    let perplexity = (log_sum - (3.0 + 3.0 + 3.0 + 2.0 + 3.0 + 2.0) / 6.0).exp();
    let want = [
        ("accuracy", 4.0 / 6.0),
        ("top-2 accuracy", 1.0),
        ("precision", (0.5 + 0.5 + 1.0) / 3.0),
        ("recall", (1.0 + 0.5 + 2.0 / 3.0) / 3.0),
        ("f1", (2.0 / 3.0 + 0.5 + 0.8) / 3.0),
        ("perplexity", perplexity),
        ("constant", 3.0),
    ];
    for split in [6, 4, 1] {
        for ((name, got), (expected, want)) in meter(split).into_iter().zip(want) {
            assert_eq!(name, expected);
            assert!((got - want).abs() < 1e-12, "{name}: {got}, expected {want}");
        }
    }
    // Classes along axis 1 of pictures.
    let mut meter = Meter::new(&[Metric::Accuracy]);
    let pixels = Tensor::new([1, 2, 1, 3], [0.0f32, 5.0, 0.0, 1.0, 2.0, -1.0]).unwrap(); // classes 1, 0, 0
    meter.add(&pixels, &Tensor::new([1, 1, 3], [1, 0, 1]).unwrap()).expect("fits");
    assert_eq!(meter.values().unwrap()[0].1, 2.0 / 3.0);
    // One logit per target.
    let mut meter = Meter::new(&[Metric::Accuracy, Metric::Precision, Metric::Recall, Metric::RocAuc]);
    let logits = Tensor::new([4, 1], [0.5f32, -0.5, 1.0, -2.0]).unwrap();
    meter.add(&logits, &Tensor::new([4, 1], [1.0f32, 1.0, 0.0, 0.0]).unwrap()).expect("fits");
    let values: Vec<f64> = meter.values().unwrap().into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [0.5, 0.5, 0.5, 0.5]);
    assert_eq!(meter.confusion().unwrap().count(1, 0), 1);
}

#[test]
fn metrics_of_numbers_are_those_of_their_definitions() {
    let mut meter = Meter::new(&[Metric::Mae, Metric::Rmse, Metric::R2]);
    let column = |x: &[f32]| Tensor::new([x.len(), 1], x.to_vec()).unwrap();
    meter.add(&column(&[1.0, 2.0]), &column(&[1.0, 4.0])).expect("fits");
    meter.add(&column(&[7.0]), &column(&[7.0])).expect("fits");
    let values: Vec<f64> = meter.values().unwrap().into_iter().map(|(_, value)| value).collect();
    let want = [2.0 / 3.0, (4f64 / 3.0).sqrt(), 1.0 - 4.0 / 18.0];
    for (got, want) in values.iter().zip(want) {
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }
    let error = meter.add(&column(&[1.0]), &column(&[1.0, 2.0])).unwrap_err().to_string();
    assert!(error.contains("equally many elements"), "{error}");
    // NaN is not good.
    let mut meter = Meter::new(&[Metric::Accuracy, Metric::TopK(1)]);
    let nan = Tensor::new([4, 2], [f32::NAN, f32::NAN, f32::NAN, f32::NAN, f32::NAN, 1.0, 1.0, f32::NAN]).unwrap();
    meter.add(&nan, &Tensor::new([4], [0, 1, 0, 1]).unwrap()).expect("fits");
    assert!(meter.values().unwrap().iter().all(|(_, value)| *value == 0.0), "{:?}", meter.values());
}
