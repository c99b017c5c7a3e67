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
//! The host sets `const`s and `alias`es by name ([`Shader::set`]). A binding that is only read may be stored in a
//! narrow type ([`Source::stored`]): each `x[i]` of the kernel then becomes a call that loads element i and widens it.
//! The text has the entry point, its bindings, and what these mention, directly or indirectly. A name that a module
//! neither declares nor imports is looked up in the kernel's own file, then in `prelude.wgsl` and `scalar.wgsl`: shared
//! functions may use the constants and bindings of their kernel, and generated code the elementwise functions. All
//! names share one namespace. Comments of the form `// shaders/tree.wgsl:12` tell where the following lines come from;
//! [`locate`] reads them.

mod emit;
mod locate;
mod module;
mod narrow;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::{Display, Write};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use emit::{Emitter, NARROW, Value, WIDEN, evaluate, is_true};
pub use locate::{locate, with_locations};
use module::{Condition, Item, Kind, Module, is_word};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The text.
    pub text: Arc<str>,
    /// Invocations per workgroup; the largest, if the text has several entry points.
    pub invocations: u32,
    /// Whether it uses 16-bit floats.
    pub f16: bool,
    /// If it uses operations of subgroups, the size that they must have (`SUBGROUP_SIZE` of the text), or 0 for any.
    pub subgroups: Option<u32>,
    /// The function that the planner may replace with fused ops, if there is one.
    pub epilogue: Option<Epilogue>,
    /// What it was assembled from, unless it is a text from elsewhere.
    shader: Option<Arc<Shader>>,
}

/// The functions of `prelude.wgsl` that stand for fused ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// `epilogue(v, i)`: one element.
    One,
    /// `epilogue4(v, i)`: four consecutive elements.
    Four,
}

impl Epilogue {
    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Epilogue::One => "epilogue",
            Epilogue::Four => "epilogue4",
        }
    }
}

impl Source {
    /// A text without 16-bit floats, operations of subgroups and epilogue.
    pub fn new(text: impl Into<Arc<str>>, invocations: u32) -> Source {
        Source { text: text.into(), invocations, f16: false, subgroups: None, epilogue: None, shader: None }
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
                let source = Assembly::new(module, &self.settings).source()?;
                return Ok(Source { shader: Some(Arc::new(self)), ..source });
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
        let text = Assembly::new(module, &key.1).source()?;
        let text = Source { shader: Some(Arc::new(self)), ..text };
        let mut texts = texts();
        if texts.len() >= MAX_TEXTS {
            texts.clear();
        }
        texts.insert(key, text.clone());
        Ok(text)
    }
}

/// A declaration with the arguments of its template.
type Instance<'a> = (&'a Item, Vec<(&'static str, String)>);

/// The declarations that a text has, by module and place in the module.
struct Assembly<'a> {
    root: &'a Module,
    settings: &'a Settings,
    /// In order of first use.
    modules: Vec<&'a Module>,
    texts: BTreeMap<(usize, usize, String), String>,
    /// Names, with the module and the place of their declarations.
    names: HashMap<String, (usize, usize)>,
    /// Whether a declaration mentions a built-in whose name begins with `subgroup`.
    subgroups: bool,
    /// The depth of nested lookups, which is limited: constants and imports may refer to each other in a circle.
    depth: Cell<usize>,
}

impl<'a> Assembly<'a> {
    fn new(root: &'a Module, settings: &'a Settings) -> Self {
        Assembly {
            root,
            settings,
            modules: vec![root],
            texts: BTreeMap::new(),
            names: HashMap::new(),
            subgroups: false,
            depth: Cell::new(0),
        }
    }

    /// Adds the entry point, the bindings, and what these mention. Returns the invocations per workgroup.
    fn assemble(&mut self) -> Result<u32, String> {
        let root = self.root;
        let mut invocations = 0;
        for name in self.settings.keys() {
            if self.declaration(root, name)?.is_none() && !is_set_in_imports(root, name) {
                return Err(format!("shaders/{}.wgsl: neither it nor its imports declare `{name}`", root.name));
            }
        }
        for item in &root.items {
            if matches!(item.kind, Kind::Binding | Kind::EntryPoint) && self.holds(root, &item.conditions)? {
                self.add(root, item, Vec::new(), item.name)?;
                if item.kind == Kind::EntryPoint {
                    invocations = invocations.max(self.invocations(item)?);
                }
            }
        }
        Ok(invocations)
    }

    fn source(mut self) -> Result<Source, String> {
        let root = self.root;
        let invocations = self.assemble()?;
        let f16 = self.modules.iter().any(|module| module.f16);
        let mut text = if f16 { format!("enable f16;\n{}", root.header) } else { root.header.to_owned() };
        let set: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        if !set.is_empty() {
            let _ = writeln!(text, "// Set: {}.", set.join(", "));
        }
        write_items(&mut text, &self.modules, &self.texts);
        let epilogue = [Epilogue::Four, Epilogue::One].into_iter().find(|slot| self.names.contains_key(slot.name()));
        let size = self.settings.get("SUBGROUP_SIZE").and_then(|size| size.parse().ok());
        let subgroups = self.subgroups.then(|| size.unwrap_or(0));
        Ok(Source { text: text.into(), invocations, f16, subgroups, epilogue, shader: None })
    }

    /// Invocations per workgroup of an entry point.
    fn invocations(&self, item: &Item) -> Result<u32, String> {
        let mut product = 1u32;
        for factor in &item.workgroup_size {
            let value = evaluate(factor, &|name| self.value(self.root, name));
            product = match value {
                Ok(Value::Number(n)) => u32::try_from(n).ok().and_then(|n| product.checked_mul(n)),
                _ => None,
            }
            .ok_or_else(|| format!("shaders/{}.wgsl:{}: bad workgroup size `{factor}`", self.root.name, item.line))?;
        }
        Ok(product)
    }

    fn holds(&self, module: &'a Module, conditions: &[Condition]) -> Result<bool, String> {
        for condition in conditions {
            let value = is_true(condition.expression, &|name| self.value(module, name));
            if value.map_err(|why| format!("shaders/{}.wgsl: {why}", module.name))? != condition.holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The value of a constant, or the type of an alias, as seen from a module.
    fn value(&self, module: &'a Module, name: &str) -> Option<Value> {
        let _level = self.deeper().ok()?;
        let (module, (item, _)) = self.declaration(module, name).ok()??;
        let value = self.settings.get(name).map_or(item.value(), String::as_str);
        match item.kind {
            Kind::Const => evaluate(value, &|name| self.value(module, name)).ok(),
            Kind::Alias => {
                Some(evaluate(value, &|name| self.value(module, name)).unwrap_or(Value::Type(value.to_owned())))
            }
            _ => None,
        }
    }

    /// The declaration that a name stands for in a module, if it is not local or built in.
    fn declaration(&self, module: &'a Module, name: &str) -> Result<Option<(&'a Module, Instance<'a>)>, String> {
        if let Some(item) = self.item(module, name)? {
            return Ok(Some((module, (item, Vec::new()))));
        }
        if let Some(found) = self.imported(module, name)? {
            return Ok(Some(found));
        }
        if let Some(found) = self.instance(module, name)? {
            return Ok(Some((module, found)));
        }
        if !std::ptr::eq(module, self.root) {
            return self.declaration(self.root, name);
        }
        let prelude = prelude()?;
        let item = |&(number, at): &(usize, usize)| {
            let module = prelude.modules[number];
            (module, (&module.items[at], Vec::new()))
        };
        Ok(prelude.places.get(name).map(item))
    }

    /// The declaration of a module with this name whose conditions hold.
    fn item(&self, module: &'a Module, name: &str) -> Result<Option<&'a Item>, String> {
        for at in module.named(name) {
            if self.holds(module, &module.items[at].conditions)? {
                return Ok(Some(&module.items[at]));
            }
        }
        Ok(None)
    }

    fn imported(&self, module: &'a Module, name: &str) -> Result<Option<(&'a Module, Instance<'a>)>, String> {
        let _level = self.deeper().map_err(|why| format!("shaders/{}.wgsl: `{name}`: {why}", module.name))?;
        for import in &module.imports {
            for form in import.names.iter().filter(|form| **form == name || is_template(form)) {
                if !self.holds(module, &import.conditions)? {
                    continue;
                }
                let other = library(import.module).map_err(|why| format!("shaders/{}.wgsl: {why}", module.name))?;
                // The other module may import the name itself.
                let found = match self.item(other, form)? {
                    Some(item) => Some((other, item)),
                    None => self.imported(other, form)?.map(|(other, (item, _))| (other, item)),
                };
                let (other, item) = found.ok_or_else(|| {
                    format!("shaders/{}.wgsl: shaders/{}.wgsl has no `{form}`", module.name, other.name)
                })?;
                if let Some(arguments) = arguments(item, name) {
                    return Ok(Some((other, (item, arguments))));
                }
            }
        }
        Ok(None)
    }

    /// Enters a nested lookup, until the result is dropped.
    fn deeper(&self) -> Result<Level<'_>, String> {
        self.depth.set(self.depth.get() + 1);
        let level = Level(&self.depth);
        if self.depth.get() > MAX_DEPTH {
            Err("declarations refer to each other in a circle".into())
        } else {
            Ok(level)
        }
    }

    /// The template of a module that makes a function with this name, and its arguments.
    fn instance(&self, module: &'a Module, name: &str) -> Result<Option<Instance<'a>>, String> {
        for item in module.items.iter().filter(|item| !item.parameters.is_empty()) {
            if let Some(arguments) = arguments(item, name)
                && self.holds(module, &item.conditions)?
            {
                return Ok(Some((item, arguments)));
            }
        }
        Ok(None)
    }

    /// Adds a declaration and what it mentions.
    fn add(
        &mut self,
        module: &'a Module,
        item: &'a Item,
        arguments: Vec<(&'static str, String)>,
        name: &str,
    ) -> Result<(), String> {
        let number = self.modules.iter().position(|known| std::ptr::eq(*known, module)).unwrap_or_else(|| {
            self.modules.push(module);
            self.modules.len() - 1
        });
        let place = module.items.iter().position(|other| std::ptr::eq(other, item)).unwrap_or_default();
        match self.names.insert(name.to_owned(), (number, place)) {
            Some(known) if known == (number, place) => return Ok(()),
            Some((other, _)) => {
                return Err(format!(
                    "shaders/{}.wgsl:{}: `{name}` is declared in shaders/{}.wgsl too",
                    module.name, item.line, self.modules[other].name
                ));
            }
            None => {}
        }
        let text = self.emitted(module, item, arguments, name)?;
        let mut seen = HashSet::new();
        for word in words(&text).filter(|word| seen.insert(*word)) {
            self.subgroups |= word.starts_with("subgroup");
            // The function that loads or stores an element of a narrow binding is declared with it.
            let binding = word.strip_prefix(WIDEN).or(word.strip_prefix(NARROW));
            let binding = binding.filter(|binding| self.narrow(binding).is_some());
            let loads = word.starts_with(WIDEN);
            let word = binding.unwrap_or(word);
            if let Some((module, (item, arguments))) = self.declaration(module, word)? {
                if binding.is_some() && loads && item.text.contains("read_write") {
                    return Err(format!("shaders/{}.wgsl: `{word}` is loaded and stored", module.name));
                }
                self.add(module, item, arguments, word)?;
            }
        }
        self.texts.insert((number, place, name.to_owned()), text);
        Ok(())
    }

    /// The text of a declaration.
    fn emitted(
        &self,
        module: &'a Module,
        item: &'a Item,
        arguments: Vec<(&'static str, String)>,
        name: &str,
    ) -> Result<String, String> {
        if let Some(value) = self.settings.get(name).filter(|_| matches!(item.kind, Kind::Const | Kind::Alias)) {
            let (head, rest) = item.text.split_once('=').unwrap_or((item.text, ""));
            let tail = rest.split_once(';').map_or("", |(_, tail)| tail);
            let suffix = match item.constant_type() {
                "u32" => "u",
                "i32" => "i",
                "f32" => "f",
                _ => "",
            };
            let suffix = if item.kind == Kind::Const { suffix } else { "" };
            return Ok(format!("{}{head}= {value}{suffix};{tail}", item.comment));
        }
        if let Some(dtype) = self.narrow(name).filter(|_| item.kind == Kind::Binding) {
            let binding = self.narrow_binding(module, item, dtype);
            return binding.map_err(|why| format!("shaders/{}.wgsl:{}: {why}", module.name, item.line));
        }
        let lookup = |name: &str| self.value(module, name);
        let mut words: Vec<_> = arguments.into_iter().map(|(parameter, with)| (parameter, with.into())).collect();
        if !words.is_empty() {
            words.push((item.name, name.to_owned().into()));
        }
        let narrow = |name: &str| self.narrow(name).is_some();
        let mut emitter = Emitter { out: item.comment.to_owned(), lookup: &lookup, words, narrow: &narrow };
        let emitted = emitter.emit(item.text);
        emitted.map_err(|why| format!("shaders/{}.wgsl:{}: {why}", module.name, item.line))?;
        Ok(emitter.out)
    }
}

/// Maximum depth of nested lookups of constants and imports.
const MAX_DEPTH: usize = 64;

/// A nested lookup.
struct Level<'a>(&'a Cell<usize>);

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Whether a module that `module` imports, directly or indirectly, has such a constant, alias or binding.
fn is_set_in_imports(module: &Module, name: &str) -> bool {
    let mut seen = HashSet::new();
    let mut open: Vec<&str> = module.imports.iter().map(|import| import.module).collect();
    while let Some(other) = open.pop() {
        let Some(other) = library(other).ok().filter(|other| seen.insert(other.name)) else { continue };
        if other.named(name).any(|at| matches!(other.items[at].kind, Kind::Const | Kind::Alias | Kind::Binding)) {
            return true;
        }
        open.extend(other.imports.iter().map(|import| import.module));
    }
    false
}

/// Precedes the function that replaces an epilogue.
const GENERATED: &str = "// Generated from the fused ops:";

/// Whether a name has the form of a template's: `dot_LEFT_RIGHT`.
fn is_template(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().any(|b| b.is_ascii_uppercase())
}

/// The arguments for which a declaration has this name: none unless it is a template.
fn arguments(item: &Item, name: &str) -> Option<Vec<(&'static str, String)>> {
    if item.name.split('_').count() != name.split('_').count() {
        return None;
    }
    let mut arguments = Vec::new();
    for (form, word) in item.name.split('_').zip(name.split('_')) {
        match item.parameters.iter().find(|&&parameter| parameter == form) {
            Some(parameter) => arguments.push((*parameter, word.to_owned())),
            None if form == word => {}
            None => return None,
        }
    }
    Some(arguments)
}

/// Appends declarations in the order of their modules and places, with comments that tell their origin.
fn write_items(out: &mut String, modules: &[&Module], texts: &BTreeMap<(usize, usize, String), String>) {
    // The module and line that a reader expects next.
    let mut expected = (usize::MAX, 0);
    for ((number, place, name), text) in texts {
        let module = modules[*number];
        let item = &module.items[*place];
        let blank_lines = item.line.wrapping_sub(expected.1);
        if expected.0 == *number && blank_lines <= 1 && item.parameters.is_empty() {
            out.push_str(&"\n"[..blank_lines]);
        } else {
            let with = arguments(item, name).unwrap_or_default();
            let with: String = with.iter().map(|(parameter, with)| format!(" {parameter}={with}")).collect();
            let _ = writeln!(out, "\n// shaders/{}.wgsl:{}{with}", module.name, item.line);
        }
        out.push_str(text);
        out.push('\n');
        let source_lines = item.comment.matches('\n').count() + item.text.matches('\n').count() + 1;
        let whole = source_lines == text.matches('\n').count() + 1 && item.conditions.is_empty();
        expected = if whole { (*number, item.line + source_lines) } else { (usize::MAX, 0) };
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
