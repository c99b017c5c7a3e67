//! The text of one declaration: takes the branches of `@if`, unrolls loops, and substitutes template parameters.

use std::borrow::Cow;

use super::module::{closing, is_word};

fn word_length(text: &str) -> usize {
    text.bytes().take_while(|&b| is_word(b)).count()
}

/// The value of a constant (`bool` as 0 or 1), or the name of a type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(i64),
    Type(String),
}

/// The value of a name in conditions and loop bounds, if it is a constant or a type.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<Value>;

/// Evaluates an expression of constants: `||`, `&&`, `==`, `!=`, `<`, `<=`, `>`, `>=`, `+`, `-`, `*`, `/`, `%`, `!` and
/// parentheses.
pub(super) fn evaluate(expression: &str, lookup: Lookup<'_>) -> Result<Value, String> {
    let mut rest = expression;
    let value = binary(&mut rest, 0, lookup).filter(|_| rest.trim().is_empty());
    value.ok_or_else(|| format!("`{expression}` is not an expression of constants"))
}

pub(super) fn is_true(expression: &str, lookup: Lookup<'_>) -> Result<bool, String> {
    Ok(evaluate(expression, lookup)? != Value::Number(0))
}

/// Operators by increasing precedence; longer ones before their prefixes.
const OPERATORS: [&[&str]; 5] = [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];

fn binary(rest: &mut &str, level: usize, lookup: Lookup<'_>) -> Option<Value> {
    let Some(operators) = OPERATORS.get(level) else { return unary(rest, lookup) };
    let mut left = binary(rest, level + 1, lookup)?;
    loop {
        *rest = rest.trim_start();
        let Some(operator) = operators.iter().find(|operator| rest.starts_with(**operator)) else {
            return Some(left);
        };
        *rest = &rest[operator.len()..];
        let right = binary(rest, level + 1, lookup)?;
        let number = match (&left, *operator, &right) {
            (_, "==", _) => i64::from(left == right),
            (_, "!=", _) => i64::from(left != right),
            (&Value::Number(a), operator, &Value::Number(b)) => match operator {
                "||" => i64::from(a != 0 || b != 0),
                "&&" => i64::from(a != 0 && b != 0),
                "<" => i64::from(a < b),
                "<=" => i64::from(a <= b),
                ">" => i64::from(a > b),
                ">=" => i64::from(a >= b),
                "+" => a.checked_add(b)?,
                "-" => a.checked_sub(b)?,
                "*" => a.checked_mul(b)?,
                "/" => a.checked_div(b)?,
                _ => a.checked_rem(b)?,
            },
            _ => return None,
        };
        left = Value::Number(number);
    }
}

fn unary(rest: &mut &str, lookup: Lookup<'_>) -> Option<Value> {
    *rest = rest.trim_start();
    if let Some(inner) = rest.strip_prefix('!') {
        *rest = inner;
        let value = unary(rest, lookup)?;
        return Some(Value::Number(i64::from(value == Value::Number(0))));
    }
    if let Some(inner) = rest.strip_prefix('(') {
        *rest = inner;
        let value = binary(rest, 0, lookup)?;
        *rest = rest.trim_start().strip_prefix(')')?;
        return Some(value);
    }
    let (word, after) = rest.split_at(word_length(rest));
    *rest = after;
    match word {
        "true" => Some(Value::Number(1)),
        "false" => Some(Value::Number(0)),
        "f32" | "f16" | "i32" | "u32" => Some(Value::Type(word.to_owned())),
        _ if word.starts_with(|c: char| c.is_ascii_digit()) => {
            word.trim_end_matches(['u', 'i']).parse().ok().map(Value::Number)
        }
        "" => None,
        _ => lookup(word),
    }
}

/// Prefix of the function that loads an element of a binding that is stored in a narrow type.
pub(super) const WIDEN: &str = "widen_";

/// Prefix of the function that stores an element of such a binding.
pub(super) const NARROW: &str = "narrow_";

/// Appends a part of a source file to a text.
pub(super) struct Emitter<'a> {
    pub out: String,
    pub lookup: Lookup<'a>,
    /// Words to replace: template parameters and variables of unrolled loops.
    pub words: Vec<(&'a str, Cow<'a, str>)>,
    /// Whether a name is a binding whose elements are stored in a narrow type.
    pub narrow: &'a dyn Fn(&str) -> bool,
}

impl<'a> Emitter<'a> {
    pub fn emit(&mut self, text: &'a str) -> Result<(), String> {
        let bytes = text.as_bytes();
        let (mut at, mut copied) = (0, 0);
        while at < text.len() {
            match bytes[at] {
                b'/' if bytes.get(at + 1) == Some(&b'/') => {
                    at += text[at..].find('\n').unwrap_or(text.len() - at);
                }
                b'@' if text[at..].starts_with("@if(") => {
                    self.out.push_str(&text[copied..at]);
                    at = self.conditional(text, at)?;
                    copied = at;
                }
                b'@' if text[at..].starts_with("@unroll") => {
                    self.out.push_str(&text[copied..at]);
                    at = self.unroll(text, at + "@unroll".len())?;
                    copied = at;
                }
                byte if is_word(byte) => {
                    let length = word_length(&text[at..]);
                    let word = &text[at..at + length];
                    let with = self.words.iter().rev().find(|(name, _)| *name == word).map(|(_, with)| with.clone());
                    let loaded = text[at + length..].starts_with('[') && (self.narrow)(with.as_deref().unwrap_or(word));
                    if with.is_some() || loaded {
                        self.out.push_str(&text[copied..at]);
                        copied = at + length;
                    }
                    at += length;
                    if loaded {
                        at = self.access(text, at, with.as_deref().unwrap_or(word))?;
                        copied = at;
                    } else if let Some(with) = with {
                        self.out.push_str(&with);
                    }
                }
                _ => at += 1,
            }
        }
        self.out.push_str(&text[copied..]);
        Ok(())
    }

    /// `x[i]` becomes `widen_x(i)`, and `x[i] = v` becomes `narrow_x(i, v)`. Returns the end.
    fn access(&mut self, text: &'a str, open: usize, binding: &str) -> Result<usize, String> {
        let close = closing(text, open).ok_or("`[` is not closed")?;
        let value = text[close + 1..].strip_prefix(" = ").map(|_| close + 1 + " = ".len());
        self.out.push_str(if value.is_some() { NARROW } else { WIDEN });
        self.out.push_str(binding);
        self.out.push('(');
        self.emit(&text[open + 1..close])?;
        let mut end = close + 1;
        if let Some(value) = value {
            end = value + text[value..].find(';').ok_or("an assignment has no `;`")?;
            self.out.push_str(", ");
            self.emit(&text[value..end])?;
        }
        self.out.push(')');
        Ok(end)
    }

    /// `@if(A) part @elif(B) part @else part`: emits the first part whose condition holds. Returns the end.
    fn conditional(&mut self, text: &'a str, start: usize) -> Result<usize, String> {
        let (mut at, mut found) = (start, false);
        loop {
            let last = text[at..].starts_with("@else");
            let (holds, mut part_at) = if last {
                (true, at + "@else".len())
            } else {
                let open = at + text[at..].find('(').unwrap_or(0);
                let close = closing(text, open).ok_or("`@if(` is not closed")?;
                (!found && is_true(&text[open + 1..close], self.lookup)?, close + 1)
            };
            part_at += text[part_at..].len() - text[part_at..].trim_start().len();
            let end = part_end(text, part_at).ok_or("the part after a condition has no end")?;
            if holds && !found {
                self.emit(&text[part_at..end])?;
                found = true;
            }
            let next = end + (text[end..].len() - text[end..].trim_start().len());
            if last || !(text[next..].starts_with("@elif(") || text[next..].starts_with("@else")) {
                at = end;
                break;
            }
            at = next;
        }
        // Nothing was emitted on this line: leave no blank line.
        let line = self.out.trim_end_matches(' ');
        if !found && line.ends_with('\n') && text[at..].starts_with('\n') {
            self.out.truncate(line.len());
            at += 1;
        }
        Ok(at)
    }

    /// `@unroll for (var i = 0u; i < N; i++) { ... }`, or `@unroll(CONDITION) for ...`. Returns the end.
    fn unroll(&mut self, text: &'a str, mut at: usize) -> Result<usize, String> {
        let mut unrolled = true;
        if text[at..].starts_with('(') {
            let close = closing(text, at).ok_or("`@unroll(` is not closed")?;
            unrolled = is_true(&text[at + 1..close], self.lookup)?;
            at = close + 1;
        }
        at += text[at..].len() - text[at..].trim_start().len();
        let bad = || format!("cannot unroll `{}`", text[at..].lines().next().unwrap_or_default());
        let head_end = text[at..].strip_prefix("for (").and_then(|_| closing(text, at + 4)).ok_or_else(bad)?;
        let open = head_end + text[head_end..].find('{').ok_or_else(bad)?;
        let close = closing(text, open).ok_or_else(bad)?;
        if !unrolled {
            self.emit(&text[at..=close])?;
            return Ok(close + 1);
        }
        let head = text[at + 5..head_end].strip_prefix("var ").ok_or_else(bad)?;
        let [init, test, step] = head.split(';').map(str::trim).collect::<Vec<_>>()[..] else { return Err(bad()) };
        let (name, from) = init.split_once(" = ").ok_or_else(bad)?;
        let bound = test.strip_prefix(name).and_then(|test| test.strip_prefix(" < ")).ok_or_else(bad)?;
        if from != "0u" || step.strip_prefix(name) != Some("++") {
            return Err(bad());
        }
        let Value::Number(count) = evaluate(bound, self.lookup)? else { return Err(bad()) };
        let indent = self.out.len() - self.out.trim_end_matches(' ').len();
        let body = text[open + 1..close].trim_matches('\n').trim_end();
        for i in 0..count {
            if i > 0 {
                self.out.push('\n');
            }
            let start = self.out.len();
            self.words.push((name, format!("{i}u").into()));
            self.emit(body)?;
            self.words.pop();
            let emitted = &self.out[start..];
            if emitted.contains("let ") || emitted.contains("var ") {
                let pad = " ".repeat(indent);
                let block = format!("{}{{\n{emitted}\n{pad}}}", if i > 0 { &pad } else { "" });
                self.out.replace_range(start.., &block);
            } else {
                // As the loop was indented; its own indentation is already there.
                let steps = emitted.replace("\n  ", "\n");
                let steps =
                    if i == 0 { steps.trim_start_matches(' ') } else { steps.strip_prefix("  ").unwrap_or(&steps) };
                self.out.replace_range(start.., steps);
            }
        }
        Ok(close + 1)
    }
}

/// The end of the statement, parameter or block that starts at `at`.
fn part_end(text: &str, mut at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    while at < text.len() {
        match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => at += text[at..].find('\n').unwrap_or(text.len() - at),
            b';' | b',' => return Some(at + 1),
            b'(' | b'[' => at = closing(text, at)? + 1,
            b'{' => {
                at = closing(text, at)? + 1;
                if !text[at..].trim_start().starts_with("else") {
                    return Some(at);
                }
            }
            b')' | b']' | b'}' => return Some(at),
            _ => at += 1,
        }
    }
    Some(at)
}
