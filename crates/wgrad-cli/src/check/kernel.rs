//! Kernels as translated by naga, wgpu's shader compiler, for a backend.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use naga::back::{glsl, hlsl, msl, spv};

/// How reports name a SPIR-V module, which is binary; `base64 -d | spirv-dis` prints it.
pub const SPIRV: &str = "SPIR-V in base64";

/// The backend's shader language, and the kernel in it. Bounds checks are off, as in the engine; binding numbers
/// are those of the WGSL, which wgpu renumbers.
pub fn translated(wgsl: &str, entry: &str, backend: &str) -> (&'static str, String) {
    let language = match backend {
        "metal" => "MSL",
        "dx12" => "HLSL",
        "gl" => "GLSL",
        _ => SPIRV,
    };
    match translate(wgsl, entry, backend) {
        Ok(text) => (language, text),
        Err(why) => ("nothing", format!("naga rejects it: {why}")),
    }
}

fn translate(wgsl: &str, entry: &str, backend: &str) -> Result<String, String> {
    let (module, info) = wgrad_lab::wgsl::parse(wgsl)?;
    let unchecked = naga::proc::BoundsCheckPolicies::default();
    match backend {
        "metal" => {
            let options = msl::Options {
                lang_version: (2, 4),
                fake_missing_bindings: true,
                bounds_check_policies: unchecked,
                ..Default::default()
            };
            let written = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default());
            written.map(|(text, _)| text).map_err(|e| e.to_string())
        }
        "dx12" => {
            let mut text = String::new();
            let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..Default::default() };
            let pipeline = hlsl::PipelineOptions::default();
            let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None);
            written.map_err(|e| e.to_string())?;
            Ok(text)
        }
        "gl" => {
            let mut text = String::new();
            let version = glsl::Version::Embedded { version: 310, is_webgl: false };
            let options = glsl::Options { version, ..Default::default() };
            let pipeline = glsl::PipelineOptions {
                shader_stage: naga::ShaderStage::Compute,
                entry_point: entry.to_owned(),
                multiview: None,
            };
            let writer = glsl::Writer::new(&mut text, &module, &info, &options, &pipeline, unchecked);
            writer.and_then(|mut writer| writer.write()).map_err(|e| e.to_string())?;
            Ok(text)
        }
        _ => {
            let options = spv::Options { lang_version: wgrad_lab::wgsl::spirv_version(&module), ..Default::default() };
            let words = spv::write_vec(&module, &info, &options, None).map_err(|e| e.to_string())?;
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            Ok(BASE64_STANDARD.encode(bytes))
        }
    }
}
