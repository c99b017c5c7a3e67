//! Words of buffers: loads and stores of single elements and of four, in every type.

use std::fmt::Write;

use crate::DType;

/// The expression that loads one element, widened.
pub(super) fn element(dtype: DType, prefix: &str, operand: usize, position: &str) -> String {
    match dtype.per_word() {
        1 => format!("{prefix}x{operand}[{position}]"),
        n => format!("element_{dtype}({prefix}x{operand}[({position}) / {n}u], {position})"),
    }
}

/// A value loaded from a buffer of this type, as `dtype`: narrow integers may be read as f32.
pub(super) fn converted(name: String, stored: DType, dtype: DType) -> String {
    if dtype == DType::F32 && !stored.is_float() { format!("f32({name})") } else { name }
}

/// Converts a stored word to the type that functions take; [`pack`] converts it back.
pub(super) fn unpack(dtype: DType, text: &str) -> String {
    if dtype == DType::Bool { format!("{text} != 0u") } else { text.to_owned() }
}

pub(super) fn pack(dtype: DType, text: &str) -> String {
    if dtype == DType::Bool { format!("select(0u, 1u, {text})") } else { text.to_owned() }
}

pub(super) fn wgsl_value(dtype: DType) -> &'static str {
    dtype.wide().name()
}

/// The type of a result before it is stored: a word, or the wide type of a narrow one.
pub(super) fn result(dtype: DType) -> &'static str {
    if dtype.is_narrow() { wgsl_value(dtype) } else { dtype.wgsl_storage() }
}

/// The words of four results of a narrow type.
pub(super) fn packed_quad(dtype: DType, result: usize) -> Vec<String> {
    let [e0, e1, e2, e3] = [0, 1, 2, 3].map(|k| format!("e{k}.r{result}"));
    match dtype.per_word() {
        4 => vec![format!("pack_{dtype}(vec4({e0}, {e1}, {e2}, {e3}))")],
        _ => vec![format!("pack_{dtype}(vec2({e0}, {e1}))"), format!("pack_{dtype}(vec2({e2}, {e3}))")],
    }
}

/// Stores the words of four elements at a quad of a buffer, which is bound as vectors unless it is `scattered`.
pub(super) fn store_words(buffer: &str, quad: &str, words: &[String], scattered: bool) -> String {
    match words {
        [word] => format!("  {buffer}[{quad}] = {word};\n"),
        [a, b] if scattered => {
            format!("  {buffer}[2u * ({quad})] = {a};\n  {buffer}[2u * ({quad}) + 1u] = {b};\n")
        }
        words => format!("  {buffer}[{quad}] = vec2({});\n", words.join(", ")),
    }
}

/// Stores four results: as vectors where possible; single words for scattered operands and a partial last group.
pub(super) fn store_quad(stores: &[(String, usize, DType)], scattered: &[bool], all_fit: bool) -> String {
    let mut text = String::new();
    // The stores of a whole group, then those of a partial one.
    let (mut vectors, mut partial) = (String::new(), String::new());
    for (r, (_, x, dtype)) in stores.iter().enumerate() {
        let (x, scattered) = (*x, scattered[*x]);
        match dtype.is_narrow().then(|| packed_quad(*dtype, r)) {
            Some(words) => {
                vectors.push_str(&store_words(&format!("x{x}"), "q", &words, scattered));
                let place = |k: usize| match (words.len(), scattered) {
                    (1, _) => format!("x{x}[q]"),
                    (_, true) => format!("x{x}[2u * q + {k}u]"),
                    (_, false) => format!("x{x}[q].{}", ["x", "y"][k]),
                };
                let _ = writeln!(partial, "    {} = {};", place(0), words[0]);
                if let Some(word) = words.get(1) {
                    let _ = writeln!(partial, "    if (i0 + 2u < n) {{ {} = {word}; }}", place(1));
                }
            }
            None if scattered => {
                let _ = writeln!(text, "  x{x}[i0] = e0.r{r};");
                for k in 1..4 {
                    let store = format!("x{x}[i{k}] = e{k}.r{r};");
                    let store = if all_fit { store } else { format!("if (i0 + {k}u < n) {{ {store} }}") };
                    let _ = writeln!(text, "  {store}");
                }
            }
            None => {
                let _ = writeln!(vectors, "  x{x}[q] = vec4(e0.r{r}, e1.r{r}, e2.r{r}, e3.r{r});");
                let _ = writeln!(partial, "    x{x}[q].x = e0.r{r};");
                let _ = writeln!(partial, "    if (i0 + 1u < n) {{ x{x}[q].y = e1.r{r}; }}");
                let _ = writeln!(partial, "    if (i0 + 2u < n) {{ x{x}[q].z = e2.r{r}; }}");
            }
        }
    }
    if all_fit || vectors.is_empty() {
        return vectors + &text;
    }
    format!("  if (i0 + 3u < n) {{\n{vectors}  }} else {{\n{partial}  }}\n{text}")
}
