//! Validates a step's feeds against its program.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use super::Program;
use crate::cpu::index_in_range;
use crate::graph::{NodeKind, Scalar, ValueId};
use crate::plan::Input;
use crate::{DType, Error, Result, Tensor, gpu};

/// Validated feeds. They are looked up by name on demand and not copied, so that a step does not
/// allocate.
pub(super) struct Feeds<'a> {
    program: &'a Program,
    given: &'a [(&'a str, &'a Tensor)],
    /// The plan's scalars in order, in f64, stored in the program's buffer.
    scalars: MutexGuard<'a, Vec<f64>>,
}

impl<'a> Feeds<'a> {
    /// Checks the feeds and computes the step's scalars.
    ///
    /// # Errors
    /// A duplicate, missing, unknown or ill-typed feed, or an index out of range.
    pub fn new(
        program: &'a Program,
        given: &'a [(&'a str, &'a Tensor)],
        counters: &BTreeMap<String, u64>,
    ) -> Result<Feeds<'a>> {
        let scalars = program.scalars.lock().unwrap_or_else(PoisonError::into_inner);
        let mut feeds = Feeds { program, given, scalars };
        for (number, (name, _)) in given.iter().enumerate() {
            if given[..number].iter().any(|(other, _)| other == name) {
                return Err(Error::Input(format!("`{name}` is fed twice; feed each input once")));
            }
            if !feeds.knows(name) {
                return Err(feeds.unknown(name));
            }
        }
        for input in &program.plan.inputs {
            feeds.fits(input)?;
        }
        feeds.scalars.clear();
        for (_, scalar, dtype) in &program.plan.scalars {
            let value = match scalar {
                Scalar::Fed { name, default } => match find(given, name) {
                    Some(tensor) => tensor.item().map_err(|_| {
                        Error::Input(format!("scalar `{name}` needs one number, but {} was fed", tensor.ty()))
                    })?,
                    None => *default,
                },
                Scalar::Counted { counter, function } => function(counters.get(counter).copied().unwrap_or(0)),
            };
            dtype.check(value).map_err(|why| {
                Error::Input(match scalar {
                    Scalar::Fed { name, .. } => format!("scalar `{name}`: {why}"),
                    Scalar::Counted { counter, .. } => format!("a scalar of counter `{counter}`: {why}"),
                })
            })?;
            feeds.scalars.push(value);
        }
        Ok(feeds)
    }

    /// Whether the program has an input or scalar of that name, even if nothing reads it.
    fn knows(&self, name: &str) -> bool {
        let plan = &self.program.plan;
        let fed = |scalar: &Scalar| matches!(scalar, Scalar::Fed { name: known, .. } if known == name);
        plan.inputs.iter().any(|input| input.name == name)
            || plan.scalars.iter().any(|(_, scalar, _)| fed(scalar))
            || plan.nodes.nodes.iter().any(|node| matches!(&node.kind, NodeKind::Scalar(scalar) if fed(scalar)))
    }

    fn unknown(&self, name: &str) -> Error {
        let known: Vec<String> =
            self.program.plan.inputs.iter().map(|input| format!("{} ({})", input.name, input.ty)).collect();
        Error::Input(format!("the program has no input `{name}`; its inputs: {}", known.join(", ")))
    }

    fn fits(&self, input: &Input) -> Result<()> {
        let Input { name, ty, .. } = input;
        match self.input(name) {
            Some(tensor) if tensor.dtype() != ty.dtype || *tensor.shape() != ty.shape => {
                let remedy = match *tensor.shape() == ty.shape {
                    true => "Tensor::cast converts it",
                    false => "a program has fixed shapes, so compile the graph again for another one",
                };
                Err(Error::Input(format!("input `{name}` is {ty}, but {} was fed; {remedy}", tensor.ty())))
            }
            Some(tensor) => match input.bound {
                Some(most) => {
                    index_in_range(tensor, most).map_err(|why| Error::Input(format!("input `{name}`: {why}")))
                }
                None => Ok(()),
            },
            None if input.stored.is_none() => Ok(()),
            None => {
                let fed: Vec<&str> = self.given.iter().map(|(name, _)| *name).collect();
                let fed = if fed.is_empty() { "nothing".to_owned() } else { format!("only {}", fed.join(", ")) };
                Err(Error::Input(format!("input `{name}` ({ty}) is not fed, {fed} is")))
            }
        }
    }

    /// The tensor fed under a name.
    pub fn input(&self, name: &str) -> Option<&'a Tensor> {
        find(self.given, name)
    }

    /// Uploads inputs and scalars, rounded once to the device's types.
    pub fn upload(&self, gpu: &gpu::Program) -> Result<()> {
        let plan = &self.program.plan;
        let inputs = plan.inputs.iter();
        let inputs = inputs.filter_map(|input| Some((input.stored.as_ref()?.buffer, self.input(&input.name)?)));
        gpu.upload(inputs, |number| {
            let (x, (_, _, dtype)) = (self.scalars[number], &plan.scalars[number]);
            if *dtype == DType::F32 { (x as f32).to_bits() } else { x as u64 as u32 }
        })
    }

    /// The scalars as reference tensors; if `rounded`, as the device sees them.
    pub fn scalar_values(&self, rounded: bool) -> Vec<(ValueId, Tensor)> {
        let scalars = self.program.plan.scalars.iter().zip(self.scalars.iter());
        scalars
            .map(|((id, _, dtype), &x)| {
                let tensor = match dtype {
                    DType::F32 if rounded => Tensor::scalar(f64::from(x as f32)),
                    DType::F32 => Tensor::scalar(x),
                    _ => Tensor::of(&crate::Shape::scalar(), vec![x as u64 as u32]),
                };
                (*id, tensor)
            })
            .collect()
    }
}

fn find<'a>(given: &'a [(&'a str, &'a Tensor)], name: &str) -> Option<&'a Tensor> {
    given.iter().find(|(known, _)| *known == name).map(|(_, tensor)| *tensor)
}
