//! Files in and out: safetensors, IDX, and what happens when they are damaged. Needs no GPU.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use wgrad::data::{Batches, Digits, Mnist, idx};
use wgrad::io::safetensors;
use wgrad::{Data, Error, Tensor};

const MNIST: &str = "examples/data/mnist10k";

fn tensors() -> BTreeMap<String, Tensor> {
    let tensor = |shape: &[usize], data: Data| Tensor::new(shape, data).unwrap();
    BTreeMap::from([
        ("f32".to_owned(), tensor(&[2, 2], [1.0f32, -0.0, f32::MIN_POSITIVE, f32::MAX].into())),
        ("f64".to_owned(), tensor(&[], [std::f64::consts::PI].into())),
        ("i32".to_owned(), tensor(&[3], [i32::MIN, 0, i32::MAX].into())),
        ("u32".to_owned(), tensor(&[1, 1, 2], [0, u32::MAX].into())),
        ("bool \"quoted\"\n".to_owned(), tensor(&[3], [true, false, true].into())),
        ("empty".to_owned(), tensor(&[0, 4], Vec::<f32>::new().into())),
    ])
}

/// A file with that header and so many bytes of data.
fn file(folder: &Path, header: &str, data: &[u8]) -> std::path::PathBuf {
    let path = folder.join("made.safetensors");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(&path, bytes).unwrap();
    path
}

/// The message of an error about a file's content, which names the file.
#[track_caller]
fn complaint<T>(result: wgrad::Result<T>, path: &Path) -> String {
    match result {
        Err(Error::File { path: named, message }) => {
            assert_eq!(named, path);
            message
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("was accepted"),
    }
}

#[test]
fn safetensors_travel_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned()), ("step".to_owned(), "7".to_owned())]);
    safetensors::save(&path, &tensors(), &metadata).unwrap();
    let back = safetensors::read(&path).unwrap();
    assert_eq!(back.tensors, tensors());
    assert_eq!(back.metadata, metadata);
    safetensors::save(&path, &BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert_eq!(safetensors::read(&path).unwrap(), safetensors::Contents::default());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    let reserved = BTreeMap::from([("__metadata__".to_owned(), Tensor::scalar(1.0))]);
    assert!(complaint(safetensors::save(&path, &reserved, &metadata), &path).contains("reserves"));
}

#[test]
fn every_truncation_and_every_flipped_byte_is_an_error_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    safetensors::save(&path, &tensors(), &BTreeMap::from([("k".to_owned(), "v".to_owned())])).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        complaint(safetensors::load(&path), &path);
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&path, longer).unwrap();
    complaint(safetensors::load(&path), &path);
    for at in 0..whole.len() {
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            fs::write(&path, damaged).unwrap();
            if safetensors::load(&path).is_err() {
                complaint(safetensors::load(&path), &path);
            }
        }
    }
}

#[test]
fn hostile_headers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |header: &str, data: &[u8]| {
        let path = file(folder.path(), header, data);
        complaint(safetensors::load(&path), &path)
    };
    let one = |dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#)
    };
    // More than the file holds, gaps, overlaps, sizes that do not match, overflows.
    assert!(refused(&one("F32", "[4611686018427387903]", 0, 18446744073709551612), &[]).contains("wrong"));
    assert!(refused(&one("F32", "[1000000000000]", 0, 4_000_000_000_000), &[]).contains("4000000000000 bytes, but 0"));
    refused(&one("F32", "[1]", 4, 8), &[0; 8]);
    refused(&one("F32", "[1]", 4, 0), &[0; 4]);
    refused(&one("F32", "[2]", 0, 4), &[0; 4]);
    refused(&one("F32", "[1]", 0, 4), &[0; 8]);
    refused(&one("F32", "[18446744073709551615, 2]", 0, 4), &[0; 4]);
    refused(&one("F32", "[-1]", 0, 4), &[0; 4]);
    // Eight halves of the address space, one after the other, sum up to beyond it.
    let eighth = 2_305_843_009_213_693_944u64;
    let many: Vec<String> = (0..8u64)
        .map(|i| {
            let (begin, end) = (i.wrapping_mul(eighth), (i + 1).wrapping_mul(eighth));
            format!(r#""{i}":{{"dtype":"U8","shape":[{eighth}],"data_offsets":[{begin},{end}]}}"#)
        })
        .collect();
    refused(&format!("{{{}}}", many.join(",")), &[0; 64]);
    // Not JSON, not an object, nested without end, not UTF-8.
    refused("", &[]);
    refused("[]", &[]);
    refused(&"[".repeat(100_000), &[]);
    refused(&format!(r#"{{"x":{}"#, "{\"a\":".repeat(100_000)), &[]);
    // Element types: unknown ones, integers that do not fit, bools that are none.
    assert!(refused(&one("F16", "[1]", 0, 2), &[0; 2]).contains("tensor `x`: its elements are F16"));
    assert!(refused(&one("I64", "[1]", 0, 8), &(1i64 << 31).to_le_bytes()).contains("2147483648 does not fit"));
    assert!(refused(&one("BOOL", "[2]", 0, 2), &[1, 2]).contains("not 2"));
    let path = file(folder.path(), &one("I64", "[2]", 0, 16), &[(-5i64).to_le_bytes(), 7i64.to_le_bytes()].concat());
    assert_eq!(safetensors::load(&path).unwrap()["x"], Tensor::new([2], [-5, 7]).unwrap());
    // A header's size beyond the file.
    for size in [9u64, 100_000_001, u64::MAX] {
        let path = folder.path().join("size");
        fs::write(&path, [&size.to_le_bytes()[..], &[b' '; 8]].concat()).unwrap();
        assert!(complaint(safetensors::load(&path), &path).contains("header"));
    }
    assert!(complaint(safetensors::load(folder.path()), folder.path()).contains("not a regular file"));
    assert!(matches!(safetensors::load(folder.path().join("none")), Err(Error::Io { .. })));
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    safetensors::save(&path, &tensors(), &BTreeMap::new()).unwrap();
    let before = fs::read(&path).unwrap();
    let reserved = BTreeMap::from([("__metadata__".to_owned(), Tensor::scalar(1.0))]);
    assert!(safetensors::save(&path, &reserved, &BTreeMap::new()).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(safetensors::save(folder.path(), &tensors(), &BTreeMap::new()).is_err());
    assert!(safetensors::save(folder.path().join("no/such/folder"), &tensors(), &BTreeMap::new()).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_saved_file_has_usual_permissions_and_links_stay_links() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::write(&real, "old").unwrap();
    let usual = fs::metadata(&real).unwrap().permissions().mode();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    safetensors::save(&link, &tensors(), &BTreeMap::new()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(safetensors::load(&real).unwrap(), tensors());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode(), usual);
}

#[test]
fn the_golden_files_load() {
    for name in ["ops", "train"] {
        let tensors = safetensors::load(format!("tests/golden/{name}.safetensors")).unwrap();
        assert!(tensors.len() > 100);
        assert!(tensors.values().all(|t| t.to_f64().iter().all(|x| x.is_finite())));
    }
}

#[test]
fn mnist_loads() {
    let mnist = Mnist::load(MNIST).unwrap();
    assert_eq!(mnist.train.images.ty().to_string(), "f32[8000, 1, 28, 28]");
    assert_eq!(mnist.test.labels.ty().to_string(), "i32[1000]");
    assert_eq!((mnist.train.len(), mnist.test.len()), (8000, 1000));
    let pixels = mnist.train.images.to_f32();
    assert!(pixels.iter().all(|x| (0.0..=1.0).contains(x)));
    assert!(pixels.contains(&1.0) && pixels.contains(&0.0));
    // The golden runs hold the first 160 images, divided by 255 as here.
    let golden = &safetensors::load("tests/golden/train.safetensors").unwrap()["cnn/x"];
    let first: Vec<usize> = (0..160).collect();
    let worst = mnist
        .train
        .images
        .rows(&first)
        .unwrap()
        .to_f64()
        .iter()
        .zip(golden.to_f64())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert!(worst < 1e-7, "{worst}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn idx_bytes(kind: u8, sizes: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

#[test]
fn idx_files_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let read = |bytes: &[u8], axes: u8| {
        fs::write(&path, bytes).unwrap();
        idx::read(&path, axes)
    };
    let good = idx_bytes(8, &[2, 3], &[1, 2, 3, 4, 5, 6]);
    for bytes in [good.clone(), gzip(&good)] {
        let (shape, elements) = read(&bytes, 2).unwrap();
        assert_eq!((&shape[..], &elements[..]), (&[2, 3][..], &[1, 2, 3, 4, 5, 6][..]));
        for length in 0..bytes.len() {
            let damaged = read(&bytes[..length], 2);
            complaint(damaged, &path);
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            if read(&damaged, 2).is_err() {
                complaint(read(&damaged, 2), &path);
            }
        }
    }
    assert!(complaint(read(&good, 3), &path).contains("begins with"));
    assert!(complaint(read(&idx_bytes(13, &[1], &[0; 4]), 1), &path).contains("begins with"));
    assert!(complaint(read(&idx_bytes(8, &[2], &[0; 3]), 1), &path).contains("more follow"));
    for bytes in [idx_bytes(8, &[u32::MAX; 3], &[0; 3]), idx_bytes(8, &[4], &[0; 3])] {
        assert!(complaint(read(&bytes, bytes[3]), &path).contains("can hold"));
        complaint(read(&gzip(&bytes), bytes[3]), &path);
    }
}

#[test]
fn digits_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
    let load = |sizes: &[u32], digits: &[u8]| {
        fs::write(&images, idx_bytes(8, sizes, &vec![0; sizes.iter().product::<u32>() as usize])).unwrap();
        fs::write(&labels, idx_bytes(8, &[digits.len() as u32], digits)).unwrap();
        Digits::load(&images, &labels)
    };
    assert_eq!(load(&[2, 28, 28], &[0, 9]).unwrap().len(), 2);
    assert!(load(&[0, 28, 28], &[]).unwrap().is_empty());
    assert!(complaint(load(&[2, 28, 28], &[0, 10]), &labels).contains("label 10 at position 1"));
    assert!(complaint(load(&[2, 28, 28], &[0]), &labels).contains("has 1 labels"));
    assert!(complaint(load(&[2, 28, 27], &[0, 1]), &images).contains("28 by 27"));
    let missing = Mnist::load(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("train-images-idx3-ubyte") && missing.contains(".gz"), "{missing}");
    // Plain files beside gzipped ones.
    for name in
        ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
    {
        let bytes = fs::read(Path::new(MNIST).join(format!("{name}.gz"))).unwrap();
        if name.starts_with("train") {
            fs::write(folder.path().join(format!("{name}.gz")), bytes).unwrap();
        } else {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut plain).unwrap();
            fs::write(folder.path().join(name), plain).unwrap();
        }
    }
    assert_eq!(Mnist::load(folder.path()).unwrap().test.images, Mnist::load(MNIST).unwrap().test.images);
}

#[test]
fn batches_cover_every_row_once_in_a_seeded_order() {
    assert!(Batches::new(5, 0).is_err());
    assert_eq!(Batches::new(0, 4).unwrap().epoch(0).count(), 0);
    for (rows, size) in [(1, 1), (10, 3), (9, 3), (2, 5), (1000, 64)] {
        let batches = Batches::new(rows, size).unwrap().shuffled(3);
        let epoch: Vec<Vec<usize>> = batches.epoch(1).collect();
        assert_eq!(epoch.len(), batches.count());
        assert!(epoch[..epoch.len() - 1].iter().all(|batch| batch.len() == size));
        let order = epoch.concat();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..rows));
        assert_eq!(order, batches.epoch(1).collect::<Vec<_>>().concat());
        if rows > 100 {
            assert_ne!(order, batches.epoch(2).collect::<Vec<_>>().concat());
            assert_ne!(order, batches.clone().shuffled(4).epoch(1).collect::<Vec<_>>().concat());
        }
    }
}

#[test]
fn rows_of_every_type() {
    for tensor in tensors().values() {
        match tensor.shape().first() {
            Some(&count) => {
                let all: Vec<usize> = (0..count).collect();
                assert_eq!(tensor.rows(&all).unwrap(), *tensor);
                assert_eq!(tensor.rows(&[]).unwrap().shape()[0], 0);
                assert!(tensor.rows(&[count]).is_err());
            }
            None => assert!(tensor.rows(&[]).is_err()),
        }
    }
}
