//! Shaders as naga parses and validates them.

use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationError};
use naga::valid::{ValidationFlags, Validator};
use naga::{Module, WithSpan};
use wgrad::shader::with_locations;

/// Parses and validates a shader.
///
/// # Errors
/// naga's, with the lines of the files that the text was assembled from.
pub fn parse(text: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| with_locations(text, &e.emit_to_string(text)))?;
    let info = validate(&module).map_err(|e| with_locations(text, &e.emit_to_string(text)))?;
    Ok((module, info))
}

/// Validates a shader, with the features that wgrad uses where a device has them.
///
/// # Errors
/// naga's.
pub fn validate(module: &Module) -> Result<ModuleInfo, Box<WithSpan<ValidationError>>> {
    let f16 = Capabilities::SHADER_FLOAT16 | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    Validator::new(ValidationFlags::all(), Capabilities::SUBGROUP | f16)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(module)
        .map_err(Box::new)
}
