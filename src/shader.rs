//! Assembly of WGSL from modules.
//!
//! A file of `shaders/` is a module. It is WGSL with a few additions, most of them in the syntax of
//! [WESL](https://wesl-lang.dev), that are resolved when a kernel is assembled:
//!
//! - `import package::reduce_walk::{combine, store};` makes declarations of another file visible; a template (below) is
//!   imported by its form.
//! - `@if(VEC4 && T == f32)`, `@elif(...)` and `@else` stand before declarations, imports, parameters and statements.
//!   Conditions are expressions of `const`s and `alias`es of the text.
//! - `@unroll for (var i = 0u; i < N; i++) { ... }` is unrolled; N is an expression of constants. `@unroll(CONDITION)`
//!   unrolls where the condition holds.
//! - `@template(LEFT, RIGHT) fn dot_LEFT_RIGHT(...)` is a function that is copied for each name of its form that the
//!   text mentions: `dot_q_k(...)` makes a copy in which LEFT is `q` and RIGHT is `k`. WGSL cannot pass storage buffers
//!   to functions.
//!
//! The host sets `const`s and `alias`es by name ([`Shader::set`]). A binding that a kernel only reads, or only writes,
//! may be stored in a narrow type ([`Source::stored`]): each `x[i]` becomes a call that loads element i and widens it,
//! and each `x[i] = v` a call that packs v and stores it. The text has the entry point, its bindings, and what these
//! mention, directly or indirectly. A name that a module neither declares nor imports is looked up in the kernel's own
//! file, then in `prelude.wgsl` and `scalar.wgsl`: shared functions may use the constants and bindings of their kernel,
//! and generated code the elementwise functions. All names share one namespace. Comments of the form `//
//! shaders/tree.wgsl:12` tell where the following lines come from; [`locate`] reads them.

mod assembly;
mod emit;
mod locate;
mod module;
mod narrow;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Display;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use assembly::{Assembly, write_items};
pub use locate::{locate, with_locations};
use module::{Module, is_word};

/// Name and source of every file in `shaders/`.
const SOURCES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

static MODULES: LazyLock<HashMap<&str, Result<Module, String>>> =
    LazyLock::new(|| SOURCES.iter().map(|&(name, source)| (name, Module::parse(name, source))).collect());

/// The modules that every text sees without an import.
struct Prelude {
    modules: [&'static Module; 2],
    /// Module and place of each declaration.
    places: HashMap<&'static str, (usize, usize)>,
}

static PRELUDE: LazyLock<Result<Prelude, String>> = LazyLock::new(|| {
    let modules = [library("prelude")?, library("scalar")?];
    let places = modules
        .iter()
        .enumerate()
        .flat_map(|(number, module)| module.items.iter().enumerate().map(move |(at, item)| (item.name, (number, at))));
    Ok(Prelude { modules, places: places.collect() })
});

fn library(name: &str) -> Result<&'static Module, String> {
    match MODULES.get(name) {
        Some(module) => module.as_ref().map_err(String::clone),
        None => Err(format!("there is no shaders/{name}.wgsl")),
    }
}

fn prelude() -> Result<&'static Prelude, String> {
    PRELUDE.as_ref().map_err(String::clone)
}

/// A complete WGSL text, and what a planner must know about it.
///
/// [`Shader::finish`] derives the rest from the text's modules. For a text from elsewhere, use [`Source::new`].
///
/// Example: [the module `op`](crate::op).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The text.
    pub text: Arc<str>,
    /// Invocations per workgroup; the largest, if the text has several entry points.
    pub invocations: u32,
    /// Whether it uses 16-bit floats.
    pub f16: bool,
    /// Whether it uses cooperative matrices.
    pub cooperative: bool,
    /// If it uses operations of subgroups, the size that they must have (`SUBGROUP_SIZE` of the text), or 0 for any.
    pub subgroups: Option<u32>,
    /// The function that the planner may replace with ops that are fused into the first input, if there is one.
    pub prologue: Option<Width>,
    /// The function that the planner may replace with ops that are fused into the first output, if there is one.
    pub epilogue: Option<Width>,
    /// What it was assembled from, unless it is a text from elsewhere.
    origin: Option<Arc<Origin>>,
}

/// What a text was assembled from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    shader: Shader,
    bindings: Bindings,
}

/// The numbers and names of the bindings that are arrays, and the types of their numbers.
type Bindings = Vec<(u32, &'static str, String)>;

/// The functions of `prelude.wgsl` that stand for fused ops. Example: [the module `op`](crate::op).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fused {
    /// Ops that compute the first input.
    Prologue,
    /// Ops that process the first output.
    Epilogue,
}

/// How many elements a function for [`Fused`] ops computes per call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One element: `prologue(v, i)` or `epilogue(v, i)`.
    One,
    /// Four consecutive elements: `prologue4(v, i)` or `epilogue4(v, i)`.
    Four,
}

impl Fused {
    /// The name of its function for that many elements.
    pub fn function(self, width: Width) -> &'static str {
        match (self, width) {
            (Fused::Prologue, Width::One) => "prologue",
            (Fused::Prologue, Width::Four) => "prologue4",
            (Fused::Epilogue, Width::One) => "epilogue",
            (Fused::Epilogue, Width::Four) => "epilogue4",
        }
    }
}

impl Source {
    /// A text without 16-bit floats, cooperative matrices, operations of subgroups and slots for fused ops.
    pub fn new(text: impl Into<Arc<str>>, invocations: u32) -> Source {
        Source {
            text: text.into(),
            invocations,
            f16: false,
            cooperative: false,
            subgroups: None,
            prologue: None,
            epilogue: None,
            origin: None,
        }
    }

    fn of(self, origin: Origin) -> Source {
        Source { origin: Some(Arc::new(origin)), ..self }
    }
}

/// A kernel's text being assembled.
///
/// ```
/// use wgrad::shader::Shader;
///
/// let source = Shader::new("softmax").set("LOG", true).finish()?;
/// let text = &source.text;
/// assert!(text.contains("const LOG: bool = true;") && text.contains("fn softmax("));
/// assert_eq!(source.invocations, 64);
/// let unknown = Shader::new("softmax").set("LOGARITHM", true).finish();
/// assert!(unknown.is_err_and(|why| why.contains("LOGARITHM")));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shader {
    root: Result<Root, String>,
    settings: Settings,
}

/// Precedes the function that replaces the one of a slot.
const GENERATED: &str = "// Generated from the fused ops:";

/// Maximum number of texts kept for reuse; a large model has about a hundred.
const MAX_TEXTS: usize = 4096;

type Settings = BTreeMap<&'static str, String>;

/// Assembled texts, by the name of the kernel and the settings.
type Texts = HashMap<(&'static str, Settings), Source>;

#[derive(Clone, Debug)]
enum Root {
    Library(&'static Module),
    Own(Arc<Module>),
}

impl PartialEq for Root {
    fn eq(&self, other: &Root) -> bool {
        self.module().source == other.module().source
    }
}

impl Eq for Root {}

impl Root {
    fn module(&self) -> &Module {
        match self {
            Root::Library(module) => module,
            Root::Own(module) => module,
        }
    }
}

impl Shader {
    /// A kernel of this library, `shaders/NAME.wgsl`. An unknown name is an error of [`finish`](Self::finish).
    pub fn new(name: &str) -> Self {
        Shader { root: library(name).map(Root::Library), settings: Settings::new() }
    }

    /// A kernel from elsewhere; its imports are of this library's modules. `name` appears in error messages.
    pub fn from_source(name: &'static str, source: &'static str) -> Self {
        let root = Module::parse(name, source).map(|module| Root::Own(Arc::new(module)));
        Shader { root, settings: Settings::new() }
    }

    /// Sets a `const` (with a number or `bool`) or an `alias` (with a type) of the text.
    pub fn set(mut self, name: &'static str, value: impl Display) -> Self {
        self.settings.insert(name, value.to_string());
        self
    }

    /// The assembled text.
    ///
    /// # Errors
    /// With file and line: when a file has a syntax error or lacks a name that is imported, when a condition or loop
    /// bound is not constant, when no `const` or `alias` has the name of a setting, or when two declarations of the
    /// text have one name.
    pub fn finish(self) -> Result<Source, String> {
        let module = match &self.root {
            Err(why) => return Err(why.clone()),
            Ok(Root::Own(module)) => {
                let (source, bindings) = Assembly::new(module, &self.settings).source()?;
                return Ok(source.of(Origin { shader: self, bindings }));
            }
            Ok(Root::Library(module)) => *module,
        };
        // Plans assemble the same texts over and over.
        static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);
        let texts = || TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (module.name, self.settings.clone());
        if let Some(text) = texts().get(&key) {
            return Ok(text.clone());
        }
        let (source, bindings) = Assembly::new(module, &key.1).source()?;
        let text = source.of(Origin { shader: self, bindings });
        let mut texts = texts();
        if texts.len() >= MAX_TEXTS {
            texts.clear();
        }
        texts.insert(key, text.clone());
        Ok(text)
    }
}

/// The words of a text outside comments, except numbers. Performance matters: assembly calls this for every kernel.
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

/// The functions and constants that a text declares at the start of a line.
fn declared(text: &str) -> HashSet<&str> {
    let names = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("fn ").or(line.strip_prefix("const "))?;
        let (name, rest) = rest.split_at(rest.bytes().take_while(|&b| is_word(b)).count());
        rest.starts_with(['(', ':']).then_some(name)
    });
    names.collect()
}

/// Module and place of the declarations of the prelude that the words mention, directly or indirectly, except names in
/// `declared`.
fn called<'a>(
    prelude: &Prelude,
    words: impl Iterator<Item = &'a str>,
    declared: &HashSet<&str>,
) -> BTreeSet<(usize, usize)> {
    let place = |word: &str| prelude.places.get(word).filter(|_| !declared.contains(word)).copied();
    let mut found = BTreeSet::new();
    let mut open: Vec<(usize, usize)> = words.filter_map(place).collect();
    while let Some((number, at)) = open.pop() {
        if found.insert((number, at)) {
            open.extend(self::words(prelude.modules[number].items[at].text).filter_map(place));
        }
    }
    found
}

/// The number of lines of a function of `scalar.wgsl` and of everything that it calls, each counted once.
pub(crate) fn lines_called(function: &str) -> usize {
    let Ok(prelude) = prelude() else { return 0 };
    let called = called(prelude, std::iter::once(function), &HashSet::new());
    called.iter().map(|&(number, at)| prelude.modules[number].items[at].text.lines().count()).sum()
}

/// Generated code with the declarations of the prelude that it mentions and does not declare.
pub fn complete(text: &str) -> Result<Arc<str>, String> {
    let prelude = prelude()?;
    let whole = |(number, at): (usize, usize)| {
        let item = &prelude.modules[number].items[at];
        ((number, at, item.name.to_owned()), item.comment.to_owned() + item.text)
    };
    let items = called(prelude, words(text), &declared(text)).into_iter().map(whole).collect();
    let mut out = text.trim_end().to_owned();
    out.push('\n');
    write_items(&mut out, &prelude.modules, &items);
    Ok(out.into())
}

/// Replaces the function `name` of an assembled text, and adds what the new one calls.
pub(crate) fn splice(text: &str, name: &str, with: &str) -> Result<Arc<str>, String> {
    let head = format!("\nfn {name}(");
    let range = text.find(&head).and_then(|at| {
        let open = at + text[at..].find('{')?;
        Some(at + 1..module::closing(text, open)? + 1)
    });
    let range = range.ok_or_else(|| format!("internal: the kernel has no `fn {name}(`"))?;
    let mut text = text.to_owned();
    text.replace_range(range, &format!("{GENERATED}\n{}", with.trim_end()));
    complete(&text)
}
