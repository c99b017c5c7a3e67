//! Kernels whose operands or results are stored in narrow types.

use crate::DType;
use crate::op::{Args, Binding, Kernel, Launch, Lowered, Slot, Variant};

/// Lowers a kernel; its launches load narrow inputs from the buffers that store them.
pub(super) fn lower_kernel(kernel: &dyn Kernel, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
    let mut lowered = kernel.lower(variant, args)?;
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
