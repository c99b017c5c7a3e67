//! Shader mutations on naga's intermediate representation.

use std::collections::{BTreeMap, HashSet};

use naga::{BinaryOperator as Op, Constant, Expression, Function, Handle, Literal, MathFunction, Module, Statement};

/// Identifies a mutation by its source, so that it is found in other specialisations of the same shader: function,
/// line, expression, change, and a number if there are several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub function: String,
    pub line: String,
    pub expression: String,
    pub change: Change,
    pub number: usize,
}

/// The location: an expression of a function (by index, entry points last), or a constant's literal.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Function(usize, Handle<Expression>),
    Constant(Handle<Expression>),
}

/// The change to an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Replaces the operator.
    Operator(&'static str),
    /// Keeps only the left or the right operand.
    DropRight,
    DropLeft,
    /// Adds or subtracts one.
    More,
    Less,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let change = match self.change {
            Change::Operator(with) => format!("with {with}"),
            Change::DropRight => "left operand alone".into(),
            Change::DropLeft => "right operand alone".into(),
            Change::More => "+ 1".into(),
            Change::Less => "- 1".into(),
        };
        let (function, line, expression) = (&self.function, &self.line, &self.expression);
        write!(f, "{function}: `{line}`: `{expression}` {change}")?;
        if self.number > 0 { write!(f, " (number {})", self.number + 1) } else { Ok(()) }
    }
}

/// A parsed shader.
pub struct Parsed {
    text: String,
    module: Module,
    /// The shader as naga writes it.
    pub written: String,
}

fn write(module: &Module) -> Option<String> {
    let info = crate::wgsl::validate(module).ok()?;
    naga::back::wgsl::write_string(module, &info, naga::back::wgsl::WriterFlags::empty()).ok()
}

impl Parsed {
    pub fn new(text: &str) -> Option<Parsed> {
        let module = naga::front::wgsl::parse_str(text).ok()?;
        let written = write(&module)?;
        Some(Parsed { text: text.to_owned(), module, written })
    }

    fn functions(&self) -> impl Iterator<Item = &Function> {
        let named = self.module.functions.iter().map(|(_, function)| function);
        named.chain(self.module.entry_points.iter().map(|entry| &entry.function))
    }

    /// All mutations in the functions and constants that `wanted` accepts, with their locations.
    pub fn mutations(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<Key, Place> {
        let mut found = BTreeMap::new();
        let constants: HashSet<Handle<Constant>> = self.functions().flat_map(constants).collect();
        for (handle, constant) in self.module.constants.iter().filter(|(handle, _)| constants.contains(handle)) {
            let Some(name) = constant.name.as_deref().filter(|name| wanted(name)) else { continue };
            let Some(range) = self.module.constants.get_span(handle).to_range() else { continue };
            for change in changes(&self.module.global_expressions[constant.init]) {
                let (function, line) = (name.to_owned(), self.line(range.start).to_owned());
                let key = Key { function, line, expression: name.to_owned(), change, number: 0 };
                found.insert(key, Place::Constant(constant.init));
            }
        }
        let entries: Vec<&str> = self.module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
        let plain = self.module.functions.len();
        for (at, function) in self.functions().enumerate() {
            let name = if at < plain { function.name.as_deref().unwrap_or("") } else { entries[at - plain] };
            if !wanted(name) {
                continue;
            }
            let skipped = increments(function);
            for (handle, expression) in function.expressions.iter().filter(|(handle, _)| !skipped.contains(handle)) {
                let Some(range) = function.expressions.get_span(handle).to_range() else { continue };
                let Some(snippet) = self.text.get(range.clone()) else { continue };
                let literal = |handle| matches!(function.expressions[handle], Expression::Literal(Literal::U32(0)));
                let zero = |handle| match function.expressions[handle] {
                    Expression::Binary { op: Op::Multiply, left, right } => literal(left) || literal(right),
                    _ => literal(handle),
                };
                for change in changes(expression).into_iter().filter(|change| !is_idle(expression, *change, zero)) {
                    let mut key = Key {
                        function: name.to_owned(),
                        line: self.line(range.start).to_owned(),
                        expression: snippet.split_whitespace().collect::<Vec<_>>().join(" "),
                        change,
                        number: 0,
                    };
                    while found.contains_key(&key) {
                        key.number += 1;
                    }
                    found.insert(key, Place::Function(at, handle));
                }
            }
        }
        found
    }

    fn line(&self, at: usize) -> &str {
        let start = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |n| at + n);
        self.text[start..end].trim()
    }

    /// The mutated shader; `None` if it is invalid or unchanged.
    pub fn mutated(&self, place: Place, change: Change) -> Option<String> {
        let mut module = self.module.clone();
        let plain = module.functions.len();
        let expression = match place {
            Place::Constant(handle) => module.global_expressions.get_mut(handle),
            Place::Function(at, handle) if at < plain => {
                module.functions.iter_mut().nth(at)?.1.expressions.get_mut(handle)
            }
            Place::Function(at, handle) => {
                module.entry_points.get_mut(at - plain)?.function.expressions.get_mut(handle)
            }
        };
        *expression = changed(expression, change)?;
        write(&module).filter(|text| *text != self.written)
    }
}

/// The constants that a function reads at run time; others became part of types and literals during parsing.
fn constants(function: &Function) -> impl Iterator<Item = Handle<Constant>> {
    function.expressions.iter().filter_map(|(_, expression)| match expression {
        Expression::Constant(handle) => Some(*handle),
        _ => None,
    })
}

/// Loop increments, which are not mutated: the loop might never end.
fn increments(function: &Function) -> HashSet<Handle<Expression>> {
    fn walk(block: &naga::Block, continuing: bool, function: &Function, found: &mut HashSet<Handle<Expression>>) {
        for statement in block.iter() {
            match statement {
                Statement::Emit(range) if continuing => {
                    for handle in range.clone() {
                        found.insert(handle);
                        if let Expression::Binary { left, right, .. } = function.expressions[handle] {
                            found.extend([left, right]);
                        }
                    }
                }
                Statement::Block(block) => walk(block, continuing, function, found),
                Statement::If { accept, reject, .. } => {
                    walk(accept, continuing, function, found);
                    walk(reject, continuing, function, found);
                }
                Statement::Switch { cases, .. } => {
                    cases.iter().for_each(|case| walk(&case.body, continuing, function, found));
                }
                Statement::Loop { body, continuing: step, .. } => {
                    walk(body, continuing, function, found);
                    walk(step, true, function, found);
                }
                _ => {}
            }
        }
    }
    let mut found = HashSet::new();
    walk(&function.body, false, function, &mut found);
    found
}

const OPERATORS: &[(Op, Op, &str)] = &[
    (Op::Add, Op::Subtract, "-"),
    (Op::Subtract, Op::Add, "+"),
    (Op::Multiply, Op::Add, "+"),
    (Op::Divide, Op::Multiply, "*"),
    (Op::Modulo, Op::Divide, "/"),
    (Op::Less, Op::LessEqual, "<="),
    (Op::Less, Op::Greater, ">"),
    (Op::LessEqual, Op::Less, "<"),
    (Op::LessEqual, Op::GreaterEqual, ">="),
    (Op::Greater, Op::GreaterEqual, ">="),
    (Op::Greater, Op::Less, "<"),
    (Op::GreaterEqual, Op::Greater, ">"),
    (Op::GreaterEqual, Op::LessEqual, "<="),
    (Op::Equal, Op::NotEqual, "!="),
    (Op::NotEqual, Op::Equal, "=="),
    (Op::LogicalAnd, Op::LogicalOr, "||"),
    (Op::LogicalOr, Op::LogicalAnd, "&&"),
    (Op::ShiftRight, Op::ShiftLeft, "<<"),
    (Op::ShiftLeft, Op::ShiftRight, ">>"),
    (Op::And, Op::InclusiveOr, "|"),
    (Op::InclusiveOr, Op::And, "&"),
    (Op::ExclusiveOr, Op::And, "&"),
];

fn changes(expression: &Expression) -> Vec<Change> {
    match expression {
        Expression::Binary { op, .. } => {
            let mut changes: Vec<Change> =
                OPERATORS.iter().filter(|(from, ..)| from == op).map(|(_, _, with)| Change::Operator(with)).collect();
            if matches!(op, Op::Add | Op::Subtract | Op::Multiply | Op::LogicalAnd | Op::LogicalOr) {
                changes.extend([Change::DropRight, Change::DropLeft]);
            }
            changes
        }
        Expression::Literal(Literal::U32(0)) => vec![Change::More],
        Expression::Literal(Literal::U32(_) | Literal::I32(_) | Literal::F32(_)) => vec![Change::More, Change::Less],
        _ => Vec::new(),
    }
}

/// Whether a change has no effect because an operand is 0, as in unrolled loops.
fn is_idle(expression: &Expression, change: Change, zero: impl Fn(Handle<Expression>) -> bool) -> bool {
    match (expression, change) {
        (&Expression::Binary { op: Op::Add, right, .. }, Change::Operator(_) | Change::DropRight) => zero(right),
        (&Expression::Binary { op: Op::Add, left, .. }, Change::DropLeft) => zero(left),
        _ => false,
    }
}

fn changed(expression: &Expression, change: Change) -> Option<Expression> {
    Some(match (expression, change) {
        (&Expression::Binary { op, left, right }, Change::Operator(with)) => {
            let (_, op, _) = *OPERATORS.iter().find(|(from, _, name)| *from == op && *name == with)?;
            Expression::Binary { op, left, right }
        }
        (&Expression::Binary { op, left, right }, Change::DropRight | Change::DropLeft) => {
            let kept = if change == Change::DropRight { left } else { right };
            match op {
                Op::LogicalAnd | Op::LogicalOr => Expression::Binary { op, left: kept, right: kept },
                // The operand itself, as a separate expression.
                _ => Expression::Math { fun: MathFunction::Max, arg: kept, arg1: Some(kept), arg2: None, arg3: None },
            }
        }
        (Expression::Literal(literal), Change::More | Change::Less) => {
            let by = if change == Change::More { 1 } else { -1 };
            Expression::Literal(match literal {
                Literal::U32(n) => Literal::U32(n.checked_add_signed(by)?),
                Literal::I32(n) => Literal::I32(n.checked_add(by)?),
                Literal::F32(x) => Literal::F32(x + by as f32),
                _ => return None,
            })
        }
        _ => return None,
    })
}
