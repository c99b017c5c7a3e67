//! Parsing of shader modules: the declarations and imports of a file.

use std::collections::HashMap;

/// A parsed file.
#[derive(Debug)]
pub(super) struct Module {
    pub name: &'static str,
    pub source: &'static str,
    /// The comment at the top of the file.
    pub header: &'static str,
    /// The extensions that it enables, such as `f16`.
    pub enables: Vec<&'static str>,
    pub imports: Vec<Import>,
    pub items: Vec<Item>,
    by_name: HashMap<&'static str, Vec<usize>>,
}

/// `import package::MODULE::{NAMES};`
#[derive(Debug)]
pub(super) struct Import {
    pub module: &'static str,
    pub names: Vec<&'static str>,
    pub conditions: Vec<Condition>,
}

/// An `@if` or `@elif` expression, and whether it must be true or false.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Condition {
    pub expression: &'static str,
    pub holds: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Const,
    Alias,
    /// A variable with `@group` and `@binding`.
    Binding,
    EntryPoint,
    Other,
}

/// A declaration.
#[derive(Debug)]
pub(super) struct Item {
    pub name: &'static str,
    pub kind: Kind,
    /// The line of the file where `comment`, or without one `text`, starts.
    pub line: usize,
    /// The comment above, with its line ends.
    pub comment: &'static str,
    /// The declaration with its attributes, and the comment behind it on its last line.
    pub text: &'static str,
    pub conditions: Vec<Condition>,
    /// The parameters of a `@template`.
    pub parameters: Vec<&'static str>,
    /// The factors of `@workgroup_size(...)`, as written.
    pub workgroup_size: Vec<&'static str>,
}

impl Module {
    /// # Errors
    /// A line `shaders/NAME.wgsl:LINE: ...`.
    pub fn parse(name: &'static str, source: &'static str) -> Result<Module, String> {
        let mut parser = Parser { source, at: 0 };
        let parsed = parser.module(name);
        parsed.map_err(|what| {
            let line = source[..parser.at].matches('\n').count() + 1;
            format!("shaders/{name}.wgsl:{line}: {what}")
        })
    }

    /// The declarations with this name: several if they have conditions.
    pub fn named(&self, name: &str) -> impl Iterator<Item = usize> {
        self.by_name.get(name).into_iter().flatten().copied()
    }
}

impl Item {
    /// The value of a constant or the type of an alias, as written.
    pub fn value(&self) -> &'static str {
        let (_, value) = self.text.split_once('=').unwrap_or_default();
        value.split_once(';').unwrap_or_default().0.trim()
    }

    /// For a binding that is an array: its number and its element type, as written, and the text before the type.
    pub fn array(&self) -> Option<(&'static str, &'static str, &'static str)> {
        let number = self.text.split_once("@binding(")?.1.split_once(')')?.0;
        let (head, rest) = self.text.split_once("array<")?;
        let (element, _) = rest.rsplit_once('>')?;
        Some((number, element, head))
    }

    /// The type of a constant.
    pub fn constant_type(&self) -> &'static str {
        let head = self.text.split_once('=').unwrap_or_default().0;
        head.split_once(':').unwrap_or_default().1.trim()
    }
}

struct Parser {
    source: &'static str,
    at: usize,
}

impl Parser {
    fn rest(&self) -> &'static str {
        &self.source[self.at..]
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, what: &str) -> bool {
        let found = self.rest().starts_with(what);
        if found {
            self.at += what.len();
        }
        found
    }

    /// Skips and returns the text before the bracket that closes the one just taken.
    fn bracketed(&mut self) -> Result<&'static str, String> {
        let start = self.at;
        let end = closing(self.source, start - 1).ok_or("a bracket is not closed")?;
        self.at = end + 1;
        Ok(&self.source[start..end])
    }

    fn module(&mut self, name: &'static str) -> Result<Module, String> {
        let source = self.source;
        // The first comment, unless it belongs to the first declaration.
        let head = comment_lines(source);
        let header = if source[head..].trim_start_matches(' ').starts_with('\n') { &source[..head] } else { "" };
        self.at = header.len();
        let mut module = Module {
            name,
            source,
            header,
            enables: Vec::new(),
            imports: Vec::new(),
            items: Vec::new(),
            by_name: HashMap::new(),
        };
        // The conditions of the `@if` chain that the last declaration ended.
        let mut chain: Vec<Condition> = Vec::new();
        loop {
            self.spaces();
            let start = self.at;
            self.at += comment_lines(self.rest());
            let comment = &source[start..self.at];
            self.spaces();
            if self.rest().is_empty() {
                return Ok(module);
            }
            if self.take("enable ") {
                let end = self.rest().find(';').ok_or("`enable` has no `;`")?;
                module.enables.extend(self.rest()[..end].split(',').map(str::trim));
                self.at += end + 1;
                continue;
            }
            let conditions = self.conditions(&mut chain)?;
            let parameters = if self.take("@template(") {
                self.bracketed()?.split(',').map(str::trim).collect()
            } else {
                Vec::new()
            };
            self.spaces();
            if self.take("import ") {
                module.imports.push(self.import(conditions)?);
                continue;
            }
            let item_at = self.at;
            let (name, kind) = self.declaration()?;
            let text = &source[item_at..self.at];
            let size = text.split_once("@workgroup_size(").filter(|_| kind == Kind::EntryPoint);
            let size = size.and_then(|(_, rest)| rest.split_once(')')).map_or("", |(size, _)| size);
            let line_start = if comment.is_empty() { item_at } else { start };
            let item = Item {
                name,
                kind,
                line: source[..line_start].matches('\n').count() + 1,
                comment,
                text,
                conditions,
                parameters,
                workgroup_size: size.split(',').map(str::trim).filter(|factor| !factor.is_empty()).collect(),
            };
            module.by_name.entry(name).or_default().push(module.items.len());
            module.items.push(item);
        }
    }

    /// `@if(...)`, `@elif(...)` or `@else` before a declaration, if there is one.
    fn conditions(&mut self, chain: &mut Vec<Condition>) -> Result<Vec<Condition>, String> {
        let follows = !chain.is_empty();
        if self.take("@if(") {
            *chain = vec![Condition { expression: self.bracketed()?, holds: true }];
        } else if self.rest().starts_with("@elif(") || self.rest().starts_with("@else") {
            if !follows {
                return Err("`@elif` and `@else` must follow a declaration with `@if`".into());
            }
            chain.iter_mut().for_each(|condition| condition.holds = false);
            if self.take("@elif(") {
                chain.push(Condition { expression: self.bracketed()?, holds: true });
            } else {
                self.take("@else");
                self.spaces();
                return Ok(std::mem::take(chain));
            }
        } else {
            chain.clear();
        }
        self.spaces();
        Ok(chain.clone())
    }

    /// After `import `.
    fn import(&mut self, conditions: Vec<Condition>) -> Result<Import, String> {
        let end = self.rest().find(';').ok_or("`import` has no `;`")?;
        let statement = &self.rest()[..end];
        let parsed = || {
            let path = statement.strip_prefix("package::").or(statement.strip_prefix("wgrad::"))?;
            let (module, names) = path.split_once("::")?;
            let list = names.trim().strip_prefix('{').and_then(|names| names.strip_suffix('}')).unwrap_or(names);
            let names: Vec<_> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
            Some((module.trim(), names))
        };
        let (module, names) = parsed().ok_or("expected `import package::MODULE::{NAMES};`")?;
        self.at += end + 1;
        Ok(Import { module, names, conditions })
    }

    /// Skips a declaration, including a comment behind it, and returns its name.
    fn declaration(&mut self) -> Result<(&'static str, Kind), String> {
        let (source, start) = (self.source, self.at);
        while self.take("@") {
            let name = self.rest().bytes().take_while(|&b| is_word(b)).count();
            self.at += name;
            if self.take("(") {
                self.bracketed()?;
            }
            self.spaces();
        }
        let attributes = &source[start..self.at];
        let keyword_at = self.at;
        self.at += self.rest().bytes().take_while(|&b| is_word(b)).count();
        let keyword = &source[keyword_at..self.at];
        if keyword == "var" && self.rest().starts_with('<') {
            self.at += self.rest().find('>').ok_or("`<` is not closed")? + 1;
        }
        self.spaces();
        let name_at = self.at;
        self.at += self.rest().bytes().take_while(|&b| is_word(b)).count();
        let name = &source[name_at..self.at];
        let kind = match keyword {
            "const" => Kind::Const,
            "alias" => Kind::Alias,
            "var" if attributes.contains("@group") => Kind::Binding,
            "fn" if attributes.contains("@compute") => Kind::EntryPoint,
            "fn" | "struct" | "var" => Kind::Other,
            _ => return Err(format!("expected a declaration, found `{keyword}`")),
        };
        let end = match keyword {
            "fn" | "struct" => {
                let open = self.rest().find('{').ok_or("expected `{`")?;
                closing(source, self.at + open).ok_or("`{` is not closed")? + 1
            }
            _ => self.at + self.rest().find(';').ok_or("expected `;`")? + 1,
        };
        let line = &source[end..][..source[end..].find('\n').unwrap_or(source.len() - end)];
        self.at = if line.trim_start().starts_with("//") { end + line.len() } else { end };
        Ok((name, kind))
    }
}

/// Whether a byte is part of a name or number.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The length of the lines at the start of a text that are comments.
fn comment_lines(text: &str) -> usize {
    text.split_inclusive('\n').take_while(|line| line.starts_with("//")).map(str::len).sum()
}

/// The position of the bracket that matches the one at `open`, outside comments.
pub(super) fn closing(text: &str, open: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0usize, open);
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => at += text[at..].find('\n').unwrap_or(text.len() - at),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}
