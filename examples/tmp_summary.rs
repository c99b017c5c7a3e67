use wgrad::nn::*;
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Graph, Reduction, Value, models};
fn main() -> wgrad::Result<()> {
    let out = std::env::args().nth(1).unwrap();
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1, 3, 224, 224]);
    let y = models::resnet18(&Scope::train(&graph, 0), &x, 1000);
    let s = graph.summary(&[&y])?;
    println!("{s}\n");
    std::fs::write(format!("{out}/resnet.dot"), s.to_dot()).unwrap();
    std::fs::write(format!("{out}/resnet.mmd"), s.to_mermaid()).unwrap();
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1, 3, 224, 224]);
    let y = models::resnet18(&Scope::eval(&graph, 0).frozen(), &x, 1000);
    println!("{}\n", graph.summary(&[&y])?.to_string().lines().rev().take(4).collect::<Vec<_>>().join("\n"));

    for dtype in [DType::F32, DType::F16] {
        let graph = Graph::new();
        let nn = Scope::train(&graph, 0).mixed(dtype);
        let tokens = graph.input("tokens", DType::I32, [8, 32]);
        let x =
            Embedding::new(&nn, "tok", 100, 64).forward(&tokens) + nn.activation(&sinusoidal_positions(&graph, 32, 64));
        let enc = TransformerEncoder::new(&nn, "encoder", 2, |nn, name| {
            TransformerEncoderLayer::new(nn, name, 64, 4, 256, 0.1).norm_first().activation(Value::gelu).causal()
        })
        .norm(LayerNorm::new(&nn, "encoder.norm", &[64]));
        let logits = nn.linear("head", &enc.forward(&x), 100);
        let target = graph.input("target", DType::I32, [256]);
        let loss =
            logits.reshape(&[-1, 100]).cross_entropy(&target, Reduction::Mean) + graph.l2_penalty(0.01, |_| true);
        Adam::new().minimize(&graph, &loss);
        let s = graph.summary(&[&loss])?;
        println!("{s}\n");
        if dtype == DType::F32 {
            std::fs::write(format!("{out}/lm.dot"), s.to_dot()).unwrap();
            std::fs::write(format!("{out}/lm.mmd"), s.to_mermaid()).unwrap();
        }
    }
    let graph = Graph::new();
    let nn = Scope::train(&graph, 0);
    let x = graph.input("x", DType::F32, [8, 32, 10]);
    let y = Recurrent::lstm(&nn, "lstm", 10, 20, RecurrentOptions::default().layers(2).bidirectional()).forward(&x);
    let y = nn.layer_norm("norm", &nn.linear("fc", &y, 3));
    println!("{}\n", graph.summary(&[&y])?);
    let graph = Graph::new();
    let loss = models::mnist_cnn_training_with(&graph, 64, 0, 0.5);
    println!("{}\n", graph.summary(&[&loss])?);
    let text = graph.to_string();
    println!("{}", text.lines().take(60).collect::<Vec<_>>().join("\n"));
    println!("{}", text.lines().rev().take(5).collect::<Vec<_>>().join("\n"));
    Ok(())
}
