//! Reading and writing files: safetensors and IDX, valid and damaged. Needs no GPU.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use wgrad::data::{Batches, Digits, Mnist, idx};
use wgrad::io::safetensors;
use wgrad::{DType, Data, Device, Error, Graph, Session, Tensor};

const MNIST: &str = "examples/data/mnist10k";

fn tensors() -> BTreeMap<String, Tensor> {
    let tensor = |shape: &[usize], data: Data| Tensor::new(shape, data).unwrap();
    BTreeMap::from([
        ("f32".to_owned(), tensor(&[2, 2], [1.0f32, -0.0, f32::MIN_POSITIVE, f32::MAX].into())),
        ("f64".to_owned(), tensor(&[], [std::f64::consts::PI].into())),
        ("i32".to_owned(), tensor(&[3], [i32::MIN, 0, i32::MAX].into())),
        ("u32".to_owned(), tensor(&[1, 1, 2], [0, u32::MAX].into())),
        ("bool \"quoted\"\n".to_owned(), tensor(&[3], [true, false, true].into())),
        ("f16".to_owned(), tensor(&[3], vec![half::f16::MAX, half::f16::NEG_INFINITY, half::f16::from_bits(1)].into())),
        ("bf16".to_owned(), tensor(&[2], vec![half::bf16::MAX, half::bf16::NEG_ONE].into())),
        ("i8".to_owned(), tensor(&[3], [i8::MIN, 0, i8::MAX].into())),
        ("u8".to_owned(), tensor(&[5], [0u8, 1, 2, 3, u8::MAX].into())),
        ("empty".to_owned(), tensor(&[0, 4], Vec::<f32>::new().into())),
    ])
}

/// A safetensors file with this header and data.
fn file(folder: &Path, header: &str, data: &[u8]) -> std::path::PathBuf {
    let path = folder.join("made.safetensors");
    fs::write(&path, crate::common::safetensors_bytes(header, data)).unwrap();
    path
}

/// The message of an error about a file's content, which names the file.
#[track_caller]
pub fn complaint<T>(result: wgrad::Result<T>, path: &Path) -> String {
    match result {
        Err(Error::File { path: named, message }) => {
            assert_eq!(named, path);
            message
        }
        Err(other) => panic!("a different error: {other}"),
        Ok(_) => panic!("was accepted"),
    }
}

#[test]
fn safetensors_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned()), ("step".to_owned(), "7".to_owned())]);
    safetensors::save(&path, &tensors(), &metadata).unwrap();
    let back = safetensors::read(&path).unwrap();
    assert_eq!(back.tensors, tensors());
    assert_eq!(back.metadata, metadata);
    safetensors::save(&path, &BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert_eq!(safetensors::read(&path).unwrap(), safetensors::Contents::default());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
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
    // Data beyond the file, gaps, overlaps, mismatched sizes, overflows.
    assert!(refused(&one("F32", "[4611686018427387903]", 0, 18446744073709551612), &[]).contains("invalid header"));
    assert!(refused(&one("F32", "[1000000000000]", 0, 4_000_000_000_000), &[]).contains("4000000000000 bytes, but 0"));
    refused(&one("F32", "[1]", 4, 8), &[0; 8]);
    refused(&one("F32", "[1]", 4, 0), &[0; 4]);
    refused(&one("F32", "[2]", 0, 4), &[0; 4]);
    refused(&one("F32", "[1]", 0, 4), &[0; 8]);
    refused(&one("F32", "[18446744073709551615, 2]", 0, 4), &[0; 4]);
    refused(&one("F32", "[-1]", 0, 4), &[0; 4]);
    // Eight consecutive tensors with a total size of 2^64 - 64 bytes.
    let eighth = 2_305_843_009_213_693_944u64;
    let many: Vec<String> = (0..8u64)
        .map(|i| {
            let (begin, end) = (i.wrapping_mul(eighth), (i + 1).wrapping_mul(eighth));
            format!(r#""{i}":{{"dtype":"U8","shape":[{eighth}],"data_offsets":[{begin},{end}]}}"#)
        })
        .collect();
    refused(&format!("{{{}}}", many.join(",")), &[0; 64]);
    // Not JSON, not an object, deeply nested.
    refused("", &[]);
    refused("[]", &[]);
    refused(&"[".repeat(100_000), &[]);
    refused(&format!(r#"{{"x":{}"#, "{\"a\":".repeat(100_000)), &[]);
    // Unknown element types, integers that do not fit, invalid bools.
    assert!(refused(&one("F8_E4M3", "[1]", 0, 1), &[0]).contains("tensor `x`: its elements are F8_E4M3"));
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

/// The header has a fixed order, whatever order tensors and metadata are inserted in.
#[test]
fn equal_contents_give_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let texts = || (0..50).map(|i| (format!("counter.{}", i * 37 % 50), i.to_string()));
    let mut first = None;
    for _ in 0..8 {
        let metadata: std::collections::HashMap<String, String> = texts().collect();
        safetensors::save(&path, &tensors(), &metadata.into_iter().collect()).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(first.get_or_insert_with(|| bytes.clone()) == &bytes, "different bytes for the same contents");
    }
    let back = safetensors::read(&path).unwrap();
    assert_eq!((back.tensors, back.metadata), (tensors(), texts().collect()));
    // The header is padded so that the elements, widest type first, are aligned.
    let bytes = first.unwrap();
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
}

/// Loads a tensor with this element type.
fn loaded(dtype: &str, bytes: &[u8], width: usize) -> wgrad::Result<Tensor> {
    let folder = tempfile::tempdir().unwrap();
    let count = bytes.len() / width;
    let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{}]}}}}"#, bytes.len());
    let path = file(folder.path(), &header, bytes);
    safetensors::load(path).map(|tensors| tensors["x"].clone())
}

/// Every 16-bit float, compared with the definition of its format.
#[test]
fn f16_and_bf16_are_read_exactly() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (dtype, fraction, bias) in [("F16", 10, 15), ("BF16", 7, 127)] {
        let tensor = loaded(dtype, &all, 2).unwrap();
        assert_eq!(tensor.dtype().name(), dtype.to_lowercase());
        let values = tensor.to_f64();
        assert_eq!(values.len(), 1 << 16);
        for (bits, got) in (0..=u16::MAX).zip(values) {
            let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
            let exponent = i32::from(bits << 1 >> (fraction + 1));
            let part = f64::from(bits & ((1 << fraction) - 1)) / f64::from(1 << fraction);
            let (least, most) = (1 - bias, 2 * bias + 1);
            let want = match exponent {
                0 => part * f64::from(least).exp2(),
                e if e == most && part == 0.0 => f64::INFINITY,
                e if e == most => f64::NAN,
                e => (1.0 + part) * f64::from(e - bias).exp2(),
            };
            let want = sign * want;
            let same = if want.is_nan() { got.is_nan() } else { got == want && got.is_sign_negative() == (sign < 0.0) };
            assert!(same, "{dtype} {bits:#06x} is {got}, expected {want}");
        }
    }
}

#[test]
fn integers_of_other_widths_become_32_bits_if_they_fit() {
    let i32s = |values: &[i32]| Tensor::new([values.len()], values).unwrap();
    assert_eq!(loaded("I8", &[0x80, 0xff, 0x7f], 1).unwrap(), Tensor::new([3], [-128i8, -1, 127]).unwrap());
    assert_eq!(loaded("U8", &[0, 0x80, 0xff], 1).unwrap(), Tensor::new([3], [0u8, 128, 255]).unwrap());
    assert_eq!(loaded("I16", &[0, 0x80, 0xff, 0x7f], 2).unwrap(), i32s(&[-32_768, 32_767]));
    assert_eq!(loaded("U16", &[0, 0x80, 0xff, 0xff], 2).unwrap(), i32s(&[32_768, 65_535]));
    let wide = |values: &[i64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let ends = [i32::MIN, -1, i32::MAX];
    assert_eq!(loaded("I64", &wide(&ends.map(i64::from)), 8).unwrap(), i32s(&ends));
    let whole = loaded("U64", &wide(&[0, 1 << 31, 0xffff_ffff]), 8).unwrap();
    assert_eq!(whole, Tensor::new([3], [0u32, 1 << 31, u32::MAX]).unwrap());
    for (dtype, value, says) in [
        ("I64", 1 << 31, "tensor `x`: 2147483648 does not fit i32"),
        ("I64", -(1 << 31) - 1, "tensor `x`: -2147483649 does not fit i32"),
        ("U64", 1 << 32, "tensor `x`: 4294967296 does not fit u32"),
        ("U64", -1, "tensor `x`: 18446744073709551615 does not fit u32"),
    ] {
        let error = loaded(dtype, &wide(&[7, value]), 8).unwrap_err().to_string();
        assert!(error.ends_with(says), "{error}");
    }
    assert_eq!(loaded("F64", &wide(&[1.5f64.to_bits() as i64]), 8).unwrap(), Tensor::new([1], [1.5f64]).unwrap());
}

/// Weights of any float type go into variables of any other, if they fit.
#[test]
fn narrow_variables_are_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let (path, weights) = (folder.path().join("checkpoint"), folder.path().join("weights"));
    let numbers = Tensor::new([3], [1.0f32, -2.5, 0.1]).unwrap();
    for device in [Some(Device::cpu()), Device::gpu().ok()].into_iter().flatten() {
        let session = |dtype: DType, initial: &Tensor| {
            let graph = Graph::new();
            graph.parameter("w", initial.cast(dtype));
            let mut session = Session::new(device.clone());
            session.compile(&graph, &[]).unwrap();
            (graph, session)
        };
        for dtype in [DType::F16, DType::BF16] {
            let (graph, saved) = session(dtype, &numbers);
            saved.save(&path).unwrap();
            saved.save_weights(&weights, &graph).unwrap();
            assert_eq!(safetensors::load(&weights).unwrap()["w"], numbers.cast(dtype));
            let zeros = Tensor::zeros(&numbers.ty());
            let (_, mut again) = session(dtype, &zeros);
            again.load(&path).unwrap();
            assert_eq!(again.get("w").unwrap(), numbers.cast(dtype), "a checkpoint keeps the bits");
            let (graph, mut wide) = session(DType::F32, &zeros);
            wide.load_weights(&weights, &graph).unwrap();
            assert_eq!(wide.get("w").unwrap().to_f64(), numbers.cast(dtype).to_f64());
            wide.set("w", &numbers).unwrap();
            wide.save_weights(&weights, &graph).unwrap();
            let (graph, mut narrow) = session(dtype, &zeros);
            narrow.load_weights(&weights, &graph).unwrap();
            assert_eq!(narrow.get("w").unwrap(), numbers.cast(dtype), "rounded once");
        }
        let (graph, mut wide) = session(DType::F32, &numbers);
        wide.set("w", &Tensor::new([3], [1.0f32, 70000.0, 0.0]).unwrap()).unwrap();
        wide.save_weights(&weights, &graph).unwrap();
        let (graph, mut narrow) = session(DType::F16, &numbers);
        let why = complaint(narrow.load_weights(&weights, &graph), &weights);
        assert!(why.contains("tensor `w`: 7e4 does not fit f16"), "{why}");
        assert_eq!(narrow.get("w").unwrap(), numbers.cast(DType::F16), "unchanged");
    }
}

/// Element types that other frameworks save are converted to the variables' types.
#[test]
fn a_session_loads_other_element_types() {
    let folder = tempfile::tempdir().unwrap();
    let graph = Graph::new();
    graph.parameter("w", Tensor::new([2], [0.0f32, 0.0]).unwrap());
    graph.variable("signed", Tensor::new([2], [0, 0]).unwrap());
    graph.variable("unsigned", Tensor::new([2], [0u32, 0]).unwrap());
    let header = |w: &str, signed: &str, unsigned: &str| {
        let (mut at, mut entries, mut data) = (0, Vec::new(), Vec::new());
        for (name, dtype) in [("w", w), ("signed", signed), ("unsigned", unsigned)] {
            let bytes: Vec<u8> = match dtype {
                "F16" => vec![0x00, 0x3c, 0x00, 0xc1],  // 1, -2.5
                "BF16" => vec![0x80, 0x3f, 0x20, 0xc0], // the same
                "F64" => [1.0, -2.5].into_iter().flat_map(f64::to_le_bytes).collect(),
                "F64 huge" => [1.0, 1e39].into_iter().flat_map(f64::to_le_bytes).collect(),
                "U8" => vec![3, 200],
                "I16" => vec![3, 0, 200, 0],
                "I64" => [3, 200].into_iter().flat_map(i64::to_le_bytes).collect(),
                "I64 large" => [3, 0xffff_ffff].into_iter().flat_map(i64::to_le_bytes).collect(),
                _ => [3, -1].into_iter().flat_map(i64::to_le_bytes).collect(),
            };
            let dtype = dtype.split(' ').next().unwrap();
            let end = at + bytes.len();
            entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":[2],"data_offsets":[{at},{end}]}}"#));
            data.extend(bytes);
            at = end;
        }
        file(folder.path(), &format!("{{{}}}", entries.join(",")), &data)
    };
    let devices = [Some(Device::cpu()), Device::gpu().ok()];
    for device in devices.into_iter().flatten() {
        let (on_gpu, mut session) = (!device.is_cpu(), Session::new(device));
        session.compile(&graph, &[]).unwrap();
        for (w, signed, unsigned) in [("F16", "U8", "I64"), ("BF16", "I16", "U8"), ("F64", "I64", "I16")] {
            let path = header(w, signed, unsigned);
            for name in ["w", "signed", "unsigned"] {
                let zeros = Tensor::zeros(session.variable_type(name).unwrap());
                session.set(name, &zeros).unwrap();
            }
            let loads = if w == "F16" { session.load_weights(&path, &graph) } else { session.load(&path) };
            loads.unwrap();
            assert_eq!(session.get("w").unwrap().to_f64(), [1.0, -2.5], "{w}");
            assert_eq!(session.get("signed").unwrap(), Tensor::new([2], [3, 200]).unwrap(), "{signed}");
            assert_eq!(session.get("unsigned").unwrap(), Tensor::new([2], [3u32, 200]).unwrap(), "{unsigned}");
        }
        session.load(header("F16", "U8", "I64 large")).unwrap();
        assert_eq!(session.get("unsigned").unwrap(), Tensor::new([2], [3, u32::MAX]).unwrap());
        for (w, signed, unsigned, says) in [
            ("F16", "I64 large", "U8", "tensor `signed`: 4294967295 does not fit i32"),
            ("F16", "U8", "I64 negative", "tensor `unsigned`: -1 does not fit u32"),
            ("U8", "U8", "U8", "`w` is i32[2], expected f32[2]"),
            ("F16", "F16", "U8", "`signed` is f16[2], expected i32[2]"),
        ] {
            let path = header(w, signed, unsigned);
            let why = complaint(session.load(&path), &path);
            assert!(why.contains(says), "{why}");
        }
        // The reference can hold 1e39; on a GPU it would become infinite.
        let path = header("F64 huge", "U8", "U8");
        if on_gpu {
            assert!(complaint(session.load(&path), &path).contains("`w`: 1e39 does not fit f32"));
        } else {
            session.load(&path).unwrap();
            assert_eq!(session.get("w").unwrap().to_f64(), [1.0, 1e39]);
            let weights = folder.path().join("weights");
            assert!(complaint(session.save_weights(&weights, &graph), &weights).contains("`w`: 1e39 does not fit f32"));
        }
    }
}

/// Transferred one by one, these variables took 11 seconds to save and minutes to load.
#[test]
fn many_small_variables_are_saved_and_loaded_together() {
    const COUNT: usize = 20_000;
    let device = Device::gpu().unwrap_or_else(|_| Device::cpu());
    let mut session = Session::new(device);
    let value = |i: usize| Tensor::new([i % 4], vec![i as f32; i % 4]).unwrap();
    // Several graphs, because one large graph would take long to compile.
    let graphs: Vec<Graph> = (0..COUNT / 500).map(|_| Graph::new()).collect();
    for (part, graph) in graphs.iter().enumerate() {
        for i in part * 500..(part + 1) * 500 {
            graph.variable(&format!("layer.{i}"), value(i));
        }
        session.compile(graph, &[]).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    session.save(&path).unwrap();
    session.load(&path).unwrap();
    session.load_weights(&path, &graphs[0]).expect_err("the graph declares only some of the variables");
    let back = safetensors::load(&path).unwrap();
    assert_eq!(back.len(), COUNT);
    for i in [0, 1, 2, 3, 17, COUNT - 1] {
        assert_eq!(back[&format!("layer.{i}")].to_f64(), value(i).to_f64());
        assert_eq!(session.get(&format!("layer.{i}")).unwrap().to_f64(), value(i).to_f64());
    }
}

#[cfg(unix)]
mod replaced {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn save(path: &Path) -> wgrad::Result<()> {
        safetensors::save(path, &tensors(), &BTreeMap::new())
    }

    #[test]
    fn existing_files_keep_mode_and_owner_and_new_files_get_the_default_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "as any program writes it").unwrap();
        let usual = mode(&path);
        fs::remove_file(&path).unwrap();
        save(&path).unwrap();
        assert_eq!(mode(&path), usual);
        for kept in [0o600, 0o640, 0o664, 0o755, 0o200] {
            fs::set_permissions(&path, fs::Permissions::from_mode(kept)).unwrap();
            save(&path).unwrap();
            assert_eq!(mode(&path), kept, "{kept:o}");
        }
        // Only root can change a file's owner.
        if std::os::unix::fs::chown(&path, Some(12_345), Some(54_321)).is_ok() {
            save(&path).unwrap();
            let about = fs::metadata(&path).unwrap();
            assert_eq!((about.uid(), about.gid(), mode(&path)), (12_345, 54_321, 0o200));
        }
    }

    #[test]
    fn a_read_only_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&path, "kept").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        symlink("a", &link).unwrap();
        for path in [&path, &link] {
            assert!(complaint(save(path), path).contains("read-only"));
            assert!(complaint(wgrad::io::check_writable(path), path).contains("read-only"));
        }
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("kept", 0o444));
    }

    #[test]
    fn links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("below")).unwrap();
        fs::write(at("below/real"), "old").unwrap();
        let usual = mode(&at("below/real"));
        // A link, a link to a link, a dangling link, and a link from another folder.
        symlink("below/real", at("link")).unwrap();
        symlink(at("link"), at("second")).unwrap();
        symlink("below/new", at("dangling")).unwrap();
        symlink("../up", at("below/upward")).unwrap();
        for (link, real) in
            [("link", "below/real"), ("second", "below/real"), ("dangling", "below/new"), ("below/upward", "up")]
        {
            wgrad::io::check_writable(at(link)).unwrap();
            save(&at(link)).unwrap();
            assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
            assert!(fs::symlink_metadata(at(real)).unwrap().is_file(), "{real}");
            assert_eq!((safetensors::load(at(real)).unwrap(), mode(&at(real))), (tensors(), usual), "{real}");
            fs::write(at(real), "old").unwrap();
        }
        symlink("loop", at("loop")).unwrap();
        assert!(matches!(save(&at("loop")), Err(Error::Io { .. })));
        assert!(fs::symlink_metadata(at("loop")).unwrap().is_symlink());
    }

    #[test]
    fn different_paths_of_one_file_are_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "a").unwrap();
        fs::write(at("b"), "a").unwrap();
        fs::hard_link(at("a"), at("hard")).unwrap();
        symlink("a", at("soft")).unwrap();
        symlink("new", at("dangling")).unwrap();
        symlink(folder.path(), at("folder")).unwrap();
        for (one, two) in
            [("a", "a"), ("a", "hard"), ("soft", "hard"), ("new", "dangling"), ("new", "folder/new"), ("a", "folder/a")]
        {
            assert!(wgrad::io::is_same_file(at(one), at(two)), "{one} {two}");
            assert!(wgrad::io::is_same_file(at(two), at(one)), "{two} {one}");
        }
        for (one, two) in [("a", "b"), ("a", "new"), ("new", "newer"), ("no/new", "new")] {
            assert!(!wgrad::io::is_same_file(at(one), at(two)), "{one} {two}");
        }
    }

    /// Temporary files of killed writers are removed. Locked files, recent files and files with similar names
    /// are kept.
    #[test]
    fn old_temporary_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let make = |name: &str, hours: u64| {
            let file = fs::File::create(at(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600 * hours)).unwrap();
            file
        };
        for name in [".wgrad-abc123", ".wgrad-ZZZZZZ"] {
            make(name, 2);
        }
        let kept =
            [".wgrad-abc1234", ".wgrad-abc", ".wgrad-abc.12", "wgrad-abc123", ".wgrad-é1234", "model.wgrad-abc123"];
        for name in kept {
            make(name, 2);
        }
        make(".wgrad-youngA", 0);
        let busy = make(".wgrad-busyAA", 2);
        busy.try_lock().unwrap();
        fs::create_dir(at(".wgrad-folder")).unwrap();
        symlink("model.wgrad-abc123", at(".wgrad-linked")).unwrap();
        save(&at("a")).unwrap();
        let mut names: Vec<String> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        let mut expected =
            [&kept[..], &[".wgrad-busyAA", ".wgrad-folder", ".wgrad-linked", ".wgrad-youngA", "a"]].concat();
        expected.sort_unstable();
        assert_eq!(names, expected);
        // Its writer has ended.
        drop(busy);
        save(&at("a")).unwrap();
        assert!(!at(".wgrad-busyAA").exists());
    }
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
    // As bytes, gzipped or not.
    let bytes = |name: &str| fs::read(Path::new(MNIST).join(name)).unwrap();
    let (images, labels) = (bytes("t10k-images-idx3-ubyte.gz"), bytes("t10k-labels-idx1-ubyte.gz"));
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&labels[..]).read_to_end(&mut plain).unwrap();
    for labels in [&labels, &plain] {
        let digits = Digits::from_bytes(&images, labels).unwrap();
        assert_eq!((&digits.images, &digits.labels), (&mnist.test.images, &mnist.test.labels));
    }
    let why = Digits::from_bytes(&images[..100], &labels).unwrap_err().to_string();
    assert!(why.contains("IDX in memory"), "{why}");
    assert_eq!(mnist.train.images.ty().to_string(), "f32[8000, 1, 28, 28]");
    assert_eq!(mnist.test.labels.ty().to_string(), "i32[1000]");
    assert_eq!((mnist.train.len(), mnist.test.len()), (8000, 1000));
    let pixels = mnist.train.images.to_f32();
    assert!(pixels.iter().all(|x| (0.0..=1.0).contains(x)));
    assert!(pixels.contains(&1.0) && pixels.contains(&0.0));
    // The golden runs contain the first 160 images, also divided by 255.
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
fn rows_can_be_selected_for_every_type() {
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

#[test]
fn other_kinds_of_files_are_called_what_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights");
    for (bytes, kind) in [
        (&b"sepal,petal,class\n5.1,1.4,0\n"[..], "text, such as CSV"),
        (b"hello", "text, such as CSV"),
        (b"PK\x03\x04\0\0\0\0\0\0archive/data.pkl", "PyTorch's .pt and .pth"),
        (b"\x80\x02}q\0X\x05\0\0\0", "a Python pickle"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "a gzip file"),
        (b"\x93NUMPY\x01\0v\0{'descr'", "a NumPy array"),
        (b"\x89PNG\r\n\x1a\n\0\0", "an image"),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0", "zeros"),
        (b"{\"a\": {\"dtype\": \"F32\"}}", "JSON"),
    ] {
        std::fs::write(&path, bytes).expect("writes");
        let error = safetensors::load(&path).unwrap_err().to_string();
        assert!(error.contains("not a complete safetensors file") && error.contains(kind), "no `{kind}` in {error}");
    }
    // A cut-off file is no other kind of file.
    let tensors = BTreeMap::from([("x".to_owned(), Tensor::new([4], [1.0f32; 4]).unwrap())]);
    safetensors::save(&path, &tensors, &BTreeMap::new()).expect("saves");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = safetensors::load(&path).unwrap_err().to_string();
    assert!(error.contains("take 16 bytes, but 15 follow") && !error.contains("looks like"), "{error}");
}
