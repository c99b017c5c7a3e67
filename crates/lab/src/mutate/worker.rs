//! Tries the mutants of one shader.

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

/// Mutants after which the device is opened anew, so that their pipelines go.
const TIDY: usize = 200;

pub struct Worker {
    shader: String,
    devices: Devices,
    cases: Vec<Case>,
    /// How many of the cases must agree; the others must end with an error.
    ordinary: usize,
    texts: Vec<Text>,
    parsed: Vec<Option<Parsed>>,
    graphs: HashMap<usize, (CaseGraph, Vec<Tensor>)>,
    /// By the run's number: how many mutants it killed, and how many it was tried on.
    tally: HashMap<usize, [usize; 2]>,
    /// Whether a text passes a run when it is written by naga, but not mutated.
    sound: HashMap<(usize, usize), bool>,
}

/// The device, and what it would be with few workgroups.
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
            // Only what is valid and changes something counts.
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

    /// Whether one of at most so many runs notices the mutant. Those that have noticed most for
    /// their time come first: a killed mutant should cost one pipeline.
    fn is_killed(&mut self, places: &[(usize, Place)], key: &Key, most: usize, out: &mut Out) -> Result<bool, Stop> {
        let mut open: Vec<(usize, Arc<Run>)> = Vec::new();
        for &(number, _) in places {
            open.extend(self.texts[number].runs.iter().map(|run| (number, run.clone())));
        }
        // Each text as mutated, and how many runs it has seen.
        let mut made: HashMap<usize, (Option<Arc<str>>, usize)> = HashMap::new();
        for _ in 0..most {
            let worth = |(text, run): &(usize, Arc<Run>)| {
                let [kills, runs] = self.tally.get(&run.number).copied().unwrap_or_default();
                let seen = made.get(text).map(|(_, runs)| *runs);
                let pipeline = if seen.is_some() { 0.0 } else { 0.15 };
                let seconds = 0.01 + 2e-6 * run.size as f64 + pipeline;
                // What many runs of a text did not notice, the next will hardly.
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

    /// Whether a case does as it should with one text replaced.
    fn passes(&mut self, text: usize, run: &Run, with: &Arc<str>) -> bool {
        let ordinary = run.case < self.ordinary;
        match self.check(text, run, with) {
            Ok(passed) => ordinary && passed,
            Err(Error::Input(why)) => !ordinary && why.contains("out of range"),
            Err(_) => {
                // What the driver refused must not be laid at the next one's door.
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
                for dispatch in call.dispatches.iter_mut().filter(|d| d.wgsl == self.texts[text].wgsl) {
                    dispatch.wgsl = with.clone();
                    mutated = true;
                }
                if !mutated {
                    // It runs, but need not be compared.
                    (call.reads, call.writes, call.scratch) = Default::default();
                }
            }
            Ok(())
        })?;
        Ok(session.check(&program, &feeds)?.1.passed())
    }
}
