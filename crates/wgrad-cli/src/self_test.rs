//! `wgrad check --self-test`: injects known faults into real kernels; each must be caught.

use wgrad::{Device, OpenOptions};
use wgrad_lab::faults::{self, Caught, Fault, Subject};
use wgrad_lab::output::{Out, Stop, open_gpu_with};
use wgrad_lab::seeded;

/// Injects every fault whose variant the device can run, after the same graph has passed without it.
pub fn run(device: Option<&str>, options: &OpenOptions, out: &mut Out) -> Result<bool, Stop> {
    let device = open_gpu_with(device, options)?;
    out.line(format!("device: {device}, driver {}", device.profile().driver))?;
    let (mut caught, mut tried, mut sound) = (0, 0, true);
    for fault in seeded::all() {
        let subject = fault.subject()?;
        let name = describe(&fault);
        if let Some(variant) = fault.variant.filter(|variant| !runs(&device, &subject, variant)) {
            out.line(format!("not here    {name}: the device cannot run {variant}"))?;
            continue;
        }
        if !faults::has_kernel(&device, &subject, &fault)? {
            out.line(format!("not here    {name}: the plan for this device has no such kernel"))?;
            continue;
        }
        tried += 1;
        if let Some(found) = faults::examine(&device, &subject, &fault.options(), |_| Ok(()))? {
            sound = false;
            out.line(format!("UNSOUND     {name}: without the fault, {found}"))?;
            continue;
        }
        match faults::examine(&device, &subject, &fault.options(), |plan| fault.inject(plan))? {
            // A shader that does not compile tests nothing: the fault must be rewritten.
            Some(Caught::Error(why)) => out.line(format!("NO FAULT    {name}: {why}"))?,
            Some(found) => {
                caught += 1;
                out.line(format!("caught by {:<11} {name}{}", found.check(), detail(&found)))?;
            }
            None => out.line(format!("ESCAPED     {name}"))?,
        }
    }
    out.line(format!("caught {caught} of {tried}"))?;
    Ok(sound && caught == tried)
}

fn describe(fault: &Fault) -> String {
    let case = if fault.case.is_empty() { String::new() } else { format!(" ({})", fault.case) };
    format!("{} in {}{case}: {}", fault.kernel, fault.op, fault.what)
}

fn detail(found: &Caught) -> String {
    found.detail().map_or_else(String::new, |detail| format!(" [{detail}]"))
}

fn runs(device: &Device, subject: &Subject, variant: &str) -> bool {
    wgrad::check::variants(&subject.graph.nodes(), device.profile()).contains(&variant)
}
