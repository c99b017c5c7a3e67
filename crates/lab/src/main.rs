//! Mutation tests of the shaders, and the tables of docs/RESULTS.md: `cargo run --release -p wgrad-lab -- COMMAND`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wgrad_lab::mutate::{self, MutateArgs};
use wgrad_lab::output::{Out, Stop, note};
use wgrad_lab::results;

/// Test tools for wgrad.
#[derive(Parser)]
#[command(name = "wgrad-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mutate shaders at random and report the mutants that no case detects
    Mutate(MutateArgs),
    /// Rewrite the generated tables of docs/RESULTS.md from the files in docs/measurements
    Results,
}

fn main() -> ExitCode {
    let mut out = Out::stdout();
    let done = match Cli::parse().command {
        Command::Mutate(args) => mutate::run(&args, &mut out).map(drop),
        Command::Results => results::run(&mut out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Closed) => ExitCode::from(2),
        Err(Stop::Error(message) | Stop::Wrong(message)) => {
            note(format!("error: {message}"));
            ExitCode::from(2)
        }
    }
}
