//! Compilation, runs, tensors, files, data and training.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use wgrad::data::{
    self, Augment, Batches, Digits, Fitted, Imputer, Mnist, Scaler, Split, Table, Vocabulary, idx, windows,
};
use wgrad::io::{Weights, safetensors};
use wgrad::nn::Init;
use wgrad::plan::{Options, Plan};
use wgrad::prelude::*;
use wgrad::quant::{Calibration, Scheme};
use wgrad::train::{Batch, Dataset, FromFn, Meter, Metric, Model, Programs, Step, Trainer};
use wgrad::{Profile, Program, Result};

use super::{Catalogue, f, i, ints, t};

/// A program that adds `x` and a scalar to a variable, and looks rows of a table up.
fn program(session: &mut Session) -> Program {
    let graph = Graph::new();
    let [x, w] = [f(&graph, "x", &[2]), graph.variable("w", t(&[2]))];
    graph.assign(&w, &(&w + x * graph.scalar("rate", 1.0)));
    let row = graph.constant(t(&[3, 2])).embedding(&i(&graph, "row", &[1]));
    session.compile(&graph, &[&row]).unwrap()
}

#[test]
fn compiling_and_running() {
    let mut c = Catalogue::new();
    let session = &mut Session::new(Device::cpu());
    let step = program(session);
    let (x, row) = (t(&[2]), ints([1]));
    let graph = Graph::new();
    let w = graph.variable("w", t(&[3]));
    c.call(session.compile(&graph, &[&w])).says(
        "variable `w` is f32[3] in this graph and f32[2] in the session; give one of them another name, such as a \
         prefix by Scope::part",
    );
    c.call(session.compile(&Graph::new(), &[&w])).says(
        "output 0, %0.0: f32[3], belongs to another graph; every output must be a value of the graph being \
         compiled",
    );
    let graph = Graph::new();
    let product =
        f(&graph, "a", &[2, 3]).matmul(&f(&graph, "b", &[2, 3])) + (f(&graph, "c", &[2]) + f(&graph, "d", &[3]));
    c.call(session.compile(&graph, &[&product])).says(
        "the graph has 2 errors:\n\
         matmul(f32[2, 3], f32[2, 3]): the inner sizes differ: a has 3 columns and b has 2 rows; expected [.., M, \
         K] and [.., K, N] (t() swaps the last two axes)\n\
         \x20 at LINE\n\
         add(f32[2], f32[3]): the shapes do not broadcast: aligned at the last axis, sizes must be equal or 1\n\
         \x20 at LINE",
    );
    let graph = Graph::new();
    let big = f(&graph, "big", &[1 << 13, 1 << 13]).exp();
    c.call(Plan::new(graph.nodes(), &[big.id()], &Profile::webgpu_defaults(), &Options::default())).says(
        "input `big` f32[8192, 8192] needs a buffer of 268435520 bytes, and WebGPU default limits allows \
         134217728; use a smaller batch or split it\n\
         \x20 at LINE\n\
         the result of exp f32[8192, 8192] needs a buffer of 268435520 bytes, and WebGPU default limits allows \
         134217728; use a smaller batch or split it\n\
         \x20 at LINE",
    );
    c.call(session.run(&step, &[("row", &row)])).says("input `x` (f32[2]) is not fed, only row is");
    c.call(session.run(&step, &[("x", &t(&[3])), ("row", &row)])).says(
        "input `x` is f32[2], but f32[3] was fed; a program has fixed shapes, so compile the graph again for \
         another one",
    );
    c.call(session.run(&step, &[("x", &ints([1, 2])), ("row", &row)]))
        .says("input `x` is f32[2], but i32[2] was fed; Tensor::cast converts it");
    c.call(session.run(&step, &[("x", &x), ("x", &x), ("row", &row)])).says("`x` is fed twice; feed each input once");
    c.call(session.run(&step, &[("x", &x), ("y", &x), ("row", &row)]))
        .says("the program has no input `y`; its inputs: x (f32[2]), row (i32[1])");
    c.call(session.run(&step, &[("x", &x), ("row", &ints([3]))]))
        .says("input `row`: index 3 at [0] is out of range: expected 0 to 2");
    c.call(session.run(&step, &[("x", &x), ("row", &row), ("rate", &x)]))
        .says("scalar `rate` needs one number, but f32[2] was fed");
    c.call(session.run(&step, &[("x", &x), ("row", &row), ("rate", &Tensor::scalar(1e40))]))
        .says("scalar `rate`: 1e40 is not a valid f32: expected at most 3.4e38 in magnitude, or infinity");
    c.call(Session::new(Device::cpu()).run(&step, &[("x", &x), ("row", &row)])).says(
        "the program was compiled in another session and uses its variables; run it there, or compile its graph \
         in this session",
    );
    c.call(session.run_checked(&step, &[("x", &x), ("row", &row)]))
        .says("the reference has nothing to be compared with; open a GPU device");
    c.call(session.profile(&step, &[("x", &x), ("row", &row)]))
        .says("the reference has no launches to profile; open a GPU device");
    c.call(Session::new(Device::cpu()).get("w"))
        .says("there is no variable `w`; compile a graph that declares it first. Variables: none yet");
    c.call(session.get("v")).says("there is no variable `v`; compile a graph that declares it first. Variables: w");
    c.call(session.set("w", &t(&[3]))).says("variable `w` is f32[2], but the new value is f32[3]; convert it first");
    let mut programs = Programs::new(|_, inputs| vec![inputs.get("z").exp()]);
    c.call(programs.run(session, &Batch::from([("x".to_owned(), t(&[2]))]), &[])).says(
        "the graph has an error:\n\
         input(): the batch has no tensor `z`; it has x\n\
         \x20 at LINE",
    );
    c.finish();
}

#[test]
fn tensors() {
    let mut c = Catalogue::new();
    let x = t(&[2, 3]);
    c.call(Tensor::new([2, 3], vec![1.0f32; 5])).says("a tensor of shape [2, 3] has 6 elements, but 5 were given");
    c.call(x.item()).says("item() needs one element, but the tensor is f32[2, 3]");
    c.call(x.reshape([4])).says("a tensor of shape [4] has 4 elements, but 6 were given");
    c.call(x.slice(2, 0..1)).says("slice: there is no axis 2 in [2, 3]; expected 0 to 1, or -2 to -1");
    c.call(x.slice(1, 2..4)).says("slice 2..4 exceeds axis 1 of f32[2, 3], of size 3");
    #[allow(clippy::reversed_empty_ranges)]
    c.call(x.slice(1, 2..1)).says("slice 2..1 exceeds axis 1 of f32[2, 3], of size 3");
    c.call(x.rows(&[0, 2])).says("there is no row 2 in f32[2, 3]");
    c.call(Tensor::scalar(1.0).rows(&[0])).says("rows() needs at least one axis, but the tensor is f32[]");
    c.call(Tensor::concat(&[], 0)).says("concat needs at least one tensor");
    c.call(Tensor::concat(&[&x, &x.cast(DType::I32)], 0))
        .says("concat needs tensors of one type whose sizes differ only along axis 0, not f32[2, 3] and i32[2, 3]");
    c.call(Tensor::concat(&[&x, &t(&[3, 3])], 1))
        .says("concat needs tensors of one type whose sizes differ only along axis 1, not f32[2, 3] and f32[3, 3]");
    c.call(Tensor::stack(&[&x], 3)).says("stack: f32[2, 3] has no place for a new axis 3");
    c.call(Tensor::stack(&[&x, &t(&[3, 2])], 0))
        .says("stack needs tensors of one type and shape, not f32[2, 3] and f32[3, 2]");
    c.call(Tensor::try_from(vec![vec![1.0f32], vec![1.0, 2.0]]))
        .says("a matrix needs rows of one length, but row 0 has 1 elements and row 1 has 2");
    c.call("normal(0, x)".parse::<Init>())
        .says("the initialiser `normal(0, x)`: expected normal(mean, std) with numbers");
    c.call("gaussian(0, 1)".parse::<Init>()).says(
        "unknown initialiser `gaussian`; expected one of zeros, ones, constant, uniform, normal, \
         truncated_normal, orthogonal, kaiming_uniform, kaiming_normal, xavier_uniform, xavier_normal",
    );
    c.call("normal(0, 1".parse::<Init>()).says("the initialiser `normal(0, 1` has no closing parenthesis");
    c.call(Scheme::int8().bits(9).quantize(&x, Calibration::MinMax))
        .says("cannot quantise f32[2, 3]: expected 2 to 8 bits, not 9");
    c.call(Scheme::int8().per_channel(2).quantize(&x, Calibration::MinMax))
        .says("cannot quantise f32[2, 3]: there is no axis 2");
    c.finish();
}

/// A network of two layers, compiled in a session.
fn model(prefix: &str, outputs: usize) -> (Session, Graph) {
    let graph = Graph::new();
    let nn = Scope::eval(&graph, 0);
    let nn = if prefix.is_empty() { nn } else { nn.part(prefix) };
    let hidden = nn.linear("fc1", &f(&graph, "x", &[1, 3]), 4);
    let y = nn.without_bias().linear("fc2", &hidden, outputs);
    let mut session = Session::new(Device::cpu());
    session.compile(&graph, &[&y]).unwrap();
    (session, graph)
}

#[test]
fn weights() {
    let mut c = Catalogue::new();
    let at = |name: &str| c.folder.path().join(name);
    let (saved, plain, quantized) = (at("saved.safetensors"), at("plain.safetensors"), at("other.safetensors"));
    let (mut session, graph) = model("", 2);
    let (other, its) = model("module", 2);
    other.save_weights(&saved, &its).unwrap();
    c.call(session.load_weights(&saved, &graph)).says(
        "DIR/saved.safetensors: does not fit the graph:\n\
         \x20 `fc1.bias` (f32[4]) is missing; the file has `module.fc1.bias`\n\
         \x20 `fc1.weight` (f32[4, 3]) is missing; the file has `module.fc1.weight`\n\
         \x20 `fc2.weight` (f32[2, 4]) is missing; the file has `module.fc2.weight`\n\
         \x20 `module.fc1.bias` (f32[4]) is unknown\n\
         \x20 `module.fc1.weight` (f32[4, 3]) is unknown\n\
         \x20 `module.fc2.weight` (f32[2, 4]) is unknown\n\
         \x20 (Session::load_weights_with and Weights::new().strip_prefix(\"module.\") would match 3 of 3 missing \
         names)",
    );
    session.save_weights(&plain, &graph).unwrap();
    let (mut wider, its) = model("", 5);
    c.call(wider.load_weights(&plain, &its)).says(
        "DIR/plain.safetensors: does not fit the graph:\n\
         \x20 `fc2.weight` is f32[2, 4], expected f32[5, 4]",
    );
    c.call(session.load_weights_with(&plain, &graph, &Weights::new().rename("fc1", "fc2"))).says(
        "DIR/plain.safetensors: `fc1.weight` and `fc2.weight` both become `fc2.weight`; rename one of them to \
         another name",
    );
    let nothing = Weights::new().rename("fc", "layer").strict(false);
    c.call(session.load_weights_with(&plain, &graph, &nothing)).says(
        "DIR/plain.safetensors: does not fit the graph:\n\
         \x20 `fc1.bias` (f32[4]) is missing; the file has `layer1.bias`\n\
         \x20 `fc1.weight` (f32[4, 3]) is missing; the file has `layer1.weight`\n\
         \x20 `fc2.weight` (f32[2, 4]) is missing; the file has `layer2.weight`\n\
         \x20 `layer1.bias` (f32[4]), `fc1.bias` in the file, is unknown\n\
         \x20 `layer1.weight` (f32[4, 3]), `fc1.weight` in the file, is unknown\n\
         \x20 `layer2.weight` (f32[2, 4]), `fc2.weight` in the file, is unknown",
    );
    c.call(session.load_weights(&plain, &model("module", 2).1)).says(
        "the session has none of the graph's 3 variables; compile the graph first, then load DIR/plain.safetensors",
    );
    c.call(Session::new(Device::cpu()).save_weights(&saved, &graph))
        .says("there is no variable `fc1.weight`; compile a graph that declares it first. Variables: none yet");
    let one = |name: &str, tensor: Tensor| [(name.to_owned(), tensor)].into();
    safetensors::save(&quantized, &one("fc1.wieght", t(&[4, 3])), &Default::default()).unwrap();
    c.call(session.load_weights_with(&quantized, &graph, &Weights::new().only("fc1.weight"))).says(
        "DIR/other.safetensors: does not fit the graph:\n\
         \x20 `fc1.weight` (f32[4, 3]) is missing",
    );
    safetensors::save(&quantized, &one("fc2.weight", ints([70_000])), &Default::default()).unwrap();
    c.call(session.load_weights_with(&quantized, &graph, &Weights::new().only("fc2"))).says(
        "DIR/other.safetensors: does not fit the graph:\n\
         \x20 `fc2.weight` is i32[1], expected f32[2, 4]",
    );
    let csv = c.file("data.csv", "height,width\n1.5,2\n");
    c.call(session.load_weights(csv, &graph)).says(
        "DIR/data.csv: not a complete safetensors file: it claims a header of 8587366581249074536 bytes, but has \
         19 in all. It looks like text, such as CSV; wgrad::data::Table reads tables, and weights are in \
         .safetensors files",
    );
    let pickle = c.file("model.pt", b"PK\x03\x04 the rest of a zip archive");
    c.call(session.load_weights(pickle, &graph)).says(
        "DIR/model.pt: not a complete safetensors file: it claims a header of 7307218076263730000 bytes, but has \
         30 in all. It looks like a ZIP archive, such as PyTorch's .pt and .pth files. In Python: \
         safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)",
    );
    let numpy = c.file("weights.npy", b"\x93NUMPY and the rest");
    c.call(session.load_weights(numpy, &graph)).says(
        "DIR/weights.npy: not a complete safetensors file: it claims a header of 6998692022363442835 bytes, but \
         has 19 in all. It looks like a NumPy array. In Python: safetensors.numpy.save_file({name: array}, \
         new_path)",
    );
    let zeros = c.file("zeros.safetensors", [0; 100]);
    c.call(session.load_weights(zeros, &graph)).says(
        "DIR/zeros.safetensors: not a complete safetensors file: invalid header: EOF while parsing a value at \
         line 1 column 0. It looks like zeros, as after a write that was cut off by a crash",
    );
    let short = c.file("short.safetensors", "abc");
    c.call(session.load_weights(short, &graph)).says(
        "DIR/short.safetensors: not a complete safetensors file: it has 3 bytes, but the size of the header alone \
         takes 8. It looks like text, such as CSV; wgrad::data::Table reads tables, and weights are in \
         .safetensors files",
    );
    let bytes = fs::read(&plain).unwrap();
    let cut = c.file("cut.safetensors", &bytes[..bytes.len() - 10]);
    c.call(session.load_weights(cut, &graph)).says(
        "DIR/cut.safetensors: not a complete safetensors file: its tensors take 96 bytes, but 86 follow the \
         header; it was cut off, so copy or save it again",
    );
    c.call(session.load_weights(c.folder.path(), &graph)).says("DIR: is not a regular file");
    c.call(session.load_weights(at_missing(&c), &graph))
        .says("DIR/missing.safetensors: No such file or directory (os error 2)");
    c.finish();
}

fn at_missing(c: &Catalogue) -> PathBuf {
    c.folder.path().join("missing.safetensors")
}

fn rows(count: usize) -> (Tensor, Tensor) {
    (t(&[count, 3]), t(&[count, 1]))
}

fn trainer() -> Trainer {
    let model = Model::new([3], |nn: &Scope, x: &Value| nn.linear("fc", x, 1));
    Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean)).epochs(1).batch(4).quiet()
}

#[test]
fn checkpoints() {
    let mut c = Catalogue::new();
    let folder = c.folder.path().join("run");
    let fit = |trainer: Trainer, session: &mut Session| trainer.folder(&folder).fit(session, &rows(8), None);
    let session = &mut Session::new(Device::cpu());
    fit(trainer(), session).unwrap();
    let path = folder.join("checkpoints/checkpoint-000010000000000.safetensors");
    let resume = || trainer().resume(true);
    c.call(fit(resume().batch(2).seed(1), session)).says(
        "DIR/run/checkpoints/checkpoint-000010000000000.safetensors: the training cannot be resumed with other \
         settings:\n\
         \x20 batch is 2, and was 4\n\
         \x20 seed is 1, and was 0\n\
         Restore them, or start anew in another folder",
    );
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    c.call(fit(resume(), session)).says(
        "DIR/run/checkpoints/checkpoint-000010000000000.safetensors: not a complete safetensors file: its tensors \
         take 96 bytes, but 92 follow the header; it was cut off, so copy or save it again",
    );
    fs::write(&path, &bytes).unwrap();
    let mut contents = safetensors::read(&path).unwrap();
    contents.metadata.insert("wgrad.checkpoint".into(), "9".into());
    safetensors::save(&path, &contents.tensors, &contents.metadata).unwrap();
    c.call(fit(resume(), session)).says(
        "DIR/run/checkpoints/checkpoint-000010000000000.safetensors: is a checkpoint of format 9, but this \
         version of wgrad reads 1; use a newer one",
    );
    session.save(&path).unwrap();
    c.call(fit(resume(), session)).says(
        "DIR/run/checkpoints/checkpoint-000010000000000.safetensors: holds variables, but not the state of a \
         training; load it with Session::load",
    );
    let model = Model::new([3], |nn: &Scope, x: &Value| nn.linear("fc", x, 1));
    let (graph, y) = model.graph(1);
    let other = &mut Session::new(Device::cpu());
    other.compile(&graph, &[&y]).unwrap();
    c.call(other.load(&path)).says(
        "DIR/run/checkpoints/checkpoint-000010000000000.safetensors: does not fit the session:\n\
         \x20 `fc.bias.adam.m` (f32[1]) is unknown\n\
         \x20 `fc.bias.adam.v` (f32[1]) is unknown\n\
         \x20 `fc.weight.adam.m` (f32[1, 3]) is unknown\n\
         \x20 `fc.weight.adam.v` (f32[1, 3]) is unknown\n\
         \x20 (the session has no optimiser: compile the training step first, or take only the weights with \
         Session::load_weights)",
    );
    c.call(other.load_weights(&path, &self::model("", 2).1)).says(
        "the session has none of the graph's 3 variables; compile the graph first, then load \
         DIR/run/checkpoints/checkpoint-000010000000000.safetensors",
    );
    let weights = c.folder.path().join("weights.safetensors");
    session.save_weights(&weights, &graph).unwrap();
    c.call(session.load(&weights)).says(
        "DIR/weights.safetensors: does not fit the session:\n\
         \x20 `fc.bias.adam.m` (f32[1]) is missing\n\
         \x20 `fc.bias.adam.v` (f32[1]) is missing\n\
         \x20 `fc.weight.adam.m` (f32[1, 3]) is missing\n\
         \x20 `fc.weight.adam.v` (f32[1, 3]) is missing\n\
         \x20 (the file has only weights, no optimiser state; Session::load_weights loads them)",
    );
    c.call(session.load(c.folder.path().join("none.safetensors")))
        .says("DIR/none.safetensors: No such file or directory (os error 2)");
    c.call(session.save(c.folder.path())).says("DIR: is a folder; expected the name of a file");
    c.finish();
}

#[test]
fn tables_and_files() {
    let mut c = Catalogue::new();
    c.call(Table::parse("a.csv", b"")).says("a.csv: is empty; expected a line with the column names");
    c.call(Table::parse("a.csv", b"x,y\n1,2\n3\n"))
        .says("a.csv: line 3, column 2: expected 2 cells, as in the header, found 1");
    c.call(Table::parse("a.csv", b"x,y\n1,2,3\n"))
        .says("a.csv: line 2, column 3: expected 2 cells, as in the header, found 3");
    c.call(Table::parse("a.csv", b"x,x\n1,2\n"))
        .says("a.csv: line 1, column 2: there already is a column `x`; rename one of them");
    c.call(Table::parse("a.csv", b"x,y\n1,\"2\n3,4\n")).says(
        "a.csv: line 2, column 2: the quote that opens here is never closed; a quote inside a quoted cell is \
         written twice",
    );
    c.call(Table::parse("a.csv", b"x,y\n1,\"2\"0\n")).says(
        "a.csv: line 2, column 2: the quoted cell that begins here ends on line 2 with text after its closing \
         quote; a quote inside a quoted cell is written twice",
    );
    c.call(Table::parse("a.csv", b"x,y\n1,\xff\n"))
        .says("a.csv: line 2, column 2: is not UTF-8; save the file in this encoding");
    let table = Table::parse("plants.csv", b"height,kind\n1.5,oak\n,elm\ninf,fir\n").unwrap();
    c.call(table.floats(&["width"])).says("plants.csv: has no column `width`; there are `height`, `kind`");
    c.call(table.floats(&["kind"])).says("plants.csv: line 2, column 2: `kind`: expected a finite number, found `oak`");
    c.call(table.floats(&["height"])).says(
        "plants.csv: line 3, column 1: `height`: expected a number, found none; floats_or_nan() lets missing \
         values through",
    );
    c.call(table.integers("height")).says("plants.csv: line 2, column 1: `height`: expected an integer, found `1.5`");
    c.call(table.floats_or_nan(&["height"]))
        .says("plants.csv: line 4, column 1: `height`: expected a finite number, found `inf`");
    c.call(Table::load("no/such.csv")).says("no/such.csv: No such file or directory (os error 2)");
    c.call(Mnist::load("no/such")).says("no/such/train-images-idx3-ubyte: no such file, nor one with .gz appended");
    let images = c.file("images", b"\0\0\x08\x03\0\0\0\x01\0\0\0\x02\0\0\0\x02abcd");
    let labels = c.file("labels", b"\0\0\x08\x01\0\0\0\x01\x0b");
    c.call(idx::read(&images, 1))
        .says("DIR/images: not an IDX file of bytes with 1 axes: it begins with [0, 0, 8, 3], expected [0, 0, 8, 1]");
    c.call(Digits::load(&images, &labels)).says("DIR/images: expected images of 28 by 28 pixels, found 2 by 2");
    let short = c.file("short", b"\0\0\x08\x01\0\0\0\x05abc");
    c.call(idx::read(short, 1)).says("DIR/short: its header claims [5] elements, more than the file can hold");
    c.call(Scaler::from_json("{\"kind\": \"imputer\"}")).says("expected JSON of kind `scaler`, found imputer");
    let json = c.file("scaler.json", "{");
    c.call(Scaler::load(json))
        .says("DIR/scaler.json: expected JSON of kind `scaler`: EOF while parsing an object at line 1 column 1");
    c.finish();
}

#[test]
fn data_in_memory() {
    let mut c = Catalogue::new();
    let x = t(&[4, 2]);
    let labels = ints([0, 1, 2, 1]);
    c.call(Split::random(1, 0.5, 0))
        .says("a share of 0.5 of 1 rows leaves one part empty; expected a share between 0 and 1, and enough rows");
    c.call(Split::random(10, 1.5, 0))
        .says("a share of 1.5 of 10 rows leaves one part empty; expected a share between 0 and 1, and enough rows");
    c.call(Batches::new(8, 0)).says("a batch has at least one row, not 0");
    c.call(Scaler::standard(&t(&[0, 2]))).says("there is nothing to learn from the columns of f32[0, 2]");
    c.call(Scaler::standard(&x).unwrap().apply(&t(&[4, 3])))
        .says("was fitted to 2 columns, but is applied to f32[4, 3]");
    c.call(Scaler::min_max(&Tensor::new([2, 1], [1.0f32, f32::NAN]).unwrap()))
        .says("column 1 holds NaN, infinity, or numbers whose spread cannot be computed; an Imputer replaces NaN");
    c.call(Imputer::mean(&Tensor::new([2, 1], [f32::NAN; 2]).unwrap()))
        .says("column 1 has no values, or infinite ones");
    c.call(data::one_hot(&labels, 2)).says("class 2 is not one of 2, which are numbered from 0");
    c.call(data::one_hot(&x, 2)).says("expected class numbers as i32 or u32, found f32[4, 2]");
    c.call(data::class_weights(&labels, 4)).says("class 3 has no rows, so it cannot be weighted");
    c.call(data::accuracy(&labels, &ints([0, 1]))).says("there are 4 predictions for 2 rows");
    c.call(data::roc_auc(&t(&[2]), &ints([1, 1])))
        .says("the area under the curve needs rows of class 0 and of class 1");
    c.call(data::average_precision(&t(&[2]), &ints([0, 0]))).says("recall needs rows of class 1");
    c.call(data::r2_score(&t(&[2]), &t(&[2]))).says("R2 is undefined for constant targets");
    c.call(windows(&t(&[3]), 3)).says("a window of 3 steps and the next one do not fit a series of 3");
    let vocabulary = Vocabulary::new(["ab"]);
    c.call(vocabulary.encode("abc")).says("'c', character 3 of \"abc\", is not in the vocabulary");
    c.call(vocabulary.encode_rows(&["abab"], 3))
        .says("\"abab\" has 4 characters; with START and END it is longer than 3");
    c.call(vocabulary.decode(&[5])).says("5 is not in the vocabulary; expected 0 to 4");
    c.call(Augment::new(0).apply(&x, 0)).says("expected images f32[N, C, H, W], found f32[4, 2]");
    c.finish();
}

#[cfg(feature = "images")]
#[test]
fn images() {
    use wgrad::data::ImageFolder;
    let mut c = Catalogue::new();
    let folder = c.folder.path().join("digits");
    fs::create_dir_all(folder.join("one")).unwrap();
    c.call(ImageFolder::open(&folder)).says(
        "DIR/digits: has no images; expected a folder for each class, with files that end in png, jpg, jpeg, pbm, \
         pgm, ppm",
    );
    image::GrayImage::new(4, 3).save(folder.join("one/a.png")).unwrap();
    image::GrayImage::new(5, 5).save(folder.join("one/b.png")).unwrap();
    let png = fs::read(folder.join("one/a.png")).unwrap();
    fs::write(folder.join("one/c.png"), &png[..40]).unwrap();
    let images = ImageFolder::open(&folder).unwrap();
    c.call(images.load(&[0, 1]))
        .says("DIR/digits/one/b.png: has 5 by 5 pixels, the first image of the batch 3 by 4; call ImageFolder::size");
    c.call(images.load(&[2])).says("DIR/digits/one/c.png: cannot be decoded: unexpected end of file");
    c.call(images.load(&[3])).says("there is no image 3 among 3");
    c.finish();
}

#[test]
fn training() {
    let mut c = Catalogue::new();
    let fit = |mut trainer: Trainer, data: &dyn Dataset| trainer.fit(&mut Session::new(Device::cpu()), data, None);
    let data = rows(8);
    c.call(fit(trainer(), &(t(&[0, 3]), t(&[0, 1])))).says("the training cannot begin: the training data has no rows");
    c.call(trainer().fit(&mut Session::new(Device::cpu()), &data, Some(&rows(0))))
        .says("the training cannot begin: the validation data has no rows");
    c.call(trainer().evaluate(&mut Session::new(Device::cpu()), &rows(0))).says("the data to evaluate has no rows");
    c.call(fit(trainer().batch(0), &data)).says("a batch has at least one row, not 0");
    c.call(fit(trainer().batch(9).drop_last(), &data))
        .says("the training cannot begin: drop_last leaves no batch of 9 rows from 8 rows");
    c.call(fit(trainer().accumulate(0), &data)).says("the training cannot begin: accumulate needs at least one batch");
    c.call(fit(trainer().monitor(Metric::R2), &data))
        .says("the training cannot begin: monitor(r2) needs validation data");
    c.call(fit(trainer().reduce_on_plateau(0.5, 2), &data))
        .says("the training cannot begin: reduce_on_plateau needs a learning rate to reduce; call lr() or schedule()");
    c.call(fit(trainer().lr(0.1).reduce_on_plateau(1.5, 2), &data))
        .says("the training cannot begin: the factor of reduce_on_plateau must be between 0 and 1, not 1.5");
    c.call(fit(trainer().resume(true), &data)).says("resume needs the folder of the run; call Trainer::folder");
    c.call(fit(trainer(), &(t(&[8, 3]), t(&[7, 1])))).says("`x` has 8 rows, but `y` has 7");
    c.call(fit(trainer(), &(t(&[8, 3]), t(&[8])))).says(
        "the graph has an error:\n\
         mse_loss(f32[4, 1], f32[4]): expected float predictions and targets of equal shapes; reshape() or \
         broadcast_to() one\n\
         \x20 at LINE",
    );
    c.call(fit(trainer(), &(t(&[8, 2]), ints([0; 8])))).says(
        "the graph has an error:\n\
         Trainer(f32[4, 2]): its rows have the shape [2], but the model was made for [3] (Model::new)\n\
         \x20 at LINE",
    );
    c.call(fit(trainer(), &t(&[8, 3]))).says(
        "the graph has an error:\n\
         input(): the batch has no tensor `y`; it has x\n\
         \x20 at LINE",
    );
    c.call(fit(trainer(), &FromFn::new(8, |_: &[usize], _| -> Result<Batch> { panic!("row 5 is broken") })))
        .says("making batch 0 of epoch 0 panicked: row 5 is broken");
    c.call(fit(trainer().optimizer(Sgd::new()).lr(1e38).epochs(9), &data)).says(
        "the training diverged: the loss of epoch 3, batch 1 is inf\n\
         first NaN or infinity: square f32[4, 1] (built at LINE)\n\
         \x20 output: no finite value, 0 NaN and 4 infinite of 4\n\
         \x20 input sub f32[4, 1] (built at LINE): -9.707672973611624e230 to -9.707672973611624e230, 0 NaN and 0 \
         infinite of 4\n\
         there is no checkpoint; with Trainer::folder, the last good one is kept\n\
         try a lower learning rate, Trainer::clip_norm, or a warm-up",
    );
    let validated = |trainer: Trainer, data: &dyn Dataset| {
        let mut trainer = trainer.time_budget(Duration::from_secs(60));
        trainer.fit(&mut Session::new(Device::cpu()), data, Some(data))
    };
    c.call(validated(trainer().metrics([Metric::Accuracy]), &data))
        .says("metrics of classes: 0.5 is not a class number below 2; predictions are f32[4, 1], targets f32[4, 1]");
    c.call(validated(trainer().target("z").metrics([Metric::R2]), &data))
        .says("the batch has no target `z`, only x, y; name it with Trainer::target");
    let of = Trainer::of(|nn: &Scope, batch| {
        let loss = nn.linear("fc", &batch.get("x"), 1).mse_loss(&batch.get("y"), Reduction::Mean);
        Step { loss, prediction: None }
    });
    c.call(validated(of.metrics([Metric::R2]).quiet(), &data))
        .says("metrics need a prediction; set Step::prediction in the function of Trainer::of");
    let meter = |metric: Metric| Meter::new(&[metric]);
    c.call(meter(Metric::Mae).add(&t(&[2]), &t(&[3])))
        .says("mae: predictions f32[2] and targets f32[3] need equally many elements");
    c.call(meter(Metric::Accuracy).add(&t(&[2, 3]), &t(&[4]))).says(
        "metrics of classes: expected logits [N, C] and class numbers [N], or one logit per target; predictions \
         are f32[2, 3], targets f32[4]",
    );
    c.call(meter(Metric::Accuracy).add(&t(&[2, 3]), &ints([0, 3])))
        .says("metrics of classes: 3 is not a class number below 3; predictions are f32[2, 3], targets i32[2]");
    c.call(meter(Metric::RocAuc).add(&t(&[2, 3]), &ints([0, 1]))).says("the ROC AUC needs two classes, not 3");
    c.call(meter(Metric::R2).values()).says("R2 is undefined for constant targets");
    let mut model = Model::new([3], |nn: &Scope, x: &Value| nn.linear("fc", x, 1));
    c.call(model.predict(&mut Session::new(Device::cpu()), &t(&[3])))
        .says("predict: expected rows f32[n, 3] with at least one row, found f32[3]");
    c.call(model.predict(&mut Session::new(Device::cpu()), &t(&[0, 3])))
        .says("predict: expected rows f32[n, 3] with at least one row, found f32[0, 3]");
    let mut sum = Model::new([3], |_: &Scope, x: &Value| x.sum_all());
    c.call(sum.predict(&mut Session::new(Device::cpu()), &t(&[2, 3])))
        .says("predict: the network returns f32[] for 2 rows; the first axis must be the rows");
    c.finish();
}
