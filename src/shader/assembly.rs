//! The assembly of a text: which declarations it has, and their texts.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write;

use super::emit::{Emitter, NARROW, Value, WIDEN, evaluate, is_true};
use super::module::{Condition, Item, Kind, Module};
use super::{Bindings, Fused, Settings, Source, Width, library, prelude, words};

/// A declaration with the arguments of its template.
pub(super) type Instance<'a> = (&'a Item, Vec<(&'static str, String)>);

/// The declarations that a text has, by module and place in the module.
pub(super) struct Assembly<'a> {
    root: &'a Module,
    pub(super) settings: &'a Settings,
    /// In order of first use.
    pub(super) modules: Vec<&'a Module>,
    texts: BTreeMap<(usize, usize, String), String>,
    /// Names, with the module and the place of their declarations.
    pub(super) names: HashMap<String, (usize, usize)>,
    /// Whether a declaration mentions a built-in whose name begins with `subgroup`.
    subgroups: bool,
    /// The depth of nested lookups, which is limited: constants and imports may refer to each other in a circle.
    depth: Cell<usize>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(root: &'a Module, settings: &'a Settings) -> Self {
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

    /// The text and its bindings.
    pub(super) fn source(mut self) -> Result<(Source, Bindings), String> {
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
        let enables: BTreeSet<&str> = self.modules.iter().flat_map(|module| &module.enables).copied().collect();
        let mut text: String = enables.iter().map(|extension| format!("enable {extension};\n")).collect();
        text.push_str(root.header);
        let set: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        if !set.is_empty() {
            let _ = writeln!(text, "// Set: {}.", set.join(", "));
        }
        write_items(&mut text, &self.modules, &self.texts);
        let used = |slot: Fused, width: &Width| self.names.contains_key(slot.function(*width));
        let width = |slot| [Width::Four, Width::One].into_iter().find(|width| used(slot, width));
        let size = self.settings.get("SUBGROUP_SIZE").and_then(|size| size.parse().ok());
        let subgroups = self.subgroups.then(|| size.unwrap_or(0));
        let source = Source {
            invocations,
            f16: enables.contains("f16"),
            cooperative: enables.contains("wgpu_cooperative_matrix"),
            subgroups,
            prologue: width(Fused::Prologue),
            epilogue: width(Fused::Epilogue),
            ..Source::new(text, invocations)
        };
        Ok((source, self.bindings()))
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
    pub(super) fn value(&self, module: &'a Module, name: &str) -> Option<Value> {
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
    pub(super) fn declaration(
        &self,
        module: &'a Module,
        name: &str,
    ) -> Result<Option<(&'a Module, Instance<'a>)>, String> {
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
    pub(super) fn deeper(&self) -> Result<Level<'_>, String> {
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
pub(super) struct Level<'a>(&'a Cell<usize>);

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
pub(super) fn write_items(out: &mut String, modules: &[&Module], texts: &BTreeMap<(usize, usize, String), String>) {
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
