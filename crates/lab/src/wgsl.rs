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
    let options = naga::front::wgsl::Options { parse_doc_comments: false, capabilities: capabilities() };
    let module = naga::front::wgsl::Frontend::new_with_options(options)
        .parse(text)
        .map_err(|e| with_locations(text, &e.emit_to_string(text)))?;
    let info = validate(&module).map_err(|e| with_locations(text, &e.emit_to_string(text)))?;
    Ok((module, info))
}

/// Validates a shader, with the features that wgrad uses where a device has them.
///
/// # Errors
/// naga's.
pub fn validate(module: &Module) -> Result<ModuleInfo, Box<WithSpan<ValidationError>>> {
    Validator::new(ValidationFlags::all(), capabilities())
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(module)
        .map_err(Box::new)
}

/// What devices may offer beyond the defaults.
fn capabilities() -> Capabilities {
    let f16 = Capabilities::SHADER_FLOAT16 | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    Capabilities::SUBGROUP | f16 | Capabilities::COOPERATIVE_MATRIX
}

/// The version of SPIR-V that a module is translated to. Cooperative matrices need a later one.
pub fn spirv_version(module: &Module) -> (u8, u8) {
    let cooperative = |(_, ty): (_, &naga::Type)| matches!(ty.inner, naga::TypeInner::CooperativeMatrix { .. });
    if module.types.iter().any(cooperative) { (1, 6) } else { (1, 3) }
}
