//! A model of one operator, written as protocol buffers, and its results on the reference and the device.

use std::collections::BTreeMap;

use wgrad::{Device, Session};
use wgrad_onnx::{BuildOptions, Constant, ElemType, Model};

pub fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// A field of bytes: text, or a message.
pub fn field(number: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

pub fn number(field: u64, n: i64) -> Vec<u8> {
    [varint(field << 3), varint(n as u64)].concat()
}

/// An attribute of a node.
pub fn int(name: &str, n: i64) -> Vec<u8> {
    field(5, [field(1, name), number(3, n), number(20, 2)].concat())
}

pub fn float(name: &str, x: f32) -> Vec<u8> {
    field(5, [field(1, name), varint(2 << 3 | 5), x.to_le_bytes().to_vec(), number(20, 1)].concat())
}

pub fn text(name: &str, value: &str) -> Vec<u8> {
    field(5, [field(1, name), field(4, value), number(20, 3)].concat())
}

pub fn ints(name: &str, values: &[i64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|&n| number(8, n)).collect();
    field(5, [field(1, name), values, number(20, 7)].concat())
}

pub fn strings(name: &str, values: &[&str]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| field(9, value)).collect();
    field(5, [field(1, name), values, number(20, 8)].concat())
}

/// A node with inputs, and what it is made of.
#[derive(Default)]
pub struct Op {
    pub name: &'static str,
    pub domain: &'static str,
    pub opset: i64,
    pub attributes: Vec<u8>,
    /// None for an input that is left out.
    pub inputs: Vec<Option<Constant>>,
    /// Tensors of the file for some inputs: number, element type, shape, bytes.
    pub tensors: Vec<(usize, i64, Vec<i64>, Vec<u8>)>,
    pub outputs: usize,
}

pub fn op(name: &'static str, inputs: &[&Constant]) -> Op {
    let inputs = inputs.iter().map(|&x| Some(x.clone())).collect();
    Op { name, opset: 20, inputs, outputs: 1, ..Op::default() }
}

impl Op {
    pub fn of(self, domain: &'static str) -> Op {
        Op { domain, ..self }
    }

    pub fn opset(self, opset: i64) -> Op {
        Op { opset, ..self }
    }

    pub fn with(mut self, attribute: Vec<u8>) -> Op {
        self.attributes.extend(attribute);
        self
    }

    pub fn and(mut self, input: Option<&Constant>) -> Op {
        self.inputs.push(input.cloned());
        self
    }

    pub fn tensor(mut self, at: usize, ty: i64, shape: &[i64], bytes: &[u8]) -> Op {
        while self.inputs.len() <= at {
            self.inputs.push(None);
        }
        self.tensors.push((at, ty, shape.to_vec(), bytes.to_vec()));
        self
    }

    pub fn outputs(self, outputs: usize) -> Op {
        Op { outputs, ..self }
    }

    /// The bytes of a model of the node alone.
    pub fn model(&self) -> Vec<u8> {
        let name = |at: usize| format!("i{at}");
        let stored = |at: usize| self.tensors.iter().any(|tensor| tensor.0 == at);
        let mut node = Vec::new();
        for (at, input) in self.inputs.iter().enumerate() {
            node.extend(field(1, if input.is_some() || stored(at) { name(at) } else { String::new() }));
        }
        (0..self.outputs).for_each(|at| node.extend(field(2, format!("o{at}"))));
        node.extend([field(4, self.name), field(7, self.domain), self.attributes.clone()].concat());
        let mut graph = [field(1, node), field(2, "graph")].concat();
        for (at, ty, shape, bytes) in &self.tensors {
            let dims: Vec<u8> = shape.iter().flat_map(|&size| number(1, size)).collect();
            graph.extend(field(5, [dims, number(2, *ty), field(8, name(*at)), field(9, bytes)].concat()));
        }
        for (at, input) in self.inputs.iter().enumerate().filter_map(|(at, input)| Some((at, input.as_ref()?))) {
            let dims = input.shape().iter().flat_map(|&size| field(1, number(1, size as i64)));
            let shape: Vec<u8> = dims.collect();
            let tensor = [number(1, code(input.elem_type())), field(2, shape)].concat();
            graph.extend(field(11, [field(1, name(at)), field(2, field(1, tensor))].concat()));
        }
        (0..self.outputs).for_each(|at| graph.extend(field(12, field(1, format!("o{at}")))));
        let opset = |domain: &str, version: i64| field(8, [field(1, domain), number(2, version)].concat());
        let extra = if self.domain.is_empty() { Vec::new() } else { opset(self.domain, 1) };
        [number(1, 10), opset("", self.opset), extra, field(7, graph)].concat()
    }

    pub fn feeds(&self) -> BTreeMap<String, Constant> {
        let given = self.inputs.iter().enumerate();
        given.filter_map(|(at, input)| Some((format!("i{at}"), input.clone()?))).collect()
    }

    /// The outputs, which must agree on the reference and on a device, if there is one.
    #[track_caller]
    pub fn run(&self) -> Vec<Constant> {
        let model = Model::from_bytes(self.model(), ".").expect("a model");
        let prepared = match model.prepare(&self.feeds(), &BuildOptions::new()) {
            Ok(prepared) => prepared,
            Err(error) => panic!("{error}"),
        };
        let devices = [Some(Device::cpu()), Device::open(None).ok()];
        let run_on = |device: Device| -> Vec<Constant> {
            let mut session = Session::new(device);
            let program = prepared.compile(&mut session).expect("compiles");
            prepared.run(&mut session, &program).expect("runs").into_iter().map(|output| output.1).collect()
        };
        let mut found: Vec<Vec<Constant>> = devices.into_iter().flatten().map(run_on).collect();
        let first = found.swap_remove(0);
        for other in found {
            for (a, b) in first.iter().zip(&other) {
                close(&b.to_floats(), &a.to_floats());
            }
        }
        first
    }

    /// The numbers of the only output.
    #[track_caller]
    pub fn numbers(&self) -> Vec<f64> {
        self.run().swap_remove(0).to_floats()
    }

    /// The error that the model cannot be built with.
    #[track_caller]
    pub fn error(&self) -> String {
        let model = Model::from_bytes(self.model(), ".").expect("a model");
        match model.prepare(&self.feeds(), &BuildOptions::new()) {
            Ok(_) => panic!("{} is built", self.name),
            Err(error) => error.to_string(),
        }
    }
}

pub fn code(ty: ElemType) -> i64 {
    match ty {
        ElemType::F32 => 1,
        ElemType::U8 => 2,
        ElemType::I8 => 3,
        ElemType::U16 => 4,
        ElemType::I16 => 5,
        ElemType::I32 => 6,
        ElemType::I64 => 7,
        ElemType::Bool => 9,
        ElemType::U64 => 13,
        other => panic!("{other} is not used here"),
    }
}

pub fn f32s(shape: &[usize], values: &[f64]) -> Constant {
    Constant::from_floats(ElemType::F32, shape.to_vec(), values.to_vec()).expect("a constant")
}

pub fn i64s(shape: &[usize], values: &[i64]) -> Constant {
    Constant::from_ints(ElemType::I64, shape.to_vec(), values.to_vec()).expect("a constant")
}

pub fn of(ty: ElemType, values: &[i64]) -> Constant {
    Constant::from_ints(ty, vec![values.len()], values.to_vec()).expect("a constant")
}

pub fn count(shape: &[usize]) -> Constant {
    f32s(shape, &(0..shape.iter().product::<usize>()).map(|x| x as f64).collect::<Vec<_>>())
}

/// Equal up to the rounding of f32.
#[track_caller]
pub fn close(found: &[f64], wanted: &[f64]) {
    let near = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 2e-5 * b.abs().max(1.0);
    assert!(found.len() == wanted.len() && found.iter().zip(wanted).all(near), "{found:?}, expected {wanted:?}");
}

pub const MICROSOFT: &str = "com.microsoft";
