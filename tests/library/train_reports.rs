//! What a training leaves in its folder: norms and histograms, events for TensorBoard, the report.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};
use wgrad::optim::parameter_gradients;
use wgrad::prelude::*;
use wgrad::train::{Control, Metric, Model, Report, Trainer};

use crate::common;
use crate::train::{demanding, log, model, noisy, rows, squares, state};

/// The lines of a log of one kind.
fn lines(folder: &Path, kind: &str) -> Vec<Json> {
    let lines = log(folder).into_iter().map(|line| serde_json::from_str(&line).expect("JSON"));
    lines.filter(|line: &Json| line["kind"] == kind).collect()
}

#[test]
fn watching_changes_no_bit_of_a_training() {
    let (data, test) = (rows(27, 2), rows(9, 3));
    let folder = tempfile::tempdir().expect("a folder");
    for (number, device) in common::devices().into_iter().enumerate() {
        let plain = |folder: &Path| {
            let trainer = Trainer::new(&model(), squares).optimizer(AdamW::new()).lr(0.02).clip_norm(0.3).epochs(3);
            trainer.batch(8).average(0.9).folder(folder).quiet()
        };
        let narrow = |folder: &Path| plain(folder).mixed(DType::F16);
        type Make<'a> = &'a dyn Fn(&Path) -> Trainer;
        let ways: [(&str, Make<'_>, usize); 3] =
            [("plain", &plain, 6), ("accumulated", &demanding, 8), ("narrow", &narrow, 6)];
        for (name, make, watched) in ways {
            let folders = ["watched", "alone"].map(|part| folder.path().join(format!("{number} {name} {part}")));
            let run = |trainer: Trainer| {
                let mut session = Session::new(device.clone());
                { trainer }.fit(&mut session, &noisy(&data), Some(&test)).expect("trains");
                state(&session)
            };
            assert_eq!(run(make(&folders[0]).watch(2)), run(make(&folders[1])), "{name}");
            let norms = lines(&folders[0], "norms");
            assert_eq!(norms.len(), watched, "{name}");
            for kind in ["gradient", "weight", "update"] {
                let by_name = norms[1][kind].as_object().expect("norms by name");
                assert_eq!(by_name.keys().collect::<Vec<_>>(), ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]);
                assert!(by_name.values().all(|norm| norm.as_f64().unwrap() > 0.0), "{name} {kind}: {by_name:?}");
            }
            // All other lines are those of the training alone.
            let others = |folder: &Path| -> Vec<String> {
                log(folder)
                    .into_iter()
                    .filter(|line| !line.contains("norms\"") && !line.contains("weights\""))
                    .collect()
            };
            assert_eq!(others(&folders[0]), others(&folders[1]), "{name}");
        }
    }
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn norms_and_histograms_are_those_of_the_tensors() {
    let folder = tempfile::tempdir().expect("a folder");
    let (x, y) = rows(8, 4);
    let network = |nn: &Scope, x: &Value| nn.linear("fc2", &nn.linear("fc1", x, 8).tanh(), 1);
    for (number, device) in common::devices().into_iter().enumerate() {
        let run = folder.path().join(number.to_string());
        // Gradients by hand.
        let mut by_hand = Session::new(device.clone());
        let graph = Graph::new();
        let inputs = [graph.input("x", DType::F32, [8, 3]), graph.input("y", DType::F32, [8, 1])];
        let loss = squares(&network(&Scope::train(&graph, 0), &inputs[0]), &inputs[1]);
        let gradients = parameter_gradients(&graph, &loss);
        let values: Vec<&Value> = gradients.iter().map(|gradient| &gradient.value).collect();
        let program = by_hand.compile(&graph, &values).expect("compiles");
        let values = by_hand.run(&program, &[("x", &x), ("y", &y)]).expect("runs");
        let joint = norm(values.iter().flat_map(Tensor::to_f64));

        let mut session = Session::new(device);
        let trainer = Trainer::new(&Model::new([3], network), squares).optimizer(Sgd::new()).lr(0.5);
        let trainer = trainer.clip_norm(joint / 2.0).batch(8).epochs(1).shuffle(false).watch(3).folder(&run).quiet();
        { trainer }.fit(&mut session, &(x.clone(), y.clone()), None).expect("trains");
        let line = &lines(&run, "norms")[0];
        let close = |got: &Json, want: f64, what: &str| {
            let got = got.as_f64().unwrap_or(f64::NAN);
            assert!((got - want).abs() < 1e-5 * (want + 1e-3), "{what}: {got}, expected {want}");
        };
        for (gradient, value) in gradients.iter().zip(&values) {
            let (name, want) = (&gradient.name, norm(value.to_f64()));
            close(&line["gradient"][name], want, name);
            // Clipped to half.
            close(&line["update"][name], 0.25 * want, name);
            close(&line["weight"][name], norm(by_hand.get(name).unwrap().to_f64()), name);
            let weights = session.get(name).unwrap().to_f64();
            let histogram = &lines(&run, "weights")[0]["parameters"][name];
            let (least, most) = (
                weights.iter().copied().fold(f64::INFINITY, f64::min),
                weights.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            );
            close(&json!(histogram["max"].as_f64().unwrap() - least), most - least, name);
            close(&json!(histogram["min"].as_f64().unwrap() - least + 1.0), 1.0, name);
            let bins: Vec<u64> = histogram["bins"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
            assert_eq!((bins.len(), bins.iter().sum::<u64>()), (40, weights.len() as u64));
            let below = weights.iter().filter(|w| **w < least + (most - least) * 0.25).count() as u64;
            assert_eq!(bins[..10].iter().sum::<u64>(), below.max(u64::from(least == most)));
        }
    }
}

/// CRC-32C bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

/// The records of an event file.
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut at, mut found) = (0, Vec::new());
    let masked = |bytes: &[u8]| crc(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        assert_eq!(bytes[at + 8..at + 12], masked(&bytes[at..at + 8]));
        let record = &bytes[at + 12..at + 12 + length];
        assert_eq!(bytes[at + 12 + length..at + 16 + length], masked(record));
        found.push(record.to_vec());
        at += 16 + length;
    }
    found
}

/// A field's number with its varint (as bytes) or bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let end = bytes.iter().position(|byte| byte & 0x80 == 0).expect("an end");
        let value = bytes[..=end].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
        *bytes = &bytes[end + 1..];
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            _ => 4,
        };
        found.push((key >> 3, bytes[..length].to_vec()));
        bytes = &bytes[length..];
    }
    found
}

/// Step, tag and number of all scalars, and the tags of histograms with their number of elements.
fn scalars(records: &[Vec<u8>]) -> Vec<(u64, String, f64)> {
    let mut found = Vec::new();
    for record in records {
        let event = fields(record);
        let get = |fields: &[(u64, Vec<u8>)], number: u64| fields.iter().find(|f| f.0 == number).map(|f| f.1.clone());
        let step = get(&event, 2).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        for (_, value) in fields(&get(&event, 5).unwrap_or_default()) {
            let value = fields(&value);
            let number = match (get(&value, 2), get(&value, 5)) {
                (Some(scalar), _) => f64::from(f32::from_le_bytes(scalar.try_into().unwrap())),
                (_, histogram) => f64::from_le_bytes(get(&fields(&histogram.unwrap()), 3).unwrap().try_into().unwrap()),
            };
            found.push((step, String::from_utf8(get(&value, 1).unwrap()).unwrap(), number));
        }
    }
    found
}

#[test]
fn tensorboard_gets_the_numbers_of_the_log() {
    assert_eq!(crc(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    assert_eq!(crc(&[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
    let folder = tempfile::tempdir().expect("a folder");
    let (data, test) = (rows(27, 2), rows(9, 3));
    let run = folder.path().join("run");
    let stopping = |stop: usize, resume: bool| {
        let trainer = demanding(&run).tensorboard().watch(4).resume(resume).on_step(move |event| {
            let batches = (event.epoch as usize - 1) * 7 + event.batch;
            Ok(if batches == stop { Control::Stop } else { Control::Continue })
        });
        { trainer }.fit(&mut Session::new(Device::cpu()), &noisy(&data), Some(&test)).expect("trains");
    };
    stopping(9, false);
    stopping(usize::MAX, true);
    let mut files: Vec<_> = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
    files.sort();
    let files: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(files.len(), 2);
    // The length of the first record and its checksum, as in any file that TensorFlow writes.
    assert_eq!(files[0][..12], *b"\x18\0\0\0\0\0\0\0\xa3\x7fK\"");
    let [before, after] = [&files[0], &files[1]].map(|file| records(file));
    assert_eq!(fields(&before[0])[1], (3, b"brain.Event:2".to_vec()));
    // Interrupted after 10 batches, 5 steps: events from step 6 on are void.
    let start: Vec<_> = fields(&after[1]).into_iter().skip(1).collect();
    assert_eq!(start, [(2, 6u64.to_le_bytes().to_vec()), (7, vec![8, 1])]);

    let mut got: Vec<_> = scalars(&before).into_iter().filter(|(step, ..)| *step < 6).chain(scalars(&after)).collect();
    let mut want = Vec::new();
    for line in fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        let mut add = |tag: String, value: &Json| {
            want.push((line["step"].as_u64().unwrap(), tag, f64::from(value.as_f64().unwrap() as f32)));
        };
        match line["kind"].as_str().unwrap() {
            "step" => ["loss", "lr"].iter().for_each(|name| {
                add(if *name == "loss" { "loss/train".into() } else { "lr".into() }, &line[name]);
            }),
            "epoch" => {
                add("loss/epoch".into(), &line["loss"]);
                add("speed/rows per second".into(), &line["rows_per_second"]);
                add("speed/share of waiting".into(), &line["waiting"]);
                add("loss/validation".into(), &line["validation"]["loss"]);
                add("validation/mae".into(), &line["validation"]["mae"]);
            }
            "norms" => ["gradient", "weight", "update"].iter().for_each(|kind| {
                let norms = line[kind].as_object().unwrap();
                norms.iter().for_each(|(name, norm)| add(format!("norms/{kind}/{name}"), norm));
            }),
            "weights" => {
                let parameters = line["parameters"].as_object().unwrap();
                parameters.iter().for_each(|(name, histogram)| add(format!("weights/{name}"), &histogram["count"]));
            }
            other => assert_eq!(other, "end"),
        }
    }
    let key = |(step, tag, value): &(u64, String, f64)| (*step, tag.clone(), value.to_bits());
    got.sort_by_key(key);
    want.sort_by_key(key);
    assert!(want.len() > 100);
    assert_eq!(got, want);
}

/// The data within a page.
fn data(page: &str) -> Json {
    let (_, rest) = page.split_once("<script id=\"data\" type=\"application/json\">").expect("data");
    serde_json::from_str(rest.split_once("</script>").expect("an end").0).expect("JSON")
}

#[test]
fn a_report_shows_what_the_folders_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let (x, _) = rows(10, 5);
    let labels = Tensor::new([10], (0..10).map(|i| i % 3).collect::<Vec<i32>>()).unwrap();
    let classes = Model::new([3], |nn: &Scope, x: &Value| nn.linear("fc", x, 3));
    let runs = [0.1, 0.5].map(|lr| (lr, folder.path().join(format!("</script> & {lr}").replace('/', "\u{2215}"))));
    for (lr, run) in &runs {
        let trainer = Trainer::new(&classes, |logits, y| logits.cross_entropy(y, Reduction::Mean)).lr(*lr).epochs(3);
        let trainer = trainer.batch(4).monitor(Metric::Accuracy).watch(2).folder(run).quiet();
        let trainer = trainer.metadata("note", "</script><b>");
        let data = (x.clone(), labels.clone());
        { trainer }.fit(&mut Session::new(Device::cpu()), &data, Some(&data)).expect("trains");
        let page = fs::read_to_string(run.join("report.html")).expect("a report");
        assert_eq!(page.matches("</script>").count(), 2);
        // Nothing from outside: the only address is the name of SVG's elements.
        for outside in ["src=", "href=", "@import", "import(", "fetch(", "url(h"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("://").count(), page.matches("http://www.w3.org/2000/svg").count());
    }
    let report = Report::of(&[&runs[0].1, &runs[1].1]).expect("two runs");
    assert!(report.warnings().is_empty());
    let shown = data(&report.html());
    for ((lr, run), shown) in runs.iter().zip(shown["runs"].as_array().unwrap()) {
        assert_eq!(shown["steps"]["mean"].as_array().unwrap().len(), 9);
        assert_eq!(shown["steps"]["lr"][0], json!(lr));
        let losses: Vec<f64> = lines(run, "step").iter().map(|line| line["loss"].as_f64().unwrap()).collect();
        for (mean, loss) in shown["steps"]["mean"].as_array().unwrap().iter().zip(losses) {
            assert!((mean.as_f64().unwrap() - loss).abs() <= 1e-5 * loss);
        }
        let epochs = lines(run, "epoch");
        let accuracy = |epoch: &Json| epoch["validation"]["accuracy"].as_f64().unwrap();
        let best = epochs.iter().map(accuracy).fold(0.0, f64::max);
        let first = epochs.iter().find(|epoch| accuracy(epoch) == best).unwrap();
        assert_eq!(shown["best"], first["epoch"]);
        let last = shown["confusions"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["epoch"], &last["matrix"]), (&json!(3), &epochs[2]["validation"]["confusion"]));
        assert_eq!(shown["config"]["trainer"]["metadata"]["note"], "</script><b>");
        assert_eq!(shown["end"]["ended"], "finished");
        assert_eq!(shown["norms"]["gradient"]["fc.bias"].as_array().unwrap().len(), 5);
        assert_eq!(shown["weights"][2]["parameters"]["fc.weight"]["count"], 9);
    }
    // A partial last line is left out, any other damage is an error.
    let log = runs[0].1.join("metrics.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, format!("{text}{{\"kind\":\"st")).unwrap();
    let partial = Report::of(&[&runs[0].1]).expect("a killed run");
    assert!(partial.warnings()[0].contains("incomplete"), "{:?}", partial.warnings());
    fs::write(&log, text.replacen("\"loss\"", "\"loss", 1)).unwrap();
    let error = Report::of(&[&runs[0].1]).unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl: line 1 is damaged"), "{error}");
    for (path, why) in [(folder.path().to_owned(), "is no run"), (folder.path().join("missing"), "is no folder")] {
        let error = Report::of(&[&path]).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(Report::of(&[] as &[&Path]).is_err());
}

#[test]
fn what_needs_a_folder_says_so() {
    let data = rows(8, 1);
    let trainer = || Trainer::new(&model(), squares).quiet();
    for (trainer, name) in [(trainer().watch(1), "watch"), (trainer().tensorboard(), "tensorboard")] {
        let error = { trainer }.fit(&mut Session::new(Device::cpu()), &data, None).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("Trainer::folder"), "{error}");
    }
}

#[test]
fn a_report_describes_the_step_and_the_worst_predictions() {
    let folder = tempfile::tempdir().expect("a folder");
    let pixels: Vec<f32> = (0..12 * 6).map(|i| (i % 7) as f32 / 7.0).collect();
    let x = Tensor::new([12, 1, 2, 3], pixels).unwrap();
    let labels: Vec<i32> = (0..12).map(|i| i % 3).collect();
    let data = (x, Tensor::new([12], labels.clone()).unwrap());
    let mut model = Model::new([1, 2, 3], |nn: &Scope, x: &Value| {
        let x = nn.linear("fc1", &x.flatten(1), 5).relu();
        nn.linear("fc2", &x, 3)
    });
    for device in common::devices() {
        let mut session = Session::new(device.clone());
        let run = folder.path().join(device.to_string().replace('/', " "));
        let loss = |logits: &Value, y: &Value| logits.cross_entropy(y, Reduction::Mean);
        let trainer = Trainer::new(&model, loss).batch(4).epochs(2).metrics([Metric::Accuracy]);
        let mut trainer = trainer.folder(&run).quiet();
        if !device.is_cpu() {
            trainer.profile(&session, &data).expect("profiles");
        }
        trainer.fit(&mut session, &data, Some(&data)).expect("trains");
        let shown = data_of(&run);
        let step = &shown["description"];
        assert_eq!((&step["rows"], &step["layers"]["parameters"]), (&json!(4), &json!(7 * 5 + 6 * 3)));
        let layers = step["layers"]["rows"].as_array().unwrap();
        let fc2 = layers.iter().find(|row| row["layer"] == "fc2").expect("a layer");
        assert_eq!((&fc2["output"], &fc2["multiply_adds"]), (&json!("f32[4, 3]"), &json!(4 * 5 * 3)));
        assert_eq!(layers[fc2["inputs"][0].as_u64().unwrap() as usize]["layer"], "fc1");
        let calls = step["calls"].as_array().unwrap();
        assert!(calls.iter().any(|call| call["op"] == "matmul" && call["layer"] == "fc1"), "{calls:?}");
        let live = step["memory"]["live"].as_array().unwrap();
        assert_eq!(live.len(), calls.len());
        let peak = step["memory"]["peak"].as_u64().unwrap() as usize;
        let largest = step["memory"]["largest"].as_array().unwrap();
        let sum: u64 = largest.iter().map(|value| value["bytes"].as_u64().unwrap()).sum();
        assert!(largest.len() < 12 && Some(sum) == live[peak].as_u64(), "{largest:?} {live:?}");
        match step["profile"]["seconds"].as_array() {
            Some(seconds) => assert!(seconds.iter().all(|time| time.as_f64().unwrap() > 0.0), "{seconds:?}"),
            None => assert!(device.is_cpu()),
        }

        // The errors are those of the final weights, the worst first.
        let logits = model.predict(&mut session, &data.0).expect("predicts").to_f64();
        let error = |row: usize| {
            let row_logits = &logits[3 * row..3 * row + 3];
            row_logits.iter().map(|x| x.exp()).sum::<f64>().ln() - row_logits[labels[row] as usize]
        };
        let rows = shown["worst"]["rows"].as_array().unwrap();
        assert_eq!((rows.len(), &shown["worst"]["epoch"]), (12, &json!(2)));
        let errors: Vec<f64> = rows.iter().map(|row| row["error"].as_f64().unwrap()).collect();
        assert!(errors.is_sorted_by(|a, b| a >= b), "{errors:?}");
        let mut seen: Vec<usize> = rows.iter().map(|row| row["row"].as_u64().unwrap() as usize).collect();
        for (row, error_shown) in seen.iter().zip(&errors) {
            assert!((error(*row) - error_shown).abs() < 1e-5, "row {row}: {error_shown}, expected {}", error(*row));
        }
        let first = &rows[0];
        let target = (-errors[0]).exp();
        assert!((first["target_probability"].as_f64().unwrap() - target).abs() < 1e-9, "{first}");
        assert_eq!(first["target"], json!([f64::from(labels[seen[0]])]));
        let input = &first["input"];
        assert_eq!((&input["width"], &input["height"], &input["channels"]), (&json!(3), &json!(2), &json!(1)));
        let bytes: String = (0..6)
            .map(|i| ((seen[0] * 6 + i) % 7) as f64 / 7.0 * 255.0)
            .map(|x| format!("{:02x}", x.round() as u8))
            .collect();
        assert_eq!(input["pixels"], json!(bytes));
        seen.sort_unstable();
        assert_eq!(seen, (0..12).collect::<Vec<_>>());
    }
}

/// The data of a run's report.
fn data_of(run: &Path) -> Json {
    data(&fs::read_to_string(run.join("report.html")).expect("a report"))["runs"][0].clone()
}

#[test]
fn nan_is_the_worst_prediction() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("run");
    let x = Tensor::new([30, 1], (0..30).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let y = Tensor::new([30, 1], vec![0.0f32; 30]).unwrap();
    // sqrt(20 - x) is NaN for x above 20.
    let model = Model::new([1], |nn: &Scope, x: &Value| (-(x - 20.0)).sqrt() + nn.linear("fc", &(x * 0.0), 1) * 0.0);
    let numbers = Metric::mean_of("zero", true, |_, _| Ok(0.0));
    let train = (x.slice(0, 0..10).unwrap(), y.slice(0, 0..10).unwrap());
    let trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean)).epochs(1).batch(7).metrics([numbers]);
    let mut session = Session::new(Device::cpu());
    { trainer }.folder(&run).quiet().fit(&mut session, &train, Some(&(x, y))).expect("trains");
    let shown = data_of(&run);
    let rows = shown["worst"]["rows"].as_array().unwrap();
    let numbers: Vec<u64> = rows.iter().map(|row| row["row"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (21..30).chain(0..15).collect::<Vec<_>>());
    assert_eq!((&rows[0]["error"], &rows[9]["input"]["numbers"]), (&Json::Null, &json!([0.0])));
    assert!((rows[9]["error"].as_f64().unwrap() - 20.0).abs() < 1e-9, "{}", rows[9]);
}

/// The contrast of two colours by WCAG 2: `(L1 + 0.05) / (L2 + 0.05)` of the relative luminances.
fn contrast(a: &str, b: &str) -> f64 {
    let luminance = |color: &str| {
        let digits: String = match color.len() {
            4 => color[1..].chars().flat_map(|digit| [digit, digit]).collect(),
            _ => color[1..].to_owned(),
        };
        let channel = |at: usize| {
            let x = f64::from(u8::from_str_radix(&digits[at..at + 2], 16).expect("a colour")) / 255.0;
            if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn colours_of_reports_can_be_read() {
    assert!((contrast("#fff", "#000000") - 21.0).abs() < 1e-9);
    let style = format!("{}{}", wgrad::train::STYLE, include_str!("../../src/train/report/report.css"));
    let colors: std::collections::BTreeMap<&str, [&str; 2]> = style
        .split("--")
        .filter_map(|part| part.split_once(": light-dark("))
        .filter_map(|(name, rest)| {
            let (light, rest) = rest.split_once(", ")?;
            Some((name, [light, rest.split_once(')')?.0]))
        })
        .collect();
    let texts = ["text", "soft", "good", "bad", "c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
    for theme in 0..2 {
        for (text, ground) in texts.iter().flat_map(|text| ["page", "card", "code"].map(|ground| (text, ground))) {
            let found = contrast(colors[text][theme], colors[ground][theme]);
            assert!(found >= 4.5, "{text} on {ground}: {found:.2}, {}", ["light", "dark"][theme]);
        }
    }
}

#[test]
fn a_log_of_many_classes_stays_small() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("run");
    let (x, _) = rows(12, 5);
    let labels = Tensor::new([12], (0..12).map(|i| i * 8).collect::<Vec<i32>>()).unwrap();
    let model = Model::new([3], |nn: &Scope, x: &Value| nn.linear("fc", x, 100));
    let trainer = Trainer::new(&model, |logits, y| logits.cross_entropy(y, Reduction::Mean)).epochs(1);
    let data = (x, labels);
    let mut trainer = trainer.optimizer(AdamW::new().lr(0.25)).metrics([Metric::Accuracy]).folder(&run).quiet();
    trainer.fit(&mut Session::new(Device::cpu()), &data, Some(&data)).expect("trains");
    let epoch = lines(&run, "epoch").remove(0);
    let cells = epoch["validation"]["confusion"]["cells"].as_array().expect("cells");
    let counted: u64 = cells.iter().map(|cell| cell[2].as_u64().unwrap()).sum();
    assert!(counted == 12 && cells.len() <= 12 && cells.iter().all(|cell| cell[0].as_u64().unwrap() % 8 == 0));
    let shown = data_of(&run);
    let wrong: u64 = cells.iter().filter(|cell| cell[0] != cell[1]).map(|cell| cell[2].as_u64().unwrap()).sum();
    let errors = shown["confusions"][0]["errors"].as_array().unwrap();
    assert_eq!(errors.iter().map(|error| error[0].as_u64().unwrap()).sum::<u64>(), wrong);
    assert_eq!(shown["confusions"][0]["classes"], 100);
    // The optimiser's settings are on record.
    let optimizer = shown["config"]["trainer"]["optimizer"].as_str().unwrap();
    assert!(optimizer.starts_with("AdamW {") && optimizer.contains("0.25"), "{optimizer}");
}

#[test]
fn rows_of_another_shape_are_refused() {
    let model = Model::new([4], |nn: &Scope, x: &Value| nn.linear("fc", x, 1));
    let mut trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean)).quiet();
    let error = trainer.fit(&mut Session::new(Device::cpu()), &rows(8, 1), None).unwrap_err().to_string();
    assert!(error.contains("its rows have the shape [3], but the model was made for [4]"), "{error}");
    assert!(error.contains("train_reports.rs"), "{error}");
}
