//! Times of repeated runs.

use std::time::Instant;

use wgrad_lab::output::Stop;

/// Warm-up ends after this many consecutive runs within this factor of the best.
const SETTLED: (usize, f64) = (3, 1.6);
/// Maximum warm-up, in seconds.
const LONGEST_WARMUP: f64 = 60.0;
/// Minimum and maximum number of timed runs.
const RUNS: (usize, usize) = (5, 200_000);

/// Times of runs in seconds.
pub struct Times {
    sorted: Vec<f64>,
    /// CPU time of a run over all cores, if the system reports it.
    pub cpu_s: Option<f64>,
}

impl Times {
    pub fn new(mut sorted: Vec<f64>) -> Times {
        sorted.sort_by(f64::total_cmp);
        Times { sorted, cpu_s: None }
    }

    /// How many runs.
    pub fn runs(&self) -> usize {
        self.sorted.len()
    }

    pub fn quantile(&self, q: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((q * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// Interquartile range divided by the median.
    pub fn spread(&self) -> f64 {
        (self.quantile(0.75) - self.quantile(0.25)) / self.quantile(0.5)
    }
}

/// Warms up until three consecutive runs are near the best, then times runs for `seconds`.
pub fn time(seconds: f64, mut run: impl FnMut() -> Result<(), Stop>) -> Result<Times, Stop> {
    let mut timed = || -> Result<f64, Stop> {
        let start = Instant::now();
        run()?;
        Ok(start.elapsed().as_secs_f64())
    };
    let (mut best, mut near) = (f64::INFINITY, 0);
    let begin = Instant::now();
    loop {
        let t = timed()?;
        best = best.min(t);
        near = if t < best * SETTLED.1 { near + 1 } else { 0 };
        let gone = begin.elapsed().as_secs_f64();
        if (near >= SETTLED.0 && gone > seconds.min(1.0)) || gone > LONGEST_WARMUP {
            break;
        }
    }
    let (mut times, begin, cpu) = (Vec::new(), Instant::now(), cpu_seconds());
    while another(times.len(), begin, seconds) {
        times.push(timed()?);
    }
    let cpu_s = cpu_seconds().zip(cpu).map(|(end, begin)| (end - begin) / times.len() as f64);
    Ok(Times { cpu_s, ..Times::new(times) })
}

/// Whether to time another run, after those since `begin`.
pub fn another(runs: usize, begin: Instant, seconds: f64) -> bool {
    runs < RUNS.0 || (begin.elapsed().as_secs_f64() < seconds && runs < RUNS.1)
}

/// CPU time of this process over all threads, at a resolution of 10 ms, if the system reports it (Linux:
/// `proc_pid_stat(5)`, fields 14 and 15).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> = after_name.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    (ticks.len() == 2).then(|| (ticks[0] + ticks[1]) / 100.0)
}

/// Rounds to six digits, more than the precision of timings on a shared machine.
pub fn rounded(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_spread() {
        let times = Times::new(vec![5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((times.quantile(0.0), times.quantile(0.5), times.quantile(1.0)), (1.0, 3.0, 5.0));
        assert_eq!(times.spread(), 2.0 / 3.0);
        assert!(Times::new(Vec::new()).quantile(0.5).is_nan());
    }

    #[test]
    fn at_least_five_runs_are_timed() {
        let mut runs = 0;
        let times = time(0.0, || {
            runs += 1;
            Ok(())
        });
        assert_eq!(times.expect("runs").runs(), 5);
        assert!(runs >= 8);
    }
}
