//! `wgrad onnx`: inspects, runs, checks and times ONNX models, and runs ONNX's tests of operators.

mod node_tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value as Json, json};
use wgrad::io::safetensors;
use wgrad::plan::{Options, Plan};
use wgrad::{Device, Graph, OpenOptions, Profile, Session};
use wgrad_lab::output::{self, Out, Stop};
use wgrad_onnx::{BuildOptions, Constant, ElemType, Model, Port, Prepared};

#[derive(clap::Args)]
pub struct OnnxArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show a model: inputs, outputs, operators, parameters, memory, and what is not supported
    Inspect {
        #[command(flatten)]
        model: ModelArgs,
        /// Also list the nodes, with their inputs and the types of their outputs
        #[arg(long)]
        nodes: bool,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Run a model
    Run {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        inputs: InputArgs,
        /// Write the outputs to this safetensors file
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Compare the outputs with those of this safetensors file
        #[arg(long, value_name = "FILE")]
        expect: Option<PathBuf>,
        /// How much an output may differ from the expected one: a share of the largest expected number, and 1e-6
        #[arg(long, default_value_t = 1e-4, requires = "expect")]
        tolerance: f64,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Compare every kernel call of a model with the f64 reference; the first wrong one is named by its node
    Check {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        inputs: InputArgs,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Time a model
    Bench {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        inputs: InputArgs,
        /// Seconds to measure for
        #[arg(long, value_parser = output::seconds, default_value = "2")]
        seconds: f64,
        /// Also show where the time goes, kernel call by kernel call
        #[arg(long)]
        profile: bool,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
    /// Run ONNX's tests of operators: folders with model.onnx and test_data_set_0
    Test {
        /// The folder of the tests
        folder: PathBuf,
        /// Only tests whose name contains this; with `*` it must match the whole name
        #[arg(long, value_name = "PATTERN")]
        name: Option<String>,
        /// Adapter: a number from `wgrad devices`, part of a name, or `cpu`; several for a comparison
        #[arg(long = "device", value_name = "DEVICE")]
        devices: Vec<String>,
        /// List every test, not only those that failed
        #[arg(long)]
        all: bool,
        /// A table by operator in Markdown (docs/ONNX.md has it)
        #[arg(long, conflicts_with = "json")]
        markdown: bool,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct ModelArgs {
    /// The ONNX file
    model: PathBuf,
    /// The size of a symbolic axis: batch=8. Others have the size 1
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = dim)]
    dims: Vec<(String, usize)>,
    /// The shape of an input: x=1x3x48x192
    #[arg(long = "shape", value_name = "NAME=SHAPE", value_parser = shape)]
    shapes: Vec<(String, Vec<usize>)>,
    /// The value of an input, which becomes part of the program: sr=16000, or sizes=1,3,48 for a list
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = value)]
    values: Vec<(String, Vec<f64>)>,
}

#[derive(clap::Args)]
struct InputArgs {
    /// Inputs from a safetensors file: all tensors by name, or NAME=FILE for one input. Others are random
    #[arg(long = "input", value_name = "[NAME=]FILE")]
    inputs: Vec<String>,
    /// Adapter: a number from `wgrad devices`, part of a name, or `cpu`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
}

fn dim(text: &str) -> Result<(String, usize), String> {
    let parsed = text.split_once('=').and_then(|(name, size)| Some((name.to_owned(), size.parse().ok()?)));
    parsed.ok_or_else(|| "expected NAME=SIZE, such as batch=8".to_owned())
}

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let sizes = |text: &str| text.split('x').map(|size| size.parse().ok()).collect::<Option<Vec<usize>>>();
    // Names may contain `=`.
    let parsed = text.rsplit_once('=').and_then(|(name, text)| Some((name.to_owned(), sizes(text)?)));
    parsed.ok_or_else(|| "expected NAME=SIZExSIZE..., such as x=1x3x48x192".to_owned())
}

fn value(text: &str) -> Result<(String, Vec<f64>), String> {
    let numbers = |text: &str| text.split(',').map(|number| number.parse().ok()).collect::<Option<Vec<f64>>>();
    let parsed = text.rsplit_once('=').and_then(|(name, text)| Some((name.to_owned(), numbers(text)?)));
    parsed.ok_or_else(|| "expected NAME=NUMBER or NAME=NUMBER,NUMBER,..., such as sr=16000".to_owned())
}

pub fn run(args: &OnnxArgs, out: &mut Out) -> Result<bool, Stop> {
    match &args.command {
        Command::Inspect { model, nodes, json } => inspect(model, *nodes, *json, out),
        Command::Run { model, inputs, output, expect, tolerance, json } => {
            let expected = expect.as_deref().map(|file| (file, *tolerance));
            execute(model, inputs, output.as_deref(), expected, *json, out)
        }
        Command::Check { model, inputs, json } => check(model, inputs, *json, out),
        Command::Bench { model, inputs, seconds, profile, json } => {
            bench(model, inputs, *seconds, *profile, *json, out)
        }
        Command::Test { folder, name, devices, all, markdown, json } => {
            use node_tests::Shown;
            let shown = match (json, markdown, all) {
                (true, ..) => Shown::Json,
                (_, true, _) => Shown::Markdown,
                (.., true) => Shown::All,
                _ => Shown::Failures,
            };
            node_tests::run(folder, name.as_deref(), devices, shown, out)
        }
    }
}

impl ModelArgs {
    fn load(&self) -> Result<(Model, BuildOptions), Stop> {
        let model = Model::load(&self.model)?;
        let symbols = model.symbols();
        if let Some((name, _)) = self.dims.iter().find(|(name, _)| !symbols.contains(name)) {
            let known =
                if symbols.is_empty() { "none".into() } else { symbols.into_iter().collect::<Vec<_>>().join(", ") };
            return Err(Stop::Error(format!(
                "the model has no axis of the open size `{name}`; it has {known}. Set sizes without a name with --shape"
            )));
        }
        let mut options = BuildOptions::new().default_dim(1);
        for (name, size) in &self.dims {
            options = options.dim(name, *size);
        }
        let ports = model.inputs();
        let port = |name: &str| {
            let names = || ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
            let found = ports.iter().find(|port| port.name == name);
            found.ok_or_else(|| Stop::Error(format!("the model has no input `{name}`; it has {}", names())))
        };
        for (name, shape) in &self.shapes {
            port(name)?;
            options = options.shape(name, shape.clone());
        }
        for (name, values) in &self.values {
            let ty = port(name)?.elem_type.clone().map_err(|what| format!("input `{name}`: {what}"))?;
            let shape =
                options.shape_of(port(name)?).ok().filter(|shape| shape.iter().product::<usize>() == values.len());
            let shape = shape.unwrap_or_else(|| vec![values.len()]);
            options = options.constant(name, constant(ty, shape, values)?);
        }
        Ok((model, options))
    }
}

// ---- inspect

fn inspect(args: &ModelArgs, nodes: bool, as_json: bool, out: &mut Out) -> Result<bool, Stop> {
    let (model, options) = args.load()?;
    let graph = Graph::new();
    let built = model.try_build(&graph, &options);
    // Parameters and arithmetic of the model as it is, kernel calls and memory as for inference.
    let plan = match &built {
        Ok(built) => {
            let (folded, profile) = (Graph::new(), Profile::webgpu_defaults());
            let outputs = model.build(&folded, &options.clone().inference())?;
            let (plan, _) = Plan::of(&folded, &outputs.values(), &profile, &Options::default())?;
            Some((plan, graph.summary(&built.values())?))
        }
        Err(_) => None,
    };
    let nodes: Vec<String> = match nodes {
        true => model.nodes().iter().map(|node| node.describe(built.as_ref().ok())).collect(),
        false => Vec::new(),
    };
    let mut problems: Vec<String> = built.err().unwrap_or_default().iter().map(ToString::to_string).collect();
    let guessed = options.guessed(&model);
    if !problems.is_empty() && !guessed.is_empty() {
        problems.push(guess(&guessed));
    }
    let ports = |ports: Vec<Port>| ports.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (inputs, outputs) = (ports(model.inputs()), ports(model.outputs()));
    if as_json {
        let figures = plan.as_ref().map(|(plan, summary)| {
            json!({
                "parameters": summary.parameters(), "multiply_adds": summary.multiply_adds(),
                "kernel_calls": plan.calls.len(), "bytes": plan.total_bytes(), "temporary_bytes": plan.temporary_bytes(),
            })
        });
        let report = json!({
            "producer": model.producer(), "opsets": model.opsets(), "metadata": model.metadata(), "inputs": inputs,
            "outputs": outputs, "operators": model.operators(), "figures": figures, "problems": problems, "nodes": nodes,
        });
        out.line(format!("{report:#}"))?;
        return Ok(problems.is_empty());
    }
    let opsets: Vec<String> = model
        .opsets()
        .iter()
        .map(
            |(domain, version)| {
                if domain.is_empty() { format!("opset {version}") } else { format!("{domain} {version}") }
            },
        )
        .collect();
    out.line(format!("{}: {}, {}", args.model.display(), opsets.join(", "), model.producer()))?;
    for (what, list) in [("input", inputs), ("output", outputs)] {
        for port in list {
            out.line(format!("{what:<7} {port}"))?;
        }
    }
    let operators: Vec<String> = model.operators().iter().map(|(name, count)| format!("{name} {count}")).collect();
    out.line(format!("operators: {}", operators.join(", ")))?;
    if let Some((plan, summary)) = plan {
        out.line(format!(
            "{} parameters, {:.3} G multiply-adds, {} kernel calls; {:.1} MiB on the device, {:.1} MiB of it for \
             intermediate values",
            summary.parameters(),
            summary.multiply_adds() as f64 / 1e9,
            plan.calls.len(),
            plan.total_bytes() as f64 / 1048576.0,
            plan.temporary_bytes() as f64 / 1048576.0,
        ))?;
    }
    nodes.iter().try_for_each(|node| out.line(node))?;
    for problem in &problems {
        out.line(format!("problem: {problem}"))?;
    }
    Ok(problems.is_empty())
}

// ---- inputs

/// Numbers in a tensor: wgrad's limit.
const MOST: usize = (1 << 31) - 1;

/// A tensor of any type from numbers.
fn constant(ty: ElemType, shape: Vec<usize>, values: &[f64]) -> Result<Constant, Stop> {
    if ty.is_float() {
        return Ok(Constant::from_floats(ty, shape, values.to_vec())?);
    }
    if let Some(wrong) = values.iter().find(|value| value.fract() != 0.0) {
        return Err(Stop::Error(format!("{wrong} is no {ty}")));
    }
    Ok(Constant::from_ints(ty, shape, values.iter().map(|&value| value as i64).collect())?)
}

/// The inputs of a model: from files, or random.
fn inputs_of(model: &Model, args: &InputArgs, options: &BuildOptions) -> Result<BTreeMap<String, Constant>, Stop> {
    let ports = model.inputs();
    let mut found = BTreeMap::new();
    for text in &args.inputs {
        let named = text.split_once('=').filter(|(name, _)| ports.iter().any(|port| port.name == *name));
        let (name, file) = named.map_or((None, text.as_str()), |(name, file)| (Some(name), file));
        let tensors = safetensors::load(file)?;
        let one = tensors.len() == 1;
        let names: Vec<String> = tensors.iter().map(|(name, tensor)| format!("`{name}` ({})", tensor.ty())).collect();
        let mut used = false;
        for (key, tensor) in tensors {
            let key = key.strip_prefix("input.").unwrap_or(&key).to_owned();
            let name = match name {
                Some(name) if one || key == name => name.to_owned(),
                Some(_) => continue,
                None => key,
            };
            if let Some(port) = ports.iter().find(|port| port.name == name) {
                let ty = port.elem_type.clone().map_err(|what| format!("input `{name}`: {what}"))?;
                found.insert(name, Constant::of_tensor(ty, tensor));
                used = true;
            }
        }
        if !used {
            let inputs: Vec<String> = ports.iter().map(ToString::to_string).collect();
            let (names, inputs) = (names.join(", "), inputs.join(", "));
            return Err(Stop::Error(format!(
                "{file} has no input of the model: it has {names}; the inputs are {inputs}"
            )));
        }
    }
    // Random numbers from 0 to 1, of which integers are 0: indices that are valid everywhere.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    for port in ports {
        if !found.contains_key(&port.name) && !options.is_set(&port.name) {
            let ty = port.elem_type.clone().map_err(|what| format!("input `{}`: {what}", port.name))?;
            let shape = options.shape_of(&port)?;
            let count = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).filter(|&n| n <= MOST);
            let count = count.ok_or_else(|| format!("input `{}` of shape {shape:?} is too large", port.name))?;
            let values: Vec<f64> = (0..count).map(|_| if ty.is_float() { random() } else { 0.0 }).collect();
            let what = if ty.is_float() { "random numbers from 0 to 1" } else { "0" };
            output::note(format!("input `{}` is not given: {what} {ty}{shape:?}", port.name));
            found.insert(port.name, constant(ty, shape, &values)?);
        }
    }
    Ok(found)
}

/// How to give the sizes that were taken as 1.
fn guess(ports: &[Port]) -> String {
    let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let name = &ports[0].name;
    format!(
        "open sizes were taken as 1: {}; give them with --shape {name}=1x3x... or, if they have a name, --dim NAME=SIZE",
        list.join(", ")
    )
}

struct Ready {
    prepared: Prepared,
    session: Session,
    program: wgrad::Program,
    build_seconds: f64,
    compile_seconds: f64,
}

fn prepare(model: &ModelArgs, inputs: &InputArgs, needs_gpu: bool) -> Result<Ready, Stop> {
    let started = Instant::now();
    let (model, options) = model.load()?;
    let options = options.inference();
    let inputs_ = inputs_of(&model, inputs, &options)?;
    let prepared = model.prepare(&inputs_, &options).map_err(|error| match &options.guessed(&model)[..] {
        [] => Stop::from(error),
        guessed if inputs.inputs.is_empty() => Stop::Error(format!("{error}\n{}", guess(guessed))),
        _ => Stop::from(error),
    })?;
    let build_seconds = started.elapsed().as_secs_f64();
    let device = match needs_gpu {
        true => output::open_gpu_with(inputs.device.as_deref(), &OpenOptions::default())?,
        false => Device::open(inputs.device.as_deref())?,
    };
    output::note(format!("device: {device}"));
    for name in &prepared.fixed {
        output::note(format!("input `{name}` decides about shapes: its value is part of the program"));
    }
    let mut session = Session::new(device);
    let started = Instant::now();
    let program = prepared.compile(&mut session)?;
    let compile_seconds = started.elapsed().as_secs_f64();
    Ok(Ready { prepared, session, program, build_seconds, compile_seconds })
}

// ---- run

fn describe(name: &str, value: &Constant) -> Json {
    let values = value.to_floats();
    let finite = || values.iter().copied().filter(|x| x.is_finite());
    json!({
        "name": name, "type": value.elem_type().to_string(), "shape": value.shape(),
        "min": finite().fold(f64::INFINITY, f64::min), "max": finite().fold(f64::NEG_INFINITY, f64::max),
        "mean": finite().sum::<f64>() / finite().count().max(1) as f64, "not_finite": values.len() - finite().count(),
        "first": &values[..values.len().min(8)],
    })
}

/// The largest difference to the expected values, and the largest of these.
fn difference(found: &Constant, expected: &[f64]) -> Result<(f64, f64), String> {
    let found = found.to_floats();
    if found.len() != expected.len() {
        return Err(format!("it has {} numbers, expected {}", found.len(), expected.len()));
    }
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let differs = |(x, y): (&f64, &f64)| if x == y || (x.is_nan() && y.is_nan()) { 0.0 } else { (x - y).abs() };
    // NaN on one side alone counts as infinite.
    let worst = found
        .iter()
        .zip(expected)
        .map(differs)
        .fold(0.0, |most: f64, x| if x.is_nan() { f64::INFINITY } else { most.max(x) });
    Ok((worst, largest))
}

fn execute(
    model: &ModelArgs,
    inputs: &InputArgs,
    file: Option<&Path>,
    expected: Option<(&Path, f64)>,
    as_json: bool,
    out: &mut Out,
) -> Result<bool, Stop> {
    let mut ready = prepare(model, inputs, false)?;
    let outputs = ready.prepared.run(&mut ready.session, &ready.program)?;
    if let Some(file) = file {
        let tensors = outputs.iter().map(|(name, value)| Ok((name.clone(), (*value.to_tensor()?).clone())));
        safetensors::save(file, &tensors.collect::<Result<_, String>>()?, &BTreeMap::new())?;
    }
    let mut described: Vec<Json> = outputs.iter().map(|(name, value)| describe(name, value)).collect();
    let mut agrees = true;
    let mut lines = Vec::new();
    for ((name, value), figures) in outputs.iter().zip(&described) {
        let numbers: Vec<String> = value.to_floats().iter().take(8).map(|x| format!("{x:.6}")).collect();
        let more = if value.shape().iter().product::<usize>() > 8 { ", ..." } else { "" };
        lines.push(format!("{name}: {}{:?} = {}{more}", value.elem_type(), value.shape(), numbers.join(", ")));
        lines.push(format!("  from {} to {}, mean {}", figures["min"], figures["max"], figures["mean"]));
    }
    if let Some((file, tolerance)) = expected {
        let known = safetensors::load(file)?;
        for ((name, value), figures) in outputs.iter().zip(&mut described) {
            let tensor = known.get(&format!("output.{name}")).or_else(|| known.get(name));
            let tensor = tensor.ok_or_else(|| format!("{} has no output `{name}`", file.display()))?;
            let (worst, largest) =
                difference(value, &tensor.to_f64()).map_err(|why| format!("output `{name}`: {why}"))?;
            let share = worst / largest.max(f64::MIN_POSITIVE);
            let good = worst <= tolerance * largest + 1e-6;
            agrees &= good;
            figures["difference"] = json!({"largest": worst, "share": share, "agrees": good});
            let verdict = if good { "agrees" } else { "DIFFERS" };
            lines.push(format!(
                "{name} {verdict}: at most {worst:.2e} off, {share:.1e} of the largest number, {largest:.4}"
            ));
        }
    }
    if as_json {
        out.line(format!("{:#}", json!({ "outputs": described })))?;
    } else {
        lines.iter().try_for_each(|line| out.line(line))?;
    }
    Ok(agrees)
}

// ---- check

fn check(model: &ModelArgs, inputs: &InputArgs, as_json: bool, out: &mut Out) -> Result<bool, Stop> {
    let mut ready = prepare(model, inputs, true)?;
    let (_, report) = ready.session.run_checked(&ready.program, &ready.prepared.feeds())?;
    let node = report.divergence.as_ref().and_then(|divergence| {
        let call = &ready.program.plan().calls[divergence.number.0];
        let written = call.writes.first()?;
        ready.prepared.built.origin(written.value.node).map(str::to_owned)
    });
    let (calls, compared, passed) = (report.calls.len(), report.compared(), report.passed() && report.compared() > 0);
    if as_json {
        let worst =
            report.worst().map(|(call, element)| json!({"kernel_call": call.label, "share_of_bound": element.ratio()}));
        let divergence = report.divergence.as_ref().map(|found| json!({"node": node, "report": found.to_string()}));
        let report = json!({"passed": passed, "kernel_calls": calls, "compared": compared, "worst": worst, "divergence": divergence});
        out.line(format!("{report:#}"))?;
        return Ok(passed);
    }
    if let Some(divergence) = &report.divergence {
        if let Some(node) = node {
            out.line(format!("wrong: the node `{node}`"))?;
        }
        out.line(divergence.to_string())?;
        return Ok(false);
    }
    out.line(format!("correct: {calls} kernel calls, {compared} numbers compared"))?;
    if let Some((call, element)) = report.worst() {
        out.line(format!("closest to its bound: {}, {:.0}% of it", call.label, 100.0 * element.ratio()))?;
    }
    Ok(passed)
}

// ---- bench

fn bench(
    model: &ModelArgs,
    inputs: &InputArgs,
    seconds: f64,
    profile: bool,
    as_json: bool,
    out: &mut Out,
) -> Result<bool, Stop> {
    let mut ready = prepare(model, inputs, false)?;
    let started = Instant::now();
    ready.prepared.run(&mut ready.session, &ready.program)?;
    let first = started.elapsed().as_secs_f64();
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.len() < 3 || begun.elapsed().as_secs_f64() < seconds {
        let started = Instant::now();
        ready.prepared.run(&mut ready.session, &ready.program)?;
        times.push(started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let (median, least) = (times[times.len() / 2], times[0]);
    let profile = match profile {
        true => Some(ready.session.profile(&ready.program, &ready.prepared.feeds())?),
        false => None,
    };
    let profile = profile.map(|mut profile| {
        // The layers of a model are its nodes.
        for launch in &mut profile.launches {
            let name = launch.node.and_then(|node| ready.prepared.built.origin(node));
            launch.layer = name.unwrap_or_default().to_owned();
        }
        profile
    });
    if as_json {
        let report = json!({
            "build_seconds": ready.build_seconds, "compile_seconds": ready.compile_seconds, "first_run_seconds": first,
            "median_seconds": median, "least_seconds": least, "runs": times.len(),
        });
        out.line(format!("{report:#}"))?;
    } else {
        out.line(format!("{:.3} ms (median of {} runs), {:.3} ms at least", median * 1e3, times.len(), least * 1e3))?;
        let (build, compile) = (ready.build_seconds * 1e3, ready.compile_seconds * 1e3);
        out.line(format!("read and build {build:.0} ms, compile {compile:.0} ms, first run {:.0} ms", first * 1e3))?;
        if let Some(profile) = profile {
            out.line(profile.to_string())?;
        }
    }
    Ok(true)
}
