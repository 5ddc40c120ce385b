//! `mmuscope completions`.

use crate::{Outcome, args};
use anyhow::Result;
use clap_complete::Shell;
use std::io::Write;

/// Shell completions, on standard output
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The shell to write them for
    shell: Shell,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    // Into memory first: clap_complete panics where a reader goes away.
    let mut text = Vec::new();
    clap_complete::generate(a.shell, &mut args::command(), "mmuscope", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(Outcome::Fine)
}
