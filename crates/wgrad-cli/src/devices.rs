//! `wgrad devices`: lists every adapter with its limits and features.

use serde_json::{Value as Json, json};
use wgrad::{Device, NO_ADAPTER, Profile};

use crate::adapter;
use wgrad_lab::output::{Out, Stop};

/// Lists the adapters, best first; `--device` takes their numbers.
pub fn run(json: bool, out: &mut Out) -> Result<bool, Stop> {
    let adapters = Device::list();
    if json {
        let all: Vec<Json> = adapters.iter().enumerate().map(|(index, profile)| as_json(index, profile)).collect();
        out.line(format!("{:#}", json!({ "adapters": all })))?;
        return Ok(true);
    }
    if adapters.is_empty() {
        out.line(format!("{NO_ADAPTER}."))?;
        out.line("Until then wgrad computes on the CPU reference, in f64 and slowly (--device cpu).")?;
        return Ok(true);
    }
    for (index, profile) in adapters.iter().enumerate() {
        out.line(format!("{index}  {}", profile.name))?;
        for (key, value) in details(profile) {
            out.line(format!("   {key:<18} {value}"))?;
        }
    }
    out.line("--device (or WGRAD_DEVICE) takes a number, a part of a name, a backend, or cpu for the reference; otherwise 0 is used.")?;
    Ok(true)
}

fn details(profile: &Profile) -> Vec<(&'static str, String)> {
    let subgroups = match profile.subgroups {
        Some((min, max)) if min == max => format!("of {min}"),
        Some((min, max)) => format!("of {min} to {max}"),
        None => "no".to_owned(),
    };
    let yes = |has| if has { "yes" } else { "no" }.to_owned();
    vec![
        ("backend", profile.backend.clone()),
        ("driver", if profile.driver.is_empty() { "not named".to_owned() } else { profile.driver.clone() }),
        ("type", profile.kind.clone()),
        (
            "buffer",
            format!("at most {}, of which a kernel sees {}", size(profile.max_buffer), size(profile.max_binding)),
        ),
        ("storage buffers", format!("{} per kernel", profile.max_storage_buffers)),
        (
            "workgroup",
            format!("{} invocations, {} of memory", profile.max_invocations, size(profile.max_workgroup_memory.into())),
        ),
        ("multiprocessors", profile.multiprocessors.map_or("unknown".to_owned(), |count| count.to_string())),
        ("grid", format!("{} workgroups per dimension", profile.max_workgroups)),
        ("subgroups", subgroups),
        ("16-bit floats", yes(profile.f16)),
        ("matrix units", matrix_units(profile)),
        ("timestamps", yes(profile.timestamps)),
    ]
}

/// The shapes of cooperative matrices that [`wgrad::Precision::Mixed`] can use.
fn matrix_units(profile: &Profile) -> String {
    let shapes: Vec<String> = profile.cooperative_matrices.iter().map(|side| format!("{side}x{side}x{side}")).collect();
    if shapes.is_empty() { "no".to_owned() } else { format!("{} (f16, sums in f32)", shapes.join(", ")) }
}

/// Bytes in the largest binary unit in which the number is at least 1.
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    let digits = usize::from(value.fract() > 0.05);
    format!("{value:.digits$} {}", units[unit])
}

fn as_json(index: usize, profile: &Profile) -> Json {
    let mut json = adapter::declared(profile);
    json["index"] = index.into();
    json
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        assert_eq!(super::size(512), "512 bytes");
        assert_eq!(super::size(16_384), "16 KiB");
        assert_eq!(super::size((2 << 30) - 1), "2.0 GiB");
        assert_eq!(super::size(128 << 20), "128 MiB");
        assert_eq!(super::size(3 << 29), "1.5 GiB");
    }
}
