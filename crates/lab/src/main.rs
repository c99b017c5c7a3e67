//! Mutation tests of the shaders: `cargo run --release -p wgrad-lab -- mutate`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wgrad_lab::mutate::{self, MutateArgs};
use wgrad_lab::output::{Out, Stop, note};

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
}

fn main() -> ExitCode {
    let Command::Mutate(args) = Cli::parse().command;
    match mutate::run(&args, &mut Out::stdout()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(Stop::Closed) => ExitCode::from(2),
        Err(Stop::Error(message) | Stop::Wrong(message)) => {
            note(format!("error: {message}"));
            ExitCode::from(2)
        }
    }
}
