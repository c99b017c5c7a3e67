//! Measures an adapter's peak rates with microkernels that adapt to it. Each result is checked, and the rate is that
//! of the best run.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value as Json, json};
use wgrad::plan::{Bound, BufferId, Dispatch, KernelCall, Options, Plan};
use wgrad::shader::{Shader, Source};
use wgrad::{Device, Graph, Program, Session, Tensor};

use super::cores;
use super::one::{describe, device_seconds, extend};
use super::times::{Times, rounded};
use wgrad_lab::output::Stop;

/// Elements to move. On software adapters the size of the elementwise tasks and four times that; on GPUs more than
/// their caches hold (an H100 has 50 MiB): 64 MiB and 256 MiB.
const SIZES: [[usize; 2]; 2] = [[4 << 20, 16 << 20], [16 << 20, 64 << 20]];
/// Sums of multiples of this are exact in f32, in any order.
const GRAIN: f32 = 1.0 / 256.0;
/// Maximum iterations of a loop; every adapter completes as many (lavapipe stops after 65,535, counting all loops).
const MAX_ROUNDS: u32 = 8192;
/// Minimum number of runs per candidate, and minimum duration in seconds: on software adapters, other work disturbs the
/// runs.
const RUNS: (usize, [f64; 2]) = (3, [0.15, 0.03]);
/// Target duration of a multiply-add run. On a software adapter short enough that some runs finish without being
/// preempted; on a GPU long enough that submission overhead is negligible.
const LONG_ENOUGH: [f64; 2] = [0.003, 0.02];
/// Dispatch counts from whose times the cost of one dispatch is derived.
const DISPATCHES: [usize; 2] = [64, 576];

/// Measures and returns the JSON record. The reference has no peak, so its rates are null.
pub fn run(device: Option<&str>) -> Result<Json, Stop> {
    let started = Instant::now();
    let device = Device::open(device)?;
    let mut record = describe(&device);
    if device.is_cpu() {
        extend(&mut record, json!({ "task": "peak", "params": [], "gflops": null, "gb_s": null }));
        return Ok(record);
    }
    let mut bench = Bench {
        session: Session::new(device.clone()),
        device,
        pattern: Arc::new(Tensor::scalar(0.0)),
        expected: (Traffic::Read, Vec::new()),
    };
    let arithmetic = bench.climb(Arithmetic::START, Arithmetic::neighbours, Bench::multiply_add)?;
    let mut moved = Vec::new();
    for traffic in Traffic::ALL {
        let start = Memory { traffic, ..Memory::START };
        let sizes = bench.sizes(traffic);
        let small = bench.climb(start, Memory::neighbours, |b, m| b.memory(m, sizes[0]))?;
        // Measure the best kernel again, on a size that caches are less likely to hold.
        let large = match sizes.get(1) {
            Some(&n) => Some(bench.memory(&small.kernel, n)?),
            None => None,
        };
        moved.push((traffic, sizes, small, large));
    }
    let [recording, dispatch] = bench.dispatch()?;
    let readback = bench.readback()?;
    let software = bench.device.profile().software;
    let bandwidth = moved.iter().fold(0.0, |most: f64, (_, _, small, large)| match large {
        Some(large) if !software => most.max(*large), // the small size may be partly cached
        _ => most.max(small.rate).max(large.unwrap_or(0.0)),
    });
    let fields = json!({
        "task": "peak",
        "params": [],
        "warmup_s": rounded(started.elapsed().as_secs_f64()),
        "gflops": rounded(arithmetic.rate / 1e9),
        "gflops_kernel": arithmetic.kernel.to_string(),
        "tried_gflops": tried(&arithmetic),
        "gb_s": rounded(bandwidth / 1e9),
        "recording_s": rounded(recording),
        "dispatch_s": rounded(dispatch),
        "readback_s": rounded(readback.quantile(0.5)),
        "clock": if bench.has_clock() { "timestamps" } else { "wall" },
        "cores": software.then(cores::measure),
    });
    extend(&mut record, fields);
    for (traffic, sizes, small, large) in &moved {
        let name = traffic.name();
        let mib: Vec<usize> = sizes.iter().map(|n| n >> 18).collect();
        let fields = [
            (format!("{name}_mib"), json!(mib)),
            (format!("{name}_gb_s"), json!(rounded(small.rate / 1e9))),
            (format!("{name}_large_gb_s"), json!(large.map(|rate| rounded(rate / 1e9)))),
            (format!("{name}_kernel"), json!(small.kernel.to_string())),
            (format!("tried_{name}_gb_s"), tried(small)),
        ];
        extend(&mut record, fields.into_iter().collect::<serde_json::Map<_, _>>().into());
    }
    Ok(record)
}

/// The peak, raised to the rate of any task that exceeded the microkernels.
pub fn raised(ceilings: &Json, records: &[Json]) -> Json {
    let mut raised = ceilings.clone();
    for record in records {
        let field = if record["gflops"].is_null() { "gb_s" } else { "gflops" };
        let (Some(share), Some(rate)) = (record["peak_share"].as_f64(), ceilings[field].as_f64()) else { continue };
        if raised[field].as_f64().is_some_and(|most| share * rate > most) {
            extend(&mut raised, json!({ field: rounded(share * rate) }));
        }
    }
    raised
}

/// The best of several candidate kernels.
struct Best<K> {
    kernel: K,
    /// Operations or bytes per second.
    rate: f64,
    /// All candidates tried, with their rates.
    tried: Vec<(String, f64)>,
}

/// All candidates with their rates, as JSON.
fn tried<K>(best: &Best<K>) -> Json {
    best.tried
        .iter()
        .map(|(kernel, rate)| (kernel.clone(), json!(rounded(rate / 1e9))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A multiply-add kernel.
#[derive(Clone, PartialEq)]
struct Arithmetic {
    width: u32,
    chains: u32,
    unroll: u32,
    workgroup: u32,
    fused: bool,
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Arithmetic { width, chains, unroll, workgroup, fused } = self;
        let op = if *fused { "fma" } else { "a * b + c" };
        write!(f, "{op}, {chains} x {}, unrolled {unroll}, workgroup {workgroup}", vector(*width))
    }
}

fn vector(width: u32) -> String {
    if width == 1 { "f32".to_owned() } else { format!("vec{width}") }
}

/// Copies of a configuration with `value` replaced by its neighbours in `choices`.
fn beside(choices: &[u32], value: u32) -> Vec<u32> {
    let at = choices.iter().position(|&choice| choice == value).unwrap_or(0);
    let near = [at.checked_sub(1), Some(at + 1)];
    near.into_iter().flatten().filter_map(|at| choices.get(at).copied()).collect()
}

impl Arithmetic {
    const START: Arithmetic = Arithmetic { width: 4, chains: 4, unroll: 4, workgroup: 64, fused: true };

    fn neighbours(&self) -> Vec<Arithmetic> {
        let with = |change: &dyn Fn(&mut Arithmetic)| {
            let mut other = self.clone();
            change(&mut other);
            other
        };
        let mut all = vec![with(&|a| a.fused = !a.fused)];
        all.extend(beside(&[1, 2, 4], self.width).into_iter().map(|n| with(&|a| a.width = n)));
        all.extend(beside(&[2, 4, 8, 12, 16], self.chains).into_iter().map(|n| with(&|a| a.chains = n)));
        all.extend(beside(&[2, 4, 8, 16], self.unroll).into_iter().map(|n| with(&|a| a.unroll = n)));
        all.extend(beside(&[8, 64, 256], self.workgroup).into_iter().map(|n| with(&|a| a.workgroup = n)));
        all
    }

    fn text(&self) -> Result<Source, String> {
        Shader::from_source("multiply_add", include_str!("../../shaders/multiply_add.wgsl"))
            .set("T", element(self.width))
            .set("CHAINS", self.chains)
            .set("UNROLL", self.unroll)
            .set("SIZE", self.workgroup)
            .set("FUSED", self.fused)
            .finish()
    }
}

fn element(width: u32) -> String {
    if width == 1 { "f32".to_owned() } else { format!("vec{width}<f32>") }
}

/// What invocation `id` of an [`Arithmetic`] kernel writes with factor 1 and step 1.
fn multiply_adds(kernel: &Arithmetic, id: usize, rounds: u32) -> f64 {
    let steps = f64::from(rounds * kernel.unroll);
    let chains = (0..kernel.chains).map(|c| (id % 16) as f64 + f64::from(c) + steps);
    chains.sum::<f64>() * f64::from(kernel.width)
}

/// The memory access pattern of a kernel.
#[derive(Clone, Copy, PartialEq)]
enum Traffic {
    /// Reads one element per element written.
    Copy,
    /// Writes almost nothing.
    Read,
    /// Reads two elements per element written.
    Add,
}

impl Traffic {
    const ALL: [Traffic; 3] = [Traffic::Copy, Traffic::Read, Traffic::Add];

    fn name(self) -> &'static str {
        match self {
            Traffic::Copy => "copy",
            Traffic::Read => "read",
            Traffic::Add => "add",
        }
    }

    /// Number of elements read in a benchmark of size `n`.
    fn read(self, n: usize) -> usize {
        if self == Traffic::Add { 2 * n } else { n }
    }
}

/// A kernel that measures bandwidth.
#[derive(Clone, PartialEq)]
struct Memory {
    traffic: Traffic,
    width: u32,
    each: u32,
    workgroup: u32,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Memory { width, each, workgroup, .. } = self;
        write!(f, "{each} x {} per invocation, workgroup {workgroup}", vector(*width))
    }
}

impl Memory {
    const START: Memory = Memory { traffic: Traffic::Copy, width: 4, each: 4, workgroup: 64 };

    fn neighbours(&self) -> Vec<Memory> {
        let mut all: Vec<Memory> = Vec::new();
        all.extend(beside(&[1, 2, 4], self.width).into_iter().map(|width| Memory { width, ..self.clone() }));
        all.extend(beside(&[1, 2, 4, 8, 16, 32], self.each).into_iter().map(|each| Memory { each, ..self.clone() }));
        let groups = beside(&[8, 64, 256], self.workgroup);
        all.extend(groups.into_iter().map(|workgroup| Memory { workgroup, ..self.clone() }));
        all
    }

    fn text(&self) -> Result<Source, String> {
        let shader = match self.traffic {
            Traffic::Read => Shader::from_source("read", include_str!("../../shaders/read.wgsl")),
            Traffic::Copy | Traffic::Add => {
                let copy = Shader::from_source("copy", include_str!("../../shaders/copy.wgsl"));
                copy.set("ADD", self.traffic == Traffic::Add)
            }
        };
        shader.set("T", element(self.width)).set("EACH", self.each).set("SIZE", self.workgroup).finish()
    }

    /// What it writes for `n` floats of [`pattern`], or for `2 n` in [`Traffic::Add`].
    fn written(&self, n: usize) -> Vec<f64> {
        let x = |at: usize| f64::from(pattern(at));
        match self.traffic {
            Traffic::Copy => (0..n).map(x).collect(),
            Traffic::Read => read_sums(self, n),
            Traffic::Add => (0..n).map(|at| x(at) + x(n + at)).collect(),
        }
    }
}

/// The sums that a [`Traffic::Read`] kernel writes for `n` floats of [`pattern`].
fn read_sums(kernel: &Memory, n: usize) -> Vec<f64> {
    let (width, each, size) = (kernel.width as usize, kernel.each as usize, kernel.workgroup as usize);
    let invocations = n.div_ceil(width * each * size) * size;
    let one = |i: usize| {
        let first = i / size * size * each + i % size;
        let elements = (0..each).map(|k| first + k * size).filter(|e| e * width < n);
        elements.flat_map(|e| e * width..(e + 1) * width).map(|at| f64::from(pattern(at))).sum()
    };
    (0..invocations).map(one).collect()
}

/// A number of few significant bits that differs from its neighbours.
fn pattern(at: usize) -> f32 {
    let mixed = (at as u32).wrapping_mul(2_654_435_761) >> 20;
    mixed as f32 * GRAIN - 8.0
}

struct Bench {
    device: Device,
    session: Session,
    /// [`pattern`] of the latest size.
    pattern: Arc<Tensor>,
    /// What the latest kernel that copies or adds writes.
    expected: (Traffic, Vec<f64>),
}

impl Bench {
    /// The sizes of [`SIZES`] whose buffers fit, with padding; smaller ones if the adapter allows less.
    fn sizes(&self, traffic: Traffic) -> Vec<usize> {
        let most = (self.device.profile().max_binding / 4) as usize / traffic.read(1);
        let most = most.saturating_sub(1024);
        let sizes = SIZES[usize::from(!self.device.profile().software)];
        let fitting: Vec<usize> = sizes.into_iter().filter(|&n| n <= most).collect();
        if fitting.is_empty() { vec![most / 1024 * 1024] } else { fitting }
    }

    /// Hill climbing: moves to the best neighbour until none is better.
    fn climb<K: Clone + PartialEq + std::fmt::Display>(
        &mut self,
        start: K,
        neighbours: impl Fn(&K) -> Vec<K>,
        rate: impl Fn(&mut Bench, &K) -> Result<f64, Stop>,
    ) -> Result<Best<K>, Stop> {
        let mut best = Best { rate: rate(self, &start)?, kernel: start, tried: Vec::new() };
        let mut seen = vec![best.kernel.clone()];
        best.tried.push((best.kernel.to_string(), best.rate));
        loop {
            let from = best.kernel.clone();
            for candidate in neighbours(&from) {
                if seen.contains(&candidate) {
                    continue;
                }
                seen.push(candidate.clone());
                let rate = rate(self, &candidate)?;
                best.tried.push((candidate.to_string(), rate));
                // A minor improvement is not worth another round.
                if rate > best.rate * if best.kernel == from { 1.03 } else { 1.0 } {
                    (best.rate, best.kernel) = (rate, candidate);
                }
            }
            if best.kernel == from {
                // Measure once more: the peak is the best rate observed.
                best.rate = best.rate.max(rate(self, &best.kernel)?);
                return Ok(best);
            }
        }
    }

    /// A program of only these dispatches, over a variable `x` (binding buffer `.0`) and an output of `y` floats
    /// (`.1`).
    fn program(
        &mut self,
        x: usize,
        y: usize,
        dispatches: impl FnOnce(BufferId, BufferId) -> Vec<Dispatch>,
    ) -> Result<Program, Stop> {
        let graph = Graph::new();
        if self.pattern.numel() != x {
            self.pattern = Arc::new(Tensor::new([x], (0..x).map(pattern).collect::<Vec<f32>>())?);
        }
        let x = graph.variable(&format!("x{x}"), self.pattern.clone());
        let y = x.slice(0, 0, 1, 1).broadcast_to(&[y].into()).relu();
        let edit = |plan: &mut Plan| {
            let (from, to) = (plan.variables[0].1.buffer, plan.outputs[0].1.unwrap_or(0));
            let dispatches = dispatches(from, to);
            plan.calls = vec![KernelCall {
                label: "peak".into(),
                kernel: None,
                dispatches,
                reads: vec![],
                writes: vec![],
                scratch: vec![],
            }];
            Ok(())
        };
        Ok(self.session.compile_edited(&graph, &[&y], &Options::default(), edit)?)
    }

    /// Duration of the fastest run.
    fn fastest(&mut self, program: &Program) -> Result<f64, Stop> {
        self.fastest_within(program, RUNS.1[usize::from(!self.device.profile().software)])
    }

    fn fastest_within(&mut self, program: &Program, seconds: f64) -> Result<f64, Stop> {
        let (mut best, mut runs, begin) = (f64::INFINITY, 0, Instant::now());
        while runs < RUNS.0 || begin.elapsed().as_secs_f64() < seconds {
            let took = match device_seconds(&mut self.session, program, &[])? {
                Some(seconds) => seconds,
                None => {
                    let start = Instant::now();
                    self.session.submit(program, &[])?;
                    self.session.wait()?;
                    start.elapsed().as_secs_f64()
                }
            };
            best = best.min(took);
            runs += 1;
        }
        Ok(best)
    }

    /// Whether the adapter has timestamps of its own.
    fn has_clock(&self) -> bool {
        let profile = self.device.profile();
        profile.timestamps && !profile.software
    }

    /// FLOP per second; a multiply-add counts as two.
    fn multiply_add(&mut self, kernel: &Arithmetic) -> Result<f64, Stop> {
        let text = kernel.text()?;
        // A software adapter needs a few workgroups per core, a GPU many waves per compute unit.
        let software = self.device.profile().software;
        let invocations: u32 = if software { 1 << 12 } else { 1 << 18 };
        let enough = LONG_ENOUGH[usize::from(!software)];
        // Keep all sums integers below 2^24.
        let most = (12_000_000 / (kernel.chains * kernel.width * kernel.unroll)).min(MAX_ROUNDS);
        let mut rounds = 256.min(most);
        loop {
            let words = vec![rounds, 1f32.to_bits(), 1f32.to_bits(), invocations];
            let program = self.program(64, invocations as usize, |_, y| {
                vec![Dispatch {
                    label: "peak_multiply_add".into(),
                    wgsl: text.clone(),
                    entry: "peak_multiply_add".into(),
                    bindings: vec![Bound::Uniform(words), Bound::Storage { buffer: y, write: true }],
                    workgroups: [invocations / kernel.workgroup, 1, 1],
                }]
            })?;
            let quick = self.fastest_within(&program, 0.0)?;
            if quick > enough || rounds == most {
                let seconds = self.fastest(&program)?;
                let want: Vec<f64> = (0..invocations as usize).map(|id| multiply_adds(kernel, id, rounds)).collect();
                self.same(&program, &want, kernel)?;
                let adds = f64::from(rounds * kernel.unroll * kernel.chains * kernel.width) * f64::from(invocations);
                return Ok(2.0 * adds / seconds);
            }
            rounds = (f64::from(rounds) * (1.5 * enough / quick).clamp(1.2, 32.0)).min(f64::from(most)) as u32;
        }
    }

    /// Bytes per second.
    fn memory(&mut self, kernel: &Memory, n: usize) -> Result<f64, Stop> {
        let text = kernel.text()?;
        let elements = n / kernel.width as usize;
        let groups = elements.div_ceil((kernel.each * kernel.workgroup) as usize);
        let workgroups = self.device.profile().grid(groups as u64)?;
        let rebuilt: usize = workgroups.iter().map(|&n| n as usize).product();
        let sums = rebuilt * kernel.workgroup as usize;
        let read = kernel.traffic.read(n);
        let (entry, written) = match kernel.traffic {
            Traffic::Read => ("peak_read", sums),
            Traffic::Copy | Traffic::Add => ("peak_copy", n),
        };
        let program = self.program(read, written, |x, y| {
            vec![Dispatch {
                label: entry.into(),
                wgsl: text,
                entry: entry.into(),
                bindings: vec![
                    Bound::Uniform(vec![elements as u32]),
                    Bound::Storage { buffer: x, write: false },
                    Bound::Storage { buffer: y, write: true },
                ],
                workgroups,
            }]
        })?;
        let seconds = self.fastest(&program)?;
        // All kernels that copy or add write the same.
        let (traffic, mut want) = std::mem::replace(&mut self.expected, (kernel.traffic, Vec::new()));
        if traffic == Traffic::Read || traffic != kernel.traffic || want.len() != written {
            want = kernel.written(n);
            want.resize(written, 0.0);
        }
        self.same(&program, &want, kernel)?;
        self.expected.1 = want;
        Ok(4.0 * (read + written) as f64 / seconds)
    }

    /// Checks a result: a rate counts only if it is right. All sums here are exact.
    fn same(&mut self, program: &Program, want: &[f64], kernel: &dyn std::fmt::Display) -> Result<(), Stop> {
        let got = self.session.run(program, &[])?[0].to_f64();
        match got.iter().zip(want).position(|(got, want)| !(got == want)) {
            None if got.len() == want.len() => Ok(()),
            at => {
                let at = at.unwrap_or(0);
                Err(Stop::Wrong(format!(
                    "the microkernel ({kernel}) is wrong: element {at} is {:?}, expected {:?}",
                    got.get(at),
                    want.get(at)
                )))
            }
        }
    }

    fn empty(&mut self, count: usize) -> Result<Program, Stop> {
        let text = Shader::from_source("empty", include_str!("../../shaders/empty.wgsl")).finish()?;
        self.program(64, 1, |_, y| {
            let dispatch = |_| Dispatch {
                label: "peak_empty".into(),
                wgsl: text.clone(),
                entry: "peak_empty".into(),
                bindings: vec![Bound::Uniform(vec![2f32.to_bits()]), Bound::Storage { buffer: y, write: true }],
                workgroups: [1, 1, 1],
            };
            (0..count).map(dispatch).collect()
        })
    }

    /// Seconds per additional dispatch, on the calling thread and in total. Dispatches run one after another because
    /// they write the same buffer.
    fn dispatch(&mut self) -> Result<[f64; 2], Stop> {
        let [few, many] = DISPATCHES;
        let (less, more) = (self.empty(few)?, self.empty(many)?);
        self.same(&more, &[2.0], &"empty")?;
        let each = |less: f64, more: f64| (more - less).max(0.0) / (many - few) as f64;
        let recording = each(self.recording(&less)?, self.recording(&more)?);
        Ok([recording, each(self.fastest(&less)?, self.fastest(&more)?)])
    }

    /// Minimum time until a submission returns.
    fn recording(&mut self, program: &Program) -> Result<f64, Stop> {
        let mut best = f64::INFINITY;
        for _ in 0..32 {
            let start = Instant::now();
            self.session.submit(program, &[])?;
            best = best.min(start.elapsed().as_secs_f64());
            self.session.wait()?;
        }
        Ok(best)
    }

    /// Times one dispatch with a readback of one number.
    fn readback(&mut self) -> Result<Times, Stop> {
        let program = self.empty(1)?;
        super::times::time(0.3, || {
            self.session.run(&program, &[])?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_is_valid_wgsl() {
        let mut open = vec![Arithmetic::START];
        let mut seen: Vec<Arithmetic> = Vec::new();
        while let Some(kernel) = open.pop() {
            if !seen.contains(&kernel) {
                open.extend(kernel.neighbours());
                seen.push(kernel);
            }
        }
        assert_eq!(seen.len(), 2 * 3 * 5 * 4 * 3);
        for kernel in &seen {
            let text = kernel.text().expect("a shader");
            naga::front::wgsl::parse_str(&text.text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text.text)));
        }
        for traffic in Traffic::ALL {
            for near in (Memory { traffic, ..Memory::START }).neighbours() {
                let text = near.text().expect("a shader");
                naga::front::wgsl::parse_str(&text.text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text.text)));
            }
        }
    }

    #[test]
    fn tasks_raise_the_peak() {
        let ceilings = json!({ "gflops": 10.0, "gb_s": 4.0, "adapter": "a" });
        let task = |gflops: Json, share: f64| json!({ "gflops": gflops, "gb_s": 1.0, "peak_share": share });
        let records = [task(json!(12.0), 1.2), task(json!(11.0), 1.1), task(Json::Null, 0.9), json!({ "task": "x" })];
        assert_eq!(raised(&ceilings, &records), json!({ "gflops": 12.0, "gb_s": 4.0, "adapter": "a" }));
        assert_eq!(raised(&ceilings, &[task(Json::Null, 1.5)])["gb_s"], 6.0);
    }

    #[test]
    fn expected_results_match_formulas() {
        let kernel = Arithmetic { width: 2, chains: 2, unroll: 3, workgroup: 8, fused: true };
        assert_eq!(multiply_adds(&kernel, 17, 5), 2.0 * (16.0 + 17.0));
        let kernel = Memory { traffic: Traffic::Read, width: 2, each: 2, workgroup: 2 };
        let x = |i: usize| f64::from(pattern(i));
        let sums = read_sums(&kernel, 10);
        assert_eq!(sums.len(), 4);
        assert_eq!(sums[1], x(2) + x(3) + x(6) + x(7));
        assert_eq!(sums[2], x(8) + x(9));
        let added = Memory { traffic: Traffic::Add, ..Memory::START }.written(3);
        assert_eq!(added, [x(0) + x(3), x(1) + x(4), x(2) + x(5)]);
    }
}
