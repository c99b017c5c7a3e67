//! Models as tables, pictures and text. Needs no GPU.

use wgrad::nn::{Embedding, Layer, LayerNorm, Recurrent, RecurrentOptions, Scope, TransformerEncoderLayer};
use wgrad::optim::{Optimizer, Sgd};
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Error, Graph, Profile, Reduction, Tensor, Value, models};

type Summary = wgrad::graph::Summary;

/// The layers and ops of the rows that are not inputs.
fn layers(summary: &Summary) -> Vec<(&str, String)> {
    let rows = summary.rows.iter().filter(|row| !row.is_input());
    rows.map(|row| (row.layer.as_str(), row.ops.join(" "))).collect()
}

#[test]
fn a_resnet_has_the_figures_that_torchinfo_prints() {
    for train in [true, false] {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [1, 3, 224, 224]);
        let nn = if train { Scope::train(&graph, 0) } else { Scope::eval(&graph, 0) };
        let summary = graph.summary(&[&models::resnet18(&nn, &x, 1000)]).unwrap();
        assert_eq!(summary.parameters(), 11_689_512);
        assert_eq!(summary.multiply_adds(), 1_814_073_344);
        let row = |layer: &str| summary.rows.iter().find(|row| row.layer == layer).unwrap();
        assert_eq!(row("conv1").multiply_adds, 64 * 112 * 112 * 3 * 49);
        assert_eq!(row("layer3.0.downsample.0").output.to_string(), "f32[1, 256, 14, 14]");
        assert_eq!((row("layer4.1.conv2").parameters, row("fc").parameters), (512 * 512 * 9, 513_000));
        assert_eq!((row("layer4.1.conv2").part.as_str(), row("fc").part.as_str()), ("layer4.1", ""));
        // A convolution, a norm with its scale and shift, and the sum and activation after two of them.
        let all = layers(&summary);
        assert_eq!(all.iter().filter(|(_, ops)| ops == "conv2d").count(), 20);
        assert_eq!(all.iter().filter(|(layer, _)| layer.contains("bn") || layer.contains("downsample.1")).count(), 20);
        assert_eq!(all.iter().filter(|(layer, ops)| layer.is_empty() && ops.starts_with("add relu")).count(), 8);
        assert_eq!(all.len(), 49);
        // In evaluation, the outputs depend on the running statistics.
        assert_eq!(row("bn1").other_variables, 128);
    }
}

#[test]
fn ops_belong_to_the_layers_whose_parameters_they_read() {
    let graph = Graph::new();
    let nn = Scope::train(&graph, 0);
    let tokens = graph.input("tokens", DType::I32, [2, 8]);
    let embedding = Embedding::new(&nn, "tokens.table", 11, 12);
    let x = embedding.forward(&tokens);
    let layer = TransformerEncoderLayer::new(&nn, "block.0", 12, 3, 20, 0.1).norm_first().activation(Value::gelu);
    let x = LayerNorm::new(&nn, "norm", &[12]).forward(&layer.forward(&x));
    let x = Recurrent::gru(&nn, "gru", 12, 6, RecurrentOptions::default().layers(2)).forward(&x);
    // A weight without a layer, and the embedding's again.
    let tied = x.matmul(&graph.parameter("up", Tensor::zeros(&wgrad::TensorType::new(DType::F32, [6, 12]))));
    let logits = tied.matmul(&embedding.weight.t()).reshape(&[16, 11]);
    let targets = graph.input("targets", DType::I32, [16]);
    let loss = logits.cross_entropy(&targets, Reduction::Mean) + graph.l2_penalty(0.1, |_| true);
    Sgd::new().minimize(&graph, &loss);
    let summary = graph.summary(&[&loss]).unwrap();
    let names: Vec<&str> = layers(&summary).into_iter().map(|(layer, _)| layer).collect();
    let expected = [
        "tokens.table",
        "block.0.norm1",
        "block.0.self_attn",
        "block.0.self_attn.out_proj",
        "", // the shortcut
        "block.0.norm2",
        "block.0.linear1",
        "block.0.linear2",
        "",
        "norm",
        "gru",
        "up",
        "tokens.table",
        "", // the loss
    ];
    assert_eq!(names, expected, "{summary}");
    let count: usize = graph.parameters().iter().map(|(_, value)| value.shape().numel()).sum();
    assert_eq!(summary.parameters(), count, "each is counted once");
    let row = |name: &str| summary.rows.iter().find(|row| !row.is_input() && row.layer == name).unwrap();
    // Keys of all queries, twice; projections of query, key and value.
    assert_eq!(row("block.0.self_attn").multiply_adds, 2 * 3 * 8 * 8 * (4 + 4) + 16 * 12 * 36);
    // Two layers: projections of the input, and of the state in each of 8 steps.
    assert_eq!(row("gru").multiply_adds, 16 * 18 * (12 + 6) + 16 * 18 * (6 + 6));
    assert_eq!(row("gru").output.to_string(), "f32[2, 8, 6]");
    assert_eq!(row("block.0.self_attn").part, "block.0.self_attn");
    assert_eq!(row("block.0.linear1").part, "block.0");
    let shortcut = summary.rows.iter().position(|row| row.layer == "block.0.norm2").unwrap() - 1;
    assert_eq!(summary.rows[shortcut].part, "block.0");
    assert_eq!(summary.rows[shortcut].inputs.len(), 2);
}

#[test]
fn kept_memory_is_what_the_gradients_read() {
    // x [2, 4], fc1, relu [2, 6], fc2 [2, 3], the mean of squares.
    let kept = |frozen: &[&str], dtype: DType| {
        let graph = Graph::new();
        let nn = Scope::train(&graph, 0).mixed(dtype);
        let of = |name: &str| if frozen.contains(&name) { nn.frozen() } else { nn.clone() };
        let x = nn.activation(&graph.input("x", DType::F32, [2, 4]));
        let hidden = of("fc1").linear("fc1", &x, 6).relu();
        let loss = of("fc2").linear("fc2", &hidden, 3).square().mean_all();
        let summary = graph.summary(&[&loss]).unwrap();
        let row = |name: &str| summary.rows.iter().find(|row| row.layer == name).unwrap();
        let (one, two) = (row("fc1"), row("fc2"));
        let counts = |row: &wgrad::graph::SummaryRow| (row.parameters, row.other_variables);
        assert_eq!(counts(one), if frozen.contains(&"fc1") { (0, 30) } else { (30, 0) });
        assert_eq!(counts(two), if frozen.contains(&"fc2") { (0, 21) } else { (21, 0) });
        (one.kept_bytes, two.kept_bytes)
    };
    assert_eq!(kept(&[], DType::F32), (48, 24));
    assert_eq!(kept(&["fc1"], DType::F32), (48, 24), "fc2 reads the output of fc1");
    assert_eq!(kept(&["fc2"], DType::F32), (48, 24), "the relu reads its output");
    assert_eq!(kept(&["fc1", "fc2"], DType::F32), (0, 0));
    assert_eq!(kept(&[], DType::F16), (24, 12), "half as much in half precision");
}

#[test]
fn a_summary_needs_a_graph_without_errors_and_its_own_values() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 4]);
    let other = Graph::new().input("x", DType::F32, [2, 4]);
    assert!(matches!(graph.summary(&[&other]), Err(Error::Input(_))));
    assert!(graph.summary(&[]).unwrap().rows.is_empty());
    x.matmul(&x);
    assert!(matches!(graph.summary(&[&x]), Err(Error::Graph(errors)) if errors.len() == 1));
}

#[test]
fn the_table_is_aligned_and_ends_with_totals() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [64, 1, 28, 28]);
    let text = graph.summary(&[&models::mnist_cnn(&Scope::train(&graph, 0), &x)]).unwrap().to_string();
    let guide = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/GUIDE.md");
    assert!(
        std::fs::read_to_string(guide).unwrap().contains(&format!("```text\n{text}\n```")),
        "the guide has:\n{text}"
    );
    let lines: Vec<&str> = text.lines().collect();
    let row = |name: &str| *lines.iter().find(|line| line.starts_with(name)).unwrap();
    let end = row("layer").find("parameters").unwrap() + "parameters".len();
    for (name, number) in [("conv1", "320"), ("conv2", "18,496"), ("fc1", "204,928"), ("fc2", "1,290")] {
        assert!(row(name)[..end].ends_with(&format!(" {number}")), "{text}");
    }
    assert!(row("225,034 parameters, 0 other numbers").ends_with("879.0 KiB in all"), "{text}");
    assert!(row("168.39 M multiply-adds forward; training keeps ").ends_with(" of activations"), "{text}");
}

/// Names with characters that mean something in the languages of the pictures.
fn hostile() -> Summary {
    let graph = Graph::new();
    let nn = Scope::train(&graph, 0);
    let x = graph.input("x\"] --> [<b>\n", DType::F32, [1, 4]);
    let x = nn.part("a\"b\\").part("end").linear("c;d#{}|", &x, 4);
    graph.summary(&[&nn.part("a\"b\\").linear("`&*_", &x.relu(), 4)]).unwrap()
}

/// Whether a quoted string begins at the start of the text; returns its end.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return text.starts_with('"').then_some(at + 1),
            _ => {}
        }
    }
    None
}

#[test]
fn graphviz_gets_nodes_in_clusters_and_edges_between_them() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1, 3, 64, 64]);
    let resnet = graph.summary(&[&models::resnet18(&Scope::train(&graph, 0), &x, 10)]).unwrap();
    for summary in [resnet, hostile()] {
        let text = summary.to_dot();
        let (mut open, mut nodes, mut edges, mut clusters) = (0, Vec::new(), 0, 0);
        for line in text.lines().map(str::trim) {
            if let Some(label) = line.find("label=") {
                let end = quoted(&line[label + 6..]).unwrap_or_else(|| panic!("a label in quotes: {line}"));
                let rest = &line[label + 6 + end..];
                assert!([']', ',', ';'].iter().any(|&c| rest.starts_with(c)), "{line}");
            }
            if let Some((from, to)) = line.strip_prefix('n').and_then(|line| line.split_once(" -> n")) {
                let to: usize = to.split(' ').next().unwrap().parse().unwrap();
                let from: usize = from.parse().unwrap();
                assert!(from < to && nodes.contains(&from) && nodes.contains(&to), "{line}");
                edges += 1;
            } else if let Some(number) = line.strip_prefix('n').and_then(|line| line.split_once(" [label=")) {
                nodes.push(number.0.parse::<usize>().unwrap());
            }
            if let Some(name) = line.strip_prefix("subgraph ") {
                let end = quoted(name).expect("a name in quotes");
                assert_eq!(&name[end..], " {");
                clusters += 1;
            }
            open += i32::from(line.ends_with('{')) - i32::from(line == "}");
        }
        nodes.sort_unstable();
        assert_eq!(nodes, (0..summary.rows.len()).collect::<Vec<_>>(), "each row once");
        assert_eq!(edges, summary.rows.iter().map(|row| row.inputs.len()).sum::<usize>());
        assert_eq!(open, 0);
        // Four stages of two blocks, and three parts of two layers; two parts.
        assert_eq!(clusters, if summary.rows.len() > 10 { 4 + 8 + 3 } else { 2 });
    }
    assert!(hostile().to_dot().contains(r#"subgraph "cluster_a\"b\\.end" {"#), "{}", hostile().to_dot());
}

#[test]
fn mermaid_gets_no_character_that_it_could_misread() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1, 3, 64, 64]);
    let resnet = graph.summary(&[&models::resnet18(&Scope::train(&graph, 0), &x, 10)]).unwrap();
    for summary in [resnet, hostile()] {
        let text = summary.to_mermaid();
        let mut lines = text.lines().map(str::trim);
        assert_eq!(lines.next(), Some("flowchart TD"));
        let (mut open, mut nodes, mut edges) = (0, 0, 0);
        for line in lines {
            if line == "end" {
                open -= 1;
                assert!(open >= 0);
                continue;
            }
            // The text between the only two quotes has no character with a meaning.
            let parts: Vec<&str> = line.split('"').collect();
            let [before, label, after] = parts[..] else { panic!("two quotes: {line}") };
            let plain = label.replace("<br/>", "");
            assert!(
                !plain.contains(['<', '>', '&', '`', '\\', '*', '_', '|', '{', '}']) || plain.contains("{}|"),
                "{line}"
            );
            assert!(
                plain.split('#').skip(1).all(|code| code.split(';').next().unwrap().parse::<u32>().is_ok()),
                "{line}"
            );
            match before {
                _ if before.starts_with("subgraph p") => open += 1,
                _ if before.contains("-->|") => edges += 1,
                _ => nodes += 1,
            }
            assert!([before.ends_with('['), before.ends_with('|'), before.ends_with("([")].contains(&true), "{line}");
            assert!(after.starts_with(']') || after.starts_with('|'), "{line}");
        }
        assert_eq!((open, nodes), (0, summary.rows.len()));
        assert_eq!(edges, summary.rows.iter().map(|row| row.inputs.len()).sum::<usize>());
    }
}

#[test]
fn a_graph_is_printed_line_by_line() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 3]);
    let w = graph.parameter("fc.weight", Tensor::new([1, 3], [1.0f32, 2.0, 3.0]).unwrap());
    let lr = graph.scalar("lr", 0.5);
    let y = x.matmul(&w.t()).slice(0, 0, 1, 1);
    graph.assign(&w, &(&w * lr.broadcast_to(&[1, 3].into())));
    let text = graph.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), graph.nodes().nodes.len() + 1);
    let starts = [
        "%0 = input x: f32[2, 3]  # tests/engine/summary.rs:",
        "%1 = variable fc.weight: f32[1, 3]  # ",
        "%2 = scalar lr (default 0.5): f32[]  # ",
        "%3 = permute(%1) axes=[1, 0]: f32[3, 1]  # ",
        "%4 = matmul(%0, %3): f32[2, 1]  # ",
        "%5 = slice(%4) axis=0 start=0 end=1 step=1: f32[1, 1]  # ",
    ];
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    assert!(lines.last().unwrap().starts_with("%1 <- %7  # tests/engine/summary.rs:"), "{text}");
    // Outputs of a node with several, and errors.
    let index = y.topk(1, 1, true).1;
    index.matmul(&y);
    let text = graph.to_string();
    assert!(text.lines().last().unwrap().starts_with("  at tests/engine/summary.rs:"), "{text}");
    assert!(text.contains("\nerror: matmul("), "{text}");
}

#[test]
fn a_plan_is_printed_launch_by_launch() {
    let graph = Graph::new();
    let loss = models::mnist_cnn_training(&graph, 4, 0);
    for (_, profile) in Profile::named().into_iter().take(4) {
        let (plan, _) = Plan::of(&graph, &[&loss], &profile, &Options::default()).unwrap();
        let text = plan.to_string();
        let launches: Vec<&str> = text.lines().filter(|line| line.contains(" workgroups of ")).collect();
        assert_eq!(launches.len(), plan.dispatches());
        assert!(plan.dispatches() > 20);
        for (number, line) in launches.iter().enumerate() {
            assert!(line.trim_start().starts_with(&format!("{number}: ")) && line.contains(" writes "), "{line}");
        }
        let calls: Vec<&str> = text.lines().filter(|line| line.contains("  # ")).collect();
        assert_eq!(calls.len(), plan.calls.len());
        for (line, call) in calls.iter().zip(&plan.calls) {
            assert!(line.starts_with(&format!("{} -> {}", call.label, call.writes[0].ty)), "{line}");
            assert_eq!(line.contains(", about "), call.kernel.is_some(), "{line}");
        }
        assert!(text.contains("reads x, ") && text.contains("conv1.weight"), "{text}");
        // The estimate is the one that the choice was made by.
        let chosen = plan.explain();
        let first = chosen.lines().find(|line| line.starts_with("  > ")).unwrap();
        let cost: Vec<&str> = first.split_whitespace().skip(2).take(2).collect();
        assert!(calls[0].contains(&format!(", about {}", cost.join(" "))), "{} {first}", calls[0]);
    }
}

#[test]
fn long_graphs_have_summaries() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 3]);
    let w = graph.parameter("w", Tensor::zeros(x.ty()));
    let views = (0..20_000).fold(&x * &w, |x, _| x.permute(&[1, 0]));
    let many = (0..20_000).fold(views.clone(), |x, _| x.tanh());
    let layers = (0..2_000)
        .fold(many.clone(), |x, i| &x.cumsum(0) + &graph.parameter(&format!("layer.{i}.bias"), Tensor::zeros(x.ty())));
    let summary = graph.summary(&[&layers, &views]).unwrap();
    assert_eq!(summary.parameters(), 6 + 6 * 2_000);
    assert_eq!(summary.rows.iter().map(|row| row.ops.len()).sum::<usize>(), 1 + 2 + 2 * 2_000);
    assert_eq!(summary.kept_bytes(), 20_000 * 24, "the results of tanh");
    assert!(summary.to_dot().len() > 100_000);
    // A name of many parts.
    let name = format!("{}fc", "part.".repeat(100_000));
    let y = Scope::train(&graph, 0).linear(&name, &x, 2);
    let summary = graph.summary(&[&y]).unwrap();
    assert_eq!(summary.to_dot().matches("subgraph").count(), 16);
    assert_eq!(summary.to_mermaid().matches("subgraph").count(), 16);
}

/// Every op that multiplies counts as many as a plain loop would.
#[test]
fn products_count_their_multiply_adds() {
    let graph = Graph::new();
    let count = |y: &Value| graph.summary(&[y]).unwrap().multiply_adds();
    let input = |name: &str, dtype, shape: &[usize]| graph.input(name, dtype, shape);
    let (a, b) = (input("a", DType::F32, &[5, 2, 3]), input("b", DType::F32, &[3, 7]));
    assert_eq!(count(&a.matmul(&b)), 5 * 2 * 3 * 7);
    let (a, b) = (input("c", DType::I32, &[2, 3]), input("d", DType::I32, &[3, 7]));
    assert_eq!(count(&a.matmul(&b)), 2 * 3 * 7);
    let (x, w) = (input("x", DType::F32, &[2, 6, 9, 9]), input("w", DType::F32, &[4, 3, 3, 3]));
    let options = wgrad::ops::conv2d::Conv2d::default().stride(2).groups(2);
    assert_eq!(count(&x.conv2d(&w, None, options)), 2 * 4 * 4 * 4 * 3 * 9);
    assert_eq!(count(&x.relu().max_pool2d(3).sum_all()), 0);
}
