//! Fault injection: puts faults into real kernels and checks that they are detected.
//!
//! A [`Fault`] alters one kernel in the plan of a small graph: its text, its uniform, its grid or its bindings.
//! [`examine`] then runs the graph through every check: launch by launch against the reference (values, and sentinels
//! past the tensors), two runs that must agree bit by bit, a run with permuted workgroups that must give the same
//! bits, and the whole step against the reference. A fault that none of them detects has escaped.

use std::sync::Arc;

use wgrad::check::{CaseGraph, Element, Report, differs, differs_beyond_nan, permute, same};
use wgrad::op::Case;
use wgrad::plan::{Bound, Dispatch, Options, Plan};
use wgrad::{Device, Error, Graph, Precision, Profile, Program, Result, Session, Tensor, Value};

/// A graph with its inputs.
pub struct Subject {
    /// The graph.
    pub graph: Graph,
    /// Its outputs.
    pub outputs: Vec<Value>,
    /// Its inputs.
    pub feeds: Vec<(String, Tensor)>,
    /// Whether an index is out of range, so that every run must fail.
    pub out_of_range: bool,
}

impl Subject {
    /// A case with random inputs, forward and, if it is differentiable, backward.
    ///
    /// # Errors
    /// When the case does not build.
    pub fn of_case(case: &Case, seed: u64) -> Result<Subject> {
        let graph = CaseGraph::new(case)?;
        let names = graph.inputs.iter().map(|(name, ..)| name.clone());
        let feeds = names.zip(graph.sample(seed)).collect();
        let outputs = graph.outputs.into_iter().map(|(_, value)| value).collect();
        Ok(Subject { outputs, graph: graph.graph, feeds, out_of_range: false })
    }

    fn feeds(&self) -> Vec<(&str, &Tensor)> {
        self.feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }

    fn compile(
        &self,
        session: &mut Session,
        options: &Options,
        edit: impl FnOnce(&mut Plan) -> Result<()>,
    ) -> Result<Program> {
        let outputs: Vec<&Value> = self.outputs.iter().collect();
        session.compile_edited(&self.graph, &outputs, options, edit)
    }
}

/// How a kernel is altered.
#[derive(Clone, Copy)]
pub enum Change {
    /// Replaces each occurrence of the first text with the second.
    Text(&'static str, &'static str),
    /// The same for any of these pairs, since the text depends on the device.
    Texts(&'static [(&'static str, &'static str)]),
    /// Applies the function to this word of the first uniform.
    Word(usize, fn(u32) -> u32),
    /// Replaces the first value with the second in all uniforms.
    Constant(u32, u32),
    /// Swaps two bindings.
    Swap(usize, usize),
    /// Removes the last workgroup of the grid.
    Short,
    /// Runs the kernel last.
    Late,
}

/// A seeded fault.
pub struct Fault {
    /// What is wrong.
    pub what: &'static str,
    /// The op and the name of the case; without a case, `build` makes the graph.
    pub op: &'static str,
    /// See `op`.
    pub case: &'static str,
    /// The variant to use, if it matters.
    pub variant: Option<&'static str>,
    /// The kernel's entry point.
    pub kernel: &'static str,
    /// How it is altered.
    pub change: Change,
    /// Builds the graph if no case of the registry is suitable.
    pub build: Option<fn() -> Result<Subject>>,
}

/// How a fault was detected, cheapest check first.
#[derive(Clone, Debug, PartialEq)]
pub enum Caught {
    /// The program failed to compile or run.
    Error(String),
    /// An element differed from the reference.
    Value(String),
    /// A kernel wrote past the end of a tensor.
    Sentinel(String),
    /// The status word was set without reason, or not set.
    Status(String),
    /// Two runs gave different bits.
    Determinism,
    /// Permuted workgroups gave different bits.
    Permutation,
    /// Every launch was right for its own inputs, but the step's results were wrong.
    Step(String),
}

impl Caught {
    /// The name of the check that detected it.
    pub fn check(&self) -> &'static str {
        match self {
            Caught::Error(_) => "error",
            Caught::Value(_) => "value",
            Caught::Sentinel(_) => "sentinel",
            Caught::Status(_) => "status",
            Caught::Determinism => "determinism",
            Caught::Permutation => "permutation",
            Caught::Step(_) => "step",
        }
    }

    /// Details, if any.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Caught::Error(why)
            | Caught::Value(why)
            | Caught::Sentinel(why)
            | Caught::Status(why)
            | Caught::Step(why) => Some(why),
            Caught::Determinism | Caught::Permutation => None,
        }
    }
}

impl std::fmt::Display for Caught {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Caught::Determinism => f.write_str("two runs differ"),
            Caught::Permutation => f.write_str("permuting the workgroups changes the result"),
            _ => write!(f, "{}: {}", self.check(), self.detail().unwrap_or_default()),
        }
    }
}

impl Fault {
    /// The graph that exposes it.
    ///
    /// # Errors
    /// When there is no such case.
    pub fn subject(&self) -> Result<Subject> {
        if let Some(build) = self.build {
            return build();
        }
        for (cases, out_of_range) in [(wgrad::ops::cases(), false), (wgrad::ops::out_of_range_cases(), true)] {
            if let Some(case) = cases.iter().find(|case| case.op == self.op && case.name == self.case) {
                return Ok(Subject { out_of_range, ..Subject::of_case(case, 1)? });
            }
        }
        Err(Error::Input(format!("there is no case {} ({})", self.op, self.case)))
    }

    /// Whether it is in a kernel for matrix units.
    pub fn is_mixed(&self) -> bool {
        self.variant.is_some_and(|variant| variant.starts_with("cooperative"))
    }

    /// The planning options.
    pub fn options(&self) -> Options {
        // Only mixed precision admits the kernels for matrix units.
        let precision = if self.is_mixed() { Precision::Mixed } else { Precision::Highest };
        Options { variant: self.variant.map(str::to_owned), precision, ..Options::default() }
    }

    /// Injects the fault into a plan.
    ///
    /// # Errors
    /// When the plan has no such kernel, or the kernel has nothing to alter: the fault no longer fits the kernels.
    pub fn inject(&self, plan: &mut Plan) -> Result<()> {
        let kernel = |d: &Dispatch| d.entry == self.kernel;
        if let Change::Late = self.change
            && let Some(at) = plan.calls.iter().position(|call| call.dispatches.iter().any(kernel))
        {
            let call = plan.calls.remove(at);
            plan.calls.push(call);
            return Ok(());
        }
        let mut changed = false;
        let dispatches = plan.calls.iter_mut().flat_map(|call| &mut call.dispatches);
        for dispatch in dispatches.filter(|d| kernel(d)) {
            changed |= self.change.apply(dispatch);
        }
        if changed { Ok(()) } else { Err(Error::Input(format!("the fault `{}` finds nothing to change", self.what))) }
    }
}

/// Replaces each occurrence of a text; whether there is one.
fn replace(dispatch: &mut Dispatch, from: &str, to: &str) -> bool {
    let text = dispatch.wgsl.text.replace(from, to);
    let changed = text != *dispatch.wgsl.text;
    dispatch.wgsl.text = Arc::from(text);
    changed
}

impl Change {
    fn apply(&self, dispatch: &mut Dispatch) -> bool {
        match *self {
            Change::Text(from, to) => replace(dispatch, from, to),
            Change::Texts(pairs) => {
                pairs.iter().fold(false, |changed, (from, to)| replace(dispatch, from, to) | changed)
            }
            Change::Word(number, change) => {
                let mut uniforms = dispatch.bindings.iter_mut();
                let words = uniforms.find_map(|b| if let Bound::Uniform(words) = b { Some(words) } else { None });
                let Some(word) = words.and_then(|words| words.get_mut(number)) else { return false };
                let old = std::mem::replace(word, change(*word));
                *word != old
            }
            Change::Constant(from, to) => {
                let mut changed = false;
                for binding in &mut dispatch.bindings {
                    if let Bound::Uniform(words) = binding {
                        for word in words.iter_mut().filter(|word| **word == from) {
                            *word = to;
                            changed = true;
                        }
                    }
                }
                changed
            }
            Change::Swap(a, b) => {
                let there = a.max(b) < dispatch.bindings.len();
                if there {
                    dispatch.bindings.swap(a, b);
                }
                there
            }
            Change::Short => {
                let longest = dispatch.workgroups.iter_mut().max();
                longest.is_some_and(|n| {
                    let several = *n > 1;
                    *n -= u32::from(several);
                    several
                })
            }
            Change::Late => false,
        }
    }
}

/// The plan for these values.
///
/// # Errors
/// As [`Plan::new`].
pub fn plan<'a>(
    graph: &Graph,
    outputs: impl IntoIterator<Item = &'a Value>,
    profile: &Profile,
    options: &Options,
) -> Result<Plan> {
    let targets: Vec<_> = outputs.into_iter().map(Value::id).collect();
    Plan::new(graph.nodes(), &targets, profile, options)
}

/// Whether the subject's plan for this device contains the faulty kernel.
///
/// # Errors
/// When the subject cannot be planned.
pub fn has_kernel(device: &Device, subject: &Subject, fault: &Fault) -> Result<bool> {
    let plan = plan(&subject.graph, &subject.outputs, device.profile(), &fault.options())?;
    Ok(plan.calls.iter().flat_map(|call| &call.dispatches).any(|dispatch| dispatch.entry == fault.kernel))
}

/// Which check the first failing kernel call of a report counts for.
fn caught(report: &Report) -> Option<Caught> {
    let wrong = report.calls.iter().find(|call| call.wrong > 0);
    if let Some(call) = wrong {
        let element = call.worst.as_ref().map_or_else(String::new, Element::to_string);
        return Some(Caught::Value(format!("{} of {} elements; {element}", call.wrong, call.compared)));
    }
    if let Some(stray) = report.calls.iter().find_map(|call| call.stray.clone()) {
        return Some(Caught::Sentinel(stray));
    }
    report.calls.iter().find_map(|call| call.status.clone()).map(Caught::Status)
}

const UNSEEN: &str = "an index out of range was not reported";

/// Runs a subject through every check, with its plan altered by `edit`; `None` if all pass.
///
/// # Errors
/// When `edit` fails. Errors of the device are findings.
pub fn examine(
    device: &Device,
    subject: &Subject,
    options: &Options,
    edit: impl Fn(&mut Plan) -> Result<()>,
) -> Result<Option<Caught>> {
    // An error of the edit ends the examination; later ones are findings.
    let mut refused = None;
    let run = |permuted: bool, refused: &mut Option<Error>| {
        let mut session = Session::new(device.clone());
        let program = subject.compile(&mut session, options, |plan| {
            edit(plan).map_err(|error| {
                *refused = Some(error);
                Error::Input("refused".into())
            })?;
            if permuted { permute(plan) } else { Ok(()) }
        })?;
        let (outputs, report) = session.check(&program, &subject.feeds())?;
        Ok::<_, Error>((results(&session, outputs)?, report))
    };
    let (first, report) = match run(false, &mut refused) {
        Ok((_, report)) if subject.out_of_range => {
            return Ok(Some(caught(&report).unwrap_or(Caught::Error(UNSEEN.into()))));
        }
        Err(Error::Input(why)) if subject.out_of_range && refused.is_none() && why.contains("out of range") => {
            return Ok(None);
        }
        Ok(done) => done,
        Err(error) => return refused.map_or(Ok(Some(Caught::Error(error.to_string()))), Err),
    };
    if let Some(caught) = caught(&report) {
        return Ok(Some(caught));
    }
    let again = match run(false, &mut refused) {
        Ok((again, _)) => again,
        Err(error) => return Ok(Some(Caught::Error(error.to_string()))),
    };
    if differs(&first, &again).is_some() {
        return Ok(Some(Caught::Determinism));
    }
    match run(true, &mut refused) {
        Ok((turned, report)) if report.passed() && differs_beyond_nan(&first, &turned).is_none() => {}
        Ok(_) => return Ok(Some(Caught::Permutation)),
        Err(error) => return Ok(Some(Caught::Error(error.to_string()))),
    }
    let mut reference = Session::new(Device::cpu());
    let program = subject.compile(&mut reference, options, |_| Ok(()))?;
    let outputs = reference.run(&program, &subject.feeds())?;
    Ok(step_differs(&first, &results(&reference, outputs)?).map(Caught::Step))
}

/// A step's outputs, and the variables after it.
fn results(session: &Session, mut outputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    for name in session.names() {
        outputs.push(session.get(&name)?);
    }
    Ok(outputs)
}

/// A coarse comparison of a whole step with its accumulated rounding: detects results from the wrong buffer or in
/// the wrong order.
fn step_differs(got: &[Tensor], want: &[Tensor]) -> Option<String> {
    for (number, (got, want)) in got.iter().zip(want).enumerate() {
        let (got, want) = (got.to_f64(), want.to_f64());
        let scale = want.iter().fold(0.0f64, |most, x| most.max(if x.is_finite() { x.abs() } else { 0.0 }));
        for (i, (&got, &want)) in got.iter().zip(&want).enumerate() {
            let overflows = (want as f32).is_infinite() && got == f64::from(want as f32);
            if !(same(got, want) || overflows || (got - want).abs() <= 1e-3 * (scale + 1e-3)) {
                return Some(format!("result {number}, element {i}: got {got:e}, expected {want:e}"));
            }
        }
    }
    None
}
