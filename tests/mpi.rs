//! Ranks that are processes of an MPI job: this program starts itself with `mpirun`, once for each case.
//!
//! `cargo test --release --features mpi --test mpi [PART OF A NAME]` runs the cases on this machine. The case of two hosts
//! needs the privilege to create network namespaces, and is skipped without it. All cases pass under Open MPI. MPICH
//! ends the other ranks before they can name the one that failed, so `error`, `killed` and `leaves` fail under it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use wgrad::Result;
use wgrad::distributed::World;
use wgrad::prelude::*;
use wgrad::train::{Control, Metric, Model, Trainer};

/// Tells a rank its case.
const CASE: &str = "WGRAD_TEST_CASE";
/// Tells a rank the folder for files.
const FOLDER: &str = "WGRAD_TEST_FOLDER";

/// What a job of ranks does, and what must come of it.
struct Case {
    name: &'static str,
    ranks: usize,
    rank: fn(&World) -> Result<()>,
    /// Seconds that ranks wait for each other.
    timeout: u32,
    /// Text that must be in the output of a job that fails; `None` if it must not fail.
    fails: Option<&'static [&'static str]>,
}

const CASES: &[Case] = &[
    Case { name: "exchanges", ranks: 4, rank: exchanges, timeout: 60, fails: None },
    Case { name: "training of 2", ranks: 2, rank: training, timeout: 60, fails: None },
    Case { name: "training of 4", ranks: 4, rank: training, timeout: 60, fails: None },
    Case {
        name: "error",
        ranks: 3,
        rank: error,
        timeout: 60,
        fails: Some(&["rank 1 (", "failed: out of device memory: all of it"]),
    },
    Case { name: "killed", ranks: 3, rank: killed, timeout: 5, fails: Some(&["rank 1"]) },
    Case { name: "hangs", ranks: 3, rank: hangs, timeout: 2, fails: Some(&["rank 2 (", "is busy after exchange"]) },
    Case { name: "stopped", ranks: 3, rank: stopped, timeout: 2, fails: Some(&["rank 2 (", "does not respond"]) },
    Case { name: "leaves", ranks: 3, rank: leaves, timeout: 60, fails: Some(&["rank 2 (", "has ended, but rank"]) },
    Case { name: "panics", ranks: 2, rank: panics, timeout: 60, fails: Some(&["rank 1 (", "panicked"]) },
];

/// How long a job that fails may take after the time for which ranks wait.
const GRACE: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    if let Ok(name) = env::var(CASE) {
        let case = CASES.iter().find(|case| case.name == name).expect("a case");
        let done = World::init().and_then(|world| (case.rank)(&world));
        return match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let wanted = env::args().nth(1).filter(|word| !word.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for case in CASES.iter().filter(|case| case.name.contains(&wanted)) {
        let began = Instant::now();
        let result = judge(case);
        let seconds = began.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("{} ({seconds:.1} s): ok", case.name),
            Err(why) => {
                failed += 1;
                println!("{} ({seconds:.1} s): {why}", case.name);
            }
        }
    }
    if "two hosts".contains(&wanted) {
        match two_hosts() {
            Ok(what) => println!("two hosts: {what}"),
            Err(why) => {
                failed += 1;
                println!("two hosts: {why}");
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn mpirun(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["-n", &ranks.to_string()]);
    let version = Command::new("mpirun").arg("--version").output().expect("mpirun");
    if String::from_utf8_lossy(&version.stdout).contains("Open MPI") {
        command.arg("--oversubscribe").env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    command
}

fn job(case: &Case, mut command: Command, folder: &Path) -> Output {
    command.env(CASE, case.name).env(FOLDER, folder).env("WGRAD_RANK_TIMEOUT", case.timeout.to_string());
    command.arg(env::current_exe().expect("this program")).stdin(Stdio::null()).output().expect("mpirun")
}

/// Runs a case; an error text if it went wrong.
fn judge(case: &Case) -> std::result::Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let output = job(case, mpirun(case.ranks), folder.path());
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    let limit = Duration::from_secs(u64::from(case.timeout)) + GRACE;
    match case.fails {
        None if !output.status.success() => Err(format!("{}\n{text}", output.status)),
        Some(_) if output.status.success() => Err(format!("it should have failed\n{text}")),
        Some(_) if began.elapsed() > limit => Err(format!("it ended after {:?}\n{text}", began.elapsed())),
        Some(parts) => match parts.iter().find(|part| !text.contains(**part)) {
            Some(part) => Err(format!("`{part}` is missing in:\n{text}")),
            None if case.name == "killed" => resume(folder.path()),
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// After a rank was killed, its training resumes on one rank, from a whole checkpoint.
fn resume(folder: &Path) -> std::result::Result<(), String> {
    let mut session = Session::new(Device::cpu());
    let history = trainer(2).folder(folder.join("run")).resume(true).fit(&mut session, &data(), None);
    let epochs = history.map_err(|error| error.to_string())?.epochs.len();
    let log = fs::read_to_string(folder.join("run/metrics.jsonl")).map_err(|error| error.to_string())?;
    let steps = log.matches("\"kind\":\"step\"").count();
    if (epochs, steps) == (2, 12) { Ok(()) } else { Err(format!("{epochs} epochs and {steps} steps after resuming")) }
}

/// Two ranks in two network namespaces with an address each, which talk over TCP.
fn two_hosts() -> std::result::Result<&'static str, String> {
    let run = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let is_open_mpi = run("mpirun --version | grep -q 'Open MPI'");
    let clean = "ip netns delete wgrad1; ip netns delete wgrad2; true";
    let create = "ip netns add wgrad1 && ip netns add wgrad2 \
        && ip link add wgrad1 netns wgrad1 type veth peer name wgrad2 netns wgrad2 \
        && for n in 1 2; do ip netns exec wgrad$n ip address add 10.213.7.$n/24 dev wgrad$n \
        && ip netns exec wgrad$n ip link set wgrad$n up && ip netns exec wgrad$n ip link set lo up || exit 1; done";
    run(clean);
    if !is_open_mpi || !run(create) {
        run(clean);
        return Ok("skipped: needs Open MPI, `ip`, and the privilege to create network namespaces");
    }
    let folder = tempfile::tempdir().expect("a folder");
    // In place of ssh: `agent HOST COMMAND...` runs a command in the namespace whose address the host is.
    let agent = folder.path().join("agent");
    let script = "#!/bin/sh\nhost=$1; shift\nexec ip netns exec wgrad${host##*.} sh -c \"$*\"\n";
    fs::write(&agent, script).and_then(|()| executable(&agent)).map_err(|error| error.to_string())?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", "wgrad1", "mpirun", "-n", "2", "--host", "10.213.7.1,10.213.7.2"]);
    command.args(["--mca", "plm_rsh_agent"]).arg(&agent).args(["--mca", "btl", "tcp,self"]);
    command.args(["--mca", "btl_tcp_if_include", "10.213.7.0/24", "--mca", "oob_tcp_if_include", "10.213.7.0/24"]);
    command.args(["-x", CASE, "-x", FOLDER, "-x", "WGRAD_RANK_TIMEOUT"]);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    let case = CASES.iter().find(|case| case.name == "training of 2").expect("a case");
    let output = job(case, command, folder.path());
    let sent = Command::new("ip")
        .args(["netns", "exec", "wgrad2", "cat", "/sys/class/net/wgrad2/statistics/tx_bytes"])
        .output()
        .ok()
        .and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().ok());
    run(clean);
    match (output.status.success(), sent) {
        (true, Some(sent)) if sent > 10_000 => Ok("ok"),
        (true, sent) => Err(format!("only {sent:?} bytes went through the network")),
        _ => Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()),
    }
}

#[cfg(unix)]
fn executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn exchanges(world: &World) -> Result<()> {
    let (rank, ranks) = (world.rank() as f64, world.ranks() as f64);
    assert_eq!(world.sum(&[rank, 0.1])?, [ranks * (ranks - 1.0) / 2.0, 0.1 + 0.1 + 0.1 + 0.1]);
    assert_eq!(world.rank_on_node(), world.rank(), "all are on one node");
    assert_eq!(world.sum(&[])?, [0.0; 0]);
    let values: Vec<f32> = (0..100_003).map(|i| (i as f32 * 0.37).sin() * (1.0 + rank as f32)).collect();
    let exact = |i: usize| f64::from((i as f32 * 0.37).sin()) * ranks * (ranks + 1.0) / 2.0;
    for (compressed, bound) in [(false, 1e-6), (true, 1.1e-3)] {
        let sums = world.sum_f32(values.clone(), compressed)?;
        assert_eq!(sums.len(), values.len());
        for (i, &sum) in sums.iter().enumerate() {
            assert!((f64::from(sum) - exact(i)).abs() <= bound * exact(i).abs() + 1e-9, "{i}: {sum} and {}", exact(i));
        }
        let bits: Vec<u8> = sums.iter().flat_map(|sum| sum.to_bits().to_le_bytes()).collect();
        assert!(world.gather(bits.clone())?.iter().all(|other| *other == bits), "the ranks have the same bits");
    }
    let mine = vec![world.rank() as u8; world.rank() * 3];
    let all = world.gather(mine)?;
    assert!(all.iter().enumerate().all(|(rank, bytes)| *bytes == vec![rank as u8; rank * 3]), "{all:?}");
    let told = world.broadcast(if world.is_first() { vec![7; 1 << 20] } else { Vec::new() })?;
    assert_eq!(told, vec![7; 1 << 20]);
    Ok(())
}

fn data() -> (Tensor, Tensor) {
    let x: Vec<f32> = (0..3 * 46).map(|i| (i as f32 * 1.7).sin()).collect();
    let y: Vec<f32> = x.chunks(3).map(|x| x[0] * x[1] - 0.5 * x[2]).collect();
    (Tensor::new([46, 3], x).expect("x"), Tensor::new([46, 1], y).expect("y"))
}

fn trainer(epochs: u64) -> Trainer {
    let network = |nn: &Scope, x: &Value| nn.linear("fc2", &nn.linear("fc1", x, 8).tanh(), 1);
    let model = Model::new([3], network).seed(3);
    Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean)).lr(0.01).epochs(epochs).batch(8).quiet()
}

/// The weights after a training of several ranks are those of one, on the reference and on the best adapter.
fn training(world: &World) -> Result<()> {
    for (device, bound) in [(Device::cpu(), 1e-6), (Device::of_rank(world, None)?, 2e-4)] {
        let train = |world: Option<&World>| -> Result<(Vec<f64>, f64)> {
            let trainer = trainer(3).metrics([Metric::R2]);
            let mut trainer = world.into_iter().fold(trainer, Trainer::distributed);
            let mut session = Session::new(device.clone());
            let history = trainer.fit(&mut session, &data(), Some(&data()))?;
            let r2 = history.epochs[2].validation.as_ref().and_then(|validation| validation.get("r2"));
            let weights: Result<Vec<Tensor>> = session.names().iter().map(|name| session.get(name)).collect();
            Ok((weights?.iter().flat_map(Tensor::to_f64).collect(), r2.unwrap_or(f64::NAN)))
        };
        let ((alone, r2), (together, other_r2)) = (train(None)?, train(Some(world))?);
        assert_eq!(train(Some(world))?.0, together, "{device}: another run has the same bits");
        for (a, b) in alone.iter().zip(&together) {
            assert!((a - b).abs() <= bound * a.abs().max(0.1), "{device}: {a} and {b}");
        }
        assert!((r2 - other_r2).abs() <= bound, "{device}: {r2} and {other_r2}");
    }
    Ok(())
}

fn folder() -> PathBuf {
    env::var_os(FOLDER).expect("a folder").into()
}

/// A training in which a rank does something within the second epoch.
fn disturbed(world: &World, which: usize, what: impl Fn() -> Result<()> + 'static) -> Result<()> {
    let rank = world.rank();
    let trainer = trainer(1000).folder(folder().join("run")).resume(true).checkpoint_every(2).distributed(world);
    let mut trainer = trainer.on_step(move |event| {
        if rank == which && event.epoch == 2 {
            what()?;
        }
        Ok(Control::Continue)
    });
    trainer.fit(&mut Session::new(Device::cpu()), &data(), None).map(drop)
}

fn error(world: &World) -> Result<()> {
    disturbed(world, 1, || Err(Error::OutOfMemory("all of it".into())))
}

/// Sends a signal to this process.
fn signal(name: &str) {
    let sent = Command::new("kill").args([name, &std::process::id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()));
}

fn killed(world: &World) -> Result<()> {
    disturbed(world, 1, || {
        signal("-KILL");
        Ok(())
    })
}

/// The main thread does not go on.
fn hangs(world: &World) -> Result<()> {
    disturbed(world, 2, || {
        thread::sleep(Duration::from_secs(600));
        Ok(())
    })
}

/// The process does not go on.
fn stopped(world: &World) -> Result<()> {
    disturbed(world, 2, || {
        signal("-STOP");
        Ok(())
    })
}

fn leaves(world: &World) -> Result<()> {
    match world.rank() {
        2 => Ok(()), // drops the world
        _ => world.sum(&[0.0]).map(drop),
    }
}

fn panics(world: &World) -> Result<()> {
    if world.rank() == 1 {
        panic!("a panic that this test wants");
    }
    world.sum(&[1.0]).map(drop)
}
