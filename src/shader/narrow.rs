//! Kernels with bindings that are stored in narrow types: loads widen, and stores pack.

use super::assembly::Assembly;
use super::emit::{NARROW, Value, WIDEN, evaluate};
use super::module::{Item, Kind, Module};
use super::{Bindings, Source};
use crate::DType;

/// Prefix of the setting of a binding whose values are rounded as they are stored.
const ROUNDED: &str = "rounded ";

/// In a setting, separates the type of a binding from the type that its elements are converted to.
const AS: &str = " as ";

impl Source {
    /// Whether a binding is an array of numbers of this type, or of vectors of them, so that they need not be converted.
    ///
    /// ```
    /// use wgrad::DType;
    /// use wgrad::shader::Shader;
    ///
    /// let source = Shader::new("cumsum_rows").finish()?;
    /// assert!(source.holds(1, DType::F32) && !source.holds(1, DType::F16));
    /// # Ok::<(), String>(())
    /// ```
    pub fn holds(&self, binding: u32, dtype: DType) -> bool {
        let bindings = self.origin.iter().flat_map(|origin| &origin.bindings);
        bindings.into_iter().any(|(number, _, scalar)| *number == binding && scalar == dtype.name())
    }

    /// The same kernel with a binding stored in a narrow type, an array that it only reads or only writes: each load of
    /// an element converts it to `wide`, its wide type or f32; each store, which must be of whole words, expects a
    /// value of the type. Positions still count elements.
    ///
    /// ```
    /// use wgrad::DType;
    /// use wgrad::shader::Shader;
    ///
    /// let source = Shader::new("cumsum_rows").finish()?.stored(1, DType::F16, DType::F32)?;
    /// assert!(source.text.contains("var<storage, read> x: array<u32>;"));
    /// assert!(source.text.contains("fn widen_x(i: u32) -> f32"));
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// If the text was not assembled by a [`Shader`](super::Shader), has no such binding, stores less than a word at a
    /// time, or both loads and stores elements of it.
    pub fn stored(&self, binding: u32, dtype: DType, wide: DType) -> Result<Source, String> {
        self.with_setting(binding, format!("{dtype}{AS}{wide}"))
    }

    /// [`Source::stored`] for a binding that the kernel writes, if its values are to be rounded.
    ///
    /// # Errors
    /// As [`Source::stored`].
    pub fn stored_rounded(&self, binding: u32, dtype: DType) -> Result<Source, String> {
        self.with_setting(binding, format!("{ROUNDED}{dtype}{AS}{}", dtype.wide()))
    }

    fn with_setting(&self, binding: u32, setting: String) -> Result<Source, String> {
        let Some(origin) = &self.origin else {
            return Err(format!(
                "the text was not assembled by `Shader`, so that binding {binding} cannot be {setting}"
            ));
        };
        let named = origin.bindings.iter().find(|(number, ..)| *number == binding);
        let (_, name, _) = named.ok_or_else(|| format!("the kernel has no array at binding {binding}"))?;
        let mut shader = origin.shader.clone();
        shader.settings.insert(name, setting);
        shader.finish()
    }
}

impl<'a> Assembly<'a> {
    /// The numbers and names of the bindings of the text that are arrays, and the types of their numbers.
    pub(super) fn bindings(&self) -> Bindings {
        let items =
            self.names.values().map(|&(module, place)| (self.modules[module], &self.modules[module].items[place]));
        let array = |(module, item): (&'a Module, &'a Item)| {
            let (number, element, _) = item.array().filter(|_| item.kind == Kind::Binding)?;
            let (_, scalar) = self.element(module, element).unwrap_or_default();
            match evaluate(number, &|name| self.value(module, name)) {
                Ok(Value::Number(number)) => Some((u32::try_from(number).ok()?, item.name, scalar)),
                _ => None,
            }
        };
        items.filter_map(array).collect()
    }

    /// The narrow type that a name is set to; settings of this form are bindings.
    pub(super) fn narrow(&self, name: &str) -> Option<DType> {
        let setting = self.settings.get(name)?;
        let (dtype, _) = setting.strip_prefix(ROUNDED).unwrap_or(setting).split_once(AS)?;
        dtype.parse().ok()
    }

    /// The type that the elements of a narrow binding are converted to.
    fn wide(&self, name: &str) -> Option<DType> {
        self.settings.get(name)?.split_once(AS)?.1.parse().ok()
    }

    /// The declaration of a binding whose elements are stored in a narrow type, and the function that loads or stores
    /// one.
    pub(super) fn narrow_binding(&self, module: &'a Module, item: &'a Item, dtype: DType) -> Result<String, String> {
        let unknown = || format!("`{}` is not an array of numbers", item.name);
        let (_, element, head) = item.array().ok_or_else(unknown)?;
        let (width, scalar) = self.element(module, element).ok_or_else(unknown)?;
        let word = match width / dtype.per_word() {
            0 | 1 => "u32".to_owned(),
            words => format!("vec{words}<u32>"),
        };
        let function = match head.contains("read_write") {
            true => self.store(item.name, width, &scalar, dtype)?,
            false => load(item.name, width, &scalar, (dtype, self.wide(item.name).unwrap_or(dtype.wide()))),
        };
        Ok(format!("{}{head}array<{word}>;\n{function}", item.comment))
    }

    /// The function that stores an element of a binding: `width` values of the type, in its wide type.
    fn store(&self, name: &str, width: usize, scalar: &str, dtype: DType) -> Result<String, String> {
        if width < dtype.per_word() || scalar != dtype.wide().name() {
            return Err(format!("`{name}` is stored by less than a word, or not as {}", dtype.wide()));
        }
        let rounds = self.settings.get(name).is_some_and(|setting| setting.starts_with(ROUNDED));
        let parts = ["x", "y", "z", "w"][..width].iter();
        let parts: Vec<String> = match rounds {
            true => parts.map(|k| format!("to_{dtype}_{scalar}(v.{k})")).collect(),
            false => parts.map(|k| format!("v.{k}")).collect(),
        };
        let words = parts.chunks(dtype.per_word());
        let words = words.map(|parts| format!("pack_{dtype}(vec{}({}))", parts.len(), parts.join(", ")));
        let words: Vec<String> = words.collect();
        let words = if let [word] = &words[..] { word.clone() } else { format!("vec2({})", words.join(", ")) };
        Ok(format!("fn {NARROW}{name}(i: u32, v: {}) {{ {name}[i] = {words}; }}", vector(width, scalar)))
    }

    /// The number of components, 1, 2 or 4, and the scalar of a type.
    fn element(&self, module: &'a Module, ty: &str) -> Option<(usize, String)> {
        let _level = self.deeper().ok()?;
        let ty = ty.trim();
        for width in [2, 4] {
            if let Some(inner) = ty.strip_prefix(&format!("vec{width}<")).and_then(|rest| rest.strip_suffix('>')) {
                let (one, scalar) = self.element(module, inner)?;
                return (one == 1).then_some((width, scalar));
            }
        }
        if matches!(ty, "f32" | "f16" | "i32" | "u32") {
            return Some((1, ty.to_owned()));
        }
        let (module, (item, _)) = self.declaration(module, ty).ok()??;
        let value = self.settings.get(ty).map_or(item.value(), String::as_str);
        if item.kind == Kind::Alias { self.element(module, value) } else { None }
    }
}

/// The function that loads an element of a binding: `width` values of a narrow type, converted to another. Kernels that
/// only move bits may declare them as a third one.
fn load(name: &str, width: usize, scalar: &str, (dtype, wide): (DType, DType)) -> String {
    let per_word = dtype.per_word();
    let loaded = match (width, per_word) {
        (1, _) => format!("element_{dtype}({name}[i / {per_word}u], i)"),
        (2, 4) => {
            format!("select(unpack_{dtype}({name}[i / 2u]).xy, unpack_{dtype}({name}[i / 2u]).zw, (i & 1u) != 0u)")
        }
        (4, 2) => format!("vec4(unpack_{dtype}({name}[i].x), unpack_{dtype}({name}[i].y))"),
        _ => format!("unpack_{dtype}({name}[i])"),
    };
    let loaded = match wide == dtype.wide() {
        true => loaded,
        false => format!("{}({loaded})", vector(width, wide.name())),
    };
    let ty = vector(width, scalar);
    let loaded = if scalar == wide.name() { loaded } else { format!("bitcast<{ty}>({loaded})") };
    format!("fn {WIDEN}{name}(i: u32) -> {ty} {{ return {loaded}; }}")
}

/// A scalar type, or a vector of it.
fn vector(width: usize, scalar: &str) -> String {
    if width == 1 { scalar.to_owned() } else { format!("vec{width}<{scalar}>") }
}
