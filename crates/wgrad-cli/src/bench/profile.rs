//! Where a step's time goes: each unit of its plan alone.

use std::time::Instant;

use serde_json::{Value as Json, json};
use wgrad::{Program, Session, Tensor};

use super::one::{Times, rounded};
use super::table;
use wgrad_lab::output::Stop;

/// Steps, at least, of which each unit's median is taken.
const STEPS: usize = 3;

/// Times each unit of the program, so many seconds in all.
pub fn units(session: &mut Session, program: &Program, feeds: &[(&str, &Tensor)], seconds: f64) -> Result<Json, Stop> {
    let units = &program.plan().units;
    if session.device().is_cpu() {
        return Err(Stop::Error("the reference runs no launches that could be timed; name a GPU with --device".into()));
    }
    let mut times = vec![Vec::new(); units.len()];
    let (mut steps, begin) = (0, Instant::now());
    while steps < STEPS || begin.elapsed().as_secs_f64() < seconds {
        for (times, unit) in times.iter_mut().zip(session.time_units(program, feeds)?) {
            times.push(unit.seconds);
        }
        steps += 1;
    }
    let described = units.iter().zip(times).map(|(unit, times)| {
        let median = Times::new(times).quantile(0.5);
        let bytes: usize = unit.reads.iter().chain(&unit.writes).map(|stored| stored.ty.bytes()).sum();
        json!({
            "unit": unit.label,
            "dispatches": unit.dispatches.len(),
            "median_s": rounded(median),
            "gb_s": rounded(bytes as f64 / median / 1e9),
            "writes": unit.writes.iter().map(|stored| stored.ty.to_string()).collect::<Vec<_>>(),
        })
    });
    Ok(described.collect())
}

/// The lines of a record's profile, in the order of the plan.
pub fn lines(record: &Json) -> Vec<String> {
    let Some(units) = record["profile"].as_array() else { return Vec::new() };
    let seconds = |of: &Json| of["median_s"].as_f64().unwrap_or(0.0);
    let (all, step) = (units.iter().map(seconds).sum::<f64>(), seconds(record));
    let mut lines: Vec<String> = units
        .iter()
        .map(|unit| {
            let writes: Vec<&str> = unit["writes"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
            let label: String = unit["unit"].as_str().unwrap_or("?").chars().take(64).collect();
            format!(
                "  {:>9} {:>4.0}% {:>7.2} GB/s {:>3} dispatches  {label} -> {}",
                time_of(unit),
                seconds(unit) / step * 100.0,
                unit["gb_s"].as_f64().unwrap_or(0.0),
                unit["dispatches"],
                writes.join(", ")
            )
        })
        .collect();
    let rest = (step - all) / step * 100.0;
    lines.push(format!(
        "  {:>9} all units one by one, each submitted and waited for; {rest:.0}% of the run is none of them",
        table::time(all)
    ));
    lines
}

fn time_of(unit: &Json) -> String {
    unit["median_s"].as_f64().map_or("-".to_owned(), table::time)
}
