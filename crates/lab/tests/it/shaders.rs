//! Every shipped shader is valid and translates to every backend's language. Needs no GPU.

use naga::TypeInner;
use naga::back::{glsl, hlsl, msl, spv};
use wgrad::shader::Fused;
use wgrad_lab::wgsl::{parse, spirv_version};

use crate::common;

fn translate(shader: &wgrad_lab::shipped::Shipped) -> Result<(), String> {
    let (module, info) = parse(&shader.wgsl.text)?;
    let declared = &shader.wgsl;
    let [x, y, z] = module.entry_points[0].workgroup_size;
    if module.entry_points.len() != 1 || declared.invocations != x * y * z {
        return Err(format!(
            "{} entry points, a workgroup of {x} x {y} x {z}, declared as {}",
            module.entry_points.len(),
            declared.invocations
        ));
    }
    let half = |(_, ty): (_, &naga::Type)| matches!(ty.inner, TypeInner::Scalar(s) | TypeInner::Vector { scalar: s, .. } if s.width == 2);
    let cooperative = |(_, ty): (_, &naga::Type)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. });
    if declared.cooperative != module.types.iter().any(cooperative) {
        return Err(format!("cooperative matrices are declared as {}", declared.cooperative));
    }
    if declared.f16 != module.types.iter().any(half) {
        return Err(format!("16-bit floats are declared as {}", declared.f16));
    }
    let called = |name: &str| module.functions.iter().any(|(_, function)| function.name.as_deref() == Some(name));
    for (slot, width) in [(Fused::Prologue, declared.prologue), (Fused::Epilogue, declared.epilogue)] {
        if width.is_some_and(|width| !called(slot.function(width))) {
            return Err(format!("{slot:?} is declared as {width:?}"));
        }
    }
    let larger = shader.software || shader.name.contains("-tile512-") || GROWING.contains(&&*shader.entry);
    if let Some(what) = beyond_the_defaults(&module).filter(|_| !larger) {
        return Err(format!("needs {what}"));
    }
    let unchecked = naga::proc::BoundsCheckPolicies::default();

    let options = spv::Options { lang_version: spirv_version(&module), ..Default::default() };
    let words = spv::write_vec(&module, &info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    if words.len() < 20 {
        return Err("SPIR-V: empty output".into());
    }

    // DX12 and GL have no cooperative matrices, and Metal only those of 8 x 8.
    if declared.cooperative && !declared.text.contains("const SIDE: u32 = 8u;") {
        return Ok(());
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
    if declared.cooperative {
        return Ok(());
    }

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

/// Kernels whose workgroups are larger on GPUs that allow more than WebGPU's default limits.
const GROWING: &[&str] = &[
    "cross_entropy_workgroup",
    "norm_grad_workgroup",
    "norm_workgroup",
    "softmax_grad_workgroup",
    "softmax_workgroup",
    "sort_tile",
];

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
        .filter_map(|(why, shader)| Some(format!("{}: {}\n{}", shader.name, why?, shader.wgsl.text)))
        .collect();
    assert!(failures.is_empty(), "{} of {} texts:\n{}", failures.len(), all.len(), failures.join("\n"));
    assert!(all.len() > 50, "only {} texts", all.len());
    let mut names: Vec<&str> = all.iter().map(|shader| shader.name.as_str()).collect();
    names.dedup();
    assert_eq!(names.len(), all.len(), "file names are distinct");
}

/// The words of a text outside comments.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    code.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).filter(|word| !word.is_empty())
}

/// Whether a name has the form of a template, such as `dot_LEFT_RIGHT`: segments in capitals stand for any.
fn matches(form: &str, name: &str) -> bool {
    let parameter = |segment: &str| segment.len() > 1 && segment.bytes().all(|b| b.is_ascii_uppercase());
    let template = form.starts_with(|c: char| c.is_ascii_lowercase());
    form.split('_').count() == name.split('_').count()
        && form.split('_').zip(name.split('_')).all(|(a, b)| a == b || template && parameter(a))
}

#[test]
fn every_declaration_ships_and_every_import_is_used() {
    let shipped = wgrad_lab::shipped::shipped().expect("everything compiles");
    let mut known: Vec<&str> = shipped.iter().flat_map(|shader| words(&shader.wgsl.text)).collect();
    known.sort_unstable();
    known.dedup();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders");
    let (mut files, mut declarations, mut unused) = (0, 0, Vec::new());
    let paths: Vec<_> =
        std::fs::read_dir(folder).expect("readable").map(|file| file.expect("readable").path()).collect();
    let all: String = paths.iter().map(|path| std::fs::read_to_string(path).expect("readable")).collect();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files += 1;
        for line in text.lines() {
            let rest = ["fn ", "const ", "alias ", "struct "].iter().find_map(|head| line.strip_prefix(head));
            let Some(name) = rest.and_then(|rest| words(rest).next()) else { continue };
            declarations += 1;
            // Constants of conditions are in no text; they must be mentioned in some file. Plans replace `full` by
            // literals.
            let in_conditions = line.starts_with("const ") && words(&all).filter(|word| *word == name).count() > 1;
            if !in_conditions && !name.starts_with("full_") && !known.iter().any(|word| matches(name, word)) {
                unused.push(format!("{file}: {name}"));
            }
        }
        for import in text.split("import package::").skip(1) {
            let (list, _) = import.split_once(';').expect("an import");
            let (_, names) = list.split_once("::").expect("names");
            for name in words(names) {
                let rest = words(&text).filter(|word| matches(name, word)).count();
                let imported = text.split("import package::").skip(1).filter_map(|import| import.split_once(';'));
                let imports = imported.flat_map(|(list, _)| words(list)).filter(|word| matches(name, word)).count();
                // Or the argument of a template, as in `dot_q_k`.
                let argument = |word: &str| word.split('_').skip(1).any(|segment| segment == name);
                if rest == imports && !words(&text).any(argument) {
                    unused.push(format!("{file}: the import of {name}"));
                }
            }
        }
    }
    assert!(unused.is_empty(), "unused: {unused:#?}");
    assert!(files > 80 && declarations > 450, "{files} files, {declarations} declarations");
}

/// WGSL's grammar requires parentheses where `&`, `|` or `^` meets another binary operator, a shift meets arithmetic, or
/// `&&` meets `||`. naga accepts expressions without them; Chromium's compiler does not.
#[test]
fn operators_of_different_kinds_are_in_parentheses() {
    let wrong = ["let r = a >> 16u & 255u;", "x[a & b | c]", "if (a && b || c) {", "f(a + b << c, d)", "a ^ b == c"];
    for text in wrong {
        assert!(mixed_operators(text).is_some(), "{text}");
    }
    let right = "let r = (a >> 16u) & 255u; // a & b + c\nx = a | b | (c << 2u), d + e * f < g && h >> 2u == i;";
    assert_eq!(mixed_operators(right), None);
    for shader in wgrad_lab::shipped::shipped().expect("everything compiles") {
        if let Some(line) = mixed_operators(&shader.wgsl.text) {
            panic!("{}: parentheses are missing: {line}", shader.name);
        }
    }
}

/// The first line with an expression that mixes operators. Binary operators are those between spaces.
fn mixed_operators(text: &str) -> Option<&str> {
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        // The operators of the expressions that are open.
        let mut open: Vec<Vec<&str>> = vec![Vec::new()];
        for word in code.split(' ') {
            let operator = word.chars().all(|c| "&|^<>=!+-*/%".contains(c)) && !word.is_empty();
            match word {
                "=" | "+=" | "-=" | "*=" | "/=" | "|=" | "&=" | "^=" => open.last_mut()?.clear(),
                _ if operator => open.last_mut()?.push(word),
                _ => {}
            }
            for c in word.chars() {
                match c {
                    '(' | '[' => open.push(Vec::new()),
                    ')' | ']' | ',' | ';' | '{' | '}' => {
                        if mixed(open.last()?) {
                            return Some(line);
                        }
                        if ")]".contains(c) && open.len() > 1 {
                            open.pop();
                        } else {
                            open.last_mut()?.clear();
                        }
                    }
                    _ => {}
                }
            }
        }
        if open.iter().any(|operators| mixed(operators)) {
            return Some(line);
        }
    }
    None
}

/// Whether the operators of one expression need parentheses.
fn mixed(operators: &[&str]) -> bool {
    let any = |operators: &[&str], kind: &[&str]| operators.iter().any(|operator| kind.contains(operator));
    let logical = any(operators, &["&&"]) && any(operators, &["||"]);
    // The operands of && and || are expressions of their own.
    let mut operands = operators.split(|&operator| operator == "&&" || operator == "||");
    logical
        || operands.any(|operand| {
            let alike = operand.iter().all(|operator| *operator == operand[0]);
            let shift = any(operand, &["<<", ">>"]);
            (any(operand, &["&", "|", "^"]) && !alike) || (shift && any(operand, &["+", "-", "*", "/", "%"]))
        })
}
