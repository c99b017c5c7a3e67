//! Specialization of WGSL source: sets constants and aliases by name, unrolls loops, and adds the functions
//! of `scalar.wgsl` that the source calls. Deliberately simple: the shaders in the repository are readable WGSL.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

/// The source of `shaders/NAME.wgsl`, compiled into the library.
#[macro_export]
#[doc(hidden)]
macro_rules! wgsl {
    ($name:literal) => {
        $crate::shader::Shader::new(
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $name, ".wgsl")),
        )
    };
}

/// The epilogue slot of kernels that store four consecutive elements at a time; the index `i` of the
/// first is a multiple of 4.
pub const EPILOGUE4: &str = "fn epilogue4(v: vec4<f32>, i: u32) -> vec4<f32> { return v; }";

/// A shader file being specialized for one kernel.
#[derive(Clone, Debug)]
pub struct Shader {
    name: &'static str,
    text: String,
    mistake: Option<String>,
}

impl Shader {
    #[doc(hidden)]
    pub fn new(name: &'static str, text: &str) -> Self {
        Shader { name, text: text.to_owned(), mistake: None }
    }

    fn fail(mut self, what: String) -> Self {
        self.mistake.get_or_insert(what);
        self
    }

    /// Appends source that several shaders share.
    pub fn append(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Replaces the statement that starts with `head` and ends with `;`, which must occur exactly once.
    fn replace_one(mut self, head: &str, with: &str) -> Self {
        let found: Vec<usize> = self.text.match_indices(head).map(|(at, _)| at).collect();
        let [at] = found[..] else {
            let n = found.len();
            return self.fail(format!("`{head}` must occur exactly once, but occurs {n} times"));
        };
        let Some(length) = self.text[at..].find(';') else {
            return self.fail(format!("`{head}` has no `;`"));
        };
        self.text.replace_range(at..at + length + 1, with);
        self
    }

    /// Sets `const NAME: TYPE = ...;`, which must occur exactly once.
    pub fn constant(self, name: &str, value: impl std::fmt::Display) -> Self {
        for ty in ["u32", "i32", "f32", "bool"] {
            let head = format!("const {name}: {ty} =");
            if self.text.contains(&head) {
                let literal = match ty {
                    "u32" => format!("{value}u"),
                    "i32" => format!("{value}i"),
                    "f32" => format!("{value}f"),
                    _ => format!("{value}"),
                };
                return self.replace_one(&head, &format!("{head} {literal};"));
            }
        }
        self.fail(format!("there is no `const {name}: u32|i32|f32|bool`"))
    }

    /// Sets `alias NAME = ...;`, which must occur exactly once.
    pub fn alias(self, name: &str, ty: &str) -> Self {
        self.replace_one(&format!("alias {name} ="), &format!("alias {name} = {ty};"))
    }

    /// Replaces the function `name`, which must occur exactly once and start with `fn NAME(`.
    pub fn function(mut self, name: &str, with: &str) -> Self {
        match find_function(&self.text, name) {
            Some(range) => {
                self.text.replace_range(range, with.trim_end());
                self
            }
            None => self.fail(format!("there is no `fn {name}(`")),
        }
    }

    /// Instantiates the template function `name`: one copy per entry of `instances`, which replaces
    /// `words` in its name and body.
    pub fn instances<const N: usize>(self, name: &str, words: [&str; N], instances: &[[&str; N]]) -> Self {
        let Some(range) = find_function(&self.text, name) else {
            return self.fail(format!("there is no `fn {name}(`"));
        };
        let template = self.text[range].to_owned();
        let instance = |with: &[&str; N]| {
            words.iter().zip(with).fold(template.clone(), |text, (word, with)| text.replace(word, with))
        };
        let all: Vec<String> = instances.iter().map(instance).collect();
        self.function(name, &all.join("\n\n"))
    }

    /// Leaves loops marked `// unroll` rolled, if unrolling would make the source too long.
    pub fn rolled(mut self) -> Self {
        self.text = self.text.replace(UNROLL, "{");
        self
    }

    /// The complete source, with loops marked `// unroll` unrolled and the functions of `scalar.wgsl`
    /// that it calls, directly or indirectly, appended.
    pub fn finish(self) -> Result<Arc<str>, String> {
        let name = self.name;
        let complain = |what| Err(format!("shaders/{name}.wgsl: {what}"));
        if let Some(mistake) = self.mistake {
            return complain(mistake);
        }
        match unroll(&self.text) {
            Ok(text) => Ok(with_scalar_functions(&text).into()),
            Err(mistake) => complain(mistake),
        }
    }
}

/// The byte range of `fn name(...) ... { ... }` at the start of a line.
fn find_function(text: &str, name: &str) -> Option<std::ops::Range<usize>> {
    let head = format!("fn {name}(");
    let at = if text.starts_with(&head) { 0 } else { text.find(&format!("\n{head}"))? + 1 };
    let open = at + text[at..].find('{')?;
    Some(at..matching_brace(text, open)? + 1)
}

/// The position of the brace that matches the one at `open`.
fn matching_brace(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Replaces whole words `from` with `to`.
fn replace_word(text: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let before = rest[..at].bytes().last().or(out.bytes().last()).is_some_and(is_word);
        let after = rest[at + from.len()..].bytes().next().is_some_and(is_word);
        out.push_str(&rest[..at]);
        out.push_str(if before || after { from } else { to });
        rest = &rest[at + from.len()..];
    }
    out.push_str(rest);
    out
}

/// Opens the body of a loop to unroll.
const UNROLL: &str = "{ // unroll";

/// Unrolls `for (var i = 0u; i < N; i++) { // unroll`, where N is a number or a constant of the source.
fn unroll(text: &str) -> Result<String, String> {
    let mut text = text.to_owned();
    // Start from the end, so that inner loops are unrolled before outer ones.
    let mut end = text.len();
    while let Some(mark) = text[..end].rfind(UNROLL) {
        let start = text[..mark].rfind("for (").ok_or("`// unroll` without a `for (`")?;
        let head = &text[start..mark];
        let bad = || format!("cannot unroll `{}`", head.trim());
        let inner = head.trim().strip_prefix("for (var ").and_then(|h| h.strip_suffix(')')).ok_or_else(bad)?;
        let parts: Vec<&str> = inner.split(';').map(str::trim).collect();
        let [init, test, step] = parts[..] else { return Err(bad()) };
        let (name, from) = init.split_once('=').ok_or_else(bad)?;
        let name = name.trim();
        let bound = test.strip_prefix(name).and_then(|t| t.trim().strip_prefix('<')).ok_or_else(bad)?;
        if from.trim() != "0u" || step.strip_prefix(name).map(str::trim) != Some("++") {
            return Err(bad());
        }
        let count = constant_value(&text, bound.trim()).ok_or_else(bad)?;
        let close = matching_brace(&text, mark).ok_or_else(bad)?;
        let body = text[mark + UNROLL.len()..close].to_owned();
        let declares = body.contains("let ") || body.contains("var ");
        let mut unrolled = String::new();
        for i in 0..count {
            let step = replace_word(&body, name, &format!("{i}u"));
            let step = step.trim_matches('\n').trim_end();
            let step = if declares { format!("{{\n{step}\n}}") } else { step.to_owned() };
            unrolled.push_str(&step);
            unrolled.push('\n');
        }
        text.replace_range(start..close + 1, unrolled.trim());
        end = start;
    }
    Ok(text)
}

/// The value of a literal such as `8` or `8u`, of a constant `const NAME: u32 = 8u;` of the source, or of
/// a quotient or product of two of these.
fn constant_value(text: &str, expression: &str) -> Option<u32> {
    if let Some((a, b)) = expression.split_once('/') {
        return constant_value(text, a.trim())?.checked_div(constant_value(text, b.trim())?);
    }
    if let Some((a, b)) = expression.split_once('*') {
        return constant_value(text, a.trim())?.checked_mul(constant_value(text, b.trim())?);
    }
    if let Ok(number) = expression.trim_end_matches('u').parse() {
        return Some(number);
    }
    let head = format!("const {expression}: u32 =");
    let at = text.find(&head)? + head.len();
    let value = &text[at..at + text[at..].find(';')?];
    constant_value(text, value.trim())
}

/// A function or constant of `scalar.wgsl`, and the words it mentions.
struct Item {
    text: &'static str,
    mentions: HashSet<&'static str>,
}

/// The words of a source outside comments, except numbers. Performance matters: planning calls this for every kernel.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at;
            let length = |wanted: fn(u8) -> bool| bytes[start..].iter().take_while(|&&byte| wanted(byte)).count();
            match bytes.get(start..)? {
                [] => return None,
                [b'/', b'/', ..] => at += length(|byte| byte != b'\n'),
                [first, ..] if is_word(*first) => {
                    at += length(is_word);
                    if first.is_ascii_alphabetic() {
                        return Some(&text[start..at]);
                    }
                }
                _ => at += 1,
            }
        }
    })
}

/// The functions and constants that a source defines at the start of a line.
fn defined(text: &str) -> HashSet<&str> {
    let names = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("fn ").or(line.strip_prefix("const "))?;
        let (name, rest) = rest.split_at(rest.bytes().take_while(|&b| is_word(b)).count());
        rest.starts_with(['(', ':']).then_some(name)
    });
    names.collect()
}

/// The names of the items of `scalar.wgsl` in file order, and the items by name.
fn scalar_items() -> &'static (Vec<&'static str>, HashMap<&'static str, Item>) {
    static ITEMS: OnceLock<(Vec<&'static str>, HashMap<&'static str, Item>)> = OnceLock::new();
    ITEMS.get_or_init(|| {
        let source = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/scalar.wgsl"));
        let (mut order, mut items) = (Vec::new(), HashMap::new());
        let mut at = 0;
        while let Some(line_end) = source[at..].find('\n').map(|n| at + n) {
            let line = &source[at..line_end];
            let name_of =
                |head: &str| line.strip_prefix(head).map(|rest| rest.bytes().take_while(|&b| is_word(b)).count());
            let (name, end) = if let Some(n) = name_of("fn ") {
                let close = source[at..].find('{').and_then(|open| matching_brace(source, at + open));
                (&line[3..3 + n], close.map_or(source.len(), |close| close + 1))
            } else if let Some(n) = name_of("const ") {
                (&line[6..6 + n], line_end)
            } else {
                at = line_end + 1;
                continue;
            };
            let text = &source[at..end];
            items.insert(name, Item { text, mentions: words(text).collect() });
            order.push(name);
            at = source[end..].find('\n').map_or(source.len(), |n| end + n + 1);
        }
        (order, items)
    })
}

/// Whether `scalar.wgsl` has a function with this name.
pub fn has_scalar_function(name: &str) -> bool {
    scalar_items().1.contains_key(name)
}

/// The names of the items of `scalar.wgsl` that the words mention, directly or indirectly, except those in
/// `defined`.
fn called<'a>(words: impl Iterator<Item = &'a str>, defined: &HashSet<&str>) -> HashSet<&'static str> {
    let items = &scalar_items().1;
    let mut called = HashSet::new();
    let mut open: Vec<&str> = words.filter(|word| items.contains_key(word)).collect();
    while let Some(word) = open.pop() {
        if let Some((&name, item)) = items.get_key_value(word).filter(|_| !defined.contains(word))
            && called.insert(name)
        {
            open.extend(&item.mentions);
        }
    }
    called
}

/// The number of lines of a function of `scalar.wgsl` and of everything that it calls, each counted once.
pub(crate) fn lines_called(function: &str) -> usize {
    let items = &scalar_items().1;
    let called = called(std::iter::once(function), &HashSet::new());
    called.iter().map(|name| items[name].text.lines().count()).sum()
}

/// Appends the items of `scalar.wgsl` that the source mentions, directly or indirectly, and does not
/// define.
fn with_scalar_functions(text: &str) -> String {
    let (order, items) = scalar_items();
    let called = called(words(text), &defined(text));
    let mut out = text.trim_end().to_owned();
    out.push('\n');
    for name in order.iter().filter(|name| called.contains(*name)) {
        out.push('\n');
        out.push_str(items[name].text);
        out.push('\n');
    }
    out
}

/// Replaces the function `name` of a finished source, and adds what the new one calls.
pub(crate) fn splice(text: &str, name: &str, with: &str) -> Result<Arc<str>, String> {
    let range = find_function(text, name).ok_or_else(|| format!("internal: the kernel has no `fn {name}(`"))?;
    let mut text = text.to_owned();
    text.replace_range(range, with.trim_end());
    Ok(with_scalar_functions(&text).into())
}

/// Completes generated source with the functions it calls.
pub(crate) fn complete(text: &str) -> Arc<str> {
    with_scalar_functions(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_must_occur_exactly_once() {
        let shader = || Shader::new("t", "const N: u32 = 4u;\nalias T = f32;\n");
        let text = shader().constant("N", 7).alias("T", "u32").finish().expect("good");
        assert_eq!(&*text, "const N: u32 = 7u;\nalias T = u32;\n");
        let missing = shader().constant("M", 7).finish().expect_err("no M");
        assert!(missing.contains("shaders/t.wgsl") && missing.contains("const M"), "{missing}");
        let twice = Shader::new("t", "const N: u32 = 4u;\nconst N: u32 = 5u;").constant("N", 1);
        assert!(twice.finish().expect_err("twice").contains("exactly once"));
    }

    #[test]
    fn nested_loops_unroll_inner_first() {
        let text = "const N: u32 = 2u;\nfor (var i = 0u; i < N; i++) { // unroll\n\
                    for (var j = 0u; j < 2u; j++) { // unroll\n  a[i][j] = ij;\n}\n}\n";
        let text = unroll(text).expect("unrolls");
        for expected in ["a[0u][0u] = ij;", "a[0u][1u]", "a[1u][0u]", "a[1u][1u]"] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(!text.contains("for"));
        assert!(unroll("while (x) { // unroll\n}").is_err());
    }

    #[test]
    fn only_whole_words_are_replaced() {
        assert_eq!(replace_word("acc c accc_c c(cc)c", "c", "0u"), "acc 0u accc_c 0u(cc)0u");
    }

    #[test]
    fn functions_are_replaced_whole() {
        let shader = Shader::new("t", "fn f(x: f32) -> f32 {\n  if (x > 0) { return x; }\n  return x;\n}\nfn g() {}\n");
        let text = shader.function("f", "fn f() {}").finish().expect("good");
        assert_eq!(&*text, "fn f() {}\nfn g() {}\n");
    }
}
