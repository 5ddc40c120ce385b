//! `mmuscope completions`: completion scripts for shells.

use crate::{Outcome, args};
use anyhow::Result;
use clap_complete::Shell;
use std::io::Write;

/// Write a completion script for a shell to standard output
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Shell to write the script for
    shell: Shell,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    // The script is made in memory, because clap_complete panics if a reader closes the pipe.
    let mut text = Vec::new();
    clap_complete::generate(a.shell, &mut args::command(), "mmuscope", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(Outcome::Fine)
}
