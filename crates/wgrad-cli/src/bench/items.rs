//! The tasks and shapes of the command line of `wgrad bench`.

use super::tasks::{GPU, TASKS, Task, find};
use wgrad_lab::output::Stop;

/// The kernels that `bench peak` compares with the microkernels.
const KERNELS: &[(&str, &str)] = &[
    ("matmul", "512x512x512"),
    ("conv2d", "4,64,56,56,64,3,1,1"),
    ("softmax", "1024x1024"),
    ("relu", "4194304"),
    ("sum", "4194304"),
    ("add", "4194304"),
];

/// What to time.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Kernel(&'static str, String),
    Startup,
    Peak,
}

/// Parses the tasks and shapes of the command line.
pub fn parse(words: &[String]) -> Result<Vec<Item>, Stop> {
    let mut items = Vec::new();
    let mut open: Option<&'static Task> = None; // the task that a following shape belongs to
    let mut bare = false; // `open` has no shape yet
    let defaults = |task: &'static Task, items: &mut Vec<Item>| {
        items.extend(task.shapes.iter().map(|shape| Item::Kernel(task.name, (*shape).to_owned())));
    };
    let all = ["all".to_owned()];
    for word in if words.is_empty() { &all } else { words } {
        if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            let task = open
                .ok_or_else(|| Stop::Error(format!("`{word}` is a shape, but no task that takes one precedes it")))?;
            task.sizes(word)?;
            items.push(Item::Kernel(task.name, word.clone()));
            bare = false;
            continue;
        }
        if let Some(task) = open.take().filter(|_| bare) {
            defaults(task, &mut items);
        }
        match word.as_str() {
            "startup" => items.push(Item::Startup),
            "peak" => items.push(Item::Peak),
            "gpu" => {
                for (task, shapes) in GPU {
                    items.extend(shapes.iter().map(|shape| Item::Kernel(task, (*shape).to_owned())));
                }
            }
            "all" => {
                items.push(Item::Startup);
                TASKS.iter().for_each(|task| defaults(task, &mut items));
                items.push(Item::Peak);
            }
            name => {
                let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
                open = Some(find(name).ok_or_else(|| {
                    Stop::Error(format!("no task `{name}`; there are {}, startup, peak, gpu and all", names.join(", ")))
                })?);
                bare = true;
            }
        }
    }
    if let Some(task) = open.filter(|_| bare) {
        defaults(task, &mut items);
    }
    if items.contains(&Item::Peak) {
        for (task, shape) in KERNELS {
            items.push(Item::Kernel(task, (*shape).to_owned()));
        }
    }
    let mut seen: Vec<Item> = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(words: &[&str]) -> Result<Vec<Item>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&words).map_err(|stop| match stop {
            Stop::Error(message) | Stop::Wrong(message) => message,
            Stop::Closed => "closed".to_owned(),
        })
    }

    #[test]
    fn shapes_belong_to_the_preceding_task() {
        let kernel = |task, shape: &str| Item::Kernel(task, shape.to_owned());
        let found = named(&["matmul", "2x3x4", "5x6x7x8", "softmax", "startup", "relu", "10"]).expect("tasks");
        let want = [
            kernel("matmul", "2x3x4"),
            kernel("matmul", "5x6x7x8"),
            kernel("softmax", "1024x1024"),
            Item::Startup,
            kernel("relu", "10"),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn all_is_everything_once() {
        let all = named(&[]).expect("tasks");
        assert_eq!(all, named(&["all"]).expect("tasks"));
        let shapes: usize = TASKS.iter().map(|task| task.shapes.len()).sum();
        assert_eq!(all.len(), shapes + 2);
        assert_eq!(named(&["all", "all", "matmul"]).expect("tasks"), all);
    }

    #[test]
    fn the_shapes_for_gpus_are_valid() {
        for (name, shapes) in GPU {
            let task = find(name).expect("a task");
            shapes.iter().for_each(|shape| assert!(task.sizes(shape).is_ok(), "{name} {shape}"));
        }
        let shapes: usize = GPU.iter().map(|(_, shapes)| shapes.len()).sum();
        assert_eq!(named(&["gpu"]).expect("tasks").len(), shapes);
    }

    #[test]
    fn peak_adds_the_kernels_to_compare() {
        assert_eq!(named(&["peak"]).expect("tasks").len(), 1 + KERNELS.len());
    }

    #[test]
    fn bad_arguments_are_reported() {
        for (words, message) in [
            (&["matmull"][..], "no task `matmull`; there are matmul, matmul_q8, matmul_q4, conv2d"),
            (&["64x64x64"], "no task that takes one precedes it"),
            (&["startup", "64x64x64"], "no task that takes one"),
            (&["matmul", "64x64"], "it has 2 numbers; expected MxKxN or BxMxKxN, such as 256x256x256"),
            (&["matmul", "64xx64"], "`` is not a whole number"),
            (&["matmul", "64x0x64"], "a size is 0"),
            (&["matmul", "-1x2x3"], "`-1` is not a whole number"),
            (&["conv2d", "1,2,3"], "expected N,C,H,W,O,K,stride,pad"),
            (&["conv2d", "1,2,8,8,4,3,0,0"], "a size is 0"),
            (&["mlp_step", "64,10"], "it has 2 numbers"),
        ] {
            let found = named(words).expect_err("an error");
            assert!(found.contains(message), "{words:?}: {found}");
        }
        assert!(named(&["conv2d", "1,2,8,8,4,3,1,0"]).is_ok(), "a padding may be 0");
    }
}
