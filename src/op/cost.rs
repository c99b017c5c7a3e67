//! What a kernel costs: one model of time for the variants of all ops.
//!
//! The estimates need not be accurate, only comparable: the planner takes the cheapest variant. They are computed from
//! what a device declares, so the same device always gets the same plan.

use std::fmt;

use crate::profile::Profile;

/// An estimate of the time that a kernel call takes, in seconds. Example: [the module `op`](crate::op).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Cost(pub f64);

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s < 1e-3 => write!(f, "{:.1} us", s * 1e6),
            s if s < 1.0 => write!(f, "{:.2} ms", s * 1e3),
            s => write!(f, "{s:.2} s"),
        }
    }
}

/// How the invocations of a kernel get their operands. Each suits one kind of device; see [`Machine::efficiency`].
///
/// Example: [the module `op`](crate::op).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Neighbouring invocations read neighbouring elements.
    Adjacent,
    /// Each invocation reads a row of its own, so neighbouring invocations read elements that are far apart.
    Apart,
    /// Each invocation reads a block of each operand and relies on the cache to share it with others.
    Cached,
    /// Subgroups of 8 invocations share operands by shuffles.
    Shuffled,
    /// Workgroups share operands in workgroup memory, between barriers.
    Shared,
}

/// What a variant does. An op counts what differs between its variants, and may leave out the rest.
///
/// Example: [the module `op`](crate::op).
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// How the kernel gets its operands.
    pub style: Style,
    /// The time of its launches apart from their work, in launches.
    pub launches: f64,
    /// Floating-point operations, including those beyond the edges of tiles.
    pub flops: f64,
    /// The share of the device's peak that the loop reaches on devices that its style suits.
    pub efficiency: f64,
    /// Bytes that it reads and writes in the manner of its style.
    pub bytes: f64,
    /// Bytes that it writes to scratch memory and reads back, neighbours together.
    pub scratch: f64,
    /// Workgroups that run at the same time; the default is enough for any device.
    pub workgroups: f64,
    /// Workgroups that keep a multiprocessor busy: as many as fit, if each takes many registers.
    pub resident: f64,
    /// Barriers, each counted once per workgroup that waits at it.
    pub barriers: f64,
    /// Loads of an invocation, one after the other: nothing hides the time that they take if there is little to do.
    pub loads: f64,
    /// Seconds that a software adapter takes to compile it.
    pub compile: f64,
}

impl Default for Work {
    fn default() -> Work {
        Work {
            style: Style::Adjacent,
            launches: 1.0,
            flops: 0.0,
            efficiency: 1.0,
            bytes: 0.0,
            scratch: 0.0,
            workgroups: f64::INFINITY,
            resident: 4.0,
            barriers: 0.0,
            loads: 0.0,
            compile: 0.0,
        }
    }
}

/// The speed of a kind of device, in round numbers. Example: [the module `op`](crate::op).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    software: bool,
    /// Floating-point operations per second, at the peak.
    flops: f64,
    /// Bytes per second.
    bandwidth: f64,
    /// Seconds per launch.
    launch: f64,
    /// Multiprocessors, or cores.
    multiprocessors: f64,
    /// Seconds per barrier of a workgroup, while the device is full of workgroups.
    barrier: f64,
    /// Seconds per load of an invocation.
    load: f64,
    /// Runs over which the time to compile a kernel is spread.
    runs: f64,
}

/// Lavapipe on two cores, from `wgrad bench peak` (docs/RESULTS.md). A barrier suspends every invocation of a workgroup.
/// Compiling a large tile takes as long as hundreds of runs, and a training step runs some thousand times.
const SOFTWARE: Machine = Machine {
    software: true,
    flops: 1.28e11,
    bandwidth: 1.3e10,
    launch: 2e-5,
    multiprocessors: 2.0,
    barrier: 1e-5,
    load: 0.0,
    runs: 1000.0,
};

/// A GPU of the middle class; drivers may report another number of multiprocessors. Products in workgroup memory reach
/// about 60% of the peak (an H100 does 36 of 62 TFLOP/s), so that 24 operations take as long as a byte. A launch takes
/// 5 us on an H100, and a sum of 64 rows another 3.4 us, or 0.05 us per load. The price of a barrier is such that a
/// tree of 7 of them costs as much as reading 64 numbers.
const DISCRETE: Machine = Machine {
    software: false,
    flops: 2e13,
    bandwidth: 5e11,
    launch: 5e-6,
    multiprocessors: 64.0,
    barrier: 7.3e-11,
    load: 5e-8,
    runs: f64::INFINITY,
};

/// A tenth of that. No such GPU has been measured, so all proportions are those of [`DISCRETE`].
const INTEGRATED: Machine =
    Machine { flops: 2e12, bandwidth: 5e10, launch: 5e-5, barrier: 7.3e-10, load: 5e-7, ..DISCRETE };

impl Machine {
    /// The speed of a device with this profile.
    pub fn of(profile: &Profile) -> Machine {
        match profile.kind.as_str() {
            _ if profile.software => SOFTWARE,
            "integrated GPU" => INTEGRATED.with(profile),
            _ => DISCRETE.with(profile),
        }
    }

    fn with(self, profile: &Profile) -> Machine {
        Machine { multiprocessors: profile.multiprocessors.map_or(self.multiprocessors, f64::from), ..self }
    }

    /// Workgroups that keep all multiprocessors busy, at `resident` on each.
    pub fn fill(&self, resident: f64) -> f64 {
        self.multiprocessors * resident
    }

    /// The share of its speed that a device of this kind keeps with a style.
    ///
    /// GPUs fetch whole lines of neighbouring elements, and run 32 or 64 invocations in step, whatever a workgroup has.
    /// Software adapters have the caches of a CPU, but suspend invocations at each barrier and keep their registers in
    /// memory.
    pub fn efficiency(&self, style: Style) -> f64 {
        match (style, self.software) {
            (Style::Adjacent, _) => 1.0,
            (Style::Apart, false) => 0.5,
            (Style::Cached | Style::Shuffled, false) => 0.25,
            (Style::Shared, true) => 0.125,
            _ => 1.0,
        }
    }

    /// The share of the multiprocessors' time in which so many workgroups use them. A GPU is done when the multiprocessor
    /// with the most workgroups is, which takes as long for fewer than `resident`.
    fn share(&self, workgroups: f64, resident: f64) -> f64 {
        let each = workgroups / self.multiprocessors;
        let most = if self.software { each } else { each.ceil() };
        if each.is_finite() { each / most.max(resident) } else { 1.0 }
    }

    /// The time for this work.
    pub fn cost(&self, work: &Work) -> Cost {
        let speed = self.efficiency(work.style) * self.share(work.workgroups.max(1.0), work.resident);
        let running = work.flops / (self.flops * work.efficiency) + work.bytes / self.bandwidth;
        Cost(
            work.launches * self.launch
                + running / speed
                + work.scratch / self.bandwidth
                + work.barriers * self.barrier
                + work.loads * self.load
                + work.compile / self.runs,
        )
    }
}
