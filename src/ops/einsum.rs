//! Einstein summation: products of tensors, summed over the letters missing from the result. Composed of permute,
//! reshape, matmul and sum; there is no dedicated kernel.

use std::collections::BTreeMap;

use crate::op::{Case, Fill};
use crate::{DType, Graph, Shape, TensorType, Value};

/// Letters of each operand and of the result. The axes of `...` have [`blank`] letters.
struct Equation {
    operands: Vec<Vec<char>>,
    result: Vec<char>,
}

/// Maximum number of axes that `...` may stand for: the size of a Unicode private-use area.
const BLANKS: usize = 6400;

/// The letter of the `from_last`-th axis of `...`, counted from the last.
fn blank(from_last: usize) -> char {
    char::from_u32(0xe000 + from_last as u32).unwrap_or(' ')
}

/// The letters of `...` for `count` axes.
fn blanks(count: usize) -> impl Iterator<Item = char> {
    (0..count).rev().map(blank)
}

/// The letters before and after `...`; the latter is `None` if there is no `...`.
fn letters_of(part: &str) -> Result<(Vec<char>, Option<Vec<char>>), String> {
    let (before, behind) = match part.split_once("...") {
        Some((before, behind)) => (before, Some(behind)),
        None => (part, None),
    };
    if let Some(bad) = before.chars().chain(behind.unwrap_or("").chars()).find(|c| !c.is_ascii_alphabetic()) {
        return Err(format!(
            "`{bad}` in `{part}` is not a letter: expected an equation such as `bij,bjk->bik` or `...ij->...ji`"
        ));
    }
    Ok((before.chars().collect(), behind.map(|behind| behind.chars().collect())))
}

impl Equation {
    /// Parses an equation such as `ij,jk->ik` for operands of these shapes. Without `->`, the result has the axes of
    /// `...`, then the letters that occur once, in alphabetical order.
    fn parse(text: &str, shapes: &[&Shape]) -> Result<Equation, String> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (inputs, result) = match text.split_once("->") {
            Some((inputs, result)) => (inputs, Some(result)),
            None => (text.as_str(), None),
        };
        let parts: Vec<&str> = inputs.split(',').collect();
        if parts.len() != shapes.len() {
            return Err(format!("`{text}` has {} operand(s), but {} were passed", parts.len(), shapes.len()));
        }
        let (mut operands, mut most) = (Vec::new(), 0);
        for (part, shape) in parts.into_iter().zip(shapes) {
            let (before, behind) = letters_of(part)?;
            let named = before.len() + behind.as_ref().map_or(0, Vec::len);
            let rest = shape.rank().checked_sub(named).filter(|&rest| rest == 0 || behind.is_some() && rest <= BLANKS);
            let Some(rest) = rest else { return Err(format!("`{part}` names {named} axes, but the shape is {shape}")) };
            most = most.max(rest);
            operands
                .push(before.into_iter().chain(blanks(rest)).chain(behind.unwrap_or_default()).collect::<Vec<char>>());
        }
        let named = |letter: &char| operands.iter().flatten().filter(|c| *c == letter).count();
        let result: Vec<char> = match result {
            Some(result) => {
                let (before, behind) = letters_of(result)?;
                let of_blanks = if behind.is_some() { most } else { 0 };
                before.into_iter().chain(blanks(of_blanks)).chain(behind.unwrap_or_default()).collect()
            }
            None => {
                let letters = operands.iter().flatten().copied().filter(char::is_ascii_alphabetic);
                let mut once: Vec<char> = letters.filter(|c| named(c) == 1).collect();
                once.sort_unstable();
                blanks(most).chain(once).collect()
            }
        };
        if let Some(twice) = result.iter().enumerate().find_map(|(i, c)| result[..i].contains(c).then_some(c)) {
            return Err(format!("the result names the axis `{twice}` twice"));
        }
        if let Some(unknown) = result.iter().find(|c| named(c) == 0) {
            return Err(format!("the result's axis `{unknown}` is in no operand"));
        }
        Ok(Equation { operands, result })
    }

    /// The size of each letter. Axes of `...` broadcast; other letters must have the same size everywhere.
    fn sizes(&self, shapes: &[&Shape]) -> Result<BTreeMap<char, usize>, String> {
        let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
        for (letters, shape) in self.operands.iter().zip(shapes) {
            for (&letter, &size) in letters.iter().zip(shape.iter()) {
                let known = sizes.entry(letter).or_insert(size);
                let broadcasts = !letter.is_ascii_alphabetic();
                match (*known, size) {
                    (a, b) if a == b => {}
                    (1, _) if broadcasts => *known = size,
                    (_, 1) if broadcasts => {}
                    (a, b) if broadcasts => {
                        return Err(format!("an axis of `...` has sizes {a} and {b}, which do not broadcast"));
                    }
                    (a, b) => return Err(format!("axis `{letter}` has sizes {a} and {b}")),
                }
            }
        }
        Ok(sizes)
    }
}

/// A value and the letters of its axes.
#[derive(Clone)]
struct Labelled {
    value: Value,
    letters: Vec<char>,
}

impl Labelled {
    /// An operand with repeated letters replaced by their diagonal, and without the axes of size 1 that broadcast.
    fn new(value: &Value, letters: &[char], sizes: &BTreeMap<char, usize>) -> Labelled {
        let mut all = Labelled { value: value.clone(), letters: letters.to_vec() };
        let twice = |letters: &[char]| {
            let pairs = (0..letters.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
            pairs.into_iter().find(|&(a, b)| letters[a] == letters[b])
        };
        while let Some((a, b)) = twice(&all.letters) {
            all.value = all.value.diagonal(a as isize, b as isize);
            all.letters.remove(b);
            let letter = all.letters.remove(a);
            all.letters.push(letter);
        }
        let stays = |&(letter, &size): &(char, &usize)| Some(&size) == sizes.get(&letter);
        let kept: Vec<(char, &usize)> =
            all.letters.iter().copied().zip(all.value.shape().iter()).filter(stays).collect();
        let shape: Vec<isize> = kept.iter().map(|(_, size)| **size as isize).collect();
        Labelled { value: all.value.reshape(&shape), letters: kept.iter().map(|(letter, _)| *letter).collect() }
    }

    fn axis(&self, letter: char) -> isize {
        self.letters.iter().position(|&c| c == letter).map_or(-1, |axis| axis as isize)
    }

    fn size(&self, letters: &[char]) -> isize {
        letters.iter().map(|&c| self.value.dim(self.axis(c)) as isize).product()
    }

    /// Sums over all letters except these.
    fn keep(self, kept: impl Fn(char) -> bool) -> Labelled {
        let gone: Vec<isize> = self.letters.iter().filter(|&&c| !kept(c)).map(|&c| self.axis(c)).collect();
        let letters = self.letters.iter().copied().filter(|&c| kept(c)).collect();
        Labelled { value: self.value.sum(&gone, false), letters }
    }

    /// Permutes the axes to this order and merges each group into one axis.
    fn grouped<const N: usize>(&self, groups: [&[char]; N]) -> Value {
        let order: Vec<isize> = groups.iter().flat_map(|group| group.iter()).map(|&c| self.axis(c)).collect();
        self.value.permute(&order).reshape(&groups.map(|group| self.size(group)))
    }

    /// The product with another operand, summed over all letters that are not `wanted`.
    fn times(self, other: Labelled, wanted: &dyn Fn(char) -> bool) -> Labelled {
        let (a, b) = (self.letters.clone(), other.letters.clone());
        // Unwanted letters of only one operand are summed first.
        let (x, y) = (self.keep(|c| wanted(c) || b.contains(&c)), other.keep(|c| wanted(c) || a.contains(&c)));
        let part = |of: &Labelled, in_other: bool, kept: bool| -> Vec<char> {
            of.letters
                .iter()
                .copied()
                .filter(|&c| (a.contains(&c) && b.contains(&c)) == in_other && wanted(c) == kept)
                .collect()
        };
        let (batch, summed) = (part(&x, true, true), part(&x, true, false));
        let (left, right) = (part(&x, false, true), part(&y, false, true));
        let product = if summed.is_empty() {
            let size = |of: &Labelled, letters: &[char]| of.size(letters);
            x.grouped([&batch, &left]).reshape(&[size(&x, &batch), size(&x, &left), 1])
                * y.grouped([&batch, &right]).reshape(&[size(&y, &batch), 1, size(&y, &right)])
        } else {
            x.grouped([&batch, &left, &summed]).matmul(&y.grouped([&batch, &summed, &right]))
        };
        let sizes = [&batch, &left].map(|of| of.iter().map(|&c| x.size(&[c])).collect::<Vec<_>>());
        let sizes = [sizes.concat(), right.iter().map(|&c| y.size(&[c])).collect()].concat();
        Labelled { value: product.reshape(&sizes), letters: [batch, left, right].concat() }
    }
}

impl Graph {
    /// Einstein summation. Letters name the axes of each operand; the letters after `->` are the axes of the result,
    /// in this order, and all others are summed over. `ij,jk->ik` is a matrix product, `bhqd,bhkd->bhqk` computes
    /// attention scores, `ij->ji` is a transpose, `ij->` a sum, `i,j->ij` an outer product. Without `->`, the result
    /// has the letters that occur once, in alphabetical order.
    ///
    /// A letter that occurs twice in one operand selects the diagonal of the two axes: `ii->i`, or `bii->b` for the
    /// traces of a batch. `...` stands for all axes without a letter: `...ij,...jk->...ik`. They broadcast as in
    /// NumPy, come first without `->`, and are summed over if the result has no `...`.
    ///
    /// Operands are numbers of the same type. They are multiplied from left to right, and each product is summed as
    /// early as possible.
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let graph = Graph::new();
    /// let q = graph.input("q", DType::F32, [2, 4, 7, 8]);
    /// let k = graph.input("k", DType::F32, [2, 4, 9, 8]);
    /// assert_eq!(graph.einsum("bhqd,bhkd->bhqk", &[&q, &k]).shape().to_vec(), [2, 4, 7, 9]);
    /// assert!(!graph.einsum("bhqd,bhdk->bhqk", &[&q, &k]).is_valid()); // d is 8 and 9
    /// ```
    #[track_caller]
    pub fn einsum(&self, equation: &str, operands: &[&Value]) -> Value {
        if let Err(invalid) = self.admit("einsum", operands) {
            return invalid;
        }
        let shapes: Vec<&Shape> = operands.iter().map(|v| v.shape()).collect();
        let read = Equation::parse(equation, &shapes).and_then(|read| read.sizes(&shapes).map(|sizes| (read, sizes)));
        let (equation, sizes) = match read {
            Ok(read) => read,
            Err(why) => return self.error("einsum", operands, why),
        };
        let location = std::panic::Location::caller();
        let labelled = equation.operands.iter().zip(operands).rev();
        let mut rest: Vec<Labelled> =
            self.at(location, || labelled.map(|(letters, value)| Labelled::new(value, letters, &sizes)).collect());
        let Some(mut product) = rest.pop() else { return self.error("einsum", &[], "expected at least one operand") };
        self.at(location, || {
            while let Some(next) = rest.pop() {
                let wanted =
                    |c: char| equation.result.contains(&c) || rest.iter().any(|later| later.letters.contains(&c));
                product = product.clone().times(next, &wanted);
            }
            let product = product.clone().keep(|c| equation.result.contains(&c));
            let order: Vec<isize> = equation.result.iter().map(|&c| product.axis(c)).collect();
            if order.is_empty() { product.value } else { product.value.permute(&order) }
        })
    }
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let case = |equation: &'static str, shapes: &[&[usize]]| {
        let case =
            Case::new("einsum", equation, move |x| vec![x[0].graph().einsum(equation, &x.iter().collect::<Vec<_>>())]);
        let names = ["a", "b", "c"];
        shapes.iter().zip(names).fold(case, |case, (shape, name)| case.float(name, *shape))
    };
    vec![
        case("ij,jk->ik", &[&[3, 4], &[4, 5]]),
        case("ij,kj->ki", &[&[3, 4], &[5, 4]]),
        case("bhqd,bhkd->bhqk", &[&[2, 3, 4, 5], &[2, 3, 6, 5]]),
        case("bhqk,bhkd->bqhd", &[&[2, 3, 4, 5], &[2, 3, 5, 6]]),
        case("ijk,ljk", &[&[3, 2, 4], &[5, 2, 4]]),
        case("i,i->", &[&[7], &[7]]),
        case("i,j->ij", &[&[3], &[4]]),
        case("ij,ij->ij", &[&[3, 4], &[3, 4]]),
        case("bi,bi->b", &[&[5, 4], &[5, 4]]),
        case("ij->ji", &[&[3, 4]]),
        case("ijk->j", &[&[2, 3, 4]]),
        case("ij->", &[&[3, 4]]),
        case("ai,bj->ab", &[&[2, 3], &[4, 5]]),
        case("bn,anm,bm->ba", &[&[2, 3], &[4, 3, 5], &[2, 5]]),
        case("ij,jk,kl->il", &[&[2, 3], &[3, 4], &[4, 5]]),
        case("ij,j->i", &[&[0, 3], &[3]]),
        case("ii->i", &[&[4, 4]]),
        case("ii->", &[&[5, 5]]),
        case("ii", &[&[3, 3]]),
        case("bii->bi", &[&[2, 3, 3]]),
        case("iji->ji", &[&[3, 2, 3]]),
        case("iii->i", &[&[3, 3, 3]]),
        case("ii,i->i", &[&[4, 4], &[4]]),
        case("ijij,jk->ik", &[&[2, 3, 2, 3], &[3, 4]]),
        case("...ij,...jk->...ik", &[&[2, 3, 4, 5], &[3, 5, 2]]),
        case("...ij,...jk", &[&[2, 1, 3, 4], &[5, 4, 3]]),
        case("b...,b...->...", &[&[3, 2, 1], &[3, 4]]),
        case("...ii->...i", &[&[2, 3, 3]]),
        case("i...->...", &[&[4, 2, 3]]),
        case("...,...->", &[&[2, 1, 3], &[4, 3]]),
        case("i...j,k->k...", &[&[2, 3, 4], &[5]]),
        case("...ij->...ji", &[&[3, 4]]),
        case("...i,...i->...", &[&[1, 4], &[0, 4]]),
        Case::new("einsum", "i32, u32: ij,jk->ik, diagonals and broadcasts", |x| {
            let g = x[0].graph();
            vec![
                g.einsum("ij,jk->ik", &[&x[0], &x[1]]),
                g.einsum("ii,...i->...i", &[&x[2], &x[2]]),
                g.einsum("ij->j", &[&x[2]]),
            ]
        })
        .input("a", TensorType::new(DType::I32, [3, 4]), Fill::Index(1 << 30))
        .input("b", TensorType::new(DType::I32, [4, 5]), Fill::Index(1 << 30))
        .input("c", TensorType::new(DType::U32, [3, 3]), Fill::Index(1 << 30))
        .forward_only(),
    ]
}
