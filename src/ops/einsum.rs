//! Einstein summation: products of tensors, summed over the letters that the result does not name. Lowered
//! to permute, reshape, matmul and sum; no kernel of its own.

use crate::op::Case;
use crate::{Graph, Value};

/// Letters of each operand and of the result.
struct Equation {
    operands: Vec<Vec<char>>,
    result: Vec<char>,
}

impl Equation {
    /// Reads `ij,jk->ik`; without an arrow the result has the letters that stand once, in alphabetical order.
    fn parse(text: &str, count: usize) -> Result<Equation, String> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (inputs, result) = match text.split_once("->") {
            Some((inputs, result)) => (inputs, Some(result)),
            None => (text.as_str(), None),
        };
        let operands: Vec<Vec<char>> = inputs.split(',').map(|part| part.chars().collect()).collect();
        if let Some(bad) = operands
            .iter()
            .flatten()
            .chain(&result.unwrap_or("").chars().collect::<Vec<_>>())
            .find(|c| !c.is_ascii_alphabetic())
        {
            return Err(format!("`{bad}` in `{text}` is no letter: expected something like `bij,bjk->bik`"));
        }
        if operands.len() != count {
            return Err(format!("`{text}` names {} operands, and {count} are given", operands.len()));
        }
        let named = |letter: &char| operands.iter().flatten().filter(|c| *c == letter).count();
        let result: Vec<char> = match result {
            Some(result) => result.chars().collect(),
            None => {
                let mut once: Vec<char> = operands.iter().flatten().copied().filter(|c| named(c) == 1).collect();
                once.sort_unstable();
                once
            }
        };
        if let Some(letters) = operands.iter().chain([&result]).find(|letters| repeats(letters)) {
            let letters: String = letters.iter().collect();
            return Err(format!("`{letters}` names an axis twice; diagonals are not taken"));
        }
        if let Some(unknown) = result.iter().find(|c| named(c) == 0) {
            return Err(format!("the result's `{unknown}` is an axis of no operand"));
        }
        Ok(Equation { operands, result })
    }
}

fn repeats(letters: &[char]) -> bool {
    letters.iter().enumerate().any(|(i, c)| letters[..i].contains(c))
}

/// A value and the letters of its axes.
#[derive(Clone)]
struct Labelled {
    value: Value,
    letters: Vec<char>,
}

impl Labelled {
    fn axis(&self, letter: char) -> isize {
        self.letters.iter().position(|&c| c == letter).map_or(-1, |axis| axis as isize)
    }

    fn size(&self, letters: &[char]) -> isize {
        letters.iter().map(|&c| self.value.dim(self.axis(c)) as isize).product()
    }

    /// Summed over all letters but these.
    fn keep(self, kept: impl Fn(char) -> bool) -> Labelled {
        let gone: Vec<isize> = self.letters.iter().filter(|&&c| !kept(c)).map(|&c| self.axis(c)).collect();
        let letters = self.letters.iter().copied().filter(|&c| kept(c)).collect();
        Labelled { value: self.value.sum(&gone, false), letters }
    }

    /// With the axes in this order, each group merged to one.
    fn grouped<const N: usize>(&self, groups: [&[char]; N]) -> Value {
        let order: Vec<isize> = groups.iter().flat_map(|group| group.iter()).map(|&c| self.axis(c)).collect();
        self.value.permute(&order).reshape(&groups.map(|group| self.size(group)))
    }

    /// The product with another, summed over the letters of both that are not `wanted`.
    fn times(self, other: Labelled, wanted: &dyn Fn(char) -> bool) -> Labelled {
        let (a, b) = (self.letters.clone(), other.letters.clone());
        // What one of them alone has and nobody wants is summed before.
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
    /// Einstein summation. Each operand's axes are letters; the result, behind `->`, names the axes to keep,
    /// in its order, and all others are summed over. `ij,jk->ik` is a matrix product, `bhqd,bhkd->bhqk` the scores
    /// of attention, `ij->ji` a transpose, `ij->` a sum, `i,j->ij` an outer product. Without `->` the result has
    /// the letters that stand once, in alphabetical order.
    ///
    /// Operands are floats. Several are multiplied from left to right, each product summed as early as may be. No
    /// diagonals (a letter twice in one operand) and no `...`.
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
        let equation = match Equation::parse(equation, operands.len()).and_then(|e| fit(&e, operands).map(|()| e)) {
            Ok(equation) => equation,
            Err(why) => return self.mistake("einsum", operands, why),
        };
        let labelled = equation.operands.iter().zip(operands);
        let mut rest: Vec<Labelled> = labelled
            .map(|(letters, &value)| Labelled { value: value.clone(), letters: letters.clone() })
            .rev()
            .collect();
        let Some(mut product) = rest.pop() else { return self.mistake("einsum", &[], "expected at least one operand") };
        let location = std::panic::Location::caller();
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

/// Whether the operands have the axes that the equation names, of equal sizes where letters are equal.
fn fit(equation: &Equation, operands: &[&Value]) -> Result<(), String> {
    let mut sizes: Vec<(char, usize)> = Vec::new();
    for (letters, value) in equation.operands.iter().zip(operands) {
        if letters.len() != value.shape().rank() {
            let letters: String = letters.iter().collect();
            return Err(format!("`{letters}` names {} axes of {}", letters.len(), value.ty()));
        }
        for (&letter, &size) in letters.iter().zip(value.shape().iter()) {
            match sizes.iter().find(|(known, _)| *known == letter) {
                Some((_, other)) if *other != size => {
                    return Err(format!("axis `{letter}` is of size {other} and of size {size}"));
                }
                Some(_) => {}
                None => sizes.push((letter, size)),
            }
        }
    }
    Ok(())
}

/// The cases of this family.
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
    ]
}
