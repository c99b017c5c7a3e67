//! Training runs step by step: losses before each update, parameters after the last one.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use wgrad::optim::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Sgd};
use wgrad::{DType, Device, Graph, Session, Value};

use super::attrs::{Attrs, Refusal};
use super::compare::{Comparison, Failure, Kind};
use super::files::{Model, Run, Tensors};
use super::ops::{self, Call};
use super::{Outcome, Verdict};

/// Tolerance of losses, and of parameters of non-adaptive optimisers, on an f32 device.
const CLOSE: Kind = Kind::Absolute(1e-5);
/// Adaptive optimisers divide a gradient by its own magnitude: one parameter in a thousand may be an outlier with
/// this tolerance.
const OUTLIER: Kind = Kind::Absolute(2e-4);
const OUTLIERS: usize = 1000;

/// Trains and compares.
pub fn check(run: &Run, model: &Model, tensors: &Tensors, device: &Device) -> Verdict {
    let mut comparison = Comparison::default();
    let outcome = match train(run, model, tensors, device, &mut comparison) {
        Ok(()) => Outcome::Compared,
        Err(Refusal::Unknown(why)) => Outcome::Unknown(why),
        Err(Refusal::Malformed(why)) => {
            comparison.failures.push(Failure::other("run", why));
            Outcome::Compared
        }
    };
    Verdict { name: run.name.clone(), op: format!("training with {}", run.optimizer), outcome, comparison }
}

fn train(
    run: &Run,
    model: &Model,
    tensors: &Tensors,
    device: &Device,
    comparison: &mut Comparison,
) -> Result<(), Refusal> {
    let stored = |key: &str| tensors.get(key).map_err(Refusal::Malformed);
    let (x, target, losses) = (stored(&model.x)?, stored(&model.target)?, stored(&run.losses)?);
    let rows = x.shape.first().copied().unwrap_or(0);
    if model.batch == 0 || model.batch > rows || run.steps == 0 || losses.shape.to_vec() != [run.steps] {
        let why =
            format!("{} rows in batches of {}, losses {} for {} steps", rows, model.batch, losses.shape, run.steps);
        return Err(Refusal::Malformed(why));
    }

    let graph = Graph::new();
    let mut parameters = BTreeMap::new();
    for (name, key) in &model.init {
        let initial = stored(key)?.tensor().map_err(Refusal::Malformed)?;
        parameters.insert(name.clone(), graph.parameter(name, initial));
    }
    let batch = |data: &super::files::Stored, step: usize| {
        data.rows(step % (rows / model.batch) * model.batch, model.batch).map_err(Refusal::Malformed)
    };
    let first = batch(x, 0)?;
    let logits = forward(model, &parameters, &graph.input("x", DType::F32, first.shape()))?;
    let labels = graph.input("target", DType::I32, batch(target, 0)?.shape());
    let loss = loss(&model.loss, &logits, &labels)?;
    optimise(run, &graph, &loss)?;

    let malformed = |error: wgrad::Error| Refusal::Malformed(error.to_string());
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &[&loss]).map_err(malformed)?;
    for (step, &want) in losses.to_f64().iter().enumerate() {
        let feeds = [("x", &batch(x, step)?), ("target", &batch(target, step)?)];
        let got = session.run(&program, &feeds).map_err(malformed)?.swap_remove(0);
        comparison.add(&format!("loss of step {}", step + 1), &got, &[].into(), &[want], CLOSE, device.is_cpu());
    }
    let adaptive = run.class != "SGD";
    let (mut outliers, mut all) = (Comparison::default(), 0);
    for (name, key) in &run.last {
        let got = session.get(name).map_err(malformed)?;
        let want = stored(key)?;
        let values = want.to_f64();
        let bound = if adaptive { OUTLIER } else { CLOSE };
        comparison.add(name, &got, &want.shape, &values, bound, device.is_cpu());
        outliers.add(name, &got, &want.shape, &values, CLOSE, device.is_cpu());
        all += values.len();
    }
    let beyond: usize = outliers.failures.iter().map(Failure::elements).sum();
    if adaptive && beyond > all / OUTLIERS {
        let message = format!("{beyond} of {all} are off by more than 1e-5; one in {OUTLIERS} is allowed");
        comparison.failures.push(Failure::other("parameters", message));
    }
    Ok(())
}

/// Applies the layers in order.
fn forward(model: &Model, parameters: &BTreeMap<String, Value>, x: &Value) -> Result<Value, Refusal> {
    model.layers.iter().try_fold(x.clone(), |x, layer| {
        let mut parts = layer.iter().peekable();
        let Some(op) = parts.next().and_then(Json::as_str) else {
            return Err(Refusal::Malformed(format!("a layer begins with its op's name: {layer:?}")));
        };
        let mut inputs = vec![("x".to_owned(), x)];
        if let Some(name) = parts.next_if(|part| part.is_string()).and_then(Json::as_str) {
            for part in ["weight", "bias"] {
                let parameter = parameters.get(&format!("{name}.{part}"));
                inputs.extend(parameter.map(|parameter| (part.to_owned(), parameter.clone())));
            }
        }
        let none = Map::new();
        let attrs = parts.next().and_then(Json::as_object).unwrap_or(&none);
        let built = ops::build(op, &Call::new(Attrs::new(attrs), inputs, &[]));
        let mut outputs = built.map_err(|refusal| name_layer(op, refusal))?.outputs;
        outputs.pop().ok_or_else(|| Refusal::Malformed(format!("layer `{op}` has no output")))
    })
}

fn name_layer(op: &str, refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Unknown(why) => Refusal::Unknown(format!("layer `{op}` {why}").trim_end().to_owned()),
        Refusal::Malformed(why) => Refusal::Malformed(format!("layer `{op}`: {why}")),
    }
}

/// The loss, a mean over the batch.
fn loss(name: &str, x: &Value, target: &Value) -> Result<Value, Refusal> {
    let attrs = json!({"reduction": "mean", "ignore_index": -100, "label_smoothing": 0.0});
    let attrs = if name == "cross_entropy" { attrs } else { json!({"reduction": "mean"}) };
    let Json::Object(attrs) = attrs else { return Err(Refusal::Malformed(name.to_owned())) };
    let inputs = vec![("x".to_owned(), x.clone()), ("target".to_owned(), target.clone())];
    let built = ops::build(name, &Call::new(Attrs::new(&attrs), inputs, &[]));
    let mut outputs = built.map_err(|refusal| name_layer(name, refusal))?.outputs;
    outputs.pop().ok_or_else(|| Refusal::Malformed(format!("loss `{name}` has no output")))
}

/// Adds the optimiser's updates to the graph.
fn optimise(run: &Run, graph: &Graph, loss: &Value) -> Result<(), Refusal> {
    let hyper = Attrs::new(&run.hyper);
    hyper.only("maximize", false)?;
    let (lr, weight_decay) = (hyper.float("lr")?, hyper.float("weight_decay")?);
    let betas = || hyper.floats("betas").map(|[first, second]| (first, second));
    let optimizer: Box<dyn Optimizer> = match run.class.as_str() {
        "SGD" => {
            hyper.only("dampening", 0.0)?;
            let (momentum, nesterov) = (hyper.float("momentum")?, hyper.flag("nesterov")?);
            Box::new(Sgd::new().lr(lr).weight_decay(weight_decay).momentum(momentum).nesterov(nesterov))
        }
        "RMSprop" => {
            let (alpha, eps) = (hyper.float("alpha")?, hyper.float("eps")?);
            let (momentum, centered) = (hyper.float("momentum")?, hyper.flag("centered")?);
            let plain = RmsProp::new().lr(lr).weight_decay(weight_decay).alpha(alpha).eps(eps);
            Box::new(plain.momentum(momentum).centered(centered))
        }
        "Adam" => {
            hyper.only("amsgrad", false)?;
            Box::new(Adam::new().lr(lr).weight_decay(weight_decay).betas(betas()?).eps(hyper.float("eps")?))
        }
        "AdamW" => {
            hyper.only("amsgrad", false)?;
            Box::new(AdamW::new().lr(lr).weight_decay(weight_decay).betas(betas()?).eps(hyper.float("eps")?))
        }
        "Adagrad" => {
            hyper.only("initial_accumulator_value", 0.0)?;
            let (lr_decay, eps) = (hyper.float("lr_decay")?, hyper.float("eps")?);
            Box::new(Adagrad::new().lr(lr).weight_decay(weight_decay).lr_decay(lr_decay).eps(eps))
        }
        _ => return Err(Refusal::Unknown(String::new())),
    };
    hyper.all_read()?;
    optimizer.minimize(graph, loss);
    Ok(())
}
