//! Kernels whose operands or results are stored in narrow types.

use crate::DType;
use crate::op::{Args, Binding, Kernel, Launch, Lowered, Slot, Variant};

/// Lowers a kernel; its launches load narrow inputs from the buffers that store them.
pub(super) fn lower_kernel(kernel: &dyn Kernel, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
    let mut lowered = kernel.lower(variant, args)?;
    for launch in &mut lowered.launches {
        for (number, binding) in launch.bindings.iter().enumerate() {
            if let Binding::Read(Slot::Input(i)) = binding
                && args.stored[*i] != args.inputs[*i].dtype
            {
                launch.wgsl = launch.wgsl.stored(number as u32, args.stored[*i])?;
            }
        }
    }
    Ok(lowered)
}

/// Stores the kernel's first output, which its last launch writes, in a narrow type.
pub(super) fn store_narrow(launch: &mut Launch, dtype: DType) -> Result<(), String> {
    let output = |binding: &Binding| *binding == Binding::Write(Slot::Output(0));
    let number = launch.bindings.iter().position(output).ok_or("the last launch does not write the first output")?;
    launch.wgsl = launch.wgsl.stored(number as u32, dtype)?;
    Ok(())
}
