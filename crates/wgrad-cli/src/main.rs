//! The command `wgrad`.

fn main() -> std::process::ExitCode {
    wgrad_cli::main()
}
