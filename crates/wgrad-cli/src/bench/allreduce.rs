//! `wgrad bench allreduce`: sums over the ranks of an MPI job, training steps with them, and what a network would make
//! of them.

use std::time::Instant;

use serde_json::{Value as Json, json};
use wgrad::distributed::World;
use wgrad::{DType, Device, Program, Session, Tensor, Trace};

use super::BenchArgs;
use super::one::{describe, extend};
use super::tasks::{Work, find};
use super::times::{Times, rounded};
use wgrad_lab::output::{Out, Stop};

/// Bytes of the sums.
const SIZES: [usize; 5] = [4 << 10, 64 << 10, 1 << 20, 8 << 20, 25 << 20];

/// The training steps, with the batch of each rank.
const STEPS: [(&str, &str); 2] = [("mlp_step", "64,784,512,256,10"), ("cnn_step", "64,1,28,28")];

/// Networks: bits per second, and seconds that a message takes besides.
const NETWORKS: [(&str, f64, f64); 2] = [("10 Gbit/s", 10e9, 30e-6), ("100 Gbit/s", 100e9, 5e-6)];

/// The part of a step that the backward pass takes: it multiplies two matrices for each one of the forward pass.
const BACKWARD: f64 = 2.0 / 3.0;

/// Where the time of a step goes, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    /// A step without exchange, while the other ranks run theirs.
    compute: f64,
    read_back: f64,
    /// The sums, if all ranks were there at once.
    reduce: f64,
    /// Waiting for ranks that are late.
    idle: f64,
    upload: f64,
    /// The whole step.
    step: f64,
    bytes: f64,
    buckets: f64,
}

/// Runs the benchmark on every rank; rank 0 reports.
pub fn run(args: &BenchArgs, out: &mut Out) -> Result<bool, Stop> {
    let world = World::init()?;
    let result = bench(args, out, &world);
    if let Err(Stop::Error(why) | Stop::Wrong(why)) = &result {
        world.fail(why);
    }
    result
}

fn bench(args: &BenchArgs, out: &mut Out, world: &World) -> Result<bool, Stop> {
    let device = Device::of_rank(world, args.device.as_deref())?;
    let mut lines = Lines { out, args, records: Vec::new(), silent: !world.is_first() };
    let ranks = world.ranks();
    lines.text(&format!("{ranks} ranks; rank 0: {device}"))?;
    lines.text(&format!("{:>12} {:>10} {:>8} {:>10} {:>8}", "bytes", "f32", "GB/s", "as f16", "GB/s"))?;
    for bytes in SIZES {
        let [plain, compressed] = [false, true].map(|compressed| {
            let values = vec![1.0f32; bytes / 4];
            timed(world, args.seconds / 4.0, || world.sum_f32(values.clone(), compressed).map(drop))
        });
        let (plain, compressed) = (plain?, compressed?);
        let rate = |seconds: f64| bytes as f64 / seconds / 1e9;
        lines.text(&format!(
            "{bytes:>12} {:>10} {:>8.2} {:>10} {:>8.2}",
            milliseconds(plain),
            rate(plain),
            milliseconds(compressed),
            rate(compressed)
        ))?;
        lines.record(
            &device,
            json!({"task": "allreduce", "ranks": ranks, "bytes": bytes, "median_s": rounded(plain),
                "compressed_s": rounded(compressed)}),
        );
    }
    lines.text(&format!(
        "\n{:>9} {:>10} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>8} {:>8}",
        "", "rows/rank", "step", "compute", "read back", "reduce", "idle", "upload", "rows/s", "MB"
    ))?;
    let mut all = Vec::new();
    for (name, shape) in STEPS {
        let parts = step(args, world, &device, name, shape)?;
        let rows = shape.split(',').next().and_then(|rows| rows.parse().ok()).unwrap_or(0.0) * ranks as f64;
        let times = [parts.step, parts.compute, parts.read_back, parts.reduce, parts.idle, parts.upload];
        let cells: String = times.into_iter().map(|seconds| format!(" {:>11}", milliseconds(seconds))).collect();
        let (per_rank, rate, megabytes) = (rows / ranks as f64, rows / parts.step, parts.bytes / 1e6);
        lines.text(&format!("{name:>9} {per_rank:>10}{cells} {rate:>8.0} {megabytes:>8.2}"))?;
        lines.record(
            &device,
            json!({"task": name, "ranks": ranks, "rows_per_rank": per_rank, "step_s": rounded(parts.step),
                "compute_s": rounded(parts.compute), "read_back_s": rounded(parts.read_back),
                "reduce_s": rounded(parts.reduce), "idle_s": rounded(parts.idle), "upload_s": rounded(parts.upload),
                "bytes": parts.bytes, "buckets": parts.buckets}),
        );
        all.push((name, parts));
    }
    lines.text(
        "\npredicted efficiency (rows/s per rank, relative to one rank without exchange) if each rank had a device \
                of its own:",
    )?;
    let counts = [2, 4, 8, 16, 32, 64];
    let heads: String = counts.iter().map(|count| format!("{count:>7}")).collect();
    lines.text(&format!("{:>9} {:>11} {heads}", "", "ranks"))?;
    for (name, parts) in all {
        for (network, bits, latency) in NETWORKS {
            let cells = counts.map(|ranks| {
                let step = predicted(&parts, ranks, bits / 8.0, latency);
                format!("{:>6.0}%", 100.0 * parts.compute / step)
            });
            lines.text(&format!("{name:>9} {network:>11} {}", cells.concat()))?;
        }
    }
    lines.finish()?;
    Ok(true)
}

/// The time of a step of that many ranks on a network with this bandwidth in bytes per second.
///
/// A sum of `n` bytes sends and receives `2 (ranks - 1) / ranks n` in each rank, in `2 log2(ranks)` messages (Thakur,
/// Rabenseifner and Gropp, *Optimization of Collective Communication Operations in MPICH*, 2005). All buckets but the
/// last can be summed during the backward pass.
fn predicted(parts: &Parts, ranks: usize, bandwidth: f64, latency: f64) -> f64 {
    let n = ranks as f64;
    let bucket = 2.0 * (n - 1.0) / n * parts.bytes / parts.buckets / bandwidth + 2.0 * n.log2().ceil() * latency;
    let hidden = (bucket * (parts.buckets - 1.0)).min(BACKWARD * parts.compute);
    parts.compute + parts.read_back + parts.upload + bucket * parts.buckets - hidden
}

/// Median seconds of something that all ranks do equally often.
fn timed(world: &World, seconds: f64, mut run: impl FnMut() -> wgrad::Result<()>) -> Result<f64, Stop> {
    let mut once = || -> Result<f64, Stop> {
        let begin = Instant::now();
        run()?;
        Ok(begin.elapsed().as_secs_f64())
    };
    once()?;
    let first = once()?;
    // Rank 0 decides.
    let count = (seconds / first).clamp(5.0, 1000.0).floor();
    let count = world.sum(&[if world.is_first() { count } else { 0.0 }])?[0];
    let times = (0..count as usize).map(|_| once()).collect::<Result<Vec<_>, _>>()?;
    Ok(Times::new(times).quantile(0.5))
}

/// Measures a training step.
fn step(args: &BenchArgs, world: &World, device: &Device, name: &str, shape: &str) -> Result<Parts, Stop> {
    let task = find(name).ok_or_else(|| Stop::Error(format!("no task `{name}`")))?;
    let dtype = args.dtype.unwrap_or(DType::F32);
    let work = task.build_for_ranks(&task.sizes(shape)?, dtype)?;
    let mut alone = compiled(args, &work, Session::new(device.clone()))?;
    let mut session = Session::new(device.clone());
    session.distribute(world)?;
    let mut together = compiled(args, &work, session)?;
    let compute = timed(world, args.seconds / 2.0, || once(&work, &mut alone))?;
    let step = timed(world, args.seconds / 2.0, || once(&work, &mut together))?;
    let (bytes, buckets) = exchanged(&together.1);
    // The sums alone.
    let values = vec![1.0f32; (bytes / buckets / 4.0) as usize];
    let sum = timed(world, args.seconds / 4.0, || world.sum_f32(values.clone(), false).map(drop))?;
    const TRACED: usize = 10;
    let (traced, trace) = Trace::record(|| (0..TRACED).try_for_each(|_| once(&work, &mut together)));
    traced?;
    let of = |span: &str| trace.seconds_of(span) / TRACED as f64;
    let (reduce, waited) = (sum * buckets, of("wait for other ranks"));
    Ok(Parts {
        compute,
        read_back: of("read back"),
        reduce,
        idle: (waited - reduce).max(0.0),
        upload: of("upload"),
        step,
        bytes,
        buckets,
    })
}

/// Bytes that a program exchanges, and the number of messages.
fn exchanged(program: &Program) -> (f64, f64) {
    let phases = program.plan().exchanges();
    let buckets = || phases.iter().flat_map(|phase| &phase.buckets);
    (4.0 * buckets().map(|bucket| bucket.numel()).sum::<usize>() as f64, buckets().count().max(1) as f64)
}

fn compiled(args: &BenchArgs, work: &Work, mut session: Session) -> Result<(Session, Program), Stop> {
    let outputs: Vec<_> = work.outputs.iter().collect();
    let program = session.compile_with(&work.graph, &outputs, &args.options())?;
    Ok((session, program))
}

fn once(work: &Work, (session, program): &mut (Session, Program)) -> wgrad::Result<()> {
    let feeds: Vec<(&str, &Tensor)> = work.feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    session.run(program, &feeds).map(drop)
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3} ms", 1e3 * seconds)
}

/// What rank 0 reports.
struct Lines<'a> {
    out: &'a mut Out,
    args: &'a BenchArgs,
    records: Vec<String>,
    silent: bool,
}

impl Lines<'_> {
    fn text(&mut self, line: &str) -> Result<(), Stop> {
        if self.silent || self.args.json {
            return Ok(());
        }
        self.out.line(line)
    }

    fn record(&mut self, device: &Device, fields: Json) {
        let mut record = describe(device);
        extend(&mut record, fields);
        self.records.push(record.to_string());
    }

    fn finish(&mut self) -> Result<(), Stop> {
        if self.silent {
            return Ok(());
        }
        if self.args.json {
            for record in &self.records {
                self.out.line(record)?;
            }
        }
        let Some(file) = &self.args.save else { return Ok(()) };
        let text = self.records.join("\n") + "\n";
        Ok(wgrad::io::write_atomically(file, text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_a_network() {
        // 100 MB in 4 buckets; 10 Gbit/s move a byte in 0.8 ns.
        let parts = Parts { compute: 0.3, read_back: 0.01, upload: 0.02, bytes: 1e8, buckets: 4.0, ..Parts::default() };
        // Two ranks: 0.08 s and 8 latencies in all, of which three quarters fit into the backward pass of 0.2 s.
        let two = predicted(&parts, 2, 10e9 / 8.0, 1e-3);
        assert!((two - (0.33 + 0.02 + 2e-3)).abs() < 1e-12, "{two}");
        // 64 ranks at a tenth: 1.575 s, of which only 0.2 s are hidden.
        let many = predicted(&parts, 64, 1e9 / 8.0, 0.0);
        assert!((many - (0.33 + 1.575 - 0.2)).abs() < 1e-12, "{many}");
    }
}
