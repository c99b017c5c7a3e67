//! Golden folders (`wgrad check --golden`): one line of JSON, then the safetensors file that it describes. The first
//! byte selects one of the two kinds.

// Avoids instrumenting the rest of the crate. Not all of the file is used here.
#[allow(dead_code)]
#[path = "../../src/golden/files.rs"]
mod files;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stem = ["ops", "train"][usize::from(kind % 2)];
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let write = |ending: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(format!("{stem}.{ending}")), bytes).expect("writable");
    };
    write("json", &bytes[..end]);
    write("safetensors", bytes.get(end + 1..).unwrap_or(&[]));
    let golden = match files::load(folder.path()) {
        Ok(golden) => golden,
        Err(why) => return assert!(why.contains(&format!("/{stem}.")), "{why}"),
    };
    if let Some((ops, tensors)) = golden.ops {
        for case in ops.cases {
            for part in case.inputs.iter().chain(&case.outputs) {
                let stored = tensors.get(&format!("{}/{part}", case.name)).expect("was looked for");
                let rows = stored.rows(0, 1);
                assert!(stored.tensor().is_err() || rows.is_ok() == stored.shape.first().is_some_and(|&n| n > 0));
            }
        }
    }
    if let Some((train, tensors)) = golden.train {
        for run in train.runs {
            let model = &train.models[&run.model];
            for key in [&model.x, &model.target, &run.losses] {
                let stored = tensors.get(key).expect("was looked for");
                assert_eq!(stored.to_f64().len(), stored.shape.numel());
            }
        }
    }
}
