//! Runs one task in this process, so that memory and first-run time are per task.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Device, Graph, OpenOptions, Program, Session, Tensor};

use super::replace::Replacement;
use super::tasks::{Runs, Task, Work};
use super::times::{Times, another, rounded, time};
use super::verify::verify;
use wgrad_lab::output::Stop;

/// How to run a task.
pub struct How<'a> {
    pub device: Option<&'a str>,
    pub seconds: f64,
    pub options: Options,
    /// Tuning time in seconds, if tuning is requested.
    pub tune: Option<f64>,
    /// Whether to time each kernel call of the plan as well.
    pub profile: bool,
    /// The type in which floats are stored.
    pub dtype: DType,
    /// Whether to compare with the reference before timing.
    pub verify: bool,
    /// The launches that run a file's WGSL.
    pub replace: &'a [Replacement],
}

/// Runs a task; returns its JSON record.
pub fn run(task: &Task, shape: &str, how: &How<'_>) -> Result<Json, Stop> {
    let How { seconds, options, .. } = how;
    let sizes = task.sizes(shape)?;
    let mut started = Instant::now();
    let device = Device::open_with(how.device, &OpenOptions::of(options.precision))?;
    let work = task.build(&sizes, how.dtype)?;
    let mut session = Session::new(device.clone());
    let outputs: Vec<_> = work.outputs.iter().collect();
    let mut options = options.clone();
    let tuned = how.tune.map(|seconds| session.tune(&work.graph, &outputs, Duration::from_secs_f64(seconds)));
    let tuned = tuned.transpose()?;
    if tuned.is_some() {
        options.choices = session.choices().clone();
        started = Instant::now(); // the remaining warm-up has its pipelines
    }
    if !how.replace.is_empty() && device.is_cpu() {
        return Err(Stop::Error("the reference runs no launches to replace; name a GPU with --device".into()));
    }
    let replace = |plan: &mut Plan| how.replace.iter().try_for_each(|replacement| replacement.apply(plan));
    let program = session.compile_edited(&work.graph, &outputs, &options, replace)?;
    let run = |session: &mut Session| once(&work, session, &program);
    run(&mut session)?;
    let warmup = started.elapsed().as_secs_f64();
    run(&mut session)?;
    // Read before the reference runs, whose memory should not count.
    let memory = peak_rss_mib();
    let verified = if how.verify { verify(&work, &mut session, &program)? } else { None };
    let times = time(*seconds, || run(&mut session))?;
    let batched = match work.runs {
        Runs::Forward => Some(batched(&mut session, &program, times.quantile(0.5), seconds / 4.0)?),
        Runs::Steps(_) | Runs::Planning => None,
    };
    let on_device = on_device(&work, &mut session, &program, seconds / 4.0)?;
    let feeds: Vec<(&str, &Tensor)> = work.feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let last = session.run(&program, &feeds)?;
    let check = mean_abs(&last);
    if !check.is_finite() {
        return Err(Stop::Wrong(format!("after {} runs the output of {} is {check}", times.runs(), task.name)));
    }

    let per_run = if let Runs::Steps(steps) = work.runs { steps as f64 } else { 1.0 };
    let median = times.quantile(0.5) / per_run;
    let plan = program.plan();
    let bytes = if work.bytes > 0.0 { work.bytes } else { moved(plan) };
    let mut record = describe(&device);
    let fields = json!({
        "task": task.name,
        "params": work.params,
        "dtype": how.dtype.name(),
        "warmup_s": rounded(warmup),
        "median_s": rounded(median),
        "min_s": rounded(times.quantile(0.0) / per_run),
        "runs": times.runs(),
        "gflops": work.arithmetic.then(|| rounded(work.flop / median / 1e9)),
        "gb_s": (work.bytes > 0.0).then(|| rounded(work.bytes / median / 1e9)),
        "peak_rss_mib": memory,
        "check": check,
        "load1": load(),
        "spread": rounded(times.spread()),
        "variant": variant(plan, &device),
        "peak_share": Json::Null,
        "dispatches": plan.dispatches(),
        "pipelines": pipelines(plan),
        "device_bytes": plan.total_bytes(),
        "nominal_flop": work.flop,
        "nominal_bytes": bytes,
        "clock": if on_device.is_some() { "timestamps" } else { "wall" },
        "batch_s": batched.map(rounded),
        "cpu_s": times.cpu_s.map(|seconds| rounded(seconds / per_run)),
        "device_s": on_device.map(rounded),
        "verified": verified.as_ref().map(|v| json!({"compared": v.compared, "of": v.of, "worst": rounded(v.worst)})),
    });
    extend(&mut record, fields);
    if !how.replace.is_empty() {
        let replaced: Vec<String> = how.replace.iter().map(Replacement::to_string).collect();
        extend(&mut record, json!({ "replaced": replaced }));
    }
    if let Some(tuned) = tuned {
        let lines: Vec<String> = tuned.to_string().lines().map(str::to_owned).collect();
        extend(&mut record, json!({ "tuned": lines }));
    }
    if how.profile {
        let calls = super::profile::calls(&mut session, &program, &feeds, *seconds)?;
        extend(&mut record, json!({ "profile": calls }));
    }
    Ok(record)
}

/// The fields that identify the library, version and adapter.
pub fn describe(device: &Device) -> Json {
    let profile = device.profile();
    json!({
        "peer": "wgrad",
        "version": env!("CARGO_PKG_VERSION"),
        "adapter": profile.name,
        "backend": profile.backend,
        "driver": profile.driver,
        "software": profile.software,
    })
}

/// Adds the fields of `more` to a record.
pub fn extend(record: &mut Json, more: Json) {
    if let (Json::Object(record), Json::Object(more)) = (record, more) {
        record.extend(more);
    }
}

/// One timed run.
fn once(work: &Work, session: &mut Session, program: &Program) -> Result<(), Stop> {
    let feeds: Vec<(&str, &Tensor)> = work.feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    match work.runs {
        Runs::Forward => {
            session.submit(program, &feeds)?;
            session.wait()?;
        }
        Runs::Steps(steps) => {
            for _ in 1..steps {
                session.submit(program, &feeds)?;
            }
            session.run(program, &feeds)?;
        }
        Runs::Planning => {
            let outputs: Vec<_> = work.outputs.iter().collect();
            Plan::of(&work.graph, &outputs, session.device().profile(), &Options::default())?;
        }
    }
    Ok(())
}

/// Median time of a run's launches by device timestamps.
fn on_device(work: &Work, session: &mut Session, program: &Program, seconds: f64) -> Result<Option<f64>, Stop> {
    if work.runs == Runs::Planning {
        return Ok(None);
    }
    let feeds: Vec<(&str, &Tensor)> = work.feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let (mut times, begin) = (Vec::new(), Instant::now());
    while another(times.len(), begin, seconds) {
        let Some(inside) = device_seconds(session, program, &feeds)? else { return Ok(None) };
        times.push(inside);
    }
    Ok(Some(Times::new(times).quantile(0.5)))
}

/// Runs once and returns the time of its launches by device timestamps, if trustworthy: a software adapter has no
/// clock of its own, and on others no launch may take longer than the host measured for the whole run.
pub fn device_seconds(
    session: &mut Session,
    program: &Program,
    feeds: &[(&str, &Tensor)],
) -> Result<Option<f64>, Stop> {
    if session.device().profile().software {
        return Ok(None);
    }
    let start = Instant::now();
    let inside = session.submit_timed(program, feeds)?;
    Ok(inside.filter(|inside| *inside > 0.0 && *inside <= start.elapsed().as_secs_f64()))
}

/// Time per run in a batch so long that the final wait is negligible.
fn batched(session: &mut Session, program: &Program, alone: f64, seconds: f64) -> Result<f64, Stop> {
    let runs = (0.02 / alone).clamp(1.0, 256.0) as usize;
    let batch = || -> Result<(), Stop> {
        for _ in 0..runs {
            session.submit(program, &[])?;
        }
        Ok(session.wait()?)
    };
    Ok(time(seconds, batch)?.quantile(0.5) / runs as f64)
}

fn mean_abs(outputs: &[Tensor]) -> f64 {
    let values: Vec<f64> = outputs.iter().flat_map(Tensor::to_f64).collect();
    rounded(values.iter().map(|x| x.abs()).sum::<f64>() / values.len().max(1) as f64)
}

/// The kernels' variants, in the order of the plan.
fn variant(plan: &Plan, device: &Device) -> String {
    if device.is_cpu() {
        return "reference".to_owned();
    }
    let mut names: Vec<String> = Vec::new();
    for call in &plan.calls {
        let name = call.kernel.map_or_else(|| call.label.clone(), |(op, variant)| format!("{op}.{variant}"));
        if (call.kernel.is_some() || plan.calls.len() == 1) && !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" ")
}

fn pipelines(plan: &Plan) -> usize {
    let dispatches = plan.calls.iter().flat_map(|call| &call.dispatches);
    dispatches.map(|dispatch| (&*dispatch.wgsl.text, &dispatch.entry)).collect::<BTreeSet<_>>().len()
}

/// Bytes that a plan's launches read and write.
fn moved(plan: &Plan) -> f64 {
    let stored = plan.calls.iter().flat_map(|call| call.reads.iter().chain(&call.writes));
    stored.map(|stored| stored.ty.bytes() as f64).sum()
}

/// Peak resident memory of this process, if the system reports it (Linux).
pub fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}

/// One-minute load average, if the system reports it (Linux).
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Times a 64x64 matmul in a new process, including the readback.
pub fn startup(device: Option<&str>) -> Result<Json, Stop> {
    let started = Instant::now();
    let device = Device::open(device)?;
    let graph = Graph::new();
    let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [64, 64]));
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &[&a.matmul(&b)])?;
    let values = |by: f32| (0..4096).map(move |i| (i as f32 * by).sin()).collect::<Vec<f32>>();
    let (a, b) = (Tensor::new([64, 64], values(0.37))?, Tensor::new([64, 64], values(0.73))?);
    let c = session.run(&program, &[("a", &a), ("b", &b)])?.remove(0);
    let seconds = started.elapsed().as_secs_f64();
    let memory = peak_rss_mib();
    let check: f64 = c.to_f64().iter().map(|x| x.abs()).sum();
    let want = exact(&a.to_f64(), &b.to_f64());
    let worst = c.to_f64().iter().zip(&want).fold(0f64, |most, (got, want)| most.max((got - want).abs()));
    // Sums of 64 products of numbers of magnitude at most 1.
    let bound = 64.0 * wgrad::op::gamma(64);
    if !(worst <= bound) || !check.is_finite() {
        return Err(Stop::Wrong(format!("the 64x64 product is off by {worst:e}, more than the bound {bound:.1e}")));
    }
    let mut record = describe(&device);
    let fields = json!({
        "task": "startup",
        "in_process_s": rounded(seconds),
        "peak_rss_mib": memory,
        "check": rounded(check),
        "load1": load(),
        "variant": variant(program.plan(), &device),
        "dispatches": program.plan().dispatches(),
        "pipelines": pipelines(program.plan()),
        "device_bytes": program.plan().total_bytes(),
    });
    extend(&mut record, fields);
    Ok(record)
}

fn exact(a: &[f64], b: &[f64]) -> Vec<f64> {
    let element = |i: usize, j: usize| (0..64).map(|k| a[i * 64 + k] * b[k * 64 + j]).sum();
    (0..4096).map(|at| element(at / 64, at % 64)).collect()
}
