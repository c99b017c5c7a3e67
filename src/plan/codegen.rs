//! Generates WGSL for groups of pointwise ops, as separate kernels or as epilogues of other kernels. The
//! generated code only loads, calls functions of `scalar.wgsl`, and stores.

mod words;

use std::collections::HashMap;
use std::fmt::Write as _;

use self::words::{converted, element, pack, packed_quad, result, store_quad, store_words, unpack, wgsl_value};
use super::layout::{Layout, Origin};
use crate::graph::{NodeKind, Nodes, ValueId};
use crate::op::{Arg, Lowering, Machine, Pointwise};
use crate::profile::Profile;
use crate::shader::{Fused, Width};
use crate::shape::{View, merge_axes, reciprocal};
use crate::{DType, TensorType};

/// A group of pointwise ops: what to compute and what to store.
pub(crate) struct Group<'a> {
    pub layout: &'a Layout<'a>,
    /// Pointwise nodes, in order.
    pub members: &'a [usize],
    /// For an epilogue, the kernel's output; for a prologue, the value that the kernel binds.
    pub given: Option<ValueId>,
    /// The values or copies to store besides the returned value.
    pub stores: &'a [Origin],
    /// For an epilogue or prologue, the value to return.
    pub returns: Option<ValueId>,
    /// For each value updated in place, the variable whose buffer it is stored in.
    pub in_place: &'a HashMap<ValueId, ValueId>,
}

/// A storage buffer that the generated code binds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operand {
    pub origin: Origin,
    pub write: bool,
}

/// Generated code and its bindings: `args` first, then the operands, then the scalars.
pub(crate) struct Generated {
    pub text: String,
    pub args: Vec<u32>,
    pub operands: Vec<Operand>,
    /// The step scalars, in the order of the uniform's words.
    pub scalars: Vec<ValueId>,
}

/// How an operand's position is computed from the element index `i`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Access {
    /// Position `i`.
    Flat,
    /// Position `offset + sum((i / div % size) * stride)`.
    Strided { offset: usize, terms: Vec<Term> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Term {
    div: usize,
    /// `None` for the outermost axis.
    size: Option<usize>,
    stride: usize,
}

/// The positions of four consecutive elements, the first of which has an index that is a multiple of 4.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Four {
    /// One aligned vec4.
    Vector,
    /// All at the same position.
    Same,
    /// At unrelated positions.
    Apart,
}

impl Access {
    fn of_four(&self) -> Four {
        let Access::Strided { offset, terms } = self else { return Four::Vector };
        let fours = |x: usize| x.is_multiple_of(4);
        if terms.iter().all(|term| fours(term.div)) {
            return Four::Same;
        }
        let inner = |term: &Term| term.div == 1 && term.stride == 1 && term.size.is_none_or(fours);
        let outer = |term: &Term| fours(term.div) && fours(term.stride);
        let vector = fours(*offset) && terms.iter().all(|term| inner(term) || outer(term));
        if vector { Four::Vector } else { Four::Apart }
    }

    fn of(view: &View) -> Access {
        let merged = merge_axes(&view.shape, &[&view.strides]);
        let mut div = 1;
        let mut terms = Vec::new();
        for (axis, (&size, &stride)) in merged.sizes.iter().zip(&merged.strides[0]).enumerate().rev() {
            if stride != 0 {
                terms.push(Term { div, size: (axis > 0).then_some(size), stride });
            }
            div *= size;
        }
        match terms[..] {
            [Term { div: 1, size: None, stride: 1 }] if view.offset == 0 => Access::Flat,
            [] if view.shape.numel() == 1 && view.offset == 0 => Access::Flat,
            _ => Access::Strided { offset: view.offset, terms },
        }
    }
}

/// Builds the code of a group.
struct Writer<'a> {
    group: &'a Group<'a>,
    /// Precedes the names of bindings, so that those of fused ops do not clash with the kernel's.
    prefix: &'static str,
    args: Vec<u32>,
    operands: Vec<Operand>,
    /// For each operand, whether some access to four consecutive elements is not one vec4.
    scattered: Vec<bool>,
    /// Numbered by first use, so that groups that differ only in their scalars share the same code.
    scalars: Vec<ValueId>,
    /// Loads for the body of `element`: (variable, operand, access, dtype).
    loads: Vec<(String, usize, Access, DType)>,
    body: String,
    names: HashMap<ValueId, String>,
    /// Existing loads, by origin and access.
    loaded: HashMap<(Origin, Access), String>,
}

impl<'a> Writer<'a> {
    fn new(group: &'a Group<'a>, prefix: &'static str, args: Vec<u32>) -> Self {
        Writer {
            group,
            prefix,
            args,
            operands: Vec::new(),
            scattered: Vec::new(),
            scalars: Vec::new(),
            loads: Vec::new(),
            body: String::new(),
            names: HashMap::new(),
            loaded: HashMap::new(),
        }
    }

    /// The operand that stores an origin; a value updated in place is stored in its variable's.
    fn operand(&mut self, origin: &Origin, write: bool) -> usize {
        let materialized_at = match origin {
            Origin::Value(id) => Origin::Value(self.group.in_place.get(id).copied().unwrap_or(*id)),
            copy => copy.clone(),
        };
        let known = self.operands.iter().position(|operand| operand.origin == materialized_at);
        let number = known.unwrap_or_else(|| {
            self.operands.push(Operand { origin: materialized_at, write: false });
            self.scattered.push(false);
            self.operands.len() - 1
        });
        self.operands[number].write |= write;
        number
    }

    fn arg(&mut self, word: u32) -> String {
        let at = self.args.len();
        self.args.push(word);
        format!("{}args[{}].{}", self.prefix, at / 4, ["x", "y", "z", "w"][at % 4])
    }

    /// A number: the most common ones are literals; all others are passed in the uniform, so that
    /// groups that differ only in numbers share a pipeline.
    fn number(&mut self, value: f64) -> String {
        if [0.0, 0.5, 1.0, 2.0].contains(&value.abs()) {
            return format!("{value:?}f");
        }
        let arg = self.arg((value as f32).to_bits());
        format!("bitcast<f32>({arg})")
    }

    fn constant(&mut self, dtype: DType, value: f64) -> String {
        match dtype.wide() {
            DType::I32 => format!("i32({})", value as i32),
            DType::U32 => format!("{}u", value as u32),
            DType::Bool => format!("{}", value != 0.0),
            _ => self.number(value),
        }
    }

    /// The expression for a value read by the group's nodes.
    fn value(&mut self, id: ValueId) -> String {
        let layout = self.group.layout;
        let place = layout.of(id);
        let dtype = layout.ty(id).dtype;
        if let Origin::Value(root) = place.origin {
            if let Some(constant) = layout.constant(root) {
                return self.constant(dtype, constant);
            }
            if let NodeKind::Scalar(_) = layout.node(root.node).kind {
                return self.scalar(root, dtype);
            }
            if let Some(name) = self.names.get(&root) {
                return converted(name.clone(), layout.ty(root).dtype, dtype);
            }
        }
        let origin = place.origin.clone();
        let access = Access::of(&place.view);
        let stored = layout.ty(origin.value()).dtype;
        converted(self.load(origin, access, stored), stored, dtype)
    }

    fn scalar(&mut self, root: ValueId, dtype: DType) -> String {
        let known = self.scalars.iter().position(|&scalar| scalar == root);
        let word = known.unwrap_or_else(|| {
            self.scalars.push(root);
            self.scalars.len() - 1
        });
        let text = format!("{}scalars[{}].{}", self.prefix, word / 4, ["x", "y", "z", "w"][word % 4]);
        if dtype == DType::F32 { format!("bitcast<f32>({text})") } else { text }
    }

    fn load(&mut self, origin: Origin, access: Access, dtype: DType) -> String {
        let key = (origin.clone(), access.clone());
        if let Some(name) = self.loaded.get(&key) {
            return name.clone();
        }
        let operand = self.operand(&origin, false);
        self.scattered[operand] |= !matches!(access.of_four(), Four::Vector);
        let name = format!("a{}", self.loads.len());
        self.loads.push((name.clone(), operand, access, dtype));
        self.loaded.insert(key, name.clone());
        name
    }

    /// Writes the function calls of the members, in order.
    fn members(&mut self) {
        let layout = self.group.layout;
        if let Some(given) = self.group.given {
            self.names.insert(given, "v".into());
        }
        for &node in self.group.members {
            let Some(Lowering::Pointwise(call)) = layout.op(node).map(|op| op.lowering()) else { continue };
            let args: Vec<String> = call
                .args
                .iter()
                .map(|arg| match arg {
                    Arg::Input(i) => self.value(layout.node(node).inputs[*i]),
                    Arg::Index => "i".into(),
                    Arg::F32(x) => self.number(*x),
                    Arg::I32(x) => format!("i32({x})"),
                    Arg::U32(x) => format!("{x}u"),
                })
                .collect();
            let name = format!("v{}", self.names.len());
            let function = function(layout.nodes, node, &call);
            let _ = writeln!(self.body, "  let {name} = {function}({});", args.join(", "));
            self.names.insert(ValueId { node, output: 0 }, name);
        }
    }

    /// The expression for an origin to store.
    fn stored(&mut self, origin: &Origin) -> String {
        match origin {
            Origin::Value(id) => self.names.get(id).cloned().unwrap_or_else(|| "v".into()),
            Origin::Copy(id) => self.value(*id),
        }
    }

    /// The position of an access at element `i`.
    fn position(&mut self, access: &Access, i: &str) -> String {
        let Access::Strided { offset, terms } = access else { return i.to_owned() };
        let mut sum: Vec<String> = Vec::new();
        if *offset != 0 || terms.is_empty() {
            sum.push(self.arg_for(*offset));
        }
        for term in terms {
            let mut text = i.to_owned();
            if term.div != 1 {
                text = self.division("quotient", &text, term.div);
            }
            if let Some(size) = term.size {
                let divisor = self.arg_for(size);
                text = self.division("remainder", &format!("{text}, {divisor}"), size);
            }
            if term.stride != 1 {
                text = format!("{text} * {}", self.arg_for(term.stride));
            }
            sum.push(text);
        }
        sum.join(" + ")
    }

    /// A call of `quotient(text, ...)` or `remainder(text, ...)` of `scalar.wgsl` with a known divisor.
    fn division(&mut self, function: &str, text: &str, by: usize) -> String {
        let [multiplier, shift] = reciprocal(by).map(|word| self.arg(word));
        format!("{function}({text}, vec2({multiplier}, {shift}))")
    }

    fn arg_for(&mut self, number: usize) -> String {
        self.arg(number as u32)
    }

    /// The declarations of all bindings, with `args` at binding `first`.
    fn declarations(&self, first: usize, vectors: impl Fn(usize) -> bool) -> String {
        let prefix = self.prefix;
        let words = self.args.len().div_ceil(4).max(1);
        let mut text = format!("@group(0) @binding({first}) var<uniform> {prefix}args: array<vec4<u32>, {words}>;\n");
        for (number, operand) in self.operands.iter().enumerate() {
            let access = if operand.write { "read_write" } else { "read" };
            let dtype = self.ty(operand).dtype;
            let word = dtype.wgsl_storage();
            let element = match 4 / dtype.per_word() {
                words if words > 1 && vectors(number) => format!("vec{words}<{word}>"),
                _ => word.to_owned(),
            };
            let binding = first + 1 + number;
            let _ = writeln!(
                text,
                "@group(0) @binding({binding}) var<storage, {access}> {prefix}x{number}: array<{element}>;"
            );
        }
        if !self.scalars.is_empty() {
            let (binding, words) = (first + 1 + self.operands.len(), self.scalars.len().div_ceil(4));
            let _ = writeln!(
                text,
                "@group(0) @binding({binding}) var<uniform> {prefix}scalars: array<vec4<u32>, {words}>;"
            );
        }
        text
    }

    /// The parameters of `element`: the loaded values.
    fn parameters(&self) -> String {
        self.loads.iter().map(|(name, _, _, dtype)| format!(", {name}: {}", wgsl_value(*dtype))).collect()
    }

    /// Loads for the four elements `i0` to `i3` (the vec4 at index `quad`), and the resulting arguments of
    /// `element` for each.
    fn four(&mut self, quad: &str) -> (String, [String; 4]) {
        let prefix = self.prefix;
        let mut text = String::new();
        let mut arguments: [String; 4] = Default::default();
        for (number, (_, operand, access, dtype)) in self.loads.clone().iter().enumerate() {
            let vector = !self.scattered[*operand];
            let words: [String; 4] = match access.of_four() {
                Four::Vector if dtype.is_narrow() => {
                    let at = match access {
                        Access::Flat => quad.to_owned(),
                        strided => format!("({}) / 4u", self.position(strided, "i0")),
                    };
                    let x = format!("{prefix}x{operand}");
                    let _ = writeln!(text, "  let q{number} = {at};");
                    let q = format!("q{number}");
                    let loaded = match (dtype.per_word(), vector) {
                        (4, _) => format!("unpack_{dtype}({x}[{q}])"),
                        (_, true) => {
                            let _ = writeln!(text, "  let w{number} = {x}[{q}];");
                            format!("vec4(unpack_{dtype}(w{number}.x), unpack_{dtype}(w{number}.y))")
                        }
                        (_, false) => {
                            format!("vec4(unpack_{dtype}({x}[2u * {q}]), unpack_{dtype}({x}[2u * {q} + 1u]))")
                        }
                    };
                    let _ = writeln!(text, "  let l{number} = {loaded};");
                    ["x", "y", "z", "w"].map(|component| format!("l{number}.{component}"))
                }
                Four::Vector if vector => {
                    let at = match access {
                        Access::Flat => quad.to_owned(),
                        strided => format!("({}) / 4u", self.position(strided, "i0")),
                    };
                    let _ = writeln!(text, "  let l{number} = {prefix}x{operand}[{at}];");
                    ["x", "y", "z", "w"].map(|component| format!("l{number}.{component}"))
                }
                Four::Same => {
                    let position = self.position(access, "i0");
                    let _ = writeln!(text, "  let l{number} = {};", element(*dtype, prefix, *operand, &position));
                    [0; 4].map(|_| format!("l{number}"))
                }
                _ => {
                    let position = self.position(access, "$i");
                    [0, 1, 2, 3].map(|k| {
                        let at = position.replace("$i", &format!("i{k}"));
                        let _ = writeln!(text, "  let l{number}_{k} = {};", element(*dtype, prefix, *operand, &at));
                        format!("l{number}_{k}")
                    })
                }
            };
            for (argument, word) in arguments.iter_mut().zip(words) {
                let _ = write!(argument, ", {}", unpack(*dtype, &word));
            }
        }
        (text, arguments)
    }

    fn ty(&self, operand: &Operand) -> &TensorType {
        self.group.layout.ty(operand.origin.value())
    }

    fn finish(mut self, text: String) -> Generated {
        self.args.resize(self.args.len().next_multiple_of(4).max(4), 0);
        Generated { text, args: self.args, operands: self.operands, scalars: self.scalars }
    }
}

/// The function of `scalar.wgsl` that a pointwise node calls, such as `add_f32`; the suffix is the type of the last
/// input.
pub(crate) fn function(nodes: &Nodes, node: usize, call: &Pointwise) -> String {
    let node = &nodes.nodes[node];
    let dtype = node.inputs.last().map_or(node.outputs[0].dtype, |&id| nodes.ty(id).dtype);
    format!("{}_{}", call.function, dtype.wide())
}

/// Workgroup size and vec4s per invocation of generated kernels.
pub(super) const WORKGROUP: u32 = 64;
const QUADS: u32 = 4;

/// Workgroups of a generated kernel that a multiprocessor runs at the same time (2,048 invocations on NVIDIA).
const RESIDENT: f64 = 32.0;

/// The number of vec4s that a workgroup handles, of `n` elements: [`QUADS`] per invocation, or one if a GPU runs all of
/// them at the same time.
fn quads_per_workgroup(n: usize, profile: &Profile) -> u32 {
    let at_once = Machine::of(profile).fill(RESIDENT) * f64::from(4 * WORKGROUP);
    if !profile.software && n as f64 <= at_once { WORKGROUP } else { WORKGROUP * QUADS }
}

/// The number of workgroups of a generated kernel over `n` elements.
pub(crate) fn workgroups(n: usize, profile: &Profile) -> u64 {
    (n as u64).div_ceil(4 * u64::from(quads_per_workgroup(n, profile)))
}

/// A kernel over `n` elements: each invocation handles up to [`QUADS`] groups of four consecutive elements. An
/// operand whose four elements are always adjacent is bound as an array of `vec4`. If all four read the
/// same element, it is loaded once; otherwise each is loaded separately.
pub(crate) fn kernel(group: &Group<'_>, n: usize, profile: &Profile) -> Generated {
    let mut w = Writer::new(group, "", vec![n as u32, quads_per_workgroup(n, profile)]);
    w.members();
    let stores: Vec<(String, usize, DType)> = group
        .stores
        .iter()
        .map(|origin| {
            let expression = w.stored(origin);
            let dtype = group.layout.ty(origin.value()).dtype;
            (expression, w.operand(origin, true), dtype)
        })
        .collect();
    let mut text = String::from("struct Results {\n");
    for (number, (_, _, dtype)) in stores.iter().enumerate() {
        let _ = writeln!(text, "  r{number}: {},", result(*dtype));
    }
    let results: Vec<String> = stores.iter().map(|(expression, _, dtype)| pack(*dtype, expression)).collect();
    let _ = write!(
        text,
        "}}\n\nfn element(i: u32{}) -> Results {{\n{}  return Results({});\n}}\n\n",
        w.parameters(),
        w.body,
        results.join(", ")
    );

    let mut quad = String::from("fn quad(q: u32) {\n  let n = args[0].x;\n  let i0 = 4u * q;\n");
    // If `n` is a multiple of 4, omit the code for a partial group: masked stores are slower.
    let whole = n.is_multiple_of(4);
    for k in 1..4 {
        let number = if whole { format!("i0 + {k}u") } else { format!("min(i0 + {k}u, n - 1u)") };
        let _ = writeln!(quad, "  let i{k} = {number};");
    }
    let (loads, arguments) = w.four("q");
    quad.push_str(&loads);
    for (k, arguments) in arguments.iter().enumerate() {
        let _ = writeln!(quad, "  let e{k} = element(i{k}{arguments});");
    }
    let scattered = w.scattered.clone();
    quad.push_str(&store_quad(&stores, &scattered, whole));
    quad.push_str("}\n\n");

    // Whether the invocation has the quad. One text for launches of all sizes needs one pipeline.
    let has = if profile.software { "q < quads" } else { "k < args[0].y && q < quads" };
    let body = format!(
        "{text}{quad}@compute @workgroup_size({WORKGROUP})\nfn pointwise(\n  @builtin(workgroup_id) group: vec3<u32>,\n  \
         @builtin(num_workgroups) groups: vec3<u32>,\n  @builtin(local_invocation_index) lane: u32,\n) {{\n  \
         let first = group_number(group, groups) * args[0].y + lane;\n  let quads = (args[0].x + 3u) / 4u;\n  \
         for (var k = 0u; k < {}u; k += {WORKGROUP}u) {{\n    let q = first + k;\n    \
         if ({has}) {{ quad(q); }}\n  }}\n}}\n",
        WORKGROUP * QUADS
    );
    let declared = w.declarations(0, |operand| !scattered[operand]);
    w.finish(format!("{}{declared}\n{body}", header(group)))
}

/// The function of a kernel's slot for fused ops, with its declarations from binding `first` on.
pub(crate) fn fused(group: &Group<'_>, slot: Fused, width: Width, first: usize) -> Generated {
    match width {
        Width::One => fused_one(group, slot, first),
        Width::Four => fused_four(group, slot, first),
    }
}

/// What precedes the names of a slot's bindings and helpers.
fn prefix(slot: Fused) -> &'static str {
    match slot {
        Fused::Prologue => "p_",
        Fused::Epilogue => "e_",
    }
}

fn fused_one(group: &Group<'_>, slot: Fused, first: usize) -> Generated {
    let (function, prefix) = (slot.function(Width::One), prefix(slot));
    let mut w = Writer::new(group, prefix, Vec::new());
    w.members();
    let mut stores = String::new();
    for origin in group.stores {
        let expression = w.stored(origin);
        let operand = w.operand(origin, true);
        let dtype = match origin {
            Origin::Value(id) | Origin::Copy(id) => group.layout.ty(*id).dtype,
        };
        let _ = writeln!(stores, "  {prefix}x{operand}[i] = {};", pack(dtype, &expression));
    }
    let returned = group.returns.map_or_else(|| "v".into(), |id| w.stored(&Origin::Value(id)));
    let mut loads = String::new();
    for (name, operand, access, dtype) in w.loads.clone() {
        let position = w.position(&access, "i");
        let word = element(dtype, prefix, operand, &position);
        let _ = writeln!(loads, "  let {name} = {};", unpack(dtype, &word));
    }
    let body = format!("{loads}{}{stores}", w.body);
    let declared = w.declarations(first, |_| false);
    w.finish(format!("{declared}fn {function}(v: f32, i: u32) -> f32 {{\n{body}  return {returned};\n}}"))
}

fn fused_four(group: &Group<'_>, slot: Fused, first: usize) -> Generated {
    let (function, prefix) = (slot.function(Width::Four), prefix(slot));
    let mut w = Writer::new(group, prefix, Vec::new());
    w.members();
    let returned = group.returns.map_or_else(|| "v".into(), |id| w.stored(&Origin::Value(id)));
    let (mut members, mut results, mut stores) = ("  r: f32,\n".to_owned(), returned, String::new());
    for (number, origin) in group.stores.iter().enumerate() {
        let expression = w.stored(origin);
        let operand = w.operand(origin, true);
        let dtype = w.ty(&w.operands[operand]).dtype;
        let _ = writeln!(members, "  r{number}: {},", result(dtype));
        let _ = write!(results, ", {}", pack(dtype, &expression));
        if dtype.is_narrow() {
            let words = packed_quad(dtype, number);
            stores.push_str(&store_words(&format!("{prefix}x{operand}"), "i0 / 4u", &words, w.scattered[operand]));
        } else if w.scattered[operand] {
            for k in 0..4 {
                let _ = writeln!(stores, "  {prefix}x{operand}[i{k}] = e{k}.r{number};");
            }
        } else {
            let [e0, e1, e2, e3] = [0, 1, 2, 3].map(|k| format!("e{k}.r{number}"));
            let _ = writeln!(stores, "  {prefix}x{operand}[i0 / 4u] = vec4({e0}, {e1}, {e2}, {e3});");
        }
    }
    let (loads, arguments) = w.four("i0 / 4u");
    let parameters = w.parameters();
    let element = format!(
        "v: f32, i: u32{parameters}) -> {prefix}Results {{\n{}  return {prefix}Results({results});\n}}",
        w.body
    );
    let mut body = String::from("  let i1 = i0 + 1u;\n  let i2 = i0 + 2u;\n  let i3 = i0 + 3u;\n") + &loads;
    for (k, arguments) in arguments.iter().enumerate() {
        let _ = writeln!(body, "  let e{k} = {prefix}element(v[{k}], i{k}{arguments});");
    }
    let text = format!(
        "struct {prefix}Results {{\n{members}}}\nfn {prefix}element({element}\n\
         fn {function}(v: vec4<f32>, i0: u32) -> vec4<f32> {{\n{body}{stores}  return vec4(e0.r, e1.r, e2.r, e3.r);\n}}"
    );
    let scattered = w.scattered.clone();
    let declared = w.declarations(first, |operand| !scattered[operand]);
    w.finish(format!("{declared}{text}"))
}

/// A WGSL comment that says what the group computes.
fn header(group: &Group<'_>) -> String {
    let what = "pointwise over n = args[0].x elements, four neighbours at a time";
    format!("// {}: {what}; a workgroup has args[0].y times four.\n", label(group))
}

/// The names of the members in order, such as `add + relu`; abbreviated if there are more than six.
pub(crate) fn label(group: &Group<'_>) -> String {
    let names: Vec<&str> = group.members.iter().map(|&node| group.layout.node(node).name()).collect();
    match names[..] {
        [] => "copy".into(),
        [first, second, .., last] if names.len() > 6 => {
            format!("{first} + {second} + ... + {last} ({} ops)", names.len())
        }
        _ => names.join(" + "),
    }
}
