//! `wgrad ops`: the list of ops, from the registry.

use serde_json::{Value as Json, json};
use wgrad_lab::catalog::{Entry, catalog, markdown};

use wgrad_lab::output::{Out, Stop};

/// Prints the list, as Markdown (docs/OPS.md) or JSON.
pub fn run(json: bool, out: &mut Out) -> Result<bool, Stop> {
    let entries = catalog()?;
    if json {
        out.line(format!("{:#}", Json::from(entries.iter().map(object).collect::<Vec<_>>())))?;
    } else {
        out.line(markdown(&entries).trim_end())?;
    }
    Ok(true)
}

fn object(entry: &Entry) -> Json {
    json!({
        "name": entry.name,
        "composed": entry.composed,
        "dtypes": entry.dtypes,
        "kernels": entry.forward,
        "gradient": entry.backward,
        "tolerance": entry.tolerance,
        "cases": entry.cases,
    })
}
