//! Does the checker bite? Faults put into real kernels, and what notices them.
//!
//! A [`Fault`] alters one kernel of the plan of a small graph: its text, its uniform, its grid, its
//! bindings. [`examine`] then runs the graph through every check there is: launch by launch
//! against the reference (values, and sentinels behind the tensors), two runs that must agree to
//! the bit, a run with the workgroups in another order, which must give the same bits too, and the
//! whole step against the reference's. A fault that none of them notices has escaped.

use std::sync::Arc;

use wgrad::check::{CaseGraph, Element, Report, differs, permute, same};
use wgrad::op::Case;
use wgrad::plan::{Bound, Dispatch, Options, Plan};
use wgrad::{Device, Error, Graph, Profile, Program, Result, Session, Tensor, Value};

/// A graph with what it is fed.
pub struct Subject {
    /// The graph.
    pub graph: Graph,
    /// What it computes.
    pub outputs: Vec<Value>,
    /// Its inputs.
    pub feeds: Vec<(String, Tensor)>,
    /// Whether an index is out of range, so that every run must end with an error.
    pub out_of_range: bool,
}

impl Subject {
    /// A case with inputs drawn by `seed`, forward and, where it is differentiable, backward.
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

/// What is done to a kernel.
#[derive(Clone, Copy)]
pub enum Change {
    /// Each occurrence of the first text becomes the second.
    Text(&'static str, &'static str),
    /// The word with that number of the first uniform is changed so.
    Word(usize, fn(u32) -> u32),
    /// Each word of the uniforms that has the first value gets the second.
    Constant(u32, u32),
    /// Two bindings change places.
    Swap(usize, usize),
    /// The grid loses its last workgroup.
    Short,
    /// The kernel is run last of all.
    Late,
}

/// A seeded fault.
pub struct Fault {
    /// What is wrong.
    pub what: &'static str,
    /// The op, and the name of the case; without a case a graph of its own.
    pub op: &'static str,
    /// See `op`.
    pub case: &'static str,
    /// The variant to take, where it matters.
    pub variant: Option<&'static str>,
    /// The entry point of the kernel.
    pub kernel: &'static str,
    /// What is done to it.
    pub change: Change,
    /// Makes the graph, where no case of the registry will do.
    pub build: Option<fn() -> Result<Subject>>,
}

/// What noticed a fault, the cheapest check first.
#[derive(Clone, Debug, PartialEq)]
pub enum Caught {
    /// The program could not be made or run.
    Error(String),
    /// An element differed from the reference's.
    Value(String),
    /// Words behind a tensor's end were written.
    Sentinel(String),
    /// The status word was raised without a reason, or not raised.
    Status(String),
    /// Two runs gave different bits.
    Determinism,
    /// Another order of the workgroups gave different bits.
    Permutation,
    /// The launches were right, each on its own inputs, and the step's results wrong.
    Step(String),
}

impl Caught {
    /// The check that noticed.
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

    /// What it saw, where there is more to say.
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
            Caught::Permutation => f.write_str("another order of the workgroups gives other bits"),
            _ => write!(f, "{}: {}", self.check(), self.detail().unwrap_or_default()),
        }
    }
}

impl Fault {
    /// The graph that shows it.
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

    /// How the graph is planned.
    pub fn options(&self) -> Options {
        Options { variant: self.variant.map(str::to_owned), ..Options::default() }
    }

    /// Puts the fault into a plan.
    ///
    /// # Errors
    /// When the plan has no such kernel, or the kernel nothing that could be changed so: the fault
    /// no longer fits the kernels.
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

impl Change {
    fn apply(&self, dispatch: &mut Dispatch) -> bool {
        match *self {
            Change::Text(from, to) => {
                let text = dispatch.wgsl.replace(from, to);
                let changed = text != *dispatch.wgsl;
                dispatch.wgsl = Arc::from(text);
                changed
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

/// The plan that computes these values.
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

/// Whether the subject's plan for this device has the kernel that the fault is in.
///
/// # Errors
/// When the subject cannot be planned.
pub fn has_kernel(device: &Device, subject: &Subject, fault: &Fault) -> Result<bool> {
    let plan = plan(&subject.graph, &subject.outputs, device.profile(), &fault.options())?;
    Ok(plan.calls.iter().flat_map(|call| &call.dispatches).any(|dispatch| dispatch.entry == fault.kernel))
}

/// What the first failing call of a report is caught by.
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

const UNSEEN: &str = "an index out of range went unseen";

/// Runs a subject through every check, with its plan altered by `edit`; `None` where all is well.
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
        Ok((turned, report)) if report.passed() && differs(&first, &turned).is_none() => {}
        Ok(_) => return Ok(Some(Caught::Permutation)),
        Err(error) => return Ok(Some(Caught::Error(error.to_string()))),
    }
    let mut reference = Session::new(Device::cpu());
    let program = subject.compile(&mut reference, options, |_| Ok(()))?;
    let outputs = reference.run(&program, &subject.feeds())?;
    Ok(step_differs(&first, &results(&reference, outputs)?).map(Caught::Step))
}

/// A step's outputs and the variables behind it.
fn results(session: &Session, mut outputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    for name in session.names() {
        outputs.push(session.get(&name)?);
    }
    Ok(outputs)
}

/// A coarse comparison of a whole step, in which rounding has piled up: for what comes out of the
/// wrong buffer or in the wrong order.
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

/// The seeded faults.
pub fn faults() -> Vec<Fault> {
    crate::seeded::all()
}
