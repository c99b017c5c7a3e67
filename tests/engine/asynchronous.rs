//! The async forms, as in a browser: a training with nothing but awaited calls, and what browsers require of shaders.

use wgrad::io::Weights;
use wgrad::nn::Scope;
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Device, Error, Graph, OpenOptions, Reduction, Session, Tensor};

use crate::common;

#[test]
fn a_training_needs_no_blocking_call() {
    for device in common::devices() {
        pollster::block_on(training(device)).unwrap();
    }
}

async fn training(device: Device) -> wgrad::Result<()> {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [8, 3]);
    let y = Scope::train(&graph, 0).linear("fc", &x, 1);
    let loss = y.mse_loss(&graph.input("y", DType::F32, [8, 1]), Reduction::Mean);
    Adam::new().lr(0.1).minimize(&graph, &loss);
    let model = Graph::new();
    Scope::eval(&model, 0).linear("fc", &model.input("x", DType::F32, [8, 3]), 1);

    let on_gpu = !device.is_cpu();
    let mut session = Session::new(device);
    let step = session.compile_async(&graph, &[&loss]).await?;
    let x = Tensor::new([8, 3], (0..24).map(|i| i as f32 / 24.0).collect::<Vec<_>>())?;
    let y = Tensor::new([8, 1], [1.0f32; 8])?;
    let feeds = [("x", &x), ("y", &y)];
    let first = session.run_async(&step, &feeds).await?[0].item()?;
    if on_gpu {
        let (_, report) = session.check_async(&step, &feeds).await?;
        assert!(report.passed() && report.compared() > 0);
    }
    let (_, found) = session.find_nan_async(&step, &feeds).await?;
    assert!(found.is_none());

    // All state as bytes: the same step from the same state gives the same loss.
    let state = session.to_bytes_async().await?;
    let weights = session.weights_to_bytes_async(&model).await?;
    let after = session.start(&step, &feeds)?.outputs_async().await?[0].item()?;
    assert!(after < first);
    session.wait_async().await?;
    let values = session.get_all_async(session.names()).await?;
    assert_eq!(values["fc.weight"], session.get_async("fc.weight").await?);
    session.load_bytes(&state)?;
    assert_eq!(session.run_async(&step, &feeds).await?[0].item()?, after);

    let loaded = session.load_weights_bytes(&weights, &model, &Weights::new())?;
    assert_eq!(loaded.loaded, ["fc.bias", "fc.weight"]);
    let why = session.load_bytes(&weights[..20]).unwrap_err().to_string();
    assert!(why.contains("safetensors in memory"), "{why}");
    Ok(())
}

#[test]
fn errors_of_the_device_are_returned_by_what_is_awaited() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let y = graph.input("x", DType::F32, [4]).exp();
    let mut session = Session::new(device);
    let x = Tensor::new([4], [0.0f32; 4]).unwrap();
    let broken = session.compile_edited(&graph, &[&y], &Default::default(), |plan| {
        plan.calls[0].dispatches[0].wgsl.text = "this is no shader".into();
        Ok(())
    });
    let Err(Error::Gpu(why)) = broken.map(drop) else { panic!("a broken shader was accepted") };
    assert!(why.starts_with("kernel "), "{why}");
    // The session still works.
    let program = pollster::block_on(session.compile_async(&graph, &[&y])).unwrap();
    assert_eq!(pollster::block_on(session.run_async(&program, &[("x", &x)])).unwrap()[0].to_f32(), [1.0; 4]);
}

#[test]
fn devices_are_listed_and_opened() {
    let device = pollster::block_on(Device::open_async(None, &OpenOptions::default())).unwrap();
    assert_eq!(pollster::block_on(Device::list_async()).is_empty(), device.is_cpu());
}
