//! Lowering of kernels whose operands or results may be stored in narrow types.

use crate::DType;
use crate::op::{Args, Binding, Kernel, Launch, Lowered, Slot, Variant};

/// Lowers a kernel; its launches load narrow inputs from the buffers that store them.
pub(super) fn lower_kernel(kernel: &dyn Kernel, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
    let mut lowered = kernel.lower(variant, args)?;
    check_slots(&lowered, args)?;
    if kernel.unpacks(variant) {
        return Ok(lowered);
    }
    for launch in &mut lowered.launches {
        for (number, binding) in launch.bindings.iter().enumerate() {
            if let Binding::Read(Slot::Input(i)) = binding
                && args.stored[*i] != args.inputs[*i].dtype
                && !launch.wgsl.holds(number as u32, args.stored[*i])
            {
                launch.wgsl = launch.wgsl.stored(number as u32, args.stored[*i], args.inputs[*i].dtype)?;
            }
        }
    }
    Ok(lowered)
}

/// Whether the launches bind only what exists.
fn check_slots(lowered: &Lowered, args: &Args<'_>) -> Result<(), String> {
    for binding in lowered.launches.iter().flat_map(|launch| &launch.bindings) {
        let (Binding::Read(slot) | Binding::Write(slot)) = binding else { continue };
        let (what, number, count) = match *slot {
            Slot::Input(i) => ("input", i, args.inputs.len()),
            Slot::Output(o) => ("output", o, args.outputs.len()),
            Slot::Scratch(s) => ("scratch buffer", s, lowered.scratch.len()),
        };
        if number >= count {
            return Err(format!("a launch binds {what} {number}, but there are {count}"));
        }
    }
    Ok(())
}

/// Stores the kernel's first output, which its last launch writes, in a narrow type. Without an epilogue, which would
/// round, the values are rounded as they are stored.
pub(super) fn store_narrow(launch: &mut Launch, dtype: DType) -> Result<(), String> {
    let output = |binding: &Binding| *binding == Binding::Write(Slot::Output(0));
    let number = launch.bindings.iter().position(output).ok_or("the last launch does not write the first output")?;
    let number = number as u32;
    launch.wgsl = match launch.wgsl.epilogue {
        Some(_) => launch.wgsl.stored(number, dtype, dtype.wide())?,
        None => launch.wgsl.stored_rounded(number, dtype)?,
    };
    Ok(())
}
