//! Every shipped shader is valid and translates to every backend's language. Needs no GPU.

use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use crate::common;

fn parse(text: &str) -> Result<(naga::Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let capabilities = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    Ok((module, info))
}

fn translate(shader: &wgrad_lab::shipped::Shipped) -> Result<(), String> {
    let (module, info) = parse(&shader.wgsl)?;
    if let Some(what) = beyond_the_defaults(&module).filter(|_| !shader.software) {
        return Err(format!("needs {what}"));
    }
    let unchecked = naga::proc::BoundsCheckPolicies::default();

    let options = spv::Options { lang_version: (1, 3), ..Default::default() };
    let words = spv::write_vec(&module, &info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    if words.len() < 20 {
        return Err("SPIR-V: empty output".into());
    }

    let options = msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: true,
        bounds_check_policies: unchecked,
        ..Default::default()
    };
    let (text, _) = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .map_err(|e| format!("MSL: {e}"))?;
    has_kernel("MSL", &text)?;

    let mut text = String::new();
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..Default::default() };
    let pipeline = hlsl::PipelineOptions::default();
    hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None).map_err(|e| format!("HLSL: {e}"))?;
    has_kernel("HLSL", &text)?;

    if !shader.subgroups {
        let mut text = String::new();
        let options =
            glsl::Options { version: glsl::Version::Embedded { version: 310, is_webgl: false }, ..Default::default() };
        let pipeline = glsl::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: shader.entry.clone(),
            multiview: None,
        };
        glsl::Writer::new(&mut text, &module, &info, &options, &pipeline, unchecked)
            .and_then(|mut writer| writer.write())
            .map_err(|e| format!("GLSL: {e}"))?;
        has_kernel("GLSL", &text)?;
    }
    Ok(())
}

fn has_kernel(language: &str, text: &str) -> Result<(), String> {
    if text.len() > 200 { Ok(()) } else { Err(format!("{language}: almost no output:\n{text}")) }
}

/// What a shader for GPUs requires beyond WebGPU's default limits, if anything.
fn beyond_the_defaults(module: &naga::Module) -> Option<String> {
    for entry in &module.entry_points {
        let [x, y, z] = entry.workgroup_size;
        if x * y * z > 256 {
            return Some(format!("{x} x {y} x {z} invocations"));
        }
    }
    let variables = module.global_variables.iter();
    let storage = variables.filter(|(_, g)| matches!(g.space, naga::AddressSpace::Storage { .. })).count();
    (storage > 15).then(|| format!("{storage} storage buffers"))
}

#[test]
fn every_shader_translates_to_every_language_within_webgpu_defaults() {
    let invalid = "@compute @workgroup_size(64) fn f() { let x: u32 = 1.5; }";
    assert!(parse(invalid).is_err(), "the test detects an invalid shader");
    let all = wgrad_lab::shipped::shipped().expect("everything compiles");
    let failures: Vec<String> = common::in_parallel(&all, |_, shader| translate(shader).err())
        .into_iter()
        .zip(&all)
        .filter_map(|(why, shader)| Some(format!("{}: {}\n{}", shader.name, why?, shader.wgsl)))
        .collect();
    assert!(failures.is_empty(), "{} of {} texts:\n{}", failures.len(), all.len(), failures.join("\n"));
    assert!(all.len() > 50, "only {} texts", all.len());
    let mut names: Vec<&str> = all.iter().map(|shader| shader.name.as_str()).collect();
    names.dedup();
    assert_eq!(names.len(), all.len(), "file names are distinct");
}
