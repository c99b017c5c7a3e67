//! The profile of a step: where its time goes, by launch, op and layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;

use serde_json::json;

use crate::graph::{NodeKind, Nodes, ValueId};
use crate::plan::{KernelCall, Plan};
use crate::trace::{chrome_process, chrome_span, chrome_trace, chrome_track};
use crate::{Error, Program, Result, Session, Tensor, TensorType, Trace};

/// Steps of which the median is taken.
const STEPS: usize = 5;

/// The time of a kernel call of a step. Example: [`StepProfile`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaunchTime {
    /// What it computes, such as `matmul.tile64 + add + relu`.
    pub label: String,
    /// The op of its kernel, and the kernel's variant. None if it only has fused elementwise ops.
    pub kernel: Option<(&'static str, &'static str)>,
    /// Its time, in seconds.
    pub seconds: f64,
    /// The bytes of the tensors that it reads and writes, each counted once.
    pub bytes: u64,
    /// The multiply-adds of its products and convolutions, twice: what FLOP/s count. 0 for other launches, which memory
    /// limits.
    pub flops: u64,
    /// The types of the tensors that it writes.
    pub writes: Vec<TensorType>,
    /// The line that made the op of its kernel; for a gradient, the line of the forward op.
    pub location: &'static Location<'static>,
    /// The node of the graph that is this op.
    pub node: Option<usize>,
    /// The layer it belongs to, the name of a parameter without the last part: `fc1` of `fc1.weight`. Empty if it
    /// belongs to none, or to several.
    pub layer: String,
}

/// How long the phases of a step take on the host, in seconds. Example: [`StepProfile`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Phases {
    /// Checking the feeds and handing them to the device.
    pub upload: f64,
    /// Recording the launches and submitting them.
    pub submit: f64,
    /// Waiting for the device and reading the outputs back.
    pub readback: f64,
}

impl Phases {
    /// All phases together.
    pub fn total(&self) -> f64 {
        self.upload + self.submit + self.readback
    }
}

/// Where the time of a step goes; see [`Session::profile`].
///
/// ```
/// use wgrad::{DType, Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let y = graph.input("x", DType::F32, [64]).exp();
/// let mut session = Session::new(Device::open(None)?);
/// let program = session.compile(&graph, &[&y])?;
/// if !session.device().is_cpu() {
///     let profile = session.profile(&program, &[("x", &Tensor::new([64], vec![1.0f32; 64])?)])?;
///     assert_eq!((profile.launches.len(), profile.launches[0].bytes), (1, 512));
///     println!("{profile}");
/// }
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepProfile {
    /// The device.
    pub device: String,
    /// Whether launches were timed by the device's timestamps. Otherwise each was submitted alone and waited for, which
    /// adds some tens of microseconds to each.
    pub timestamps: bool,
    /// The launches, in order.
    pub launches: Vec<LaunchTime>,
    /// The phases of an ordinary step on the host.
    pub host: Phases,
    /// The trace of some steps of a training, from [`Trainer::profile`](crate::train::Trainer::profile).
    pub training: Option<Trace>,
}

impl Session {
    /// Finds out where the time of a step goes: runs it five times as usual and times its phases on the host, and five
    /// times with one kernel call at a time, as [`Session::time_calls`], and takes the medians. These are steps like
    /// any others: a training step trains.
    ///
    /// ```no_run
    /// # use wgrad::{Device, Graph, Session};
    /// # let graph = Graph::new();
    /// # let mut session = Session::new(Device::open(None)?);
    /// # let program = session.compile(&graph, &[])?;
    /// let profile = session.profile(&program, &[])?;
    /// println!("{profile}"); // a table
    /// std::fs::write("trace.json", profile.to_chrome_trace()).expect("written"); // for ui.perfetto.dev
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Session::run`]; [`Error::Device`] if the session computes on the reference, which has no launches.
    pub fn profile(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<StepProfile> {
        if self.device().is_cpu() {
            return Err(Error::Device("the reference has no launches to profile; open a GPU device".into()));
        }
        self.alone(program, "a profile")?;
        let mut launches = launches(program.plan());
        let mut times = vec![Vec::new(); launches.len()];
        let mut phases = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..STEPS {
            let (outputs, trace) = Trace::record(|| self.run(program, feeds));
            outputs?;
            let [upload, submit] = ["upload", "submit"].map(|name| trace.seconds_of(name));
            let readback = trace.seconds - upload - submit;
            phases.iter_mut().zip([upload, submit, readback]).for_each(|(all, seconds)| all.push(seconds));
            for (times, call) in times.iter_mut().zip(self.time_calls(program, feeds)?) {
                times.push(call.seconds);
            }
        }
        launches.iter_mut().zip(times).for_each(|(launch, times)| launch.seconds = median(times));
        let [upload, submit, readback] = phases.map(median);
        let profile = self.device().profile();
        Ok(StepProfile {
            device: self.device().to_string(),
            timestamps: profile.timestamps && !profile.software,
            launches,
            host: Phases { upload, submit, readback },
            training: None,
        })
    }
}

/// The kernel calls of a plan, with times of 0.
pub(crate) fn launches(plan: &Plan) -> Vec<LaunchTime> {
    let layers = Layers::of(&plan.nodes);
    plan.calls.iter().map(|call| layers.launch(call)).collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// The layers of a graph.
struct Layers<'n> {
    nodes: &'n Nodes,
    /// Names of the parameters.
    parameters: Vec<&'n str>,
    /// The layers whose parameters are read by ops of a line.
    by_line: BTreeMap<&'static Location<'static>, BTreeSet<&'n str>>,
}

impl<'n> Layers<'n> {
    fn of(nodes: &'n Nodes) -> Layers<'n> {
        let trainable = nodes.variables.iter().filter(|variable| variable.trainable);
        let parameters = trainable.map(|variable| variable.name.as_str()).collect();
        let mut layers = Layers { nodes, parameters, by_line: BTreeMap::new() };
        for node in &nodes.nodes {
            let read: Vec<&str> = node.inputs.iter().filter_map(|id| layers.of_value(*id)).collect();
            layers.by_line.entry(node.location).or_default().extend(read);
        }
        layers
    }

    /// The layer of a variable: that of a parameter, or of optimiser state, `fc1.weight.adam.m`.
    fn of_value(&self, id: ValueId) -> Option<&'n str> {
        let NodeKind::Variable(name) = &self.nodes.nodes[id.node].kind else { return None };
        let is_of = |parameter: &&&'n str| {
            name.strip_prefix(**parameter).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let parameter = self.parameters.iter().filter(is_of).max_by_key(|parameter| parameter.len())?;
        Some(parameter.rsplit_once('.').map_or(*parameter, |(layer, _)| layer))
    }

    fn launch(&self, call: &KernelCall) -> LaunchTime {
        let nodes = &self.nodes.nodes;
        let computed = call.computed(self.nodes);
        let of_kernel = |id: &&ValueId| call.kernel.is_some_and(|(op, _)| nodes[id.node].name() == op);
        let written = call.writes.first().map(|stored| stored.value);
        let of = computed.iter().find(of_kernel).or(computed.last()).copied().or(written);
        let location = of.map_or(Location::caller(), |id| nodes[id.node].location);
        // Variables that it reads, else those of the line: a gradient has the line of its layer.
        let read: BTreeSet<&str> = call.reads.iter().filter_map(|stored| self.of_value(stored.value)).collect();
        let line = || self.by_line.get(location).cloned().unwrap_or_default();
        let layers = if read.is_empty() { line() } else { read };
        let layer = if layers.len() == 1 { layers.into_iter().collect() } else { String::new() };
        let values: BTreeMap<ValueId, usize> =
            call.reads.iter().chain(&call.writes).map(|stored| (stored.value, stored.ty.bytes())).collect();
        let multiply_adds: u64 = (computed.iter().filter(|id| id.output == 0))
            .filter_map(|id| {
                let node = &nodes[id.node];
                let inputs: Vec<&TensorType> = node.inputs.iter().map(|input| self.nodes.ty(*input)).collect();
                Some(node.op()?.multiply_adds(&inputs, &node.outputs))
            })
            .sum();
        LaunchTime {
            label: call.label.clone(),
            flops: 2 * multiply_adds,
            kernel: call.kernel,
            seconds: 0.0,
            bytes: values.values().map(|bytes| *bytes as u64).sum(),
            writes: call.writes.iter().map(|stored| stored.ty.clone()).collect(),
            location,
            node: of.map(|id| id.node),
            layer,
        }
    }
}

impl LaunchTime {
    /// The op of its kernel; `elementwise` if it only has fused elementwise ops.
    pub fn op(&self) -> &'static str {
        self.kernel.map_or("elementwise", |(op, _)| op)
    }

    /// Rates, in units of 1e9 per second.
    fn giga(&self, count: u64) -> f64 {
        count as f64 / self.seconds.max(1e-12) / 1e9
    }

    fn writes(&self) -> String {
        self.writes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl StepProfile {
    /// The sum of the launches, in seconds.
    pub fn seconds(&self) -> f64 {
        self.launches.iter().map(|launch| launch.seconds).sum()
    }

    /// Seconds and number of launches by op, longest first.
    pub fn by_op(&self) -> Vec<(String, f64, usize)> {
        self.by(|launch| launch.op().to_owned())
    }

    /// Seconds and number of launches by [layer](LaunchTime::layer), longest first.
    pub fn by_layer(&self) -> Vec<(String, f64, usize)> {
        self.by(|launch| launch.layer.clone())
    }

    fn by(&self, group: impl Fn(&LaunchTime) -> String) -> Vec<(String, f64, usize)> {
        let mut groups: BTreeMap<String, (f64, usize)> = BTreeMap::new();
        for launch in &self.launches {
            let (seconds, count) = groups.entry(group(launch)).or_default();
            *seconds += launch.seconds;
            *count += 1;
        }
        let mut groups: Vec<_> = groups.into_iter().map(|(name, (seconds, count))| (name, seconds, count)).collect();
        groups.sort_by(|a, b| b.1.total_cmp(&a.1));
        groups
    }

    /// The step in Chrome's trace format, for `ui.perfetto.dev` and `chrome://tracing`: a track for the phases on the
    /// host, one for the launches and one for their layers. Launches were timed one by one, so on their track they
    /// follow each other without gaps, from the end of the submission on. If a training was traced, its threads are a
    /// process of their own, with what each waits for.
    pub fn to_chrome_trace(&self) -> String {
        const PHASES: u32 = 1;
        const LAUNCHES: u32 = 2;
        const LAYERS: u32 = 3;
        let span = |track: u32, name: &str, start: f64, seconds: f64, details: serde_json::Value| {
            chrome_span(1, track, name, start, seconds, details)
        };
        let how = if self.timestamps { "launches, by timestamps" } else { "launches, each submitted alone" };
        let mut events = vec![
            chrome_process(1, &format!("a step on {}", self.device)),
            chrome_track(1, PHASES, "host"),
            chrome_track(1, LAUNCHES, how),
            chrome_track(1, LAYERS, "layers"),
        ];
        let Phases { upload, submit, readback } = self.host;
        events.push(span(PHASES, "check and upload", 0.0, upload, json!({})));
        events.push(span(PHASES, "record and submit", upload, submit, json!({})));
        events.push(span(PHASES, "wait and read back", upload + submit, readback, json!({})));
        let mut start = upload + submit;
        for launch in &self.launches {
            let details = json!({
                "op": launch.op(), "variant": launch.kernel.map(|(_, variant)| variant), "writes": launch.writes(),
                "layer": launch.layer, "line": launch.location.to_string(), "bytes": launch.bytes,
                "GB/s": launch.giga(launch.bytes), "flops": launch.flops, "GFLOP/s": launch.giga(launch.flops),
            });
            events.push(span(LAUNCHES, &launch.label, start, launch.seconds, details));
            if !launch.layer.is_empty() {
                events.push(span(LAYERS, &launch.layer, start, launch.seconds, json!({})));
            }
            start += launch.seconds;
        }
        events.extend(self.training.iter().flat_map(|trace| trace.chrome_events(2, "training")));
        chrome_trace(events)
    }
}

/// A table of the launches in order, and sums by op and by layer.
impl fmt::Display for StepProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phases { upload, submit, readback } = self.host;
        let how = if self.timestamps { "by timestamps" } else { "each submitted alone and waited for" };
        writeln!(f, "{}", self.device)?;
        writeln!(
            f,
            "step {} on the host: check and upload {}, record and submit {}, wait and read back {}",
            time(self.host.total()),
            time(upload),
            time(submit),
            time(readback)
        )?;
        writeln!(f, "{} launches {}, {how}\n", self.launches.len(), time(self.seconds()))?;
        let share = |seconds: f64| 100.0 * seconds / self.seconds().max(1e-12);
        writeln!(f, "{:>9} {:>5} {:>8} {:>8}  launch", "time", "share", "GB/s", "GFLOP/s")?;
        for launch in &self.launches {
            let rate = launch.giga(launch.bytes);
            let flops = if launch.flops == 0 { String::new() } else { format!("{:.1}", launch.giga(launch.flops)) };
            let (seconds, label, location) = (launch.seconds, &launch.label, launch.location);
            let layer = if launch.layer.is_empty() { String::new() } else { format!("{}, ", launch.layer) };
            let of = format!("{layer}{}:{}", location.file(), location.line());
            let (time, share, writes) = (time(seconds), share(seconds), launch.writes());
            writeln!(f, "{time:>9} {share:>4.0}% {rate:>8.2} {flops:>8}  {label} -> {writes} ({of})")?;
        }
        for (title, groups) in [("op", self.by_op()), ("layer", self.by_layer())] {
            writeln!(f, "\n{:>9} {:>5} {:>8}  {title}", "time", "share", "launches")?;
            for (name, seconds, count) in groups {
                let name = if name.is_empty() { "none or several" } else { &name };
                writeln!(f, "{:>9} {:>4.0}% {count:>8}  {name}", time(seconds), share(seconds))?;
            }
        }
        if let Some(trace) = &self.training {
            let steps = trace.spans.iter().filter(|span| span.name == "step").count();
            writeln!(f, "\n{steps} steps of a training in {}, by thread:\n{trace}", time(trace.seconds))?;
        }
        Ok(())
    }
}

/// `12.3 us`, `4.56 ms`, `1.23 s`.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}
