//! Tests the mutants of one shader.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use wgrad::check::CaseGraph;
use wgrad::op::Case;
use wgrad::{Device, Error, Session, Tensor, Value};

use super::mutant::{Key, Parsed, Place};
use super::texts::{self, NARROW, Run, Text, belongs, narrowed};
use super::{MutateArgs, is_equivalent};
use crate::output::{Out, Stop, matches};

/// Number of mutants after which the device is reopened to free their pipelines.
const TIDY: usize = 200;

pub struct Worker {
    shader: String,
    devices: Devices,
    cases: Vec<Case>,
    /// How many of the cases must agree; the others must fail.
    ordinary: usize,
    texts: Vec<Text>,
    parsed: Vec<Option<Parsed>>,
    graphs: HashMap<usize, (CaseGraph, Vec<Tensor>)>,
    /// Per run: how many mutants it killed, and how many it was tried on.
    tally: HashMap<usize, [usize; 2]>,
    /// Whether a shader passes a run when naga writes it without a mutation.
    sound: HashMap<(usize, usize), bool>,
}

/// The device, and the same device with fewer workgroups.
struct Devices {
    whole: Device,
    narrow: Vec<Device>,
}

impl Devices {
    fn open(name: &str) -> wgrad::Result<Devices> {
        let whole = Device::open(Some(name))?;
        let within = |most: &u32| Device::open_within(Some(name), Some(&narrowed(whole.profile(), *most)));
        Ok(Devices { narrow: NARROW.iter().map(within).collect::<wgrad::Result<_>>()?, whole })
    }

    fn of(&self, run: &Run) -> &Device {
        run.narrow.map_or(&self.whole, |at| &self.narrow[at])
    }
}

impl Worker {
    pub fn new(device: Device, shader: &str, cases: &[usize]) -> Result<Worker, Stop> {
        let found = texts::texts(&device, cases, |known| known == shader)?;
        let texts = found.into_values().next().unwrap_or_default();
        let (cases, ordinary) = texts::cases();
        Ok(Worker {
            shader: shader.to_owned(),
            devices: Devices::open(&device.profile().name)?,
            cases,
            ordinary,
            parsed: texts.iter().map(|text| Parsed::new(&text.wgsl)).collect(),
            texts,
            graphs: HashMap::new(),
            tally: HashMap::new(),
            sound: HashMap::new(),
        })
    }

    pub fn run(mut self, args: &MutateArgs, first: usize, out: &mut Out) -> Result<bool, Stop> {
        let mut places = BTreeMap::<Key, Vec<(usize, Place)>>::new();
        for (number, (text, parsed)) in self.texts.iter().zip(&self.parsed).enumerate() {
            let wanted = |name: &str| belongs(name, &text.wgsl, &self.shader);
            for (key, place) in parsed.iter().flat_map(|parsed| parsed.mutations(wanted)) {
                places.entry(key).or_default().push((number, place));
            }
        }
        let only = args.only.as_deref().unwrap_or("*");
        let mut keys: Vec<&Key> = places.keys().filter(|key| matches(only, &key.to_string())).collect();
        out.line(format!("mutants {}", keys.len()))?;
        keys.shuffle(&mut StdRng::seed_from_u64(args.seed));
        let wanted = args.sample.unwrap_or(keys.len());
        let mut tried = 0;
        for key in keys {
            // Only valid mutants that change the shader count.
            if !places[key].iter().any(|&(number, place)| self.mutated(number, place, key).is_some()) {
                continue;
            }
            if tried == wanted {
                break;
            }
            tried += 1;
            if tried <= first {
                continue;
            }
            let name = key.to_string();
            if is_equivalent(&self.shader, &name) {
                out.line(format!("equivalent {name}"))?;
                continue;
            }
            out.line(format!("trying {name}"))?;
            let killed = self.is_killed(&places[key], key, args.runs, out)?;
            out.line(format!("{} {name}", if killed { "killed" } else { "survived" }))?;
            if tried % TIDY == 0 {
                self.devices = Devices::open(&self.devices.whole.profile().name)?;
            }
        }
        out.line("done")?;
        Ok(true)
    }

    fn mutated(&self, text: usize, place: Place, key: &Key) -> Option<Arc<str>> {
        self.parsed[text].as_ref()?.mutated(place, key.change).map(Arc::from)
    }

    /// Whether one of at most `most` runs detects the mutant. Runs with the most kills per second come first, so that a
    /// killed mutant usually costs one pipeline.
    fn is_killed(&mut self, places: &[(usize, Place)], key: &Key, most: usize, out: &mut Out) -> Result<bool, Stop> {
        let mut open: Vec<(usize, Arc<Run>)> = Vec::new();
        for &(number, _) in places {
            open.extend(self.texts[number].runs.iter().map(|run| (number, run.clone())));
        }
        // Each mutated shader, and how many runs it has passed.
        let mut made: HashMap<usize, (Option<Arc<str>>, usize)> = HashMap::new();
        for _ in 0..most {
            let worth = |(text, run): &(usize, Arc<Run>)| {
                let [kills, runs] = self.tally.get(&run.number).copied().unwrap_or_default();
                let seen = made.get(text).map(|(_, runs)| *runs);
                let pipeline = if seen.is_some() { 0.0 } else { 0.15 };
                let seconds = 0.01 + 2e-6 * run.size as f64 + pipeline;
                // A shader that passed many runs will probably pass the next.
                (kills as f64 + 1.0) / (runs as f64 + 2.0) / seconds / (1 + seen.unwrap_or(0)) as f64
            };
            let values = open.iter().map(worth).enumerate();
            let Some((best, _)) = values.max_by(|a, b| a.1.total_cmp(&b.1)) else { break };
            let (text, run) = open.swap_remove(best);
            if let Entry::Vacant(vacant) = made.entry(text) {
                let place = places.iter().find(|(number, _)| *number == text);
                vacant.insert((place.and_then(|&(_, place)| self.mutated(text, place, key)), 0));
            }
            let Some((Some(mutated), seen)) = made.get_mut(&text).map(|(text, seen)| (text.clone(), seen)) else {
                open.retain(|(number, _)| *number != text);
                continue;
            };
            *seen += 1;
            out.line("run")?;
            let noticed = !self.passes(text, &run, &mutated) && self.is_sound(text, &run);
            let tally = self.tally.entry(run.number).or_default();
            tally[0] += usize::from(noticed);
            tally[1] += 1;
            if noticed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_sound(&mut self, text: usize, run: &Run) -> bool {
        if let Some(&sound) = self.sound.get(&(text, run.number)) {
            return sound;
        }
        let written: Arc<str> = self.parsed[text].as_ref().map_or("", |parsed| &parsed.written).into();
        let sound = self.passes(text, run, &written);
        self.sound.insert((text, run.number), sound);
        sound
    }

    /// Whether a case behaves as it should with one shader replaced.
    fn passes(&mut self, text: usize, run: &Run, with: &Arc<str>) -> bool {
        let ordinary = run.case < self.ordinary;
        match self.check(text, run, with) {
            Ok(passed) => ordinary && passed,
            Err(Error::Input(why)) => !ordinary && why.contains("out of range"),
            Err(_) => {
                // Reopen, so that a driver error does not affect the next mutant.
                if let Ok(devices) = Devices::open(&self.devices.whole.profile().name) {
                    self.devices = devices;
                }
                false
            }
        }
    }

    fn check(&mut self, text: usize, run: &Run, with: &Arc<str>) -> wgrad::Result<bool> {
        let case = &self.cases[run.case];
        if let Entry::Vacant(vacant) = self.graphs.entry(run.case) {
            let graph = CaseGraph::new(case)?;
            let inputs = graph.sample(run.case as u64);
            vacant.insert((graph, inputs));
        }
        let (graph, inputs) = &self.graphs[&run.case];
        let feeds: Vec<(&str, &Tensor)> =
            graph.inputs.iter().zip(inputs).map(|((name, ..), tensor)| (name.as_str(), tensor)).collect();
        let outputs: Vec<&Value> = graph.outputs.iter().map(|(_, value)| value).collect();
        let mut session = Session::new(self.devices.of(run).clone());
        let program = session.compile_edited(&graph.graph, &outputs, &run.options, |plan| {
            for call in &mut plan.calls {
                let mut mutated = false;
                for dispatch in call.dispatches.iter_mut().filter(|d| d.wgsl.text == self.texts[text].wgsl) {
                    dispatch.wgsl.text = with.clone();
                    mutated = true;
                }
                if !mutated {
                    // It runs, but is not compared.
                    (call.reads, call.writes, call.scratch) = Default::default();
                }
            }
            Ok(())
        })?;
        Ok(session.check(&program, &feeds)?.1.passed())
    }
}
