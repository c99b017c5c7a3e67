//! `cargo bench -- [TASK [SHAPE]]... [OPTIONS]` runs `wgrad bench` with the same arguments.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let words = std::env::args_os().skip(1).filter(|word| word != "--bench");
    match Command::new(env!("CARGO_BIN_EXE_wgrad")).arg("bench").args(words).status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2)),
        Err(error) => {
            eprintln!("error: {}: {error}", env!("CARGO_BIN_EXE_wgrad"));
            ExitCode::from(2)
        }
    }
}
