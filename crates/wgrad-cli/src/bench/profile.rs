//! Times each kernel call of a step's plan separately.

use std::time::Instant;

use serde_json::{Value as Json, json};
use wgrad::{Program, Session, Tensor};

use super::table;
use super::times::{Times, rounded};
use wgrad_lab::output::Stop;

/// Minimum number of steps for the median of a kernel call.
const STEPS: usize = 3;

/// Times each kernel call of the program, for `seconds` in total.
pub fn calls(session: &mut Session, program: &Program, feeds: &[(&str, &Tensor)], seconds: f64) -> Result<Json, Stop> {
    let calls = &program.plan().calls;
    if session.device().is_cpu() {
        return Err(Stop::Error("the reference runs no launches to time; name a GPU with --device".into()));
    }
    let mut times = vec![Vec::new(); calls.len()];
    let (mut steps, begin) = (0, Instant::now());
    while steps < STEPS || begin.elapsed().as_secs_f64() < seconds {
        for (times, call) in times.iter_mut().zip(session.time_calls(program, feeds)?) {
            times.push(call.seconds);
        }
        steps += 1;
    }
    let described = calls.iter().zip(times).map(|(call, times)| {
        let median = Times::new(times).quantile(0.5);
        let bytes: usize = call.reads.iter().chain(&call.writes).map(|stored| stored.ty.bytes()).sum();
        json!({
            "call": call.label,
            "dispatches": call.dispatches.len(),
            "median_s": rounded(median),
            "gb_s": rounded(bytes as f64 / median / 1e9),
            "writes": call.writes.iter().map(|stored| stored.ty.to_string()).collect::<Vec<_>>(),
        })
    });
    Ok(described.collect())
}

/// The lines of a record's profile, in plan order.
pub fn lines(record: &Json) -> Vec<String> {
    let Some(calls) = record["profile"].as_array() else { return Vec::new() };
    let seconds = |of: &Json| of["median_s"].as_f64().unwrap_or(0.0);
    let (all, step) = (calls.iter().map(seconds).sum::<f64>(), seconds(record));
    let mut lines: Vec<String> = calls
        .iter()
        .map(|call| {
            let writes: Vec<&str> = call["writes"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
            let label: String = call["call"].as_str().unwrap_or("?").chars().take(64).collect();
            format!(
                "  {:>9} {:>4.0}% {:>7.2} GB/s {:>3} dispatches  {label} -> {}",
                time_of(call),
                seconds(call) / step * 100.0,
                call["gb_s"].as_f64().unwrap_or(0.0),
                call["dispatches"],
                writes.join(", ")
            )
        })
        .collect();
    let rest = (step - all) / step * 100.0;
    lines.push(format!(
        "  {:>9} all calls, each submitted and waited for separately; {rest:.0}% of the run is other work",
        table::time(all)
    ));
    lines
}

fn time_of(call: &Json) -> String {
    call["median_s"].as_f64().map_or("-".to_owned(), table::time)
}
