//! Where a step's time goes: each unit of its plan alone.

use std::time::Instant;

use serde_json::{Value as Json, json};
use wgrad::plan::{Options, Plan};
use wgrad::{Session, Tensor, Value};

use super::one::{rounded, time};
use super::table;
use super::tasks::Work;
use crate::output::Stop;

/// Launches of a unit in one submission: enough that the submission does not count.
const MOST: f64 = 64.0;

/// Times each unit of the plan, so many seconds in all.
pub fn units(work: &Work, session: &mut Session, plan: &Plan, options: &Options, seconds: f64) -> Result<Json, Stop> {
    let feeds: Vec<(&str, &Tensor)> = work.feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let outputs: Vec<&Value> = work.outputs.iter().collect();
    let mut units = Vec::with_capacity(plan.units.len());
    for (number, unit) in plan.units.iter().enumerate() {
        let alone = |session: &mut Session, times: usize, seconds: f64| -> Result<f64, Stop> {
            let program = session.compile_edited(&work.graph, &outputs, options, |plan| {
                plan.units = vec![plan.units[number].clone(); times];
                plan.commits.clear();
                Ok(())
            })?;
            let run = || -> Result<(), Stop> {
                session.submit(&program, &feeds)?;
                Ok(session.wait()?)
            };
            Ok(time(seconds, run)?.quantile(0.5) / times as f64)
        };
        let begin = Instant::now();
        let once = alone(session, 1, 0.0)?;
        let repeats = (0.005 / once).clamp(1.0, MOST) as usize;
        let left = seconds / plan.units.len() as f64 - begin.elapsed().as_secs_f64();
        let median = alone(session, repeats, left.max(0.0))?;
        let bytes: usize = unit.reads.iter().chain(&unit.writes).map(|stored| stored.ty.bytes()).sum();
        units.push(json!({
            "unit": unit.label,
            "dispatches": unit.dispatches.len(),
            "median_s": rounded(median),
            "gb_s": rounded(bytes as f64 / median / 1e9),
            "writes": unit.writes.iter().map(|stored| stored.ty.to_string()).collect::<Vec<_>>(),
        }));
    }
    Ok(Json::Array(units))
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
    lines.push(format!("  {:>9} all launches alone; {rest:.0}% of the run is none of them", table::time(all)));
    lines
}

fn time_of(unit: &Json) -> String {
    unit["median_s"].as_f64().map_or("-".to_owned(), table::time)
}
