//! Text and safetensors files as data sets. Needs no GPU.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use wgrad::Result;
use wgrad::data::{Batches, Fitted, TextLines, TextWindows, Vocabulary, read_text};
use wgrad::io::safetensors::{self, RowFile};
use wgrad::prelude::*;
use wgrad::train::{Dataset, Loader, Step, Trainer};

use super::train::{model, rows, squares, state};

fn save(path: &Path, tensors: &[(&str, Tensor)]) {
    let tensors = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
    safetensors::save(path, &tensors, &BTreeMap::new()).expect("saved");
}

fn refused<T>(result: Result<T>, part: &str) {
    let error = result.map(drop).expect_err(part).to_string();
    assert!(error.contains(part), "no `{part}` in {error}");
}

/// A tensor of each type with 7 rows.
fn tensors() -> Vec<(&'static str, Tensor)> {
    let f: Vec<f32> = (0..42).map(|i| i as f32 / 7.0 - 2.0).collect();
    let halves: Vec<half::f16> = f.iter().map(|&x| half::f16::from_f32(x)).collect();
    vec![
        ("f32", Tensor::new([7, 3, 2], f).unwrap()),
        ("f16", Tensor::new([7, 6], halves).unwrap()),
        ("i32", Tensor::new([7], [3, -1, 4, 1, -5, 9, 2]).unwrap()),
        ("u8", Tensor::new([7, 3], (0..21u8).collect::<Vec<_>>()).unwrap()),
        ("bool", Tensor::new([7], [true, false, true, true, false, false, true]).unwrap()),
        ("empty", Tensor::new([7, 0], Vec::<f32>::new()).unwrap()),
    ]
}

#[test]
fn rows_of_a_file_are_those_of_the_loaded_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    save(&path, &tensors());
    let file = RowFile::open(&path).expect("opens");
    assert_eq!((file.len(), file.is_empty()), (7, false));
    let loaded = safetensors::load(&path).unwrap();
    for numbers in [&[][..], &[6], &[0, 1, 2, 3, 4, 5, 6], &[5, 0, 5, 1, 6, 6, 2], &[3, 3]] {
        let expected: BTreeMap<_, _> =
            loaded.iter().map(|(name, tensor)| (name.clone(), tensor.rows(numbers).unwrap())).collect();
        assert_eq!(file.read(numbers).expect("reads"), expected, "{numbers:?}");
    }
    let some = RowFile::open_tensors(&path, &["u8", "i32"]).expect("opens");
    assert_eq!(some.read(&[1]).unwrap().into_keys().collect::<Vec<_>>(), ["i32", "u8"]);
    refused(file.read(&[2, 7]), "has 7 rows, and no row 7");
    refused(RowFile::open_tensors(&path, &["i32", "labels"]), "has no tensor `labels`");

    // From several threads, in the order of the batches.
    let loader = Loader::new(&file, Batches::new(7, 2).unwrap().shuffled(3)).workers(3);
    let mut seen = 0;
    let each = |batch: wgrad::train::Loaded| {
        assert_eq!(batch.tensors["f32"], loaded["f32"].rows(&batch.rows).unwrap());
        seen += batch.rows.len();
        Ok(ControlFlow::Continue(()))
    };
    loader.epoch(1, 0, each).unwrap();
    assert_eq!(seen, 7);
}

#[test]
fn files_without_common_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    save(&path, &[("a", Tensor::new([2], [1, 2]).unwrap()), ("b", Tensor::new([3], [1, 2, 3]).unwrap())]);
    refused(RowFile::open(&path), "tensor `b`: it has 3 rows, but `a` has 2");
    assert_eq!(RowFile::open_tensors(&path, &["b"]).expect("alone").len(), 3);
    save(&path, &[("scale", Tensor::scalar(1.0))]);
    refused(RowFile::open(&path), "tensor `scale`: it is a scalar");
    save(&path, &[]);
    refused(RowFile::open(&path), "no tensors to read rows from");
    std::fs::write(&path, "x,y\n1,2\n").unwrap();
    refused(RowFile::open(&path), "not a complete safetensors file");
    // A type that no tensor has.
    let header = br#"{"x":{"dtype":"C64","shape":[2],"data_offsets":[0,16]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 16]].concat();
    std::fs::write(&path, bytes).unwrap();
    refused(RowFile::open(&path), "tensor `x`: its elements are");
    // Cut while it is open; the rows before the cut can be read.
    save(&path, &[("x", Tensor::new([100, 50], vec![1.5f32; 5000]).unwrap())]);
    let file = RowFile::open(&path).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 200 * 50).unwrap();
    assert_eq!(file.read(&[49]).unwrap()["x"].to_f64(), [1.5; 50]);
    refused(file.read(&[99]), "data.safetensors");
}

#[test]
fn a_training_on_a_file_has_the_bits_of_one_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let data = rows(22, 1);
    save(&path, &[("x", data.0.clone()), ("y", data.1.clone())]);
    let fit = |data: &dyn Dataset, workers: usize| {
        let mut session = Session::new(Device::cpu());
        let mut trainer = Trainer::new(&model(), squares).epochs(2).batch(8).workers(workers).quiet();
        trainer.fit(&mut session, data, None).expect("trains");
        state(&session)
    };
    let file = RowFile::open(&path).unwrap();
    assert_eq!(fit(&file, 2), fit(&data, 0));
}

#[test]
fn windows_of_a_text_are_shifted_by_one() {
    let numbers: Vec<i32> = (0..11).collect();
    let of = |length, stride| TextWindows::new(&numbers, length).and_then(|windows| windows.stride(stride));
    for (length, stride, count) in [(3, 3, 3), (10, 1, 1), (5, 5, 2), (4, 1, 7), (1, 2, 5)] {
        let data = of(length, stride).expect("windows");
        assert_eq!(data.len(), count, "{length} {stride}");
        for row in 0..count {
            let batch = data.batch(&[row, 0], 0).unwrap();
            let window = |start: usize| (start..start + length).map(|i| i as f64);
            let start = row * stride;
            assert_eq!(batch["x"].to_f64(), window(start).chain(window(0)).collect::<Vec<_>>());
            assert_eq!(batch["y"].to_f64(), window(start + 1).chain(window(1)).collect::<Vec<_>>());
        }
        // No window is missing at the end.
        assert!((count - 1) * stride + length < 11 && count * stride + length >= 11);
        refused(data.batch(&[count], 0), &format!("no window {count}; the text has {count}"));
    }
    refused(of(11, 1), "windows of 11 characters or words and the next one do not fit a text of 11");
    refused(of(0, 1), "windows of 0");
    refused(of(2, 0), "stride of text windows must be at least 1");
}

#[test]
fn a_model_learns_a_text_by_its_windows() {
    let text = "abcabdabc".repeat(40);
    let vocabulary = Vocabulary::new([&text]);
    let size = vocabulary.len();
    let data = TextWindows::new(&vocabulary.encode(&text).unwrap(), 9).unwrap().stride(4).unwrap();
    let mut session = Session::new(Device::cpu());
    let history = Trainer::of(move |nn, batch| {
        let x = wgrad::nn::Embedding::new(nn, "embedding", size, 8).forward(&batch.get("x"));
        let gru = wgrad::nn::Recurrent::gru(nn, "gru", 8, 16, Default::default());
        let logits = nn.linear("out", &gru.states(&x, None).y, size).reshape(&[-1, size as isize]);
        let loss = logits.cross_entropy(&batch.get("y").reshape(&[-1]), Reduction::Mean);
        Step { loss, prediction: None }
    })
    .lr(0.03)
    .epochs(5)
    .batch(16)
    .quiet()
    .fit(&mut session, &data, None)
    .expect("trains");
    // Frequencies alone leave an entropy of 1.3 nats; what follows `ab` needs more than one character.
    assert!(history.epochs[4].loss < 0.4, "{history}");
}

#[test]
fn lines_become_padded_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.txt");
    std::fs::write(&path, "spam\tbuy now\r\n\n  \nham\tsee you\tsoon\nspam\tnow now now\n").unwrap();
    let lines = TextLines::load_labelled(&path).unwrap();
    assert_eq!(lines.texts, ["buy now", "see you\tsoon", "now now now"]);
    assert_eq!(
        (lines.labels.as_slice(), lines.classes.as_slice()),
        (&[1, 0, 1][..], &["ham".into(), "spam".into()][..])
    );
    let vocabulary = Vocabulary::words(&lines.texts, 3); // now, then buy and see before soon and you
    assert_eq!(vocabulary.tokens(), ["buy", "now", "see"]);
    let (x, y) = lines.encode(&vocabulary, 4).unwrap();
    assert_eq!(x, Tensor::new([3, 4], [1, 3, 4, 2, 1, 5, 6, 6, 1, 4, 4, 4]).unwrap()); // the last two are cut
    assert_eq!(y, Tensor::new([3], [1, 0, 1]).unwrap());
    let (x, y) = lines.encode_shifted(&vocabulary, 3).unwrap();
    assert_eq!(x, Tensor::new([3, 3], [1, 3, 4, 1, 5, 6, 1, 4, 4]).unwrap());
    assert_eq!(y, Tensor::new([3, 3], [3, 4, 2, 5, 6, 6, 4, 4, 4]).unwrap());

    std::fs::write(&path, "anna\n\nbo\n").unwrap();
    let lines = TextLines::load(&path).unwrap();
    assert_eq!(lines.texts, ["anna", "bo"]);
    refused(lines.encode(&vocabulary, 4), "there are 0 labels for 2 texts");
    refused(TextLines::load_labelled(&path), "lines.txt: line 1 has no label; expected a label, a tab");
    refused(TextLines::parse_labelled("a\tb\n \tc"), "line 2 has no label");
    std::fs::write(&path, b"anna\nb\xfc\n").unwrap();
    refused(TextLines::load(&path), "line 2 is not UTF-8");
    refused(read_text(folder.path().join("none.txt")), "none.txt");
}

#[test]
fn vocabularies_of_words_count_decode_and_are_stored() {
    let vocabulary = Vocabulary::words(["b a b", "c  b\ta"], 2);
    assert_eq!(
        (vocabulary.tokens(), vocabulary.len(), vocabulary.unknown()),
        (&["a".into(), "b".into()][..], 6, Some(5))
    );
    assert_eq!(vocabulary.encode(" b c\n a").unwrap(), [4, 5, 3]);
    assert_eq!(vocabulary.decode(&[1, 4, 5, 3, 2, 4]).unwrap(), "b <unk> a");
    assert!(vocabulary.decode(&[6]).is_err() && vocabulary.decode(&[-1]).is_err());
    refused(vocabulary.encode_rows(&["a b a"], 4), "has 3 words; with START and END");
    assert_eq!(Vocabulary::from_json(&vocabulary.to_json()).unwrap(), vocabulary);
    refused(Vocabulary::from_json(r#"{"kind": "vocabulary", "words": [1]}"#), "list of texts `words`");
    assert_eq!(Vocabulary::new(["ab"]).unknown(), None);
    // An error quotes the start of a long text only.
    let error = Vocabulary::new(["a"]).encode(&("a".repeat(5000) + "?")).unwrap_err().to_string();
    assert!(error.contains("'?', character 5001") && error.len() < 200, "{error}");
}
