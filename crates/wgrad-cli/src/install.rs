//! `wgrad completions` and `wgrad man`: what a shell and `man` need, generated from the command line itself.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use wgrad_lab::output::{Out, Stop};

use crate::Cli;

fn utf8(bytes: Vec<u8>) -> Result<String, Stop> {
    String::from_utf8(bytes).map_err(|error| Stop::Error(format!("the generated text is not UTF-8: {error}")))
}

/// Prints the completion script of a shell.
pub fn completions(shell: Shell, out: &mut Out) -> Result<bool, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "wgrad", &mut script);
    out.line(utf8(script)?.trim_end())?;
    Ok(true)
}

/// Prints the manual page of `wgrad`, or writes it and those of the subcommands to a folder.
pub fn man(folder: Option<&Path>, out: &mut Out) -> Result<bool, Stop> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build(); // gives subcommands their full names
    let page = |command: &clap::Command| {
        Man::new(command.clone()).source(concat!("wgrad ", env!("CARGO_PKG_VERSION"))).manual("wgrad manual")
    };
    let Some(folder) = folder else {
        let mut text = Vec::new();
        let rendered = page(&command).render(&mut text);
        rendered.map_err(|error| Stop::Error(format!("cannot render the manual page: {error}")))?;
        out.line(utf8(text)?.trim_end())?;
        return Ok(true);
    };
    let write = |command| page(command).generate_to(folder).map(drop);
    let mut pages = std::iter::once(&command).chain(command.get_subcommands());
    let written = std::fs::create_dir_all(folder).and_then(|()| pages.try_for_each(write));
    written.map_err(|error| Stop::Error(format!("--output: {}: {error}", folder.display())))?;
    out.line(folder.display().to_string())?;
    Ok(true)
}
